//! `purgewatch publish` against real redis-servers. The tests play the hosts that follow.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use purgewatch::event::Event;
use serde_json::{Value, json};

use crate::ban::{check_code, purgewatch, text};
use crate::support::redis::{PASSWORD, Redis};

const BAN: [&str; 2] = ["--ban", "obj.http.x-model == 7"];
const STREAM: &str = "invalidations";
const REPLIES: &str = "invalidations:replies";

fn url(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}", redis.port)
}

/// Runs the command with the right password.
fn publish(redis: &Redis, arguments: &[&str]) -> Output {
    publish_with(&url(redis), arguments, &[("REDIS_PASSWORD", PASSWORD)])
}

fn publish_with(url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let all =
        [&["publish", "--redis", url, "--password-env", "REDIS_PASSWORD"], arguments].concat();
    purgewatch(&all, environment, "")
}

/// Runs it while `hosts` does what hosts do.
fn publish_while(redis: &Redis, arguments: &[&str], hosts: impl FnOnce(&str)) -> Output {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| publish(redis, arguments));
        hosts(&published(redis));
        running.join().unwrap()
    })
}

/// The id of the event, as soon as there is one.
fn published(redis: &Redis) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let entry = redis.cli(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]);
        if let Some(id) = entry.lines().next().filter(|id| id.contains('-')) {
            return id.to_owned();
        }
        assert!(Instant::now() < deadline, "nothing was published: {entry}");
        sleep(Duration::from_millis(5));
    }
}

/// A host notes itself as a follower, seen so many seconds ago.
fn follow(redis: &Redis, host: &str, nodes: &[&str], seconds_ago: u64) {
    let time = redis.cli(&["TIME"]);
    let now: u64 = time.lines().next().unwrap().parse().unwrap();
    let note = json!({"nodes": nodes, "seen": (now - seconds_ago) * 1_000, "version": "1"});
    redis.cli(&["HSET", "invalidations:followers", host, &note.to_string()]);
}

fn confirm(redis: &Redis, id: &str, host: &str, nodes: &Value) {
    let confirmation = json!({"schema": 1, "event": id, "host": host, "nodes": nodes});
    reply(redis, &confirmation.to_string());
}

fn reply(redis: &Redis, confirmation: &str) {
    let id = redis.cli(&["XADD", REPLIES, "*", "confirmation", confirmation]);
    assert!(id.contains('-'), "{id}");
}

fn result(result: &str) -> Value {
    json!({"result": result, "at": 1_795_490_000.5})
}

/// The events in the stream.
fn events(redis: &Redis) -> Vec<Event> {
    let entries = redis.cli(&["--json", "XRANGE", STREAM, "-", "+"]);
    let entries: Vec<(String, Vec<String>)> = serde_json::from_str(&entries).unwrap();
    let event = |(_, fields): (String, Vec<String>)| {
        assert_eq!(fields[0], "event");
        Event::from_fields([(fields[0].as_bytes(), fields[1].as_bytes())]).unwrap()
    };
    entries.into_iter().map(event).collect()
}

fn nothing_was_published(redis: &Redis) {
    assert_eq!(redis.cli(&["EXISTS", STREAM]), "0");
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn every_node_that_follows_confirms() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01", "cache-02"], 1);
    follow(&redis, "host-b", &["cache-03"], 1);
    let arguments = [&BAN[..], &["--verify", "rec", "--reason", "deploy 42"]].concat();
    let output = publish_while(&redis, &arguments, |id| {
        confirm(&redis, id, "host-b", &json!({"cache-03": result("proven")}));
        let both = json!({"cache-01": result("taken"), "cache-02": result("taken")});
        confirm(&redis, id, "host-a", &both);
    });
    check_code(&output, 0, "");
    assert_eq!(text(&output.stderr), "");
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with(&format!("published to {STREAM} as ")), "{out}");
    for (line, expected) in lines[1..].iter().zip([
        "cache-01 (host-a): taken, after ",
        "cache-02 (host-a): taken, after ",
        "cache-03 (host-b): proven, after ",
    ]) {
        assert!(line.starts_with(expected), "{out}");
    }
    assert_eq!(lines.len(), 4);
    let [event] = &events(&redis)[..] else { panic!("one event") };
    assert_eq!(
        (&event.bans[..], event.reason.as_deref()),
        (&[BAN[1].to_owned()][..], Some("deploy 42"))
    );
    assert_eq!(event.verify[0].as_str(), "rec");
    assert!(event.issued.is_some() && event.nodes.is_none());
}

