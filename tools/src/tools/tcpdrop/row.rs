//! The row of a drop.

use std::fmt::{Display, Write as _};

use programs::tcpdrop::Event;
use rows::{Column, Columns, Format, Value};

use super::stack::{Frame, Stack};
use crate::address;
use crate::tools::values;

/// A drop, with the texts that its columns show.
pub(super) struct Row {
    event: Event,
    wall: i128,
    /// `192.0.2.1:22`
    source: String,
    destination: String,
    flags: String,
    /// `ESTABLISHED (ACK)`
    state_and_flags: String,
    /// The reason's name, if the kernel has one.
    reason: Option<String>,
    /// `NO_SOCKET (3)`
    reason_and_code: String,
    location: String,
    /// `None` if the stack is not shown, or not in a column.
    stack: Option<Vec<String>>,
}

impl Default for Row {
    fn default() -> Self {
        let event = Event::decode(&[0; Event::SIZE as usize]).expect("an event of zeroes");
        let text = String::new;
        Self {
            event,
            wall: 0,
            source: text(),
            destination: text(),
            flags: text(),
            state_and_flags: text(),
            reason: None,
            reason_and_code: text(),
            location: text(),
            stack: None,
        }
    }
}

impl Row {
    /// Makes it the row of another drop. The buffers of the texts are used again.
    pub(super) fn fill(
        &mut self,
        event: Event,
        wall: i128,
        reason: Option<&str>,
        location: Frame<'_>,
        stack: Option<&Stack<'_>>,
    ) {
        (self.event, self.wall) = (event, wall);
        let known = event.transport != 0;
        let port = |port| known.then_some(port);
        join(&mut self.source, event.family, event.saddr, port(event.sport));
        join(&mut self.destination, event.family, event.daddr, port(event.dport));
        write_flags(&mut self.flags, event.flags);
        let flags = if known { self.flags.as_str() } else { "-" };
        match event.state().map(|state| (state.name(), state.0)) {
            None => pair(&mut self.state_and_flags, "-", flags),
            Some((Some(state), _)) => pair(&mut self.state_and_flags, state, flags),
            Some((None, number)) => pair(&mut self.state_and_flags, number, flags),
        }
        match (&mut self.reason, reason) {
            (Some(text), Some(reason)) => reason.clone_into(text),
            (text, reason) => *text = reason.map(str::to_owned),
        }
        pair(&mut self.reason_and_code, reason.unwrap_or("-"), event.reason);
        self.location.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.location, "{location}");
        self.stack = stack.map(|stack| stack.frames().map(|frame| frame.to_string()).collect());
    }

    fn transport_is_known(&self) -> bool {
        self.event.transport != 0
    }
}

/// The columns. The table joins what CSV and JSON have in columns of their own, and has the stack
/// below the row.
pub(super) fn columns(stack: bool, format: Format) -> Columns<Row> {
    let part = |heading, key| Column::new(heading, 0).key(key).in_table_if(false, format);
    Columns::new()
        .column(Column::new("TIME", 8).key("ts"), |row: &Row| Value::wall(row.wall))
        .column(Column::new("PID", 7).key("pid"), |row| values::pid(row.event.pid))
        .column(part("COMM", "comm"), |row| values::comm(row.event.pid, &row.event.comm))
        .column(Column::new("IP", 2).key("ip"), |row| address::version(row.event.family))
        .column(Column::new("SADDR:SPORT", 20).table_only(), |row| Value::Text(&row.source))
        .column(Column::new(">", 1).table_only(), |_| Value::Word(">"))
        .column(Column::new("DADDR:DPORT", 20).table_only(), |row| Value::Text(&row.destination))
        .column(part("SADDR", "saddr"), |row| address::ip(row.event.family, row.event.saddr))
        .column(part("SPORT", "sport"), |row| {
            Value::Number(u16::from_be(row.event.sport).into()).if_known(row.transport_is_known())
        })
        .column(part("DADDR", "daddr"), |row| address::ip(row.event.family, row.event.daddr))
        .column(part("DPORT", "dport"), |row| {
            Value::Number(u16::from_be(row.event.dport).into()).if_known(row.transport_is_known())
        })
        .column(Column::new("STATE (FLAGS)", 20).table_only(), |row| Value::Text(&row.state_and_flags))
        .column(part("STATE", "state"), |row| row.event.state().map_or(Value::Unknown, values::state))
        .column(part("FLAGS", "flags"), |row| Value::Text(&row.flags).if_known(row.transport_is_known()))
        .column(Column::new("REASON (CODE)", if stack { 0 } else { 24 }).table_only(), |row| {
            Value::Text(&row.reason_and_code).if_known(row.event.reason != 0)
        })
        .column(part("REASON", "reason"), |row| row.reason.as_deref().map_or(Value::Unknown, Value::Text))
        .column(part("CODE", "reason_code"), |Row { event, .. }| {
            Value::Number(event.reason.into()).if_known(event.reason != 0)
        })
        // In the table, the first frame of the stack shows it.
        .column(Column::new("LOCATION", 0).key("location").in_table_if(!stack, format), |row| {
            Value::Text(&row.location)
        })
        .column(part("STACK", "stack"), |row| row.stack.as_deref().map_or(Value::Unknown, Value::List))
        .column(Column::json_only("netns"), |row| values::netns(row.event.netns))
}

/// `SYN|ACK`, in the order of the bits.
fn write_flags(text: &mut String, byte: u8) {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    text.clear();
    for (_, name) in NAMES.iter().enumerate().filter(|(bit, _)| byte >> bit & 1 != 0) {
        if !text.is_empty() {
            text.push('|');
        }
        text.push_str(name);
    }
}

/// `192.0.2.1:22`, `[2001:db8::1]:22`, and `192.0.2.1:-` if the port (in network order) is unknown.
fn join(text: &mut String, family: u16, bytes: [u8; 16], port: Option<u16>) {
    text.clear();
    // Writing to a String cannot fail.
    let _ = match address::ip_addr(family, bytes) {
        None => write!(text, "-"),
        Some(ip) if ip.is_ipv4() => write!(text, "{ip}"),
        Some(ip) => write!(text, "[{ip}]"),
    };
    let _ = match port {
        Some(port) => write!(text, ":{}", u16::from_be(port)),
        None => write!(text, ":-"),
    };
}

/// `ESTABLISHED (ACK)`, `NO_SOCKET (3)`
fn pair(text: &mut String, first: impl Display, second: impl Display) {
    text.clear();
    // Writing to a String cannot fail.
    let _ = write!(text, "{first} ({second})");
}

#[cfg(test)]
mod tests {
    use programs::tcp::{AF_INET, AF_INET6};

    use super::*;

    #[test]
    fn flags_in_the_order_of_the_bits() {
        let shown = |byte| {
            let mut text = "old".to_owned();
            write_flags(&mut text, byte);
            text
        };
        assert_eq!([0, 0x12].map(shown), ["", "SYN|ACK"]);
        assert_eq!(shown(0xff), "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR");
    }

    #[test]
    fn endpoints() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[192, 0, 2, 1]);
        let joined = |family, bytes, port| {
            let mut text = "old".to_owned();
            join(&mut text, family, bytes, port);
            text
        };
        assert_eq!(joined(AF_INET, bytes, Some(22_u16.to_be())), "192.0.2.1:22");
        assert_eq!(joined(AF_INET, bytes, None), "192.0.2.1:-");
        assert_eq!(joined(AF_INET6, [0; 16], Some(0)), "[::]:0");
    }
}
