//! The size of the released binary, and what each crate adds to it.
//!
//! The released file has no symbols. The profile `size` builds the same program with them: the
//! bytes of every function and constant that has a symbol go to the crate that its name begins
//! with. A generic function counts for the crate that defines it, not for the one that instantiates
//! it. The linker merges equal functions: they count for one of their names.

use std::collections::BTreeMap;
use std::path::Path;

use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS};
use goblin::elf::sym::{STT_FUNC, STT_OBJECT, st_type};
use goblin::elf::{Elf, Sym};

use super::progress;
use crate::fault::{During, Fault, Result};
use crate::report::{Cell, Figure};

/// The greatest size of the released binary, in bytes.
pub const LIMIT: u64 = 3_000_000;

/// The row for symbols that are not Rust names.
const C_LIBRARY: &str = "C library";

/// Crates with fewer bytes than this share a row.
const SMALL_CRATE: u64 = 4096;

/// Bytes of a crate in the binary.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Bytes {
    code: u64,
    data: u64,
}

impl Bytes {
    fn sum(self) -> u64 {
        self.code + self.data
    }

    fn add(&mut self, other: Self) {
        self.code += other.code;
        self.data += other.data;
    }
}

/// The bytes of the released file, and a table of them by crate. `with_symbols` is the same program
/// with its symbols.
pub fn measure(released: &Path, with_symbols: &Path) -> Result<(u64, Figure)> {
    progress("the size of the binary");
    let size = of_file(released)?;
    let file = std::fs::read(with_symbols).during(with_symbols.display())?;
    let crates = by_crate(&file)?;
    let mut figure = Figure::new(
        "size",
        "Size by crate",
        "Bytes of the released binary. A function or constant counts for the crate that its symbol's name begins with, generic \
         code for the crate that defines it. Constants without a symbol (texts, tables), relocations and headers are the last row \
         but one.",
        &["crate", "code bytes", "data bytes", "bytes", "%"],
    );
    let mut row = |name: &str, parts: Option<Bytes>, sum: u64| {
        figure.row([
            name.into(),
            Cell::number(parts.map(|bytes| bytes.code as f64), 0),
            Cell::number(parts.map(|bytes| bytes.data as f64), 0),
            Cell::count(sum),
            Cell::Number(sum as f64 * 100.0 / size as f64, 1),
        ]);
    };
    let mut small = Bytes::default();
    let mut large: Vec<(&str, Bytes)> = Vec::new();
    for (name, bytes) in &crates {
        if bytes.sum() < SMALL_CRATE { small.add(*bytes) } else { large.push((name, *bytes)) }
    }
    large.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.sum()));
    for (name, bytes) in &large {
        row(name, Some(*bytes), bytes.sum());
    }
    row("crates below 4 KiB", Some(small), small.sum());
    let named: u64 = crates.values().map(|bytes| bytes.sum()).sum();
    row("without a symbol", None, size.saturating_sub(named));
    row("the whole file", None, size);
    Ok((size, figure))
}

/// Bytes of the file that users copy.
pub fn of_file(released: &Path) -> Result<u64> {
    std::fs::metadata(released).map(|meta| meta.len()).during(released.display())
}

/// An error if the file is larger than it may be.
pub fn check(size: u64) -> Result<()> {
    if size > LIMIT {
        return Err(Fault::new(format!(
            "the released binary has {size} bytes, and may have at most {LIMIT}"
        )));
    }
    Ok(())
}

fn by_crate(file: &[u8]) -> Result<BTreeMap<String, Bytes>> {
    let elf = Elf::parse(file).during("the binary with symbols")?;
    let mut symbols: Vec<(Sym, &str)> = elf
        .syms
        .iter()
        .filter(|symbol| symbol.st_size > 0 && [STT_FUNC, STT_OBJECT].contains(&st_type(symbol.st_info)))
        .filter(|symbol| is_in_file(&elf, symbol))
        .filter_map(|symbol| Some((symbol, elf.strtab.get_at(symbol.st_name)?)))
        .collect();
    if symbols.is_empty() {
        return Err(Fault::new("the binary that was built with symbols has none"));
    }
    symbols.sort_by_key(|(symbol, name)| (symbol.st_value, *name));
    let (mut crates, mut end) = (BTreeMap::<String, Bytes>::new(), 0);
    for (symbol, name) in symbols {
        // Names of the same bytes count once.
        let begin = symbol.st_value.max(end);
        end = end.max(symbol.st_value + symbol.st_size);
        let size = end.saturating_sub(begin);
        let is_code = st_type(symbol.st_info) == STT_FUNC;
        let bytes = if is_code { Bytes { code: size, data: 0 } } else { Bytes { code: 0, data: size } };
        crates.entry(crate_of(name)).or_default().add(bytes);
    }
    Ok(crates)
}

/// Whether a symbol takes bytes of the file: symbols in `.bss` do not.
fn is_in_file(elf: &Elf<'_>, symbol: &Sym) -> bool {
    let section = elf.section_headers.get(symbol.st_shndx);
    section
        .is_some_and(|section| section.sh_type != SHT_NOBITS && section.sh_flags & u64::from(SHF_ALLOC) != 0)
}

/// The crate that a symbol's name begins with: `<&loader::Map as core::fmt::Debug>::fmt` is of
/// `loader`, `<u8 as rows::Value>::text` of `rows`.
fn crate_of(symbol: &str) -> String {
    let Ok(name) = rustc_demangle::try_demangle(symbol) else { return C_LIBRARY.to_owned() };
    let name = format!("{name:#}");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(colons) = name[from..].find("::").map(|at| from + at) {
        let begin = name[..colons].rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
        if begin < colons && !name[..begin].ends_with(':') {
            return name[begin..colons].to_owned();
        }
        from = colons + 2;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_of_the_crate_that_its_name_begins_with() {
        let legacy = |impl_name: &str, name: &str| {
            format!("_ZN{}{impl_name}{}{name}17h0123456789abcdefE", impl_name.len(), name.len())
        };
        for (symbol, expected) in [
            (legacy("loader", "create"), "loader"),
            (legacy("_$LT$$RF$loader..Map$u20$as$u20$core..fmt..Debug$GT$", "fmt"), "loader"),
            (legacy("_$LT$u8$u20$as$u20$rows..Value$GT$", "text"), "rows"),
            ("_RNvCskwGfYPst2Cb_3foo16example_function".to_owned(), "foo"),
            ("malloc".to_owned(), C_LIBRARY),
        ] {
            assert_eq!(crate_of(&symbol), expected, "{symbol}");
        }
    }

    #[test]
    fn a_file_may_have_as_many_bytes_as_the_limit() {
        assert_eq!(check(LIMIT), Ok(()));
        let fault = check(LIMIT + 1).expect_err("one more").to_string();
        assert!(fault.contains("3000001 bytes"), "{fault}");
    }

    /// The test program itself, which is built with symbols.
    #[test]
    fn symbols_of_a_program_are_counted_by_crate() {
        let own = std::env::current_exe().expect("the path of this program");
        let file = std::fs::read(own).expect("this program");
        let crates = by_crate(&file).expect("its symbols");
        for name in ["bench_tools", "core", "std", C_LIBRARY] {
            assert!(crates.get(name).is_some_and(|bytes| bytes.sum() > 1000), "{name}: {crates:?}");
        }
        let sum: u64 = crates.values().map(|bytes| bytes.sum()).sum();
        assert!(sum < file.len() as u64);
    }
}
