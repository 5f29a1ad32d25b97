//! Streams: taken, proven, confirmed, and acknowledged only then.

use std::time::Duration;

use super::{HOST, PATH, STREAM, Stage, cacheable, until};
use crate::support::daemon::{Daemon, purgewatch};

#[test]
fn an_event_is_taken_confirmed_and_acknowledged() {
    let stage = Stage::of_stream("");
    stage.origin.serve(PATH, cacheable("two"));
    let id = stage.add(&["ban", "obj.http.x-model == one", "verify", "rec"]);
    stage.wait_for_confirmation(&id, "taken");
    assert_eq!(stage.body(), "two");
    until("it is acknowledged", || stage.pending() == 0);
    assert!(stage.confirmations().contains("\"host\":\"host-1\""));
    assert_eq!(stage.bans("obj.http.x-model").len(), 1);
    stage.daemon.wait("it is counted", || stage.results("inv", "taken") == Some(1.0));
    let of_node = ["node=\"cache-01\""];
    stage.daemon.wait("how long it took is counted", || {
        stage.daemon.metric("purgewatch_time_to_fresh_seconds_count", &of_node) >= Some(1.0)
    });
    let labels = ["source=\"event\"", "result=\"accepted\""];
    assert_eq!(stage.daemon.metric("purgewatch_bans_total", &labels), Some(1.0));
}

