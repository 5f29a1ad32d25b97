//! What stands in a file or comes through a pipe, and how its lines are answered for.

use std::sync::{Arc, Mutex};

use super::{ban, check, check_code, json, purgewatch, text, with_an_object};
use crate::support::faulty::Faulty;
use crate::support::varnish::{Options, Varnishd};

#[test]
fn the_last_line_needs_no_end() {
    let varnishd = with_an_object();
    let node = varnishd.admin;
    for (input, taken) in [
        ("obj.http.x == 1", format!("{node}: taken: obj.http.x == 1\n")),
        ("obj.http.x == 2\r", format!("{node}: taken: obj.http.x == 2\n")),
        ("obj.http.x == 3\r\n", format!("{node}: taken: obj.http.x == 3\n")),
        ("obj.http.x == 4\r\n\r\n\nobj.http.x == 5", format!("{node}: 2 of 2 bans taken\n")),
    ] {
        check(&ban(&varnishd, &["-f", "-"], input), 0, &taken, "");
    }
    let bans = [5, 4, 3, 2, 1].map(|n| format!("obj.http.x == {n}"));
    assert_eq!(varnishd.bans(), bans);
}

#[test]
fn a_line_of_a_megabyte_is_taken_whole_and_shown_in_part() {
    let varnishd = with_an_object();
    let argument = "a".repeat(1_000_000);
    let input = format!("obj.http.x == {argument}\n");
    let output = ban(&varnishd, &["-f", "-"], &input);
    let said = text(&output.stdout);
    check(&output, 0, &said, "");
    let node = varnishd.admin;
    assert!(said.starts_with(&format!("{node}: taken: obj.http.x == aaa")), "{said}");
    assert!(said.ends_with("aaa...\n") && said.len() < 500, "{said}");
    let document = json(&ban(&varnishd, &["-f", "-", "--output", "json"], &input));
    assert_eq!(document["bans"][0]["expression"], input.trim_end());
    assert_eq!(document["nodes"][0]["taken"], 1);
    // The list is cut where varnishd's `cli_limit` is: it begins with the newest one.
    let list = text(&varnishd.varnishadm(&["ban.list"]).stdout);
    assert!(list.contains("obj.http.x == aaaaaaaa") && list.len() > 40_000);

    // A regex of that size is too large for varnishd, and what is said of it is short.
    let output = ban(&varnishd, &["-f", "-"], format!("obj.http.x ~ {argument}\n"));
    check_code(&output, 2, "standard input:1: refused (regex)");
    assert!(output.stderr.len() < 500, "{}", text(&output.stderr));
}

#[test]
fn a_nul_is_refused_and_other_bytes_are_taken_as_they_are() {
    let varnishd = with_an_object();
    let output = ban(&varnishd, &["-f", "-"], b"obj.http.x == 1\nobj.http.x == a\0b\n");
    check_code(&output, 2, "standard input:2: refused (nul): a ban must not hold a NUL byte");
    assert_eq!(varnishd.bans(), [""; 0], "nothing is sent");

    let output = ban(&varnishd, &["-f", "-"], b"obj.http.x == \xff\xfe\xe9\nobj.http.x ~ ^\xe9$");
    check_code(&output, 0, "");
    let list = varnishd.varnishadm(&["ban.list"]).stdout;
    let holds = |bytes: &[u8]| list.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(b"obj.http.x == \xff\xfe\xe9\n") && holds(b"obj.http.x ~ ^\xe9$\n"));
    // What is no text is shown as escapes.
    let output = ban(&varnishd, &["-f", "-"], b"obj.http.x == \xff\x1b[2J");
    let node = varnishd.admin;
    check(&output, 0, &format!("{node}: taken: obj.http.x == \\xff\\x1b[2J\n"), "");
}

#[test]
fn what_is_no_file_of_bans_is_said() {
    let varnishd = Varnishd::start(Options::default());
    let directory = varnishd.dir().to_str().unwrap();
    let message = format!("purgewatch: {directory} cannot be read: Is a directory (os error 21)\n");
    check(&ban(&varnishd, &["--file", directory], ""), 2, "", &message);
    let binary = ban(&varnishd, &["--file", env!("CARGO_BIN_EXE_purgewatch")], "");
    check_code(&binary, 2, "bans refused: nothing was sent");
    // The largest that is read has 64 MiB; endless input ends there.
    let output = ban(&varnishd, &["--file", "/dev/zero"], "");
    check_code(&output, 2, "/dev/zero cannot be read: it has more than 67108864 bytes");
}

