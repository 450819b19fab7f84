//! Debian packages, downloaded by this host's own apt with its mirror, keys and proxies.
//!
//! The kernels are from other suites than this host's, so apt gets a private directory with its own
//! lists, state and sources. It checks the signature of the index, and the index has the checksum
//! of each package. Nothing is installed.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Doing, Error, Result, run};
use crate::matrix::{Arch, Pinned};

/// Debian's keys, from its package `debian-archive-keyring`.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// Apt's program that downloads and unpacks single files.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// A private apt.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
    mirror: Mirror,
    /// The suites whose index has been downloaded since this value was made.
    suites: BTreeSet<String>,
}

/// A package as an index describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub file: Pinned,
}

/// Where this host downloads Debian packages from.
#[derive(PartialEq, Eq, Debug)]
struct Mirror {
    /// The root of the main archive, with a slash at its end.
    main: String,
    /// The root of the security archive.
    security: String,
}

impl Mirror {
    /// Reads lines `Label URI`, one for each configured index.
    fn parse(text: &str) -> Option<Self> {
        let of = |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
        let slash = |uri: &str| format!("{}/", uri.trim_end_matches('/'));
        let main = slash(of("Debian")?);
        // Most mirrors keep the security archive beside the main one.
        let security =
            of("Debian-Security").map_or_else(|| format!("{}-security/", main.trim_end_matches('/')), slash);
        Some(Self { main, security })
    }

    fn root(&self, suite: &str) -> &str {
        if suite.ends_with("-security") { &self.security } else { &self.main }
    }
}

impl Apt {
    /// A private apt in this directory. It downloads nothing until something is asked for.
    ///
    /// # Errors
    ///
    /// If this host's apt has no Debian archive configured.
    pub fn new(directory: &Path) -> Result<Self> {
        let format = "$(LABEL) $(REPO_URI)";
        let indexes =
            run(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
        let mirror = Mirror::parse(&String::from_utf8_lossy(&indexes)).ok_or(Error::NoMirror)?;
        Ok(Self { directory: directory.to_owned(), mirror, suites: BTreeSet::new() })
    }

    /// Downloads the index of a suite, once for this value.
    fn update(&mut self, suite: &str) -> Result<()> {
        if !self.suites.insert(suite.to_owned()) {
            return Ok(());
        }
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let path = self.directory.join(folder);
            fs::create_dir_all(&path).doing(format_args!("mkdir {}", path.display()))?;
        }
        self.write("status", "")?;
        self.write("sources.list", &self.sources())?;
        self.write("apt.conf", &self.configuration())?;
        eprintln!("vm-test: downloading the package index of {suite}");
        run(self.program("apt-get").args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"])).map(|_| ())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, text).doing(format_args!("write {}", path.display()))
    }

    fn sources(&self) -> String {
        let keyring = KEYRINGS.iter().find(|path| Path::new(path).is_file());
        let signed = keyring.map_or_else(String::new, |path| format!("[signed-by={path}] "));
        let line = |suite: &String| format!("deb {signed}{} {suite} main\n", self.mirror.root(suite));
        self.suites.iter().map(line).collect()
    }

    /// Apt reads this after the host's own configuration, so that the host's proxies and time-outs
    /// stay.
    fn configuration(&self) -> String {
        let here = self.directory.display();
        format!(
            "Dir::State \"{here}/state\";\n\
             Dir::State::status \"{here}/status\";\n\
             Dir::Cache \"{here}/cache\";\n\
             Dir::Etc::sourcelist \"{here}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
             APT::Sandbox::User \"\";\n\
             APT::Get::List-Cleanup \"false\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Languages \"none\";\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n"
        )
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.arg("-c").arg(self.directory.join("apt.conf"));
        command
    }

    /// The newest package that matches: the `*` in a pattern stands for text that begins with a
    /// digit, and a pattern without `*` is a name.
    ///
    /// # Errors
    ///
    /// [`Error::NoPackage`] if none matches.
    pub fn newest(&mut self, suite: &str, arch: Arch, pattern: &str) -> Result<Package> {
        self.update(suite)?;
        let (suite_filter, arch_filter) =
            (format!("Codename: {suite}"), format!("Architecture: {}", arch.debian()));
        let lists = run(self.program("apt-get").args([
            "indextargets",
            "--format",
            "$(FILENAME)",
            "Created-By: Packages",
            &suite_filter,
            &arch_filter,
        ]))?;
        let mut best: Option<Package> = None;
        for list in String::from_utf8_lossy(&lists).lines() {
            // Apt may keep the list compressed in one of several formats.
            let text = run(self.program(HELPER).args(["cat-file", list]))?;
            for package in packages(&String::from_utf8_lossy(&text)).filter(|p| matches(pattern, &p.name)) {
                let newer = best.as_ref().is_none_or(|b| {
                    by_number(&b.name, &package.name).then_with(|| by_number(&b.version, &package.version))
                        == Ordering::Less
                });
                if newer {
                    best = Some(package);
                }
            }
        }
        best.ok_or_else(|| Error::NoPackage { package: pattern.to_owned(), suite: suite.to_owned() })
    }

    /// Downloads a package into a file. Apt refuses it if its checksum is wrong.
    ///
    /// # Errors
    ///
    /// If it is missing or its checksum is wrong.
    pub fn fetch(&mut self, suite: &str, file: &Pinned, to: &Path) -> Result<()> {
        self.update(suite)?;
        let uri = format!("{}{}", self.mirror.root(suite), file.path);
        let mut command = self.program(HELPER);
        command.args(["download-file", &uri]).arg(to).arg(format!("SHA256:{}", file.sha256));
        run(&mut command).map(|_| ())
    }
}

/// The packages of an index. Each field used here is on one line of its stanza.
fn packages(text: &str) -> impl Iterator<Item = Package> {
    text.split("\n\n").filter_map(|stanza| {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned()))
        };
        Some(Package {
            name: field("Package")?,
            version: field("Version")?,
            file: Pinned { path: field("Filename")?, sha256: field("SHA256")? },
        })
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((prefix, suffix)) = pattern.split_once('*') else { return pattern == name };
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(suffix))
        .is_some_and(|middle| middle.starts_with(|c: char| c.is_ascii_digit()))
}

