//! Bans that a node missed, with real varnishd processes and the built program on both sides.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, PURGEWATCH, QUICK, endpoint, peers, purgewatch};
use crate::support::origin::{Origin, Response};
use crate::support::relay::Relay;
use crate::support::varnish::{Options, Varnishd};

/// A varnishd behind a path that can be blocked, and a daemon with a socket.
struct Stage {
    _origin: Origin,
    varnishd: Varnishd,
    path: Relay,
    daemon: Daemon,
    place: tempfile::TempDir,
}

impl Stage {
    fn set() -> Self {
        let origin = Origin::start();
        origin.serve("/", Response::ok("hello").header("Cache-Control", "max-age=3600"));
        origin.serve("/pin", Response::ok("pin").header("Cache-Control", "max-age=3600"));
        // Bans stay on the list, and the list is shown whole.
        let arguments =
            ["-p", "ban_lurker_sleep=0", "-p", "cli_limit=1m"].map(str::to_owned).into();
        let backend = Some(origin.address);
        let varnishd = Varnishd::start(Options { backend, arguments, ..Options::default() });
        let path = Relay::open(varnishd.admin);
        let place = tempfile::tempdir().unwrap();
        let peers = peers(&varnishd, origin.address)
            .replace(&varnishd.admin.to_string(), &path.address.to_string());
        let socket = format!("socket = \"{}\"\n", place.path().join("s.sock").display());
        let daemon = Daemon::start(&(socket + QUICK + &peers + &endpoint("e", "/", "")));
        let stage = Self { _origin: origin, varnishd, path, daemon, place };
        stage.pin();
        // The daemon has seen which processes there are.
        stage.daemon.wait("the admin port answers", || {
            stage.daemon.metric("purgewatch_node_admin_up", &[]) == Some(1.0)
        });
        stage
    }

    /// Caches an object that nobody asks for again: bans made after it stay on the list.
    fn pin(&self) {
        assert!(self.varnishd.get("pin.example.com", "/pin").starts_with("HTTP/1.1 200"));
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("s.sock")
    }

    /// `purgewatch ban` with the daemon's configuration.
    fn ban(&self, further: &[&str]) -> Output {
        let config = self.daemon.config();
        let mut arguments = vec!["ban", "-c", config.to_str().unwrap(), "--retries", "0"];
        arguments.extend(further);
        purgewatch(&arguments)
    }

    fn pending(&self) -> Option<f64> {
        self.daemon.metric("purgewatch_ledger_pending", &["node=\"cache-01\""])
    }

    /// The ledger's bans, oldest first: expression, state, reason.
    fn ledger(&self) -> Vec<(String, String, String)> {
        let (status, body) = request(&self.socket(), "GET /api/v1/bans HTTP/1.0\r\n\r\n");
        assert_eq!(status, 200, "{body}");
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(document["schema"], 1);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let bans = document["bans"].as_array().unwrap().iter().rev();
        bans.map(|ban| {
            let node = &ban["nodes"][0];
            (text(&ban["expression"]), text(&node["state"]), text(&node["reason"]))
        })
        .collect()
    }

    fn states(&self) -> Vec<String> {
        self.ledger().into_iter().map(|(_, state, _)| state).collect()
    }

    fn wait_for_states(&self, expected: &[&str]) {
        self.daemon.wait(&format!("the ledger says {expected:?}"), || self.states() == expected);
    }

    /// The bans on the node's list, oldest first, the one that varnishd itself makes left out.
    fn on_the_list(&self) -> Vec<String> {
        let mut bans = self.varnishd.bans();
        bans.reverse();
        bans.into_iter().filter(|ban| ban.starts_with("obj.")).collect()
    }
}

/// One exchange on a socket: status and body.
fn request(socket: &Path, bytes: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Who is refused early may not be listened to until the end.
    let _ = stream.write_all(bytes.as_bytes());
    answer(stream)
}

