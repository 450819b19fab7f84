//! The ranges of numbers that the fields of instructions accept.

use std::fmt;

use crate::ops::{Size, Width};

/// A place for a number in an instruction, which determines the range of numbers that fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// The constant of an operation or comparison. A 64-bit operation sign-extends the field's 32
    /// bits, so `0xffffffff` would not mean what it says and is refused. For a 32-bit operation the
    /// signed and the unsigned value have the same bits, and both are accepted.
    Imm(Width),
    /// A constant that is stored: any value of the stored size, signed or unsigned. A store of 64
    /// bits sign-extends the field's 32.
    Store(Size),
    /// The offset of a load, store or jump: 16 bits, signed.
    Offset,
    /// The distance of `gotol` and of a local call, an offset into a packet, a descriptor, an
    /// addend: 32 bits, signed.
    Signed32,
    /// A helper's number, an offset into a map's value: 32 bits.
    Unsigned32,
    /// A wide constant: 64 bits, signed or not.
    Wide,
}

impl Limit {
    /// The smallest and the largest number that fit.
    #[must_use]
    pub fn range(self) -> (i128, i128) {
        let signed = (i128::from(i32::MIN), i128::from(i32::MAX));
        match self {
            Self::Imm(Width::W64) | Self::Store(Size::B8) | Self::Signed32 => signed,
            Self::Imm(Width::W32) | Self::Store(Size::B4) => (signed.0, i128::from(u32::MAX)),
            Self::Store(Size::B1) => (i128::from(i8::MIN), i128::from(u8::MAX)),
            Self::Store(Size::B2) => (i128::from(i16::MIN), i128::from(u16::MAX)),
            Self::Offset => (i128::from(i16::MIN), i128::from(i16::MAX)),
            Self::Unsigned32 => (0, i128::from(u32::MAX)),
            Self::Wide => (i128::from(i64::MIN), i128::from(u64::MAX)),
        }
    }

    /// Whether `value` fits.
    #[must_use]
    pub fn fits(self, value: i128) -> bool {
        let (least, most) = self.range();
        (least..=most).contains(&value)
    }

    /// The 32-bit field for `value`, or `None` if it does not fit. Not for [`Limit::Wide`] and
    /// [`Limit::Offset`], whose fields have 64 and 16 bits.
    #[must_use]
    pub fn field(self, value: i128) -> Option<i32> {
        if !self.fits(value) {
            return None;
        }
        i32::try_from(value).ok().or_else(|| u32::try_from(value).ok().map(u32::cast_signed))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.range();
        match self {
            Self::Imm(Width::W64) => {
                write!(f, "a 64-bit operation takes {least} to {most}; `rN = C ll` loads more")
            }
            Self::Imm(Width::W32) => write!(f, "a 32-bit operation takes {least} to {most}"),
            Self::Store(size) => write!(f, "a store of `{}` takes {least} to {most}", size.unsigned()),
            Self::Offset => write!(f, "an offset takes {least} to {most}"),
            Self::Signed32 | Self::Unsigned32 => write!(f, "this place takes {least} to {most}"),
            Self::Wide => write!(f, "a wide constant takes {least} to {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_number_or_its_twos_complement() {
        let ones = i128::from(u32::MAX);
        for (limit, value, field) in [
            (Limit::Imm(Width::W64), -1, Some(-1)),
            (Limit::Imm(Width::W64), ones, None),
            (Limit::Imm(Width::W32), ones, Some(-1)),
            (Limit::Imm(Width::W32), ones + 1, None),
            (Limit::Store(Size::B1), 255, Some(255)),
            (Limit::Store(Size::B1), -129, None),
            (Limit::Store(Size::B2), 65536, None),
            (Limit::Store(Size::B4), ones, Some(-1)),
            (Limit::Store(Size::B8), ones, None),
            (Limit::Signed32, ones, None),
            (Limit::Unsigned32, ones, Some(-1)),
            (Limit::Unsigned32, -1, None),
            (Limit::Wide, ones, Some(-1)),
            (Limit::Wide, 1 << 40, None),
        ] {
            assert_eq!(limit.field(value), field, "{limit:?} {value}");
        }
    }
}
