//! The verifier's figures for each program on each kernel. `programs.txt` keeps them, so that a
//! review shows what a change costs, and a run fails if a figure grows past its budget.

use std::collections::BTreeMap;
use std::fmt;

/// The names of a tool, an access mode and a program.
pub type Program = (String, String, String);

/// The verifier's figures for one program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Instruction slots after the verifier's rewriting.
    pub instructions: u32,
    /// Instructions that the verifier visited on all paths.
    pub verified: u32,
    /// Bytes of stack, if the kernel reports them.
    pub stack: Option<u32>,
    /// Bytes of machine code.
    pub bytes: u32,
}

impl Cost {
    /// Parses `N instructions, N verified, stack N, N bytes`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(", ");
        let cost = Self {
            instructions: parts.next()?.strip_suffix(" instructions")?.parse().ok()?,
            verified: parts.next()?.strip_suffix(" verified")?.parse().ok()?,
            stack: match parts.next()?.strip_prefix("stack ")? {
                "-" => None,
                depth => Some(depth.parse().ok()?),
            },
            bytes: parts.next()?.strip_suffix(" bytes")?.parse().ok()?,
        };
        parts.next().is_none().then_some(cost)
    }

    /// The first figure that has grown past its budget: a tenth, and 16 for small programs. The
    /// margin is for updates of a kernel, which may rewrite or compile a program a little
    /// differently.
    fn over_budget(self, was: Self) -> Option<String> {
        let numbers = [
            ("instructions", self.instructions, was.instructions),
            ("verified", self.verified, was.verified),
            ("stack", self.stack.unwrap_or(0), was.stack.unwrap_or(0)),
            ("bytes", self.bytes, was.bytes),
        ];
        let over = |&&(_, now, was): &&(&str, u32, u32)| now > was + was / 10 + 16;
        numbers.iter().find(over).map(|(what, now, was)| format!("{what} grew from {was} to {now}"))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instructions, verified, stack, bytes } = self;
        let stack = stack.map_or_else(|| "-".to_owned(), |stack| stack.to_string());
        write!(f, "{instructions} instructions, {verified} verified, stack {stack}, {bytes} bytes")
    }
}

/// The cost of each program by kernel.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Costs(BTreeMap<Program, BTreeMap<String, Cost>>);

impl Costs {
    /// Parses the file's text.
    ///
    /// # Errors
    ///
    /// The line that cannot be parsed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut costs = Self::default();
        let mut program = None;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(row) = line.strip_prefix("    ") {
                let (kernel, cost) = row.split_once(' ').ok_or(line)?;
                let cost = Cost::parse(cost.trim_start()).ok_or(line)?;
                let program: &Program = program.as_ref().ok_or(line)?;
                costs.insert(program.clone(), kernel, cost);
            } else {
                let mut words = line.split(' ').map(str::to_owned);
                program =
                    Some((words.next().ok_or(line)?, words.next().ok_or(line)?, words.next().ok_or(line)?));
            }
        }
        Ok(costs)
    }

    fn insert(&mut self, program: Program, kernel: &str, cost: Cost) {
        self.0.entry(program).or_default().insert(kernel.to_owned(), cost);
    }

    /// Programs of a kernel that have grown, are new or have disappeared, one line each.
    #[must_use]
    pub fn faults(&self, kernel: &str, seen: &BTreeMap<Program, Cost>) -> Vec<String> {
        let mut faults = Vec::new();
        for (program @ (tool, access, name), cost) in seen {
            let what = format!("{tool} {access} {name}");
            match self.0.get(program).and_then(|kernels| kernels.get(kernel)) {
                None => faults.push(format!("{what}: not in programs.txt for this kernel (--bless adds it)")),
                Some(was) => faults.extend(
                    cost.over_budget(*was)
                        .map(|over| format!("{what}: {over} (programs.txt; --bless accepts it)")),
                ),
            }
        }
        let missing = self
            .0
            .iter()
            .filter(|(program, kernels)| kernels.contains_key(kernel) && !seen.contains_key(*program));
        for ((tool, access, name), _) in missing {
            faults.push(format!(
                "{tool} {access} {name}: in programs.txt but was not loaded (--bless removes it)"
            ));
        }
        faults
    }

    /// Replaces the figures of a kernel.
    pub fn bless(&mut self, kernel: &str, seen: &BTreeMap<Program, Cost>) {
        for kernels in self.0.values_mut() {
            kernels.remove(kernel);
        }
        for (program, cost) in seen {
            self.insert(program.clone(), kernel, *cost);
        }
        self.0.retain(|_, kernels| !kernels.is_empty());
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# The verifier's figures for each program without options, by kernel. Written by\n\
             # `cargo vm-test --bless`. A run fails if a figure is more than a tenth above the one here.\n",
        )?;
        for ((tool, access, program), kernels) in &self.0 {
            writeln!(f, "\n{tool} {access} {program}")?;
            for (kernel, cost) in kernels {
                writeln!(f, "    {kernel:<12} {cost}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { instructions: 210, verified: 225, stack: Some(512), bytes: 2058 };

    fn program() -> Program {
        ("tcplife".into(), "typed".into(), "inet_sock_set_state".into())
    }

    #[test]
    fn the_table_reads_back() {
        let mut costs = Costs::default();
        costs.bless("6.1", &BTreeMap::from([(program(), COST)]));
        costs.bless("7.3-arm64", &BTreeMap::from([(program(), COST)]));
        let text = costs.to_string();
        assert!(
            text.contains("    6.1          210 instructions, 225 verified, stack 512, 2058 bytes\n"),
            "{text}"
        );
        assert_eq!(Costs::parse(&text), Ok(costs));
        assert!(Costs::parse("    6.1 210 instructions\n").is_err());
        assert_eq!(Cost::parse("1 instructions, - verified, stack 1, 0 bytes"), None);
        let unknown = Cost { stack: None, ..COST };
        assert_eq!(Cost::parse(&unknown.to_string()), Some(unknown));
    }

    #[test]
    fn growth_past_the_budget_and_new_and_missing_programs_are_faults() {
        let mut costs = Costs::default();
        costs.bless("6.1", &BTreeMap::from([(program(), COST)]));
        let with = |cost| costs.faults("6.1", &BTreeMap::from([(program(), cost)]));
        assert!(with(COST).is_empty());
        assert!(with(Cost { verified: 240, ..COST }).is_empty());
        assert!(with(Cost { verified: 300, ..COST })[0].contains("verified grew from 225 to 300"));
        assert!(costs.faults("6.1", &BTreeMap::new())[0].contains("was not loaded"));
        assert!(
            costs.faults("6.12", &BTreeMap::from([(program(), COST)]))[0].contains("not in programs.txt")
        );
        assert!(costs.faults("6.12", &BTreeMap::new()).is_empty());
    }

    #[test]
    fn blessing_removes_missing_programs() {
        let mut costs = Costs::default();
        costs.bless("6.1", &BTreeMap::from([(program(), COST)]));
        costs.bless("6.1", &BTreeMap::new());
        assert_eq!(costs, Costs::default());
    }
}
