//! The daemon is killed again and again while events flow and varnishd's cache process restarts.
//!
//! Who tells is not the daemon: a relay in front of the admin port writes down each ban that
//! varnishd took, and Redis itself when an entry was acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, endpoint, peers};
use crate::support::origin::{Origin, Response};
use crate::support::redis::{PASSWORD, Redis};
use crate::support::varnish::Varnishd;
use crate::support::witness::{AckWitness, BanWitness, RedisLine};

const ROUNDS: usize = 100;

/// Each so many rounds the cache process of varnishd is stopped and started.
const RESTART: usize = 8;

/// What was started last may take so long to end.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the seed repeats a run that failed, and the counts are the result"
)]
fn no_event_is_lost_and_none_acknowledged_before_the_node_took_it() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let origin = Origin::start();
    origin.serve("/", Response::ok("one").header("Cache-Control", "max-age=3600"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let bans = BanWitness::open(varnishd.admin);
    let redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "no"]);
    let acks = AckWitness::of(redis.port, PASSWORD);
    let place = tempfile::tempdir().unwrap();
    let password = place.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let nodes = peers(&varnishd, origin.address)
        .replace(&varnishd.admin.to_string(), &bans.address.to_string());
    let config = format!(
        "{QUICK}{nodes}{}[redis]\nurl = \"redis://127.0.0.1:{}\"\npassword_file = \"{}\"\n\
         name = \"host-1\"\n[[subscription]]\nstream = \"inv\"\n",
        endpoint("e", "/", ""),
        redis.port,
        password.display(),
    );
    let mut daemon = Daemon::start(&config);
    daemon.wait("the stream is followed", || {
        daemon.metric("purgewatch_subscription_up", &[]) == Some(1.0)
    });

    let ended = AtomicBool::new(false);
    let added = thread::scope(|scope| {
        let sender = scope.spawn(|| send(redis.port, seed, &ended));
        for round in 0..ROUNDS {
            thread::sleep(Duration::from_millis(random.u64(5..500)));
            if round % RESTART == RESTART - 1 {
                varnishd.adm(&["stop"]);
                thread::sleep(Duration::from_millis(random.u64(0..100)));
                varnishd.adm(&["start"]);
                thread::sleep(Duration::from_millis(random.u64(0..200)));
            }
            daemon.kill();
            daemon.launch_again();
        }
        ended.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });

    let begin = Instant::now();
    let last = added.keys().max_by_key(|id| order(id)).unwrap();
    loop {
        let groups = redis.cli(&["XINFO", "GROUPS", "inv"]);
        let of = |key: &str| groups.lines().skip_while(|line| *line != key).nth(1);
        if of("pending") == Some("0") && of("last-delivered-id") == Some(last) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "unfinished: {groups}\n{}", daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
    let (taken, acknowledged) = (bans.taken(), acks.acknowledged());
    let lost: Vec<_> = added.values().filter(|ban| !taken.contains_key(*ban)).collect();
    let early: Vec<_> = added
        .iter()
        .filter_map(|(id, ban)| Some((id, ban, acknowledged.get(id)?, taken.get(ban)?[0])))
        .filter(|(_, _, acknowledged, taken)| *acknowledged < taken)
        .collect();
    let deliveries: usize = added.values().filter_map(|ban| taken.get(ban)).map(Vec::len).sum();
    println!(
        "{ROUNDS} rounds, {} events, {deliveries} deliveries ({} more than once), {} lost, {} \
         acknowledged early",
        added.len(),
        added.values().filter(|ban| taken.get(*ban).is_some_and(|times| times.len() > 1)).count(),
        lost.len(),
        early.len()
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert!(early.is_empty(), "{early:?}");
    assert_eq!(added.keys().filter(|id| !acknowledged.contains_key(*id)).count(), 0);
    assert_eq!(redis.cli(&["XLEN", "inv:set-aside"]), "0");
    assert!(added.len() > 1_000, "{} events", added.len());
}

/// Adds events until the end, some at a time: the bans by their ids.
fn send(port: u16, seed: u64, ended: &AtomicBool) -> BTreeMap<String, String> {
    let mut random = fastrand::Rng::with_seed(!seed);
    let mut redis = RedisLine::open(port, PASSWORD);
    let (mut added, mut number) = (BTreeMap::new(), 0);
    while !ended.load(Ordering::Relaxed) {
        let burst = if random.u8(..) < 8 { 100 } else { random.u64(1..4) };
        for _ in 0..burst {
            number += 1;
            let ban = format!("obj.http.x-event == {number}");
            added.insert(redis.add("inv", &ban), ban);
        }
        thread::sleep(Duration::from_millis(random.u64(1..20)));
    }
    added
}

/// Where an id stands in the stream.
fn order(id: &str) -> (u64, u64) {
    let (time, count) = id.split_once('-').unwrap();
    (time.parse().unwrap(), count.parse().unwrap())
}
