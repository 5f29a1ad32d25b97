//! `purgewatch adm ping` as a whole process beside `varnishadm ping`, in turn and against the same
//! varnishd, with address and secret given and with its work directory; and 400 bans through a
//! pipe, which varnishadm does not all send.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::support::cost::millis;
use super::support::daemon::PURGEWATCH;
use super::support::ratio::{Pairs, Target};
use super::support::varnish::{self, Varnishd};

/// Commands, in pairs.
const PAIRS: usize = 300;

pub(super) fn run() {
    let varnishd = Varnishd::start(varnish::Options::default());
    // As installed: see the benchmark of bans.
    let program = varnishd.dir().join("purgewatch");
    fs::copy(PURGEWATCH, &program).unwrap();
    let admin = varnishd.admin.to_string();
    let secret = varnishd.secret_file().to_str().unwrap();
    let workdir = varnishd.workdir();
    compare("adm ping with -T and -S", &program, &["-T", &admin, "-S", secret]);
    compare("adm ping with -n", &program, &["-n", workdir.to_str().unwrap()]);
}

fn compare(name: &str, program: &PathBuf, target: &[&str]) {
    let ours = || {
        let mut command = Command::new(program);
        command.arg("adm").args(target).arg("ping");
        command
    };
    let theirs = || {
        let mut command = Command::new("varnishadm");
        command.args(target).arg("ping");
        command
    };
    // Brings both programs into the page cache.
    let _ = (millis(ours()), millis(theirs()));
    let mut pairs = Pairs::default();
    for _ in 0..PAIRS {
        let first = millis(ours());
        pairs.push(first, millis(theirs()));
    }
    pairs.line(&format!("{name}, whole process"), " ms", Target::RatioAtMost(1.0)).print();
}
