//! The values of a row, and how they are written.

use std::net::{IpAddr, SocketAddr};

use crate::digits;
use crate::escape::Escaped;
use crate::time::{LocalTime, Zone};

/// A value of a row. An unknown value prints as `-`, and in JSON as `null`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// An unknown value.
    Unknown,
    /// A number.
    Number(u64),
    /// Bytes; the table and CSV show whole KiB.
    Bytes(u64),
    /// Nanoseconds; the table and CSV show milliseconds.
    Millis {
        /// The nanoseconds.
        ns: u64,
        /// Digits after the point.
        digits: u32,
        /// Whether this is a lower bound: `>12.34`.
        at_least: bool,
    },
    /// Wall-clock time in nanoseconds since 1970; the table and CSV show the local time of day.
    Wall(i64),
    /// Nanoseconds from another event on, shown as seconds in every format.
    Seconds {
        /// The nanoseconds.
        ns: i64,
        /// Digits after the point.
        digits: u32,
    },
    /// A signed number.
    Signed(i64),
    /// A quotient with six digits after the point; in JSON with as many as it has.
    Quotient {
        /// The dividend.
        of: u64,
        /// The divisor, a power of two.
        by: u64,
    },
    /// A word.
    Word(&'static str),
    /// Text from the kernel or the command line.
    Text(&'a str),
    /// A task's name: bytes that a process chose.
    Comm(&'a [u8; 16]),
    /// An address.
    Ip(IpAddr),
    /// An address, in brackets if it is an IPv6 address: `[2001:db8::1]`.
    Bracketed(IpAddr),
    /// An address and a port: `192.0.2.1:22`, `[2001:db8::1]:22`.
    Endpoint(IpAddr, u16),
    /// A kernel address, in hexadecimal; a string in JSON.
    Address(u64),
    /// Yes or no.
    Flag(bool),
    /// Several texts; an array in JSON, separated by spaces elsewhere.
    List(&'a [String]),
    /// Names and their values; an object in JSON, nothing elsewhere.
    Object(&'a [(&'a str, Self)]),
}

// A value is returned for every cell, so it has to be small.
const _: () = assert!(size_of::<Value<'_>>() <= 24);

impl Value<'_> {
    /// Nanoseconds since 1970 as [`Value::Wall`]. Unknown beyond the year 2262.
    #[must_use]
    pub fn wall(ns: i128) -> Self {
        i64::try_from(ns).map_or(Self::Unknown, Self::Wall)
    }

    /// This value if it is known, or [`Value::Unknown`].
    #[must_use]
    pub fn if_known(self, known: bool) -> Self {
        if known { self } else { Value::Unknown }
    }
}

/// A task's name, up to the first zero byte.
pub(crate) fn comm(name: &[u8; 16]) -> Escaped<'_> {
    Escaped(name.split(|&byte| byte == 0).next().unwrap_or_default())
}

impl Value<'_> {
    /// Writes the value as the table and CSV show it.
    pub fn write_text(&self, text: &mut Vec<u8>, zone: &Zone) {
        match *self {
            Value::Unknown => text.push(b'-'),
            Value::Number(number) => digits::number(text, number),
            Value::Bytes(bytes) => digits::number(text, bytes / 1024),
            Value::Millis { ns, digits, at_least } => {
                if at_least {
                    text.push(b'>');
                }
                digits::fixed(text, ns, 6, digits);
            }
            Value::Wall(ns) => digits::display(text, LocalTime::new(ns.into(), zone)),
            Value::Seconds { ns, digits } => digits::signed_fixed(text, ns, 9, digits),
            Value::Signed(number) => digits::signed(text, number),
            Value::Quotient { of, by } => digits::quotient(text, of, by),
            Value::Word(word) => text.extend_from_slice(word.as_bytes()),
            Value::Text(shown) => digits::display(text, Escaped(shown.as_bytes())),
            Value::Comm(name) => comm(name).write_to(text),
            Value::Ip(ip) | Value::Bracketed(ip @ IpAddr::V4(_)) => digits::ip(text, ip),
            Value::Bracketed(IpAddr::V6(ip)) => digits::display(text, format_args!("[{ip}]")),
            Value::Endpoint(ip, port) => digits::display(text, SocketAddr::new(ip, port)),
            Value::Address(address) => digits::hex(text, address),
            Value::Flag(flag) => digits::display(text, flag),
            Value::List(texts) => digits::display(text, Escaped(texts.join(" ").as_bytes())),
            Value::Object(_) => {}
        }
    }

    /// The value as the table and CSV show it.
    pub fn text(&self, zone: &Zone) -> String {
        let mut text = Vec::new();
        self.write_text(&mut text, zone);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_ipv6_stand_apart() {
        let text = |ip: &str| Value::Endpoint(ip.parse().expect("an address"), 22).text(&Zone::utc());
        assert_eq!(text("192.0.2.1"), "192.0.2.1:22");
        assert_eq!(text("2001:db8::1"), "[2001:db8::1]:22");
    }

    #[test]
    fn a_lower_bound_says_so() {
        let value = Value::Millis { ns: 12_345_678, digits: 2, at_least: true };
        assert_eq!(value.text(&Zone::utc()), ">12.35");
    }

    #[test]
    fn a_name_ends_at_its_first_zero() {
        assert_eq!(comm(b"a\nb\0c\xff\0\0\0\0\0\0\0\0\0\0").to_string(), "a\\x0ab");
        assert_eq!(comm(b"sixteen of these").to_string(), "sixteen of these");
    }
}
