//! The rows of `--json`, read strictly: a missing key and an extra key are both errors, because the
//! keys are documented.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::cli::{Output, is_of};

/// A row of `tcplife --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct LifeRow {
    pub ts: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub ip: u8,
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    pub duration_ns: u64,
    pub outcome: Option<String>,
    pub handshake_ns: Option<u64>,
    pub netns: u64,
    pub role: Option<String>,
    pub existing: bool,
}

/// A row of `tcpstates --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct StateRow {
    pub ts: u64,
    pub skaddr: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub ip: u8,
    /// `None` if the kernel has not set it yet: at a connection's first change before 6.18.
    pub laddr: Option<IpAddr>,
    /// `None` until the kernel has chosen a port.
    pub lport: Option<u16>,
    /// `None` without a peer, as for a listener, or if the kernel has not set it yet.
    pub raddr: Option<IpAddr>,
    /// Like `raddr`.
    pub rport: Option<u16>,
    pub oldstate: String,
    pub newstate: String,
    pub span_ns: Option<u64>,
    pub netns: u64,
}

/// A row of `tcpconnlat --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnRow {
    pub ts: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub ip: u8,
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
    pub latency_ns: u64,
    pub outcome: Option<String>,
    pub netns: u64,
}

/// A row of `tcptracer --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct TraceRow {
    pub ts: u64,
    /// `connect`, `accept` or `close`.
    pub kind: String,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub uid: Option<u32>,
    pub ip: u8,
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
    pub netns: u64,
}

/// A row of `tcpretrans --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct RetransRow {
    pub ts: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub ip: u8,
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
    /// The key `type`.
    pub kind: String,
    pub state: String,
    pub seq: Option<u32>,
    pub segments: u64,
    pub err: i64,
    pub netns: u64,
}

/// A row of `tcpretrans --count --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct FlowRow {
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
    pub retransmits: u64,
    pub segments: u64,
    pub netns: u64,
}

/// A row that can be read from a line of JSON.
pub trait Row: Sized {
    /// All keys of a row.
    const KEYS: &'static [&'static str];

    /// Reads the values.
    ///
    /// # Errors
    /// The key with a missing or wrong value.
    fn read(object: &Object) -> Result<Self, String>;

    /// The network namespace of the row's socket.
    fn netns(&self) -> u64;
}

/// A JSON object, with values by key and type.
#[derive(Debug)]
pub struct Object(Map<String, Value>);

