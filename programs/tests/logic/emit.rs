//! How events are sent: whole, and without waking the reader unless the ring is filling.

use bpfasm::object::{Attach, Hook, Need, Object, ProgramDef};
use bpfasm::{Access, Fragment, MapKind, Program, Reg, Ring, bpf};
use programs::LICENSE;
use programs::emit::{self, Length, Record};
use programs::stats::{self, Count, count};

use crate::lab::{Lab, RING_BYTES, Set, cases};
use crate::specimens::reporting;
use crate::vm::kernel::Kernel;
use crate::vm::machine::Sent;

/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`, include/uapi/linux/bpf.h.
const QUIETLY: u64 = 1;
const WAKING: u64 = 2;
/// `BPF_F_CURRENT_CPU`, include/uapi/linux/bpf.h.
const CURRENT_CPU: u64 = 0xffff_ffff;

/// How many events were sent before, what waits in the ring, and how the next event of `size` bytes
/// is then sent.
///
/// An event takes its size rounded up to eight, and eight bytes of header. From a quarter of the
/// ring on, within sixteen times as many as one of looks, they wake the reader; before, it comes by
/// itself, and after, it has been woken.
fn waiting(size: u16) -> Vec<(u64, u64, u64)> {
    let quarter = u64::from(RING_BYTES) / 4;
    let record = u64::from(size).next_multiple_of(8) + 8;
    assert!(
        (2..8).contains(&(u64::from(RING_BYTES) / 160 / record)),
        "one of two or four looks, the first among them"
    );
    let every = if u64::from(RING_BYTES) / 160 / record < 4 { 2 } else { 4 };
    let window = every * 16 * record;
    vec![
        (0, 0, QUIETLY),
        (0, quarter - 1, QUIETLY),
        (0, quarter, WAKING),
        (0, quarter + 1, WAKING),
        (0, quarter + window - 1, WAKING),
        (0, quarter + window, QUIETLY),
        (0, u64::from(RING_BYTES), QUIETLY),
        (1, quarter, QUIETLY),
        (every - 1, quarter, QUIETLY),
        (every, quarter, WAKING),
        (every + 1, quarter, QUIETLY),
    ]
}

cases! {
    /// An event wakes the reader only as the ring passes a quarter.
    fn waking(lab) in [Narrow, Wide, Filtered, Six] {
        for (specimen, reports) in reporting(lab) {
            let Some(size) = specimen.events.first().map(|event| event.size) else { continue };
            for (before, used, flags) in waiting(size) {
                let mut tool = specimen.tool(lab, &lab.filter());
                tool.reported_before(before);
                tool.machine().ring_used = used;
                assert!(reports(&mut tool, &lab.spec()));
                let sent: Vec<_> = tool.sent().iter().map(|Sent { flags, bytes }| (*flags, bytes.len())).collect();
                let flags = if lab.ring == Ring::RingBuf { flags } else { CURRENT_CPU };
                assert_eq!(sent, [(flags, usize::from(size))], "{} after {before}, with {used} bytes waiting", specimen.name);
            }
        }
    }
}

/// In a large ring, one of 64 events looks how full the ring is, and wakes the reader within a
/// wider window.
#[test]
fn large_rings_are_looked_at_now_and_then() {
    const RING: u32 = 1 << 20;
    const SIZE: u16 = 88;
    let quarter = u64::from(RING) / 4;
    let window = 64 * 16 * (u64::from(SIZE) + 8);
    let lab = Lab::new(Kernel::named("6.18-x86_64"), Access::Typed, Ring::RingBuf, Set::Narrow);
    let target = lab.kernel.target(lab.access, lab.ring);
    let record = Record { base: Reg::R10, off: -88, length: Length::Fixed(SIZE) };
    let mut code = Fragment::new();
    for at in (-88..0).step_by(8) {
        code.splice(bpf! { *(u64 *)(r10 + {at}) = 0; });
    }
    let program = bpf! {
        r9 = r1;
        ..stats::open("out");
        ..count(Count::Seen);
        ..code;
        ..emit::send(&target, RING, record);
    out:
        r0 = 0;
        exit;
    };
    let program = Program::link("sender", program).expect("links");
    let attach = Attach::TpBtf("inet_sock_set_state".into());
    let attach_options = vec![ProgramDef { name: "sender".into(), attach, program }];
    let object = Object {
        name: "sender".into(),
        license: LICENSE.into(),
        hooks: vec![Hook::new("sender", Need::Required, attach_options)],
        maps: vec![stats::map(), emit::map(lab.ring, RING)],
        consts: Vec::new(),
    };
    let mut tool = lab.tool("sender", |_| object);
    let waking =
        [(quarter - 1, false), (quarter, true), (quarter + window - 1, true), (quarter + window, false)];
    for number in 0..200_u64 {
        let (used, inside) = waking[usize::try_from(number / 64).expect("few")];
        tool.machine().ring_used = used;
        tool.run("sender", &[0, 0, 0]);
        let flags: Vec<_> = tool.sent().iter().map(|sent| sent.flags).collect();
        let wakes = inside && number.is_multiple_of(64);
        assert_eq!(flags, [if wakes { WAKING } else { QUIETLY }], "event {number}");
    }
}

/// The map is what the kernel takes for its kind: a ring of bytes without keys, or an array the
/// loader fills.
#[test]
fn maps() {
    let map = emit::map(Ring::RingBuf, RING_BYTES);
    assert_eq!(
        (map.kind, map.key_size, map.value_size, map.max_entries),
        (MapKind::RingBuf, 0, 0, RING_BYTES)
    );
    let map = emit::map(Ring::PerfEventArray, RING_BYTES);
    assert_eq!((map.kind, map.key_size, map.value_size, map.max_entries), (MapKind::PerfEventArray, 4, 4, 0));
}
