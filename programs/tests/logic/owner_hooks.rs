//! The programs that keep the table of owners for tools whose own events come from other hooks.

use programs::owner::{Owner, Rank};
use programs::stats::Stats;

use crate::lab::state::*;
use crate::lab::{cases, fate};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, Spec};
use crate::tcpretrans::knowing;
use crate::tool::{Sock, Tool, WALKERS};
use crate::vm::machine::Task;

fn owner(tool: &mut Tool<'_>, sock: Sock) -> Option<(u32, u32, [u8; 16])> {
    let owner = tool.entry(sock).map(|bytes| Owner::decode(&bytes).expect("an entry is an owner"))?;
    Some((owner.pid, owner.rank, owner.comm))
}

fn known(task: Task, rank: Rank) -> Option<(u32, u32, [u8; 16])> {
    Some((task.tgid, rank as u32, task.comm))
}

cases! {
    /// The process that opens a socket owns it through all its states, even if another process
    /// changes them.
    fn opened(lab) in [Narrow, Wide] {
        for spec in [Spec::V4, Spec::V6] {
            let mut tool = knowing(lab);
            for path in [
                &[CLOSE, LISTEN, CLOSE][..],
                &[CLOSE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2],
                &[CLOSE, SYN_SENT, ESTABLISHED, CLOSE_WAIT, LAST_ACK],
            ] {
                let sock = tool.sock(&spec);
                for (step, change) in path.windows(2).enumerate() {
                    let task = if step == 0 { OWNER } else { OTHER };
                    assert_eq!(tool.call(1, task, sock, change[0], change[1]), fate::NOTHING);
                    assert_eq!(owner(&mut tool, sock), known(OWNER, Rank::Used), "{change:?}");
                }
                tool.destroy(sock);
                assert_eq!(owner(&mut tool, sock), None);
            }
        }
    }

    /// A connection out of a listener has no owner, even if its address belonged to an owned socket
    /// before.
    fn arrived(lab) in [Narrow, Wide] {
        let mut tool = knowing(lab);
        let sock = tool.sock(&Spec::V4);
        tool.call(1, OWNER, sock, CLOSE, SYN_SENT);
        tool.softirq(2, sock, LISTEN, SYN_RECV);
        assert_eq!(owner(&mut tool, sock), known(NO_PROCESS, Rank::Unknown));
        tool.softirq(3, sock, ESTABLISHED, CLOSE_WAIT);
        assert_eq!(owner(&mut tool, sock), known(NO_PROCESS, Rank::Unknown));
        // Until the rank is written, which is last, the rest is not to be looked at.
        let begun = [&OWNER.tgid.to_ne_bytes(), &[0; 4], &OWNER.comm[..]].concat();
        tool.machine().insert("sockets", &sock.address.to_ne_bytes(), &begun);
        tool.call(4, OTHER, sock, CLOSE_WAIT, LAST_ACK);
        assert_eq!(owner(&mut tool, sock), known(OTHER, Rank::Closed));
    }

    /// A change to the same state teaches nothing, nor does one of a socket that is not in the
    /// table.
    fn nothing_to_learn(lab) in [Narrow, Wide] {
        let mut tool = knowing(lab);
        let sock = tool.sock(&Spec::V4);
        for state in [CLOSE, LISTEN, ESTABLISHED] {
            tool.call(1, OTHER, sock, state, state);
        }
        for (old, new) in [(SYN_SENT, SYN_RECV), (LISTEN, CLOSE), (ESTABLISHED, FIN_WAIT1)] {
            tool.call(1, OTHER, sock, old, new);
        }
        assert_eq!(owner(&mut tool, sock), None);
        for (family, protocol) in OTHERS {
            let sock = tool.sock(&Spec { family, protocol, ..Spec::V4 });
            assert_eq!(tool.call(1, OWNER, sock, CLOSE, SYN_SENT), fate::NOTHING);
            assert_eq!(owner(&mut tool, sock), None);
        }
    }

    /// A socket that does not fit into the table is counted each time it would have been entered.
    fn full_table(lab) in [Narrow, Wide] {
        let mut tool = knowing(lab);
        let socks = [(); 3].map(|()| tool.sock(&Spec::V4));
        let fates = socks.map(|sock| tool.call(1, OWNER, sock, CLOSE, SYN_SENT));
        assert_eq!(fates, [fate::NOTHING, fate::NOTHING, Stats { untracked: 1, ..fate::NOTHING }]);
        assert_eq!(socks.map(|sock| owner(&mut tool, sock).is_some()), [true, true, false]);
    }

    /// Sockets of both families that are open already are entered with the process that has them
    /// open.
    fn held(lab) in [Narrow, Wide] {
        for walker in WALKERS {
            for spec in [Spec::V4, Spec::V6, Spec::MAPPED] {
                let mut tool = knowing(lab);
                tool.walker = walker;
                let sock = tool.sock(&spec);
                tool.walk(1, OWNER, sock);
                assert_eq!(owner(&mut tool, sock), known(OWNER, Rank::Preexisting));
            }
        }
    }
}
