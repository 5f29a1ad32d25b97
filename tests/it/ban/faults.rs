//! Peers that answer as a real varnishd cannot be made to, and networks that fail.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{ban, check, check_code, json, purgewatch, text, with_an_object};
use crate::support::faulty::Faulty;
use crate::support::varnish::{Options, Varnishd};

/// Bans on a peer, once.
fn ban_on(address: &str, arguments: &[&str]) -> std::process::Output {
    let all = [&["ban", "-T", address, "obj.http.x == 1", "--retries", "0"], arguments].concat();
    purgewatch(&all, &[], "")
}

#[test]
fn every_status_has_its_exit_code() {
    for (answer, code, message) in [
        (&b"100 12      \nSyntax error\n"[..], 5, "varnishd answered 100"),
        (b"104 19      \nToo few parameters\n\n", 5, "varnishd answered 104"),
        (b"106 9       \nwhat now?\n", 5, "varnishd answered 106"),
        (b"300 4       \nbusy\n", 5, "varnishd answered 300"),
        (b"400 29      \nCLI communication error (hdr)\n", 6, "lost its cache process"),
        (b"500 0       \n\n", 5, "500"),
        (b"999 6       \nfuture\n", 5, "varnishd answered 999"),
        (b"200 21      \nPONG 1613397488 1.0\nx\n\n", 3, "belongs to another command"),
        (b"200 19      \nPONG 1613397488 1.0\n", 3, "belongs to another command"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 3, "obj"),
        (b"", 3, "closed"),
    ] {
        let message = if answer.starts_with(b"HTTP") { "127.0.0.1:" } else { message };
        let peer = Faulty::start(move |peer| {
            peer.greet();
            peer.line();
            peer.say(answer);
            if !answer.is_empty() {
                peer.wait_for_the_end();
            }
        });
        let output = ban_on(&peer.address.to_string(), &["--timeout", "3s"]);
        check_code(&output, code, message);
        assert_eq!(text(&output.stdout), "", "nothing was taken");
    }
}

#[test]
fn a_reply_that_belongs_to_another_is_said_plainly() {
    let peer = Faulty::answering(b"200 19      \nPONG 1613397488 1.0\n");
    let address = peer.address;
    check(
        &ban_on(&address.to_string(), &[]),
        3,
        "",
        &format!(
            "purgewatch: {address}: ban: the reply (200 with \"PONG 1613397488 1.0\") belongs to \
             another command: manager and cache process of this node are out of step until the \
             cache process is restarted; whether it was carried out is unknown\n"
        ),
    );
}

#[test]
fn a_peer_that_says_nothing_is_named_within_the_limit() {
    // It accepts by its backlog and never greets, as behind a proxy or a wrong port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let start = Instant::now();
    let output = ban_on(&address, &["--timeout", "1s"]);
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    check_code(&output, 3, "waiting for the greeting");
}

#[test]
fn no_reply_within_the_limit_is_no_success() {
    let peer = Faulty::start(|peer| {
        peer.greet();
        peer.wait_for_the_end();
    });
    let output = ban_on(&peer.address.to_string(), &["--timeout", "1s", "--output", "json"]);
    check_code(&output, 3, "whether it was carried out is unknown");
    let document = json(&output);
    assert_eq!(document["nodes"][0]["unknown"], 1);
    assert_eq!(document["nodes"][0]["failures"][0]["outcome"], "unknown");
}

#[test]
fn a_connection_that_breaks_is_tried_again() {
    let connections = std::sync::atomic::AtomicUsize::new(0);
    let peer = Faulty::start(move |peer| {
        let first = connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        peer.greet();
        peer.line();
        if !first {
            peer.say(b"200 0       \n\n");
            peer.wait_for_the_end();
        }
    });
    let address = peer.address.to_string();
    let output = purgewatch(&["ban", "-T", &address, "obj.http.x == 1"], &[], "");
    check(&output, 0, &format!("{address}: taken: obj.http.x == 1\n"), "");
}

