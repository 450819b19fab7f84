//! BTF data and its source.

use std::{
    fmt,
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{BtfError, Endian, Section, elf, endian::Word, raw::Header};

/// The type information of one kernel or one module. Opening it reads only the header.
pub struct Btf {
    source: Box<dyn AsRef<[u8]> + Send + Sync>,
    /// The range of the data in `source`; in an ELF file it does not start at 0.
    data: Range<usize>,
    header: Header,
    base: Option<Arc<Btf>>,
    path: Option<PathBuf>,
}

impl Btf {
    /// Opens BTF in `source`, either raw or as the section `.BTF` of an ELF file. `source` can be a
    /// memory-mapped file: pages that no question needs are never read.
    pub fn from_source(source: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, BtfError> {
        Self::new(Box::new(source), None)
    }

    /// Opens split BTF: that of a module, whose types and strings continue those of the kernel it
    /// was built for.
    pub fn from_source_on(
        base: &Arc<Btf>,
        source: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<Self, BtfError> {
        Self::new(Box::new(source), Some(Arc::clone(base)))
    }

    /// Reads a whole file into memory. To avoid that for a large file, map it and call
    /// [`Btf::from_source`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BtfError> {
        Self::read(path.as_ref(), None)
    }

    /// Reads split BTF from a file into memory.
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
            // A string section that does not continue another one starts with the empty name.
            None if btf.strings()?.first() != Some(&0) => Err(BtfError::NeedsBase),
            Some(base) if base.base.is_some() => Err(BtfError::BaseIsSplit),
            Some(base) if base.endian() != endian => Err(BtfError::BaseByteOrder { base: base.endian() }),
            _ => Ok(btf),
        }
    }

    /// Sets the path that errors about this data will name.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The path of the file, if the data was read from one or [`Btf::with_path`] set it.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The byte order of the data.
    pub fn endian(&self) -> Endian {
        self.header.endian
    }

    /// The BTF data, header included, without the ELF file around it.
    pub fn data(&self) -> &[u8] {
        (*self.source).as_ref().get(self.data.clone()).unwrap_or_default()
    }

    /// The base, if this is split BTF.
    pub fn base(&self) -> Option<&Arc<Btf>> {
        self.base.as_ref()
    }

    pub(crate) fn words(&self) -> Result<&[Word], BtfError> {
        Ok(self.section(Section::Types, &self.header.types)?.as_chunks().0)
    }

    pub(crate) fn strings(&self) -> Result<&[u8], BtfError> {
        self.section(Section::Strings, &self.header.strings)
    }

    /// The ranges were checked when opening, but a mapped file may have become shorter since.
    fn section(&self, section: Section, range: &Range<usize>) -> Result<&[u8], BtfError> {
        self.data().get(range.clone()).ok_or(BtfError::Truncated { section, offset: 0, len: range.len() })
    }

    /// Adds the file's path to an error that is about its content.
    pub(crate) fn locate(&self, error: BtfError) -> BtfError {
        match (&self.path, error) {
            (_, error @ (BtfError::File { .. } | BtfError::Path(_) | BtfError::NotIndexed { .. }))
            | (None, error) => error,
            (Some(path), error) => BtfError::File { path: path.clone(), source: Box::new(error) },
        }
    }
}

/// Larger than any kernel with all its debug information.
const MAX_FILE_SIZE: u64 = 1 << 31;

/// The bytes of a regular file. Reading a pipe or a device might wait for a writer or never end.
fn read_file(path: &Path) -> Result<Vec<u8>, BtfError> {
    if !std::fs::metadata(path).map_err(BtfError::Io)?.is_file() {
        return Err(BtfError::NotAFile);
    }
    let file = File::open(path).map_err(BtfError::Io)?;
    let length = file.metadata().map_err(BtfError::Io)?.len();
    if length > MAX_FILE_SIZE {
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
