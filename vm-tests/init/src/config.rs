//! The configuration of a machine: a file of the initramfs with one `key value` on each line.

/// A tool with options that change its programs.
#[derive(PartialEq, Eq, Debug)]
pub struct OptionSet {
    /// The tool's name.
    pub tool: String,
    /// The words of its command line.
    pub options: Vec<String>,
}

/// See [`Config::parse`] for the keys.
#[derive(PartialEq, Eq, Debug)]
pub struct Config {
    /// The device for the results.
    pub results: String,
    /// Whether tracefs and debugfs are mounted.
    pub tracefs: bool,
    /// File names of kernel modules in `/modules`, in order.
    pub modules: Vec<String>,
    /// Whether to attach every tool and report what it prints.
    pub attach_tools: bool,
    /// The sets of options to attach tools with, besides no options.
    pub option_sets: Vec<OptionSet>,
    /// Whether to start a shell on the console and do nothing else.
    pub shell: bool,
    /// The program to run and its arguments.
    pub payload: Vec<String>,
    /// Files that it writes and that go to the runner.
    pub files: Vec<String>,
}

impl Config {
    /// Parses the file. An unknown key is an error, because the runner and this program are from
    /// one build.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self {
            results: String::new(),
            tracefs: true,
            modules: Vec::new(),
            attach_tools: false,
            option_sets: Vec::new(),
            shell: false,
            payload: Vec::new(),
            files: Vec::new(),
        };
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "results" => value.clone_into(&mut config.results),
                "no-tracefs" => config.tracefs = false,
                "module" => config.modules.push(value.to_owned()),
                "attach-tools" => config.attach_tools = true,
                "options" => {
                    let mut words = value.split(' ').map(str::to_owned);
                    let tool = words.next().unwrap_or_default();
                    config.option_sets.push(OptionSet { tool, options: words.collect() });
                }
                "shell" => config.shell = true,
                // One word on each line, so that nothing needs quoting.
                "payload" => config.payload.push(value.to_owned()),
                "file" => config.files.push(value.to_owned()),
                _ => return Err(format!("unknown key: {line:?}")),
            }
        }
        if config.results.is_empty() {
            return Err("no device for the results".into());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key() {
        let text = "results /dev/ttyS1\nno-tracefs\nmodule veth.ko\nmodule sch_netem.ko.xz\nattach-tools\noptions tcplife -L 22\n\
                    shell\npayload /bin/kernel\npayload a b\nfile /tmp/x.json\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.results, "/dev/ttyS1");
        assert!(!config.tracefs && config.attach_tools && config.shell);
        assert_eq!(config.modules, ["veth.ko", "sch_netem.ko.xz"]);
        assert_eq!(config.option_sets[0].tool, "tcplife");
        assert_eq!(config.option_sets[0].options, ["-L", "22"]);
        assert_eq!(config.payload, ["/bin/kernel", "a b"]);
        assert_eq!(config.files, ["/tmp/x.json"]);
    }

    #[test]
    fn unknown_and_missing_keys_are_refused() {
        assert!(Config::parse("results /dev/ttyS1\nfrobnicate\n").is_err());
        assert!(Config::parse("attach-tools\n").is_err());
    }
}
