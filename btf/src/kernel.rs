//! The running kernel's own type information.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Btf, BtfError};

const SYSFS: &str = "/sys/kernel/btf";

impl Btf {
    /// The path of the running kernel's types (since Linux 5.4, with `CONFIG_DEBUG_INFO_BTF`). The
    /// file can be mapped since Linux 6.16.
    pub fn kernel_path() -> PathBuf {
        Path::new(SYSFS).join("vmlinux")
    }

    /// The path of a loaded module's types (since Linux 5.11, with
    /// `CONFIG_DEBUG_INFO_BTF_MODULES`).
    pub fn module_path(module: &str) -> Result<PathBuf, BtfError> {
        if module.is_empty() || module.starts_with('.') || module.contains('/') {
            return Err(BtfError::ModuleName { name: module.to_owned() });
        }
        Ok(Path::new(SYSFS).join(module))
    }

    /// Reads the running kernel's types into memory. To map them instead, map [`Btf::kernel_path`]
    /// and call [`Btf::from_source`].
    pub fn kernel() -> Result<Self, BtfError> {
        Self::open(Self::kernel_path())
    }

    /// Reads a loaded module's types, which continue those of the running kernel.
    pub fn module(module: &str, kernel: &Arc<Btf>) -> Result<Self, BtfError> {
        Self::open_on(kernel, Self::module_path(module)?)
    }
}
