//! Structs that programs write and tools read. One definition gives the offsets that a program
//! stores at, the type that the kernel is told for its BTF, and the decoding of the bytes that come
//! back.

use bpfasm::object::FieldType;

/// The type of a member of a `layout!` struct.
pub trait Wire: Sized {
    /// The type for the kernel's BTF.
    const FIELD_TYPE: FieldType;

    /// Reads a value at `offset`, in the host's byte order; `None` if it would reach past the end.
    fn read(bytes: &[u8], offset: usize) -> Option<Self>;
}

/// The `N` bytes at `offset`.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

macro_rules! wire_int {
    ($($int:ident $ty:ident),*) => {$(
        impl Wire for $int {
            const FIELD_TYPE: FieldType = FieldType::$ty;

            fn read(bytes: &[u8], offset: usize) -> Option<Self> {
                array(bytes, offset).map(Self::from_ne_bytes)
            }
        }
    )*};
}
wire_int!(u8 U8, u16 U16, u32 U32, u64 U64);

impl<const N: usize> Wire for [u8; N] {
    #[allow(clippy::cast_possible_truncation, reason = "a constant: a longer array does not compile")]
    const FIELD_TYPE: FieldType = {
        assert!(N <= u16::MAX as usize);
        FieldType::Bytes(N as u16)
    };

    fn read(bytes: &[u8], offset: usize) -> Option<Self> {
        array(bytes, offset)
    }
}

/// Defines a `#[repr(C)]` struct with `LAYOUT`, `SIZE` and `decode`.
///
/// A struct with hidden padding does not compile, because a program could not initialise the
/// padding, and the verifier of old kernels refuses to send uninitialised bytes.
///
/// Offsets for a program come from [`std::mem::offset_of!`], see also
/// [`stack_layout`](crate::stack_layout).
macro_rules! layout {
    (
        $(#[$meta:meta])*
        pub struct $name:ident as $kernel_name:literal {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        const _: () = assert!(
            0 $(+ size_of::<$type>())* == size_of::<$name>(),
            concat!(stringify!($name), " has hidden padding"),
        );

        impl $name {
            /// The size in bytes.
            pub const SIZE: u16 = {
                assert!(size_of::<$name>() <= 512);
                #[allow(clippy::cast_possible_truncation, reason = "512 at most")]
                { size_of::<$name>() as u16 }
            };

            /// The layout for the kernel's BTF.
            pub const LAYOUT: ::bpfasm::object::Layout = ::bpfasm::object::Layout {
                name: $kernel_name,
                size: Self::SIZE,
                members: &[$(::bpfasm::object::Member {
                    name: stringify!($field),
                    offset: {
                        #[allow(clippy::cast_possible_truncation, reason = "less than SIZE")]
                        { ::std::mem::offset_of!($name, $field) as u16 }
                    },
                    ty: <$type as $crate::layout::Wire>::FIELD_TYPE,
                }),*],
            };

            /// Decodes the bytes that a program wrote; `None` if there are too few.
            #[must_use]
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                Some(Self {
                    $($field: $crate::layout::Wire::read(bytes, ::std::mem::offset_of!($name, $field))?,)*
                })
            }
        }
    };
}
pub(crate) use layout;

#[cfg(test)]
mod tests {
    use super::*;

    layout! {
        pub struct Sample as "sample" {
            pub wide: u64,
            pub raw: [u8; 4],
            pub half: u16,
            pub one: u8,
            pub last: u8,
        }
    }

    #[test]
    fn decodes_every_member_at_its_offset() {
        let mut bytes = Vec::from(0x0102_0304_0506_0708_u64.to_ne_bytes());
        bytes.extend([9, 10, 11, 12]);
        bytes.extend(0x1314_u16.to_ne_bytes());
        bytes.extend([15, 16]);
        assert_eq!(
            Sample::decode(&bytes),
            Some(Sample {
                wide: 0x0102_0304_0506_0708,
                raw: [9, 10, 11, 12],
                half: 0x1314,
                one: 15,
                last: 16
            })
        );
    }

    #[test]
    fn too_few_bytes_are_refused() {
        for length in 0..usize::from(Sample::SIZE) {
            assert_eq!(Sample::decode(&vec![0; length]), None, "{length} bytes");
        }
        assert!(Sample::decode(&[0; 20]).is_some(), "a ring may round a record up");
    }

    #[test]
    fn the_layout_has_the_same_offsets() {
        let members: Vec<_> =
            Sample::LAYOUT.members.iter().map(|member| (member.name, member.offset, member.ty)).collect();
        assert_eq!(
            members,
            [
                ("wide", 0, FieldType::U64),
                ("raw", 8, FieldType::Bytes(4)),
                ("half", 12, FieldType::U16),
                ("one", 14, FieldType::U8),
                ("last", 15, FieldType::U8)
            ]
        );
        assert_eq!((Sample::LAYOUT.name, Sample::LAYOUT.size), ("sample", 16));
    }
}