#[test]
fn a_silent_node_is_named_with_its_host_and_when_that_was_seen() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    follow(&redis, "host-b", &["cache-02", "cache-03"], 7_200);
    let environment = [("REDIS_PASSWORD", PASSWORD), ("GITHUB_ACTIONS", "true")];
    let arguments = [&BAN[..], &["--within", "2s"]].concat();
    let begin = Instant::now();
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| publish_with(&url(&redis), &arguments, &environment));
        let id = published(&redis);
        confirm(&redis, &id, "host-a", &json!({"cache-01": result("taken")}));
        confirm(&redis, &id, "host-b", &json!({"cache-03": result("taken")}));
        running.join().unwrap()
    });
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
    check_code(&output, 3, "host-b was last seen 2h ago; its 2 nodes are waited for all the same");
    check_code(
        &output,
        3,
        "cache-02 (host-b): no confirmation within 2s; the host was last seen 2h ago",
    );
    check_code(&output, 3, "purgewatch publish --forget host-b");
    check_code(&output, 3, "::error title=purgewatch publish::cache-02 (host-b): no confirmation");
    check_code(&output, 3, "a host that comes back acts on it");
    assert!(!text(&output.stderr).contains("cache-03 ("), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cache-03 (host-b): taken"));

    // It is taken off the list, and then everybody there is has confirmed.
    let forgotten = publish(&redis, &["--forget", "host-b"]);
    check_code(&forgotten, 0, "");
    assert!(text(&forgotten.stdout).contains("host-b is waited for no more"));
    let again = publish(&redis, &["--forget", "host-b"]);
    check_code(&again, 2, "host-b is not known to follow invalidations: host-a does");
    redis.cli(&["DEL", STREAM]);
    let output = publish_while(&redis, &arguments, |id| {
        confirm(&redis, id, "host-a", &json!({"cache-01": result("taken")}));
    });
    check_code(&output, 0, "");
}

#[test]
fn what_hosts_refuse_and_what_survives_fails() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    follow(&redis, "host-b", &["cache-02"], 1);
    let node = |result: &str, detail: &str| json!({"result": result, "detail": detail, "at": 1.0});
    for (first, code, said) in [
        ("survived", 1, "cache-01 (host-a): survived: old content is still served, after"),
        ("rejected", 5, "cache-01 (host-a): rejected by varnishd, after"),
        ("refused", 5, "cache-01 (host-a): refused, after"),
        ("set_aside", 5, "cache-01 (host-a): set aside, after"),
        ("unprovable", 3, "cache-01 (host-a): unprovable, after"),
    ] {
        redis.cli(&["DEL", STREAM]);
        let output = publish_while(&redis, &BAN, |id| {
            confirm(&redis, id, "host-b", &json!({"cache-02": result("taken")}));
            let words = node(first, "why\u{1b}[2J");
            confirm(&redis, id, "host-a", &json!({"cache-01": words}));
        });
        check_code(&output, code, said);
        check_code(&output, code, ": why\\x1b[2J\n");
        assert!(text(&output.stdout).contains("cache-02 (host-b): taken"));
    }
    // A rejection counts more than a survivor; a host that refuses all of it names no node.
    redis.cli(&["DEL", STREAM]);
    let arguments = [&BAN[..], &["--output", "json"]].concat();
    let output = publish_while(&redis, &arguments, |id| {
        confirm(&redis, id, "host-b", &json!({"cache-02": result("survived")}));
        let whole = json!({
            "schema": 1, "event": id, "host": "host-a", "nodes": {}, "detail": "no endpoint rec"
        });
        reply(&redis, &whole.to_string());
    });
    let document = document(&output);
    assert_eq!((output.status.code(), &document["exit"]), (Some(5), &json!(5)), "{document:#}");
    assert_eq!(document["schema"], 1);
    assert_eq!((&document["published"], &document["stream"]), (&json!("yes"), &json!(STREAM)));
    assert_eq!(document["id"], published(&redis));
    let node = |at: usize, key: &str| document["nodes"][at][key].clone();
    assert_eq!((node(0, "host"), node(0, "node")), (json!("host-a"), json!("cache-01")));
    assert_eq!(
        (node(0, "result"), node(0, "detail")),
        (json!("refused"), json!("no endpoint rec"))
    );
    assert_eq!((node(1, "result"), node(1, "exit")), (json!("survived"), json!(1)));
    assert_eq!(node(1, "at"), json!(1_795_490_000.5));
    assert!(node(1, "seconds").as_f64().unwrap() > 0.0 && node(1, "last_seen").is_number());
}

