//! The canary against real varnishd processes: what is wrong shows within one interval, without
//! any content changing.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, purgewatch};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

const PATH: &str = "/api/";
const ICON: &str = "/favicon.ico";

/// From one round to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// How much later than after an interval a fault may be known: a round that has to wait for a
/// limit of a second, the time until the next scrape, and a busy machine.
const SLACK: Duration = Duration::from_millis(2_500);

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    origin.serve(ICON, cacheable("icon"));
    origin
}

/// The configuration of one node with this canary.
fn config(varnishd: &Varnishd, origin: SocketAddr, canary: &str) -> String {
    let keys = format!("admin_timeout = \"1s\"\ncanary = \"{canary}\"\ncanary_interval = \"1s\"\n");
    let peers = peers(varnishd, origin).replace("admin_timeout = \"1s\"\n", &keys);
    QUICK.to_owned() + &peers + &endpoint("rec", PATH, "")
}

fn up(daemon: &Daemon) -> Option<f64> {
    daemon.metric("purgewatch_canary_up", &["cache-01"])
}

fn last_proven(daemon: &Daemon) -> Option<f64> {
    daemon.metric("purgewatch_canary_last_proven_timestamp_seconds", &["cache-01"])
}

/// What the status document says is wrong with the canary.
fn problem(daemon: &Daemon) -> String {
    let (_, text) = daemon.get("/api/v1/status").unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    document["nodes"][0]["canary"]["problem"].as_str().unwrap_or_default().to_owned()
}

fn wait_until_up(daemon: &Daemon) {
    daemon.wait("the canary is proven", || up(daemon) == Some(1.0));
}

/// Waits for the failure to show, and returns how it is worded.
fn fails_in_time(daemon: &Daemon, since: Instant) -> String {
    daemon.wait("the canary has failed", || up(daemon) == Some(0.0));
    let after = since.elapsed();
    assert!(after <= INTERVAL + SLACK, "only after {after:?}: {}", daemon.log());
    problem(daemon)
}

fn count(daemon: &Daemon, name: &str, labels: &[&str]) -> f64 {
    daemon.metric(name, labels).unwrap_or(-1.0)
}

#[test]
fn a_healthy_node_is_proven_again_and_again() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = Daemon::start(&config(&varnishd, origin.address, ICON));
    wait_until_up(&daemon);
    let first = last_proven(&daemon).unwrap();
    daemon.wait("it is proven once more", || last_proven(&daemon) > Some(first + 0.5));
    let accepted = ["source=\"canary\"", "result=\"accepted\""];
    let bans = count(&daemon, "purgewatch_bans_total", &accepted);
    let proofs = count(&daemon, "purgewatch_ban_proofs_total", &["result=\"replaced\""]);
    assert!(bans >= 2.0 && proofs >= 2.0, "{bans} {proofs}");
    assert_eq!(count(&daemon, "purgewatch_ban_proofs_total", &["result=\"survived\""]), 0.0);
    // One fetch from the origin a round, and the first one.
    let hits = origin.hits(ICON);
    let bans = count(&daemon, "purgewatch_bans_total", &accepted);
    assert!(f64::from(u32::try_from(hits).unwrap()) <= bans + 2.0, "{hits} for {bans} bans");
    // It is that object alone that is banned.
    let ban = r"req.http.host ~ (?i)^rec\.example\.com(:80)?\z && req.url == /favicon.ico";
    assert!(varnishd.bans().iter().all(|seen| seen == ban), "{:?}", varnishd.bans());
    assert_eq!(problem(&daemon), "");
}

#[test]
fn a_blocked_admin_port_shows() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let filter = Filter::start(varnishd.admin);
    let config = config(&varnishd, origin.address, ICON).replace(
        &format!("admin = \"{}\"", varnishd.admin),
        &format!("admin = \"{}\"", filter.address),
    );
    let daemon = Daemon::start(&config);
    wait_until_up(&daemon);
    filter.block();
    let text = fails_in_time(&daemon, Instant::now());
    assert!(text.contains("waiting for the greeting"), "{text}");
    daemon.wait("the log says it", || daemon.log().contains("bans do not work at cache-01"));
    filter.open();
    wait_until_up(&daemon);
}

