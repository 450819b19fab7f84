//! What builds for an architecture: this machine's own toolchain, or one unpacked into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Doing, Result, run};
use crate::matrix::Arch;

/// Environment for cargo.
#[derive(Debug)]
pub struct Toolchain {
    environment: Vec<(String, String)>,
    strip: PathBuf,
}

/// What the cross toolchain is made of: suite, architecture and name. The compiler and both standard libraries have to be of one
/// build, so they are Debian's and from one suite; the C side is only for linking.
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
    /// What this machine builds with.
    #[must_use]
    pub fn native() -> Self {
        Self { environment: Vec::new(), strip: "strip".into() }
    }

    /// One for arm64, unpacked into the cache by `arm64-toolchain.sh` when it is not there.
    ///
    /// # Errors
    ///
    /// When a package is gone or the script fails.
    pub fn arm64(cache: &Path, apt: &mut Apt) -> Result<Self> {
        let folder = cache.join("arm64-toolchain");
        let settings = folder.join("environment");
        if !settings.is_file() {
            let debs = cache.join("arm64-packages");
            std::fs::create_dir_all(&debs).doing(format_args!("mkdir {}", debs.display()))?;
            for (suite, arch, pattern) in PACKAGES {
                let package = apt.newest(suite, arch, pattern)?;
                eprintln!("vm-test: fetch {} {} for {arch}", package.name, package.version);
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

    /// Lets a cargo build with it.
    pub fn apply(&self, cargo: &mut Command) {
        cargo.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Its program `strip`.
    #[must_use]
    pub fn strip(&self) -> &Path {
        &self.strip
    }
}
