//! Programs of this host that go into the machines, with their shared libraries.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::Payload;
use crate::error::{Result, run};
use crate::initramfs::Initramfs;
use crate::matrix::Arch;

/// Programs that tests use. If one is missing, the tests that need it are skipped.
const TEST_PROGRAMS: [&str; 1] = ["bpftool"];

/// Tools of libbpf-tools that the benchmark compares with. They need kprobes, which Debian's
/// kernels have. The benchmark leaves out a missing one and says so.
const PEERS: [&str; 5] = ["tcpconnlat", "tcplife", "tcpstates", "tcptop", "tcptracer"];

/// Where Debian puts programs.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Adds this host's programs to a machine of the same architecture.
///
/// # Errors
///
/// If a program's libraries cannot be found or read.
pub fn add(initramfs: &mut Initramfs, payload: Payload, arch: Arch) -> Result<()> {
    let arch = match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    if ARCH != arch {
        return Ok(());
    }
    let (mut folders, mut libraries) = (BTreeSet::new(), BTreeSet::new());
    let peers = PEERS.iter().filter(|_| payload == Payload::Bench);
    for name in TEST_PROGRAMS.iter().chain(peers) {
        let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
        let Some(program) = found else { continue };
        initramfs.program(&format!("bin/{name}"), &program)?;
        let output = run(Command::new("ldd").arg(&program))?;
        libraries.extend(paths(&String::from_utf8_lossy(&output)));
    }
    for library in &libraries {
        // From the root downwards: the kernel makes only the folders that the archive lists.
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

/// The path in the archive, which has no leading slash.
fn inside(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).display().to_string()
}

/// The files that `ldd` names: `libc.so.6 => /lib/libc.so.6 (0x7f…)`, `/lib64/ld-linux-x86-64.so.2
/// (0x7f…)`.
fn paths(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let file = line.split_once("=> ").map_or(line, |(_, file)| file).trim();
        let file = file.split(' ').next()?;
        file.starts_with('/').then(|| file.into())
    };
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_output_of_ldd() {
        let output = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f1)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(output), expected.map(PathBuf::from));
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
