//! The kernel around a program: its maps, the current task, the clock, and what goes wrong when a
//! test says so.

use std::collections::BTreeMap;
use std::ops::Range;

use bpfasm::{MapDef, MapKind};

use super::kernel::{Kernel, KernelObject};
use super::map::{EINVAL, Map, TABLES};
use super::memory::{Memory, peek, poke};

/// Addresses of maps as programs see them: outside of everything readable.
const MAP_BASE: u64 = 0xffff_c900_0000_0000;

/// The address by which programs name the map of this place in their object.
pub fn map_address(number: usize) -> u64 {
    MAP_BASE + number as u64 * 256
}

pub const EAGAIN: i64 = -11;
pub const EFAULT: i64 = -14;
pub const EOPNOTSUPP: i64 = -95;

/// The address of the kernel's `tcp_prot`.
pub const TCP_PROT: u64 = 0xffff_ffff_8300_0040;

/// A task, as the `current` helpers return it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Task {
    /// Process: the upper half of `bpf_get_current_pid_tgid`.
    pub tgid: u32,
    /// Thread: the lower half.
    pub tid: u32,
    /// Thread name, padded with zeroes.
    pub comm: [u8; 16],
}

/// An event a program sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// The flags it was sent with.
    pub flags: u64,
    /// The event.
    pub bytes: Vec<u8>,
}

/// What a program runs in. Everything public is for a test to set or to look at.
pub struct Machine {
    pub kernel: &'static Kernel,
    /// What `bpf_ktime_get_ns` says.
    pub now: u64,
    /// Who is running.
    pub task: Task,
    /// The user who is running.
    pub uid: u32,
    /// What `bpf_ringbuf_query` says is waiting for the reader, in bytes.
    pub ring_used: u64,
    /// Sending fails.
    pub ring_full: bool,
    /// `bpf_probe_read_kernel` fails.
    pub unreadable: bool,
    /// What a function traced at its return returned; `None` fails as on a kernel that does not
    /// support the helper.
    pub returned: Option<u64>,
    /// The address of the task that is running, for `bpf_get_current_task`.
    pub task_struct: u64,
    /// The id of the running task's cgroup.
    pub cgroup: u64,
    /// Return addresses on the kernel's stack, innermost first; `None` fails as where a stack
    /// cannot be walked.
    pub stack_trace: Option<Vec<u64>>,
    /// The socket of each file that has one.
    pub sockets_of_files: BTreeMap<u64, u64>,
    /// The next lookup in this map finds nothing, as when another CPU stores what is there right
    /// after.
    pub unseen: Option<&'static str>,
    /// What was sent.
    pub sent: Vec<Sent>,
    maps: Vec<Map>,
    /// The task that is running, for `bpf_get_current_task_btf`.
    current: KernelObject,
    objects: Vec<KernelObject>,
    /// Memory of the kernel without a type: only `bpf_probe_read_kernel` reads it.
    untyped: Vec<Memory>,
    stack: Range<u64>,
    context: u64,
    /// Where the context is: programs may also read it as any memory.
    arguments: Range<u64>,
    fault: Option<String>,
    /// Helper calls of this run.
    calls: u32,
}

/// The place of the map of this name.
fn map_named(defs: &[MapDef], name: &str) -> usize {
    defs.iter().position(|def| def.name == name).expect("a map of the object")
}

/// A helper that a verifier would not have let through.
type Helped = Result<i64, String>;

impl Machine {
    /// A machine with these maps, empty.
    pub fn new(kernel: &'static Kernel, task: Task, maps: &[MapDef]) -> Self {
        Self {
            kernel,
            now: 0,
            task,
            uid: 0,
            ring_used: 0,
            ring_full: false,
            unreadable: false,
            returned: None,
            task_struct: 0,
            cgroup: 0,
            stack_trace: None,
            sockets_of_files: BTreeMap::new(),
            unseen: None,
            sent: Vec::new(),
            maps: maps.iter().map(Map::new).collect(),
            current: kernel.object("task_struct", 66),
            objects: Vec::new(),
            untyped: Vec::new(),
            stack: 0..0,
            context: 0,
            arguments: 0..0,
            fault: None,
            calls: 0,
        }
    }

    /// Puts another map into a slot of an array of maps, as the user's side does.
    pub fn set_inner(&mut self, map: &str, slot: u32, inner: &str) {
        let defs: Vec<_> = self.maps.iter().map(|map| map.def.clone()).collect();
        self.maps[map_named(&defs, map)].put_map(slot, map_named(&defs, inner));
    }

