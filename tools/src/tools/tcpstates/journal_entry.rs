//! What `tcpstates -Y` sends to the systemd journal for a change of state.

use std::fmt::Write as _;

use programs::tcp::{AF_INET, State};
use programs::tcpstates::Event;
use rows::Value;
use rows::time::{Clock, Zone};

use super::local_address;
use crate::address;

/// Writes the entry. `as_root` leaves `OBJECT_COMM` out: from root the journal does not accept it
/// and looks itself.
pub(super) fn write(text: &mut String, event: &Event, clock: Clock, as_root: bool) {
    let shown = |value: Value<'_>| value.text(&Zone::utc());
    let comm = if event.pid == 0 { Value::Unknown } else { Value::Comm(&event.comm) };
    let (source, sport) = (local_address(event), address::port(event.lport));
    let (destination, dport) = (address::ip_if_any(event.family, event.raddr), address::port(event.rport));
    let pid = if event.pid == 0 { Value::Unknown } else { Value::Number(event.pid.into()) };
    let span = event.span_ns().map_or(Value::Unknown, |span| Value::Number(span / 1000));
    let state = |state: State| state.name().map_or_else(|| state.0.to_string(), str::to_owned);
    let (old, new) = (state(event.oldstate()), state(event.newstate()));
    let version = if event.family == AF_INET { 4 } else { 6 };

    // Writing to a String cannot fail.
    let _ = writeln!(text, "SYSLOG_IDENTIFIER=tcpstates\nPRIORITY=5");
    let _ = writeln!(text, "_SOURCE_REALTIME_TIMESTAMP={}", clock.wall(event.ts) / 1000);
    let _ = writeln!(text, "OBJECT_TCP_OLD_STATE={old}\nOBJECT_TCP_NEW_STATE={new}");
    for (field, value) in [
        ("PID", pid),
        ("COMM", if as_root { Value::Unknown } else { comm }),
        ("TCP_SPAN_TIME", span),
        (if version == 4 { "IPV4_SOURCE_ADDRESS" } else { "IPV6_SOURCE_ADDRESS" }, source),
        ("TCP_SOURCE_PORT", sport),
        (if version == 4 { "IPV4_DESTINATION_ADDRESS" } else { "IPV6_DESTINATION_ADDRESS" }, destination),
        ("TCP_DESTINATION_PORT", dport),
    ] {
        if value != Value::Unknown {
            let _ = writeln!(text, "OBJECT_{field}={}", shown(value));
        }
    }
    let [comm, source, sport, destination, dport] = [comm, source, sport, destination, dport].map(shown);
    let _ =
        writeln!(text, "MESSAGE={comm} {source} {sport} \u{2192} {destination} {dport} {old} \u{2192} {new}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Event {
        let mut event = Event::decode(&[0; 128]).expect("enough bytes");
        event.family = AF_INET;
        event.laddr[..4].copy_from_slice(&[192, 0, 2, 1]);
        event.raddr[..4].copy_from_slice(&[192, 0, 2, 45]);
        (event.lport, event.rport) = (22_u16.to_be(), 53152_u16.to_be());
        (event.oldstate, event.newstate) = (State::CLOSE_WAIT.0, State::LAST_ACK.0);
        (event.ts, event.last) = (5_000_000, 2_000_000);
        event.pid = 1432;
        event.comm[..6].copy_from_slice(b"ss\nhd\0");
        event
    }

    fn composed(event: &Event, root: bool) -> Vec<String> {
        let mut text = String::new();
        write(&mut text, event, Clock::now().expect("clocks"), root);
        text.lines().filter(|line| !line.starts_with("_SOURCE")).map(str::to_owned).collect()
    }

    #[test]
    fn fields_of_a_change() {
        let expected = [
            "SYSLOG_IDENTIFIER=tcpstates",
            "PRIORITY=5",
            "OBJECT_TCP_OLD_STATE=CLOSE_WAIT",
            "OBJECT_TCP_NEW_STATE=LAST_ACK",
            "OBJECT_PID=1432",
            "OBJECT_TCP_SPAN_TIME=3000",
            "OBJECT_IPV4_SOURCE_ADDRESS=192.0.2.1",
            "OBJECT_TCP_SOURCE_PORT=22",
            "OBJECT_IPV4_DESTINATION_ADDRESS=192.0.2.45",
            "OBJECT_TCP_DESTINATION_PORT=53152",
            "MESSAGE=ss\\x0ahd 192.0.2.1 22 \u{2192} 192.0.2.45 53152 CLOSE_WAIT \u{2192} LAST_ACK",
        ];
        assert_eq!(composed(&sample(), true), expected);
        assert!(composed(&sample(), false).contains(&"OBJECT_COMM=ss\\x0ahd".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let unknown = Event { pid: 0, last: 0, raddr: [0; 16], rport: 0, ..sample() };
        let lines = composed(&unknown, false);
        for field in ["OBJECT_PID", "OBJECT_COMM", "OBJECT_TCP_SPAN", "OBJECT_IPV4_DEST", "OBJECT_TCP_DEST"] {
            assert!(!lines.iter().any(|line| line.starts_with(field)), "{field}");
        }
    }
}
