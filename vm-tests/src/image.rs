//! Kernels in the cache: the image and the few modules that the tests need, unpacked from Debian
//! packages.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::apt::Apt;
use crate::error::{Doing, Error, Result, run};
use crate::matrix::{Kernel, Pinned};

/// Modules by file name without endings, each after the ones it depends on. Some kernels have one
/// of them built in, or do not have it at all; then it has no file.
pub const MODULES: [&str; 8] = [
    "inet_diag",
    "tcp_diag",
    "veth",
    "sch_netem",
    // Before 6.14, nf_tables needs it.
    "crc32c_generic",
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
];

/// The kernel's file in its folder.
const VMLINUZ: &str = "vmlinuz";
/// The file with a [`Record`].
const RECORD: &str = "packages.json";

/// A kernel that can be booted.
#[derive(Debug)]
pub struct Image {
    folder: PathBuf,
    /// The files of the modules that exist, in the order of [`MODULES`].
    pub modules: Vec<PathBuf>,
    /// Names and checksums of the packages that it came from.
    pub packages: BTreeMap<String, String>,
}

/// Where the files came from.
#[derive(Serialize, Deserialize)]
struct Record {
    packages: BTreeMap<String, String>,
    /// [`MODULES`] when they were unpacked. A kernel without a module that is needed now has to be
    /// downloaded again.
    #[serde(default)]
    modules: Vec<String>,
}

impl Image {
    /// The path of the kernel itself.
    #[must_use]
    pub fn vmlinuz(&self) -> PathBuf {
        self.folder.join(VMLINUZ)
    }

    /// Looks for a kernel in the cache.
    ///
    /// # Errors
    ///
    /// If it exists and cannot be read.
    pub fn cached(cache: &Path, kernel: &Kernel) -> Result<Option<Self>> {
        let folder = folder(cache, kernel);
        let record = match fs::read(folder.join(RECORD)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).doing(format_args!("read {}", folder.join(RECORD).display())),
        };
        let record: Record = serde_json::from_slice(&record)
            .map_err(io::Error::from)
            .doing(format_args!("read {}", folder.join(RECORD).display()))?;
        if record.modules != MODULES {
            return Ok(None);
        }
        let module = |name: &&str| {
            [".ko", ".ko.xz"]
                .map(|ending| folder.join(format!("{name}{ending}")))
                .into_iter()
                .find(|path| path.is_file())
        };
        let modules = MODULES.iter().filter_map(module).collect();
        Ok(Some(Self { folder, modules, packages: record.packages }))
    }

    /// Downloads the newest packages of a kernel and unpacks the needed files.
    ///
    /// # Errors
    ///
    /// If Debian has neither these nor the pinned ones.
    pub fn fetch(cache: &Path, kernel: &Kernel, apt: &mut Apt) -> Result<Self> {
        let mut candidates = Vec::new();
        match newest(kernel, apt) {
            Ok(files) => candidates.push(files),
            Err(Error::NoPackage { .. }) => {}
            Err(error) => return Err(error),
        }
        // An index may still list files that have been deleted.
        if !kernel.pinned.is_empty() && !candidates.contains(&kernel.pinned) {
            candidates.push(kernel.pinned.clone());
        }
        for files in candidates {
            match Self::fetch_files(cache, kernel, apt, &files) {
                Err(Error::NoPackage { package, .. }) => {
                    eprintln!("vm-test: {}: {package} is no longer available", kernel.name)
                }
                done => return done,
            }
        }
        Err(Error::NoPackage { package: kernel.packages.join(" "), suite: kernel.suite.clone() })
    }

    /// Downloads these packages and unpacks the needed files.
    fn fetch_files(cache: &Path, kernel: &Kernel, apt: &mut Apt, files: &[Pinned]) -> Result<Self> {
        let suite = &kernel.suite;
        let folder = folder(cache, kernel);
        // Unpacked into another folder and renamed, so that an interrupted run leaves no folder
        // that looks complete.
        let fresh = folder.with_extension("new");
        for path in [&fresh, &folder] {
            if path.exists() {
                fs::remove_dir_all(path).doing(format_args!("remove {}", path.display()))?;
            }
        }
        fs::create_dir_all(&fresh).doing(format_args!("mkdir {}", fresh.display()))?;
        let mut packages = BTreeMap::new();
        for file in files {
            let deb = fresh.join("package.deb");
            let name = file.path.rsplit('/').next().unwrap_or(&file.path);
            eprintln!("vm-test: {}: downloading {name}", kernel.name);
            match apt.fetch(suite, file, &deb) {
                Ok(()) => {}
                Err(Error::Program { .. }) => {
                    fs::remove_dir_all(&fresh).doing(format_args!("remove {}", fresh.display()))?;
                    return Err(Error::NoPackage { package: name.to_owned(), suite: suite.clone() });
                }
                Err(error) => return Err(error),
            }
            unpack(&deb, |path| wanted(path).map(|name| fresh.join(name)))?;
            fs::remove_file(&deb).doing(format_args!("remove {}", deb.display()))?;
            packages.insert(name.to_owned(), file.sha256.clone());
        }
        if !fresh.join(VMLINUZ).is_file() {
            return Err(Error::NotInPackage {
                file: VMLINUZ.into(),
                package: files.first().map_or_else(String::new, |f| f.path.clone()),
            });
        }
        let record =
            serde_json::to_vec_pretty(&Record { packages, modules: MODULES.map(str::to_owned).to_vec() })
                .map_err(io::Error::from)
                .doing("write a record")?;
        fs::write(fresh.join(RECORD), record)
            .doing(format_args!("write {}", fresh.join(RECORD).display()))?;
        fs::rename(&fresh, &folder).doing(format_args!("rename {}", fresh.display()))?;
        Self::cached(cache, kernel)?
            .ok_or_else(|| Error::NotInPackage { file: RECORD.into(), package: folder.display().to_string() })
    }
}

