//! The type information of the running kernel, or of a file.

use std::fs::File;
use std::path::Path;

use btf::Btf;

use crate::errno::Errno;
use crate::error::LoadError;
use crate::kernel::KERNEL_BTF;
use crate::sys::mmap::constant_file;

/// Opens the kernel's BTF. A kernel that brings none can be described by a file: raw BTF, or an ELF file with a `.BTF` section.
///
/// The kernel's own is mapped where that is possible (6.16), so that a pass over it copies nothing; else it is read. A file
/// is read, because nobody keeps others from changing it under a mapping.
///
/// Where fields are, any BTF of the same build can say. What `tp_btf`, `fentry`, `fexit` and iterators attach to goes by a
/// number that only the kernel's own has, so with a file those attach options are passed over.
///
/// # Errors
/// Also when the file is not the running kernel's, as far as that can be told: fields read in the wrong place look like values.
pub fn kernel_btf(file: Option<&Path>) -> Result<Btf, LoadError> {
    let own = own_btf();
    let Some(path) = file else { return own };
    let given = Btf::open(path)?;
    match own {
        Ok(own) if own.data() == given.data() => Ok(own),
        Ok(_) => Err(LoadError::OtherKernel { path: path.to_owned() }),
        Err(_) => Ok(given),
    }
}

fn own_btf() -> Result<Btf, LoadError> {
    let path = Path::new(KERNEL_BTF);
    let no_btf =
        |error: std::io::Error| LoadError::NoBtf { path: path.to_owned(), errno: Errno::from(error) };
    let opened = File::open(path).map_err(no_btf)?;
    let btf = match constant_file(&opened) {
        Ok(mapping) => Btf::from_source(mapping),
        Err(_) => Btf::from_source(std::fs::read(path).map_err(no_btf)?),
    };
    Ok(btf?.with_path(path))
}

/// Whether it is the running kernel's own: its numbers are those the kernel takes.
pub(crate) fn is_own(btf: &Btf) -> bool {
    btf.path() == Some(Path::new(KERNEL_BTF))
}
