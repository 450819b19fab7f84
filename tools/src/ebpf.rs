//! `--ebpf`: prints the programs as they would be loaded.
//!
//! Kernel fields have their numbers from the running kernel's BTF, or from `--btf FILE`. For a
//! kernel that is only described by `--target`, they have their names. Maps always have their
//! names: they get numbers only while a tool runs.

use std::io::{self, Write};

use bpfasm::elf;
use bpfasm::object::{Hook, Need, Object, ProgramDef};
use bpfasm::target::{Access, Target};
use btf::Btf;
use loader::{AttachName, LoadError, RelocError, relocate};
use serde_json::json;

use crate::cli::command::of_tool;
use crate::cli::form::Form;
use crate::cli::settings::{EbpfOptions, Settings};
use crate::cli::target::target_words;
use crate::failure::Failure;
use crate::host::attach_points::ATTACH_POINTS;
use crate::tool::{Plan, Tool};
use crate::tools::TOOLS;

/// Prints the programs of one tool with the options of its plan.
pub fn print_tool(
    tool: &Tool,
    plan: &Plan,
    options: &EbpfOptions,
    access: Option<Access>,
) -> Result<(), Failure> {
    let kernel = Kernel::find(options, access)?;
    let object = kernel.object(tool.name, plan)?;
    print(&kernel.render(&object, options.form)?)
}

/// Prints the programs of all tools with their default options.
pub fn print_all(options: &EbpfOptions) -> Result<(), Failure> {
    if options.form == Form::Elf {
        return Err(Failure::Usage("an ELF file holds one tool: tcptools TOOL --ebpf=elf".to_owned()));
    }
    let kernel = Kernel::find(options, None)?;
    let mut text = Vec::new();
    for tool in TOOLS {
        let defaults = of_tool(tool).get_matches_from([tool.name]);
        let plan = (tool.plan)(&defaults, &Settings::read(&defaults))?;
        let object = kernel.object(tool.name, &plan)?;
        text.extend(kernel.render(&object, options.form)?);
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
    fn find(options: &EbpfOptions, access: Option<Access>) -> Result<Self, Failure> {
        let btf = options.btf.as_deref();
        if let Some(target) = options.target.clone() {
            let btf = btf.map(Btf::open).transpose().map_err(LoadError::from).map_err(Failure::failed)?;
            return Ok(Self { target, btf });
        }
        let btf = loader::kernel_btf(btf).map_err(Failure::failed)?;
        let mut target = loader::probe(&btf, &ATTACH_POINTS).map_err(Failure::failed)?;
        target.access = access.unwrap_or(target.access);
        Ok(Self { target, btf: Some(btf) })
    }

    /// The tool's object for this kernel, with every number that is known.
    fn object(&self, name: &str, plan: &Plan) -> Result<Object, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{name}: {error}"));
        let mut object = (plan.object)(&self.target).map_err(|error| failed(&error))?;
        if let Some(btf) = &self.btf {
            let index =
                btf.index(&loader::wanted(&object)).map_err(|error| failed(&LoadError::from(error)))?;
            for hook in &mut object.hooks {
                for attach_option in std::mem::take(&mut hook.attach_options) {
                    match relocate(&attach_option.program, &index, &object.consts) {
                        Ok(program) => hook.attach_options.push(ProgramDef { program, ..attach_option }),
                        // This kernel lacks a field that this attach option reads. The loader would
                        // skip it, too.
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
        let crc = crc32fast::hash(&bytes);
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

#[cfg(test)]
mod tests {
    use bpfasm::{Attach, Program, bpf};

    use super::*;
    use crate::cli::target::parse_target;

    #[test]
    fn a_fallback_says_for_which_hook() {
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
