//! What a scrape costs with 10,000 endpoints, on loopback, in a daemon that does nothing else.
//!
//! The peer is a server that sends as many bytes from a buffer it
//! holds ready, to the same reader: what is above its time is the cost of writing the text. The
//! benchmark `daemon` scrapes one that probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::support::buffer::{self, fetch};
use super::support::ratio::{Pairs, Target};
use purgewatch::clock::Clock;
use purgewatch::engine::{AdminState, NodeSnapshot, ServiceLevel, Snapshot, TargetSnapshot};
use purgewatch::expose::{
    CanaryBoard, Limits, Metrics, Question, Readiness, Surface, bind, scrape, serve,
};
use purgewatch::model::{EndpointName, Mark, NodeName, OriginName, VariantName, Version};
use purgewatch::verdict::cause::OriginChange;
use purgewatch::verdict::{Explanation, State};
use tokio::sync::mpsc;

const TARGETS: usize = 10_000;
const ROUNDS: usize = 30;

pub(super) fn run() {
    let clock = Clock::start();
    let snapshot = snapshot(clock);
    let address = serve_snapshots(clock, snapshot.clone());
    let bytes = fetch(address, "/metrics");
    let peer = buffer::serve(bytes);
    let metrics = Metrics::new();
    let snapshot = Arc::new(snapshot);

    let [mut served, mut written] = <[Pairs; 2]>::default();
    for _ in 0..ROUNDS {
        let ours = millis(|| fetch(address, "/metrics"));
        let theirs = millis(|| fetch(peer, "/"));
        served.push(ours, theirs);
        let writing = || scrape(Arc::clone(&snapshot), &metrics, 0).map(|piece| piece.len()).sum();
        written.push(millis(writing), theirs);
    }
    println!(
        "an answer for {TARGETS} endpoints has {} samples, {:.1} MB",
        TARGETS * 19,
        bytes as f64 / 1e6
    );
    let target = Target::AtMost(100.0);
    served.line("scrape beside as many bytes from a buffer", " ms", target).print();
    written.line("writing its text alone", " ms", Target::None).print();
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
            node_version: Some(Version {
                status: 200,
                mark: Mark::Body([u8::try_from(n % 256).unwrap_or(0); 32]),
            }),
            origin_version: Some(Version {
                status: 200,
                mark: Mark::Body([u8::try_from(n % 256).unwrap_or(0); 32]),
            }),
            reason: None,
            remedy: None,
            change: OriginChange::default(),
            cause: (n % 100 == 0).then(|| Arc::new(Explanation::undetermined("no admin port"))),
        })
        .collect();
    let admin = AdminState {
        up: Some(true),
        last_success: Some(now),
        failures: vec![("refused", 0), ("timeout", 0)],
        problem: None,
    };
    let nodes = vec![NodeSnapshot {
        node,
        admin: Some(admin),
        canary: None,
        pending_bans: 0,
        level: ServiceLevel::default(),
    }];
    Snapshot { taken: now, targets, nodes, pointers: Vec::new(), endpoints: TARGETS }
}

/// The product's listener on a thread of its own; each question is answered with a new snapshot.
fn serve_snapshots(clock: Clock, snapshot: Snapshot) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (questions, mut asked) = mpsc::channel(4);
            let metrics = Arc::new(Metrics::new());
            let nodes: Vec<_> = snapshot.nodes.iter().map(|n| n.node.clone()).collect();
            metrics.watch(&nodes, &[OriginName::new("rec-api").unwrap()]);
            let surface = Surface {
                canaries: CanaryBoard::default(),
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
                        Question::Issue(..) | Question::Bans(..) => {}
                    }
                }
            };
            tokio::join!(server, engine);
        });
    });
    told.recv().unwrap()
}

/// How long it takes to get an answer of the expected size, in milliseconds.
fn millis(act: impl FnOnce() -> usize) -> f64 {
    let start = Instant::now();
    assert!(act() > 10_000_000, "an answer of that many endpoints is not that short");
    start.elapsed().as_secs_f64() * 1_000.0
}
