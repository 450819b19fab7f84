//! A kernel in which a field has another name: programs that read the field are refused there, with
//! the name of the field and the line of the source, and only there.

use bpfasm::{Access, Program, Ring, Symbol};
use btf::Btf;
use loader::relocate::RelocError;

use crate::complete::{Extent, Sweep};
use crate::links::every_kind;
use crate::specimens::{ALL, Specimen};
use crate::vm::kernel::{KERNELS, Kernel};

/// A kernel's BTF in which `name` is another. Strings are stored once, so whatever has that name
/// has the other one then.
fn renamed(kernel: &Kernel, name: &str) -> Btf {
    let string = [&[0], name.as_bytes(), &[0]].concat();
    let mut bytes = kernel.bytes.to_vec();
    let at = bytes.windows(string.len()).rposition(|window| window == string).expect("a name of the BTF");
    bytes[at + 1] ^= 1;
    Btf::from_source(bytes).expect("as good as before")
}

/// Whether a program needs this field, or one below it, unconditionally.
fn reads(program: &Program, path: &str) -> bool {
    program.symbols.iter().any(|(_, symbol)| match symbol {
        Symbol::Field { path: read, from: None, .. } | Symbol::Size(read) => read == path,
        _ => false,
    })
}

/// Renames one field of one kernel, and checks every program of a tool that reads it.
fn check(specimen: &Specimen, kernel: &Kernel, path: &str) {
    let name = path.rsplit('.').next().expect("a path");
    let btf = renamed(kernel, name);
    let index = btf.index(&kernel.wanted).expect("as good as before");
    let mut refused = 0;
    for target in [Access::Typed, Access::Probed].map(|access| kernel.target(access, Ring::RingBuf)) {
        for object in (specimen.every)(&every_kind(), &target, 4096) {
            for def in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
                if !reads(&def.program, path) {
                    continue;
                }
                // Several fields may have that name; any of them may be the first that is missing.
                let error =
                    loader::relocate(&def.program, &index, &object.consts).expect_err("the field is gone");
                assert!(matches!(error, RelocError::Absent { .. }), "{error:?}");
                let place = error.place().expect("written in a file");
                let text = error.to_string();
                assert!(text.contains(name), "{name} in {text}");
                assert!(text.starts_with(&format!("{}:{}: ", place.file, place.line)), "{text}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "{}: no program reads {path}", specimen.name);
}

/// Renames fields that each tool's programs read, in two kernels. Unchanged, each kernel takes
/// every program ([`crate::links`] checks that), so what is refused is the renamed field.
fn a_renamed_field_is_refused(extent: Extent) {
    let newest = KERNELS.last().expect("fixtures");
    for specimen in ALL {
        let paths: Vec<_> = specimen.fields.iter().filter(|path| path.contains('.')).collect();
        let (kernels, step) = match extent {
            Extent::Sample => (vec![newest], paths.len() / 2),
            Extent::Complete => (vec![Kernel::named("6.12-x86_64"), newest], 1),
        };
        for kernel in kernels {
            for path in paths.iter().step_by(step) {
                check(specimen, kernel, path);
            }
        }
    }
}

pub const SWEEPS: &[Sweep] = &[("a renamed field is refused", a_renamed_field_is_refused)];

#[test]
fn a_field_renamed_in_one_kernel_is_refused_there() {
    a_renamed_field_is_refused(Extent::Sample);
}
