//! Provokes the messages of `tools/ERRORS.md` that are this crate's: an error of each kind, made by hand.

use std::io::ErrorKind;

use test_support::messages;

use crate::{BtfError, Endian, FieldPath, Section, TypeId, Want};

fn errors() -> Vec<BtfError> {
    let (id, name) = (TypeId(7), || "sock".to_owned());
    vec![
        BtfError::File { path: "x.btf".into(), source: Box::new(BtfError::NoBtfSection) },
        BtfError::Io(ErrorKind::NotFound.into()),
        BtfError::NotAFile,
        BtfError::FileSize { found: 1 << 40 },
        BtfError::NotBtf { start: vec![1, 2] },
        BtfError::Elf(goblin::error::Error::Malformed(String::new())),
        BtfError::NoBtfSection,
        BtfError::Version { found: 2 },
        BtfError::Truncated { section: Section::Header, offset: 1, len: 0 },
        BtfError::HeaderLength { found: 3 },
        BtfError::UnknownKind { id, offset: 0, kind: 99 },
        BtfError::TooManyTypes,
        BtfError::NoSuchType { id, count: 3 },
        BtfError::WrongKind { id, expected: "a struct" },
        BtfError::BadString { offset: 1 },
        BtfError::TooDeep { id },
        BtfError::TooMuch { id },
        BtfError::Overflow { id },
        BtfError::BadBitField { id },
        BtfError::Ambiguous { name: name(), ids: [id, id] },
        BtfError::NeedsBase,
        BtfError::BaseIsSplit,
        BtfError::BaseByteOrder { base: Endian::Little },
        BtfError::ModuleName { name: name() },
        BtfError::NotIndexed { want: Want::Type, name: name() },
        BtfError::Path(FieldPath::parse("").expect_err("no path")),
    ]
}

/// Fails to compile when there is another kind: then it belongs into [`errors`] and into the catalogue.
fn kind(error: &BtfError) -> usize {
    match error {
        BtfError::File { .. } => 0,
        BtfError::Io(_) => 1,
        BtfError::NotAFile => 2,
        BtfError::FileSize { .. } => 3,
        BtfError::NotBtf { .. } => 4,
        BtfError::Elf(_) => 5,
        BtfError::NoBtfSection => 6,
        BtfError::Version { .. } => 7,
        BtfError::Truncated { .. } => 8,
        BtfError::HeaderLength { .. } => 9,
        BtfError::UnknownKind { .. } => 10,
        BtfError::TooManyTypes => 11,
        BtfError::NoSuchType { .. } => 12,
        BtfError::WrongKind { .. } => 13,
        BtfError::BadString { .. } => 14,
        BtfError::TooDeep { .. } => 15,
        BtfError::TooMuch { .. } => 16,
        BtfError::Overflow { .. } => 17,
        BtfError::BadBitField { .. } => 18,
        BtfError::Ambiguous { .. } => 19,
        BtfError::NeedsBase => 20,
        BtfError::BaseIsSplit => 21,
        BtfError::BaseByteOrder { .. } => 22,
        BtfError::ModuleName { .. } => 23,
        BtfError::NotIndexed { .. } => 24,
        BtfError::Path(_) => 25,
    }
}

#[test]
fn each_message_about_btf_is_in_the_catalogue() {
    let errors = errors();
    assert!(errors.iter().map(kind).eq(0..=25), "one of each kind, in order");
    let said: Vec<_> = errors.iter().map(|error| (error.to_string(), "1")).collect();
    messages::check(&["Type information"], &said, &[]);
}
