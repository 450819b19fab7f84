//! Provokes the messages of `tools/ERRORS.md` that are this crate's: an error of each kind, made by hand.

use bpfasm::error::AsmError;
use bpfasm::object::Attach;
use btf::Absent;
use test_support::messages;

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::kernel::{KERNEL_BTF, KernelError};
use crate::map::MapError;
use crate::pinned::{PinnedError, PinnedFound};
use crate::privileges::Capability;
use crate::relocate::RelocError;
use crate::ring::RingError;

const NO: Errno = Errno::PERM;

fn text(text: &str) -> String {
    text.to_owned()
}

fn attach() -> Attach {
    Attach::Kprobe("f".into())
}

/// An error of each kind.
fn errors() -> Vec<LoadError> {
    let pinned = PinnedError {
        path: "/sys/fs/bpf/x".into(),
        found: PinnedFound::NoMap,
        key_size: 8,
        value_sizes: vec![8],
    };
    let absent = RelocError::Absent {
        symbol: text("sock.x"),
        why: Absent::Type { name: text("sock") },
        source: Some(bpfasm::Source { file: "x.rs", line: 1, text: "r0 = 0" }),
    };
    let label = AsmError::Encode { at: 1, error: bpfasm::EncodeError::JumpTooFar(1), source: None };
    vec![
        LoadError::Kernel(KernelError::Uname(NO)),
        LoadError::Kernel(KernelError::Version { release: text("x") }),
        LoadError::Kernel(KernelError::Machine { machine: text("vax") }),
        LoadError::NoBtf { path: KERNEL_BTF.into(), errno: Errno::NOENT },
        LoadError::NoBtf { path: KERNEL_BTF.into(), errno: NO },
        LoadError::OtherKernel { path: "x.btf".into() },
        LoadError::Cpus(NO),
        LoadError::Map { map: text("conns"), errno: NO, hint: None },
        LoadError::Pinned(Box::new(pinned)),
        LoadError::Reloc { program: text("p"), error: Box::new(absent) },
        LoadError::Asm { program: text("p"), error: Box::new(label) },
        LoadError::Load { program: text("p"), errno: NO, log: Box::default(), hint: None },
        LoadError::NoTarget { attach: attach(), why: Absent::Func { name: text("f") } },
        LoadError::ForeignBtf { attach: attach() },
        LoadError::Attach { attach: Attach::RawTp("t".into()), errno: Errno::NOENT, hint: None },
        LoadError::Attach { attach: attach(), errno: NO, hint: None },
        LoadError::NoAttachOption { hook: text("h"), refused: vec![(attach(), LoadError::Cpus(NO))] },
        LoadError::InsteadOf { hook: text("h"), earlier: text("e") },
        LoadError::Ring { map: text("m"), errno: NO, hint: None },
        LoadError::NotARing { map: text("m") },
        LoadError::NoMap { map: text("m") },
        LoadError::InnerMap { map: text("m"), inner: text("i") },
        LoadError::UnusedMap { map: text("m") },
        LoadError::NoHook { hook: text("h") },
        LoadError::Iter { hook: text("h"), errno: NO },
        LoadError::Program { program: text("p"), errno: NO },
        LoadError::Probe { feature: "tp_btf", errno: NO, hint: None },
    ]
}

/// What each hint is given with.
fn hinted(hint: Hint) -> LoadError {
    let some = Some(hint.clone());
    match hint {
        Hint::Capabilities(_) | Hint::Memlock => LoadError::Map { map: text("m"), errno: NO, hint: some },
        Hint::PerfMlock => LoadError::Ring { map: text("m"), errno: NO, hint: some },
        Hint::Tracefs | Hint::NoKprobes => LoadError::Attach { attach: attach(), errno: NO, hint: some },
        Hint::Forbidden | Hint::Confidential => {
            LoadError::Load { program: text("p"), errno: NO, log: Box::default(), hint: some }
        }
    }
}

/// Fails to compile when there is another kind: then it belongs into [`errors`] and into the catalogue.
fn kind(error: &LoadError) -> Option<usize> {
    Some(match error {
        LoadError::Kernel(_) => 0,
        LoadError::NoBtf { .. } => 1,
        LoadError::OtherKernel { .. } => 2,
        // That is btf's to say.
        LoadError::Btf(_) => return None,
        LoadError::Cpus(_) => 3,
        LoadError::Map { .. } => 4,
        LoadError::Pinned(_) => 5,
        LoadError::Reloc { .. } => 6,
        LoadError::Asm { .. } => 7,
        LoadError::Load { .. } => 8,
        LoadError::NoTarget { .. } => 9,
        LoadError::ForeignBtf { .. } => 10,
        LoadError::Attach { .. } => 11,
        LoadError::NoAttachOption { .. } => 12,
        LoadError::InsteadOf { .. } => 13,
        LoadError::Ring { .. } => 14,
        LoadError::NotARing { .. } => 15,
        LoadError::NoMap { .. } => 16,
        LoadError::InnerMap { .. } => 17,
        LoadError::UnusedMap { .. } => 18,
        LoadError::NoHook { .. } => 19,
        LoadError::Iter { .. } => 20,
        LoadError::Program { .. } => 21,
        LoadError::Probe { .. } => 22,
    })
}

#[test]
fn each_message_of_the_loader_is_in_the_catalogue() {
    let errors = errors();
    let mut kinds: Vec<usize> = errors.iter().filter_map(kind).collect();
    kinds.dedup();
    assert!(kinds.into_iter().eq(0..=22), "one of each kind, in order");
    let hints = [
        Hint::Capabilities(vec![Capability::Bpf]),
        Hint::Memlock,
        Hint::PerfMlock,
        Hint::Tracefs,
        Hint::NoKprobes,
        Hint::Forbidden,
        Hint::Confidential,
    ];
    let loads = errors.into_iter().chain(hints.map(hinted)).map(|error| (error.to_string(), "1"));
    let map = MapError { map: text("m"), action: "look up", errno: NO };
    let rings = [
        RingError::Position { producer: 1, consumer: 0, size: 0 },
        RingError::Record { position: 0, length: 0, room: 0 },
        RingError::Shape,
        RingError::Wait(NO),
    ];
    let said: Vec<(String, &str)> =
        loads.chain([(map.to_string(), "1")]).chain(rings.map(|error| (error.to_string(), "1"))).collect();
    messages::check(&["Kernel"], &said, &[]);
}
