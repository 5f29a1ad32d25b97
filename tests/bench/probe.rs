//! What a fetch costs: CPU time beside wrk's and the blackbox exporter's, against the same
//! varnishd in the same run.
//!
//! Our fetches go to the node and to its origin in turn, as the watchdog's do, on a runtime of one
//! thread, which is what it has; each body is hashed, and the two are compared. Rounds alternate,
//! so that what else the machine does hits all, and the median of the rounds' ratios counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::support::blackbox::Blackbox;
use super::support::cost::own_cpu;
use super::support::fetch::{destination, request};
use super::support::nginx::Nginx;
use super::support::ratio::{Pairs, Target};
use super::support::varnish::{self, Varnishd};
use super::support::wrk;
use tokio::task::JoinSet;

const BODY_SIZE: usize = 11 * 1_024;
const CONCURRENCY: usize = 8;
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
const HOST: &str = "bench.example.com";

pub(super) fn run() {
    let dir = tempfile::Builder::new().prefix("pw-bench-").tempdir().unwrap();
    let origin = Nginx::start(dir.path(), BODY_SIZE);
    let varnishd = Varnishd::start(varnish::Options {
        backend: Some(origin.address),
        arguments: vec!["-p".into(), "default_ttl=3600".into()],
        ..varnish::Options::default()
    });
    let blackbox = Blackbox::start(dir.path());
    let url = format!("http://{}/body", varnishd.http);
    let sides = [varnishd.http, origin.address];

    // Fills the cache, and everybody's own.
    fetch_and_compare(sides, Duration::from_millis(200));

    let [mut to_wrk, mut to_blackbox] = <[Pairs; 2]>::default();
    for _ in 0..ROUNDS {
        let ours = rate(fetch_and_compare(sides, ROUND));
        to_wrk.push(ours, rate(wrk::run(&url, HOST, CONCURRENCY, ROUND)));
        to_blackbox.push(ours, rate(blackbox.run(&url, CONCURRENCY, ROUND)));
    }
    let unit = " per second of CPU";
    to_wrk.line("fetches beside wrk's requests", unit, Target::RatioAtLeast(0.5)).print();
    let name = "fetches beside the blackbox exporter's probes";
    to_blackbox.line(name, unit, Target::RatioAtLeast(10.0)).print();
}

/// So many for each second of CPU time.
fn rate((fetches, cpu): (usize, Duration)) -> f64 {
    fetches as f64 / cpu.as_secs_f64()
}

/// Fetches from both sides in turn, and compares what they serve. Returns how often, and the CPU
/// time that it took.
fn fetch_and_compare(sides: [SocketAddr; 2], time: Duration) -> (usize, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sides = Arc::new(sides.map(destination));
    let request = request(&format!("http://{HOST}/body"));
    let begin = Instant::now();
    let cpu_before = own_cpu();
    let fetches: usize = runtime.block_on(async {
        let mut workers = JoinSet::new();
        for _ in 0..CONCURRENCY {
            let (sides, request) = (Arc::clone(&sides), request.clone());
            workers.spawn(async move {
                let [node, origin] = &*sides;
                let mut fetches = 0;
                while begin.elapsed() < time {
                    let truth = origin.fetch(&request).await;
                    let served = node.fetch(&request).await;
                    let truth = truth.version().expect("the origin answers");
                    assert_eq!(served.version().expect("the node answers"), truth);
                    fetches += 2;
                }
                fetches
            });
        }
        workers.join_all().await.into_iter().sum()
    });
    (fetches, own_cpu().saturating_sub(cpu_before))
}
