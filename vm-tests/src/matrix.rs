//! `kernels.toml`: which kernels there are, and in which variants they run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The file, built in: the program and its matrix cannot disagree.
const KERNELS: &str = include_str!("../kernels.toml");

/// The whole file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    kernel: Vec<Kernel>,
    variant: Vec<Variant>,
    /// For each tool, the sets of options that change its programs, as command lines.
    #[serde(default)]
    pub options: BTreeMap<String, Vec<String>>,
}

/// A kernel as Debian packages it.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// What it is called on the command line: `6.1`, `6.12-arm64`.
    pub name: String,
    /// What it runs on.
    pub arch: Arch,
    /// The Debian suite that has it.
    pub suite: String,
    /// Its packages, each with one `*` for what changes with every update: the image, then what else there is.
    pub packages: Vec<String>,
    /// What to take when the index has none of these.
    #[serde(default)]
    pub pinned: Vec<Pinned>,
    /// Whether a quick run includes it.
    #[serde(default)]
    pub quick: bool,
    /// Hooks that this kernel cannot serve in any way. Every other hook of every tool has to be taken.
    #[serde(default)]
    pub absent: Vec<String>,
    /// Hooks, and how they have to be taken: `accept = "kretprobe"`.
    #[serde(default)]
    pub attach_options: BTreeMap<String, String>,
}

/// One package by the place it was once published in.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Its path below the archive's root.
    pub path: String,
    /// Of the file, in hexadecimal.
    pub sha256: String,
}

/// The instruction set, as Debian names it.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Arch {
    /// Debian's name for it.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "x86-64",
            Self::Arm64 => "arm64",
        })
    }
}

/// What is different in a machine: its command line, its file systems, its privileges.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Variant {
    /// `lockdown`; after a colon in the name of a machine. The plain one is empty.
    pub name: String,
    /// The kernels it is for; empty for all.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// Of these, the ones that a quick run includes.
    #[serde(default)]
    pub quick: Vec<String>,
    /// Words for the kernel's command line.
    #[serde(default)]
    pub append: String,
    /// CPUs of the machine.
    #[serde(default = "two")]
    pub cpus: u8,
    /// Whether tracefs and debugfs are mounted.
    #[serde(default = "yes")]
    pub tracefs: bool,
    /// The capabilities that are left to tcptools, which then is not root; all of them and root when there are none here.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Arguments for the tests when the command line has none.
    #[serde(default)]
    pub tests: Vec<String>,
    /// The access modes that no tool can run with.
    #[serde(default)]
    pub refuses: Vec<String>,
    /// Tools that cannot run, and say so on one line that has these words.
    #[serde(default)]
    pub cannot: BTreeMap<String, String>,
    /// By kernel, the hooks that this variant takes away besides those that the kernel lacks.
    #[serde(default)]
    pub absent: BTreeMap<String, Vec<String>>,
}

fn two() -> u8 {
    2
}

fn yes() -> bool {
    true
}

/// One machine to run: a kernel in a variant.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The variant.
    pub variant: &'a Variant,
}

impl Run<'_> {
    /// `6.12`, `6.12:lockdown`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.variant.name.is_empty() {
            self.kernel.name.clone()
        } else {
            format!("{}:{}", self.kernel.name, self.variant.name)
        }
    }

    /// Whether no tool can see a hook in this machine.
    #[must_use]
    pub fn lacks(&self, hook: &str) -> bool {
        let taken_away = self.variant.absent.get(&self.kernel.name).into_iter().flatten();
        self.kernel.absent.iter().chain(taken_away).any(|absent| absent == hook)
    }

    fn is_quick(&self) -> bool {
        if self.variant.name.is_empty() {
            self.kernel.quick
        } else {
            self.variant.quick.contains(&self.kernel.name)
        }
    }

    /// A word of the command line: the machine's name, an architecture, or a variant after a colon.
    fn answers_to(&self, word: &str) -> bool {
        word == self.name()
            || word == self.kernel.arch.to_string()
            || word.strip_prefix(':').is_some_and(|variant| variant == self.variant.name)
    }
}

