//! The command line of the runner.

pub(super) const USAGE: &str = "\
Usage: kernel [--list] [--exact] [--nocapture] [--jobs N] [--skip PART]... [PART]...
Run the tests whose name contains one of the PARTs (default: all tests), as root, on the running kernel.
--exact: a PART is the whole name of a test. --jobs: run N tests at a time (default: two for each CPU; one in a machine
of vm-tests and on kernels since 7.0).
The tested tool is $TCPTOOLS (default: tcptools beside the directory of this program).
$KERNEL_TESTS_PATIENCE multiplies every time limit (default 1): use 10 in an emulated machine.";

/// What the command line asks for.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Args {
    pub list: bool,
    pub exact: bool,
    pub nocapture: bool,
    pub help: bool,
    pub jobs: Option<usize>,
    pub skip: Vec<String>,
    pub parts: Vec<String>,
}

impl Args {
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => args.list = true,
                "--exact" => args.exact = true,
                "--nocapture" | "--no-capture" => args.nocapture = true,
                "-h" | "--help" => args.help = true,
                "--jobs" | "--test-threads" => {
                    let number = words.next().unwrap_or_default();
                    let jobs = number.parse().ok().filter(|&jobs| jobs > 0);
                    args.jobs = Some(jobs.ok_or_else(|| format!("{word} needs a number, not {number:?}"))?);
                }
                "--skip" => args.skip.push(words.next().ok_or("--skip needs a part of a name")?),
                flag if flag.starts_with('-') => return Err(format!("no such option: {flag}")),
                _ => args.parts.push(word),
            }
        }
        Ok(args)
    }

    pub fn wants(&self, name: &str) -> bool {
        let matches = |part: &String| if self.exact { name == part } else { name.contains(part.as_str()) };
        (self.parts.is_empty() || self.parts.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Args, String> {
        Args::parse(words.iter().map(|&w| w.to_owned()))
    }

    #[test]
    fn a_part_of_a_name_chooses_and_skip_excludes() {
        let chosen = args(&["tcplife", "cli::", "--skip", "v6"]).unwrap();
        assert!(chosen.wants("tcplife::refused"));
        assert!(chosen.wants("cli::links"));
        assert!(!chosen.wants("tcplife::refused_v6"));
        assert!(!chosen.wants("tcpstates::refused"));
        let exact = args(&["--exact", "tcplife::refused"]).unwrap();
        assert!(exact.wants("tcplife::refused"));
        assert!(!exact.wants("tcplife::refused_v6"));
        assert!(args(&[]).unwrap().wants("anything"));
        assert_eq!(args(&["--frobnicate"]), Err("no such option: --frobnicate".to_owned()));
    }

    #[test]
    fn jobs_are_a_positive_number() {
        assert_eq!(args(&["--jobs", "3"]).unwrap().jobs, Some(3));
        assert_eq!(args(&[]).unwrap().jobs, None);
        for wrong in [&["--jobs"][..], &["--jobs", "0"], &["--jobs", "many"]] {
            assert!(args(wrong).is_err(), "{wrong:?}");
        }
    }
}
