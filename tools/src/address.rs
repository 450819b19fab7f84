//! Addresses and ports as programs send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use programs::tcp::{AF_INET, AF_INET6};
use rows::Value;

/// An address of this family.
pub fn ip_addr(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// The value of an address of this family.
pub fn ip(family: u16, bytes: [u8; 16]) -> Value<'static> {
    ip_addr(family, bytes).map_or(Value::Unknown, Value::Ip)
}

/// The value of an address of this family, in brackets if it is an IPv6 address.
pub fn bracketed(family: u16, bytes: [u8; 16]) -> Value<'static> {
    ip_addr(family, bytes).map_or(Value::Unknown, Value::Bracketed)
}

/// The value of an address that is zero if the socket has none.
pub fn ip_if_any(family: u16, bytes: [u8; 16]) -> Value<'static> {
    match ip(family, bytes) {
        Value::Ip(ip) if ip.is_unspecified() => Value::Unknown,
        value => value,
    }
}

/// The value of an address of this family with a port in network order.
pub fn endpoint(family: u16, bytes: [u8; 16], wire: u16) -> Value<'static> {
    ip_addr(family, bytes).map_or(Value::Unknown, |ip| Value::Endpoint(ip, u16::from_be(wire)))
}

/// 4 or 6, by the socket's family: an IPv6 socket that uses IPv4-mapped addresses is 6, as in the
/// original tools.
pub fn version(family: u16) -> Value<'static> {
    match family {
        AF_INET => Value::Number(4),
        AF_INET6 => Value::Number(6),
        _ => Value::Unknown,
    }
}

/// The value of a port in network order; 0 means that the socket has none yet.
pub fn port(wire: u16) -> Value<'static> {
    match u16::from_be(wire) {
        0 => Value::Unknown,
        port => Value::Number(port.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_the_first_four_bytes() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(ip(AF_INET, bytes), Value::Ip("192.0.2.1".parse().expect("an address")));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert_eq!(ip(AF_INET6, mapped.octets()), Value::Ip("::ffff:192.0.2.1".parse().expect("an address")));
        assert_eq!((ip(1, bytes), version(1)), (Value::Unknown, Value::Unknown));
    }

    #[test]
    fn no_address_is_not_an_address_of_zeroes() {
        for family in [AF_INET, AF_INET6] {
            assert_eq!(ip_if_any(family, [0; 16]), Value::Unknown);
            assert_eq!(ip_if_any(family, [1; 16]), ip(family, [1; 16]));
        }
    }

    #[test]
    fn no_port_is_not_port_0() {
        assert_eq!(port(0), Value::Unknown);
        assert_eq!(port(443_u16.to_be()), Value::Number(443));
    }
}
