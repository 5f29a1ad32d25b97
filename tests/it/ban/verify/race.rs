//! A fetch that is under way when a ban comes is not affected by it (varnish-cache issue 1420).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use super::{HOST, cacheable, check_proof, verify_with};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

/// How often the race is run each way.
const RACES: usize = 50;

/// How long the fetch takes that the ban runs into.
const SLOW: Duration = Duration::from_millis(1_500);

/// Serves `old` at once and for a second, then `old` slowly and for an hour, and `new` from then
/// on: the fetch that refreshes the object began when `old` was the truth.
fn race_at(origin: &Origin, path: &str) {
    let asked = AtomicUsize::new(0);
    origin.route(path, move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Response::ok("old").header("Cache-Control", "max-age=1"),
        1 => cacheable("old").after(SLOW),
        _ => cacheable("new"),
    });
}

/// Brings Varnish to refresh the object in the background, the slow fetch being under way.
fn start_race(origin: &Origin, varnishd: &Varnishd, path: &str) {
    assert!(varnishd.get(HOST, path).ends_with("old"));
    sleep(Duration::from_millis(1_200));
    // From grace.
    assert!(varnishd.get(HOST, path).ends_with("old"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while origin.hits(path) < 2 {
        assert!(Instant::now() < deadline, "no fetch in the background");
        sleep(Duration::from_millis(2));
    }
}

/// Runs `act` for each race, some at a time, and counts what it says yes to.
fn count(act: impl Fn(usize) -> bool + Sync) -> usize {
    let (next, yes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                loop {
                    let race = next.fetch_add(1, Ordering::SeqCst);
                    if race >= RACES {
                        return;
                    }
                    yes.fetch_add(usize::from(act(race)), Ordering::SeqCst);
                }
            });
        }
    });
    yes.into_inner()
}

#[test]
fn a_fetch_under_way_brings_back_old_content_and_is_banned_again() {
    let origin = Origin::start();
    let varnishd = Varnishd::in_front_of(origin.address);

    let left_old = count(|race| {
        let path = format!("/varnishadm/{race}");
        race_at(&origin, &path);
        start_race(&origin, &varnishd, &path);
        varnishd.adm(&["ban", "req.url", "==", &path]);
        sleep(SLOW);
        varnishd.get(HOST, &path).ends_with("old") && varnishd.get(HOST, &path).ends_with("old")
    });
    assert_eq!(left_old, RACES, "the race is there");

    let rounds = AtomicUsize::new(0);
    let proven = count(|race| {
        let path = format!("/purgewatch/{race}");
        race_at(&origin, &path);
        start_race(&origin, &varnishd, &path);
        let (url, node) = (format!("http://{HOST}{path}"), format!("http://{}", varnishd.http));
        let address = origin.address.to_string();
        let ban = format!("req.url == {path}");
        let proof = [
            &*ban,
            "--verify",
            &url,
            "--node-http",
            &node,
            "--origin",
            &address,
            "--output",
            "json",
        ];
        let output = crate::ban::ban(&varnishd, &proof, "");
        let proof = check_proof(&output, 0, "proven", "");
        let again = proof["rounds"].as_u64().unwrap() > 1;
        rounds.fetch_add(usize::from(again), Ordering::SeqCst);
        varnishd.get(HOST, &path).ends_with("new")
    });
    assert_eq!(proven, RACES);
    assert_eq!(rounds.into_inner(), RACES, "each of them needed a second ban");
}

/// An object that is not there yet: the look before the ban waits for the fetch under way.
#[test]
fn a_first_fetch_under_way_is_waited_for() {
    let origin = Origin::start();
    let asked = AtomicUsize::new(0);
    origin.route("/a", move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => cacheable("old").after(SLOW),
        _ => cacheable("new"),
    });
    let varnishd = Varnishd::in_front_of(origin.address);
    let output = scope(|scope| {
        scope.spawn(|| varnishd.get(HOST, "/a"));
        while origin.hits("/a") < 1 {
            sleep(Duration::from_millis(2));
        }
        verify_with(&origin, &varnishd, "req.url == /a", &["--output", "json"])
    });
    check_proof(&output, 0, "proven", "");
    assert!(varnishd.get(HOST, "/a").ends_with("new"));
}
