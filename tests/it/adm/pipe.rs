//! Commands from standard input: all are sent, all are answered, and failures are named.

use std::io::{BufRead as _, BufReader, Write as _};

use super::{adm, command, ended, ours, text};
use crate::support::varnish::{Options, Varnishd};

/// One with an object in its cache, so that bans stay on its list, all of them.
fn with_an_object() -> Varnishd {
    let vcl = "backend none none;
        sub vcl_backend_error { set beresp.status = 200; set beresp.ttl = 1h; return (deliver); }";
    let arguments = vec!["-p".to_owned(), "cli_limit=1m".to_owned()];
    let options = Options { vcl: Some(vcl.to_owned()), arguments, ..Options::default() };
    let varnishd = Varnishd::start(options);
    assert!(varnishd.get("h", "/").starts_with("HTTP/1.1 200"));
    varnishd
}

#[test]
fn four_hundred_bans_are_all_answered() {
    let varnishd = with_an_object();
    let input: String = (0..400).map(|n| format!("ban obj.http.n == {n}\n")).collect();
    let output = adm(&varnishd, &[], input.as_bytes());
    assert_eq!(ended(&output), (Some(0), "\n".repeat(400), String::new()));
    assert_eq!(varnishd.bans().len(), 400);
}

#[test]
fn one_bad_line_among_them_is_named_and_the_others_are_applied() {
    let varnishd = with_an_object();
    let line =
        |n| if n == 250 { "ban nonsense\n".to_owned() } else { format!("ban obj.http.n == {n}\n") };
    let input: String = (1..=400).map(line).collect();
    let output = adm(&varnishd, &[], input.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "Command failed with error code 104 (line 250: ban nonsense)\n"
    );
    assert_eq!(varnishd.bans().len(), 399);
}

#[test]
fn lines_are_read_as_varnishd_reads_them() {
    let varnishd = with_an_object();
    let many = format!("ping {}\n", "x".repeat(1 << 20));
    for (input, answers) in [
        ("", 0),
        ("\n\n  \n", 0),
        ("ping", 1),
        ("ping\r\nping\r\n", 2),
        ("\n  ping\n\nping", 2),
        (many.as_str(), 1),
        ("vcl.inline here << EOF\nvcl 4.1;\nbackend b none;\nEOF\nping\n", 2),
    ] {
        let output = adm(&varnishd, &["-p"], input.as_bytes());
        let (status, out, err) = ended(&output);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{input:.60}");
        assert_eq!(out.matches("200 ").count(), answers, "{input:.60}: {out}");
    }
}

#[test]
fn what_cannot_be_sent_is_named_and_the_rest_is_done() {
    let varnishd = with_an_object();
    let output = adm(
        &varnishd,
        &[],
        b"ban obj.http.a == \xff\nban obj.http.b\0 == y\nban obj.http.c == y\n",
    );
    let (status, _, err) = ended(&output);
    assert_eq!(status, Some(1));
    assert!(err.contains("line 2") && !err.contains("line 1") && !err.contains("line 3"), "{err}");
    assert_eq!(varnishd.bans().len(), 2);
}

#[test]
fn whoever_drives_it_gets_each_answer_at_once() {
    let varnishd = with_an_object();
    let mut command = command(ours());
    command.args(["adm", "-T", &varnishd.admin.to_string(), "-S"]).arg(varnishd.secret_file());
    let mut process = command.spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    for _ in 0..3 {
        stdin.write_all(b"status\n").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "Child in state running\n");
    }
    drop(stdin);
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_stops_no_ban() {
    let varnishd = with_an_object();
    let mut command = command(ours());
    command.args(["adm", "-p", "-T", &varnishd.admin.to_string(), "-S"]);
    let mut process = command.arg(varnishd.secret_file()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    drop(process.stdout.take());
    for n in 0..400 {
        writeln!(stdin, "ban obj.http.n == {n}").unwrap();
    }
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    assert_eq!(ended(&output), (Some(0), String::new(), String::new()));
    assert_eq!(varnishd.bans().len(), 400);
}

#[test]
fn quit_ends_it_and_what_stands_behind_is_named() {
    let varnishd = with_an_object();
    let output = adm(&varnishd, &[], b"ping\nquit\n");
    let (status, out, err) = ended(&output);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.ends_with("Closing CLI connection\n"), "{out}");
    let (status, _, err) = ended(&adm(&varnishd, &[], b"ping\nquit\nping\n"));
    assert_eq!(status, Some(1));
    assert!(err.contains("line 3"), "{err}");
}
