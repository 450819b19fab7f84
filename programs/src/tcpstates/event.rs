//! The event of a state change.

use crate::layout::layout;
use crate::tcp::State;

layout! {
    /// Sent for each state change of a TCP socket.
    pub struct Event as "tcpstates_event" {
        /// When it changed, `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// When it changed before that; 0 if unknown.
        pub last: u64,
        /// The socket's address.
        pub skaddr: u64,
        /// Remote address, the first four bytes for AF_INET.
        pub raddr: [u8; 16],
        /// Local address.
        pub laddr: [u8; 16],
        /// The name of that process's thread.
        pub comm: [u8; 16],
        /// The process that changed it; if a packet or a timer did, the owner; 0 if unknown.
        pub pid: u32,
        /// Network namespace: the inode that `/proc/PID/ns/net` shows.
        pub netns: u32,
        /// `sock_common.skc_dport`, network order
        pub rport: u16,
        /// `inet_sock.inet_sport`, network order
        pub lport: u16,
        /// `sock_common.skc_family`
        pub family: u16,
        /// The state that ends.
        pub oldstate: u8,
        /// The state that begins.
        pub newstate: u8,
    }
}

impl Event {
    #[must_use]
    pub fn oldstate(&self) -> State {
        State(self.oldstate)
    }

    #[must_use]
    pub fn newstate(&self) -> State {
        State(self.newstate)
    }

    /// Whether this is the birth of a connection or a listener.
    #[must_use]
    pub fn is_birth(&self) -> bool {
        self.oldstate() == State::CLOSE || self.comes_from_listener()
    }

    fn comes_from_listener(&self) -> bool {
        self.oldstate() == State::LISTEN && self.newstate() == State::SYN_RECV
    }

    /// Nanoseconds spent in the old state; `None` if its beginning was not seen.
    #[must_use]
    pub fn span_ns(&self) -> Option<u64> {
        // A connection that comes out of a listener is made at this moment, and was never in LISTEN
        // itself.
        if self.comes_from_listener() {
            return Some(0);
        }
        (self.last != 0).then(|| self.ts.saturating_sub(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_is_unknown_without_a_beginning() {
        let mut event = Event::decode(&[0; 128]).expect("enough bytes");
        event.ts = 500;
        (event.oldstate, event.newstate) = (State::CLOSE.0, State::SYN_SENT.0);
        assert_eq!(event.span_ns(), None);
        event.last = 400;
        assert_eq!(event.span_ns(), Some(100));
    }

    #[test]
    fn a_connection_is_born_out_of_listen() {
        let mut event = Event::decode(&[0; 128]).expect("enough bytes");
        (event.oldstate, event.newstate) = (State::LISTEN.0, State::SYN_RECV.0);
        assert_eq!(event.span_ns(), Some(0));
        event.newstate = State::CLOSE.0;
        assert_eq!(event.span_ns(), None, "the listener itself closes, and was open before the run");
    }
}
