//! Programs of the benchmark's own.

use bpfasm::object::{Attach, Hook, MapDef, Need, Object, ProgramDef};
use bpfasm::{Fragment, Program};
use loader::{Loaded, Loader};

use crate::fault::{During, Result};

/// A hook that is needed, and its only program.
pub fn hook(name: &'static str, attach: Attach, code: Fragment) -> Result<Hook> {
    let program = Program::link(name, code).during("assemble")?;
    Ok(Hook::new(name, Need::Required, vec![ProgramDef { name: name.into(), attach, program }]))
}

/// Such hooks and their maps, as what they are there for.
pub fn object(name: &'static str, hooks: Vec<Hook>, maps: Vec<MapDef>) -> Object {
    Object { name: name.into(), license: "GPL".into(), hooks, maps, consts: vec![] }
}

/// Loads them, and attaches none.
pub fn load(object: &Object) -> Result<Loaded> {
    let btf = loader::kernel_btf(None).during("BTF")?;
    Loader::new(&btf).load(object).during(&object.name)
}
