//! The running kernel's own type information.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Btf, BtfError};

const SYSFS: &str = "/sys/kernel/btf";

impl Btf {
    /// Where the running kernel shows its types (Linux 5.4 and later, `CONFIG_DEBUG_INFO_BTF`). Can be mapped
    /// from 6.16 on.
    pub fn kernel_path() -> PathBuf {
        Path::new(SYSFS).join("vmlinux")
    }

    /// Where the running kernel shows a module's types (Linux 5.11 and later,
    /// `CONFIG_DEBUG_INFO_BTF_MODULES`).
    pub fn module_path(module: &str) -> Result<PathBuf, BtfError> {
        if module.is_empty() || module.starts_with('.') || module.contains('/') {
            return Err(BtfError::ModuleName { name: module.to_owned() });
        }
        Ok(Path::new(SYSFS).join(module))
    }

    /// The running kernel's types, read into memory. To map them, give a mapping of [`Btf::kernel_path`] to
    /// [`Btf::from_source`].
    pub fn kernel() -> Result<Self, BtfError> {
        Self::open(Self::kernel_path())
    }

    /// A loaded module's types, on top of the running kernel's.
    pub fn module(module: &str, kernel: &Arc<Btf>) -> Result<Self, BtfError> {
        Self::open_on(kernel, Self::module_path(module)?)
    }
}
