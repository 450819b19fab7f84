//! Splits the time of a start and of a program run into parts: they show where a number above its
//! goal comes from.

use std::time::Duration;

use bpfasm::object::{Attach, MapDef, MapKind};
use bpfasm::{Fragment, bpf};
use loader::Loaded;
use nix::libc;
use programs::tcpstates::Event;

use super::start::{begin, with_cleanup};
use super::{Plan, progress};
use crate::contender::Maker;
use crate::fault::{During, Result};
use crate::load::{End, Kind, Load};
use crate::own;
use crate::report::{Cell, Figure};
use crate::round::bare;
use crate::stats::{median, ratio};
use crate::watch::Call;

/// The parts of a start: the columns of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Maps,
    Programs,
    Attaching,
    OtherCalls,
    BetweenCalls,
}

/// The number of parts.
const PARTS: usize = Part::BetweenCalls as usize + 1;

impl Part {
    /// The part that a system call belongs to.
    fn of(call: &Call) -> Self {
        const MAP_CREATE: u64 = 0;
        const PROG_LOAD: u64 = 5;
        match (call.number, call.args[0]) {
            (libc::SYS_bpf, MAP_CREATE) => Self::Maps,
            (libc::SYS_bpf, PROG_LOAD) => Self::Programs,
            (libc::SYS_perf_event_open, _) => Self::Attaching,
            _ if call.attaches() => Self::Attaching,
            _ => Self::OtherCalls,
        }
    }
}

/// Milliseconds that a start spends in each part.
fn split(calls: &[Call]) -> [f64; PARTS] {
    let millis = |begin: u64, end: u64| end.saturating_sub(begin) as f64 / 1e6;
    let mut parts = [0.0; PARTS];
    for call in calls.iter().filter(|call| !call.executes()) {
        parts[Part::of(call) as usize] += millis(call.begin, call.end.unwrap_or(call.begin));
    }
    let begin = calls.iter().find(|call| call.executes()).and_then(|call| call.end);
    let end = calls.iter().filter_map(|call| call.end).max();
    let whole = begin.zip(end).map_or(0.0, |(begin, end)| millis(begin, end));
    parts[Part::BetweenCalls as usize] = (whole - parts.iter().sum::<f64>()).max(0.0);
    parts
}

/// Measures the parts of the start of each tool.
pub fn starts(plan: &Plan) -> Result<Figure> {
    progress("parts of a start");
    let mut figure = Figure::new(
        "start-parts",
        "Parts of a start",
        "Milliseconds until the last program is attached: in system calls that create maps, load programs (mostly the verifier) \
         and attach them, in all other system calls, and between calls, where types are looked up and programs assembled. \
         Medians of nine starts, without execve itself.",
        &["tool", "maps", "programs", "attaching", "other calls", "between calls"],
    );
    let tcptools = || plan.contenders.iter().filter(|contender| contender.maker == Maker::Tcptools);
    let mut parts: Vec<[Vec<f64>; PARTS]> = tcptools().map(|_| Default::default()).collect();
    // Tools take turns, because the kernel can still be closing perf events of the last run of the
    // same tool.
    for _ in 0..9 {
        for (contender, parts) in tcptools().zip(&mut parts) {
            let (marks, calls) = with_cleanup(|| {
                let (running, marks, calls) = begin(contender)?;
                running.stop()?;
                Ok((marks, calls))
            })
            .during(contender)?;
            for (all, one) in parts.iter_mut().zip(split(marks.of(&calls))) {
                all.push(one);
            }
        }
    }
    for (contender, parts) in tcptools().zip(&parts) {
        let name = std::iter::once(Cell::from(contender.to_string()));
        figure.row(name.chain(parts.iter().map(|part| Cell::number(median(part), 2))));
    }
    Ok(figure)
}