/// Compares the numbers in two names: `6.12.9+deb13` is older than `6.12.117+deb13`.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_hosts_own() {
        let text = "Debian http://mirror.example/debian/\nDebian http://mirror.example/debian/\nDebian-Security http://other.example/sec\n";
        let mirror = Mirror::parse(text).unwrap();
        assert_eq!(mirror.root("trixie-backports"), "http://mirror.example/debian/");
        assert_eq!(mirror.root("trixie-security"), "http://other.example/sec/");
        let derived = Mirror::parse("Debian http://mirror.example/debian\n").unwrap();
        assert_eq!(derived.root("bullseye-security"), "http://mirror.example/debian-security/");
        assert_eq!(Mirror::parse("Ubuntu http://mirror.example/ubuntu/\n"), None);
    }

    #[test]
    fn a_pattern_matches_numbered_packages_only() {
        let pattern = "linux-image-6.1.0-*-cloud-amd64";
        assert!(matches(pattern, "linux-image-6.1.0-56-cloud-amd64"));
        assert!(!matches(pattern, "linux-image-6.1.0-56-amd64"));
        assert!(!matches(pattern, "linux-image-6.1.0-cloud-amd64"));
        assert!(!matches("linux-image-6.12.*-cloud-amd64", "linux-image-6.12.9+deb13-cloud-amd64-dbg"));
        assert!(matches("busybox-static", "busybox-static"));
    }

    #[test]
    fn the_newest_is_the_one_with_the_greatest_numbers() {
        assert_eq!(by_number("6.12.9+deb13", "6.12.117+deb13"), Ordering::Less);
        assert_eq!(by_number("6.1.0-56", "6.1.0-9"), Ordering::Greater);
    }

    #[test]
    fn stanzas_without_a_file_are_ignored() {
        let text = "Package: a\nVersion: 1\nFilename: pool/a.deb\nSHA256: 00\nDescription: x\n\nPackage: b\nVersion: 2\n";
        let names: Vec<String> = packages(text).map(|p| p.name).collect();
        assert_eq!(names, ["a"]);
    }
}