#[test]
fn what_is_no_confirmation_of_this_event_changes_nothing() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    redis.cli(&["HSET", "invalidations:followers", "evil\u{1b}[2J", "{\"nodes\": 1}"]);
    // Of an earlier event, before this one is sent.
    confirm(&redis, "1-1", "host-a", &json!({"cache-01": result("rejected")}));
    let output = publish_while(&redis, &BAN, |id| {
        confirm(&redis, "1-1", "host-a", &json!({"cache-01": result("rejected")}));
        for hostile in [
            "",
            "{",
            "[]",
            "\u{1b}[2J",
            &format!("{{\"schema\":2,\"event\":\"{id}\",\"host\":\"host-a\",\"nodes\":{{}}}}"),
            &format!("{{\"schema\":1,\"event\":\"{id}\",\"host\":\"a b\",\"nodes\":{{}}}}"),
            &format!(
                "{{\"schema\":1,\"event\":\"{id}\",\"host\":\"host-a\",\"nodes\":{{\"cache-01\":\
                 {{\"result\":\"rejected\",\"at\":-1}}}}}}"
            ),
            &"[".repeat(100_000),
        ] {
            reply(&redis, hostile);
        }
        redis.cli(&["XADD", REPLIES, "*", "other", "field"]);
        // The last word counts, and one that is not known takes no success back.
        let words = |word: &str| json!({"cache-01": result(word), "cache-09": result("taken")});
        confirm(&redis, id, "host-a", &words("a-later-word"));
        confirm(&redis, id, "host-a", &words("taken"));
    });
    check_code(&output, 0, "");
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).contains("cache-01 (host-a): taken"), "{}", text(&output.stdout));
    // A reply that does not fit into memory at once is no reason to miss the others.
    redis.cli(&["DEL", STREAM]);
    let output = publish_while(&redis, &[&BAN[..], &["--within", "20s"]].concat(), |id| {
        let large = "x".repeat(100_000);
        for _ in 0..30 {
            reply(&redis, &large);
        }
        confirm(&redis, id, "host-a", &json!({"cache-01": result("taken")}));
    });
    check_code(&output, 0, "");
}

#[test]
fn where_proof_is_asked_for_it_is_waited_for() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    let arguments = ["--endpoint", "rec", "--prove", "1s", "--within", "2s"];
    let output = publish_while(&redis, &arguments, |id| {
        confirm(&redis, id, "host-a", &json!({"cache-01": result("taken")}));
    });
    check_code(&output, 3, "cache-01 (host-a): taken, after ");
    check_code(&output, 3, ", and not proven\n");
    redis.cli(&["DEL", STREAM]);
    let output = publish_while(&redis, &arguments, |id| {
        confirm(&redis, id, "host-a", &json!({"cache-01": result("taken")}));
        sleep(Duration::from_millis(300));
        confirm(&redis, id, "host-a", &json!({"cache-01": result("proven")}));
    });
    check_code(&output, 0, "");
    assert_eq!(events(&redis)[0].prove, Some(Duration::from_secs(1)));
}

