//! The options that help against an error of the loader, which is a library and does not know them.

use std::fmt;

use loader::{Errno, Hint, LoadError};

/// Displays an error, followed by the option that helps.
pub struct Advised<'a>(pub &'a LoadError);

impl fmt::Display for Advised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match self.0 {
            LoadError::NoBtf { errno: Errno::NOENT, .. } => f.write_str(": give it with --btf FILE"),
            LoadError::OtherKernel { .. } => f.write_str(": leave out --btf"),
            error if error.omits_log() && !f.alternate() => {
                f.write_str(" (-v shows the verifier's whole log)")
            }
            _ => Ok(()),
        }
    }
}

/// A command, a setting or an option that would help.
pub fn cure(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::NoBtf { .. } => Some("--btf FILE with the type information of this kernel"),
        LoadError::NoAttachOption { refused, .. } => refused.iter().find_map(|(_, error)| cure(error)),
        _ if error.hint() == Some(&Hint::PerfMlock) => {
            Some("a smaller --ring-size, or a larger sysctl kernel.perf_event_mlock_kb")
        }
        _ => error.cure(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_option_that_helps() {
        let path = || "/sys/kernel/btf/vmlinux".into();
        let missing = LoadError::NoBtf { path: path(), errno: Errno::NOENT };
        assert!(Advised(&missing).to_string().ends_with("(CONFIG_DEBUG_INFO_BTF): give it with --btf FILE"));
        assert!(cure(&missing).is_some_and(|cure| cure.starts_with("--btf FILE")));
        let other = LoadError::OtherKernel { path: path() };
        assert!(Advised(&other).to_string().ends_with("this kernel has its own: leave out --btf"));
        let buffers = LoadError::Ring { map: "m".into(), errno: Errno::PERM, hint: Some(Hint::PerfMlock) };
        assert!(cure(&buffers).is_some_and(|cure| cure.contains("--ring-size")));
        let unreadable = LoadError::NoBtf { path: path(), errno: Errno::PERM };
        assert_eq!(Advised(&unreadable).to_string(), unreadable.to_string());
    }
}
