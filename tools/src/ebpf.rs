//! `--ebpf`: the programs themselves, as they would be loaded.
//!
//! Kernel fields have their numbers from the running kernel's BTF, or from `--btf FILE`; for a kernel that is only described,
//! by `--target`, they stand by name. Maps stand by name always: their numbers exist only while a tool runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bpfasm::elf;
use bpfasm::object::{Hook, Need, Object, ProgramDef};
use bpfasm::target::{Access, Target};
use btf::Btf;
use clap::ArgMatches;
use loader::{AttachName, LoadError, RelocError, relocate};
use serde_json::json;

use crate::args::{self, Shared};
use crate::attach_points::ATTACH_POINTS;
use crate::failure::Failure;
use crate::target::target_words;
use crate::tool::{Session, TOOLS};

/// How programs are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The assembler's text.
    Listing,
    /// Eight bytes a line.
    Hex,
    /// One object per program and line.
    Json,
    /// A relocatable object file.
    Elf,
}

impl Form {
    /// The words for them.
    pub const WORDS: [&str; 4] = ["listing", "hex", "json", "elf"];

    /// The form of that word.
    pub fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "listing" => Ok(Self::Listing),
            "hex" => Ok(Self::Hex),
            "json" => Ok(Self::Json),
            "elf" => Ok(Self::Elf),
            _ => Err(format!("a form is one of {}", Self::WORDS.join(", "))),
        }
    }
}

/// Prints the programs of one tool with the options given.
pub fn one_tool(name: &str, session: &dyn Session, form: Form, shared: &Shared) -> Result<(), Failure> {
    let kernel = Kernel::find(shared.target.clone(), shared.btf.as_deref(), shared.access)?;
    let object = kernel.object(name, session)?;
    print(&kernel.render(&object, form)?)
}

/// Prints the programs of all tools with their default options.
pub fn all_tools(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(&form) = matches.get_one::<Form>("ebpf") else {
        return Err(Failure::Usage(format!("--btf and --target go with --ebpf; {}", crate::names())));
    };
    if form == Form::Elf {
        return Err(Failure::Usage("an ELF file holds one tool: tcptools TOOL --ebpf=elf".to_owned()));
    }
    let path: Option<&PathBuf> = matches.get_one("btf");
    let kernel =
        Kernel::find(matches.get_one::<Target>("target").cloned(), path.map(PathBuf::as_path), None)?;
    let mut text = Vec::new();
    for tool in TOOLS {
        let defaults = crate::tool_command(*tool).get_matches_from([tool.name()]);
        let session = tool.session(&defaults, &args::read_shared(&defaults));
        let object = kernel.object(tool.name(), session.as_ref())?;
        text.extend(kernel.render(&object, form)?);
    }
    print(&text)
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
}

/// The kernel that programs are printed for.
struct Kernel {
    target: Target,
    btf: Option<Btf>,
}

impl Kernel {
    fn find(target: Option<Target>, btf: Option<&Path>, access: Option<Access>) -> Result<Self, Failure> {
        if let Some(target) = target {
            let btf = btf.map(Btf::open).transpose().map_err(LoadError::from).map_err(Failure::failed)?;
            return Ok(Self { target, btf });
        }
        let btf = loader::kernel_btf(btf)?;
        let mut target = loader::probe(&btf, &ATTACH_POINTS).map_err(Failure::failed)?;
        target.access = access.unwrap_or(target.access);
        Ok(Self { target, btf: Some(btf) })
    }

