//! BTF data and where it came from.

use std::{
    fmt,
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{BtfError, Endian, Section, elf, endian::Word, raw::Header};

/// One kernel's or one module's type information. Opening it reads the header and nothing else.
pub struct Btf {
    source: Box<dyn AsRef<[u8]> + Send + Sync>,
    /// Where the data starts in `source`: not 0 in an ELF file.
    data: Range<usize>,
    header: Header,
    base: Option<Arc<Btf>>,
    path: Option<PathBuf>,
}

impl Btf {
    /// BTF in `source`, raw or as the section `.BTF` of an ELF file. `source` is kept: give a mapping of a
    /// file, and only what is asked for is ever read from it.
    pub fn from_source(source: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, BtfError> {
        Self::new(Box::new(source), None)
    }

    /// Split BTF: a module's, whose types and names continue those of the kernel it was built for.
    pub fn from_source_on(
        base: &Arc<Btf>,
        source: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<Self, BtfError> {
        Self::new(Box::new(source), Some(Arc::clone(base)))
    }

    /// The whole file read into memory. Map a large file and use [`Btf::from_source`] instead.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BtfError> {
        Self::read(path.as_ref(), None)
    }

    /// Split BTF from a file.
    pub fn open_on(base: &Arc<Btf>, path: impl AsRef<Path>) -> Result<Self, BtfError> {
        Self::read(path.as_ref(), Some(Arc::clone(base)))
    }

    fn read(path: &Path, base: Option<Arc<Btf>>) -> Result<Self, BtfError> {
        let read = read_file(path).and_then(|bytes| Self::new(Box::new(bytes), base));
        match read {
            Ok(btf) => Ok(btf.with_path(path)),
            Err(source) => Err(BtfError::File { path: path.to_owned(), source: Box::new(source) }),
        }
    }

    fn new(source: Box<dyn AsRef<[u8]> + Send + Sync>, base: Option<Arc<Btf>>) -> Result<Self, BtfError> {
        let file = (*source).as_ref();
        let start = || file.iter().copied().take(4).collect();
        let (data, endian) = match Header::magic(file) {
            Some(endian) => (0..file.len(), endian),
            None if file.starts_with(elf::MAGIC) => {
                let section = elf::btf_section(file)?;
                let data = file.get(section.clone()).unwrap_or_default();
                let endian = Header::magic(data)
                    .ok_or_else(|| BtfError::NotBtf { start: data.iter().copied().take(4).collect() })?;
                (section, endian)
            }
            None => return Err(BtfError::NotBtf { start: start() }),
        };
        let header = Header::parse(file.get(data.clone()).unwrap_or_default(), endian)?;
        let btf = Self { source, data, header, base, path: None };
        match &btf.base {
            // The empty name comes first in any string section that is nobody's continuation.
            None if btf.strings()?.first() != Some(&0) => Err(BtfError::NeedsBase),
            Some(base) if base.base.is_some() => Err(BtfError::BaseIsSplit),
            Some(base) if base.endian() != endian => Err(BtfError::BaseByteOrder { base: base.endian() }),
            _ => Ok(btf),
        }
    }

    /// The same data, and its errors will name this file.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The file it came from, if it came from one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The byte order of the data.
    pub fn endian(&self) -> Endian {
        self.header.endian
    }

    /// All of the BTF, header included, without the file around it.
    pub fn data(&self) -> &[u8] {
        (*self.source).as_ref().get(self.data.clone()).unwrap_or_default()
    }

    /// What this is split from.
    pub fn base(&self) -> Option<&Arc<Btf>> {
        self.base.as_ref()
    }

    pub(crate) fn words(&self) -> Result<&[Word], BtfError> {
        Ok(self.section(Section::Types, &self.header.types)?.as_chunks().0)
    }

    pub(crate) fn strings(&self) -> Result<&[u8], BtfError> {
        self.section(Section::Strings, &self.header.strings)
    }

    /// The ranges were checked when opening, but a source may be a file that has shrunk since.
    fn section(&self, section: Section, range: &Range<usize>) -> Result<&[u8], BtfError> {
        self.data().get(range.clone()).ok_or(BtfError::Truncated { section, offset: 0, len: range.len() })
    }

    /// Names the file in an error that is about its content.
    pub(crate) fn locate(&self, error: BtfError) -> BtfError {
        match (&self.path, error) {
            (_, error @ (BtfError::File { .. } | BtfError::Path(_) | BtfError::NotIndexed { .. }))
            | (None, error) => error,
            (Some(path), error) => BtfError::File { path: path.clone(), source: Box::new(error) },
        }
    }
}

/// No kernel is larger, not with all its debug information.
const LARGEST: u64 = 1 << 31;

/// A regular file's bytes. Anything else may have no end, or may wait for somebody who writes.
fn read_file(path: &Path) -> Result<Vec<u8>, BtfError> {
    if !std::fs::metadata(path).map_err(BtfError::Io)?.is_file() {
        return Err(BtfError::NotAFile);
    }
    let file = File::open(path).map_err(BtfError::Io)?;
    let length = file.metadata().map_err(BtfError::Io)?.len();
    if length > LARGEST {
        return Err(BtfError::FileSize { found: length });
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(BtfError::Io)?;
    Ok(bytes)
}

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btf")
            .field("path", &self.path)
            .field("header", &self.header)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}
