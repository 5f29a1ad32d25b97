//! `purgewatch ban` as a whole process beside `varnishadm ban`, and 10,000 bans from stdin beside
//! a bare loop over a socket, each pair against the same varnishd and in turn.
//!
//! `ban --verify` stands beside `ban`: it adds two fetches.
//!
//! The peak of memory is measured by GNU time. The program is
//! measured as one that was installed: copied, not as the linker left it. A file that was written
//! in one go, as by a package manager, is cached in larger pieces, and maps a tenth quicker.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::support::cli::Cli;
use super::support::cost::millis;
use super::support::daemon::PURGEWATCH;
use super::support::ratio::{Line, Pairs, Target, median};
use super::support::varnish::{self, Varnishd};
use purgewatch::admin;

/// Single bans, in pairs.
const PAIRS: usize = 300;
/// Bans in a batch.
const BATCH: usize = 10_000;
/// Batches, in pairs.
const BATCHES: usize = 15;

pub(super) fn run() {
    let varnishd = Varnishd::start(varnish::Options::default());
    let program = varnishd.dir().join("purgewatch");
    fs::copy(PURGEWATCH, &program).unwrap();
    let bench = Bench { program, varnishd };
    bench.one_ban("a ban on a value", &["obj.http.x-url", "==", "/products/1"]);
    bench.one_ban("a ban on a regex", &["obj.http.x-url", "~", "^/products/[0-9]+$"]);
    bench.batch();
    verified();
}

/// One ban with its proof beside the ban alone: two fetches more, of a small object.
fn verified() {
    let vcl = "backend none none;
        sub vcl_backend_error {
            set beresp.status = 200; set beresp.ttl = 1h; set beresp.http.x-url = bereq.url;
            synthetic(\"0123456789\"); return (deliver);
        }";
    let options = varnish::Options { vcl: Some(vcl.to_owned()), ..varnish::Options::default() };
    let varnishd = Varnishd::start(options);
    let program = varnishd.dir().join("purgewatch");
    fs::copy(PURGEWATCH, &program).unwrap();
    assert!(varnishd.get("www.example.com", "/a").starts_with("HTTP/1.1 200"));
    let bench = Bench { program, varnishd };
    let ban = ["obj.http.x-url", "==", "/a"];
    let node = format!("http://{}", bench.varnishd.http);
    let alone = || {
        let mut command = bench.purgewatch();
        command.args(ban);
        command
    };
    let proven = || {
        let mut command = alone();
        command.args(["--verify", "http://www.example.com/a", "--node-http", &node]);
        command
    };
    let output = proven().output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(": replaced: "), "{output:?}");
    let mut pairs = Pairs::default();
    let mut more = Vec::new();
    for _ in 0..PAIRS {
        // What was not cached would be fetched once more.
        bench.varnishd.get("www.example.com", "/a");
        let (proven, alone) = (millis(proven()), millis(alone()));
        pairs.push(proven, alone);
        more.push(proven - alone);
    }
    pairs.line("a ban with proof beside the ban, whole process", " ms", Target::None).print();
    let name = "what proof adds to a ban";
    Line::new(name, " ms", median(more), median(pairs.peer.clone()), Target::AtMost(5.0)).print();
    let (ours, theirs) = (peak_memory(&proven()), peak_memory(&alone()));
    let name = "a ban with proof, most memory";
    Line::new(name, " MiB", ours, theirs, Target::AtMost(16.0)).print();
}

/// The program, and the varnishd that is given the bans.
struct Bench {
    program: PathBuf,
    varnishd: Varnishd,
}

impl Bench {
    /// One ban, from the start of the process to its end.
    fn one_ban(&self, name: &str, ban: &[&str]) {
        let ours = || {
            let mut command = self.purgewatch();
            command.args(ban);
            command
        };
        let theirs = || {
            let mut command = Command::new("varnishadm");
            command.args(self.target()).arg("ban").args(ban);
            command
        };
        // Brings both programs into the page cache.
        let _ = (millis(ours()), millis(theirs()));

        let before = self.bans_added();
        let mut pairs = Pairs::default();
        for _ in 0..PAIRS {
            let first = millis(ours());
            pairs.push(first, millis(theirs()));
        }
        assert_eq!(self.bans_added() - before, 2 * PAIRS, "each of them is a ban");
        pairs.line(&format!("{name}, whole process"), " ms", Target::RatioAtMost(1.0)).print();
        let (ours, theirs) = (peak_memory(&ours()), peak_memory(&theirs()));
        let name = format!("{name}, most memory");
        Line::new(&name, " MiB", ours, theirs, Target::AtMost(16.0)).print();
    }

    /// 10,000 bans, with as many under way in the loops as in the program.
    fn batch(&self) {
        let bans: Vec<String> =
            (0..BATCH).map(|n| format!("obj.http.x-url == /products/{n}")).collect();
        let file = self.varnishd.dir().join("bans");
        fs::write(&file, bans.join("\n") + "\n").unwrap();
        let window = admin::Options::default().window;

        let mut pairs = Pairs::default();
        for _ in 0..BATCHES {
            let ours = self.rate(|| self.ban_from_stdin(&file));
            let bare = || {
                Cli::open(self.varnishd.admin, self.varnishd.secret_file()).ban_all(&bans, window);
            };
            pairs.push(ours, self.rate(bare));
        }
        let name = format!("{BATCH} bans from stdin beside a bare loop");
        pairs.line(&name, " a second", Target::RatioAtLeast(0.9)).print();
    }

    /// How many bans a second somebody makes who makes all of them.
    fn rate(&self, act: impl FnOnce()) -> f64 {
        let before = self.bans_added();
        let begin = Instant::now();
        act();
        let time = begin.elapsed();
        assert_eq!(self.bans_added() - before, BATCH, "varnishd counts each");
        BATCH as f64 / time.as_secs_f64()
    }

    /// Has the program ban what stands in `file`, a ban a line.
    fn ban_from_stdin(&self, file: &Path) {
        let output = self
            .purgewatch()
            .args(["--file", "-", "--output", "json"])
            .stdin(fs::File::open(file).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["nodes"][0]["taken"], BATCH, "{said}");
    }

    fn purgewatch(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("ban").args(self.target());
        command
    }

    fn target(&self) -> [String; 4] {
        let secret = self.varnishd.secret_file().to_str().unwrap();
        ["-T", &self.varnishd.admin.to_string(), "-S", secret].map(str::to_owned)
    }

    /// How many bans this varnishd was ever given, as it counts them itself.
    fn bans_added(&self) -> usize {
        let output = Command::new("varnishstat")
            .arg("-n")
            .arg(self.varnishd.workdir())
            .args(["-1", "-f", "MAIN.bans_added"])
            .output()
            .expect("varnishstat runs: apt-get install varnish");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect(&text)
    }
}

/// The most memory that a process ever has resident, in MiB.
fn peak_memory(command: &Command) -> f64 {
    let mut time = Command::new("time");
    time.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    let output = time
        .stdin(Stdio::null())
        .env_remove(OsStr::new("TIME"))
        .output()
        .expect("GNU time runs: apt-get install time");
    let text = String::from_utf8(output.stderr).unwrap();
    let kib: u32 = text.trim().parse().expect(&text);
    f64::from(kib) / 1_024.0
}
