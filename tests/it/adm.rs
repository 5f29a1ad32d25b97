//! `purgewatch adm` beside varnishadm, each on a varnishd of its own, and where varnishadm is at
//! fault.

mod drop_in;
mod faults;
mod many;
mod pipe;
mod prompt;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::varnish::Varnishd;

/// A program with no surroundings but those given.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in
        ["PURGEWATCH_ADMIN", "PURGEWATCH_SECRET_FILE", "VARNISH_DEFAULT_N", "POSIXLY_CORRECT"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ours() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_purgewatch"))
}

/// Runs `purgewatch adm` on one node.
fn adm(varnishd: &Varnishd, arguments: &[&str], input: &[u8]) -> Output {
    let admin = varnishd.admin.to_string();
    let mut command = command(ours());
    command.args(["adm", "-T", &admin, "-S"]).arg(varnishd.secret_file()).args(arguments);
    let mut process = command.spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let input = input.to_vec();
    // Answers come while it is being fed.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = process.wait_with_output().unwrap();
    feeding.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Status, stdout and stderr at once, so that a failure shows them all.
fn ended(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
