//! What a dropped packet tells.

use crate::layout::layout;
use crate::tcp::State;

layout! {
    /// Sent for each TCP packet that the kernel drops; behind it comes the stack, eight bytes a frame, innermost first.
    pub struct Event as "tcpdrop_event" {
        /// The drop, `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// Where in the kernel's code.
        pub location: u64,
        /// The packet's source address, the first four bytes for AF_INET.
        pub saddr: [u8; 16],
        /// Its destination.
        pub daddr: [u8; 16],
        /// The name of who owns the socket.
        pub comm: [u8; 16],
        /// Who owns the socket, 0 where not known.
        pub pid: u32,
        /// Network namespace, as `/proc/PID/ns/net` names it; 0 where not known.
        pub netns: u32,
        /// `enum skb_drop_reason` of the running kernel, 0 where it gives none.
        pub reason: u32,
        /// Source port, network order.
        pub sport: u16,
        /// Destination port.
        pub dport: u16,
        /// `AF_INET` or `AF_INET6`, by the packet's header.
        pub family: u16,
        /// Byte 13 of the TCP header.
        pub flags: u8,
        /// The socket's state, 0 where it is not known.
        pub state: u8,
        /// 1 when the TCP header was there, so that ports and flags are known.
        pub transport: u16,
        /// 1 when the socket is at the source: the packet was being sent. 0 also where no socket is known.
        pub sent: u16,
    }
}

impl Event {
    /// The socket's state.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        (self.state != 0).then_some(State(self.state))
    }

    /// The addresses of the stack behind the event in a record.
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
    fn the_stack_is_what_follows() {
        let mut record = vec![0; Event::SIZE.into()];
        assert_eq!(Event::stack(&record).count(), 0);
        record.extend(7_u64.to_ne_bytes());
        record.extend(8_u64.to_ne_bytes());
        record.extend([1; 4]);
        assert_eq!(Event::stack(&record).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(Event::stack(&[]).count(), 0);
    }

    #[test]
    fn no_socket_has_no_state() {
        let mut event = Event::decode(&[0; Event::SIZE as usize]).expect("enough bytes");
        assert_eq!(event.state(), None);
        event.state = State::LISTEN.0;
        assert_eq!(event.state(), Some(State::LISTEN));
    }
}
