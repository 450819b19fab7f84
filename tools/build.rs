//! Makes the release binary smaller. A debug build keeps its backtraces. Only with the linker that
//! rustc brings on this target: other linkers lack `--icf`, and their start files need what is
//! discarded.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=discard.ld");
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_ARCH", "x86_64")
    {
        let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{folder}/discard.ld");
        // Keeps one of several equal functions.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
