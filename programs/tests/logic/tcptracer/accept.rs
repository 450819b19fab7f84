//! Accepts: each hook that sees one, and what is not an accept.

use bpfasm::{Access, Arch};
use programs::stats::Stats;
use programs::stop_flag;
use programs::tcptracer::Kind;

use super::{USER, event, events, socket};
use crate::lab::fate::{FILTERED, LOST_RING, NOTHING, REPORTED};
use crate::lab::{Lab, Set, cases};
use crate::spec::{OTHER, OTHERS, OWNER, Spec};
use crate::tool::{Sock, Tool};
use crate::vm::machine::Task;

/// Runs a program for the socket at an address.
type ForSocket = fn(&mut Tool<'_>, u64) -> Stats;

/// Programs on functions, and how each is run for a socket.
const FUNCTIONS: [(&str, ForSocket); 4] = [
    ("graft_fentry", |tool, sock| tool.run("graft_fentry", &[sock, 0x1111])),
    ("graft_kprobe", |tool, sock| tool.enters("graft_kprobe", &[sock, 0x1111])),
    ("accept_fexit", |tool, sock| {
        tool.machine().returned = Some(sock);
        tool.run("accept_fexit", &[0x1111, 0x2222, 0x3333])
    }),
    ("accept_ret", |tool, sock| tool.returns("accept_ret", sock)),
];

/// Programs that get the number of a file.
const NUMBERED: [fn(&Lab, &mut Tool<'_>, i32) -> Stats; 4] = [
    |_, tool, fd| tool.run("accept_returns", &[0x1111, 43, ret(fd)]),
    |_, tool, fd| tool.run("accept_returns", &[0x1111, 288, ret(fd)]),
    |lab, tool, fd| {
        let call = numbers(lab)[0];
        system_call(lab, tool, call, false, fd)
    },
    |lab, tool, fd| completion(lab, tool, Some(13), fd),
];

/// What a system call returns, as a register.
fn ret(fd: i32) -> u64 {
    i64::from(fd).cast_unsigned()
}

/// The numbers of accept and accept4.
fn numbers(lab: &Lab) -> [u64; 2] {
    match lab.kernel.arch {
        Arch::X86_64 => [43, 288],
        Arch::Aarch64 => [202, 242],
    }
}

/// A system call of this number returns, perhaps one of 32-bit code.
fn system_call(lab: &Lab, tool: &mut Tool<'_>, number: u64, compat: bool, fd: i32) -> Stats {
    let regs = tool.object("pt_regs");
    match lab.kernel.arch {
        Arch::X86_64 => {
            tool.set(regs, "pt_regs.orig_ax", number);
            tool.set(regs, "pt_regs.cs", if compat { 0x23 } else { 0x33 });
        }
        Arch::Aarch64 => {
            tool.set(regs, "pt_regs.syscallno", number);
            tool.set(regs, "user_pt_regs.pstate", if compat { 0x6000_0010 } else { 0x6000_0000 });
        }
    }
    let regs = tool.address(regs);
    tool.run("sys_exit", &[regs, ret(fd)])
}

/// io_uring completes a request of this kind, or one that it does not name.
fn completion(lab: &Lab, tool: &mut Tool<'_>, opcode: Option<u8>, res: i32) -> Stats {
    let request = opcode.map_or(0, |opcode| {
        let request = tool.object("io_kiocb");
        tool.set(request, "io_kiocb.opcode", opcode.into());
        tool.address(request)
    });
    let (ring, user_data, number) = (0x1111, 0x2222, u64::from(res.cast_unsigned()));
    let arguments = match lab.kernel.version.major * 100 + lab.kernel.version.minor {
        ..517 => vec![ring, user_data, number, 0],
        517..616 => vec![ring, request, user_data, number, 0, 0, 0],
        _ => {
            let entry = tool.object("io_uring_cqe");
            tool.set(entry, "io_uring_cqe.res", number);
            vec![ring, request, tool.address(entry)]
        }
    };
    tool.run("io_uring_complete", &arguments)
}

/// Whether completions say what was done.
fn says_what(lab: &Lab) -> bool {
    lab.kernel.version.major > 5
}

/// The open files of the current task, by number: all but the last of these, which lies past the
/// end of its table.
fn files(tool: &mut Tool<'_>, files: &[u64]) {
    let table: Vec<u8> = files.iter().flat_map(|file| file.to_le_bytes()).collect();
    let table = tool.bytes(&table);
    let [task, all, current] = ["task_struct", "files_struct", "fdtable"].map(|root| tool.object(root));
    tool.set(current, "fdtable.max_fds", files.len() as u64 - 1);
    tool.set(current, "fdtable.fd", table);
    let at = tool.address(current);
    tool.set(all, "files_struct.fdt", at);
    let at = tool.address(all);
    tool.set(task, "task_struct.files", at);
    tool.machine().task_struct = tool.address(task);
}

/// The file of a socket.
fn file(tool: &mut Tool<'_>, sock: u64) -> u64 {
    let [file, socket] = ["file", "socket"].map(|root| tool.object(root));
    let [file_at, socket_at] = [file, socket].map(|object| tool.address(object));
    tool.set(file, "file.private_data", socket_at);
    tool.set(socket, "socket.file", file_at);
    tool.set(socket, "socket.sk", sock);
    file_at
}

/// Something that looks like the file of a socket and is another's.
fn forged(tool: &mut Tool<'_>, sock: u64) -> u64 {
    let forged = file(tool, sock);
    let other = tool.object("file");
    let carried = tool.machine().object_at(forged).get("file.private_data");
    tool.set(other, "file.private_data", carried);
    tool.address(other)
}

/// A tool whose files do not matter: containers are looked for by the same task.
fn plain(lab: &Lab) -> Tool<'_> {
    let mut tool = lab.tcptracer();
    tool.at(100, OWNER);
    tool
}

/// The current task has this socket as file number 2.
fn held(tool: &mut Tool<'_>, task: Task, sock: Sock) {
    let carried = file(tool, sock.address);
    let noise = tool.object("file");
    let noise = tool.address(noise);
    files(tool, &[noise, noise, carried, noise, carried]);
    tool.at(100, task);
}

cases! {
    /// If a function can be traced, an accept is reported with the process that makes it.
    fn by_function(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = plain(lab);
        for (name, run) in FUNCTIONS {
            for spec in lab.specs() {
                for task in [OWNER, OTHER] {
                    let sock = socket(&mut tool, &spec);
                    tool.at(100, task);
                    assert_eq!(run(&mut tool, sock.address), lab.fate_of(task), "{name}");
                    let expected = [event(&spec, 100, Kind::Accept, task)];
                    let reported = usize::from(lab.fate_of(task) == REPORTED);
                    assert_eq!(events(&mut tool), expected[..reported], "{name}");
                }
            }
            let other = if lab.set == Set::Six { Spec::V4 } else { Spec::V6 };
            let sock = socket(&mut tool, &other);
            tool.at(100, OWNER);
            let fate = if lab.filter().family.is_some() { FILTERED } else { REPORTED };
            assert_eq!(run(&mut tool, sock.address), fate, "{name}");
            events(&mut tool);
            for (family, protocol) in OTHERS {
                let sock = socket(&mut tool, &Spec { family, protocol, ..lab.spec() });
                assert_eq!(run(&mut tool, sock.address), NOTHING, "{name}: {family}, {protocol}");
            }
            let sock = socket(&mut tool, &lab.spec());
            tool.machine().ring_full = true;
            assert_eq!(run(&mut tool, sock.address), LOST_RING, "{name}");
            tool.machine().ring_full = false;
            assert_eq!(events(&mut tool), []);
        }
    }

    /// An accept that failed, or whose result cannot be had.
    fn failed(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = plain(lab);
        tool.machine().returned = Some(0);
        assert_eq!(tool.run("accept_fexit", &[0x1111, 0x2222, 0x3333]), NOTHING);
        tool.machine().returned = None;
        assert_eq!(tool.run("accept_fexit", &[0x1111, 0x2222, 0x3333]), NOTHING);
        assert_eq!(tool.returns("accept_ret", 0), NOTHING);
    }

    /// Once the tool has detached, nothing is reported or counted, although the kernel may still
    /// run its programs.
    fn stopped(lab) in [Narrow, Filtered] {
        for run in &NUMBERED[..2] {
            let mut tool = plain(lab);
            let sock = socket(&mut tool, &lab.spec());
            held(&mut tool, OWNER, sock);
            assert_eq!(run(lab, &mut tool, 2), lab.fate_of(OWNER));
            tool.machine().insert(stop_flag::MAP, &[0; 4], &[1, 0, 0, 0]);
            assert_eq!(run(lab, &mut tool, 2), NOTHING);
        }
        for (name, run) in FUNCTIONS {
            let mut tool = plain(lab);
            let sock = socket(&mut tool, &lab.spec());
            assert_eq!(run(&mut tool, sock.address), lab.fate_of(OWNER), "{name}");
            tool.machine().insert(stop_flag::MAP, &[0; 4], &[1, 0, 0, 0]);
            assert_eq!(run(&mut tool, sock.address), NOTHING, "{name}");
        }
    }

    /// An accept is reported by the file number that a system call or io_uring returns, with the
    /// process that has that file.
    fn by_number(lab) in [Narrow, Wide, Filtered, Six] {
        for (at, run) in NUMBERED.into_iter().enumerate() {
            let silent = at == 3 && !says_what(lab);
            let mut tool = plain(lab);
            for spec in lab.specs() {
                for task in [OWNER, OTHER] {
                    let sock = socket(&mut tool, &spec);
                    held(&mut tool, task, sock);
                    for fd in [-1, -11, i32::MIN, 0, 1, 3, 4, 1 << 30] {
                        assert_eq!(run(lab, &mut tool, fd), NOTHING, "{at}: {fd}");
                    }
                    let fate = if silent { NOTHING } else { lab.fate_of(task) };
                    assert_eq!(run(lab, &mut tool, 2), fate, "{at}");
                    let expected = [event(&spec, 100, Kind::Accept, task)];
                    assert_eq!(events(&mut tool), expected[..usize::from(fate == REPORTED)], "{at}");
                }
            }
            if !silent {
                tool.machine().ring_full = true;
                tool.at(100, OWNER);
                assert_eq!(run(lab, &mut tool, 2), LOST_RING, "{at}");
                tool.machine().uid ^= 1;
                let fate = if lab.set == Set::Wide { FILTERED } else { LOST_RING };
                assert_eq!(run(lab, &mut tool, 2), fate, "{at}");
            }
        }
    }

    /// Files that are not TCP sockets, and tasks without files.
    fn other_files(lab) in [Narrow, Filtered, Six] {
        for (at, run) in NUMBERED.into_iter().enumerate() {
            let mut tool = plain(lab);
            let sock = socket(&mut tool, &lab.spec());
            let forged = forged(&mut tool, sock.address);
            files(&mut tool, &[forged, 0, forged, forged]);
            for fd in 0..4 {
                assert_eq!(run(lab, &mut tool, fd), NOTHING, "{at}: {fd}");
            }
            for (family, protocol) in OTHERS {
                let sock = socket(&mut tool, &Spec { family, protocol, ..lab.spec() });
                held(&mut tool, OWNER, sock);
                assert_eq!(run(lab, &mut tool, 2), NOTHING, "{at}: {family}, {protocol}");
            }
            let sock = socket(&mut tool, &lab.spec());
            held(&mut tool, OWNER, sock);
            tool.machine().unreadable = true;
            assert_eq!(run(lab, &mut tool, 2), NOTHING, "{at}");
            assert_eq!(events(&mut tool), []);
        }
    }

    /// Of all system calls only these two, and not where the number means another call.
    fn system_calls(lab) in [Narrow, Filtered, Six] {
        let mut tool = plain(lab);
        let sock = socket(&mut tool, &lab.spec());
        held(&mut tool, OWNER, sock);
        for number in 0..500 {
            let is_accept = numbers(lab).contains(&number);
            let fate = if is_accept { REPORTED } else { NOTHING };
            assert_eq!(system_call(lab, &mut tool, number, false, 2), fate, "{number}");
            assert_eq!(system_call(lab, &mut tool, number, true, 2), NOTHING, "{number}");
        }
        if lab.kernel.arch == Arch::X86_64 {
            // Numbers of x32 have a bit more, and those of no call at all have every bit.
            for number in [43 | 1 << 30, 43 | 1 << 32, 288 | 1 << 33, u64::MAX] {
                assert_eq!(system_call(lab, &mut tool, number, false, 2), NOTHING, "{number:#x}");
            }
        }
        assert_eq!(events(&mut tool).len(), 2);
    }

    /// Of all that io_uring does only this.
    fn completions(lab) in [Narrow, Filtered, Six] {
        let mut tool = plain(lab);
        let sock = socket(&mut tool, &lab.spec());
        held(&mut tool, OWNER, sock);
        for opcode in (0..64).map(Some).chain([None]) {
            let reported = opcode == Some(13) && says_what(lab);
            assert_eq!(completion(lab, &mut tool, opcode, 2), if reported { REPORTED } else { NOTHING }, "{opcode:?}");
        }
        assert_eq!(events(&mut tool).len(), usize::from(says_what(lab)));
    }

    /// A user or a container that is not wanted accepts.
    fn strangers(lab) in [Wide] {
        let mut tool = plain(lab);
        for (name, run) in FUNCTIONS {
            let sock = socket(&mut tool, &lab.spec());
            tool.machine().uid = USER + 1;
            assert_eq!(run(&mut tool, sock.address), FILTERED, "{name}");
            tool.machine().uid = USER;
            tool.machine().cgroup += 1;
            assert_eq!(run(&mut tool, sock.address), FILTERED, "{name}");
            tool.machine().cgroup -= 1;
            assert_eq!(run(&mut tool, sock.address), REPORTED, "{name}");
        }
    }

    /// Memory that cannot be read is not taken for a socket.
    fn unreadable(lab) in [Narrow, Six] {
        let mut tool = plain(lab);
        let sock = socket(&mut tool, &lab.spec());
        tool.machine().unreadable = true;
        for (name, run) in &FUNCTIONS[1..] {
            assert_eq!(run(&mut tool, sock.address), NOTHING, "{name}");
        }
        let fate = if lab.access == Access::Probed { NOTHING } else { REPORTED };
        assert_eq!(FUNCTIONS[0].1(&mut tool, sock.address), fate);
    }
}
