//! A tool at work: its programs, and the machine they run in.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::offset_of;
use std::sync::Arc;

use bpfasm::{Arch, Attach, Object, Program, Ring};
use programs::stats::Stats;
use programs::tcp::{AF_INET6, State};

use crate::lab::{Lab, fate, ns, state};
use crate::spec::{STRANGER, Spec};
use crate::vm::code::Code;
use crate::vm::kernel::Kernel;
use crate::vm::machine::{Machine, Sent, Task};
use crate::vm::memory::Memory;

/// An object whose programs can run on a kernel.
pub struct Ready {
    pub object: Object,
    pub programs: Vec<ReadyProgram>,
}

/// A program that can run.
pub struct ReadyProgram {
    pub name: String,
    /// Kernel objects are readable without a helper.
    pub typed: bool,
    /// Relocated for the kernel.
    pub program: Program,
    pub code: Code,
    /// The same for two programs that are the same.
    pub fingerprint: u64,
}

/// A program of an object as a kernel gets it.
pub struct Relocated<'a> {
    /// Its name, and its position in its hook if an earlier program there has the same name.
    pub name: String,
    pub attach: &'a Attach,
    pub program: Program,
}

/// The programs of an object as a kernel gets them.
pub fn relocated<'a>(kernel: &'a Kernel, object: &'a Object) -> impl Iterator<Item = Relocated<'a>> {
    let options = object
        .hooks
        .iter()
        .flat_map(|hook| hook.attach_options.iter().enumerate().map(move |(at, def)| (hook, at, def)));
    options.map(move |(hook, at, def)| {
        let program = loader::relocate(&def.program, &kernel.index, &object.consts)
            .unwrap_or_else(|error| panic!("{} on {kernel:?}: {error}", def.name));
        let is_repeated = hook.attach_options[..at].iter().any(|earlier| earlier.name == def.name);
        let name =
            if is_repeated { format!("{}, option {}", def.name, at + 1) } else { def.name.to_string() };
        Relocated { name, attach: &def.attach, program }
    })
}

impl Ready {
    pub fn new(kernel: &Kernel, object: Object) -> Self {
        let programs = relocated(kernel, &object)
            .map(|Relocated { name, attach, program }| {
                let code =
                    Code::new(&program, &object.maps).unwrap_or_else(|error| panic!("{name}: {error}"));
                let mut hasher = DefaultHasher::new();
                (&name, &program.insns, &program.symbols).hash(&mut hasher);
                ReadyProgram {
                    name,
                    typed: matches!(
                        attach,
                        Attach::TpBtf(_) | Attach::Fentry(_) | Attach::Fexit(_) | Attach::Iter(_)
                    ),
                    program,
                    code,
                    fingerprint: hasher.finish(),
                }
            })
            .collect();
        Self { object, programs }
    }
}

/// The mode of a socket's inode, include/uapi/linux/stat.h.
pub const S_IFSOCK: u64 = 0o140_000;

/// A socket in the machine.
#[derive(Clone, Copy, Debug)]
pub struct Sock {
    /// Its number, for [`Tool::set`].
    pub object: usize,
    /// Its address.
    pub address: u64,
}

/// A tool's programs and the machine they run in.
pub struct Tool<'a> {
    lab: &'a Lab,
    ready: Arc<Ready>,
    /// Away only while a program runs.
    machine: Option<Machine>,
    /// Makes the noise of each object another.
    seed: u64,
    /// Which program walks over open files.
    pub walker: &'static str,
    /// What sockets made from here on have for their cgroup: an address, or 0 for none.
    pub cgroup: u64,
}

/// The programs that walk over open files: with a helper that knows a socket's file, and without.
pub const WALKERS: [&str; 2] = ["task_file", "task_file, option 2"];

impl<'a> Tool<'a> {
    /// Nothing has happened yet.
    pub fn new(lab: &'a Lab, ready: Arc<Ready>) -> Self {
        let machine = Machine::new(lab.kernel, STRANGER, &ready.object.maps);
        Self { lab, ready, machine: Some(machine), seed: 0, walker: WALKERS[0], cgroup: 0 }
    }

