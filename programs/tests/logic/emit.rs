//! How events leave: whole, and without waking anybody unless the ring is filling.

use bpfasm::{MapKind, Ring};
use programs::emit;

use crate::lab::{RING_BYTES, cases};
use crate::specimens::telling;
use crate::vm::machine::Sent;

/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`, include/uapi/linux/bpf.h.
const QUIETLY: u64 = 1;
const WAKING: u64 = 2;
/// `BPF_F_CURRENT_CPU`, include/uapi/linux/bpf.h.
const CURRENT_CPU: u64 = 0xffff_ffff;

/// What waits in the ring, and how the next event of `size` bytes is then sent.
///
/// An event takes its size rounded up to eight, and eight bytes of header. Four of them from a quarter of the ring on wake
/// the reader; before, he comes by himself, and after, he has been woken.
fn waiting(size: u16) -> Vec<(u64, u64)> {
    let quarter = u64::from(RING_BYTES) / 4;
    let window = 4 * (u64::from(size).next_multiple_of(8) + 8);
    vec![
        (0, QUIETLY),
        (quarter - 1, QUIETLY),
        (quarter, WAKING),
        (quarter + 1, WAKING),
        (quarter + window - 1, WAKING),
        (quarter + window, QUIETLY),
        (u64::from(RING_BYTES), QUIETLY),
    ]
}

cases! {
    /// An event wakes the reader only as the ring passes a quarter.
    fn waking(lab) in [Narrow, Wide, Filtered, Six] {
        for (specimen, tells) in telling(lab) {
            let Some(size) = specimen.events.first().map(|event| event.size) else { continue };
            for (used, flags) in waiting(size) {
                let mut tool = specimen.tool(lab, &lab.filter());
                tool.machine().ring_used = used;
                assert!(tells(&mut tool, &lab.spec()));
                let sent: Vec<_> = tool.sent().iter().map(|Sent { flags, bytes }| (*flags, bytes.len())).collect();
                let flags = if lab.ring == Ring::RingBuf { flags } else { CURRENT_CPU };
                assert_eq!(sent, [(flags, usize::from(size))], "{} with {used} bytes waiting", specimen.name);
            }
        }
    }
}

/// The map is what the kernel takes for its kind: a ring of bytes without keys, or an array the loader fills.
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