#[test]
fn the_nodes_to_wait_for_can_be_named() {
    let redis = Redis::start_forgetful();
    let none = publish(&redis, &BAN);
    check_code(&none, 2, "there is nobody to wait for, and nothing was published");
    nothing_was_published(&redis);
    follow(&redis, "host-a", &["cache-01"], 1);
    follow(&redis, "host-b", &["cache-02"], 1);
    // One of them, and one that no host is known to have.
    let arguments = [&BAN[..], &["--wait-for", "cache-01,cache-09", "--within", "20s"]].concat();
    let output = publish_while(&redis, &arguments, |id| {
        confirm(&redis, id, "host-a", &json!({"cache-01": result("taken")}));
        confirm(&redis, id, "host-b", &json!({"cache-02": result("rejected")}));
        confirm(&redis, id, "host-c", &json!({"cache-09": result("taken")}));
    });
    check_code(&output, 0, "");
    assert!(text(&output.stdout).contains("cache-09 (host-c): taken"));
    let arguments = [&BAN[..], &["--wait-for", "cache-09", "--within", "300ms"]].concat();
    let message = "cache-09: no confirmation within 300ms; no host that follows invalidations has";
    check_code(&publish(&redis, &arguments), 3, message);
    // An event that is for one node is waited for there.
    redis.cli(&["DEL", STREAM]);
    let output = publish_while(&redis, &[&BAN[..], &["--node", "cache-02"]].concat(), |id| {
        confirm(&redis, id, "host-b", &json!({"cache-02": result("taken")}));
    });
    check_code(&output, 0, "");
    assert_eq!(events(&redis)[0].nodes.as_ref().unwrap()[0].as_str(), "cache-02");
    let wrong = publish(&redis, &[&BAN[..], &["--node", "a", "--wait-for", "b"]].concat());
    check_code(&wrong, 2, "--wait-for b: the event is not for that node");
}

#[test]
fn an_event_that_hosts_would_refuse_is_not_sent() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    for (arguments, message) in [
        (&["--ban", "obj.http.x = 1"][..], "refused ("),
        (&["--ban", "obj.status != 0"], "refused ("),
        (&["--ban", "obj.http.x ~ (a+)+b", "--ban", "obj.http.y == 1"], "nothing was published"),
        (&[], "the event names nothing"),
        (&["--verify", "rec", "--prove", "2h"], "prove is 1s to 3600s"),
        (&["--ban", "obj.http.y == 1", "--json", "-"], "cannot be used with"),
    ] {
        let output = publish(&redis, arguments);
        check_code(&output, 2, message);
    }
    let from = |json: &str| {
        let all = ["publish", "--redis", &url(&redis), "--password-env", "P", "--json", "-"];
        purgewatch(
            &[&all[..], &["--no-wait", "--output", "json"]].concat(),
            &[("P", PASSWORD)],
            json,
        )
    };
    check_code(&from("{\"bans\": [\"obj.http.y == 1\"], \"nodse\": []}"), 2, "nodse");
    check_code(&from(&"x".repeat(300_000)), 2, "an event has at most 262144 bytes");
    let refused = from("{\"bans\": [\"obj.http.y = 1\"]}");
    let found = document(&refused);
    assert_eq!((refused.status.code(), &found["published"]), (Some(2), &json!("no")), "{found:#}");
    assert!(found["event"]["bans"][0]["refusals"][0]["code"].is_string(), "{found:#}");
    nothing_was_published(&redis);
    // And one that they would not is.
    let sent = from("{\"id\": \"deploy-42\", \"bans\": [\"obj.http.y == 1\"], \"nodes\": [\"n\"]}");
    let found = document(&sent);
    assert_eq!((sent.status.code(), &found["published"]), (Some(0), &json!("yes")), "{found:#}");
    assert_eq!(events(&redis)[0].id.as_deref(), Some("deploy-42"));
    let everything = ["--ban", "obj.status != 0", "--everything", "--no-wait"];
    check_code(&publish(&redis, &everything), 0, "");
    let found = events(&redis);
    assert_eq!(found.len(), 2);
    assert!(
        found[1].everything && !found[1].allow_slow_regex,
        "the hosts are told that it is meant"
    );
}

