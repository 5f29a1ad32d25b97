//! Many events, and a server or a node that is away while they come.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Stage, until};

/// How long the server is gone.
const MINUTE: Duration = Duration::from_secs(60);

/// What `redis-cli XINFO GROUPS` says of the one group.
fn of_group(stage: &Stage, key: &str) -> Option<String> {
    let groups = stage.redis.cli(&["XINFO", "GROUPS", "inv"]);
    groups.lines().skip_while(|line| *line != key).nth(1).map(str::to_owned)
}

#[test]
fn ten_thousand_events_at_once_are_all_taken_in_order() {
    let stage = Stage::of_stream("");
    let lines: String =
        (0..10_000).map(|n| format!("XADD inv * ban \"obj.http.x-model == m{n}\"\n")).collect();
    stage.redis.cli_lines(&lines);
    let deadline = Instant::now() + Duration::from_secs(120);
    while stage.results("inv", "taken") != Some(10_000.0) {
        assert!(Instant::now() < deadline, "{:?} taken", stage.results("inv", "taken"));
        thread::sleep(Duration::from_millis(100));
    }
    until("all are acknowledged", || stage.pending() == 0);
    let expected: Vec<_> = (0..10_000).map(|n| format!("obj.http.x-model == m{n}")).collect();
    assert!(stage.bans("obj.http.x-model == m") == expected, "each once, in order");
    assert_eq!(stage.taken(), 10_000.0);
}

#[test]
fn redis_gone_for_a_minute_under_a_stream_of_events() {
    let stage = Mutex::new(Stage::of_stream(""));
    let port = stage.lock().unwrap().redis.port;
    let ended = AtomicBool::new(false);
    // What Redis took: its id was read. What it did not answer may be there or not.
    let added = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let (mut added, mut number) = (Vec::new(), 0);
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                let ban = format!("obj.http.x-model == m{number}");
                if add(port, &ban) {
                    added.push(ban);
                }
                thread::sleep(Duration::from_millis(50));
            }
            added
        });
        thread::sleep(Duration::from_secs(2));
        stage.lock().unwrap().redis.kill();
        thread::sleep(MINUTE);
        stage.lock().unwrap().redis.start_again();
        thread::sleep(Duration::from_secs(5));
        ended.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let stage = stage.into_inner().unwrap();
    assert!(added.len() > 20, "{} events", added.len());
    stage.wait_for_up("inv");
    until("all are acknowledged", || {
        // Its own count of what lags behind is wrong after a restart.
        let last = stage.redis.cli(&["XREVRANGE", "inv", "+", "-", "COUNT", "1"]);
        let last = last.lines().next().map(str::to_owned);
        stage.pending() == 0 && of_group(&stage, "last-delivered-id") == last
    });
    let bans: BTreeSet<_> = stage.bans("obj.http.x-model == m").into_iter().collect();
    let lost: Vec<_> = added.iter().filter(|ban| !bans.contains(*ban)).collect();
    assert!(lost.is_empty(), "{} of {} were lost: {lost:?}", lost.len(), added.len());
    assert_eq!(stage.daemon.metric("purgewatch_events_lost_total", &[]), Some(0.0));
}

/// Whether Redis said that it has the event.
fn add(port: u16, ban: &str) -> bool {
    let output = std::process::Command::new("redis-cli")
        .args(["-p", &port.to_string(), "-a", crate::support::redis::PASSWORD])
        .args(["--no-auth-warning", "XADD", "inv", "*", "ban", ban])
        .output()
        .unwrap();
    let id = String::from_utf8_lossy(&output.stdout);
    let id = id.trim().split_once('-');
    id.is_some_and(|(time, count)| time.parse::<u64>().is_ok() && count.parse::<u64>().is_ok())
}

/// A node that takes nothing holds reading up, not memory; what it did not take is not lost.
#[test]
fn a_node_that_takes_nothing_for_a_while_holds_reading_up() {
    let stage = Stage::of_stream("");
    stage.path.set_blocked(true);
    let lines: String =
        (0..5_000).map(|n| format!("XADD inv * ban \"obj.http.x-model == m{n}\"\n")).collect();
    stage.redis.cli_lines(&lines);
    until("as many are read as may wait", || stage.pending() == 1_024);
    stage.daemon.wait("they are open", || {
        stage.daemon.metric("purgewatch_events_open", &[]) == Some(1_024.0)
    });
    // The daemon goes on with what else it does.
    let rounds = || stage.daemon.metric("purgewatch_probes_total", &["result=\"ok\""]);
    let before = rounds();
    stage.daemon.wait("the endpoint is watched on", || rounds() > before);
    assert_eq!(stage.pending(), 1_024);
    assert_eq!(of_group(&stage, "lag").as_deref(), Some("3976"));
    stage.path.set_blocked(false);
    until("all are done", || {
        stage.pending() == 0 && stage.results("inv", "taken") == Some(5_000.0)
    });
    let expected: Vec<_> = (0..5_000).map(|n| format!("obj.http.x-model == m{n}")).collect();
    assert!(stage.bans("obj.http.x-model == m") == expected, "in order");
}

/// What is put off for want of room has not failed yet: it is tried as often as anything else.
#[test]
fn being_put_off_is_no_failed_proof() {
    let stage = Stage::of_stream("max_attempts = 3\n");
    stage.path.set_blocked(true);
    // As many bans as are kept.
    for n in 0..10 {
        let bans: Vec<_> =
            (0..1_000).map(|m| format!("\"obj.http.x-model == m{n}-{m}\"")).collect();
        stage.add(&["event", &format!("{{\"bans\": [{}]}}", bans.join(","))]);
    }
    let ban = "obj.http.x-model == nope";
    let id = stage.add(&["ban", ban, "verify", "rec", "prove", "1s"]);
    let put_off = format!("event {id}: put off: ");
    stage.daemon.wait("it is put off", || stage.daemon.log().contains(&put_off));
    thread::sleep(Duration::from_secs(8));
    assert_eq!(stage.daemon.log().matches("put off: ").count(), 1, "{}", stage.daemon.log());
    // Now the bans reach the node, and this one proves nothing.
    stage.origin.serve(super::PATH, super::cacheable("two"));
    stage.path.set_blocked(false);
    let deadline = Instant::now() + Duration::from_secs(120);
    while stage.redis.cli(&["XLEN", "inv:set-aside"]) != "1" {
        assert!(Instant::now() < deadline, "{}", stage.daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
    let aside = stage.redis.cli(&["XRANGE", "inv:set-aside", "-", "+"]);
    assert!(aside.contains("(tried 3 times)"), "{aside}");
    stage.daemon.wait("each try sent it", || stage.taken() == 10_003.0);
}
