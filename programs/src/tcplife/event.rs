//! The event of a connection's end.

use crate::layout::layout;
use crate::outcome::Outcome;
use crate::tcp::State;

layout! {
    /// Sent when a connection changes to CLOSE. Times are `bpf_ktime_get_ns` (CLOCK_MONOTONIC), 0
    /// if unknown.
    pub struct Event as "tcplife_event" {
        /// The change to CLOSE.
        pub ts: u64,
        /// When the SYN was sent, or when the peer completed the handshake.
        pub birth: u64,
        /// When it was established, or when tracing began if that was later.
        pub established: u64,
        /// `tcp_sock.bytes_acked`
        pub bytes_acked: u64,
        /// `tcp_sock.bytes_received`
        pub bytes_received: u64,
        /// `tcp_sock.bytes_sent`, only if the role is unknown
        pub bytes_sent: u64,
        /// `tcp_sock.bytes_retrans`, only if the role is unknown
        pub bytes_retrans: u64,
        /// Remote address, the first four bytes for AF_INET.
        pub raddr: [u8; 16],
        /// Local address.
        pub laddr: [u8; 16],
        pub comm: [u8; 16],
        /// The owner; 0 if unknown.
        pub pid: u32,
        /// Network namespace: the inode that `/proc/PID/ns/net` shows.
        pub netns: u32,
        /// `tcp_sock.snd_una`
        pub snd_una: u32,
        /// `tcp_sock.write_seq`
        pub write_seq: u32,
        /// `sock.sk_err`, a positive errno
        pub err: u32,
        /// `sock_common.skc_dport`, network order
        pub rport: u16,
        /// `inet_sock.inet_sport`, network order
        pub lport: u16,
        /// `sock_common.skc_family`
        pub family: u16,
        /// The state before CLOSE.
        pub oldstate: u8,
        /// A [`Role`] as a number.
        pub role: u8,
        /// 1 if the peer's FIN arrived.
        pub fin_received: u8,
        /// 1 if the connection was open when tracing began.
        pub existing: u8,
        /// 1 if `err` is 0 and a process may have taken the error, see [`outcome`](crate::outcome).
        pub err_taken: u8,
        /// Always 0.
        pub reserved: u8,
    }
}

/// Which side opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// The connection was opened before tracing began.
    Unknown = 0,
    /// This socket sent the SYN.
    Active = 1,
    /// This socket came out of a listener.
    Passive = 2,
}

