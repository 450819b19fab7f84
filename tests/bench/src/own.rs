//! Helpers for the BPF programs that the benchmark itself loads.

use bpfasm::object::{Attach, Hook, MapDef, Need, Object, ProgramDef};
use bpfasm::{Fragment, Program};
use loader::{Loaded, Loader};

use crate::fault::{During, Result};

/// A required hook with one program.
pub fn hook(name: &'static str, attach: Attach, code: Fragment) -> Result<Hook> {
    let program = Program::link(name, code).during("assemble")?;
    Ok(Hook::new(name, Need::Required, vec![ProgramDef { name: name.into(), attach, program }]))
}

/// An object with these hooks and maps.
pub fn object(name: &'static str, hooks: Vec<Hook>, maps: Vec<MapDef>) -> Object {
    Object { name: name.into(), license: "GPL".into(), hooks, maps, consts: vec![] }
}

/// Loads an object without attaching it.
pub fn load(object: &Object) -> Result<Loaded> {
    let btf = loader::kernel_btf(None).during("BTF")?;
    Loader::new(&btf).load(object).during(&object.name)
}
