//! The event of a retransmission, and the counters of a flow.

use std::mem::offset_of;

use crate::layout::layout;
use crate::tcp::State;

layout! {
    /// A connection. Retransmissions are counted by this.
    pub struct Flow as "tcpretrans_flow" {
        /// Local address, the first four bytes for AF_INET.
        pub laddr: [u8; 16],
        /// Remote address.
        pub raddr: [u8; 16],
        /// Network namespace: the inode that `/proc/PID/ns/net` shows.
        pub netns: u32,
        /// Local port, network order.
        pub lport: u16,
        /// Remote port, network order.
        pub rport: u16,
        /// `sock_common.skc_family`
        pub family: u16,
        /// Always 0, so that equal flows have equal bytes.
        pub reserved: u16,
    }
}

layout! {
    /// The counters of a flow.
    pub struct Tally as "tcpretrans_tally" {
        /// Retransmitted packets, each of one or more segments.
        pub retransmits: u64,
        /// Segments in these packets.
        pub segments: u64,
    }
}

layout! {
    /// Sent for each retransmission; starts like [`Flow`].
    pub struct Event as "tcpretrans_event" {
        pub laddr: [u8; 16],
        pub raddr: [u8; 16],
        pub netns: u32,
        pub lport: u16,
        pub rport: u16,
        pub family: u16,
        pub reserved: u16,
        /// The owner if the tool tracks owners, else the process that acts for the socket; 0 if
        /// unknown.
        pub pid: u32,
        /// The name of that process's thread.
        pub comm: [u8; 16],
        /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// The first sequence number, see [`Event::seq`].
        pub first: u32,
        /// An `int`: see [`Event::err`].
        pub status: u32,
        /// Segments in the packet.
        pub segments: u16,
        /// The socket's state.
        pub state: u8,
        /// A [`Kind`].
        pub kind: u8,
        /// 1 if `first` is known.
        pub has_first: u8,
        /// 1 if the table of owners has the socket, so that the reader need not look for its owner
        /// elsewhere.
        pub tracked: u8,
        /// Always 0.
        pub padding: u16,
    }
}

const _: () = {
    assert!(offset_of!(Event, laddr) == offset_of!(Flow, laddr));
    assert!(offset_of!(Event, raddr) == offset_of!(Flow, raddr));
    assert!(offset_of!(Event, netns) == offset_of!(Flow, netns));
    assert!(offset_of!(Event, lport) == offset_of!(Flow, lport));
    assert!(offset_of!(Event, rport) == offset_of!(Flow, rport));
    assert!(offset_of!(Event, family) == offset_of!(Flow, family));
    assert!(offset_of!(Event, reserved) == offset_of!(Flow, reserved));
};

/// What was retransmitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A packet of a connection: SYN, data, FIN.
    Retransmit = b'R',
    /// The same, sent by a tail loss probe, if the options ask for this distinction.
    LossProbe = b'L',
    /// The SYN-ACK of a connection that is not established yet.
    SynAck = b'S',
}

impl Event {
    /// `None` for an unknown letter.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        [Kind::Retransmit, Kind::LossProbe, Kind::SynAck].into_iter().find(|kind| *kind as u8 == self.kind)
    }

    /// The socket's state. For a SYN-ACK, the state of the request for a connection.
    #[must_use]
    pub fn state(&self) -> State {
        State(self.state)
    }

    /// The sequence number of the first byte, if known.
    #[must_use]
    pub fn seq(&self) -> Option<u32> {
        (self.has_first != 0).then_some(self.first)
    }

    /// 0 if the packet was sent. Otherwise why not: a negative errno, or a positive `NET_XMIT_*`
    /// from the device.
    #[must_use]
    pub fn err(&self) -> i32 {
        self.status.cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_kinds() {
        let mut event = Event::decode(&[0; 128]).expect("enough bytes");
        assert_eq!(event.kind(), None);
        for (letter, kind) in [(b'R', Kind::Retransmit), (b'L', Kind::LossProbe), (b'S', Kind::SynAck)] {
            event.kind = letter;
            assert_eq!(event.kind(), Some(kind));
        }
    }

    #[test]
    fn an_unknown_sequence_number_is_not_zero() {
        let mut event = Event::decode(&[0; 128]).expect("enough bytes");
        assert_eq!(event.seq(), None);
        event.has_first = 1;
        assert_eq!(event.seq(), Some(0));
    }

    #[test]
    fn errors_have_a_sign() {
        let mut event = Event::decode(&[0; 128]).expect("enough bytes");
        event.status = u32::MAX;
        assert_eq!(event.err(), -1);
    }
}