/// Which machines are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice<'a> {
    /// All of them.
    All,
    /// Those marked `quick`.
    Quick,
    /// Those that answer to one of these words.
    Named(&'a [String]),
}

impl Matrix {
    /// Reads the built-in file.
    ///
    /// # Errors
    ///
    /// When it is not TOML of this shape, or names a kernel that it does not have.
    pub fn read() -> Result<Self> {
        Self::parse(KERNELS)
    }

    fn parse(text: &str) -> Result<Self> {
        let matrix: Self = toml::from_str(text).map_err(|e| Error::Matrix(e.to_string()))?;
        for kernel in &matrix.kernel {
            if kernel.packages.iter().any(|package| package.matches('*').count() != 1) {
                return Err(Error::Matrix(format!("{}: a package needs one `*`", kernel.name)));
            }
        }
        for variant in &matrix.variant {
            for name in variant.kernels.iter().chain(&variant.quick).chain(variant.absent.keys()) {
                if !matrix.kernel.iter().any(|kernel| kernel.name == *name) {
                    return Err(Error::Matrix(format!("variant {}: no kernel {name}", variant.name)));
                }
            }
        }
        Ok(matrix)
    }

    /// Every machine: variant by variant, oldest kernel first.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.variant.iter().flat_map(|variant| {
            let wanted =
                |kernel: &&Kernel| variant.kernels.is_empty() || variant.kernels.contains(&kernel.name);
            self.kernel.iter().filter(wanted).map(move |kernel| Run { kernel, variant })
        })
    }

    /// The machines of a choice.
    ///
    /// # Errors
    ///
    /// When a word names none.
    pub fn choose(&self, choice: Choice<'_>) -> Result<Vec<Run<'_>>> {
        if let Choice::Named(words) = choice {
            for word in words {
                if !self.runs().any(|run| run.answers_to(word)) {
                    return Err(Error::NoSuchRun(word.clone()));
                }
            }
        }
        let wanted = |run: &Run<'_>| match choice {
            Choice::All => true,
            Choice::Quick => run.is_quick(),
            Choice::Named(words) => words.iter().any(|word| run.answers_to(word)),
        };
        Ok(self.runs().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(choice: Choice<'_>) -> Vec<String> {
        Matrix::read().unwrap().choose(choice).unwrap().iter().map(Run::name).collect()
    }

    #[test]
    fn the_matrix_has_what_is_asked_of_it() {
        let all = names(Choice::All);
        for name in ["5.10", "6.1", "6.12", "6.16", "6.18", "7.3", "5.10-arm64", "6.12-arm64", "7.3-arm64"] {
            assert!(all.iter().any(|n| n == name), "{name}");
        }
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "{all:?}");
    }

    #[test]
    fn words_choose_machines() {
        let named =
            |words: &[&str]| names(Choice::Named(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()));
        assert_eq!(named(&["5.10"]), ["5.10"]);
        assert!(named(&["arm64"]).iter().all(|name| name.contains("arm64")));
        assert!(named(&[":confidentiality"]).iter().all(|name| name.ends_with(":confidentiality")));
        let quick = names(Choice::Quick);
        assert!(quick.len() >= 3 && quick.len() < names(Choice::All).len(), "{quick:?}");
        let unknown = ["4.4".to_owned()];
        let error = Matrix::read().unwrap().choose(Choice::Named(&unknown)).unwrap_err();
        assert!(error.to_string().contains("4.4"), "{error}");
    }

    #[test]
    fn a_variant_of_an_unknown_kernel_is_refused() {
        let text = "kernel = []\n[[variant]]\nname = 'x'\nkernels = ['4.4']\n";
        assert!(Matrix::parse(text).unwrap_err().to_string().contains("no kernel 4.4"));
    }
}