#[test]
fn the_password_is_checked_and_never_shown() {
    let redis = Redis::start_forgetful();
    let refused = publish_with(&url(&redis), &BAN, &[("REDIS_PASSWORD", "hunter2")]);
    check_code(&refused, 4, "it refuses the user or the password; nothing was published");
    let none = purgewatch(&[&["publish", "--redis", &url(&redis)], &BAN[..]].concat(), &[], "");
    check_code(&none, 4, "it wants a password and none was given");
    check_code(&publish_with(&url(&redis), &BAN, &[]), 4, "REDIS_PASSWORD is not set, or empty");
    let file = ["publish", "--redis", &url(&redis), "--password-file", "/nowhere/password"];
    check_code(&purgewatch(&[&file, &BAN[..]].concat(), &[], ""), 4, "/nowhere/password");
    for url in ["redis://:hunter2@127.0.0.1:1", "http://a:hunter2@h", ":hunter2@h"] {
        let output = publish_with(url, &BAN, &[("REDIS_PASSWORD", "hunter2")]);
        check_code(&output, 2, "--redis: ");
        assert!(!text(&output.stderr).contains("hunter2"), "{}", text(&output.stderr));
    }
    assert!(!text(&refused.stderr).contains("hunter2"));
    nothing_was_published(&redis);
}

/// A user of a pipeline's own may do no more than the page says.
#[test]
fn a_user_needs_few_permissions() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    let rights = [
        "ACL",
        "SETUSER",
        "ci",
        "on",
        ">of the pipeline",
        "resetkeys",
        "%W~invalidations",
        "%R~invalidations:replies",
        "%R~invalidations:followers",
        "-@all",
        "+xadd",
        "+xrevrange",
        "+xread",
        "+hgetall",
    ];
    assert_eq!(redis.cli(&rights), "OK");
    let url = format!("redis://ci@127.0.0.1:{}", redis.port);
    let password = [("REDIS_PASSWORD", "of the pipeline")];
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| publish_with(&url, &BAN, &password));
        confirm(&redis, &published(&redis), "host-a", &json!({"cache-01": result("taken")}));
        running.join().unwrap()
    });
    check_code(&output, 0, "");
    let denied = publish_with(&url, &["--forget", "host-a"], &password);
    check_code(&denied, 5, "the ACL user may not do this");
}

#[test]
fn redis_that_is_away_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let password = [("REDIS_PASSWORD", PASSWORD)];
    let output = publish_with(&format!("redis://127.0.0.1:{free}"), &BAN, &password);
    check_code(&output, 3, &format!("Redis at 127.0.0.1:{free}: connecting: no connection"));
    check_code(&output, 3, "nothing was published");

    // It goes away while the hosts are waited for, and comes back.
    let mut redis = Redis::start();
    follow(&redis, "host-a", &["cache-01"], 1);
    let arguments = [&BAN[..], &["--within", "30s"]].concat();
    let running = start(&redis, &arguments);
    let id = published(&redis);
    redis.kill();
    redis.start_again();
    confirm(&redis, &id, "host-a", &json!({"cache-01": result("taken")}));
    check_code(&running.wait_with_output().unwrap(), 0, "");

    // For good.
    redis.cli(&["DEL", STREAM]);
    let running = start(&redis, &[&BAN[..], &["--within", "2s"]].concat());
    published(&redis);
    redis.kill();
    let output = running.wait_with_output().unwrap();
    check_code(&output, 3, "the event is in the stream, and no more confirmations can be read");
    check_code(&output, 3, "cache-01 (host-a): no confirmation within 2s");
}

fn start(redis: &Redis, arguments: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_purgewatch"))
        .args(["publish", "--redis", &url(redis), "--password-env", "REDIS_PASSWORD"])
        .args(arguments)
        .env("REDIS_PASSWORD", PASSWORD)
        .env_remove("PURGEWATCH_CONFIG")
        .env_remove("GITHUB_ACTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A server that takes the event and is gone before it says so cannot be had on purpose from a
/// real one: it is held up, so that no answer comes.
#[test]
fn an_event_of_which_nobody_knows_is_told() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    // Commands that write wait, others are answered (redis.io, CLIENT PAUSE).
    assert_eq!(redis.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]), "OK");
    let arguments = [&BAN[..], &["--within", "1s", "--output", "json"]].concat();
    let output = publish(&redis, &arguments);
    check_code(
        &output,
        3,
        "XADD: no answer within 1s; whether the event was added to the stream is",
    );
    check_code(&output, 3, "an event may be sent twice without harm");
    assert_eq!(document(&output)["published"], "unknown");
    assert_eq!(document(&output)["error"]["reason"], "reply_timeout");
}

