//! The type information of the running kernel, or of a file.

use std::fs::File;
use std::path::Path;

use btf::Btf;

use crate::errno::Errno;
use crate::error::LoadError;
use crate::kernel::KERNEL_BTF;
use crate::sys::mmap::constant_file;

/// Opens the running kernel's BTF. For a kernel without BTF, `file` has it: raw BTF, or an ELF file
/// with a `.BTF` section.
///
/// The kernel's own BTF is mapped if the kernel allows that (6.16), so that a pass over it copies
/// nothing. Otherwise, and for a file, which could change while it is mapped, it is read.
///
/// Any BTF of the same build has the right field offsets. But `tp_btf`, `fentry`, `fexit` and
/// iterators attach by an id that is only valid in the kernel's own BTF, so these attach options
/// are skipped if the BTF comes from a file.
///
/// # Errors
/// If the BTF is missing or damaged, or if the file differs from the kernel's own BTF: a field read
/// at the offset of another kernel would look like a value.
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

/// Whether this is the running kernel's own BTF, so that its ids are valid in `bpf(2)`.
pub(crate) fn is_own(btf: &Btf) -> bool {
    btf.path() == Some(Path::new(KERNEL_BTF))
}