#[test]
fn by_url_and_by_endpoint_and_proven() {
    let stage = Stage::of_stream("");
    stage.origin.serve(PATH, cacheable("two"));
    let url = format!("http://{HOST}{PATH}");
    let id = stage.add(&["url", &url, "prove", "20s"]);
    stage.wait_for_confirmation(&id, "proven");
    stage.origin.serve(PATH, cacheable("three"));
    let id = stage.add(&["event", r#"{"endpoints":["rec"],"prove":"20s"}"#]);
    stage.wait_for_confirmation(&id, "proven");
    assert_eq!(stage.body(), "three");
    // A ban that hits nothing proves nothing: it is tried again, and nothing waits for it.
    stage.origin.serve(PATH, cacheable("four"));
    let id = stage.add(&["ban", "obj.http.x-model == nope", "verify", "rec", "prove", "1s"]);
    let behind = stage.add(&["ban", "obj.http.x-model == behind"]);
    stage.wait_for_confirmation(&behind, "taken");
    // The two from before, the one behind, and this one more than once.
    stage.daemon.wait("it is handed in again", || stage.taken() >= 5.0);
    assert_eq!(stage.pending(), 1, "{id} waits on");
}

#[test]
fn nothing_is_acknowledged_before_the_node_took_it() {
    let stage = Stage::of_stream("");
    stage.path.set_blocked(true);
    let ids: Vec<_> =
        (0..5).map(|n| stage.add(&["ban", &format!("obj.http.x-model == m{n}")])).collect();
    until("all are read", || stage.pending() == 5);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stage.pending(), 5);
    assert_eq!(stage.confirmations(), "");
    stage.path.set_blocked(false);
    until("all are acknowledged", || stage.pending() == 0);
    let expected: Vec<_> = (0..5).map(|n| format!("obj.http.x-model == m{n}")).collect();
    assert_eq!(stage.bans("obj.http.x-model == m"), expected, "in order");
    for id in ids {
        stage.wait_for_confirmation(&id, "taken");
    }
}

#[test]
fn what_cannot_be_carried_out_is_set_aside_and_nothing_behind_it_waits() {
    let stage = Stage::of_stream("");
    let broken = [
        stage.add(&["event", "{\"bans\": [\"obj.http.x-model == one\""]),
        stage.add(&["event", "[1, \"x\", [\"obj.http.x-model == one\"]]"]),
        stage.add(&["ban", "obj.http.x-model == one\nvcl.use boot"]),
        stage.add(&["ban", "obj.http.x-model"]),
        stage.add(&["nothing", "known"]),
        stage.add(&["endpoint", "nope"]),
        stage.add(&["event", "{}"]),
        stage.add(&["url", "http://h/\u{1b}[2J"]),
        stage.add(&["ban", "req.url ~ ."]),
        stage.add(&["ban", "obj.http.x-model ~ (a+)+b", "everything", "true"]),
        stage.add(&["ban", "obj.http.x-model == one", "everything", "perhaps"]),
    ];
    let good = stage.add(&["ban", "obj.http.x-model == good"]);
    stage.wait_for_confirmation(&good, "taken");
    // What is dangerous is taken from who says that it is meant.
    let everything = stage.add(&["ban", "req.url ~ .", "everything", "true"]);
    stage.wait_for_confirmation(&everything, "taken");
    for id in &broken {
        stage.wait_for_confirmation(id, "refused");
    }
    until("all are acknowledged", || stage.pending() == 0);
    let aside = stage.redis.cli(&["XLEN", "inv:set-aside"]);
    assert_eq!(aside, broken.len().to_string());
    let reasons = stage.redis.cli(&["XRANGE", "inv:set-aside", "-", "+"]);
    assert!(reasons.contains("no endpoint nope is watched on this host"), "{reasons}");
    assert!(reasons.contains("this ban matches everything"), "{reasons}");
    assert!(reasons.contains("\"everything\": true"), "{reasons}");
    stage.daemon.wait("they are counted", || {
        stage.daemon.metric("purgewatch_events_set_aside_total", &[]) == Some(11.0)
            && stage.results("inv", "refused") == Some(11.0)
    });
    assert!(!stage.daemon.log().contains('\u{1b}'), "{}", stage.daemon.log());
    // For a node of another host.
    let id = stage.add(&["ban", "obj.http.x-model == elsewhere", "node", "cache-77"]);
    until("it is acknowledged", || stage.pending() == 0);
    assert!(!stage.confirmations().contains(&id));
    // 1 MB.
    let large = format!("XADD inv * ban \"obj.http.x == {}\"\n", "a".repeat(1_000_000));
    stage.redis.cli_lines(&large);
    until("it is set aside", || {
        stage.redis.cli(&["XLEN", "inv:set-aside"]) == "12" && stage.pending() == 0
    });
}

#[test]
fn a_burst_of_equal_events_is_few_bans() {
    let stage = Stage::of_stream("debounce = \"1s\"\n");
    let lines = "XADD inv * ban \"obj.http.x-model == same\"\n".repeat(1_000);
    stage.redis.cli_lines(&lines);
    until("all are acknowledged", || {
        stage.pending() == 0 && stage.results("inv", "taken") == Some(1_000.0)
    });
    let bans = stage.bans("obj.http.x-model == same").len();
    assert!((1..=4).contains(&bans), "{bans} bans");
}

#[test]
fn redis_away_and_back() {
    let mut stage = Stage::of_stream("");
    stage.redis.kill();
    let label = ["subscription=\"inv\""];
    stage.daemon.wait("that is noticed", || {
        stage.daemon.metric("purgewatch_subscription_up", &label) == Some(0.0)
    });
    assert!(stage.daemon.log().contains("inv: no events come"), "{}", stage.daemon.log());
    // In all that people look at.
    let (code, status) = known(&stage);
    assert_eq!(code, Some(3), "{status}");
    assert!(status.contains("no events come from inv: "), "{status}");
    assert!(status.contains("1 fresh, 1 subscription down"), "{status}");
    let (_, page) = stage.daemon.get("/").unwrap();
    assert!(page.contains("No events come from 1 subscription."), "{page}");
    stage.redis.start_again();
    let id = stage.add(&["ban", "obj.http.x-model == one"]);
    stage.wait_for_confirmation(&id, "taken");
    stage.wait_for_up("inv");
    let (code, status) = known(&stage);
    assert_eq!(code, Some(0), "{status}");
    assert!(!status.contains("no events come") && status.contains("EVENTS FROM"), "{status}");
    let (_, json) = stage.daemon.get("/api/v1/status").unwrap();
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    let of_it = &document["subscriptions"][0];
    assert_eq!((&of_it["subscription"], &of_it["up"]), (&"inv".into(), &true.into()), "{json}");
    assert_eq!((&of_it["events"]["taken"], &of_it["problem"]), (&1.into(), &().into()), "{json}");
    let (_, page) = stage.daemon.get("/").unwrap();
    assert!(
        page.contains("<tr><td class=\"name\">inv<td class=\"state up\">up<td class=\"time\">"),
        "{page}"
    );
}

/// What `purgewatch status` says.
fn known(stage: &Stage) -> (Option<i32>, String) {
    let config = stage.daemon.config();
    let output = purgewatch(&["status", "-c", config.to_str().unwrap()]);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_was_trimmed_before_it_was_read_is_a_gap() {
    let mut stage = Stage::of_stream("verify = [\"rec\"]\n");
    let id = stage.add(&["ban", "obj.http.x-model == one"]);
    stage.wait_for_confirmation(&id, "taken");
    until("it is acknowledged", || stage.pending() == 0);
    assert!(stage.daemon.stop().success());
    for n in 0..20 {
        stage.add(&["ban", &format!("obj.http.x-model == lost{n}")]);
    }
    stage.redis.cli(&["XTRIM", "inv", "MAXLEN", "5"]);
    let before = stage.origin.hits(PATH);
    stage.daemon.start_again();
    stage.daemon.wait("the gap is counted", || {
        stage.daemon.metric("purgewatch_events_lost_total", &[]) == Some(15.0)
            && stage.daemon.metric("purgewatch_subscription_gaps_total", &[]) == Some(1.0)
    });
    until("the rest is done", || stage.pending() == 0);
    assert_eq!(stage.bans("obj.http.x-model == lost").len(), 5);
    assert!(stage.origin.hits(PATH) > before);
}

#[test]
fn two_daemons_with_one_name() {
    let stage = Stage::of_stream("");
    let config = std::fs::read_to_string(stage.daemon.config()).unwrap();
    let config = config.split_once("[defaults]").unwrap().1;
    let second = Daemon::start(&format!("[defaults]{config}"));
    second.wait("it says so", || second.log().contains("another daemon follows it as host-1"));
    let label = ["subscription=\"inv\""];
    assert_eq!(second.metric("purgewatch_subscription_up", &label), Some(0.0));
    let id = stage.add(&["ban", "obj.http.x-model == one"]);
    stage.wait_for_confirmation(&id, "taken");
    assert_eq!(stage.bans("obj.http.x-model == one").len(), 1);
}

/// What a redis-cli, a flush or a restart without persistence takes away while the daemon is
/// stopped.
#[test]
fn a_group_that_is_gone_after_a_stop_is_a_gap() {
    let mut stage = Stage::of_stream("verify = [\"rec\"]\n");
    let gaps = |stage: &Stage| stage.daemon.metric("purgewatch_subscription_gaps_total", &[]);
    let id = stage.add(&["ban", "obj.http.x-model == read"]);
    stage.wait_for_confirmation(&id, "taken");
    until("it is acknowledged", || stage.pending() == 0);
    let takes_away = [
        &["XGROUP", "DESTROY", "inv", "purgewatch:host-1"][..],
        &["FLUSHALL"],
        &["XTRIM", "inv", "MAXLEN", "10"],
    ];
    for (n, command) in takes_away.into_iter().enumerate() {
        if n == 1 {
            stage.daemon.kill();
        } else {
            assert!(stage.daemon.stop().success());
        }
        stage.redis.cli(command);
        let ban = format!("obj.http.x-model == missed{n}");
        stage.add(&["ban", &ban]);
        stage.daemon.start_again();
        until("what came meanwhile is taken", || !stage.bans(&ban).is_empty());
        let expected = if n < 2 { 1.0 } else { 0.0 };
        stage.daemon.wait("it is counted", || gaps(&stage) == Some(expected));
    }
    assert_eq!(stage.bans("obj.http.x-model == read").len(), 1, "done before the stop");
    let log = stage.daemon.log();
    assert_eq!(log.matches("(group_deleted)").count(), 2, "{log}");
}

#[test]
fn a_clone_of_this_host_is_told_from_a_restart() {
    let stage = Stage::of_stream("");
    let config = std::fs::read_to_string(stage.daemon.config()).unwrap();
    let rest = format!("[defaults]{}", config.split_once("[defaults]").unwrap().1);
    let mut clone = Daemon::start(&rest.replace("host-1", "host-2"));
    assert!(clone.stop().success());
    for file in std::fs::read_dir(stage.daemon.state_dir()).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap();
        if name == "instance" || name.to_str().unwrap().starts_with("stream-") {
            std::fs::copy(&file, clone.state_dir().join(name)).unwrap();
        }
    }
    let config = std::fs::read_to_string(clone.config()).unwrap();
    std::fs::write(clone.config(), config.replace("host-2", "host-1")).unwrap();
    clone.start_again();
    let said = "it has a copy of this one's state directory";
    stage.daemon.wait("it says so", || stage.daemon.log().contains(said));
    assert!(!clone.log().contains(said), "{}", clone.log());
    let label = ["subscription=\"inv\""];
    let up = |daemon: &Daemon| daemon.metric("purgewatch_subscription_up", &label);
    stage.daemon.wait("it reads nothing", || up(&stage.daemon) == Some(0.0));
    for n in 0..5 {
        let id = stage.add(&["ban", &format!("obj.http.x-model == c{n}")]);
        stage.wait_for_confirmation(&id, "taken");
    }
    let taken = || clone.metric("purgewatch_events_total", &["result=\"taken\""]);
    clone.wait("all were taken there", || taken() == Some(5.0));
    // A restart of the one that reads takes no time.
    clone.kill();
    clone.start_again();
    clone.wait("it goes on", || up(&clone) == Some(1.0));
}

#[test]
fn a_wrong_password_is_said() {
    let stage = Stage::of_stream("");
    std::fs::write(stage.place.path().join("password"), "wrong").unwrap();
    let config = std::fs::read_to_string(stage.daemon.config()).unwrap();
    let config = config.split_once("[defaults]").unwrap().1.replace("host-1", "host-2");
    let second = Daemon::start(&format!("[defaults]{config}"));
    second.wait("it says so", || second.log().contains("inv: no events come"));
    let log = second.log();
    assert!(log.contains("password"), "{log}");
    assert!(!log.contains("wrong"), "{log}");
}

#[test]
fn a_reload_that_changes_nothing_about_events_leaves_them_alone() {
    let stage = Stage::of_stream("");
    let config = std::fs::read_to_string(stage.daemon.config()).unwrap();
    let rest = config.split_once("[defaults]").unwrap().1;
    let rest = format!("[defaults]{rest}");
    stage.daemon.reload(&rest);
    stage.daemon.wait("it was read", || stage.daemon.log().contains("was read again"));
    let id = stage.add(&["ban", "obj.http.x-model == one"]);
    stage.wait_for_confirmation(&id, "taken");
    // Another stream instead.
    stage.daemon.reload(&rest.replace(STREAM, "[[subscription]]\nstream = \"other\"\n"));
    stage.wait_for_up("other");
    stage.redis.cli(&["XADD", "other", "*", "ban", "obj.http.x-model == other"]);
    until("it is taken", || stage.bans("obj.http.x-model == other").len() == 1);
    assert_eq!(stage.results("inv", "taken"), None, "its series are gone");
}

/// What a pointer leads to is verified as an endpoint is.
#[test]
fn a_pointer_is_verified_with_all_that_it_leads_to() {
    let stage = Stage::set(&format!(
        "[[pointer]]\nname = \"current\"\nurl = \"http://{HOST}/current\"\norigin = \"origin\"\n\
         endpoints = [\"http://{HOST}/v/{{value}}/\"]\n{STREAM}verify = [\"current\"]\n"
    ));
    stage.wait_for_up("inv");
    let pointer = |state: &str| {
        let label = format!("state=\"{state}\"");
        stage.daemon.metric("purgewatch_pointer_state", &[&label]) == Some(1.0)
    };
    assert!(!pointer("good"));
    stage.origin.serve("/current", cacheable("7"));
    stage.origin.serve("/v/7/", cacheable("seven"));
    // The node was asked too early, and keeps the answer.
    stage.varnishd.adm(&["ban", "obj.status == 404"]);
    stage.daemon.wait("it leads somewhere", || pointer("good"));
    stage.origin.serve("/v/7/", cacheable("seven again"));
    let id = stage.add(&["ban", "obj.http.x-model == seven", "prove", "20s"]);
    stage.wait_for_confirmation(&id, "proven");
    assert!(stage.varnishd.get(HOST, "/v/7/").ends_with("seven again"));
    stage.origin.serve("/v/7/", cacheable("seven once more"));
    let id = stage.add(&["ban", "obj.http.x-model == nope", "prove", "2s"]);
    stage.daemon.wait("it is not proven and handed in again", || stage.taken() >= 3.0);
    assert!(!stage.confirmations().contains(&id));
}