/// A peer that answers three bans, reads as many as can be under way, and hangs up; on the next
/// connection it answers everything. With the bans that came there.
fn lost_after_three() -> (String, Arc<Mutex<Vec<String>>>) {
    let later = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&later);
    let connections = std::sync::atomic::AtomicUsize::new(0);
    let window = purgewatch::admin::Options::default().window;
    let peer = Faulty::start(move |peer| {
        peer.greet();
        if connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            for n in 0..3 + window {
                assert!(!peer.line().is_empty(), "the client is to send {window} ahead");
                if n < 3 {
                    peer.say(b"200 0       \n\n");
                }
            }
            return;
        }
        loop {
            let line = peer.line();
            if line.is_empty() {
                return;
            }
            seen.lock().unwrap().push(line);
            peer.say(b"200 0       \n\n");
        }
    });
    (peer.address.to_string(), later)
}

#[test]
fn what_a_lost_connection_took_along_is_named_and_sent_again_only_when_asked() {
    let input: String = (1..=300).map(|n| format!("obj.http.x == {n}\n")).collect();
    let line = |n: usize| format!("ban obj.http.x == {n}\n");

    let (address, later) = lost_after_three();
    let output = purgewatch(&["ban", "-T", &address, "-f", "-", "--retries", "0"], &[], &input);
    check(
        &output,
        3,
        &format!("{address}: 172 of 300 bans taken\n"),
        &format!(
            "purgewatch: standard input:4-131: {address}: ban: the server closed the connection \
             instead of an answer; whether it was carried out is unknown (128 bans)\n"
        ),
    );
    let expected: Vec<String> = (132..=300).map(line).collect();
    assert_eq!(*later.lock().unwrap(), expected, "those after them, once");

    let (address, later) = lost_after_three();
    let arguments = ["ban", "-T", &address, "-f", "-", "--retries", "1", "--output", "jsonl"];
    let output = purgewatch(&arguments, &[], &input);
    check_code(&output, 0, "");
    let node = json(&output);
    assert_eq!((&node["result"], &node["taken"]), (&"done".into(), &300.into()), "{node}");
    assert_eq!(node["retried"], 1);
    let expected: Vec<String> = (132..=300).chain(4..=131).map(line).collect();
    assert_eq!(*later.lock().unwrap(), expected, "and then those that were unknown");

    let (address, _later) = lost_after_three();
    let arguments = ["ban", "-T", &address, "-f", "-", "--retries", "0", "--output", "jsonl"];
    let node = json(&purgewatch(&arguments, &[], &input));
    let failures = node["failures"].as_array().unwrap();
    let unknown: Vec<u64> = failures.iter().map(|f| f["line"].as_u64().unwrap()).collect();
    assert_eq!(unknown, (4..=131).collect::<Vec<_>>());
    assert!(failures.iter().all(|failure| failure["outcome"] == "unknown"));
    assert_eq!((&node["unknown"], &node["not_taken"]), (&128.into(), &0.into()));
    assert_eq!(failures[0]["expression"], "obj.http.x == 4");
}

#[test]
fn lines_that_failed_alike_are_named_by_their_stretches() {
    let varnishd = with_an_object();
    let bad = "obj.http.x ~ (?<=ab?)c\n";
    let good = "obj.http.x == 1\n";
    let input = [good, bad, "# a comment\n", bad, good, bad, good, bad, "\n", bad].concat();
    let output = ban(&varnishd, &["-f", "-"], &input);
    let node = varnishd.admin;
    check(
        &output,
        5,
        &format!("{node}: 3 of 8 bans taken\n"),
        &format!(
            "purgewatch: standard input:2-4,6,8-10: {node}: ban: varnishd answered 106 (wrong \
             argument): \"Regex compile error: lookbehind assertion is not fixed length\" (5 \
             bans)\n"
        ),
    );
    let input = [good, bad].concat().repeat(8);
    let output = ban(&varnishd, &["-f", "-"], &input);
    check_code(&output, 5, "standard input:2,4,6,8,10,...: ");
}
