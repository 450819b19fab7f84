//! The event of a connect's result.

use crate::layout::layout;
use crate::outcome::Outcome;
use crate::tcp::State;

layout! {
    /// Sent when a connect is answered or fails.
    pub struct Event as "tcpconnlat_event" {
        /// When it was answered or failed, `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// Nanoseconds since the change to SYN_SENT.
        pub latency: u64,
        /// Remote address, the first four bytes for AF_INET.
        pub raddr: [u8; 16],
        /// Local address.
        pub laddr: [u8; 16],
        /// The name of the thread that connected.
        pub comm: [u8; 16],
        /// The process that connected; 0 if unknown.
        pub pid: u32,
        /// Network namespace: the inode that `/proc/PID/ns/net` shows.
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
        /// 1 if `err` is 0 and a process may have taken the error, see [`outcome`](crate::outcome).
        pub err_taken: u8,
        /// Always 0.
        pub reserved: u8,
    }
}

impl Event {
    /// Without an error, this side gave up. `None` if a process has taken the error.
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
        assert_eq!(of(State::FIN_WAIT1, 0), Some(Outcome::Aborted), "closed while both SYNs were in flight");
    }

    #[test]
    fn the_outcome_is_unknown_after_a_process_took_the_error() {
        let event = Event { err_taken: 1, ..Event::decode(&[0; 256]).expect("enough bytes") };
        let of = |newstate: State| Event { newstate: newstate.0.into(), ..event }.outcome();
        assert_eq!(of(State::CLOSE), None);
        assert_eq!(of(State::ESTABLISHED), Some(Outcome::Established));
    }
}
