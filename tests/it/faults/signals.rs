//! Signals at bad moments.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::{PATH, admin_up, cacheable, config, never, run, stage, staleness};
use crate::support::daemon::{Daemon, endpoint, peers};
use crate::support::origin::{Request, Response, Step};

#[test]
fn a_storm_of_reloads_loses_nothing() {
    let (origin, varnishd) = stage();
    let daemon = Daemon::start(&config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    let before = staleness(&daemon).unwrap();
    let reloads = || daemon.log().matches("was read again").count();

    let storm = format!("for i in $(seq 100); do kill -HUP {}; done", daemon.pid());
    run("bash", &["-c", &storm]);
    daemon.wait("it was read again", || reloads() >= 1);
    assert_eq!(daemon.state("rec"), "stale", "{}", daemon.log());
    assert!(staleness(&daemon) >= Some(before));
    // One signal after the other, none of which merges with the one before.
    for _ in 0..20 {
        let before = reloads();
        daemon.signal("HUP");
        daemon.wait("it was read once more", || reloads() > before);
    }
    never(&daemon, &["unknown", "fresh", "lagging"], Duration::from_secs(1));
    varnishd.adm(&["ban", "req.url", "~", "."]);
    daemon.wait_for_state("rec", "fresh");
    assert!(daemon.metric("process_open_fds", &[]).is_some_and(|open| open < 60.0));
}

/// What hangs when a reload comes is let go: it neither keeps the connections busy that the next
/// fetches need, nor does its outcome count for the new configuration.
#[test]
fn a_reload_lets_go_of_what_hangs() {
    let (origin, varnishd) = stage();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = "[defaults]\ninterval = \"30s\"\ntimeout = \"30s\"\nmax_stale = \"3s\"\n";
    let good = slow.to_owned()
        + &peers(&varnishd, origin.address)
            .replace("admin_timeout = \"1s\"", "admin_timeout = \"6s\"")
            .replace("max_rate = 1000", "max_rate = 1000\nconnections = 3")
        + &endpoint("rec", PATH, "");
    let blocked =
        good.replace(&varnishd.admin.to_string(), &silent.local_addr().unwrap().to_string());
    origin.serve(PATH, Response::script([Step::Hang]));
    let daemon = Daemon::start(&blocked);
    // As many as there may be connections at a time, and more: each hangs on one of its own.
    for round in 1..=6 {
        daemon.wait("the origin is asked", || origin.hits(PATH) >= round.min(3));
        daemon.signal("HUP");
        let reloads = || daemon.log().matches("was read again").count();
        daemon.wait("it was read again", || reloads() >= round);
    }
    origin.serve(PATH, cacheable("one"));
    let began = Instant::now();
    daemon.reload(&good);
    daemon.wait_for_state("rec", "fresh");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    // The check that hung at the old address would end in these seconds.
    daemon.wait("the admin port is up", || admin_up(&daemon) == Some(1.0));
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end {
        assert_eq!(admin_up(&daemon), Some(1.0), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn sigterm_at_any_moment_of_the_start_ends_it_and_loses_no_alarm() {
    let (origin, varnishd) = stage();
    let mut daemon = Daemon::start(&config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    let before = staleness(&daemon).unwrap();
    assert!(daemon.stop().success());
    for step in 0..25 {
        daemon.launch_again();
        std::thread::sleep(Duration::from_millis(step * 4));
        let status = daemon.stop();
        // Before it listens to signals, a signal ends it as it ends any program: systemd takes
        // both for a clean end.
        assert!(status.success() || status.signal() == Some(15), "{status}: {}", daemon.log());
    }
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale", "{}", daemon.log());
    assert!(staleness(&daemon) >= Some(before));
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// A paused virtual machine, a host that swaps: what was not looked at has not happened. The
/// origin's answer is under way when it begins, and is of before, as is its timeout.
#[test]
fn a_daemon_that_stood_still_raises_no_false_alarm() {
    let (origin, varnishd) = stage();
    let slow = |body: &'static str| {
        move |request: &Request| match request.header("x-varnish") {
            Some(_) => cacheable(body),
            None => cacheable(body).after(Duration::from_millis(300)),
        }
    };
    let asked = || {
        let requests = origin.requests();
        requests.iter().filter(|request| request.header("x-varnish").is_none()).count()
    };
    origin.route(PATH, slow("one"));
    let daemon = Daemon::start(&config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");
    for deployment in [false, true] {
        let before = asked();
        let deadline = Instant::now() + Duration::from_secs(20);
        while asked() == before {
            assert!(Instant::now() < deadline, "the origin is asked no more");
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.signal("STOP");
        if deployment {
            // One whose purge works.
            origin.route(PATH, slow("two"));
            varnishd.adm(&["ban", "req.url", "~", "."]);
        }
        std::thread::sleep(Duration::from_secs(5));
        daemon.signal("CONT");
        let others = ["lagging", "stale", "unverifiable", "cache_down", "origin_down"];
        never(&daemon, &others, Duration::from_secs(4));
        daemon.wait_for_state("rec", "fresh");
    }
    let log = daemon.log();
    assert!(!log.contains("is stale") && !log.contains("_down"), "{log}");
}
