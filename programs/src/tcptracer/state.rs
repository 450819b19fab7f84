//! Connects and closes, as the states of a socket show them.

use std::mem::offset_of;

use bpfasm::target::Target;
use bpfasm::{Fragment, Reg, Size, bpf};

use super::{Entry, Event, Kind, Options, Stage, by_current, send};
use crate::owner::{self, Rank};
use crate::sock::Sock;
use crate::stack_layout::{entry, event};
use crate::state_change::{NEWSTATE, OLDSTATE, begin};
use crate::stats::{self, Count, count};
use crate::table::{self, IfExists};
use crate::tcp::{SHUTDOWN_MASK, State};

const STAGE: usize = offset_of!(Entry, stage);

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
pub(super) fn change(options: &Options, target: &Target) -> Fragment {
    let sock = Sock::new(target.access);
    bpf! {
        ..begin(sock, "out");
        w1 = *(u32 *)(r9 + {OLDSTATE});
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w2 == {State::SYN_SENT.0} goto connecting;
        if w2 == {State::ESTABLISHED.0} goto established;
        if w1 == {State::LISTEN.0} goto from_listener;
        // Never established: it listens, was refused, or gave up.
        if w1 == {State::CLOSE.0} goto filtered;
        if w1 == {State::SYN_SENT.0} goto filtered;

        // A close, if the current task makes this change and has shut down both directions.
        ..owner::unless_owned(sock, "filtered");
        ..sock.load(Reg::R1, Size::B1, "sock.sk_shutdown");
        if w1 != {SHUTDOWN_MASK} goto filtered;
        ..table::lookup();
        if r8 == 0 goto first_seen;
        w1 = *(u32 *)(r8 + {STAGE});
        if w1 != {Stage::Open as i32} goto filtered;    // still connecting, or reported before
        *(u32 *)(r8 + {STAGE}) = {Stage::Closed as i32};
        goto closed;
    first_seen:
        ..table::clear(Entry::LAYOUT);
        *(u32 *)(r10 + {entry!(stage)}) = {Stage::Closed as i32};
        ..table::store(IfExists::Replace);
        if w0 != 0 goto lost;                           // without the entry, it would be reported twice
    closed:
        ..options.actor("filtered");
        ..by_current(target.access, Kind::Close);
        goto report;

    connecting:
        ..only_wanted_connects(options, sock);
        ..table::clear(Entry::LAYOUT);
        *(u32 *)(r10 + {entry!(stage)}) = {Stage::Connecting as i32};
        ..owner::into_new_entry(sock, Rank::Used);
        w1 = *(u32 *)(r10 + {entry!(rank)});
        if w1 == 0 goto no_owner;
        call bpf_get_current_uid_gid;
        *(u32 *)(r10 + {entry!(uid)}) = w0;
    no_owner:
        ..table::store(IfExists::Replace);
        if w0 != 0 goto lost;
        ..count(Count::Aggregated);
        goto out;

    established:
        ..connected(options);
    report:
        ..options.filter.socket(sock, "filtered");
        ..send(options, target, sock);
        goto out;

    from_listener:
        // A connection that comes out of it may reuse the address of an old one.
        ..table::forget();
    filtered:
        ..count(Count::Filtered);
        goto out;
    lost:
        ..table::count_lost_event();
    out:
        r0 = 0;
        exit;
    }
}

/// Deletes the socket's entry and jumps to `filtered` unless the task that connects passes the
/// filters by process.
fn only_wanted_connects(options: &Options, sock: Sock) -> Fragment {
    let checks = options.actor("unwanted");
    if checks.is_empty() {
        return checks;
    }
    bpf! {
        ..owner::unless_owned(sock, "unwanted");
        ..checks;
        goto wanted;
    unwanted:
        ..table::forget();
        goto filtered;
    wanted:
    }
}

/// Writes the process that connected into the event of a connection that is established now. Jumps
/// to `filtered` if the connection came out of a listener, or if the process does not pass the
/// filters.
fn connected(options: &Options) -> Fragment {
    // The connect was not seen: it was made before tracing began, or the table was full.
    let unseen = if options.actor("unwanted").is_empty() {
        bpf! {
            w1 = *(u32 *)(r9 + {OLDSTATE});
            if w1 != {State::SYN_SENT.0} goto filtered;
            ..owner::unknown_into_event(event!(pid), event!(comm));
            *(u32 *)(r10 + {event!(uid)}) = 0;
        }
    } else {
        bpf! { goto filtered; }
    };
    bpf! {
        ..table::lookup();
        if r8 == 0 goto unseen;
        w1 = *(u32 *)(r8 + {STAGE});
        if w1 != {Stage::Connecting as i32} goto filtered;
        *(u32 *)(r8 + {STAGE}) = {Stage::Open as i32};
        ..owner::entry_into_event(event!(pid), event!(comm));
        w1 = *(u32 *)(r8 + {offset_of!(Entry, uid)});
        *(u32 *)(r10 + {event!(uid)}) = w1;
        goto seen;
    unseen:
        ..unseen;
    seen:
        *(u16 *)(r10 + {event!(kind)}) = {Kind::Connect as i32};
    }
}

/// `tcp_destroy_sock(struct sock *sk)`: runs in the task that closes the socket, if nothing was
/// left to wait for.
pub(super) fn destroyed(options: &Options, target: &Target) -> Fragment {
    let sock = Sock::new(target.access);
    bpf! {
        r9 = r1;
        r6 = *(u64 *)(r9 + 0);                          // sk
        ..table::key();
        ..sock.tcp("out");
        ..stats::open("out");
        ..count(Count::Seen);
        ..owner::unless_owned(sock, "forget");
        ..sock.common(Reg::R1, Size::B2, "sock_common.skc_dport");
        if w1 == 0 goto forget;                         // a listener, or disconnected by connect(AF_UNSPEC)
        ..table::lookup();
        if r8 == 0 goto unseen;
        w1 = *(u32 *)(r8 + {STAGE});
        if w1 != {Stage::Open as i32} goto forget;      // never established, or reported before
        goto closed;
    unseen:
        // A socket that was refused, or never connected, has no sequence number from a peer.
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.rcv_nxt");
        if w1 == 0 goto forget;
    closed:
        ..options.actor("forget");
        ..options.filter.socket(sock, "forget");
        ..by_current(target.access, Kind::Close);
        ..send(options, target, sock);
        ..table::forget();
        goto out;
    forget:
        ..table::forget();
        ..count(Count::Filtered);
    out:
        r0 = 0;
        exit;
    }
}