#[test]
fn of_a_batch_only_what_is_missing_is_sent_again() {
    let varnishd = with_an_object();
    // The second of three is rejected by 7.1, for good; the others are taken once.
    let input = "obj.http.x == 1\nobj.http.x ~ (?<=ab?)c\nobj.http.x == 3\n";
    let output = ban(&varnishd, &[], input);
    let node = varnishd.admin;
    check(
        &output,
        5,
        &format!("{node}: 2 of 3 bans taken\n"),
        &format!(
            "purgewatch: standard input:2: {node}: ban: varnishd answered 106 (wrong argument): \
             \"Regex compile error: lookbehind assertion is not fixed length\"\n"
        ),
    );
    assert_eq!(varnishd.bans(), ["obj.http.x == 3", "obj.http.x == 1"]);
}

#[test]
fn a_stopped_cache_process_has_its_own_status() {
    let varnishd = Varnishd::start(Options::default());
    varnishd.adm(&["stop"]);
    let output = ban(&varnishd, &["obj.http.x == 1", "--retries", "1"], "");
    check_code(&output, 6, "the cache process is not running (its state: stopped)");
    // A start in time is what the retries wait for.
    let running = std::thread::scope(|scope| {
        let start = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            varnishd.adm(&["start"])
        });
        let output = ban(&varnishd, &["obj.http.x == 1", "--retries", "20"], "");
        start.join().unwrap();
        output
    });
    check_code(&running, 0, "");
}

#[test]
fn a_secret_that_cannot_be_read_or_is_wrong() {
    let varnishd = Varnishd::start(Options::default());
    let admin = varnishd.admin.to_string();
    let run =
        |secret: &str| purgewatch(&["ban", "-T", &admin, "-S", secret, "obj.http.x == 1"], &[], "");
    check_code(&run("/nowhere/secret"), 4, "cannot read /nowhere/secret: No such file");
    let short = varnishd.dir().join("short");
    std::fs::write(&short, "a secret of the tests").unwrap();
    check_code(&run(short.to_str().unwrap()), 4, "this secret does not end with a newline");
    let none = purgewatch(&["ban", "-T", &admin, "obj.http.x == 1"], &[], "");
    check_code(&none, 4, "name its secret file");
}

