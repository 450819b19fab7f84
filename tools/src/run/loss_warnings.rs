//! Warnings about losses while a tool runs.

use bpfasm::MapKind;
use loader::Loaded;
use programs::{emit, stats};

use super::account::read_stats;
use crate::failure::Failure;
use crate::messages::Messages;

/// The kinds of loss that were reported. Each is reported once, when it begins.
#[derive(Default)]
pub(super) struct LossWarnings {
    ring: bool,
    sockets: bool,
    counts: bool,
}

impl LossWarnings {
    /// Reads the counters, and reports each kind of loss that has begun since.
    pub(super) fn check(&mut self, loaded: &Loaded, messages: &Messages) -> Result<(), Failure> {
        if self.ring && self.sockets && self.counts {
            return Ok(());
        }
        let counters = read_stats(loaded)?;
        if begins(counters.lost_ring, &mut self.ring) {
            let perf = loaded.map(emit::MAP).is_ok_and(|map| map.kind() == MapKind::PerfEventArray);
            messages.always(if perf {
                "events are being lost: a perf buffer is full (increase --ring-size), or a CPU has none because it came \
                 online after the start"
            } else {
                "events are being lost: the ring buffer is full (increase --ring-size)"
            });
        }
        let (sockets, counts) = if loaded.has_map(stats::FLOWS) {
            (counters.untracked, counters.lost_map)
        } else {
            (counters.untracked.max(counters.lost_map), 0)
        };
        if begins(sockets, &mut self.sockets) {
            messages.always(
                "sockets are missing: the table of sockets is full (increase --max-sockets), or they were open before the \
                 start and are not known yet",
            );
        }
        if begins(counts, &mut self.counts) {
            messages
                .always("new flows are not counted: the table of counts is full (increase --max-sockets)");
        }
        Ok(())
    }
}

/// Whether something is lost that was not reported before. From now on it counts as reported.
fn begins(lost: u64, reported: &mut bool) -> bool {
    lost > 0 && !std::mem::replace(reported, true)
}
