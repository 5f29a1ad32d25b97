//! Build script: links the unwinder into the program.
//!
//! As a shared library (libgcc_s) it takes a tenth of the time of a whole `purgewatch ban`: it is
//! one more file to map, and its constructor asks the processor for every feature it has, which is
//! slow on a virtual machine.

#[expect(clippy::print_stdout, reason = "that is how a build script speaks to cargo")]
fn main() {
    println!("cargo::rerun-if-changed=.cargo/link.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
