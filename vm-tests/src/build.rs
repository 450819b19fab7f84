//! The programs that go into the machines: built by the cargo that runs this one, for the machine's architecture.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Doing, Error, Result};
use crate::image;
use crate::matrix::Arch;
use crate::toolchain::Toolchain;

/// Where they are.
#[derive(Debug)]
pub struct Programs {
    /// PID 1.
    pub init: PathBuf,
    /// The tool under test, as it is released.
    pub tcptools: PathBuf,
    /// What is run.
    pub kind: Payload,
    /// Its program.
    pub payload: PathBuf,
}

/// What is run in the machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// The kernel tests.
    Tests,
    /// The benchmark.
    Bench,
}

impl Payload {
    /// Its name in a machine's `/bin`.
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
    /// Builds them, with cargo's own messages on standard error.
    ///
    /// # Errors
    ///
    /// When cargo fails.
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

/// Runs cargo and returns what it built: target names and the paths of their programs.
fn cargo(words: &[&str], toolchain: &Toolchain) -> Result<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).arg("--message-format=json-render-diagnostics");
    // The folder of this crate, as cargo sets it for what it runs, and as it was when this was built.
    command.current_dir(
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()),
    );
    toolchain.apply(&mut command);
    let output = command.stderr(Stdio::inherit()).output().doing("start cargo")?;
    if !output.status.success() {
        let command = format!("cargo {}", words.join(" "));
        return Err(Error::Program { command, status: output.status, said: String::new() });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().filter_map(executable).collect())
}

/// Name and path, if this message of cargo is of a program it built.
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
