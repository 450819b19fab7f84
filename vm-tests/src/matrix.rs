//! `kernels.toml`: the kernels, and the variants they run in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The file is built in, so that the program and its matrix cannot disagree.
const KERNELS: &str = include_str!("../kernels.toml");

/// The whole file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Matrix {
    kernel: Vec<Kernel>,
    variant: Vec<Variant>,
    /// Parts of names of tests that a quick run skips in every machine.
    #[serde(default)]
    quick_skip: Vec<String>,
    /// For each tool, command lines with options that change its programs.
    #[serde(default)]
    pub options: BTreeMap<String, Vec<String>>,
}

/// A kernel as Debian packages it.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// Its name on the command line: `6.1`, `6.12-arm64`.
    pub name: String,
    pub arch: Arch,
    /// The Debian suite that has it.
    pub suite: String,
    /// Its packages, the image first. Each has one `*` in the place that changes with every update.
    pub packages: Vec<String>,
    /// The files to take if the index has none of these packages.
    #[serde(default)]
    pub pinned: Vec<Pinned>,
    /// Whether a quick run includes it.
    #[serde(default)]
    pub quick: bool,
    /// Hooks that no attach option can serve on this kernel. Every other hook of every tool has to
    /// be attached.
    #[serde(default)]
    pub absent: Vec<String>,
    /// Hooks with the attach option that they have to use: `accept = "kretprobe"`.
    #[serde(default)]
    pub attach_options: BTreeMap<String, String>,
}

/// One package by the path it was published at.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// The path below the archive's root.
    pub path: String,
    /// The file's checksum in hexadecimal.
    pub sha256: String,
}

/// An instruction set. The file has Debian's names for it.
#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
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

/// What differs from the plain machine: kernel command line, file systems, privileges.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Variant {
    /// Such as `integrity`. In a machine's name it stands after a colon. The plain variant's is
    /// empty.
    pub name: String,
    /// The kernels that run in it; empty for all.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// The ones of these that a quick run includes.
    #[serde(default)]
    pub quick: Vec<String>,
    /// Words for the kernel's command line.
    #[serde(default)]
    pub append: String,
    /// How many CPUs the machine has.
    #[serde(default = "two")]
    pub cpus: u8,
    /// Whether tracefs and debugfs are mounted.
    #[serde(default = "yes")]
    pub tracefs: bool,
    /// The capabilities of tcptools, which then runs as an ordinary user. If empty, it runs as
    /// root.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Arguments for the tests if the command line has none.
    #[serde(default)]
    pub tests: Vec<String>,
    /// More of them in a quick run.
    #[serde(default)]
    pub quick_tests: Vec<String>,
    /// The access modes that do not work in this variant.
    #[serde(default)]
    pub unsupported_access: Vec<String>,
    /// Tools that cannot run in this variant, each with a part of its one-line message.
    #[serde(default)]
    pub unsupported_tools: BTreeMap<String, String>,
    /// By kernel, the hooks that are missing in this variant besides those that the kernel lacks.
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
    pub kernel: &'a Kernel,
    pub variant: &'a Variant,
}

impl Run<'_> {
    /// `6.12`, `6.12:integrity`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.variant.name.is_empty() {
            self.kernel.name.clone()
        } else {
            format!("{}:{}", self.kernel.name, self.variant.name)
        }
    }

    /// Whether no attach option can serve this hook in this machine.
    #[must_use]
    pub fn lacks(&self, hook: &str) -> bool {
        let by_variant = self.variant.absent.get(&self.kernel.name).into_iter().flatten();
        self.kernel.absent.iter().chain(by_variant).any(|absent| absent == hook)
    }

    /// The hooks that `kernels.toml` says something about for this machine.
    pub fn named_hooks(&self) -> impl Iterator<Item = &str> {
        let by_variant = self.variant.absent.get(&self.kernel.name).into_iter().flatten();
        let absent = self.kernel.absent.iter().chain(by_variant);
        absent.chain(self.kernel.attach_options.keys()).map(String::as_str)
    }

    fn is_quick(&self) -> bool {
        if self.variant.name.is_empty() {
            self.kernel.quick
        } else {
            self.variant.quick.contains(&self.kernel.name)
        }
    }

    /// Whether a word of the command line means this machine: its name, its architecture, or its
    /// variant after a colon (`:` alone for the plain variant).
    fn matches(&self, word: &str) -> bool {
        word == self.name()
            || word == self.kernel.arch.to_string()
            || word.strip_prefix(':').is_some_and(|variant| variant == self.variant.name)
    }
}

/// Which machines to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice<'a> {
    All,
    /// Those marked `quick`.
    Quick,
    /// Those that one of these words means.
    Named(&'a [String]),
}

impl Matrix {
    /// Reads the built-in file.
    ///
    /// # Errors
    ///
    /// If it is not TOML of this shape, or a variant names an unknown kernel.
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

