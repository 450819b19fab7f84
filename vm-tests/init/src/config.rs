//! What the runner wants of this machine: one `key value` per line of a file of the initramfs.

/// Options that change the programs of a tool.
#[derive(PartialEq, Eq, Debug)]
pub struct OptionSet {
    /// The tool.
    pub tool: String,
    /// The words of its command line.
    pub options: Vec<String>,
}

/// See [`Config::parse`] for the keys.
#[derive(PartialEq, Eq, Debug)]
pub struct Config {
    /// The device the results go to.
    pub results: String,
    /// Whether tracefs and debugfs are mounted.
    pub tracefs: bool,
    /// File names of kernel modules in `/modules`, in order.
    pub modules: Vec<String>,
    /// Whether to say which attach options every tool takes.
    pub attach_options: bool,
    /// The sets of options to attach every tool with, besides none.
    pub option_sets: Vec<OptionSet>,
    /// A shell on the console and nothing else.
    pub shell: bool,
    /// The program to run, and its arguments.
    pub payload: Vec<String>,
    /// Files that it writes and the runner wants.
    pub files: Vec<String>,
}

impl Config {
    /// Reads the file. A key that is not known is an error: the runner and this program come from one build.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self {
            results: String::new(),
            tracefs: true,
            modules: Vec::new(),
            attach_options: false,
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
                "attach_options" => config.attach_options = true,
                "options" => {
                    let mut words = value.split(' ').map(str::to_owned);
                    let tool = words.next().unwrap_or_default();
                    config.option_sets.push(OptionSet { tool, options: words.collect() });
                }
                "shell" => config.shell = true,
                // One word per line: no quoting.
                "payload" => config.payload.push(value.to_owned()),
                "file" => config.files.push(value.to_owned()),
                _ => return Err(format!("no such key: {line:?}")),
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
        let text = "results /dev/ttyS1\nno-tracefs\nmodule veth.ko\nmodule sch_netem.ko.xz\nattach_options\noptions tcplife -L 22\n\
                    shell\npayload /bin/kernel\npayload a b\nfile /tmp/x.json\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.results, "/dev/ttyS1");
        assert!(!config.tracefs && config.attach_options && config.shell);
        assert_eq!(config.modules, ["veth.ko", "sch_netem.ko.xz"]);
        assert_eq!(config.option_sets[0].tool, "tcplife");
        assert_eq!(config.option_sets[0].options, ["-L", "22"]);
        assert_eq!(config.payload, ["/bin/kernel", "a b"]);
        assert_eq!(config.files, ["/tmp/x.json"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(Config::parse("results /dev/ttyS1\nfrobnicate\n").is_err());
        assert!(Config::parse("attach_options\n").is_err());
    }
}
