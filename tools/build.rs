//! Makes the file to be copied to hosts smaller. Only that one: a debug build keeps its backtraces. And only with the linker
//! that rustc brings on this target: others know no `--icf`, and their start files want what is discarded.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=discard.ld");
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_ARCH", "x86_64")
    {
        let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{folder}/discard.ld");
        // Equal functions once.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
