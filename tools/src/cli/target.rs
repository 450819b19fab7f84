//! Kernels in words: `6.1-x86_64-typed`, for `--target`.

use bpfasm::target::{Access, Arch, KernelVersion, Refused, Ring, Target};

const EXPECTED: &str = "expected VERSION-ARCH-ACCESS[-perf][-fexit][-kprobe], such as 6.1-x86_64-typed or \
                     5.10-aarch64-probed-perf";

/// Reads the description of a kernel.
pub fn parse_target(text: &str) -> Result<Target, String> {
    let mut words = text.split('-');
    let version = words.next().and_then(version).ok_or(EXPECTED)?;
    let arch = match words.next() {
        Some("x86_64") => Arch::X86_64,
        Some("aarch64") => Arch::Aarch64,
        _ => return Err(EXPECTED.to_owned()),
    };
    let access = match words.next() {
        Some("typed") => Access::Typed,
        Some("probed") => Access::Probed,
        _ => return Err(EXPECTED.to_owned()),
    };
    let mut target = Target {
        version,
        arch,
        access,
        ring: Ring::RingBuf,
        trampolines: false,
        kprobes: false,
        refused: Refused::default(),
    };
    for word in words {
        match word {
            "perf" => target.ring = Ring::PerfEventArray,
            "fexit" => target.trampolines = true,
            "kprobe" => target.kprobes = true,
            _ => return Err(EXPECTED.to_owned()),
        }
    }
    Ok(target)
}

fn version(text: &str) -> Option<KernelVersion> {
    let mut numbers = text.split('.').map(str::parse);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next()?.ok()?;
    let patch = numbers.next().transpose().ok()?.unwrap_or(0);
    numbers.next().is_none().then_some(KernelVersion { major, minor, patch })
}

/// Describes a kernel in the same words.
pub fn target_words(target: &Target) -> String {
    let KernelVersion { major, minor, patch } = target.version;
    let mut words = format!("{major}.{minor}");
    if patch != 0 {
        words += &format!(".{patch}");
    }
    words += match target.arch {
        Arch::X86_64 => "-x86_64",
        Arch::Aarch64 => "-aarch64",
    };
    words += match target.access {
        Access::Typed => "-typed",
        Access::Probed => "-probed",
    };
    for (has, word) in [
        (target.ring == Ring::PerfEventArray, "-perf"),
        (target.trampolines, "-fexit"),
        (target.kprobes, "-kprobe"),
    ] {
        if has {
            words += word;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        for words in ["6.1-x86_64-typed", "5.10.46-aarch64-probed-perf", "7.3.4-x86_64-typed-fexit-kprobe"] {
            assert_eq!(target_words(&parse_target(words).expect(words)), words);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "",
            "6",
            "6.1",
            "6.1-x86_64",
            "6.1-i386-typed",
            "6.1-x86_64-typed-",
            "x.y-x86_64-typed",
            "6.1.2.3-x86_64-typed",
        ] {
            assert!(parse_target(wrong).is_err(), "{wrong:?}");
        }
    }
}