    /// Puts an object into the kernel's memory; returns its number.
    pub fn add(&mut self, object: KernelObject) -> usize {
        self.objects.push(object);
        self.objects.len() - 1
    }

    /// The object of this number.
    pub fn object(&self, number: usize) -> &KernelObject {
        &self.objects[number]
    }

    /// The object at this address.
    pub fn object_at(&self, address: u64) -> &KernelObject {
        self.objects.iter().find(|object| object.address() == address).expect("an object")
    }

    /// Puts bytes into the kernel's memory, such as a packet's headers; returns their address.
    pub fn add_bytes(&mut self, bytes: &[u8]) -> u64 {
        let memory = Memory::of(bytes);
        let address = memory.address();
        self.untyped.push(memory);
        address
    }

    /// Puts a value into a map, as the user's side does.
    pub fn insert(&mut self, map: &str, key: &[u8], value: &[u8]) {
        let map = self.maps.iter_mut().find(|known| known.def.name == map).expect("a map of the object");
        assert_eq!((key.len(), value.len()), (map.def.key_size as usize, map.def.value_size as usize));
        assert_eq!(map.put(key, value, 0), 0, "{}", map.def.name);
    }

    /// A value as it is now.
    pub fn value(&self, map: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.map_named(map).values.get(key).map(Memory::bytes)
    }

    /// All keys of a map and their values.
    pub fn values(&self, map: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.map_named(map).values.iter().map(|(key, value)| (key.clone(), value.bytes()))
    }

    /// How many values a map has.
    pub fn len(&self, map: &str) -> usize {
        self.map_named(map).values.len()
    }

    /// Whether the object has a map of this name.
    pub fn has(&self, map: &str) -> bool {
        self.maps.iter().any(|known| known.def.name == map)
    }

    fn map_named(&self, name: &str) -> &Map {
        self.maps.iter().find(|map| map.def.name == name).expect("a map of the object")
    }

    /// Prepares for a run with the context at `context`, where typed programs may read kernel
    /// objects directly. Returns all that instructions may touch besides the stack.
    pub(super) fn begin(&mut self, context: &Memory, typed: bool) -> Vec<Range<u64>> {
        self.context = context.address();
        self.arguments = context.range();
        self.fault = None;
        self.calls = 0;
        self.current.set("task_struct.tgid", self.task.tgid.into());
        self.current.set_bytes("task_struct.comm", &self.task.comm);
        let values = self.maps.iter().flat_map(Map::places);
        let objects = self.objects.iter().filter(|_| typed).map(|object| object.memory.range());
        // Any program that has its address may read it, typed or not.
        [context.range(), self.current.memory.range()].into_iter().chain(values).chain(objects).collect()
    }