/// An origin that cannot deliver the canary says nothing about bans: neither that they work nor
/// that they do not.
#[test]
fn an_origin_that_fails_is_no_failure_of_bans() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = Daemon::start(&config(&varnishd, origin.address, ICON));
    wait_until_up(&daemon);
    origin.serve(ICON, Response::status(503));
    daemon.wait("that it cannot be told", || up(&daemon).is_none());
    assert!(problem(&daemon).contains("its origin cannot deliver the canary"));
    let proven = last_proven(&daemon).unwrap();
    std::thread::sleep(INTERVAL * 3);
    // Give or take what the wall clock is rounded by.
    assert!(last_proven(&daemon).unwrap() - proven < 0.1);
    assert_eq!(up(&daemon), None);
    origin.serve(ICON, cacheable("icon"));
    wait_until_up(&daemon);
    let log = daemon.log();
    assert!(!log.contains("bans do not work"), "{log}");
    assert_eq!(log.matches("cannot be told").count(), 1, "{log}");
}

/// All is fresh, the admin port answers, and bans match nothing: that must not look well.
#[test]
fn status_tells_of_a_canary_that_failed() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = Daemon::start(&config(&varnishd, origin.address, ICON));
    wait_until_up(&daemon);
    daemon.wait_for_state("rec", "fresh");
    let config = daemon.config();
    let status = || purgewatch(&["status", "-c", config.to_str().unwrap()]);
    let (output, table) =
        (status(), |output: std::process::Output| String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(0));
    assert!(table(output).contains("proven"));
    origin.serve(ICON, Response::ok("icon").header("Cache-Control", "no-store"));
    varnishd.adm(&["ban", "req.url", "==", ICON]);
    fails_in_time(&daemon, Instant::now());
    let output = status();
    assert_eq!(output.status.code(), Some(1), "a failed canary is no success");
    let text = table(output);
    for said in ["failed", "bans do not work at cache-01: ", "1 fresh, 1 canary failed"] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    origin.serve(ICON, cacheable("icon"));
    wait_until_up(&daemon);
}

#[test]
fn a_rotated_secret_shows_in_the_words_of_the_admin_check() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let ours = varnishd.dir().join("ours");
    fs::copy(varnishd.secret_file(), &ours).unwrap();
    let config = config(&varnishd, origin.address, ICON)
        .replace(varnishd.secret_file().to_str().unwrap(), ours.to_str().unwrap());
    let daemon = Daemon::start(&config);
    wait_until_up(&daemon);
    let old = fs::read(varnishd.secret_file()).unwrap();
    fs::write(varnishd.secret_file(), b"another one\n").unwrap();
    let text = fails_in_time(&daemon, Instant::now());
    let admin = || {
        let (_, text) = daemon.get("/api/v1/status").unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        document["nodes"][0]["admin"]["problem"].as_str().unwrap_or_default().to_owned()
    };
    daemon.wait("the admin check fails as well", || !admin().is_empty());
    assert_eq!(text, admin());
    assert!(text.contains("secret") && !text.contains("another one"), "{text}");
    let refused = ["source=\"canary\"", "result=\"unauthenticated\""];
    assert!(count(&daemon, "purgewatch_bans_total", &refused) >= 1.0);
    fs::write(varnishd.secret_file(), old).unwrap();
    wait_until_up(&daemon);
}

#[test]
fn a_cache_process_that_hangs_or_is_stopped_shows() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = Daemon::start(&config(&varnishd, origin.address, ICON));
    wait_until_up(&daemon);
    let pid = worker(&varnishd);
    signal(&pid, "STOP");
    let text = fails_in_time(&daemon, Instant::now());
    signal(&pid, "CONT");
    assert!(text.contains("the node: timed out"), "{text}");
    wait_until_up(&daemon);

    varnishd.adm(&["stop"]);
    let text = fails_in_time(&daemon, Instant::now());
    assert!(text.contains("the node: the connection was refused"), "{text}");
    varnishd.adm(&["start"]);
    wait_until_up(&daemon);
}