impl Event {
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            1 => Role::Active,
            2 => Role::Passive,
            _ => Role::Unknown,
        }
    }

    #[must_use]
    pub fn oldstate(&self) -> State {
        State(self.oldstate)
    }

    /// How it ended; `None` if a process has taken the error.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let without_error = match self.oldstate() {
            State::FIN_WAIT1 | State::FIN_WAIT2 | State::CLOSING | State::LAST_ACK => Outcome::Closed,
            _ => Outcome::Aborted,
        };
        // After both FINs are acknowledged, a connection ends without an error.
        let both_fins = self.fin_received != 0 && self.snd_una == self.write_seq;
        let known = self.err_taken == 0 || (without_error == Outcome::Closed && both_fins);
        Outcome::of_error(self.err).or(known.then_some(without_error))
    }

    /// The payload that the peer acknowledged, in bytes.
    ///
    /// The kernel counts sequence numbers, so its counter includes this side's FIN, and its SYN if
    /// it opened the connection. If it is unknown which side did, the payload that was sent is an
    /// upper limit. Only if such a connection ends by a reset with data in flight can the result be
    /// one byte too large.
    #[must_use]
    pub fn tx_bytes(&self) -> u64 {
        let all_acked = self.snd_una == self.write_seq;
        let fin = match self.oldstate() {
            State::FIN_WAIT2 => 1,
            State::FIN_WAIT1 | State::CLOSING | State::LAST_ACK => u64::from(all_acked),
            _ => 0,
        };
        let without_fin = self.bytes_acked.saturating_sub(fin);
        match self.role() {
            // The first acknowledgement covers the SYN.
            Role::Active => without_fin.saturating_sub(1),
            Role::Passive => without_fin,
            Role::Unknown => without_fin.min(self.bytes_sent.saturating_sub(self.bytes_retrans)),
        }
    }

    /// The payload received in order, in bytes. The kernel's counter includes the peer's FIN.
    #[must_use]
    pub fn rx_bytes(&self) -> u64 {
        self.bytes_received.saturating_sub(u64::from(self.fin_received))
    }

    /// Nanoseconds from established to CLOSE, or from the SYN for a connection that was never
    /// established. `None` if the beginning is unknown.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        [self.established, self.birth]
            .into_iter()
            .find(|&start| start != 0)
            .map(|start| self.ts.saturating_sub(start))
    }

    /// Nanoseconds from the SYN to established, for a connection that this side opened.
    #[must_use]
    pub fn handshake_ns(&self) -> Option<u64> {
        let known = self.role() == Role::Active && self.birth != 0 && self.established != 0;
        known.then(|| self.established.saturating_sub(self.birth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::errno;

    /// The 1000/3000-byte exchange whose counters a 6.18 kernel showed: the client closed first.
    fn client() -> Event {
        let mut event = Event::decode(&[0; 256]).expect("enough bytes");
        event.role = Role::Active as u8;
        event.oldstate = State::FIN_WAIT2.0;
        (event.birth, event.established, event.ts) = (100, 150, 1150);
        (event.bytes_acked, event.bytes_received, event.fin_received) = (1002, 3001, 1);
        event
    }

    #[test]
    fn syn_and_fin_are_not_payload() {
        let client = client();
        assert_eq!((client.tx_bytes(), client.rx_bytes()), (1000, 3000));
        let server = Event {
            role: Role::Passive as u8,
            oldstate: State::LAST_ACK.0,
            snd_una: 7,
            write_seq: 7,
            bytes_acked: 3001,
            bytes_received: 1001,
            ..client
        };
        assert_eq!((server.tx_bytes(), server.rx_bytes()), (3000, 1000));
    }

    #[test]
    fn an_unacknowledged_fin_is_not_subtracted() {
        for state in [State::FIN_WAIT1, State::CLOSING, State::LAST_ACK] {
            let event = Event { oldstate: state.0, snd_una: 6, write_seq: 7, bytes_acked: 1001, ..client() };
            assert_eq!(event.tx_bytes(), 1000, "{state:?}");
        }
        let reset = Event { oldstate: State::ESTABLISHED.0, bytes_acked: 1001, fin_received: 0, ..client() };
        assert_eq!((reset.tx_bytes(), reset.rx_bytes()), (1000, 3001));
    }

    #[test]
    fn sent_bytes_limit_the_payload_of_an_old_connection() {
        let unknown = Event { role: 0, bytes_sent: 1200, bytes_retrans: 200, ..client() };
        assert_eq!(unknown.tx_bytes(), 1000, "opened by this side: 1002 acked");
        assert_eq!(Event { bytes_acked: 1001, ..unknown }.tx_bytes(), 1000, "opened by the peer: 1001 acked");
        let cut = Event { oldstate: State::ESTABLISHED.0, bytes_acked: 500, ..unknown };
        assert_eq!(cut.tx_bytes(), 500, "less was acknowledged than sent");
    }

    #[test]
    fn a_refused_connect_has_no_bytes() {
        let refused = Event {
            oldstate: State::SYN_SENT.0,
            established: 0,
            bytes_acked: 0,
            bytes_received: 0,
            fin_received: 0,
            err: errno::ECONNREFUSED,
            ..client()
        };
        assert_eq!((refused.tx_bytes(), refused.rx_bytes()), (0, 0));
        assert_eq!(refused.outcome(), Some(Outcome::Refused));
        assert_eq!((refused.duration_ns(), refused.handshake_ns()), (Some(1050), None));
    }

    #[test]
    fn outcome_is_read_from_error_then_state() {
        let of = |err, state: State| Event { err, oldstate: state.0, ..client() }.outcome().expect("known");
        assert_eq!(of(0, State::FIN_WAIT2), Outcome::Closed);
        assert_eq!(of(0, State::LAST_ACK), Outcome::Closed);
        assert_eq!(of(0, State::CLOSE_WAIT), Outcome::Aborted);
        assert_eq!(of(0, State::SYN_SENT), Outcome::Aborted);
        assert_eq!(of(errno::ECONNRESET, State::ESTABLISHED), Outcome::Reset);
        assert_eq!(of(errno::EPIPE, State::CLOSE_WAIT), Outcome::Reset);
        assert_eq!(of(errno::ETIMEDOUT, State::ESTABLISHED), Outcome::Timeout);
        assert_eq!(of(errno::EHOSTUNREACH, State::SYN_SENT), Outcome::Unreachable);
    }

    #[test]
    fn the_outcome_is_unknown_after_a_process_took_the_error() {
        let taken = Event { err_taken: 1, ..client() };
        let of = |state: State, event: Event| Event { oldstate: state.0, ..event }.outcome();
        for state in [State::SYN_SENT, State::SYN_RECV, State::ESTABLISHED, State::CLOSE_WAIT] {
            assert_eq!(of(state, taken), None, "{state:?}");
        }
        for state in [State::FIN_WAIT2, State::CLOSING, State::LAST_ACK] {
            assert_eq!(of(state, taken), Some(Outcome::Closed), "{state:?}");
        }
        assert_eq!(of(State::FIN_WAIT2, Event { fin_received: 0, ..taken }), None, "no FIN from the peer");
        assert_eq!(of(State::LAST_ACK, Event { write_seq: 1, ..taken }), None, "our FIN is not acknowledged");
    }

    #[test]
    fn durations_start_where_they_are_known() {
        let event = client();
        assert_eq!((event.duration_ns(), event.handshake_ns()), (Some(1000), Some(50)));
        assert_eq!(Event { established: 0, birth: 0, ..event }.duration_ns(), None);
        assert_eq!(Event { role: Role::Passive as u8, ..event }.handshake_ns(), None);
    }
}