    /// What was wrong with the first wrong helper call of the run.
    pub(super) fn end(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// Takes a helper's answer; a wrong call is remembered and answered with 0.
    pub(super) fn answer(&mut self, helper: &str, helped: Helped) -> u64 {
        self.calls += 1;
        // The interpreter would go on for ever.
        assert!(self.calls < 1000, "the program loops");
        helped.map_or_else(
            |wrong| {
                self.fault.get_or_insert(format!("{helper}: {wrong}"));
                0
            },
            i64::cast_unsigned,
        )
    }

    /// The program starts: fills the stack, so that nothing works because it happened to be zero.
    /// Returns the context.
    pub(super) fn enter(&mut self, r10: u64) -> u64 {
        self.stack = r10 - 512..r10;
        poke(self.stack.start, &[0xa5; 512]).expect("the stack of the interpreter");
        self.context
    }

    fn map(&mut self, address: u64, kinds: &[MapKind]) -> Result<&mut Map, String> {
        let at = usize::try_from(address.wrapping_sub(MAP_BASE) / 256).map_err(|error| error.to_string())?;
        let aligned = address.is_multiple_of(256);
        let map = self.maps.get_mut(at).filter(|_| aligned).ok_or(format!("{address:#x} is not a map"))?;
        if !kinds.contains(&map.def.kind) {
            return Err(format!("not for a map of kind {:?}", map.def.kind));
        }
        Ok(map)
    }

    /// Memory a program may hand to a helper: its stack, or a value.
    fn own(&self, address: u64, len: u64) -> Result<(), String> {
        let end = address.checked_add(len).ok_or("address wraps")?;
        let inside = |range: &Range<u64>| range.start <= address && end <= range.end;
        let mut values = self.maps.iter().flat_map(|map| map.values.values()).map(Memory::range);
        if inside(&self.stack) || values.any(|range| inside(&range)) {
            return Ok(());
        }
        let off = address.wrapping_sub(self.stack.end).cast_signed();
        Err(format!("{len} bytes at r10 {off:+} are neither on the stack nor in a value"))
    }

    fn take(&self, address: u64, len: u32) -> Result<Vec<u8>, String> {
        self.own(address, len.into())?;
        peek(address, len as usize).map_err(|error| error.to_string())
    }

    fn give(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.own(address, bytes.len() as u64)?;
        poke(address, bytes).map_err(|error| error.to_string())
    }

    pub(super) fn map_lookup_elem(&mut self, map: u64, key: u64) -> Helped {
        let kinds = [TABLES.as_slice(), &[MapKind::ArrayOfMaps]].concat();
        let def = self.map(map, &kinds)?.def.clone();
        let key = self.take(key, def.key_size)?;
        if self.unseen.take_if(|unseen| def.name == **unseen).is_some() {
            return Ok(0);
        }
        let map = self.map(map, &kinds)?;
        if def.kind == MapKind::ArrayOfMaps {
            return Ok(map.inner(&key).map_or(0, |inner| map_address(inner).cast_signed()));
        }
        Ok(map.get(&key).map_or(0, |value| value.address().cast_signed()))
    }

    pub(super) fn map_update_elem(&mut self, map: u64, key: u64, value: u64, flags: u64) -> Helped {
        let def = self.map(map, &TABLES)?.def.clone();
        let (key, value) = (self.take(key, def.key_size)?, self.take(value, def.value_size)?);
        if flags > 2 {
            return Err(format!("flags {flags:#x}"));
        }
        Ok(self.map(map, &TABLES)?.put(&key, &value, flags))
    }

    pub(super) fn map_delete_elem(&mut self, map: u64, key: u64) -> Helped {
        let kinds = [MapKind::Hash, MapKind::LruHash, MapKind::PercpuHash, MapKind::LpmTrie];
        let key_size = self.map(map, &kinds)?.def.key_size;
        let key = self.take(key, key_size)?;
        Ok(self.map(map, &kinds)?.remove(&key))
    }

    pub(super) fn ktime_get_ns(&self) -> Helped {
        Ok(self.now.cast_signed())
    }

    pub(super) fn get_current_pid_tgid(&self) -> Helped {
        Ok((u64::from(self.task.tgid) << 32 | u64::from(self.task.tid)).cast_signed())
    }

    pub(super) fn get_current_uid_gid(&self) -> Helped {
        // The group is in the upper half, and differs from the user.
        Ok((u64::from(!self.uid) << 32 | u64::from(self.uid)).cast_signed())
    }

    pub(super) fn get_current_comm(&self, to: u64, size: u64) -> Helped {
        // strscpy_pad(): always ends with a zero, and fills what was asked for.
        let size = usize::try_from(size).map_err(|error| error.to_string())?;
        let Some(last) = size.checked_sub(1) else { return Err("a buffer of no bytes for the name".into()) };
        let mut name = self.task.comm.to_vec();
        name.resize(size, 0);
        name[last] = 0;
        self.give(to, &name)?;
        Ok(0)
    }

    pub(super) fn probe_read_kernel(&self, to: u64, size: u64, from: u64) -> Helped {
        let size = usize::try_from(size).map_err(|error| error.to_string())?;
        let inside = |range: &Range<u64>| {
            range.start <= from && from.checked_add(size as u64).is_some_and(|end| end <= range.end)
        };
        let mut known = self.objects.iter().map(|object| &object.memory).chain(&self.untyped);
        let readable = !self.unreadable && known.any(|memory| inside(&memory.range()));
        if !readable && !inside(&self.arguments) {
            self.give(to, &vec![0; size])?;
            return Ok(EFAULT);
        }
        self.give(to, &peek(from, size).map_err(|error| error.to_string())?)?;
        Ok(0)
    }

    fn send(&mut self, data: u64, size: u64, flags: u64) -> Helped {
        let size = u32::try_from(size).map_err(|error| error.to_string())?;
        let bytes = self.take(data, size)?;
        if self.ring_full {
            return Ok(EAGAIN);
        }
        self.sent.push(Sent { flags, bytes });
        Ok(0)
    }

    pub(super) fn ringbuf_output(&mut self, map: u64, data: u64, size: u64, flags: u64) -> Helped {
        self.map(map, &[MapKind::RingBuf])?;
        if flags > 3 {
            return Err(format!("flags {flags:#x}"));
        }
        self.send(data, size, flags)
    }

    pub(super) fn ringbuf_query(&mut self, map: u64, what: u64) -> Helped {
        let size = self.map(map, &[MapKind::RingBuf])?.def.max_entries;
        match what {
            0 => Ok(self.ring_used.cast_signed()),
            1 => Ok(size.into()),
            // Positions of reader and writer, which no program has a use for.
            2 | 3 => Ok(0x7777_7777),
            other => Err(format!("query {other}")),
        }
    }

    pub(super) fn perf_event_output(
        &mut self,
        ctx: u64,
        map: u64,
        flags: u64,
        data: u64,
        size: u64,
    ) -> Helped {
        self.map(map, &[MapKind::PerfEventArray])?;
        if ctx != self.context {
            return Err("the first argument is not the context".into());
        }
        self.send(data, size, flags)
    }

    pub(super) fn get_current_task(&self) -> Helped {
        Ok(self.task_struct.cast_signed())
    }

    pub(super) fn get_current_task_btf(&self) -> Helped {
        Ok(self.current.address().cast_signed())
    }

    pub(super) fn get_current_cgroup_id(&self) -> Helped {
        Ok(self.cgroup.cast_signed())
    }

    /// `__bpf_get_stack()`, kernel/bpf/stackmap.c, of the kernel's side.
    pub(super) fn get_stack(&self, ctx: u64, to: u64, size: u64, flags: u64) -> Helped {
        if ctx != self.context {
            return Err("the first argument is not the context".into());
        }
        // Of the flags, the lowest byte says how many to skip.
        if flags > 0xff {
            return Err(format!("flags {flags:#x}"));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|error| error.to_string())?];
        let trace = self.stack_trace.as_ref().and_then(|trace| trace.get(usize::try_from(flags).ok()?..));
        let result = match trace {
            _ if !size.is_multiple_of(8) => EINVAL,
            None => EFAULT,
            Some(trace) => {
                let len = bytes.len().min(trace.len() * 8);
                let words = trace.iter().flat_map(|address| address.to_ne_bytes());
                bytes.iter_mut().zip(words).for_each(|(byte, from)| *byte = from);
                i64::try_from(len).map_err(|error| error.to_string())?
            }
        };
        self.give(to, &bytes)?;
        Ok(result)
    }