impl Object {
    fn get<T>(&self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, String> {
        let value = self.0.get(key).ok_or_else(|| format!("no key {key}"))?;
        read(value).ok_or_else(|| format!("{key} is {value}"))
    }

    /// A number, or null.
    fn maybe<T>(&self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Result<Option<T>, String> {
        self.get(key, |value| if value.is_null() { Some(None) } else { read(value).map(Some) })
    }
}

fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_u64()?).ok()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn hex(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// A row of `tcptop --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct TopRow {
    pub ts: u64,
    pub interval_ns: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub ip: u8,
    pub laddr: IpAddr,
    pub lport: u16,
    pub raddr: IpAddr,
    pub rport: u16,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub netns: u64,
}

/// A row of `tcpdrop --json`.
#[derive(Clone, PartialEq, Debug)]
pub struct DropRow {
    pub ts: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub ip: u8,
    pub saddr: IpAddr,
    pub sport: Option<u16>,
    pub daddr: IpAddr,
    pub dport: Option<u16>,
    pub state: Option<String>,
    pub flags: Option<String>,
    /// `None` before 5.17.
    pub reason: Option<String>,
    pub reason_code: Option<u32>,
    pub location: String,
    /// `None` without stacks.
    pub stack: Option<Vec<String>>,
    pub netns: Option<u64>,
}

impl Row for LifeRow {
    const KEYS: &'static [&'static str] = &[
        "ts",
        "pid",
        "comm",
        "ip",
        "laddr",
        "lport",
        "raddr",
        "rport",
        "tx_bytes",
        "rx_bytes",
        "duration_ns",
        "outcome",
        "handshake_ns",
        "netns",
        "role",
        "existing",
    ];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            ip: o.get("ip", number)?,
            laddr: o.get("laddr", address)?,
            lport: o.get("lport", number)?,
            raddr: o.get("raddr", address)?,
            rport: o.get("rport", number)?,
            tx_bytes: o.get("tx_bytes", number)?,
            rx_bytes: o.get("rx_bytes", number)?,
            duration_ns: o.get("duration_ns", number)?,
            outcome: o.maybe("outcome", text)?,
            handshake_ns: o.maybe("handshake_ns", number)?,
            netns: o.get("netns", number)?,
            role: o.maybe("role", text)?,
            existing: o.get("existing", Value::as_bool)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for StateRow {
    const KEYS: &'static [&'static str] = &[
        "ts", "skaddr", "pid", "comm", "ip", "laddr", "lport", "raddr", "rport", "oldstate", "newstate",
        "span_ns", "netns",
    ];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            skaddr: o.get("skaddr", hex)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            ip: o.get("ip", number)?,
            laddr: o.maybe("laddr", address)?,
            lport: o.maybe("lport", number)?,
            raddr: o.maybe("raddr", address)?,
            rport: o.maybe("rport", number)?,
            oldstate: o.get("oldstate", text)?,
            newstate: o.get("newstate", text)?,
            span_ns: o.maybe("span_ns", number)?,
            netns: o.get("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for ConnRow {
    const KEYS: &'static [&'static str] =
        &["ts", "pid", "comm", "ip", "laddr", "lport", "raddr", "rport", "latency_ns", "outcome", "netns"];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            ip: o.get("ip", number)?,
            laddr: o.get("laddr", address)?,
            lport: o.get("lport", number)?,
            raddr: o.get("raddr", address)?,
            rport: o.get("rport", number)?,
            latency_ns: o.get("latency_ns", number)?,
            outcome: o.maybe("outcome", text)?,
            netns: o.get("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for TraceRow {
    const KEYS: &'static [&'static str] =
        &["ts", "type", "pid", "comm", "uid", "ip", "laddr", "lport", "raddr", "rport", "netns"];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            kind: o.get("type", text)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            uid: o.maybe("uid", number)?,
            ip: o.get("ip", number)?,
            laddr: o.get("laddr", address)?,
            lport: o.get("lport", number)?,
            raddr: o.get("raddr", address)?,
            rport: o.get("rport", number)?,
            netns: o.get("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for RetransRow {
    const KEYS: &'static [&'static str] = &[
        "ts", "pid", "comm", "ip", "laddr", "lport", "raddr", "rport", "type", "state", "seq", "segments",
        "err", "netns",
    ];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            ip: o.get("ip", number)?,
            laddr: o.get("laddr", address)?,
            lport: o.get("lport", number)?,
            raddr: o.get("raddr", address)?,
            rport: o.get("rport", number)?,
            kind: o.get("type", text)?,
            state: o.get("state", text)?,
            seq: o.maybe("seq", number)?,
            segments: o.get("segments", number)?,
            err: o.get("err", Value::as_i64)?,
            netns: o.get("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for FlowRow {
    const KEYS: &'static [&'static str] =
        &["laddr", "lport", "raddr", "rport", "retransmits", "segments", "netns"];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            laddr: o.get("laddr", address)?,
            lport: o.get("lport", number)?,
            raddr: o.get("raddr", address)?,
            rport: o.get("rport", number)?,
            retransmits: o.get("retransmits", number)?,
            segments: o.get("segments", number)?,
            netns: o.get("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for TopRow {
    const KEYS: &'static [&'static str] = &[
        "ts",
        "interval_ns",
        "pid",
        "comm",
        "ip",
        "laddr",
        "lport",
        "raddr",
        "rport",
        "rx_bytes",
        "tx_bytes",
        "netns",
    ];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            interval_ns: o.get("interval_ns", number)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            ip: o.get("ip", number)?,
            laddr: o.get("laddr", address)?,
            lport: o.get("lport", number)?,
            raddr: o.get("raddr", address)?,
            rport: o.get("rport", number)?,
            rx_bytes: o.get("rx_bytes", number)?,
            tx_bytes: o.get("tx_bytes", number)?,
            netns: o.get("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns
    }
}

