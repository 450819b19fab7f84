//! Finds the `.BTF` section of an ELF file: a `vmlinux`, a module, or a file of a BTF archive.

use std::ops::Range;

use goblin::{
    container::Ctx,
    elf::{Elf, SectionHeader, section_header::SHT_NOBITS},
    error::Error,
};

use crate::BtfError;

/// `ELFMAG`
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// The range of the section in the file. Only headers and section names are read, because a
/// `vmlinux` with debug information has hundreds of megabytes.
pub(crate) fn btf_section(file: &[u8]) -> Result<Range<usize>, BtfError> {
    let header = Elf::parse_header(file).map_err(BtfError::Elf)?;
    let ctx =
        Ctx::new(header.container().map_err(BtfError::Elf)?, header.endianness().map_err(BtfError::Elf)?);
    let sections = offset(header.e_shoff)
        .and_then(|start| SectionHeader::parse(file, start, usize::from(header.e_shnum), ctx))
        .map_err(BtfError::Elf)?;
    // An index from `SHN_LORESERVE` on is stored in the first section's `sh_link` (`SHN_XINDEX`).
    let names = match header.e_shstrndx {
        0xffff => sections.first().map(|first| first.sh_link as usize),
        index => Some(usize::from(index)),
    };
    let names = names.and_then(|index| sections.get(index)).ok_or(BtfError::NoBtfSection)?;
    let names = file.get(range(names)?).ok_or_else(|| truncated("section names"))?;
    for section in &sections {
        let name = names.get(section.sh_name..).unwrap_or_default();
        if name.starts_with(b".BTF\0") && section.sh_type != SHT_NOBITS && section.sh_size != 0 {
            let range = range(section)?;
            return if range.end <= file.len() { Ok(range) } else { Err(truncated(".BTF")) };
        }
    }
    Err(BtfError::NoBtfSection)
}

fn range(section: &SectionHeader) -> Result<Range<usize>, BtfError> {
    let start = offset(section.sh_offset).map_err(BtfError::Elf)?;
    let len = offset(section.sh_size).map_err(BtfError::Elf)?;
    let end = start.checked_add(len).ok_or_else(|| truncated("section"))?;
    Ok(start..end)
}

fn offset(value: u64) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| Error::Malformed("offset beyond memory".into()))
}

fn truncated(what: &str) -> BtfError {
    BtfError::Elf(Error::Malformed(format!("{what} extends beyond the end of the file")))
}