/// The pid of the cache process.
fn worker(varnishd: &Varnishd) -> String {
    let text = varnishd.adm(&["pid"]);
    let line = text.lines().find(|line| line.starts_with("Worker")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
}

#[test]
fn a_vcl_that_stopped_caching_shows() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = Daemon::start(&config(&varnishd, origin.address, ICON));
    wait_until_up(&daemon);
    let backend = backend(origin.address);
    use_vcl(&varnishd, "nocache", &format!("{backend} sub vcl_recv {{ return (pass); }}"));
    let text = fails_in_time(&daemon, Instant::now());
    assert!(text.contains("status 200 and never a hit"), "{text}");
    use_vcl(&varnishd, "caches", &backend);
    wait_until_up(&daemon);
}

#[test]
fn a_ban_that_is_taken_and_has_no_effect_shows() {
    let origin = origin();
    // The VCL makes one host of all, and bans look for the one that was asked for.
    let rewrite = "sub vcl_recv { set req.http.host = \"one\"; }";
    let vcl = Some(format!("{} {rewrite}", backend(origin.address)));
    let varnishd = Varnishd::start(Options { vcl, ..Options::default() });
    let daemon = Daemon::start(&config(&varnishd, origin.address, ICON));
    let text = fails_in_time(&daemon, Instant::now());
    assert!(text.starts_with("the ban was taken and had no effect"), "{text}");
    assert!(count(&daemon, "purgewatch_ban_proofs_total", &["result=\"survived\""]) >= 1.0);
    assert_eq!(last_proven(&daemon), None, "no sample where nothing was ever proven");
    // As it should be.
    use_vcl(&varnishd, "plain", &backend(origin.address));
    wait_until_up(&daemon);
}

#[test]
fn the_object_of_the_daemon_itself_is_proven_by_the_vcl_that_is_printed() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = Daemon::start(&config(&varnishd, origin.address, "self"));
    // Without the VCL its path leads to the origin, which does not know it.
    let text = fails_in_time(&daemon, Instant::now());
    assert!(text.contains("/.well-known/purgewatch-canary/cache-01"), "{text}");
    assert!(text.contains("purgewatch config example --vcl"), "{text}");

    let printed = printed_vcl(daemon.http);
    // A site that caches nothing, and turns away whom it does not know.
    let own = "sub vcl_recv { return (synth(403)); } sub vcl_backend_response { \
               set beresp.ttl = 0s; set beresp.uncacheable = true; return (deliver); }";
    let vcl = format!("{}\n{printed}\n{own}", backend(origin.address));
    use_vcl(&varnishd, "canary", &vcl);
    // What was cached under its path before has no header that the canary's ban could go by.
    varnishd.adm(&["ban", "obj.status", "==", "404"]);
    wait_until_up(&daemon);
    let proven = || count(&daemon, "purgewatch_ban_proofs_total", &["result=\"proven\""]);
    let before = proven();
    daemon.wait("its content is proven", || proven() > before);
    let path = "/.well-known/purgewatch-canary/cache-01";
    let one = varnishd.get("rec.example.com", path);
    assert!(one.contains("x-purgewatch-canary: cache-01"), "{one}");
    assert!(one.contains("purgewatch canary\nnode cache-01\nround "), "{one}");
    let body = |answer: &str| answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
    daemon.wait("its body is another one", || {
        body(&varnishd.get("rec.example.com", path)) != body(&one)
    });
    assert!(varnishd.get("rec.example.com", &format!("{path}?x")).contains("403"));
    let bans = varnishd.bans();
    let known = ["obj.http.x-purgewatch-canary == cache-01", "obj.status == 404"];
    assert!(bans.iter().all(|ban| known.contains(&ban.as_str())), "{bans:?}");
    assert_eq!(daemon.get("/canary/cache-01").unwrap().0, 200);
    assert_eq!(daemon.get("/canary/cache-02").unwrap().0, 404);
    assert_eq!(count(&daemon, "purgewatch_ban_proofs_total", &["result=\"survived\""]), 0.0);

    // The header that the ban goes by is lost.
    let vcl = vcl.replace(
        "set beresp.keep = 0s;",
        "set beresp.keep = 0s; unset beresp.http.x-purgewatch-canary;",
    );
    use_vcl(&varnishd, "lost", &vcl);
    varnishd.adm(&["ban", "req.url", "~", "."]);
    let text = fails_in_time(&daemon, Instant::now());
    assert!(text.contains("does the VCL remove the header x-purgewatch-canary"), "{text}");
}

