//! Records the system calls of a process with kernel timestamps, by BPF programs at `sys_enter` and
//! `sys_exit`.
//!
//! They add a fraction of a microsecond to each call. A ptrace tracer stops the process twice per
//! call and makes a start three times as long.

use std::collections::HashMap;

use bpfasm::object::{Attach, MapDef, MapKind, Object};
use bpfasm::{Fragment, bpf};
use loader::{Events, Loaded};
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use crate::fault::{During, Result};
use crate::own;

/// Bytes of the ring: enough for 30,000 calls between two reads.
const RING_SIZE: u32 = 4 << 20;

/// A system call. Calls are kept in the order in which they began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// When it began, in nanoseconds of the monotonic clock.
    pub begin: u64,
    /// When it returned; `None` while it runs.
    pub end: Option<u64>,
    pub number: i64,
    /// The first two arguments.
    pub args: [u64; 2],
}

/// Watches a process until it is dropped.
#[derive(Debug)]
pub struct Watch {
    _loaded: Loaded,
    events: Events,
    calls: Vec<Call>,
    /// The index of the call that a thread is in, by thread.
    inside: HashMap<u64, usize>,
}

/// Marks a record of `sys_exit`, in place of the number of a call.
const EXIT: i32 = -1;

impl Watch {
    /// Starts to watch a process.
    pub fn over(pid: u32) -> Result<Self> {
        let mut loaded = own::load(&object(pid)?)?;
        let events = loaded.events("calls").during("watch system calls")?;
        loaded.attach().during("watch system calls")?;
        Ok(Self { _loaded: loaded, events, calls: Vec::new(), inside: HashMap::new() })
    }

    /// All calls until now.
    pub fn calls(&mut self) -> Result<&[Call]> {
        let Self { events, calls, inside, .. } = self;
        // A record has five words: time, thread, number of the call, two arguments.
        let mut add = |record: &[u8]| {
            let (words, _) = record.as_chunks::<8>();
            let [begin, thread, number, first, second] = words else { return };
            let [begin, thread, first, second] =
                [begin, thread, first, second].map(|word| u64::from_ne_bytes(*word));
            let number = i64::from_ne_bytes(*number);
            if number == i64::from(EXIT) {
                if let Some(call) = inside.remove(&thread).and_then(|at| calls.get_mut(at)) {
                    call.end = Some(begin);
                }
            } else {
                inside.insert(thread, calls.len());
                calls.push(Call { begin, end: None, number, args: [first, second] });
            }
        };
        events.drain(&mut add).during("watch system calls")?;
        Ok(&self.calls)
    }
}

/// The time now on the clock of [`Call::begin`].
pub fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).during("clock_gettime")?;
    u64::try_from(now.tv_sec() * 1_000_000_000 + now.tv_nsec()).during("a time")
}

impl Call {
    /// Whether it attaches a program: `BPF_RAW_TRACEPOINT_OPEN`, `BPF_LINK_CREATE`, or the ioctls
    /// of a perf event.
    pub fn attaches(&self) -> bool {
        const RAW_TRACEPOINT_OPEN: u64 = 17;
        const LINK_CREATE: u64 = 28;
        const PERF_EVENT_IOC_SET_BPF: u64 = 0x4004_2408;
        const PERF_EVENT_IOC_ENABLE: u64 = 0x2400;
        let [first, second] = self.args;
        (self.number == libc::SYS_bpf && matches!(first, RAW_TRACEPOINT_OPEN | LINK_CREATE))
            || (self.number == libc::SYS_ioctl
                && matches!(second & 0xffff_ffff, PERF_EVENT_IOC_SET_BPF | PERF_EVENT_IOC_ENABLE))
    }

    pub fn executes(&self) -> bool {
        self.number == libc::SYS_execve
    }
}

fn object(pid: u32) -> Result<Object> {
    let pid = i32::try_from(pid).during("pid")?;
    let send = || {
        bpf! {
            *(u64 *)(r10 - 40) = r0;                // time
            call bpf_get_current_pid_tgid;
            *(u64 *)(r10 - 32) = r0;
            r1 = map calls ll;
            r2 = r10;
            r2 += -40;
            w3 = 40;
            w4 = 1;                                 // BPF_RB_NO_WAKEUP
            call bpf_ringbuf_output;
        out:
            r0 = 0;
            exit;
        }
    };
    let only_this_process = || {
        bpf! {
            r6 = r1;
            call bpf_get_current_pid_tgid;
            r0 >>= 32;
            if w0 != {pid} goto out;
        }
    };
    let enter = bpf! {
        ..only_this_process();
        r1 = *(u64 *)(r6 + 8);
        *(u64 *)(r10 - 24) = r1;
        r2 = *(u64 *)(r6 + 0);                      // struct pt_regs *
        ..arguments();
        *(u64 *)(r10 - 16) = r3;
        *(u64 *)(r10 - 8) = r4;
        call bpf_ktime_get_ns;
        ..send();
    out:
        r0 = 0;
        exit;
    };
    let exit = bpf! {
        ..only_this_process();
        r1 = {EXIT};
        *(u64 *)(r10 - 24) = r1;
        *(u64 *)(r10 - 16) = 0;
        *(u64 *)(r10 - 8) = 0;
        call bpf_ktime_get_ns;
        ..send();
    out:
        r0 = 0;
        exit;
    };
    let hook = |name: &'static str, code| own::hook(name, Attach::TpBtf(name.into()), code);
    let hooks = vec![hook("sys_exit", exit)?, hook("sys_enter", enter)?];
    Ok(own::object("watch", hooks, vec![MapDef::new("calls", MapKind::RingBuf, 0, 0, RING_SIZE)]))
}

/// Loads the first two arguments of a system call into `r3` and `r4`; `r2` points to its registers.
#[cfg(target_arch = "x86_64")]
fn arguments() -> Fragment {
    bpf! {
        r3 = *(u64 *)(r2 + pt_regs.di);
        r4 = *(u64 *)(r2 + pt_regs.si);
    }
}

/// Loads the first two arguments of a system call into `r3` and `r4`; `r2` points to its registers.
#[cfg(target_arch = "aarch64")]
fn arguments() -> Fragment {
    bpf! {
        r3 = *(u64 *)(r2 + pt_regs.orig_x0);
        r4 = *(u64 *)(r2 + pt_regs.regs[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_attach() {
        let call = |number, args| Call { begin: 0, end: None, number, args };
        assert!(call(libc::SYS_bpf, [17, 0]).attaches());
        assert!(call(libc::SYS_bpf, [28, 0]).attaches());
        assert!(!call(libc::SYS_bpf, [5, 0]).attaches());
        assert!(call(libc::SYS_ioctl, [9, 0x4004_2408]).attaches());
        assert!(!call(libc::SYS_ioctl, [9, 0x5401]).attaches());
        assert!(call(libc::SYS_execve, [0, 0]).executes());
    }

    #[test]
    fn the_programs_assemble() {
        for hook in object(1234).unwrap().hooks {
            assert!(hook.attach_options.iter().all(|attach_option| attach_option.program.slots().is_ok()));
        }
    }
}