/// The parts of a program that reports a change of state: a name and the code of each.
fn parts() -> [(&'static str, Fragment); 7] {
    let key = || {
        bpf! {
            r1 = *(u64 *)(r1 + 0);                      // sk
            *(u64 *)(r10 - 8) = r1;
        }
    };
    [
        ("empty program", bpf! { r0 = 0; exit; }),
        ("time", bpf! { call bpf_ktime_get_ns; r0 = 0; exit; }),
        (
            "PID and name",
            bpf! {
                call bpf_get_current_task_btf;
                w1 = *(u32 *)(r0 + task_struct.tgid);
                *(u32 *)(r10 - 20) = w1;
                r1 = *(u64 *)(r0 + task_struct.comm);
                *(u64 *)(r10 - 16) = r1;
                r1 = *(u64 *)(r0 + task_struct.comm + 8);
                *(u64 *)(r10 - 8) = r1;
                r0 = 0;
                exit;
            },
        ),
        (
            "table entry of the socket",
            bpf! {
                ..key();
                *(u64 *)(r10 - 16) = 0;
                r1 = map sockets ll;
                r2 = r10;
                r2 += -8;
                call bpf_map_lookup_elem;
                if r0 != 0 goto found;
                r1 = map sockets ll;
                r2 = r10;
                r2 += -8;
                r3 = r10;
                r3 += -16;
                r4 = 0;
                call bpf_map_update_elem;
            found:
                r0 = 0;
                exit;
            },
        ),
        (
            "two counters",
            bpf! {
                *(u32 *)(r10 - 4) = 0;
                r1 = map counters ll;
                r2 = r10;
                r2 += -4;
                call bpf_map_lookup_elem;
                if r0 == 0 goto none;
                r1 = 1;
                lock *(u64 *)(r0 + 0) += r1;
                lock *(u64 *)(r0 + 8) += r1;
            none:
                r0 = 0;
                exit;
            },
        ),
        (
            "fields of the socket",
            bpf! {
                r6 = *(u64 *)(r1 + 0);
                r1 = r6;
                call bpf_skc_to_tcp_sock;
                if r0 == 0 goto none;
                w1 = *(u16 *)(r0 + sock_common.skc_family);
                w1 = *(u32 *)(r0 + sock_common.skc_daddr);
                w1 = *(u32 *)(r0 + sock_common.skc_rcv_saddr);
                w1 = *(u16 *)(r0 + sock_common.skc_dport);
                w1 = *(u16 *)(r0 + inet_sock.inet_sport);
                w1 = *(u32 *)(r0 + sock.sk_lock.owned);
                r1 = *(u64 *)(r0 + sock_common.skc_net.net);
                w1 = *(u32 *)(r1 + net.ns.inum);
            none:
                r0 = 0;
                exit;
            },
        ),
        ("event sent to the ring", {
            let size = Event::SIZE.cast_signed();
            let mut code = Fragment::new();
            for at in (-size..0).step_by(8) {
                code.splice(bpf! { *(u64 *)(r10 + {at}) = 0; });
            }
            bpf! {
                ..code;
                r1 = map ring ll;
                r2 = r10;
                r2 += {-size};
                w3 = {size};
                w4 = 1;                                 // BPF_RB_NO_WAKEUP
                call bpf_ringbuf_output;
                r0 = 0;
                exit;
            }
        }),
    ]
}

/// Attaches all parts to the same changes of state and measures nanoseconds per run of each.
pub fn runs() -> Result<Figure> {
    progress("parts of a run");
    /// Bytes for all events of a round, because no reader takes them out.
    const RING_SIZE: u32 = 64 << 20;
    const TRACEPOINT: &str = "inet_sock_set_state";
    let names: Vec<&str> = parts().iter().map(|(name, _)| *name).collect();
    let hooks =
        parts().into_iter().map(|(name, code)| own::hook(name, Attach::TpBtf(TRACEPOINT.into()), code));
    let maps = vec![
        MapDef::new("sockets", MapKind::Hash, 8, 8, 1 << 18),
        MapDef::new("counters", MapKind::PercpuArray, 4, 16, 1),
        MapDef::new("ring", MapKind::RingBuf, 0, 0, RING_SIZE),
    ];
    let mut loaded = own::load(&own::object("parts", hooks.collect::<Result<_>>()?, maps))?;
    loaded.attach().during("attach the parts")?;
    let _on = loader::enable_stats().during("BPF_ENABLE_STATS")?;
    bare(Load::new(Kind::Storm(End::Fin), Duration::from_millis(500)))?;
    let nanos = nanos_per_run(&loaded)?;
    let empty = nanos.first().copied().flatten();
    let mut figure = Figure::new(
        "run-parts",
        "Parts of a run",
        "One program for each part of a row of tcpstates, all attached to the same changes of state in a storm: nanoseconds per \
         run by the kernel's own count, and the difference to the empty program. The sum is the cost of a row about a change that \
         a process makes; for a change by a packet or a timer, the name comes from the table entry.",
        &["part", "ns/run", "above empty program"],
    );
    let mut sum = empty.unwrap_or(0.0);
    for (name, nanos) in names.into_iter().zip(nanos) {
        let added = nanos.zip(empty).map(|(nanos, empty)| nanos - empty);
        sum += added.unwrap_or(0.0);
        figure.row([name.into(), Cell::number(nanos, 0), Cell::number(added, 0)]);
    }
    figure.row(["sum".into(), Cell::number(Some(sum), 0), Cell::Unknown]);
    Ok(figure)
}

fn nanos_per_run(loaded: &Loaded) -> Result<Vec<Option<f64>>> {
    let stats = loaded.stats().during("statistics")?;
    Ok(stats.iter().map(|program| ratio(program.run_time_ns as f64, program.run_count as f64)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_split_into_parts() {
        let call = |begin: u64, took: u64, number, first| Call {
            begin: begin * 1_000_000,
            end: Some((begin + took) * 1_000_000),
            number,
            args: [first, 0],
        };
        let calls = [
            call(0, 10, libc::SYS_execve, 0),
            call(11, 1, libc::SYS_read, 3),
            call(12, 2, libc::SYS_bpf, 0),
            call(20, 3, libc::SYS_bpf, 5),
            call(23, 4, libc::SYS_bpf, 17),
        ];
        assert_eq!(split(&calls), [2.0, 3.0, 4.0, 1.0, 7.0]);
        assert_eq!(split(&[]), [0.0; PARTS]);
    }

    #[test]
    fn the_parts_assemble() {
        for (name, code) in parts() {
            assert!(own::hook(name, Attach::TpBtf(name.into()), code).is_ok(), "{name}");
        }
    }
}