/// The same VCL is taken by itself, with `vcl 4.0` and `vcl 4.1`.
#[test]
fn the_vcl_is_right_for_each_version_of_the_language() {
    let varnishd = Varnishd::start(Options::default());
    let printed = printed_vcl("192.0.2.1:8080".parse().unwrap());
    for version in ["4.0", "4.1"] {
        let file = varnishd.dir().join("include.vcl");
        fs::write(&file, format!("vcl {version};\n{printed}")).unwrap();
        let name = format!("v{}", version.replace('.', ""));
        varnishd.adm(&["vcl.load", &name, file.to_str().unwrap()]);
    }
}

fn printed_vcl(daemon: SocketAddr) -> String {
    let address = daemon.to_string();
    let output = purgewatch(&["config", "example", "--vcl", "--daemon", &address]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_reload_keeps_what_is_known_of_a_canary_that_did_not_change() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let slow = config(&varnishd, origin.address, ICON)
        .replace("canary_interval = \"1s\"", "canary_interval = \"1h\"");
    let daemon = Daemon::start(&slow);
    wait_until_up(&daemon);
    let proven = last_proven(&daemon);
    varnishd.adm(&["stop"]);
    daemon.reload(&(slow.clone() + &endpoint("further", ICON, "")));
    daemon.wait("it was read again", || daemon.metric("purgewatch_endpoints", &[]) == Some(2.0));
    // The wall clock moves against the daemon's own by a millisecond now and then.
    let kept = last_proven(&daemon).unwrap() - proven.unwrap();
    assert!(kept.abs() < 0.1, "kept");
    varnishd.adm(&["start"]);
    // One that is taken out has no series any more.
    let without = slow
        .replace(&format!("canary = \"{ICON}\"\n"), "")
        .replace("canary_interval = \"1h\"\n", "");
    daemon.reload(&without);
    daemon.wait("its series are gone", || up(&daemon).is_none() && last_proven(&daemon).is_none());
}

fn backend(address: SocketAddr) -> String {
    let (host, port) = (address.ip(), address.port());
    format!("backend default {{ .host = \"{host}\"; .port = \"{port}\"; }}")
}

fn use_vcl(varnishd: &Varnishd, name: &str, vcl: &str) {
    let file = varnishd.dir().join(format!("{name}.vcl"));
    fs::write(&file, format!("vcl 4.1;\n{vcl}\n")).unwrap();
    varnishd.adm(&["vcl.load", name, file.to_str().unwrap()]);
    varnishd.adm(&["vcl.use", name]);
}

/// A packet filter on the way to an admin port: what goes through it can be stopped, connections
/// that are open included. What is stopped gets no answer.
struct Filter {
    address: SocketAddr,
    is_open: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Filter {
    fn start(target: SocketAddr) -> Self {
        use std::io::{Read as _, Write as _};
        use std::net::{TcpListener, TcpStream};
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_open = Arc::new(AtomicBool::new(true));
        let open = Arc::clone(&is_open);
        // Its threads end with the test's process, which waits for nobody.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let open = Arc::clone(&open);
                std::thread::spawn(move || {
                    while !open.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    let Ok(server) = TcpStream::connect(target) else { return };
                    let pass = |mut from: TcpStream, mut to: TcpStream, open: Arc<AtomicBool>| {
                        let mut buffer = [0; 4_096];
                        while let Ok(size @ 1..) = from.read(&mut buffer) {
                            while !open.load(Ordering::Relaxed) {
                                std::thread::sleep(Duration::from_millis(20));
                            }
                            if to.write_all(&buffer[..size]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    };
                    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let gate = Arc::clone(&open);
                    std::thread::spawn(move || pass(from, to, gate));
                    pass(server, client, open);
                });
            }
        });
        Self { address, is_open }
    }

    fn block(&self) {
        self.is_open.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    fn open(&self) {
        self.is_open.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