    /// The tool's object for this kernel, with every number that can be known.
    fn object(&self, name: &str, session: &dyn Session) -> Result<Object, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{name}: {error}"));
        let mut object = session.object(&self.target).map_err(|error| failed(&error))?;
        if let Some(btf) = &self.btf {
            let index =
                btf.index(&loader::wanted(&object)).map_err(|error| failed(&LoadError::from(error)))?;
            for hook in &mut object.hooks {
                for attach_option in std::mem::take(&mut hook.attach_options) {
                    match relocate(&attach_option.program, &index, &object.consts) {
                        Ok(program) => hook.attach_options.push(ProgramDef { program, ..attach_option }),
                        // A way that names what this kernel does not have is no way here; the loader passes over it too.
                        Err(RelocError::Absent { .. })
                            if hook.need == Need::Optional || hook.fallback_for.is_some() => {}
                        Err(error) => return Err(failed(&error)),
                    }
                }
            }
        }
        Ok(object)
    }

    fn render(&self, object: &Object, form: Form) -> Result<Vec<u8>, Failure> {
        if form == Form::Elf {
            return elf::write(object).map_err(Failure::failed);
        }
        let mut text = Vec::new();
        for hook in &object.hooks {
            for attach_option in &hook.attach_options {
                self.program(&mut text, object, hook, attach_option, form)?;
            }
        }
        Ok(text)
    }

    fn program(
        &self,
        text: &mut Vec<u8>,
        object: &Object,
        hook: &Hook,
        attach_option: &ProgramDef,
        form: Form,
    ) -> Result<(), Failure> {
        let bytes = attach_option.program.bytes().map_err(Failure::failed)?;
        let crc = crc32(&bytes);
        let need = match hook.need {
            Need::Required => "required",
            Need::Optional => "optional",
        };
        let kernel = target_words(&self.target);
        if form == Form::Json {
            let value = json!({
                "tool": object.name,
                "program": attach_option.name,
                "hook": hook.name,
                "need": need,
                "fallback_for": hook.fallback_for,
                "attach": AttachName(&attach_option.attach).to_string(),
                "kernel": kernel,
                "license": object.license,
                "instructions": bytes.len() / 8,
                "bytes": bytes.len(),
                "crc32": format!("{crc:08x}"),
                "code": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                "listing": attach_option.program.listing().to_string().lines().collect::<Vec<_>>(),
            });
            return writeln!(text, "{value}").map_err(Failure::failed);
        }
        let mut header = || {
            writeln!(text, "// {}: {}", object.name, attach_option.name)?;
            writeln!(text, "// hook: {} ({need}), {}", hook.name, AttachName(&attach_option.attach))?;
            if let Some(earlier) = &hook.fallback_for {
                writeln!(text, "// fallback for: {earlier}")?;
            }
            writeln!(text, "// kernel: {kernel}")?;
            writeln!(text, "// license: {}", object.license)?;
            writeln!(text, "// {} instructions, {} bytes, crc32 {crc:08x}", bytes.len() / 8, bytes.len())?;
            if form == Form::Hex {
                for slot in bytes.chunks(8) {
                    let hex: Vec<_> = slot.iter().map(|byte| format!("{byte:02x}")).collect();
                    writeln!(text, "{}", hex.join(" "))?;
                }
            } else {
                write!(text, "{}", attach_option.program.listing())?;
            }
            writeln!(text)
        };
        header().map_err(|error: io::Error| Failure::failed(error))
    }
}

/// CRC-32 as in zip and Ethernet. Bit by bit: programs are short, and a crate that is made for speed has 20 KB of tables.
fn crc32(bytes: &[u8]) -> u32 {
    let shifted = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shifted(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the catalogue of CRCs.
    #[test]
    fn fingerprints() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
    use crate::target::parse_target;
    use bpfasm::{Attach, Program, bpf};

    #[test]
    fn a_hook_that_stands_in_says_for_which() {
        let hook = |name: &'static str| {
            let program = Program::link(name, bpf! { r0 = 0; exit; }).expect("a program that links");
            let attach_option = ProgramDef { name: name.into(), attach: Attach::RawTp("x".into()), program };
            Hook::new(name, Need::Optional, vec![attach_option])
        };
        let hooks = vec![hook("first"), hook("second").fallback_for("first")];
        let (name, license) = ("t".into(), "GPL".into());
        let object = Object { name, license, hooks, maps: vec![], consts: vec![] };
        let kernel = Kernel { target: parse_target("6.1-x86_64-typed").expect("a target"), btf: None };
        let text = |form| String::from_utf8(kernel.render(&object, form).expect("a text")).expect("UTF-8");
        for form in [Form::Listing, Form::Hex] {
            let text = text(form);
            assert_eq!(text.lines().filter(|line| line.contains("fallback for")).count(), 1, "{text}");
            assert!(
                text.contains("// hook: second (optional), raw_tp x\n// fallback for: first\n// kernel: "),
                "{text}"
            );
        }
        let values: Vec<serde_json::Value> =
            text(Form::Json).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(values[0]["fallback_for"], serde_json::Value::Null);
        assert_eq!(values[1]["fallback_for"], "first");
    }
}
