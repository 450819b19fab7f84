//! Writes numbers straight into a row. With the standard library's formatting they would be most of
//! the cost of a row.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// Writes a number.
pub(crate) fn number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a signed number.
pub(crate) fn signed(text: &mut Vec<u8>, number: i64) {
    signed_fixed(text, number, 0, 0);
}

/// Like [`fixed`], for a signed number.
pub(crate) fn signed_fixed(text: &mut Vec<u8>, units: i64, scale: u32, digits: u32) {
    if units < 0 {
        text.push(b'-');
    }
    fixed(text, units.unsigned_abs(), scale, digits);
}

/// Writes `units / 10^scale` with `digits` digits after the point, rounded half up.
pub(crate) fn fixed(text: &mut Vec<u8>, units: u64, scale: u32, digits: u32) {
    let digits = digits.min(scale);
    let dropped = 10_u64.pow(scale - digits);
    let rounded = units / dropped + u64::from(units % dropped * 2 >= dropped);
    let whole = 10_u64.pow(digits);
    number(text, rounded / whole);
    if digits > 0 {
        text.push(b'.');
        let mut buffer = itoa::Buffer::new();
        let part = buffer.format(rounded % whole).as_bytes();
        text.resize(text.len() + (digits as usize).saturating_sub(part.len()), b'0');
        text.extend_from_slice(part);
    }
}

/// Writes `of / by` with six digits after the point, rounded half up.
pub(crate) fn quotient(text: &mut Vec<u8>, of: u64, by: u64) {
    const DIGITS: u32 = 6;
    let (of, by) = (u128::from(of), u128::from(by.max(1)));
    let rounded = (of * 10_u128.pow(DIGITS) + by / 2) / by;
    fixed(text, u64::try_from(rounded).unwrap_or(u64::MAX), DIGITS, DIGITS);
}

/// Writes `of / by` exactly. If `by` is a power of two, there are at most as many digits after the
/// point as `by` has bits.
pub(crate) fn exact_quotient(text: &mut Vec<u8>, of: u64, by: u64) {
    let (of, by) = (u128::from(of), u128::from(by.max(1)));
    number(text, u64::try_from(of / by).unwrap_or(u64::MAX));
    let mut rest = of % by;
    if rest > 0 {
        text.push(b'.');
    }
    for _ in 0..u64::BITS {
        if rest == 0 {
            break;
        }
        rest *= 10;
        number(text, u64::try_from(rest / by).unwrap_or_default());
        rest %= by;
    }
}

/// Writes a number in hexadecimal.
pub(crate) fn hex(text: &mut Vec<u8>, number: u64) {
    let digits = number.checked_ilog2().unwrap_or(0) / 4;
    for place in (0..=digits).rev() {
        text.extend(u8::try_from(number >> (4 * place) & 15).map(|digit| match digit {
            0..10 => b'0' + digit,
            _ => b'a' - 10 + digit,
        }));
    }
}

/// Writes an IPv4 address.
pub(crate) fn ipv4(text: &mut Vec<u8>, ip: Ipv4Addr) {
    let [first, rest @ ..] = ip.octets();
    number(text, first.into());
    for byte in rest {
        text.push(b'.');
        number(text, byte.into());
    }
}

/// Writes an address.
pub(crate) fn ip(text: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => ipv4(text, ip),
        IpAddr::V6(ip) => display(text, ip),
    }
}

/// Writes anything that implements `Display`.
pub(crate) fn display(text: &mut Vec<u8>, shown: impl fmt::Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(text, "{shown}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).expect("ASCII")
    }

    /// Around each power of ten and of two, where a digit is most easily lost.
    fn numbers() -> impl Iterator<Item = u64> {
        let tens = (0..20).map(|power| 10_u64.pow(power));
        let twos = (0..64).map(|power| 1 << power);
        tens.chain(twos)
            .flat_map(|number: u64| [number - 1, number, number.saturating_add(1), number.saturating_mul(7)])
            .chain((0..1000).chain([u64::MAX]))
    }

    #[test]
    fn as_the_standard_library_writes_them() {
        for value in numbers() {
            assert_eq!(text(|text| number(text, value)), value.to_string());
            assert_eq!(text(|text| hex(text, value)), format!("{value:x}"));
            for value in [value.cast_signed(), value.cast_signed().wrapping_neg()] {
                assert_eq!(text(|text| signed(text, value)), value.to_string());
            }
        }
        for address in ["0.0.0.0", "127.0.0.1", "255.9.10.100", "::", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(text(|text| ip(text, address)), address.to_string());
        }
    }

    #[test]
    fn fractions_are_rounded_half_up() {
        let shown = |units, digits| text(|text| fixed(text, units, 6, digits));
        assert_eq!([shown(0, 3), shown(499, 3), shown(500, 3)], ["0.000", "0.000", "0.001"]);
        assert_eq!([shown(1_999_499, 3), shown(1_999_500, 3)], ["1.999", "2.000"]);
        assert_eq!([shown(1_500_000, 0), shown(12_345_678, 6)], ["2", "12.345678"]);
        assert_eq!(shown(u64::MAX, 3), "18446744073709.552");
        let below = |units| text(|text| signed_fixed(text, units, 9, 3));
        assert_eq!(
            [below(-1_000_000), below(-1_234_567_890), below(i64::MIN)],
            ["-0.001", "-1.235", "-9223372036.855"]
        );
    }

    #[test]
    fn quotients_are_exact() {
        for value in numbers() {
            for by in [1, 1 << 10, 1 << 20] {
                let exact = text(|text| exact_quotient(text, value, by));
                let (whole, rest) = exact.split_once('.').unwrap_or((&exact, ""));
                assert_eq!(whole, (value / by).to_string());
                assert_eq!(exact.contains('.'), value % by != 0, "{exact}");
                // Multiplied by `by`, the digits give the remainder again.
                let scale = 10_u128.pow(u32::try_from(rest.len()).expect("few digits"));
                let part: u128 = if rest.is_empty() { 0 } else { rest.parse().expect("digits") };
                assert_eq!(part * u128::from(by), u128::from(value % by) * scale, "{value} / {by}");
            }
        }
        let rounded = |of| text(|text| quotient(text, of, 1 << 20));
        assert_eq!([rounded(0), rounded(1), rounded(3 << 19)], ["0.000000", "0.000001", "1.500000"]);
        assert_eq!(rounded((1 << 20) - 1), "0.999999");
    }
}
