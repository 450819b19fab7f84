//! tcplife: connections that were open before it started.

use super::{Entry, Event, REPORTED, Rank, Role, entry, event, events};
use crate::lab::fate::AGGREGATED;
use crate::lab::state::*;
use crate::lab::{cases, ns};
use crate::spec::OWNER;
use crate::tool::WALKERS;

cases! {
    /// A connection that was open when tracing began is known since then, and is reported as such.
    /// If its SYN was under way then, this side opened it, and it may fail.
    fn existing(lab) in [Wide] {
        let walks = WALKERS.into_iter().flat_map(|walker| lab.specs().into_iter().map(move |spec| (walker, spec)));
        for ((walker, spec), state) in walks.flat_map(|walk| [ESTABLISHED, SYN_SENT].map(|state| (walk.clone(), state))) {
            let mut tool = lab.tcplife(&lab.life());
            tool.walker = walker;
            let sock = tool.sock(&spec);
            tool.set_sock(sock, "sock_common.skc_state", state.0.into());
            tool.walk(1000, OWNER, sock);
            let (birth, established, role) = match state {
                SYN_SENT => (ns(1000), 0, Role::Active as u8),
                _ => (0, ns(1000), Role::Unknown as u8),
            };
            let (pid, rank, comm) = (OWNER.tgid, Rank::Preexisting as u32, OWNER.comm);
            let held = Entry { pid, rank, comm, birth, established, role, existing: 1, reserved: [0; 6] };
            assert_eq!(entry(&mut tool, sock), Some(held), "{state:?}");
            let next = if state == SYN_SENT { ESTABLISHED } else { CLOSE_WAIT };
            assert_eq!(tool.softirq(2000, sock, state, next), AGGREGATED);
            assert_eq!(tool.softirq(3000, sock, next, CLOSE), REPORTED);
            let established = if state == SYN_SENT { ns(2000) } else { established };
            let base = event(lab, &spec, OWNER);
            let expected = Event { ts: ns(3000), birth, established, role, existing: 1, oldstate: next.0, ..base };
            assert_eq!(events(&mut tool), [expected], "{state:?}");
        }
    }

    /// Of the open sockets only connections are entered.
    fn existing_by_state(lab) in [Wide] {
        for (state, walker) in (1..=11).flat_map(|state| WALKERS.map(|walker| (state, walker))) {
            let mut tool = lab.tcplife(&lab.life());
            tool.walker = walker;
            let sock = tool.sock(&lab.spec());
            tool.set_sock(sock, "sock_common.skc_state", state);
            tool.walk(1000, OWNER, sock);
            let connection = state != u64::from(CLOSE.0) && state != u64::from(LISTEN.0);
            // TCP_TIME_WAIT is never the state of a full socket, and only the typed walk looks.
            if state != 6 {
                assert_eq!(entry(&mut tool, sock).is_some(), connection, "{state}");
            }
        }
    }

    /// If such connections are not asked for, no program walks over them.
    fn existing_not_asked_for(lab) in [Narrow, Filtered, Six] {
        assert!(!lab.tcplife(&lab.life()).has("task_file"));
    }
}
