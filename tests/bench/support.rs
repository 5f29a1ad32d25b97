//! What the benchmarks share: servers of their own, what processes cost, and how a result is told.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses some of it")]

#[path = "../it/support/daemon.rs"]
pub mod daemon;
#[path = "../it/support/fleet.rs"]
pub mod fleet;
#[path = "../it/support/redis.rs"]
pub mod redis;
#[path = "../it/support/varnish.rs"]
pub mod varnish;
#[path = "../it/support/witness.rs"]
pub mod witness;

pub mod blackbox;
pub mod buffer;
pub mod cli;
pub mod cost;
pub mod fetch;
pub mod nginx;
pub mod ratio;
pub mod wrk;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Builds the program anew, as it is installed.
///
/// `cargo bench` builds it together with what tests depend on: then its regexes have Unicode
/// tables, which one of these wants and the program does not, and a start takes a tenth longer.
pub fn build_what_ships() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--locked", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    // Both are built to the same place.
    let target = std::path::Path::new(daemon::PURGEWATCH).ancestors().nth(2).unwrap();
    assert!(build.arg("--target-dir").arg(target).status().unwrap().success(), "{build:?}");
}

/// Waits until something listens there.
pub fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
