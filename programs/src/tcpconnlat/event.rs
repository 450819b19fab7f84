//! What came of a connect.

use crate::layout::layout;
use crate::outcome::Outcome;
use crate::tcp::State;

layout! {
    /// Sent when a connect is answered, or comes to nothing.
    pub struct Event as "tcpconnlat_event" {
        /// The answer, or the end: `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// Since the change to SYN_SENT, in nanoseconds.
        pub latency: u64,
        /// Remote address, the first four bytes for AF_INET.
        pub raddr: [u8; 16],
        /// Local address.
        pub laddr: [u8; 16],
        /// The name of the thread that connected.
        pub comm: [u8; 16],
        /// The process that connected, 0 where not known.
        pub pid: u32,
        /// Network namespace, as `/proc/PID/ns/net` names it.
        pub netns: u32,
        /// `sock.sk_err`, a positive errno
        pub err: u32,
        /// The state that follows, a [`State`].
        pub newstate: u32,
        /// `sock_common.skc_dport`, network order
        pub rport: u16,
        /// `inet_sock.inet_sport`, network order
        pub lport: u16,
        /// `sock_common.skc_family`
        pub family: u16,
        /// 1 if there is no error because a process may have taken it.
        pub err_taken: u8,
        /// Fills up to eight bytes.
        pub reserved: u8,
    }
}

impl Event {
    /// What came of it: where it was not established and there was no error, this side gave up. `None` where the error is gone.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        if self.newstate == State::ESTABLISHED.0.into() {
            return Some(Outcome::Established);
        }
        Outcome::of_error(self.err).or((self.err_taken == 0).then_some(Outcome::Aborted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::errno;

    #[test]
    fn outcome_is_the_state_then_the_error() {
        let event = Event::decode(&[0; 256]).expect("enough bytes");
        let of = |newstate: State, err| Event { newstate: newstate.0.into(), err, ..event }.outcome();
        assert_eq!(of(State::ESTABLISHED, 0), Some(Outcome::Established));
        assert_eq!(of(State::ESTABLISHED, errno::ECONNREFUSED), Some(Outcome::Established), "an older error");
        for (err, outcome) in [
            (errno::ECONNREFUSED, Outcome::Refused),
            (errno::ETIMEDOUT, Outcome::Timeout),
            (errno::EHOSTUNREACH, Outcome::Unreachable),
            (errno::ENETUNREACH, Outcome::Unreachable),
            (errno::EACCES, Outcome::Unreachable),
            (errno::ECONNRESET, Outcome::Reset),
            (0, Outcome::Aborted),
            (103, Outcome::Aborted), // ECONNABORTED: an administrator's `ss --kill`
        ] {
            assert_eq!(of(State::CLOSE, err), Some(outcome), "{err}");
        }
        assert_eq!(of(State::FIN_WAIT1, 0), Some(Outcome::Aborted), "closed while both SYNs were under way");
    }

    #[test]
    fn an_error_that_a_process_took_is_not_guessed() {
        let event = Event { err_taken: 1, ..Event::decode(&[0; 256]).expect("enough bytes") };
        let of = |newstate: State| Event { newstate: newstate.0.into(), ..event }.outcome();
        assert_eq!(of(State::CLOSE), None);
        assert_eq!(of(State::ESTABLISHED), Some(Outcome::Established));
    }
}