fn folder(cache: &Path, kernel: &Kernel) -> PathBuf {
    // `with_extension` must replace `.d` and not the minor version.
    cache.join("kernels").join(format!("{}.d", kernel.name))
}

/// The newest image, and the other packages of the same release.
fn newest(kernel: &Kernel, apt: &mut Apt) -> Result<Vec<Pinned>> {
    let mut files = Vec::new();
    let mut release: Option<String> = None;
    for pattern in &kernel.packages {
        let wanted = match (&release, pattern.split_once('*')) {
            (Some(release), Some((prefix, suffix))) => format!("{prefix}{release}{suffix}"),
            _ => pattern.clone(),
        };
        let package = apt.newest(&kernel.suite, kernel.arch, &wanted)?;
        if let (None, Some((prefix, suffix))) = (&release, pattern.split_once('*')) {
            let middle = package.name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
            release = middle.map(str::to_owned);
        }
        files.push(package.file);
    }
    Ok(files)
}

/// Unpacks one file of a package, named by the end of its path.
///
/// # Errors
///
/// If the package does not have it.
pub fn take(deb: &Path, name: &str, to: &Path) -> Result<()> {
    let part = to.with_extension("part");
    unpack(deb, |path| path.ends_with(name).then(|| part.clone()))?;
    if !part.is_file() {
        return Err(Error::NotInPackage { file: name.to_owned(), package: deb.display().to_string() });
    }
    fs::rename(&part, to).doing(format_args!("rename {}", part.display()))
}

/// Unpacks the files of a package for which `place` returns a path.
fn unpack(deb: &Path, place: impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .doing("start dpkg-deb")?;
    let reading = format!("read {}", deb.display());
    let stream =
        dpkg.stdout.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe)).doing(&reading)?;
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().doing(&reading)? {
        let mut entry = entry.doing(&reading)?;
        let path = entry.path().doing(&reading)?.into_owned();
        if let Some(to) = place(&path).filter(|_| entry.header().entry_type().is_file()) {
            let mut file = File::create(&to).doing(format_args!("write {}", to.display()))?;
            io::copy(&mut entry, &mut file).doing(format_args!("write {}", to.display()))?;
        }
    }
    // There may be padding after the archive's end, and dpkg-deb fails if it cannot write all of
    // it.
    let mut stream = archive.into_inner();
    io::copy(&mut stream.by_ref(), &mut io::sink()).doing(&reading)?;
    let status = dpkg.wait().doing("wait for dpkg-deb")?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Program {
            command: format!("dpkg-deb --fsys-tarfile {}", deb.display()),
            status,
            stderr: String::new(),
        })
    }
}

/// The name that a file of a package gets in the cache, if it is needed.
fn wanted(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    // `/boot/vmlinuz-6.1.0-56-cloud-amd64` or, from 7.2 on, `/usr/lib/modules/RELEASE/vmlinuz`.
    if name == VMLINUZ || name.starts_with("vmlinuz-") {
        return Some(VMLINUZ.to_owned());
    }
    let (stem, ending) = name.split_once('.')?;
    (MODULES.contains(&stem) && matches!(ending, "ko" | "ko.xz")).then(|| name.to_owned())
}

/// Strips a program's debug information, because an emulated machine unpacks its files slowly.
///
/// # Errors
///
/// If the program `strip` fails.
pub fn strip(strip: &Path, from: &Path, to: &Path) -> Result<()> {
    run(Command::new(strip).arg("--strip-debug").arg("-o").arg(to).arg(from)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_and_its_modules_are_unpacked() {
        let kept = |path: &str| wanted(Path::new(path));
        assert_eq!(kept("./boot/vmlinuz-5.10.0-46-cloud-amd64").as_deref(), Some("vmlinuz"));
        assert_eq!(kept("./usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz").as_deref(), Some("vmlinuz"));
        assert_eq!(kept("./lib/modules/x/kernel/drivers/net/veth.ko").as_deref(), Some("veth.ko"));
        assert_eq!(
            kept("./usr/lib/modules/x/kernel/net/sched/sch_netem.ko.xz").as_deref(),
            Some("sch_netem.ko.xz")
        );
        for path in ["./boot/config-6.1", "./lib/modules/x/kernel/net/dummy.ko", "./usr/share/doc/veth.txt"] {
            assert_eq!(kept(path), None, "{path}");
        }
    }
}
