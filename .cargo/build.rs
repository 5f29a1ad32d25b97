//! How the program is linked. A command is a process of its own, and to start it is most of what
//! it costs: about 14,000 pointers have to be relocated before `main`, and each further library
//! has to be found, mapped and bound.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.cargo/build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    // Relocations as bitmaps, a tenth of the size: glibc 2.36 and later read them (Debian 12),
    // and GNU ld 2.38 and later and LLD write them.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // The unwinder within the program, where the compiler brings it in that form.
    if env::var("HOST") == env::var("TARGET") && has_static_unwinder() {
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}

fn has_static_unwinder() -> bool {
    // cc(1) answers with the bare name when it has no such file.
    let output = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    output
        .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
}