    /// What the programs run in.
    pub fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("no program is running")
    }

    /// Whether the tool has a program of this name.
    pub fn has(&self, program: &str) -> bool {
        self.ready.programs.iter().any(|ready| ready.name == program)
    }

    /// Puts an object of noise into the kernel's memory; returns its number.
    pub fn object(&mut self, root: &'static str) -> usize {
        self.seed += 1;
        let object = self.lab.kernel.object(root, self.seed);
        self.machine().add(object)
    }

    /// Puts bytes into the kernel's memory, such as a packet's headers; returns their address.
    /// Programs reach them only by `bpf_probe_read_kernel`.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        self.machine().add_bytes(bytes)
    }

    /// Where an object is.
    pub fn address(&mut self, object: usize) -> u64 {
        self.machine().object(object).address()
    }

    /// Sets a field of an object.
    pub fn set(&mut self, object: usize, path: &'static str, value: u64) {
        self.machine().object(object).set(path, value);
    }

    /// Gives a socket, or what begins like one, its family, addresses and remote port, in a network
    /// namespace of its own.
    pub fn set_endpoints(&mut self, object: usize, spec: &Spec) {
        let net = self.object("net");
        let machine = self.machine();
        let (net, object) = (machine.object(net), machine.object(object));
        net.set("net.ns.inum", spec.netns.into());
        object.set("sock_common.skc_net.net", net.address());
        object.set("sock_common.skc_family", spec.family.into());
        let (local, remote, len) = if spec.family == AF_INET6 {
            ("sock_common.skc_v6_rcv_saddr", "sock_common.skc_v6_daddr", 16)
        } else {
            ("sock_common.skc_rcv_saddr", "sock_common.skc_daddr", 4)
        };
        object.set_bytes(local, &spec.laddr[..len]);
        object.set_bytes(remote, &spec.raddr[..len]);
        object.set("sock_common.skc_dport", spec.rport.to_be().into());
    }

    /// A socket, closed and not locked, in a network namespace of its own.
    pub fn sock(&mut self, spec: &Spec) -> Sock {
        let cgroup = self.cgroup;
        let sock = self.object("tcp_sock");
        self.set_endpoints(sock, spec);
        let machine = self.machine();
        let object = machine.object(sock);
        object.set("sock_common.skc_state", State::CLOSE.0.into());
        object.set("sock.sk_protocol", spec.protocol.into());
        object.set("sock.sk_type", spec.kind.into());
        object.set("inet_sock.inet_sport", spec.lport.to_be().into());
        object.set_bytes("sock.sk_cgrp_data", &cgroup.to_ne_bytes());
        object.set("sock.sk_err", spec.err.into());
        object.set("sock.sk_shutdown", 0);
        object.set("tcp_sock.bytes_acked", spec.bytes_acked);
        object.set("tcp_sock.bytes_received", spec.bytes_received);
        object.set("tcp_sock.bytes_sent", spec.bytes_sent);
        object.set("tcp_sock.bytes_retrans", spec.bytes_retrans);
        object.set("tcp_sock.snd_una", spec.snd_una.into());
        object.set("tcp_sock.write_seq", spec.write_seq.into());
        // Of all the flags only this one, or all but this one.
        let done = 1 << machine.kernel.enum_value("sock_flags", "SOCK_DONE");
        object.set("sock_common.skc_flags", if spec.fin_received { done } else { !done });
        let address = object.address();
        let sock = Sock { object: sock, address };
        self.owned(sock, false);
        sock
    }

    /// A cgroup of this number in another, or with 0 in none; returns its address.
    pub fn cgroup(&mut self, id: u64, parent: u64) -> u64 {
        let [node, cgroup] = ["kernfs_node", "cgroup"].map(|root| self.object(root));
        let member = self.lab.kernel.place("cgroup.self").offset as u64;
        let machine = self.machine();
        let (node, cgroup) = (machine.object(node), machine.object(cgroup));
        node.set("kernfs_node.id", id);
        cgroup.set("cgroup.kn", node.address());
        cgroup.set("cgroup.self.parent", if parent == 0 { 0 } else { parent + member });
        cgroup.address()
    }

    /// Sets whether the current task has locked the socket.
    pub fn owned(&mut self, sock: Sock, owned: bool) {
        // The kernel says 1. Any bit will do to see that all of them are looked at.
        self.set(sock.object, "sock.sk_lock.owned", u64::from(owned) << 16);
    }

    /// Sets a field of a socket.
    pub fn set_sock(&mut self, sock: Sock, path: &'static str, value: u64) {
        self.set(sock.object, path, value);
    }

    /// A field of a socket.
    pub fn get_sock(&mut self, sock: Sock, path: &'static str) -> u64 {
        self.machine().object(sock.object).get(path)
    }

    /// From now on it is [`ns`]`(now)`, and `task` runs.
    pub fn at(&mut self, now: u64, task: Task) {
        let machine = self.machine();
        (machine.now, machine.task) = (ns(now), task);
    }

    /// A change of state by `task`, which has locked the socket: a system call.
    pub fn call(&mut self, now: u64, task: Task, sock: Sock, old: State, new: State) -> Stats {
        self.at(now, task);
        self.owned(sock, true);
        let fate = self.change(sock, old, new);
        self.owned(sock, false);
        fate
    }

    /// A change of state by a packet or a timer, while [`STRANGER`] happens to run.
    pub fn softirq(&mut self, now: u64, sock: Sock, old: State, new: State) -> Stats {
        self.at(now, STRANGER);
        self.change(sock, old, new)
    }

    /// A change of state as things are. Returns what it was counted as.
    pub fn change(&mut self, sock: Sock, old: State, new: State) -> Stats {
        // The tracepoint fires before the store, and after the port is given back.
        self.set(sock.object, "sock_common.skc_state", old.0.into());
        if new == State::CLOSE {
            self.set(sock.object, "sock_common.skc_num", 0);
        }
        let fate = self.run("inet_sock_set_state", &[sock.address, old.0.into(), new.0.into()]);
        self.set(sock.object, "sock_common.skc_state", new.0.into());
        fate
    }

    /// A change of state by what usually makes such a change: a system call of `task` or a packet.
    pub fn step(&mut self, now: u64, task: Task, sock: Sock, old: State, new: State) -> Stats {
        use state::{CLOSE, FIN_WAIT1, LAST_ACK, LISTEN, SYN_SENT};
        let by_call =
            matches!(new, SYN_SENT | LISTEN | FIN_WAIT1 | LAST_ACK) || (old, new) == (LISTEN, CLOSE);
        if by_call { self.call(now, task, sock, old, new) } else { self.softirq(now, sock, old, new) }
    }

    /// The kernel frees the socket.
    pub fn destroy(&mut self, sock: Sock) {
        assert_eq!(self.run("tcp_destroy_sock", &[sock.address]), fate::NOTHING);
    }

    /// `task` sends or receives.
    pub fn length(&mut self, program: &str, task: Task, sock: Sock) {
        self.at(0, task);
        assert_eq!(self.run(program, &[sock.address, 5, 0]), fate::NOTHING);
    }

    /// `task`'s accept returns `returned`, seen from the function's exit.
    pub fn accept_fexit(&mut self, task: Task, returned: Option<u64>) {
        self.at(0, task);
        self.machine().returned = returned;
        assert_eq!(self.run("accept_fexit", &[0x1111, 0x2222, 0x3333]), fate::NOTHING);
    }

    /// `task`'s accept returns `returned`, seen from a probe at its return.
    pub fn accept_ret(&mut self, task: Task, returned: u64) {
        self.at(0, task);
        assert_eq!(self.returns("accept_ret", returned), fate::NOTHING);
    }

    /// Runs a program on a probe at a function's return. Returns what it was counted as.
    pub fn returns(&mut self, program: &str, returned: u64) -> Stats {
        match self.lab.kernel.arch {
            Arch::X86_64 => self.probe(program, &[("pt_regs.ax", returned)]),
            Arch::Aarch64 => self.probe(program, &[("user_pt_regs.regs", returned)]),
        }
    }

    /// Runs a program on a probe at a function's entry, with these arguments. Returns what it was
    /// counted as.
    pub fn enters(&mut self, program: &str, arguments: &[u64]) -> Stats {
        match self.lab.kernel.arch {
            Arch::X86_64 => {
                let names =
                    ["pt_regs.di", "pt_regs.si", "pt_regs.dx", "pt_regs.cx", "pt_regs.r8", "pt_regs.r9"];
                assert!(arguments.len() <= names.len());
                let registers: Vec<_> = names.into_iter().zip(arguments.iter().copied()).collect();
                self.probe(program, &registers)
            }
            Arch::Aarch64 => {
                let regs = self.lab.kernel.object("user_pt_regs", 77);
                let words: Vec<u8> = arguments.iter().flat_map(|word| word.to_le_bytes()).collect();
                regs.set_bytes("user_pt_regs.regs", &words);
                self.run_at(program, &regs.memory)
            }
        }
    }

    fn probe(&mut self, program: &str, registers: &[(&'static str, u64)]) -> Stats {
        let root = match self.lab.kernel.arch {
            Arch::X86_64 => "pt_regs",
            Arch::Aarch64 => "user_pt_regs",
        };
        let regs = self.lab.kernel.object(root, 77);
        for (register, value) in registers {
            regs.set_bytes(register, &value.to_le_bytes());
        }
        self.run_at(program, &regs.memory)
    }

    /// The walk over open files comes to a socket that `task` has open, and enters it.
    pub fn walk(&mut self, now: u64, task: Task, sock: Sock) {
        assert_eq!(self.try_walk(now, task, sock), fate::NOTHING);
    }

    /// The walk over open files comes to a socket that `task` has open.
    pub fn try_walk(&mut self, now: u64, task: Task, sock: Sock) -> Stats {
        let (holder, file) = (self.holder(task), self.file(S_IFSOCK | 0o777, sock.address));
        self.at(now, STRANGER);
        self.visit(holder, file)
    }

    /// The address of a task.
    pub fn holder(&mut self, task: Task) -> u64 {
        let holder = self.object("task_struct");
        let holder = self.machine().object(holder);
        holder.set("task_struct.tgid", task.tgid.into());
        holder.set_bytes("task_struct.comm", &task.comm);
        holder.address()
    }

    /// The address of a file of this mode. What it carries looks like a socket that points to `sk`,
    /// also where the mode says that it is none, so that taking it for one shows.
    pub fn file(&mut self, mode: u64, sk: u64) -> u64 {
        let [file, inode, socket] = ["file", "inode", "socket"].map(|root| self.object(root));
        let machine = self.machine();
        let (file, inode, socket) = (machine.object(file), machine.object(inode), machine.object(socket));
        inode.set("inode.i_mode", mode);
        socket.set("socket.sk", sk);
        file.set("file.f_inode", inode.address());
        file.set("file.private_data", socket.address());
        let (file, socket) = (file.address(), socket.address());
        if mode & 0o170_000 == S_IFSOCK {
            machine.sockets_of_files.insert(file, socket);
        }
        file
    }

    /// The walk over open files comes to these addresses of a task and of a file.
    pub fn walk_to(&mut self, task: u64, file: u64) {
        assert_eq!(self.visit(task, file), fate::NOTHING);
    }

    fn visit(&mut self, task: u64, file: u64) -> Stats {
        let context = self.lab.kernel.object("bpf_iter__task_file", 99);
        context.set("bpf_iter__task_file.task", task);
        context.set("bpf_iter__task_file.file", file);
        self.run_at(self.walker, &context.memory)
    }

    /// Runs a program with these arguments. Returns what it was counted as.
    pub fn run(&mut self, program: &str, arguments: &[u64]) -> Stats {
        let words: Vec<u8> = arguments.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.run_at(program, &Memory::of(&words))
    }

    /// Runs a program on a context. Returns what it was counted as.
    pub fn run_at(&mut self, program: &str, context: &Memory) -> Stats {
        let before = self.stats();
        let ready =
            self.ready.programs.iter().find(|ready| ready.name == program).expect("a program of the tool");
        let code = match &self.lab.mutant {
            Some(mutant) if mutant.of == ready.fingerprint => &mutant.code,
            _ => &ready.code,
        };
        self.lab.ran.borrow_mut().insert(ready.fingerprint);
        let machine = self.machine.take().expect("no program is running");
        let (machine, result) = code.run(&ready.program, machine, context, ready.typed);
        self.machine = Some(machine);
        let lab = self.lab;
        assert_eq!(result, Ok(0), "{program} on {lab:?}");
        let after = self.stats();
        assert!(after.balanced(), "{after:?}");
        Stats {
            seen: after.seen - before.seen,
            filtered: after.filtered - before.filtered,
            reported: after.reported - before.reported,
            aggregated: after.aggregated - before.aggregated,
            lost_ring: after.lost_ring - before.lost_ring,
            lost_map: after.lost_map - before.lost_map,
            untracked: after.untracked - before.untracked,
            hidden: after.hidden - before.hidden,
        }
    }

    /// As if this many events had been sent already.
    pub fn reported_before(&mut self, events: u64) {
        let mut value = vec![0; usize::from(Stats::SIZE)];
        for at in [offset_of!(Stats, seen), offset_of!(Stats, reported)] {
            value[at..at + 8].copy_from_slice(&events.to_le_bytes());
        }
        self.machine().insert("stats", &0_u32.to_ne_bytes(), &value);
    }

    /// The account.
    pub fn stats(&mut self) -> Stats {
        let value = self.machine().value("stats", &0_u32.to_ne_bytes()).expect("always there");
        Stats::decode(&value).expect("the value's size")
    }

    /// What the table has of a socket, as bytes.
    pub fn entry(&mut self, sock: Sock) -> Option<Vec<u8>> {
        self.machine().value("sockets", &sock.address.to_ne_bytes())
    }

    /// What was sent since the last time, with flags.
    pub fn sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.machine().sent)
    }

    /// What was sent since the last time, none of which woke the reader.
    pub fn events<E: Debug>(&mut self, size: u16, decode: fn(&[u8]) -> Option<E>) -> Vec<E> {
        let quiet = match self.lab.ring {
            Ring::RingBuf => 1,                  // BPF_RB_NO_WAKEUP
            Ring::PerfEventArray => 0xffff_ffff, // BPF_F_CURRENT_CPU
        };
        let sent = self.sent();
        sent.iter()
            .map(|sent| {
                assert_eq!((sent.flags, sent.bytes.len()), (quiet, usize::from(size)));
                decode(&sent.bytes).expect("the event's size")
            })
            .collect()
    }
}
