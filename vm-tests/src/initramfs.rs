//! Writes the initramfs of a machine: a `newc` cpio archive.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::error::{Doing, Result};

/// An archive that is not complete yet.
pub struct Initramfs {
    archive: Vec<u8>,
    /// How many entries there are. Each gets its own inode number, because the kernel makes hard
    /// links of entries with the same number.
    entries: u32,
}

impl Initramfs {
    /// An archive with the necessary folders and the console, without which PID 1 would have no
    /// standard output.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn new() -> Result<Self> {
        let mut new = Self { archive: Vec::new(), entries: 0 };
        for folder in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp", "run"] {
            new.folder(folder)?;
        }
        // Documentation/admin-guide/devices.txt: character device 5:1.
        new.add(new.builder("dev/console", 0o600, ModeFileType::Char).rdev_major(5).rdev_minor(1), &[])?;
        Ok(new)
    }

    /// Adds a folder. Its parent must already be there.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.add(self.builder(name, 0o755, ModeFileType::Directory), &[])
    }

    /// Adds a file with these bytes.
    ///
    /// # Errors
    ///
    /// If it is longer than the format allows.
    pub fn file(&mut self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.add(self.builder(name, mode, ModeFileType::Regular), bytes)
    }

    /// Adds a copy of a program of this host.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn program(&mut self, name: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).doing(format_args!("read {}", from.display()))?;
        self.file(name, &bytes, 0o755)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.add(self.builder(name, 0o777, ModeFileType::Symlink), target.as_bytes())
    }

    fn builder(&self, name: &str, mode: u32, kind: ModeFileType) -> Builder {
        Builder::new(name).ino(self.entries + 1).nlink(1).mode(mode).set_mode_file_type(kind)
    }

    fn add(&mut self, entry: Builder, bytes: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).map_err(io::Error::other).doing("make an initramfs")?;
        let mut writer = entry.write(&mut self.archive, size);
        writer.write_all(bytes).and_then(|()| writer.finish()).map(|_| ()).doing("make an initramfs")
    }

    /// Completes the archive and writes it to a file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(mut self, to: &Path) -> Result<()> {
        trailer(&mut self.archive).doing("make an initramfs")?;
        fs::write(to, &self.archive).doing(format_args!("write {}", to.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_reads_back() {
        let mut made = Initramfs::new().unwrap();
        made.file("etc/vm", b"attach-tools\n", 0o644).unwrap();
        made.link("bin/sh", "busybox").unwrap();
        trailer(&mut made.archive).unwrap();
        let mut rest = &made.archive[..];
        let mut seen = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let (name, mode, ino) =
                (reader.entry().name().to_owned(), reader.entry().mode(), reader.entry().ino());
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
            seen.push((name, mode, ino, bytes));
            rest = reader.finish().unwrap();
        }
        let of = |wanted: &str| seen.iter().find(|(name, ..)| name == wanted).unwrap();
        assert_eq!((of("etc/vm").1, &of("etc/vm").3[..]), (0o100_644, &b"attach-tools\n"[..]));
        assert_eq!((of("bin/sh").1, &of("bin/sh").3[..]), (0o120_777, &b"busybox"[..]));
        assert_eq!(of("dev/console").1, 0o020_600);
        let mut numbers: Vec<u32> = seen.iter().map(|(_, _, ino, _)| *ino).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), seen.len(), "two entries would be one file");
    }
}
