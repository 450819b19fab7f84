//! Toolchains: this host's own, and one for arm64 that is unpacked into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Doing, Result, run};
use crate::matrix::Arch;

/// Environment variables for cargo, and a `strip`.
#[derive(Debug)]
pub struct Toolchain {
    environment: Vec<(String, String)>,
    strip: PathBuf,
}

/// The packages of the cross toolchain: suite, architecture and name. The compiler and the standard
/// libraries of both architectures have to be from one build, so all are from one suite. The C
/// compiler is only used for linking.
const PACKAGES: [(&str, Arch, &str); 14] = [
    ("bookworm-security", Arch::Amd64, "rustc-web"),
    ("bookworm-security", Arch::Amd64, "libstd-rust-web-dev"),
    ("bookworm-security", Arch::Arm64, "libstd-rust-web-dev"),
    ("bookworm-security", Arch::Amd64, "libstd-rust-web-*"),
    ("bookworm-security", Arch::Amd64, "libllvm*"),
    ("bookworm", Arch::Amd64, "gcc-12-aarch64-linux-gnu"),
    ("bookworm", Arch::Amd64, "binutils-aarch64-linux-gnu"),
    ("bookworm", Arch::Amd64, "libgcc-12-dev-arm64-cross"),
    ("bookworm", Arch::Amd64, "libgcc-s1-arm64-cross"),
    ("bookworm", Arch::Amd64, "libc6-dev-arm64-cross"),
    ("bookworm", Arch::Amd64, "libc6-arm64-cross"),
    ("bookworm", Arch::Amd64, "libisl23"),
    ("bookworm", Arch::Amd64, "libmpc3"),
    ("bookworm", Arch::Amd64, "libmpfr6"),
];

impl Toolchain {
    /// This host's own toolchain.
    #[must_use]
    pub fn native() -> Self {
        Self { environment: Vec::new(), strip: "strip".into() }
    }

    /// The toolchain for arm64. `arm64-toolchain.sh` unpacks it into the cache if it is not there.
    ///
    /// # Errors
    ///
    /// If a package is not available or the script fails.
    pub fn arm64(cache: &Path, apt: &mut Apt) -> Result<Self> {
        let folder = cache.join("arm64-toolchain");
        let settings = folder.join("environment");
        if !settings.is_file() {
            let debs = cache.join("arm64-packages");
            std::fs::create_dir_all(&debs).doing(format_args!("mkdir {}", debs.display()))?;
            for (suite, arch, pattern) in PACKAGES {
                let package = apt.newest(suite, arch, pattern)?;
                eprintln!("vm-test: downloading {} {} for {arch}", package.name, package.version);
                apt.fetch(
                    suite,
                    &package.file,
                    &debs.join(format!("{}_{}.deb", package.name, arch.debian())),
                )?;
            }
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("arm64-toolchain.sh");
            run(Command::new(script).arg(&debs).arg(&folder))?;
            std::fs::remove_dir_all(&debs).doing(format_args!("remove {}", debs.display()))?;
        }
        let text = std::fs::read_to_string(&settings).doing(format_args!("read {}", settings.display()))?;
        let environment = text.lines().filter_map(|line| line.split_once('='));
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { environment, strip: folder.join("bin/strip") })
    }

    /// Makes this cargo command use the toolchain.
    pub fn apply(&self, cargo: &mut Command) {
        cargo.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// The path of its `strip`.
    #[must_use]
    pub fn strip(&self) -> &Path {
        &self.strip
    }
}
