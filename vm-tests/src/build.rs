//! Builds the programs that go into the machines, with the cargo that runs this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Doing, Error, Result};
use crate::image;
use crate::matrix::Arch;
use crate::toolchain::Toolchain;

/// The paths of what was built.
#[derive(Debug)]
pub struct Programs {
    /// The program that runs as PID 1.
    pub init: PathBuf,
    /// The release build of tcptools.
    pub tcptools: PathBuf,
    /// What the machine runs.
    pub kind: Payload,
    /// The program for it.
    pub payload: PathBuf,
}

/// What the machines run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    Tests,
    Bench,
}

impl Payload {
    /// The program's name in a machine's `/bin`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tests => "kernel",
            Self::Bench => "bench-tools",
        }
    }

    fn build(self, arch: Arch, cache: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
        match self {
            Self::Tests => {
                let built =
                    cargo(&["test", "-p", "kernel-tests", "--test", "kernel", "--no-run"], toolchain)?;
                let unstripped = find(&built, "kernel")?;
                let tests = cache.join(format!("kernel-tests-{}", arch.debian()));
                image::strip(toolchain.strip(), &unstripped, &tests)?;
                Ok(tests)
            }
            Self::Bench => {
                let words = ["build", "--profile", "measure", "-p", "bench-tools", "--bin", "bench-tools"];
                find(&cargo(&words, toolchain)?, "bench-tools")
            }
        }
    }
}

impl Programs {
    /// Builds them. Cargo's messages go to standard error.
    ///
    /// # Errors
    ///
    /// If cargo fails.
    pub fn build(kind: Payload, arch: Arch, cache: &Path, toolchain: &Toolchain) -> Result<Self> {
        let release =
            ["build", "--release", "-p", "tools", "-p", "vm-init", "--bin", "tcptools", "--bin", "vm-init"];
        let built = cargo(&release, toolchain)?;
        let init = find(&built, "vm-init")?;
        let tcptools = find(&built, "tcptools")?;
        let payload = kind.build(arch, cache, toolchain)?;
        Ok(Self { init, tcptools, kind, payload })
    }
}

/// Runs cargo and returns the names and paths of the programs that it built.
fn cargo(words: &[&str], toolchain: &Toolchain) -> Result<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).arg("--message-format=json-render-diagnostics");
    // This crate's folder as cargo sets it at run time, otherwise as it was at build time.
    command.current_dir(
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()),
    );
    toolchain.apply(&mut command);
    let output = command.stderr(Stdio::inherit()).output().doing("start cargo")?;
    if !output.status.success() {
        let command = format!("cargo {}", words.join(" "));
        return Err(Error::Program { command, status: output.status, stderr: String::new() });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().filter_map(executable).collect())
}

/// The name and path, if this message of cargo reports a program that it built.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
}

fn find(built: &[(String, PathBuf)], name: &'static str) -> Result<PathBuf> {
    built.iter().find(|(n, _)| n == name).map(|(_, path)| path.clone()).ok_or(Error::NotBuilt(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-0"}"#;
        assert_eq!(executable(message), Some(("kernel".into(), PathBuf::from("/t/kernel-0"))));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","target":{"name":"nix"},"executable":null}"#),
            None
        );
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
