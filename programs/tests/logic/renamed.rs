//! A kernel that calls a field by another name: what reads the field is refused there, by the name of the field and the line of
//! the source, and only there.

use bpfasm::{Access, Program, Ring, Symbol};
use btf::Btf;
use loader::relocate::RelocError;

use crate::links::every_kind;
use crate::specimens::{ALL, Specimen};
use crate::vm::kernel::{KERNELS, Kernel};

/// A kernel's BTF in which `name` is another. Strings are stored once, so whatever has that name has the other one then.
fn renamed(kernel: &Kernel, name: &str) -> Btf {
    let string = [&[0], name.as_bytes(), &[0]].concat();
    let mut bytes = kernel.bytes.to_vec();
    let at = bytes.windows(string.len()).rposition(|window| window == string).expect("a name of the BTF");
    bytes[at + 1] ^= 1;
    Btf::from_source(bytes).expect("as good as before")
}

/// Whether a program asks for this field, or one below it, with no way around it.
fn reads(program: &Program, path: &str) -> bool {
    program.symbols.iter().any(|(_, symbol)| match symbol {
        Symbol::Field { path: read, from: None, .. } | Symbol::Size(read) => read == path,
        _ => false,
    })
}

/// Renames one field of one kernel and looks at what every program of a tool makes of it.
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
                // Some field of that name is the first to be missed, not always this one.
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

/// As it is, each kernel takes every program ([`crate::links`] sees to that), so a refusal is the renamed field's.
#[test]
fn a_field_renamed_in_one_kernel_fails_there() {
    let newest = KERNELS.last().expect("fixtures");
    for specimen in ALL {
        for kernel in [Kernel::named("6.12-x86_64"), newest] {
            for path in specimen.fields.iter().filter(|path| path.contains('.')) {
                check(specimen, kernel, path);
            }
        }
    }
}