    /// Every machine, variant by variant and oldest kernel first.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.variant.iter().flat_map(|variant| {
            let wanted =
                |kernel: &&Kernel| variant.kernels.is_empty() || variant.kernels.contains(&kernel.name);
            self.kernel.iter().filter(wanted).map(move |kernel| Run { kernel, variant })
        })
    }

    /// The arguments for the tests in a machine if the command line has none.
    #[must_use]
    pub fn tests(&self, run: &Run<'_>, quick: bool) -> Vec<String> {
        let mut tests = run.variant.tests.clone();
        if quick {
            tests.extend(self.quick_skip.iter().flat_map(|part| ["--skip".to_owned(), part.clone()]));
            tests.extend(run.variant.quick_tests.iter().cloned());
        }
        tests
    }

    /// The machines of a choice.
    ///
    /// # Errors
    ///
    /// If a word means no machine.
    pub fn choose(&self, choice: Choice<'_>) -> Result<Vec<Run<'_>>> {
        if let Choice::Named(words) = choice {
            for word in words {
                if !self.runs().any(|run| run.matches(word)) {
                    return Err(Error::NoSuchRun(word.clone()));
                }
            }
        }
        let wanted = |run: &Run<'_>| match choice {
            Choice::All => true,
            Choice::Quick => run.is_quick(),
            Choice::Named(words) => words.iter().any(|word| run.matches(word)),
        };
        Ok(self.runs().filter(wanted).collect())
    }
}

/// A machine as `--list --json` shows it.
#[derive(Serialize)]
struct Listed<'a> {
    name: String,
    kernel: &'a str,
    arch: Arch,
    variant: &'a str,
    quick: bool,
}

/// One line of JSON with an array of machines. The CI makes one job of each.
#[must_use]
pub fn json(runs: &[Run<'_>]) -> String {
    let machines = runs.iter().map(|&run| Listed {
        name: run.name(),
        kernel: &run.kernel.name,
        arch: run.kernel.arch,
        variant: &run.variant.name,
        quick: run.is_quick(),
    });
    serde_json::json!(machines.collect::<Vec<_>>()).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn names(choice: Choice<'_>) -> Vec<String> {
        Matrix::read().unwrap().choose(choice).unwrap().iter().map(Run::name).collect()
    }

    #[test]
    fn the_supported_kernels_are_in_the_matrix() {
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
        let plain = named(&[":"]);
        assert!(plain.len() >= 10 && plain.iter().all(|name| !name.contains(':')), "{plain:?}");
        assert!(named(&[":confidentiality"]).iter().all(|name| name.ends_with(":confidentiality")));
        let quick = names(Choice::Quick);
        assert!(quick.len() >= 3 && quick.len() < names(Choice::All).len(), "{quick:?}");
        let unknown = ["4.4".to_owned()];
        let error = Matrix::read().unwrap().choose(Choice::Named(&unknown)).unwrap_err();
        assert!(error.to_string().contains("4.4"), "{error}");
    }

    #[test]
    fn arguments_of_the_tests() {
        let text = "quick-skip = ['cli::']\nkernel = []\n[[variant]]\nname = 'x'\ntests = ['--skip', 'a']\n\
                    quick-tests = ['selftest::']\n";
        let matrix = Matrix::parse(text).unwrap();
        let run = Run { kernel: &Matrix::read().unwrap().kernel[0], variant: &matrix.variant[0] };
        assert_eq!(matrix.tests(&run, false), ["--skip", "a"]);
        assert_eq!(matrix.tests(&run, true), ["--skip", "a", "--skip", "cli::", "selftest::"]);
    }

    /// A test that was renamed would silently be run, or not be run.
    #[test]
    fn arguments_of_the_tests_are_parts_of_their_names() {
        let mut sources = String::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    sources += &fs::read_to_string(path).unwrap();
                }
            }
        }
        let names: Vec<&str> = sources.split('"').filter(|text| text.contains("::")).collect();
        let matrix = Matrix::read().unwrap();
        let by_variant =
            matrix.variant.iter().flat_map(|variant| variant.tests.iter().chain(&variant.quick_tests));
        for word in matrix.quick_skip.iter().chain(by_variant).filter(|word| *word != "--skip") {
            assert!(names.iter().any(|name| name.contains(word.as_str())), "no test matches `{word}`");
        }
    }

    #[test]
    fn the_list_of_the_ci() {
        let matrix = Matrix::read().unwrap();
        let runs = matrix.choose(Choice::Named(&["6.12:confidentiality".to_owned()])).unwrap();
        let expected = r#"[{"name":"6.12:confidentiality","kernel":"6.12","arch":"amd64","variant":"confidentiality","quick":true}]"#;
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&json(&runs)), value(expected));
    }

    #[test]
    fn a_variant_of_an_unknown_kernel_is_refused() {
        let text = "kernel = []\n[[variant]]\nname = 'x'\nkernels = ['4.4']\n";
        assert!(Matrix::parse(text).unwrap_err().to_string().contains("no kernel 4.4"));
    }
}
