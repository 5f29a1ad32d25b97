//! The same command lines through both programs: the same output and the same status.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::{command, ended, ours, text};
use crate::support::varnish::{Options, Varnishd, free_port};

/// What varnishd says of itself, of the time and of its processes differs between two of them.
fn without_what_differs(text: &str, varnishd: &Varnishd) -> String {
    let mut text = text.replace(varnishd.dir().to_str().unwrap(), "DIR");
    for (address, name) in [(varnishd.http, "HTTP"), (varnishd.admin, "ADMIN")] {
        text = text.replace(&address.to_string(), name);
        text = text.replace(&address.port().to_string(), name);
    }
    // Times are seconds since the epoch, of ten digits, with and without a fraction.
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (number, after) = number.split_at(end);
        let whole = number.split('.').next().unwrap();
        plain.push_str(before);
        plain.push_str(if whole.len() == 10 { "TIME" } else { number });
        rest = after;
    }
    plain.push_str(rest);
    let lines = plain.split('\n').map(|line| {
        let process = ["Master:", "Worker:"].iter().find(|name| line.starts_with(**name));
        process.map_or(line.to_owned(), |name| format!("{name} PID"))
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    ["\"master\": ", "\"worker\": "].iter().fold(text, |text, name| {
        let Some((before, after)) = text.split_once(name) else { return text };
        let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{before}{name}PID{after}")
    })
}

struct Twins {
    theirs: Varnishd,
    ours: Varnishd,
    program: std::path::PathBuf,
}

impl Twins {
    fn start() -> Self {
        let vcl = "backend default none;
            sub vcl_backend_error { set beresp.status = 200; set beresp.ttl = 1h; return (deliver); }";
        let start = || {
            let options = Options { vcl: Some(vcl.to_owned()), ..Options::default() };
            let varnishd = Varnishd::start(options);
            // With an object in the cache, bans stay on their list.
            assert!(varnishd.get("h", "/").starts_with("HTTP/1.1 200"));
            std::fs::write(varnishd.dir().join("good.vcl"), "vcl 4.1; backend b none;").unwrap();
            std::fs::write(varnishd.dir().join("bad.vcl"), "vcl 4.1; backen b none;").unwrap();
            varnishd
        };
        let (theirs, ours_) = (start(), start());
        // Called by the name of the other program, it has to be that program.
        let program = ours_.dir().join("varnishadm");
        symlink(ours(), &program).unwrap();
        Self { theirs, ours: ours_, program }
    }

    /// Runs a command line through both; `DIR` and `ADMIN` in it stand for those of each.
    fn run(&self, arguments: &[&str]) -> [(Option<i32>, String, String); 2] {
        let theirs = (Path::new("varnishadm"), &self.theirs);
        let ours = (self.program.as_path(), &self.ours);
        [theirs, ours].map(|(program, varnishd)| {
            let dir = varnishd.dir().to_str().unwrap();
            let mut command = command(program);
            for argument in arguments {
                let argument = argument.replace("DIR", dir);
                let argument = argument.replace("PORT", &varnishd.admin.port().to_string());
                command.arg(argument.replace("ADMIN", &varnishd.admin.to_string()));
            }
            let (status, out, err) = ended(&command.output().unwrap());
            let plain = |text: &str| without_what_differs(text, varnishd);
            (status, plain(&out), plain(&err))
        })
    }

    /// A command: status, stdout and stderr are the same.
    #[track_caller]
    fn command(&self, words: &[&str]) {
        let [theirs, ours] = self.run(&[&["-T", "ADMIN", "-S", "DIR/secret"], words].concat());
        assert_eq!(ours, theirs, "{words:?}");
    }

    /// No answer: status and stdout are the same, and stderr begins with the same words.
    #[track_caller]
    fn failure(&self, arguments: &[&str], status: i32) {
        let [theirs, ours] = self.run(arguments);
        assert_eq!((ours.0, &ours.1), (theirs.0, &theirs.1), "{arguments:?}: {ours:?}");
        assert_eq!(ours.0, Some(status), "{arguments:?}");
        assert!(ours.2.starts_with(theirs.2.trim_end()), "{arguments:?}: {ours:?} {theirs:?}");
    }
}

#[test]
fn the_same_command_lines_do_the_same() {
    let twins = Twins::start();
    let lines: &[&[&str]] = &[
        &["ping"],
        &["ping", "1"],
        &["ping", "-j"],
        &["--", "-ping"],
        &["\\x70ing"],
        &["ping", "a", "b", "c"],
        &["-p", "ping"],
        &["-t", "2", "ping"],
        &["-t", "0.5", "ping"],
        &["-t2", "-p", "ping"],
        &["--", "ping"],
        &["  ping  "],
        &["status"],
        &["status", "-j"],
        &["-p", "status"],
        &["banner"],
        &["pid"],
        &["pid", "-j"],
        &["help"],
        &["help", "-j"],
        &["help", "ban"],
        &["help", "nonsense"],
        &["help", "-a"],
        &["help -d"],
        &["nonsense"],
        &["-p", "nonsense"],
        &["Ping"],
        &["a\"b"],
        &["ban", "a\\.b", "~", "x"],
        &["vcl.list"],
        &["vcl.list", "-j"],
        &["vcl.load", "good", "DIR/good.vcl"],
        &["vcl.load", "good", "DIR/good.vcl"],
        &["vcl.load", "bad", "DIR/bad.vcl"],
        &["vcl.load", "none", "DIR/none.vcl"],
        &["vcl.inline", "inline", "vcl\\x204.1;\\x20backend\\x20b\\x20none;"],
        &["vcl.inline", "here", "<< EOF\nvcl 4.1;\nbackend b none;\nEOF"],
        &["vcl.inline", "wrong", "nonsense"],
        &["vcl.inline", "few"],
        &["vcl.label", "label", "good"],
        &["vcl.label", "label", "none"],
        &["vcl.state", "good", "cold"],
        &["vcl.state", "inline", "auto"],
        &["vcl.state", "inline", "lukewarm"],
        &["vcl.use", "inline"],
        &["vcl.use", "none"],
        &["vcl.use", "boot"],
        &["vcl.show", "good"],
        &["vcl.show", "-v", "inline"],
        &["vcl.show", "none"],
        &["vcl.deps"],
        &["vcl.discard", "inline"],
        &["vcl.discard", "boot"],
        &["vcl.discard", "none"],
        &["vcl.list"],
        &["ban", "obj.http.x", "==", "y"],
        &["ban", "req.url", "~", "\\\\.php$", "&&", "obj.age", ">", "1h"],
        &["ban obj.status == 404"],
        &["ban"],
        &["ban", "obj.hits", "==", "y"],
        &["ban", "req.url", "~", "("],
        &["ban", "req.url", "=", "y"],
        &["ban", "obj.ttl", ">", "5"],
        &["ban.list"],
        &["ban.list", "-j"],
        &["ban.list", "x", "y"],
        &["backend.list"],
        &["backend.list", "-p"],
        &["backend.list", "-j"],
        &["backend.list", "none.*"],
        &["backend.set_health", "boot.default", "sick"],
        &["backend.set_health", "boot.default", "ill"],
        &["backend.set_health", "none", "auto"],
        &["backend.set_health", "boot.default", "auto"],
        &["param.show", "cli_limit"],
        &["param.show", "-j", "cli_limit"],
        &["param.show", "changed"],
        &["param.show", "nonsense"],
        &["param.set", "cli_limit", "200b"],
        &["param.show", "-l"],
        &["-p", "param.show"],
        &["param.set", "cli_limit", "64k"],
        &["param.show"],
        &["param.show", "-j"],
        &["param.set", "cli_limit", "nonsense"],
        &["param.set", "nonsense", "1"],
        &["param.reset", "cli_limit"],
        &["storage.list"],
        &["storage.list", "-j"],
        &["panic.show"],
        &["panic.clear"],
        &["panic.clear", "-z"],
        &["start"],
        &["stop"],
        &["stop"],
        &["status"],
        &["ban", "obj.http.x", "==", "y"],
        &["nonsense"],
        &["vcl.list"],
        &["start"],
        &["status", "-j"],
        &["auth", "wrong"],
        &["quit"],
    ];
    assert!(lines.len() >= 60);
    for words in lines {
        twins.command(words);
    }
}

#[test]
fn every_way_to_name_the_target_is_understood() {
    let twins = Twins::start();
    for arguments in [
        &["-n", "DIR/work", "ping"][..],
        &["-nDIR/work", "-p", "ping"],
        &["-n", "DIR/work", "-t", "3", "nonsense"],
        &["-T", ":PORT", "-S", "DIR/secret", "ping"],
        &["-T", "127.0.0.1 PORT", "-S", "DIR/secret", "ping"],
        &["-T", "localhost:PORT", "-S", "DIR/secret", "status"],
        &["-TADMIN", "-SDIR/secret", "status"],
        &["-S", "DIR/none", "-S", "DIR/secret", "-T", "ADMIN", "status"],
    ] {
        let [theirs, ours] = twins.run(arguments);
        assert_eq!(ours, theirs, "{arguments:?}");
    }
    twins.failure(&["-n", "DIR/none", "-t", "0.1", "ping"], 2);
}

/// varnishadm takes the last one only.
#[test]
fn of_several_addresses_the_first_that_answers_is_taken() {
    let twins = Twins::start();
    let nobody = free_port("127.0.0.1").to_string();
    let arguments = ["-T", &nobody, "-T", "ADMIN", "-S", "DIR/secret", "status"];
    let [_, ours] = twins.run(&arguments);
    assert_eq!(ours, (Some(0), "Child in state running\n".to_owned(), String::new()));
}

#[test]
fn without_an_answer_the_words_are_the_same() {
    let twins = Twins::start();
    let nobody = free_port("127.0.0.1").to_string();
    let refused = ["-T", &nobody, "-S", "DIR/secret", "ping"];
    twins.failure(&refused, 2);
    twins.failure(&["-T", "ADMIN", "ping"], 2);
    twins.failure(&["-T", "ADMIN", "-S", "DIR/none", "ping"], 2);
    for dir in [twins.theirs.dir(), twins.ours.dir()] {
        std::fs::write(dir.join("wrong"), "wrong\n").unwrap();
    }
    twins.failure(&["-T", "ADMIN", "-S", "DIR/wrong", "ping"], 2);
    // The port that speaks HTTP waits for a request: both wait for a greeting, and give up.
    let http = twins.ours.http.to_string();
    twins.failure(&["-t", "1", "-T", &http, "-S", "DIR/secret", "ping"], 2);
}

#[test]
fn wrong_usage_has_the_status_of_varnishadm() {
    let twins = Twins::start();
    for arguments in
        [&["-x"][..], &["-S", "DIR/secret", "ping"], &["-n", "DIR/work", "-T", "ADMIN", "ping"]]
    {
        let [theirs, ours] = twins.run(arguments);
        assert_eq!((ours.0, &ours.1), (theirs.0, &theirs.1), "{arguments:?}");
        assert!(ours.2.contains("Usage: ") || ours.2.contains("with -T"), "{}", ours.2);
    }
    let help = command(&twins.program).arg("-h").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Usage: varnishadm"), "{}", text(&help.stdout));
    let version = command(&twins.program).arg("-V").output().unwrap();
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}
