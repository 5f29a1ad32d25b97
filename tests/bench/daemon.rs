//! The daemon with 10,000 endpoints at 30 s on one node: memory, punctuality, scrapes, CPU time.
//!
//! The built daemon fetches from a real varnishd and from nginx. After the first round of every
//! endpoint it is watched for two stretches of time: in the first it only probes, in the second it
//! is scraped once a second. Takes a minute and a half.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::support::blackbox::Blackbox;
use super::support::buffer;
use super::support::cost::{cpu_of, peak_resident, resident};
use super::support::daemon::{Daemon, peers, sample};
use super::support::nginx::Nginx;
use super::support::ratio::{Line, Pairs, Target, worst};
use super::support::varnish::{self, Varnishd};
use super::support::wrk;

const ENDPOINTS: usize = 10_000;
const BODY_SIZE: usize = 11 * 1_024;
const INTERVAL: Duration = Duration::from_secs(30);
const PROBING: Duration = Duration::from_secs(20);
const SCRAPES: usize = 20;
const HOST: &str = "rec.example.com";
/// Probes that the peers make at a time.
const AT_ONCE: usize = 8;

pub(super) fn run() {
    let dir = tempfile::Builder::new().prefix("pw-bench-").tempdir().unwrap();
    let origin = Nginx::start(dir.path(), BODY_SIZE);
    let varnishd = Varnishd::start(varnish::Options {
        backend: Some(origin.address),
        // Holds all objects: what is evicted would be fetched again, which is not what is measured.
        storage: "malloc,512m",
        arguments: vec!["-p".into(), "default_ttl=3600".into()],
        ..varnish::Options::default()
    });
    let mut daemon = Daemon::start(&config(&peers(&varnishd, origin.address)));

    std::thread::sleep(INTERVAL + Duration::from_secs(5));
    let fresh = daemon.metrics().lines().filter(|line| is_fresh(line)).count();
    assert_eq!(
        fresh,
        ENDPOINTS,
        "after its first round every endpoint is fresh:\n{}",
        daemon.log()
    );

    let waker = Waker::start();
    let start = Reading::take(&daemon);
    std::thread::sleep(PROBING);
    let probed = Reading::take(&daemon);
    let buffer = buffer::serve(daemon.metrics().len());
    let mut scrapes = Pairs::default();
    for _ in 0..SCRAPES {
        let next = Instant::now() + Duration::from_secs(1);
        let ours = millis(|| buffer::fetch(daemon.http, "/metrics"));
        scrapes.push(ours, millis(|| buffer::fetch(buffer, "/")));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let end = Reading::take(&daemon);
    let punctual_wakes = waker.stop();
    let memory = (resident(daemon.pid()), peak_resident(daemon.pid()));
    assert!(daemon.stop().success(), "{}", daemon.log());

    let url = format!("http://{}/api/v1/recommendations/00000", varnishd.http);
    let (requests, wrk_cpu) = wrk::run(&url, HOST, AT_ONCE, Duration::from_secs(5));
    let blackbox = Blackbox::start(dir.path());
    let (probes, blackbox_cpu) = blackbox.run(&url, AT_ONCE, Duration::from_secs(5));
    let peer_memory = (resident(blackbox.pid()), peak_resident(blackbox.pid()));

    let (probing, scraped) = (start.until(&probed), probed.until(&end));
    println!(
        "{ENDPOINTS} endpoints: {:.0} fetches a second, {:.1} % of one CPU; with a scrape each second {:.1} %",
        probing.fetches / probing.wall.as_secs_f64(),
        100.0 * probing.cpu.as_secs_f64() / probing.wall.as_secs_f64(),
        100.0 * scraped.cpu.as_secs_f64() / scraped.wall.as_secs_f64(),
    );
    // The peer of the memory is the exporter with its handful of probes at a time.
    let target = || Target::AtMost(96.0);
    Line::new("resident", " MiB", memory.0, peer_memory.0, target()).print();
    Line::new("most that was ever resident", " MiB", memory.1, peer_memory.1, target()).print();

    let target = || Target::AtLeast(99.0);
    for (name, stretch) in [("", &probing), (", scraped each second", &scraped)] {
        let name = format!("rounds begun within 50 ms of when due{name}");
        Line::new(&name, " %", stretch.punctual_rounds(), punctual_wakes, target()).print();
    }
    scrapes.line("scrape beside as many bytes from a buffer", " ms", Target::AtMost(100.0)).print();
    let (ours, theirs) = (worst(&scrapes.ours), worst(&scrapes.peer));
    Line::new("slowest scrape", " ms", ours, theirs, Target::AtMost(100.0)).print();

    // No targets here: a daemon's time a fetch, at hundreds a second, is schedule, verdicts and
    // timers too. What fetching as such costs is measured by `probe`.
    let ours = micros(probing.cpu, probing.fetches);
    let name = "CPU time of a fetch, all that the daemon does, beside wrk's request";
    Line::new(name, " µs", ours, micros(wrk_cpu, requests as f64), Target::None).print();
    let name =
        "CPU time of a fetch, all that the daemon does, beside the blackbox exporter's probe";
    let theirs = micros(blackbox_cpu, probes as f64);
    Line::new(name, " µs", ours, theirs, Target::None).print();
}

fn config(peers: &str) -> String {
    let mut config = format!("[defaults]\ninterval = \"{}s\"\n{peers}", INTERVAL.as_secs());
    for n in 0..ENDPOINTS {
        writeln!(
            config,
            "[[endpoint]]\nname = \"recommendations-{n:05}\"\n\
             url = \"http://{HOST}/api/v1/recommendations/{n:05}\"\norigin = \"origin\""
        )
        .unwrap();
    }
    config
}

fn is_fresh(line: &str) -> bool {
    line.starts_with("purgewatch_endpoint_state{") && line.ends_with("state=\"fresh\"} 1")
}

/// What the daemon has done so far.
struct Reading {
    at: Instant,
    cpu: Duration,
    /// Fetches that were begun.
    fetches: f64,
    /// Those of them that began within 50 ms.
    punctual: f64,
}

/// What it did between two readings.
struct Stretch {
    wall: Duration,
    cpu: Duration,
    fetches: f64,
    late: f64,
}

impl Reading {
    fn take(daemon: &Daemon) -> Self {
        let metrics = daemon.metrics();
        let delay = |name: &str, labels: &[&str]| {
            let name = format!("purgewatch_probe_delay_seconds_{name}");
            sample(&metrics, &name, labels).expect("the daemon tells how late it is")
        };
        Self {
            at: Instant::now(),
            cpu: cpu_of(daemon.pid()),
            fetches: delay("count", &[]),
            punctual: delay("bucket", &["le=\"0.05\""]),
        }
    }

    fn until(&self, later: &Self) -> Stretch {
        let fetches = later.fetches - self.fetches;
        Stretch {
            wall: later.at - self.at,
            cpu: later.cpu - self.cpu,
            fetches,
            late: fetches - (later.punctual - self.punctual),
        }
    }
}

impl Stretch {
    /// The share of rounds that began within 50 ms, in percent. A round begins with a fetch from
    /// the origin, which has a time of its own at which it is due; the one from the node follows
    /// it, and is late by definition hardly ever: it is not counted.
    fn punctual_rounds(&self) -> f64 {
        100.0 * (1.0 - self.late / (self.fetches / 2.0))
    }
}

/// A thread that only sleeps: how often it wakes within 50 ms tells what this machine allows.
struct Waker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Waker {
    fn start() -> Self {
        const STEP: Duration = Duration::from_millis(10);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut wakes, mut punctual) = (0_u32, 0_u32);
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                due += STEP;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                wakes += 1;
                punctual += u32::from(due.elapsed() <= Duration::from_millis(50));
            }
            100.0 * f64::from(punctual) / f64::from(wakes)
        });
        Self { stop, thread }
    }

    fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn micros(time: Duration, count: f64) -> f64 {
    time.as_secs_f64() * 1e6 / count
}

fn millis(act: impl FnOnce() -> usize) -> f64 {
    let start = Instant::now();
    assert!(act() > 1_000_000, "an answer of that many endpoints is not that short");
    start.elapsed().as_secs_f64() * 1_000.0
}
