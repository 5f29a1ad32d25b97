//! What goes wrong around a running daemon, end to end: real varnishd processes, real signals, a
//! real disk, a clock that steps.

mod clock;
mod origins;
mod signals;
mod systemd;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, sample};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

const PATH: &str = "/api/";

/// An origin whose `/api/` may be cached for an hour, and a varnishd in front of it.
fn stage() -> (Origin, Varnishd) {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    (origin, varnishd)
}

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

/// A configuration that watches `/api/` as the endpoint `rec`.
fn config(origin: &Origin, varnishd: &Varnishd) -> String {
    QUICK.to_owned() + &peers(varnishd, origin.address) + &endpoint("rec", PATH, "")
}

fn staleness(daemon: &Daemon) -> Option<f64> {
    daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"])
}

fn admin_up(daemon: &Daemon) -> Option<f64> {
    daemon.metric("purgewatch_node_admin_up", &["cache-01"])
}

/// `rec` is in none of these states for so long, with a look every 100 ms.
fn never(daemon: &Daemon, states: &[&str], span: Duration) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        let state = daemon.state("rec");
        assert!(!states.contains(&state.as_str()), "{state}: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The manager answers on the admin port and the cache process does not run: nothing is served, and
/// no ban is taken. Two facts, both shown.
#[test]
fn a_stopped_cache_process_is_down_and_takes_no_bans() {
    let (origin, varnishd) = stage();
    let daemon = Daemon::start(&config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");
    daemon.wait("the admin port is up", || admin_up(&daemon) == Some(1.0));

    varnishd.adm(&["stop"]);
    daemon.wait_for_state("rec", "cache_down");
    daemon.wait("no bans can be taken", || admin_up(&daemon) == Some(0.0));
    let log = daemon.log();
    assert!(log.contains("the cache process is not running (its state: stopped)"), "{log}");
    assert_eq!(staleness(&daemon), None, "unknown is neither fresh nor stale");

    // It comes back empty, and so with what the origin serves by now.
    origin.serve(PATH, cacheable("two"));
    varnishd.adm(&["start"]);
    daemon.wait_for_state("rec", "fresh");
    daemon.wait("bans can be taken again", || admin_up(&daemon) == Some(1.0));
    assert!(!daemon.log().contains("is stale"), "{}", daemon.log());
}

#[test]
fn of_two_nodes_the_one_that_missed_the_purge_is_stale() {
    let (origin, first) = stage();
    let second = Varnishd::in_front_of(origin.address);
    let other = peers(&second, origin.address).replace("cache-01", "cache-02");
    let (other, _) = other.split_once("[[origin]]").unwrap();
    let daemon = Daemon::start(&(config(&origin, &first) + other));
    let state = |node: &str, state: &str| {
        let labels = [&format!("node=\"{node}\""), &format!("state=\"{state}\"")];
        let labels = labels.map(String::as_str);
        daemon.metric("purgewatch_endpoint_state", &labels) == Some(1.0)
    };
    let both = |a: &str, b: &str| state("cache-01", a) && state("cache-02", b);
    daemon.wait("both are fresh", || both("fresh", "fresh"));

    origin.serve(PATH, cacheable("two"));
    second.adm(&["ban", "req.url", "~", "."]);
    daemon.wait("the first is stale, the second fresh", || both("stale", "fresh"));
    let log = daemon.log();
    assert!(log.contains("rec at cache-01 is stale"), "{log}");
    assert!(!log.contains("rec at cache-02 is stale"), "{log}");
    let staleness = |node: &str| {
        let node = format!("node=\"{node}\"");
        daemon.metric("purgewatch_endpoint_staleness_seconds", &[&node])
    };
    assert_eq!(staleness("cache-02"), Some(0.0));
    assert!(staleness("cache-01") >= Some(3.0));
    // The origin is asked once a round, not once a node: a stale node costs one question more.
    let asked = origin.requests().iter().filter(|r| r.header("x-varnish").is_none()).count();
    let probes = |node: &str| {
        let metrics = daemon.metrics();
        let node = format!("node=\"{node}\"");
        let ok = "result=\"ok\"";
        sample(&metrics, "purgewatch_probes_total", &[&node, ok]).unwrap()
    };
    let rounds = probes("cache-01").max(probes("cache-02"));
    assert!(asked as f64 <= 2.0 * rounds + 2.0, "{asked} questions in {rounds} rounds");

    first.adm(&["ban", "req.url", "~", "."]);
    daemon.wait("both are fresh again", || both("fresh", "fresh"));
}

/// How the state directory is made to take nothing more.
enum Shortage {
    /// No file of the daemon may grow: what a full disk looks like to a user without rights, and
    /// the daemon's log is hit by it as well.
    SizeLimit,
    /// A small file system that is filled to the last byte. Needs root.
    FullDisk(Tmpfs),
}

impl Shortage {
    fn begin(&self, daemon: &Daemon) {
        match self {
            Self::SizeLimit => limit_size(daemon, "0"),
            Self::FullDisk(disk) => disk.fill_up(),
        }
    }

    fn end(&self, daemon: &Daemon) {
        match self {
            Self::SizeLimit => limit_size(daemon, "unlimited"),
            Self::FullDisk(disk) => fs::remove_file(disk.ballast()).unwrap(),
        }
    }
}

#[test]
fn without_room_for_its_state_it_watches_on_and_stores_it_later() {
    let (origin, varnishd) = stage();
    let mut daemon = Daemon::start(&config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");
    survives(&Shortage::SizeLimit, &origin, &varnishd, &mut daemon);

    // For an ordinary user that is all: nobody but root can mount a disk to be filled.
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let disk = Tmpfs::mount();
    daemon.stop();
    fs::remove_dir_all(daemon.state_dir()).unwrap();
    std::os::unix::fs::symlink(disk.dir.path(), daemon.state_dir()).unwrap();
    daemon.start_again();
    let shortage = Shortage::FullDisk(disk);
    survives(&shortage, &origin, &varnishd, &mut daemon);

    // The disk is full from the start on: what it holds is known all the same.
    let before = staleness(&daemon).unwrap();
    shortage.begin(&daemon);
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale");
    assert!(staleness(&daemon) >= Some(before));
    let log = daemon.log();
    assert!(log.contains("nothing can be stored") && log.contains("no space is left"), "{log}");
}

/// Nothing can be stored for a while, in which an alarm begins: it is raised, and it is there
/// after a kill.
fn survives(shortage: &Shortage, origin: &Origin, varnishd: &Varnishd, daemon: &mut Daemon) {
    origin.serve(PATH, cacheable("one"));
    varnishd.adm(&["ban", "req.url", "~", "."]);
    varnishd.get("rec.example.com", PATH);
    daemon.wait_for_state("rec", "fresh");
    daemon.wait("what is known is stored", || stored(daemon));

    shortage.begin(daemon);
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    let up = || daemon.metric("purgewatch_store_up", &[]);
    daemon.wait("it is known that nothing is stored", || up() == Some(0.0));
    let waiting = || daemon.metric("purgewatch_store_pending_records", &[]);
    assert!(waiting() >= Some(1.0));

    shortage.end(daemon);
    daemon.wait("it is stored later", || up() == Some(1.0) && stored(daemon));
    let before = staleness(daemon).unwrap();
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale", "{}", daemon.log());
    assert!(staleness(daemon) >= Some(before));
}

fn stored(daemon: &Daemon) -> bool {
    daemon.metric("purgewatch_store_pending_records", &[]) == Some(0.0)
}

/// The largest size that the daemon can give a file from now on.
fn limit_size(daemon: &Daemon, limit: &str) {
    let limit = format!("--fsize={limit}:unlimited");
    run("prlimit", &["--pid", &daemon.pid().to_string(), &limit]);
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", dir.path().to_str().unwrap()]);
        Self { dir }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    fn fill_up(&self) {
        let mut file = fs::File::create(self.ballast()).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.dir.path().to_str().unwrap()]).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// The library that gives a process another clock.
fn faketime() -> PathBuf {
    let libraries = Path::new("/usr/lib");
    let place = "faketime/libfaketimeMT.so.1";
    let folders = fs::read_dir(libraries).unwrap().map(|entry| entry.unwrap().path());
    let mut found = folders.map(|folder| folder.join(place)).filter(|path| path.exists());
    found.next().expect("libfaketime is there: apt-get install faketime")
}
