//! Programs of the host that tests and the benchmark use where they find them, with the libraries they are linked to.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::Payload;
use crate::error::{Result, run};
use crate::initramfs::Initramfs;
use crate::matrix::Arch;

/// What there is to find. Without one, tests that need it are skipped and say so.
const PROGRAMS: [&str; 1] = ["bpftool"];

/// What the benchmark compares with, from libbpf-tools: they need kprobes, as these kernels have them. It leaves out what is not
/// there and says so.
const PEERS: [&str; 5] = ["tcpconnlat", "tcplife", "tcpstates", "tcptop", "tcptracer"];

/// Where Debian puts programs.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Puts those of this machine into one of the same architecture.
///
/// # Errors
///
/// When a program's libraries cannot be told or read.
pub fn add(initramfs: &mut Initramfs, payload: Payload, arch: Arch) -> Result<()> {
    let ours = match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    if ARCH != ours {
        return Ok(());
    }
    let (mut folders, mut libraries) = (BTreeSet::new(), BTreeSet::new());
    let peers = PEERS.iter().filter(|_| payload == Payload::Bench);
    for name in PROGRAMS.iter().chain(peers) {
        let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
        let Some(program) = found else { continue };
        initramfs.program(&format!("bin/{name}"), &program)?;
        let said = run(Command::new("ldd").arg(&program))?;
        libraries.extend(paths(&String::from_utf8_lossy(&said)));
    }
    for library in &libraries {
        // From the root downwards; the kernel makes no folder that an archive does not name.
        let mut above: Vec<&Path> =
            library.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        above.reverse();
        for folder in above {
            if folders.insert(folder.to_owned()) {
                initramfs.folder(&inside(folder))?;
            }
        }
        initramfs.program(&inside(library), library)?;
    }
    Ok(())
}

/// The same path in an archive, which begins at its root.
fn inside(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).display().to_string()
}

/// The files that `ldd` names: `libc.so.6 => /lib/libc.so.6 (0x7f…)`, `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn paths(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let file = line.split_once("=> ").map_or(line, |(_, file)| file).trim();
        let file = file.split(' ').next()?;
        file.starts_with('/').then(|| file.into())
    };
    said.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f1)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(said), expected.map(PathBuf::from));
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
