//! The event of a dropped packet.

use crate::layout::layout;
use crate::tcp::State;

layout! {
    /// Sent for each TCP packet that the kernel drops. The call stack follows, eight bytes per
    /// frame, innermost first.
    pub struct Event as "tcpdrop_event" {
        /// When it was dropped, `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// The address in the kernel's code that dropped it.
        pub location: u64,
        /// The packet's source address, the first four bytes for AF_INET.
        pub saddr: [u8; 16],
        /// Its destination address.
        pub daddr: [u8; 16],
        /// The name of the owner's thread.
        pub comm: [u8; 16],
        /// The socket's owner; 0 if unknown.
        pub pid: u32,
        /// Network namespace: the inode that `/proc/PID/ns/net` shows; 0 if unknown.
        pub netns: u32,
        /// `enum skb_drop_reason` of the running kernel; 0 if it gives none.
        pub reason: u32,
        /// Source port, network order.
        pub sport: u16,
        /// Destination port.
        pub dport: u16,
        /// `AF_INET` or `AF_INET6`, by the packet's header.
        pub family: u16,
        /// Byte 13 of the TCP header.
        pub flags: u8,
        /// The socket's state; 0 if unknown.
        pub state: u8,
        /// 1 if the packet had its TCP header, so that ports and flags are known.
        pub transport: u16,
        /// 1 if the socket is at the source, so that the packet was being sent. 0 also if the
        /// socket is unknown.
        pub sent: u16,
    }
}

impl Event {
    #[must_use]
    pub fn state(&self) -> Option<State> {
        (self.state != 0).then_some(State(self.state))
    }

    /// The call stack behind the event in a record, as addresses.
    pub fn stack(record: &[u8]) -> impl Iterator<Item = u64> {
        // A perf buffer rounds a record up, by less than a frame.
        let (frames, _) = record.get(usize::from(Self::SIZE)..).unwrap_or_default().as_chunks();
        frames.iter().map(|frame| u64::from_ne_bytes(*frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_follows_the_event() {
        let mut record = vec![0; Event::SIZE.into()];
        assert_eq!(Event::stack(&record).count(), 0);
        record.extend(7_u64.to_ne_bytes());
        record.extend(8_u64.to_ne_bytes());
        record.extend([1; 4]);
        assert_eq!(Event::stack(&record).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(Event::stack(&[]).count(), 0);
    }

    #[test]
    fn without_a_socket_there_is_no_state() {
        let mut event = Event::decode(&[0; Event::SIZE as usize]).expect("enough bytes");
        assert_eq!(event.state(), None);
        event.state = State::LISTEN.0;
        assert_eq!(event.state(), Some(State::LISTEN));
    }
}
