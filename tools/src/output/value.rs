//! What stands in a row, and how it reads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::escape::Escaped;
use crate::time::{LocalTime, Zone};

/// A value of a row. What is not known is [`Value::Unknown`] and prints as `-`, in JSON as `null`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// Not known.
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
        digits: usize,
        /// It lasted at least this long: `>12.34`.
        at_least: bool,
    },
    /// Wall-clock time in nanoseconds since 1970; the table and CSV show the local time of day.
    Wall(i128),
    /// Seconds relative to another event, six digits.
    Seconds(f64),
    /// A number with so many digits after the point.
    Decimal {
        /// The number.
        value: f64,
        /// The digits.
        digits: usize,
    },
    /// A word.
    Word(&'static str),
    /// Text of the kernel or of the command line.
    Text(&'a str),
    /// A task's name: bytes that a process chose.
    Comm(&'a [u8; 16]),
    /// An address.
    Ip(IpAddr),
    /// An address, in brackets where it is one of IPv6: `[2001:db8::1]`.
    Bracketed(IpAddr),
    /// An address and a port: `192.0.2.1:22`, `[2001:db8::1]:22`.
    Endpoint(SocketAddr),
    /// A kernel address, in hexadecimal; a string in JSON.
    Address(u64),
    /// Yes or no.
    Flag(bool),
    /// Several texts; an array in JSON, separated by spaces elsewhere.
    List(&'a [String]),
    /// Names and their values; an object in JSON, which alone can show it.
    Object(&'a [(&'a str, Self)]),
}

impl Value<'_> {
    /// Itself, or unknown.
    #[must_use]
    pub fn if_known(self, known: bool) -> Self {
        if known { self } else { Value::Unknown }
    }
}

/// A task's name, up to its first zero.
pub(super) fn comm(name: &[u8; 16]) -> Escaped<'_> {
    Escaped(name.split(|&byte| byte == 0).next().unwrap_or_default())
}

impl Value<'_> {
    /// Writes it as the table and CSV show it.
    pub fn write_text(&self, text: &mut String, zone: &Zone) {
        use fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = match *self {
            Value::Unknown => text.write_str("-"),
            Value::Number(number) => write!(text, "{number}"),
            Value::Bytes(bytes) => write!(text, "{}", bytes / 1024),
            Value::Millis { ns, digits, at_least } => {
                #[allow(
                    clippy::cast_precision_loss,
                    reason = "52 bits of nanoseconds are 52 days to the nanosecond"
                )]
                let millis = ns as f64 / 1e6;
                write!(text, "{}{millis:.digits$}", if at_least { ">" } else { "" })
            }
            Value::Wall(ns) => write!(text, "{}", LocalTime::new(ns, zone)),
            Value::Seconds(seconds) => write!(text, "{seconds:.6}"),
            Value::Decimal { value, digits } => write!(text, "{value:.digits$}"),
            Value::Word(word) => text.write_str(word),
            Value::Text(shown) => write!(text, "{}", Escaped(shown.as_bytes())),
            Value::Comm(name) => write!(text, "{}", comm(name)),
            Value::Ip(ip) | Value::Bracketed(ip @ IpAddr::V4(_)) => write!(text, "{ip}"),
            Value::Bracketed(IpAddr::V6(ip)) => write!(text, "[{ip}]"),
            Value::Endpoint(endpoint) => write!(text, "{endpoint}"),
            Value::Address(address) => write!(text, "{address:x}"),
            Value::Flag(flag) => write!(text, "{flag}"),
            Value::List(texts) => write!(text, "{}", Escaped(texts.join(" ").as_bytes())),
            Value::Object(_) => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_ipv6_stand_apart() {
        let text = |endpoint: &str| {
            let mut text = String::new();
            let endpoint = Value::Endpoint(endpoint.parse().expect("an endpoint"));
            endpoint.write_text(&mut text, &Zone::utc());
            text
        };
        assert_eq!(text("192.0.2.1:22"), "192.0.2.1:22");
        assert_eq!(text("[2001:db8::1]:22"), "[2001:db8::1]:22");
    }

    #[test]
    fn a_lower_bound_says_so() {
        let mut text = String::new();
        let value = Value::Millis { ns: 12_345_678, digits: 2, at_least: true };
        value.write_text(&mut text, &Zone::utc());
        assert_eq!(text, ">12.35");
    }

    #[test]
    fn a_name_ends_at_its_first_zero() {
        assert_eq!(comm(b"a\nb\0c\xff\0\0\0\0\0\0\0\0\0\0").to_string(), "a\\x0ab");
        assert_eq!(comm(b"sixteen of these").to_string(), "sixteen of these");
    }
}