    /// `sk_fullsock()` and `sk_is_tcp()`, include/net/sock.h.
    pub(super) fn skc_to_tcp_sock(&self, sk: u64) -> Helped {
        let Some(object) = self.objects.iter().find(|object| object.address() == sk) else {
            return Err(format!("{sk:#x} is not a socket"));
        };
        let full = !matches!(object.get("sock_common.skc_state"), 6 | 12);
        let inet = matches!(object.get("sock_common.skc_family"), 2 | 10);
        let tcp = full && inet && object.get("sock.sk_protocol") == 6;
        Ok(if tcp { sk.cast_signed() } else { 0 })
    }

    /// `bpf_skc_to_tcp_request_sock()`, net/core/filter.c: a request whose protocol is the kernel's
    /// own.
    pub(super) fn skc_to_tcp_request_sock(&self, sk: u64) -> Helped {
        let Some(object) = self.objects.iter().find(|object| object.address() == sk) else {
            return Err(format!("{sk:#x} is not a socket"));
        };
        let own = object.get("sock_common.skc_prot") == TCP_PROT;
        Ok(if own && object.get("sock_common.skc_state") == 12 { sk.cast_signed() } else { 0 })
    }

    pub(super) fn sock_from_file(&self, file: u64) -> Helped {
        if !self.objects.iter().any(|object| object.address() == file) {
            return Err(format!("{file:#x} is not a file"));
        }
        Ok(self.sockets_of_files.get(&file).map_or(0, |socket| socket.cast_signed()))
    }

    pub(super) fn get_func_ret(&self, ctx: u64, to: u64) -> Helped {
        if ctx != self.context {
            return Err("the first argument is not the context".into());
        }
        let Some(value) = self.returned else { return Ok(EOPNOTSUPP) };
        self.give(to, &value.to_ne_bytes())?;
        Ok(0)
    }
}