impl Row for DropRow {
    const KEYS: &'static [&'static str] = &[
        "ts",
        "pid",
        "comm",
        "ip",
        "saddr",
        "sport",
        "daddr",
        "dport",
        "state",
        "flags",
        "reason",
        "reason_code",
        "location",
        "stack",
        "netns",
    ];

    fn read(o: &Object) -> Result<Self, String> {
        Ok(Self {
            ts: o.get("ts", number)?,
            pid: o.maybe("pid", number)?,
            comm: o.maybe("comm", text)?,
            ip: o.get("ip", number)?,
            saddr: o.get("saddr", address)?,
            sport: o.maybe("sport", number)?,
            daddr: o.get("daddr", address)?,
            dport: o.maybe("dport", number)?,
            state: o.maybe("state", text)?,
            flags: o.maybe("flags", text)?,
            reason: o.maybe("reason", text)?,
            reason_code: o.maybe("reason_code", number)?,
            location: o.get("location", text)?,
            stack: o.maybe("stack", |value| value.as_array()?.iter().map(text).collect())?,
            netns: o.maybe("netns", number)?,
        })
    }

    fn netns(&self) -> u64 {
        self.netns.unwrap_or(0)
    }
}

fn parse<R: Row>(line: &str) -> Result<R, String> {
    let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let keys: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    let documented: BTreeSet<&str> = R::KEYS.iter().copied().collect();
    if keys != documented {
        let differ: Vec<_> = keys.symmetric_difference(&documented).collect();
        return Err(format!("missing or extra keys: {differ:?}"));
    }
    R::read(&Object(object))
}

impl Output {
    /// The rows of one network namespace. Rows of other namespaces, such as those of other tests,
    /// are not read.
    #[must_use]
    #[track_caller]
    pub fn rows<R: Row>(&self, netns: u64) -> Vec<R> {
        let read = |line| parse::<R>(line).unwrap_or_else(|e| panic!("not a row: {e}: {line}\n{self}"));
        let is_object = |line: &str| line.starts_with('{') && line.ends_with('}');
        let lines = self.stdout.lines().filter(|line| !is_object(line) || is_of(line, netns));
        lines.map(read).filter(|row| row.netns() == netns).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: &str = r#"{"ts":1,"pid":null,"comm":null,"ip":4,"laddr":"127.0.0.1","lport":1,"raddr":"127.0.0.1",
        "rport":2,"tx_bytes":3,"rx_bytes":4,"duration_ns":5,"outcome":"closed",
        "handshake_ns":null,"netns":6,"role":"active","existing":false}"#;

    #[test]
    fn a_row_is_read_and_its_keys_are_exact() {
        let row: LifeRow = parse(LIFE).unwrap();
        assert_eq!((row.pid, row.tx_bytes, row.netns), (None, 3, 6));
        let extra = LIFE.replace("{", "{\"extra\":1,");
        assert_eq!(parse::<LifeRow>(&extra), Err(r#"missing or extra keys: ["extra"]"#.to_owned()));
        let missing = LIFE.replace("\"ip\":4,", "");
        assert_eq!(parse::<LifeRow>(&missing), Err(r#"missing or extra keys: ["ip"]"#.to_owned()));
        let wide = LIFE.replace("\"rport\":2", "\"rport\":70000");
        assert_eq!(parse::<LifeRow>(&wide), Err("rport is 70000".to_owned()));
    }

    #[test]
    fn the_quick_check_finds_the_namespace() {
        assert!(is_of(LIFE, 6) && !is_of(LIFE, 60) && !is_of("{\"netns\":60}", 6) && !is_of("", 6));
    }

    #[test]
    fn a_state_row_has_a_socket_in_hex() {
        let row: StateRow = parse(
            r#"{"ts":1,"skaddr":"ffff888105740940","pid":7,"comm":"a b","ip":6,"laddr":"::1","lport":null,"raddr":null,
                "rport":null,"oldstate":"CLOSE","newstate":"LISTEN","span_ns":null,"netns":6}"#,
        )
        .unwrap();
        assert_eq!((row.skaddr, row.lport, row.raddr), (0xffff_8881_0574_0940, None, None));
    }
}
