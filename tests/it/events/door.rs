//! Events over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATH, Stage, cacheable, token_file, until};
use crate::support::varnish::free_port;

pub const TOKEN: &str = "Authorization: Bearer 0123456789abcdef\r\n";

/// The table for events at this address.
pub fn table(place: &Path, address: SocketAddr) -> String {
    let tokens = place.join("tokens");
    format!("[invalidations]\nlisten = \"{address}\"\ntoken_file = \"{}\"\n", tokens.display())
}

/// A stage whose daemon takes events at this address.
pub fn stage(further: &str) -> (Stage, SocketAddr) {
    let address = free_port("127.0.0.1");
    let place = tempfile::tempdir().unwrap();
    token_file(&place);
    let further = table(place.path(), address) + further;
    (Stage::set_in(place, &further), address)
}

/// One exchange: status, head and body.
fn send(address: SocketAddr, request: &str) -> (u16, String, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    exchange(stream, request)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String, String) {
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

pub fn post(address: SocketAddr, headers: &str, body: &str) -> (u16, String, String) {
    send(address, &posting(headers, body))
}

pub fn post_to_socket(path: &Path, headers: &str, body: &str) -> (u16, String, String) {
    exchange(UnixStream::connect(path).unwrap(), &posting(headers, body))
}

fn posting(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /api/v1/invalidations HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn look_up(address: SocketAddr, ticket: &str) -> (u16, String, String) {
    send(address, &asking(ticket))
}

fn asking(ticket: &str) -> String {
    format!(
        "GET /api/v1/invalidations/{ticket} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
         {TOKEN}\r\n"
    )
}

fn ticket(body: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    document["ticket"].as_str().unwrap().to_owned()
}

#[test]
fn the_answer_comes_when_the_nodes_have_answered() {
    let (stage, address) = stage("");
    stage.origin.serve(PATH, cacheable("two"));
    let (status, _, body) =
        post(address, TOKEN, r#"{"bans":["obj.http.x-model == one"],"verify":["rec"]}"#);
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("\"state\":\"settled\"") && body.contains("\"result\":\"taken\""),
        "{body}"
    );
    assert_eq!(stage.body(), "two");
    stage.origin.serve(PATH, cacheable("three"));
    let (status, _, body) = post(address, TOKEN, r#"{"endpoints":["rec"],"prove":"20s"}"#);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"result\":\"proven\""), "{body}");
    // Not proven: somebody behind us did not do it.
    stage.origin.serve(PATH, cacheable("four"));
    let event = r#"{"bans":["obj.http.x-model == nope"],"verify":["rec"],"prove":"1s"}"#;
    let (status, _, body) = post(address, TOKEN, event);
    assert_eq!(status, 502, "{body}");
    stage.daemon.wait("all are counted", || {
        stage.results("http", "taken") == Some(1.0)
            && stage.results("http", "proven") == Some(1.0)
            && stage.results("http", "unproven") == Some(1.0)
    });
}

#[test]
fn who_may_not_is_refused() {
    let (stage, address) = stage("");
    let event = r#"{"bans":["obj.http.x-model == one"]}"#;
    for header in
        ["", "Authorization: Bearer wrong-wrong-wrong\r\n", "Authorization: Basic eA==\r\n"]
    {
        let (status, head, _) = post(address, header, event);
        assert_eq!(status, 401, "{header}");
        assert!(head.to_lowercase().contains("www-authenticate: bearer"), "{head}");
    }
    let (status, _, body) = post(address, TOKEN, "{\"bans\":[]}");
    assert_eq!(status, 422, "{body}");
    let (status, _, body) = post(address, TOKEN, r#"{"endpoints":["nope"]}"#);
    assert_eq!((status, body.trim()), (422, "no endpoint nope is watched on this host"));
    let (status, ..) = post(address, TOKEN, r#"{"bans":["obj.http.x == 1\nvcl.use boot"]}"#);
    assert_eq!(status, 422);
    let form = format!("{TOKEN}Content-Type: text/plain\r\n");
    assert_eq!(post(address, &form, event).0, 415);
    let large = format!("{{\"bans\":[\"obj.http.x == {}\"]}}", "a".repeat(300_000));
    assert_eq!(post(address, TOKEN, &large).0, 413);
    assert_eq!(look_up(address, "0123").0, 404);
    let (status, head, _) = send(
        address,
        &format!(
            "DELETE /api/v1/invalidations HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{TOKEN}\r\n"
        ),
    );
    assert_eq!(status, 405, "{head}");
    assert_eq!(
        send(address, "GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").0,
        404
    );
    assert_eq!(stage.bans("obj.http.x"), [""; 0]);
    // The token is said nowhere.
    assert!(!stage.daemon.log().contains("0123456789abcdef"));
    assert!(!stage.daemon.log().contains("wrong-wrong"));
}

#[test]
fn a_ticket_tells_later() {
    let (stage, address) = stage("");
    stage.path.set_blocked(true);
    let headers = format!("{TOKEN}Prefer: respond-async\r\n");
    let (status, head, body) = post(address, &headers, r#"{"bans":["obj.http.x-model == one"]}"#);
    assert_eq!(status, 202, "{body}");
    assert!(body.contains("\"state\":\"pending\"") && body.contains("\"stored\":true"), "{body}");
    let ticket = &*ticket(&body);
    assert!(head.contains(&format!("/api/v1/invalidations/{ticket}")), "{head}");
    assert_eq!(look_up(address, ticket).0, 202);
    let applied = |head: &str| {
        let head = head.to_lowercase();
        let line = head.lines().find_map(|line| line.strip_prefix("preference-applied: "));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!(applied(&head), "respond-async");
    // Who waits for a while, or not at all, is told the same.
    for preference in ["wait=1", "wait=0"] {
        let headers = format!("{TOKEN}Prefer: {preference}\r\n");
        let (status, head, _) = post(address, &headers, r#"{"bans":["obj.http.x-model == two"]}"#);
        assert_eq!((status, &*applied(&head)), (202, preference), "{head}");
    }
    stage.path.set_blocked(false);
    until("it has settled", || look_up(address, ticket).0 == 200);
    assert!(look_up(address, ticket).2.contains("\"result\":\"taken\""));
    until("both were taken", || stage.bans("obj.http.x-model").len() == 2);
}

/// What names more than all that may be open would be put off for ever.
#[test]
fn what_can_never_be_taken_in_is_refused_with_the_reason() {
    let many: String = (1..=200)
        .map(|n| {
            format!(
                "[[node]]\nname = \"far-{n}\"\nhttp = \"http://127.0.9.{n}:9\"\n\
                 admin = \"127.0.9.{n}:10\"\nsecret_file = \"/nowhere\"\n\
                 admin_interval = \"1h\"\n"
            )
        })
        .collect();
    let (stage, address) = stage(&format!("{}{many}", super::STREAM));
    stage.wait_for_up("inv");
    let bans: Vec<_> = (0..1_000).map(|n| format!("\"obj.http.x-model == m{n}\"")).collect();
    let event = format!("{{\"bans\": [{}]}}", bans.join(","));
    let (status, _, body) = post(address, TOKEN, &event);
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("it has to be sent in parts"), "{body}");
    let id = stage.add(&["event", &event]);
    stage.wait_for_confirmation(&id, "refused");
    let aside = stage.redis.cli(&["XRANGE", "inv:set-aside", "-", "+"]);
    assert!(aside.contains("names 201000 bans and endpoints"), "{aside}");
    // A part of it, as it says.
    let part = event.replacen('{', "{\"nodes\": [\"cache-01\"], ", 1);
    let id = stage.add(&["event", &part]);
    stage.wait_for_confirmation(&id, "taken");
    until("nothing waits", || stage.pending() == 0);
}

#[test]
fn no_more_than_the_rate() {
    let (_stage, address) = stage("max_rate = 2.0\n");
    let answers: Vec<u16> =
        (0..6).map(|_| post(address, TOKEN, r#"{"verify":["rec"]}"#).0).collect();
    assert!(answers.contains(&429), "{answers:?}");
    assert!(answers.iter().filter(|status| **status == 200).count() >= 2, "{answers:?}");
    // Who has no token does not use it up.
    thread::sleep(Duration::from_millis(1_100));
    for _ in 0..10 {
        assert_eq!(post(address, "", "{}").0, 401);
    }
    assert_eq!(post(address, TOKEN, r#"{"verify":["rec"]}"#).0, 200);
}

/// The port and the socket are two ways to the same desk.
#[test]
fn the_socket_knows_the_ports_tickets_and_counts_with_it() {
    let place = tempfile::tempdir().unwrap();
    token_file(&place);
    let (address, socket) = (free_port("127.0.0.1"), place.path().join("socket"));
    let table = table(place.path(), address);
    let further = format!("{table}socket = \"{}\"\nmax_rate = 4.0\n", socket.display());
    let _stage = Stage::set_in(place, &further);
    let event = r#"{"verify":["rec"]}"#;
    let (status, _, body) = post(address, TOKEN, event);
    assert_eq!(status, 200, "{body}");
    let known = exchange(UnixStream::connect(&socket).unwrap(), &asking(&ticket(&body)));
    assert_eq!(known.0, 200, "{known:?}");
    assert_eq!(post_to_socket(&socket, "", event).0, 401);
    // As many as it lets in at once, and what comes anew meanwhile: not so many at each.
    thread::sleep(Duration::from_millis(1_100));
    let begin = Instant::now();
    let at_each = (0..4).map(|_| {
        let asked = asking("none");
        (send(address, &asked).0, exchange(UnixStream::connect(&socket).unwrap(), &asked).0)
    });
    let answers: Vec<u16> = at_each.flat_map(|(port, socket)| [port, socket]).collect();
    let let_in = answers.iter().filter(|status| **status == 404).count();
    let more = 4.0 * begin.elapsed().as_secs_f64();
    assert!(let_in >= 4 && (let_in as f64) <= 4.0 + more, "{answers:?}");
}

/// A node that is away makes senders wait, and not keep each other out.
#[test]
fn those_that_wait_leave_room_for_others() {
    let (stage, address) = stage("max_rate = 1000\n");
    stage.path.set_blocked(true);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..80)
            .map(|n| {
                scope.spawn(move || {
                    let event = format!("{{\"bans\":[\"obj.http.x-model == m{n}\"]}}");
                    let begin = Instant::now();
                    let (status, _, body) = post(address, TOKEN, &event);
                    (status, body, begin.elapsed())
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(5));
        let begin = Instant::now();
        let headers = format!("{TOKEN}Prefer: respond-async\r\n");
        let (status, _, body) = post(address, &headers, r#"{"bans":["obj.http.x == 1"]}"#);
        assert_eq!(status, 202, "{body}");
        assert_eq!(look_up(address, &ticket(&body)).0, 202);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        stage.path.set_blocked(false);
        let answers: Vec<_> = waiting.into_iter().map(|sender| sender.join().unwrap()).collect();
        // Half of the connections waited for the node; the others have tickets, and soon.
        let at_once = answers.iter().filter(|(status, ..)| *status == 202);
        assert_eq!(at_once.clone().count(), 80 - 32, "{answers:?}");
        for (_, body, after) in at_once {
            assert!(*after < Duration::from_secs(10), "{after:?}");
            assert!(body.contains("\"stored\":true"), "{body}");
        }
        assert!(answers.iter().all(|(status, ..)| [200, 202].contains(status)), "{answers:?}");
    });
    until("all are taken", || stage.bans("obj.http.x-model == m").len() == 80);
}
