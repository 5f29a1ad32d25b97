//! What a scrape costs with 10,000 endpoints: time on loopback, and memory.
//!
//! `cargo bench --bench scrape`. The peer is a server that sends as many bytes from a buffer it
//! holds ready, to the same reader: what is above its time is the cost of writing the text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark that panics has failed, and what it prints is its result"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use purgewatch::clock::Clock;
use purgewatch::engine::{AdminState, NodeSnapshot, Snapshot, TargetSnapshot};
use purgewatch::expose::{Limits, Metrics, Question, Readiness, Surface, bind, serve};
use purgewatch::model::{EndpointName, Mark, NodeName, OriginName, VariantName, Version};
use purgewatch::verdict::State;
use tokio::sync::mpsc;

const TARGETS: usize = 10_000;
const ROUNDS: usize = 30;
const LIMIT: Duration = Duration::from_millis(100);

fn main() {
    let clock = Clock::start();
    let snapshot = snapshot(clock);
    let address = serve_snapshots(clock, snapshot.clone());

    let bytes = fetch(address, "/metrics");
    let before = resident_kib();
    let ours = (0..ROUNDS).map(|_| timed(|| fetch(address, "/metrics"))).collect();
    let after = resident_kib();
    let peer = peer(bytes);
    let theirs = (0..ROUNDS).map(|_| timed(|| fetch(peer, "/"))).collect();

    let metrics = Metrics::new();
    let snapshot = Arc::new(snapshot);
    let written = (0..ROUNDS)
        .map(|_| {
            timed(|| {
                purgewatch::expose::scrape(Arc::clone(&snapshot), &metrics, 0)
                    .map(|b| b.len())
                    .sum()
            })
        })
        .collect();
    let (ours, theirs, written) = (median(ours), median(theirs), median(written));
    let samples = TARGETS * 19;
    println!("scrape of {TARGETS} endpoints: {samples} samples, {:.1} MB", bytes as f64 / 1e6);
    println!("  writing the text alone     {:>8.1} ms", millis(written));
    println!("  over loopback              {:>8.1} ms", millis(ours));
    println!("  as many bytes from a buffer{:>8.1} ms", millis(theirs));
    println!("  ratio                      {:>8.2}", ours.as_secs_f64() / theirs.as_secs_f64());
    println!("  resident before            {:>8.1} MiB", before as f64 / 1024.0);
    println!("  resident after {ROUNDS} scrapes  {:>8.1} MiB", after as f64 / 1024.0);
    println!("  peak                       {:>8.1} MiB", status_kib("VmHWM:") as f64 / 1024.0);
    assert!(ours < LIMIT, "a scrape takes {ours:?}, more than {LIMIT:?}");
}

fn snapshot(clock: Clock) -> Snapshot {
    let now = clock.now();
    let node = NodeName::new("cache-01").unwrap();
    let targets = (0..TARGETS)
        .map(|n| TargetSnapshot {
            endpoint: EndpointName::new(&format!("recommendations-{n:05}")).unwrap(),
            variant: VariantName::default(),
            node: node.clone(),
            max_stale: Duration::from_secs(60),
            state: if n % 100 == 0 { State::Stale } else { State::Fresh },
            since: now,
            staleness: Some(Duration::from_millis(if n % 100 == 0 { 61_234 } else { 0 })),
            age: Some(n as u64),
            last_probe: Some(now),
            last_fresh: Some(now),
            probes: [n as u64 * 7, 0, 0, 1, 2, 3, 4],
            node_version: Some(Version { status: 200, mark: Mark::Body([7; 32]) }),
            origin_version: Some(Version { status: 200, mark: Mark::Body([7; 32]) }),
            reason: None,
        })
        .collect();
    let admin = AdminState {
        up: Some(true),
        last_success: Some(now),
        failures: vec![("refused", 0), ("timeout", 0)],
        problem: None,
    };
    let nodes = vec![NodeSnapshot { node, admin: Some(admin) }];
    Snapshot { taken: now, targets, nodes, endpoints: TARGETS }
}

/// The product's listener on a thread of its own; each question is answered with a new snapshot.
fn serve_snapshots(clock: Clock, snapshot: Snapshot) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (questions, mut asked) = mpsc::channel(4);
            let metrics = Arc::new(Metrics::new());
            let nodes: Vec<_> = snapshot.nodes.iter().map(|n| n.node.clone()).collect();
            metrics.watch(&nodes, &[OriginName::new("rec-api").unwrap()]);
            let surface = Surface {
                metrics,
                questions,
                readiness: Readiness::starting(),
                clock,
                before_scrape: None,
            };
            let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let server =
                serve(listener, Arc::new(surface), Limits::default(), std::future::pending());
            let engine = async {
                while let Some(question) = asked.recv().await {
                    match question {
                        Question::Snapshot(reply) => drop(reply.send(snapshot.clone())),
                        Question::Alive(reply) => drop(reply.send(())),
                    }
                }
            };
            tokio::join!(server, engine);
        });
    });
    told.recv().unwrap()
}

/// A server that answers every connection with so many bytes from a buffer.
fn peer(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let ready = vec![b'x'; bytes];
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut buffer = [0; 1_024];
            while !head.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                head.extend_from_slice(&buffer[..read]);
            }
            let _ = stream.write_all(&ready);
        }
    });
    address
}

/// Reads an answer to its end, on a connection of its own; returns how long it was.
fn fetch(address: SocketAddr, path: &str) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return total,
            read => total += read,
        }
    }
}

fn timed(act: impl FnOnce() -> usize) -> Duration {
    let start = Instant::now();
    assert!(act() > 10_000_000, "an answer of that many endpoints is not that short");
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