#[test]
fn an_interrupt_says_how_far_it_came() {
    let redis = Redis::start_forgetful();
    follow(&redis, "host-a", &["cache-01"], 1);
    follow(&redis, "host-b", &["cache-02"], 1);
    let running = start(&redis, &BAN);
    let id = published(&redis);
    confirm(&redis, &id, "host-a", &json!({"cache-01": result("taken")}));
    sleep(Duration::from_millis(300));
    let interrupted = Command::new("kill").args(["-INT", &running.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let output = running.wait_with_output().unwrap();
    check_code(&output, 130, "interrupted: the event is in the stream, and the hosts act on it");
    check_code(&output, 130, "cache-02 (host-b): no confirmation so far");
    assert!(text(&output.stdout).contains("cache-01 (host-a): taken"));
}

/// A configuration with these streams.
fn configuration(redis: &Redis, streams: &[(&str, &str)]) -> std::path::PathBuf {
    let password = redis.dir().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let mut text = format!(
        "[[node]]\nname = \"cache-01\"\nhttp = \"http://127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n\
         [[origin]]\nname = \"o\"\naddress = \"http://127.0.0.1:3\"\n\
         [[endpoint]]\nname = \"rec\"\nurl = \"http://rec.example.com/\"\norigin = \"o\"\n\
         [redis]\nurl = \"{}\"\npassword_file = \"{}\"\n",
        url(redis),
        password.display()
    );
    for (stream, more) in streams {
        text += &format!("[[subscription]]\nstream = \"{stream}\"\n{more}\n");
    }
    let file = redis.dir().join("purgewatch.toml");
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn server_and_stream_come_from_the_configuration() {
    let redis = Redis::start_forgetful();
    let run = |file: &std::path::Path, arguments: &[&str]| {
        let all = ["publish", "-c", file.to_str().unwrap(), "--no-wait", "--ban", BAN[1]];
        purgewatch(&[&all[..], arguments].concat(), &[], "")
    };
    let file = configuration(&redis, &[("one", "replies = \"answers\"")]);
    let output = run(&file, &["--output", "json"]);
    let found = document(&output);
    assert_eq!((&found["stream"], &found["replies"]), (&json!("one"), &json!("answers")));
    assert_eq!((output.status.code(), redis.cli(&["XLEN", "one"])), (Some(0), "1".to_owned()));
    let other = document(&run(&file, &["--stream", "two", "--output", "json"]));
    assert_eq!((&other["stream"], &other["replies"]), (&json!("two"), &json!("two:replies")));

    let file = configuration(&redis, &[("one", ""), ("two", "")]);
    check_code(&run(&file, &[]), 2, "several streams: choose one with --stream (one, two)");
    check_code(&run(&file, &["--stream", "two"]), 0, "");
    assert_eq!(redis.cli(&["XLEN", "two"]), "2");
    // None is followed here: the usual one.
    let file = configuration(&redis, &[]);
    check_code(&run(&file, &["--max-len", "1"]), 0, "");
    assert_eq!(redis.cli(&["XLEN", STREAM]), "1");
    check_code(&run(&file, &["--redis", &url(&redis)]), 2, "choose one");
    // The key is something else.
    redis.cli(&["SET", "text", "x"]);
    let wrong = run(&file, &["--stream", "text"]);
    check_code(&wrong, 2, "the key holds something other than is needed there");
    check_code(&wrong, 2, "nothing was published");
    // And no configuration names a server.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.split("[redis]").next().unwrap()).unwrap();
    check_code(&run(&file, &[]), 2, "has no table [redis]");
}
