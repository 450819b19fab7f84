//! Sources of BTF: raw data, ELF files, and other files.
#![forbid(unsafe_code)]

mod common;

use std::{error::Error as _, fs, io, path::PathBuf};

use btf::{Btf, BtfError, Builder, Bytes, Endian, IntEncoding, Lookup, MemberDef, Section, Wanted};
use common::kernel_bytes;
use object::{Architecture, BinaryFormat, Endianness, SectionKind, write::Object};

fn small(endian: Endian) -> Vec<u8> {
    let mut types = Builder::with_endian(endian);
    let short = types.int("u16", 2, IntEncoding::Unsigned).expect("a type");
    let port = MemberDef::new("skc_dport", short, Bytes(12)).expect("a member");
    types.strukt("sock_common", Bytes(136), &[port]).expect("a type");
    types.finish().expect("bytes")
}

fn has_the_port(btf: &Btf) {
    let index = btf.index(&Wanted::new().strukt("sock_common")).expect("an index");
    let field = index.field("sock_common.skc_dport").expect("an answer");
    assert_eq!(field.map(|field| (field.offset, field.size)), Lookup::Found((Bytes(12), Bytes(2))));
}

fn elf(architecture: Architecture, endianness: Endianness, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, architecture, endianness);
    for (name, data) in sections {
        let id = object.add_section(vec![], name.as_bytes().to_vec(), SectionKind::Other);
        object.append_section_data(id, data, 8);
    }
    object.write().expect("an object file")
}

/// A separate file for each test, removed when the test ends.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, bytes).expect("a file to write");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A file that remains in the build directory does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn raw_in_both_byte_orders() {
    for endian in [Endian::Little, Endian::Big] {
        let btf = Btf::from_source(small(endian)).expect("BTF");
        assert_eq!(btf.endian(), endian);
        has_the_port(&btf);
    }
}

#[test]
fn elf_files_of_any_machine() {
    for (architecture, endianness, endian) in [
        (Architecture::X86_64, Endianness::Little, Endian::Little),
        (Architecture::Aarch64, Endianness::Little, Endian::Little),
        (Architecture::S390x, Endianness::Big, Endian::Big),
        (Architecture::Arm, Endianness::Little, Endian::Little),
        (Architecture::Bpf, Endianness::Big, Endian::Big),
    ] {
        let sections: [(&str, &[u8]); 4] =
            [(".text", &[0; 40]), (".BTF.ext", &[1; 8]), (".BTF", &small(endian)), (".data", &[2; 16])];
        let btf = Btf::from_source(elf(architecture, endianness, &sections)).expect("ELF with BTF");
        assert_eq!(btf.endian(), endian);
        has_the_port(&btf);
    }
}

#[test]
fn elf_files_without_btf() {
    let without = elf(Architecture::X86_64, Endianness::Little, &[(".text", &[0; 40])]);
    assert!(matches!(Btf::from_source(without), Err(BtfError::NoBtfSection)));
    let empty = elf(Architecture::X86_64, Endianness::Little, &[(".BTF", &[])]);
    assert!(matches!(Btf::from_source(empty), Err(BtfError::NoBtfSection)));
    let other = elf(Architecture::X86_64, Endianness::Little, &[(".BTF", b"CTF?")]);
    assert!(matches!(Btf::from_source(other), Err(BtfError::NotBtf { start }) if start == b"CTF?"));
}

#[test]
fn neither_btf_nor_elf() {
    for bytes in [&b""[..], b"\x9f", b"#!/bin/sh\n"] {
        let Err(BtfError::NotBtf { start }) = Btf::from_source(bytes) else { panic!("{bytes:?}") };
        assert_eq!(start, bytes[..bytes.len().min(4)]);
    }
}

#[test]
fn invalid_headers() {
    let with = |at: usize, bytes: &[u8]| {
        let mut data = small(Endian::Little);
        data[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::from_source(data).map(|_| ())
    };
    assert!(matches!(with(2, &[2]), Err(BtfError::Version { found: 2 })));
    assert!(matches!(with(4, &[20]), Err(BtfError::HeaderLength { found: 20 })));
    let huge = u32::MAX.to_le_bytes();
    for (at, section) in [(8, Section::Types), (16, Section::Strings), (20, Section::Strings)] {
        let result = with(at, &huge);
        assert!(
            matches!(result, Err(BtfError::Truncated { section: s, .. }) if s == section),
            "{at}: {result:?}"
        );
    }
    // A type section that does not consist of whole words.
    assert!(matches!(with(12, &[41]), Err(BtfError::Truncated { section: Section::Types, offset: 41, .. })));
    // Strings that start with a name.
    assert!(matches!(with(16, &[41]), Err(BtfError::Truncated { section: Section::Strings, .. })));
}

#[test]
fn a_longer_header_is_a_later_one() {
    let mut data = small(Endian::Little);
    data[4] = 32;
    data.splice(24..24, [7; 8]);
    has_the_port(&Btf::from_source(data).expect("BTF"));
}

#[test]
fn files_are_named_in_errors() {
    let whole = File::new("whole.btf", &kernel_bytes("5.10-x86_64"));
    let btf = Btf::open(&whole.0).expect("BTF");
    assert_eq!(btf.path(), Some(whole.0.as_path()));

    let missing = Btf::open("/nonexistent/vmlinux").expect_err("no such file");
    assert_eq!(missing.to_string(), "BTF from /nonexistent/vmlinux");
    assert!(matches!(missing.root(), BtfError::Io(_)));
    let read = missing.source().expect("what happened");
    let system = read.source().expect("what the system says").downcast_ref::<io::Error>();
    assert_eq!(
        (read.to_string().as_str(), system.map(io::Error::kind)),
        ("cannot be read", Some(io::ErrorKind::NotFound))
    );

    // Damage after the header is found when indexing; the error names the file, too.
    let mut bytes = small(Endian::NATIVE);
    bytes[24 + 4..24 + 8].copy_from_slice(&(0x7f_u32 << 24).to_ne_bytes());
    let damaged = File::new("damaged.btf", &bytes);
    let btf = Btf::open(&damaged.0).expect("a header");
    let error = btf.index(&Wanted::new()).expect_err("an unknown kind");
    assert!(error.to_string().ends_with("damaged.btf"), "{error}");
    assert!(matches!(error.root(), BtfError::UnknownKind { kind: 0x7f, offset: 0, .. }), "{error:?}");
}

#[test]
fn module_names_are_file_names() {
    assert_eq!(Btf::module_path("tcp_diag").expect("a path"), PathBuf::from("/sys/kernel/btf/tcp_diag"));
    for name in ["", "..", "../vmlinux", "a/b"] {
        assert!(matches!(Btf::module_path(name), Err(BtfError::ModuleName { .. })), "{name}");
    }
}

/// A source that is shorter at each access, like a file that another process truncates.
struct Shrinking(Vec<u8>, std::sync::atomic::AtomicUsize);

impl AsRef<[u8]> for Shrinking {
    fn as_ref(&self) -> &[u8] {
        let looks = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let len = if looks < 2 { self.0.len() } else { 30 };
        &self.0[..len]
    }
}

#[test]
fn a_source_that_shrinks_is_an_error() {
    let btf = Btf::from_source(Shrinking(small(Endian::Little), 0.into())).expect("a header");
    let error = btf.index(&Wanted::new().strukt("sock_common")).expect_err("less than announced");
    assert!(matches!(error, BtfError::Truncated { .. }), "{error:?}");
}