fn answer(mut stream: impl Read) -> (u16, String) {
    let mut answer = Vec::new();
    // A server that refuses a long body may reset the connection behind its answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
}

fn post(socket: &Path, body: &str) -> (u16, String) {
    let length = body.len();
    let head = "POST /api/v1/bans HTTP/1.1\r\nHost: x\r\nConnection: close";
    request(socket, &format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_node_that_was_out_of_reach_gets_its_bans_in_order() {
    let stage = Stage::set();
    assert_eq!(stage.pending(), Some(0.0));
    stage.path.set_blocked(true);
    for ban in ["obj.http.x == 1", "obj.http.x == 2", "obj.http.x == 2", "obj.http.x == 3"] {
        let output = stage.ban(&[ban]);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let told = stderr(&output);
        assert!(!told.contains("cannot be told"), "{told}");
        assert!(told.contains("the daemon keeps what cache-01 missed"), "{told}");
    }
    assert_eq!(stage.pending(), Some(4.0));
    let config = stage.daemon.config();
    let status = || purgewatch(&["status", "-c", config.to_str().unwrap()]);
    stage.daemon.wait("status says that it is blocked", || status().status.code() == Some(3));
    let told = String::from_utf8(status().stdout).unwrap();
    for said in ["cache-01 has missed 4 bans", "bans cannot reach cache-01: ", "1 admin port down"]
    {
        assert!(told.contains(said), "{said:?} is not in\n{told}");
    }
    let (_, page) = stage.daemon.get("/").unwrap();
    assert!(page.contains("Waiting for nodes: 4 bans."), "{page}");
    assert_eq!(stage.ledger()[0], ("obj.http.x == 1".into(), "pending".into(), "silent".into()));
    let oldest = "purgewatch_ledger_oldest_pending_timestamp_seconds";
    assert!(stage.daemon.metric(oldest, &["node=\"cache-01\""]).unwrap() > 1.7e9);
    assert_eq!(stage.on_the_list(), [""; 0]);

    stage.path.set_blocked(false);
    stage.wait_for_states(&["taken"; 4]);
    assert_eq!(stage.on_the_list(), ["obj.http.x == 1", "obj.http.x == 2", "obj.http.x == 3"]);
    stage.daemon.wait("nothing is pending", || stage.pending() == Some(0.0));
    assert_eq!(stage.daemon.metric(oldest, &["node=\"cache-01\""]), None);
    let bans = |result: &str| {
        let result = format!("result=\"{result}\"");
        stage.daemon.metric("purgewatch_bans_total", &["source=\"command\"", &result])
    };
    assert_eq!((bans("accepted"), bans("unreachable")), (Some(3.0), Some(4.0)));
    assert!(stage.daemon.log().contains("cache-01 has taken"), "{}", stage.daemon.log());
    // Delivered once: later checks bring nothing more.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(stage.on_the_list().len(), 3);
}

#[test]
fn a_ban_that_was_taken_is_in_the_ledger_and_not_sent_again() {
    let stage = Stage::set();
    let output = stage.ban(&["obj.http.x == 1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stage.states(), ["taken"]);
    let output = stage.ban(&["--no-ledger", "obj.http.x == 2"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stage.states(), ["taken"]);
    // One that varnishd does not know (obj.last_hit came with 8.0) is not tried for ever.
    let output = stage.ban(&["obj.http.y == 1 && obj.last_hit > 1h"]);
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(stage.states(), ["taken", "rejected"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stage.on_the_list(), ["obj.http.x == 1", "obj.http.x == 2"]);
}

#[test]
fn a_cache_that_was_started_later_does_not_need_the_ban() {
    let mut stage = Stage::set();
    // The cache process alone.
    stage.varnishd.adm(&["stop"]);
    let output = stage.ban(&["obj.http.x == 1"]);
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    stage.varnishd.adm(&["start"]);
    stage.wait_for_states(&["void"]);
    assert_eq!(stage.ledger()[0].2, "restarted");
    // All of varnishd: nobody listens at its admin port, which a filter that rejects looks like as
    // well. The relay accepts in its place, so the node is reached directly.
    let direct = stage.daemon.config();
    let text = fs::read_to_string(&direct).unwrap();
    let (relay, admin) = (stage.path.address.to_string(), stage.varnishd.admin.to_string());
    fs::write(&direct, text.replace(&relay, &admin)).unwrap();
    stage.daemon.signal("HUP");
    stage.daemon.wait("the configuration is read again", || {
        stage.daemon.log().contains("the configuration was read again")
    });
    let checked = Instant::now();
    stage.daemon.wait("a check", || checked.elapsed() > Duration::from_secs(2));
    stage.varnishd.stop();
    let output = stage.ban(&["obj.http.x == 2"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    stage.varnishd.start_again();
    stage.wait_for_states(&["void", "taken"]);
    assert!(stage.daemon.log().contains("does not need"), "{}", stage.daemon.log());
}

#[test]
fn a_restart_that_may_have_been_before_the_ban_does_not_excuse_it() {
    let stage = Stage::set();
    stage.path.set_blocked(true);
    assert_eq!(stage.ban(&["obj.http.x == 1"]).status.code(), Some(3));
    stage.varnishd.adm(&["stop"]);
    stage.varnishd.adm(&["start"]);
    stage.pin();
    stage.path.set_blocked(false);
    stage.wait_for_states(&["taken"]);
    assert_eq!(stage.on_the_list(), ["obj.http.x == 1"]);
}

#[test]
fn a_restart_behind_a_path_that_refuses_does_not_excuse_the_ban() {
    let mut stage = Stage::set();
    let (address, admin) = (stage.path.address, stage.varnishd.admin);
    stage.path = Relay::open(admin);
    stage.varnishd.stop();
    stage.varnishd.start_again();
    stage.pin();
    let output = stage.ban(&["obj.http.x == 1"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(stage.ledger()[0].2, "refused");
    stage.path = Relay::at(address, admin);
    stage.wait_for_states(&["taken"]);
    assert_eq!(stage.on_the_list(), ["obj.http.x == 1"]);
}

#[test]
fn what_was_accepted_survives_sigkill() {
    let mut stage = Stage::set();
    stage.path.set_blocked(true);
    for at in 0..20 {
        let body = format!("{{\"bans\":[{{\"expression\":\"obj.http.x == {at}\"}}]}}");
        assert_eq!(post(&stage.socket(), &body).0, 202);
    }
    stage.daemon.kill();
    stage.daemon.start_again();
    assert_eq!(stage.states(), ["pending"; 20]);
    stage.daemon.kill();
    stage.path.set_blocked(false);
    stage.daemon.start_again();
    stage.wait_for_states(&["taken"; 20]);
    let expected: Vec<_> = (0..20).map(|at| format!("obj.http.x == {at}")).collect();
    assert_eq!(stage.on_the_list(), expected);
    // What was delivered is not delivered again after another restart.
    stage.daemon.wait("that is stored", || {
        stage.daemon.metric("purgewatch_store_pending_records", &[]) == Some(0.0)
    });
    stage.daemon.kill();
    stage.daemon.start_again();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stage.on_the_list(), expected);
}

#[test]
fn the_socket_is_for_the_group_and_replaces_only_a_dead_one() {
    let mut stage = Stage::set();
    let socket = stage.socket();
    let mode = || fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(mode(), 0o660);

    // A second daemon with the same socket watches without it, and says so.
    let peers = "[[node]]\nname = \"n\"\nhttp = \"http://127.0.0.1:9\"\n\
                 [[origin]]\nname = \"origin\"\naddress = \"http://127.0.0.1:8\"\n";
    let config = |socket: &Path| {
        format!("socket = \"{}\"\n{QUICK}{peers}{}", socket.display(), endpoint("e", "/", ""))
    };
    let second = Daemon::start(&config(&socket));
    assert!(second.log().contains("another daemon listens"), "{}", second.log());
    assert_eq!(stage.states(), [""; 0], "the first one answers");
    drop(second);
    assert_eq!(stage.states(), [""; 0]);

    // Killed, it leaves its socket behind; ended, it takes it along.
    stage.daemon.kill();
    assert!(socket.exists());
    let output = stage.ban(&["obj.http.x == 1"]);
    assert_eq!(output.status.code(), Some(0), "the ban went out all the same");
    stage.daemon.start_again();
    assert_eq!((stage.states(), mode()), (vec![], 0o660));
    assert!(stage.daemon.stop().success());
    assert!(!socket.exists());

    // Another file is nobody's to remove.
    let file = stage.place.path().join("file");
    fs::write(&file, "precious").unwrap();
    let daemon = Daemon::start(&config(&file));
    assert!(daemon.log().contains("is there and no socket"), "{}", daemon.log());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let left: Vec<_> = fs::read_dir(stage.place.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn systemd_says_where_the_socket_is() {
    let place = tempfile::tempdir().unwrap();
    let peers = "[[node]]\nname = \"n\"\nhttp = \"http://127.0.0.1:9\"\n\
                 [[origin]]\nname = \"origin\"\naddress = \"http://127.0.0.1:8\"\n";
    let config = format!("{QUICK}{peers}{}", endpoint("e", "/", ""));
    let directory = place.path().to_str().unwrap();
    let daemon = Daemon::start_within(&[("RUNTIME_DIRECTORY", directory)], &config);
    let (status, _) =
        request(&place.path().join("purgewatch.sock"), "GET /-/ready HTTP/1.0\r\n\r\n");
    assert_eq!(status, 200);
    drop(daemon);
}

#[test]
fn hostile_requests_change_nothing() {
    let stage = Stage::set();
    let socket = stage.socket();
    let endless = "a".repeat(2 * 1024 * 1024);
    for (body, expected) in [
        ("", 422),
        ("{", 422),
        ("{\"bans\":[]}", 422),
        ("{\"bans\":[{\"expression\":\"vcl.use x\"}]}", 422),
        ("{\"bans\":[{\"expression\":\"req.url == /a\\nvcl.use x\"}]}", 422),
        // One of several: none is taken.
        ("{\"bans\":[{\"expression\":\"req.url == /a\"},{\"expression\":\"x\"}]}", 422),
        ("{\"bans\":[{\"expression\":\"req.url == /a\",\"nodes\":[{\"node\":\"other\"}]}]}", 422),
        ("{\"bans\":[{\"expression\":\"req.url == /a\",\"nodes\":[]}]}", 422),
        (&*"[".repeat(500_000), 422),
        (&endless, 413),
    ] {
        let (status, said) = post(&socket, body);
        let shown: String = body.chars().take(80).collect();
        assert!(status == expected && said.len() < 2_000, "{shown}: {status} {said}");
    }
    let head = "POST /api/v1/bans HTTP/1.1\r\nHost: x\r\n";
    let chunked =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n200000\r\n{endless}\r\n0\r\n\r\n");
    let mut stream = UnixStream::connect(&socket).unwrap();
    let _ = stream.write_all(chunked.as_bytes());
    assert_eq!(answer(stream).0, 413);
    // A body that never comes, from many at a time: others are served all the same.
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).unwrap();
            stream
        })
        .collect();
    let begin = Instant::now();
    let good = "{\"bans\":[{\"expression\":\"obj.http.x == 1\"}]}";
    assert_eq!(post(&socket, good).0, 202);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    drop(slow);
    for other in ["PUT /api/v1/bans HTTP/1.0\r\n\r\n", "DELETE /api/v1/bans HTTP/1.0\r\n\r\n"] {
        assert_eq!(request(&socket, other).0, 405);
    }
    assert_eq!(request(&socket, "GET /api/v1/bans?most=0 HTTP/1.0\r\n\r\n").0, 400);
    assert_eq!(request(&socket, "POST /metrics HTTP/1.0\r\n\r\n").0, 405);
    assert_eq!(request(&socket, "\0\0\0\0\r\n\r\n").0, 400);

    // On the port, nothing can be handed in or seen.
    assert_eq!(stage.daemon.get("/api/v1/bans").unwrap().0, 404);
    let mut stream = TcpStream::connect(stage.daemon.http).unwrap();
    let length = good.len();
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{good}").unwrap();
    assert_eq!(answer(stream).0, 405);
    stage.wait_for_states(&["taken"]);
    assert_eq!(stage.on_the_list(), ["obj.http.x == 1"]);
}

#[test]
fn a_ban_is_not_held_up_by_the_daemon() {
    let mut stage = Stage::set();
    let socket = stage.socket();
    assert!(stage.daemon.stop().success());
    // Nobody there: not a word.
    let output = stage.ban(&["obj.http.x == 1"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    // Somebody who says nothing: said only where a node missed the ban.
    let silent = UnixListener::bind(&socket).unwrap();
    let begin = Instant::now();
    let output = stage.ban(&["obj.http.x == 2"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    stage.path.set_blocked(true);
    let output = stage.ban(&["obj.http.x == 3"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("the daemon cannot be told"), "{}", stderr(&output));
    drop(silent);
    // Of a daemon that is gone, its socket is left.
    let output = stage.ban(&["obj.http.x == 4"]);
    assert!(stderr(&output).contains("will not deliver 1 ban"), "{}", stderr(&output));
    fs::remove_file(&socket).unwrap();
    let output = stage.ban(&["obj.http.x == 5"]);
    assert!(
        stderr(&output).contains("nobody delivers what cache-01 missed"),
        "{}",
        stderr(&output)
    );
    assert!(PathBuf::from(PURGEWATCH).exists());
}

#[test]
fn a_ban_that_cannot_be_stored_is_not_called_accepted() {
    let mut stage = Stage::set();
    assert!(stage.daemon.stop().success());
    fs::remove_dir_all(stage.daemon.state_dir()).unwrap();
    fs::write(stage.daemon.state_dir(), b"a file where the directory belongs").unwrap();
    stage.daemon.start_again();
    stage.path.set_blocked(true);
    let output = stage.ban(&["obj.http.x == 1"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("could not store it"), "{}", stderr(&output));
    // It is known all the same, and delivered.
    stage.path.set_blocked(false);
    stage.wait_for_states(&["taken"]);
    assert_eq!(stage.on_the_list(), ["obj.http.x == 1"]);
}

#[test]
fn nodes_that_the_daemon_does_not_watch_are_named() {
    let stage = Stage::set();
    // A configuration of more nodes than the daemon has; one goes by another name there.
    let text = fs::read_to_string(stage.daemon.config()).unwrap();
    let more =
        "[[node]]\nname = \"other\"\nhttp = \"http://127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n";
    let config = stage.place.path().join("more.toml");
    fs::write(&config, text.replace("\"cache-01\"", "\"renamed\"") + more).unwrap();
    stage.path.set_blocked(true);
    let config = config.to_str().unwrap();
    let output = purgewatch(&["ban", "-c", config, "--retries", "0", "obj.http.x == 1"]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("does not watch other,") && !said.contains("watch renamed"), "{said}");
    assert_eq!(stage.pending(), Some(1.0), "known by its address");
}

#[test]
fn many_bans_are_told_at_once() {
    let stage = Stage::set();
    stage.path.set_blocked(true);
    let file = stage.place.path().join("bans");
    let lines: Vec<_> = (0..2_500).map(|at| format!("obj.http.x == {at}")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let output = stage.ban(&["--file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!stderr(&output).contains("cannot be told"), "{}", stderr(&output));
    assert_eq!(stage.pending(), Some(2_500.0));
    stage.path.set_blocked(false);
    stage.daemon.wait("nothing is pending", || stage.pending() == Some(0.0));
    assert_eq!(stage.on_the_list(), lines);
}