/// All was taken, and what was asked for was not done: that is neither silence nor success.
#[test]
fn an_interrupt_before_the_second_time_is_said() {
    let varnishd = Varnishd::start(Options::default());
    let process = Command::new("env")
        .args(["--ignore-signal=HUP", env!("CARGO_BIN_EXE_purgewatch"), "ban"])
        .args(["-T", &varnishd.admin.to_string()])
        .args(["-S", varnishd.secret_file().to_str().unwrap()])
        .args(["--repeat-after", "20s", "--output", "json", "obj.http.x == 1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = process.id().to_string();
    // Started by nohup, it goes on when the terminal is gone.
    for signal in ["-HUP", "-INT"] {
        std::thread::sleep(Duration::from_millis(700));
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success(), "{signal}");
    }
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted before the bans were sent once more"), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let node = &document["nodes"][0];
    assert_eq!((&node["exit"], &node["taken"]), (&130.into(), &1.into()), "{node}");
    assert_eq!(node["not_repeated"], "interrupted");
    assert_eq!(varnishd.bans(), ["obj.http.x == 1"]);
}

#[test]
fn an_interrupt_says_what_was_taken() {
    let varnishd = Varnishd::start(Options::default());
    let admin = varnishd.admin.to_string();
    // The cache process is held, so the batch hangs after it was written.
    let pid = varnishd.adm(&["pid"]);
    let worker = pid.lines().find_map(|l| l.strip_prefix("Worker:")).unwrap().trim().to_owned();
    let signal = |name: &str, pid: &str| {
        assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
    };
    signal("-STOP", &worker);
    let file = varnishd.dir().join("bans");
    std::fs::write(&file, "obj.http.x == 1\nobj.http.x == 2\n").unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_purgewatch"))
        .args(["ban", "-T", &admin, "-S", varnishd.secret_file().to_str().unwrap()])
        .args(["--file", file.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    signal("-INT", &process.id().to_string());
    let status = process.wait().unwrap();
    signal("-CONT", &worker);
    let (mut out, mut err) = (String::new(), String::new());
    process.stdout.unwrap().read_to_string(&mut out).unwrap();
    process.stderr.unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(status.code(), Some(130), "{out}{err}");
    assert_eq!(out, format!("{admin}: 0 of 2 bans taken\n"));
    assert_eq!(
        err,
        format!(
            "purgewatch: {}:1-2: {admin}: interrupted; whether it was carried out is unknown (2 \
             bans)\n",
            file.display()
        )
    );
}

#[test]
fn what_an_earlier_attempt_left_open_stays_open() {
    // The connection breaks after the ban was read, and no other is answered: the ban may be on
    // the list, whatever the last attempt says.
    let connections = std::sync::atomic::AtomicUsize::new(0);
    let peer = Faulty::start(move |peer| {
        if connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            peer.greet();
            peer.line();
        }
    });
    let address = peer.address.to_string();
    let arguments =
        ["ban", "-T", &address, "obj.http.x == 1", "--retries", "1", "--output", "json"];
    let output = purgewatch(&arguments, &[], "");
    check_code(&output, 3, "closed without a word");
    check_code(&output, 3, "; whether an earlier attempt carried it out is unknown");
    let node = &json(&output)["nodes"][0];
    assert_eq!((&node["unknown"], &node["not_taken"]), (&1.into(), &0.into()));
    assert_eq!(node["failures"][0]["outcome"], "unknown");
}

#[test]
fn a_peer_that_never_let_us_in_has_got_no_ban() {
    // The secret is read from a peer that greets late, so the limit on the whole is reached while
    // authenticating: nothing was sent, and that is said.
    let peer = Faulty::start(|peer| {
        std::thread::sleep(Duration::from_millis(800));
        peer.say(b"107 59      \nixslvvxrgkjptxmcgnnsdxsvdmvfympg\n\nAuthentication required.\n\n");
        peer.wait_for_the_end();
    });
    let secret = tempfile::NamedTempFile::new().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for (address, signal) in [(peer.address.to_string(), false), (silent, true)] {
        let process = Command::new(env!("CARGO_BIN_EXE_purgewatch"))
            .args(["ban", "-T", &address, "-S", secret.path().to_str().unwrap()])
            .args(["obj.http.x == 1", "--timeout", "1s", "--output", "json", "--retries", "5"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if signal {
            std::thread::sleep(Duration::from_millis(400));
            let id = process.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        }
        let output = process.wait_with_output().unwrap();
        check_code(&output, if signal { 130 } else { 3 }, "");
        assert!(!text(&output.stderr).contains("unknown"), "{}", text(&output.stderr));
        let node = &json(&output)["nodes"][0];
        assert_eq!((&node["unknown"], &node["not_taken"]), (&0.into(), &1.into()), "{node}");
    }
}

#[test]
fn what_was_held_back_after_a_foreign_reply_was_not_sent() {
    let peer = Faulty::answering(b"200 19      \nPONG 1613397488 1.0\n");
    let bans: String = (0..20_000).map(|n| format!("obj.http.x == {n}\n")).collect();
    let address = peer.address.to_string();
    let output = purgewatch(&["ban", "-T", &address, "--output", "json"], &[], &bans);
    check_code(&output, 3, "not sent, because the replies of this node cannot be relied on");
    let node = &json(&output)["nodes"][0];
    let (unknown, not_taken) = (&node["unknown"], &node["not_taken"]);
    assert_eq!(unknown.as_u64().unwrap() + not_taken.as_u64().unwrap(), 20_000);
    assert!((1..5_000).contains(&unknown.as_u64().unwrap()), "{unknown}");
}
