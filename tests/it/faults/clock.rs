//! The wall clock is stepped; the monotonic one is not.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{PATH, cacheable, config, faketime, never, stage, staleness};
use crate::support::daemon::Daemon;

const HOUR: f64 = 3_600.0;

/// How far the daemon's wall clock, by when it last probed, is from the real one.
fn offset(daemon: &Daemon) -> f64 {
    let name = "purgewatch_endpoint_last_probe_timestamp_seconds";
    let probed = daemon.metric(name, &["rec"]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    probed - now
}

/// What libfaketime needs to take the wall clock, and nothing else, `seconds` away.
fn clock_at(seconds: &str) -> Vec<(String, String)> {
    let library = faketime();
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME", seconds),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[test]
fn a_clock_set_back_while_it_is_down_makes_nothing_less_stale() {
    let (origin, varnishd) = stage();
    let mut daemon = Daemon::start(&config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    let before = staleness(&daemon).unwrap();
    assert!(daemon.stop().success());

    daemon.environment = clock_at("-3600");
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale", "from the first scrape on");
    let after = staleness(&daemon).unwrap();
    assert!((before..before + 60.0).contains(&after), "{after} after {before}");
    assert!(daemon.log().contains("the wall clock was set back"), "{}", daemon.log());
    daemon.wait("what is exported is by the wall clock", || {
        (-HOUR - 60.0..-HOUR + 5.0).contains(&offset(&daemon))
    });
    never(&daemon, &["fresh", "lagging", "unknown"], Duration::from_secs(2));

    // A second start finds nothing odd any more.
    let told = daemon.log().matches("was set back").count();
    assert!(daemon.stop().success());
    daemon.start_again();
    assert!(staleness(&daemon) >= Some(after));
    assert_eq!(daemon.log().matches("was set back").count(), told);
    varnishd.adm(&["ban", "req.url", "~", "."]);
    daemon.wait_for_state("rec", "fresh");
}

#[test]
fn a_clock_that_is_stepped_under_it_moves_nothing_that_is_measured() {
    let (origin, varnishd) = stage();
    let dir = tempfile::tempdir().unwrap();
    let stamp = dir.path().join("faketime");
    step(&stamp, 0);
    let library = faketime();
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", stamp.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut daemon = Daemon::start_within(&environment, &config(&origin, &varnishd));
    daemon.wait_for_state("rec", "fresh");

    // Back and forth, each by hours: no alarm, and probing goes on by the new time.
    for hours in [-1, 2, 0] {
        step(&stamp, hours);
        let offset = || offset(&daemon) - f64::from(hours) * HOUR;
        daemon.wait("it probes by the new time", || (-60.0..5.0).contains(&offset()));
        let others = ["lagging", "stale", "unverifiable", "cache_down", "origin_down"];
        never(&daemon, &others, Duration::from_secs(2));
        assert_eq!(staleness(&daemon), Some(0.0));
    }

    // An alarm comes when it is due and its staleness is that of the monotonic clock, whatever
    // the wall clock says.
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "lagging");
    step(&stamp, -1);
    daemon.wait_for_state("rec", "stale");
    let before = staleness(&daemon).unwrap();
    assert!((3.0..60.0).contains(&before), "{before}");
    step(&stamp, 1);
    let after = staleness(&daemon).unwrap();
    assert!((before..before + 60.0).contains(&after), "{after} after {before}");

    // What is stored follows the steps as well.
    std::thread::sleep(Duration::from_secs(2));
    let before = staleness(&daemon).unwrap();
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale");
    let after = staleness(&daemon).unwrap();
    assert!((before..before + 60.0).contains(&after), "{after} after {before}");
}

/// Sets the clock of whoever reads the file that many hours away, in one step.
fn step(stamp: &Path, hours: i32) {
    let new = stamp.with_extension("new");
    fs::write(&new, format!("{:+}\n", hours * 3_600)).unwrap();
    fs::rename(new, stamp).unwrap();
}
