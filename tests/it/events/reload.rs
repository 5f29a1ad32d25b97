//! Events through reloads: as a whole, or not at all.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::door::{TOKEN, post, post_to_socket, stage, table};
use super::{Stage, until};
use crate::support::redis::PASSWORD;
use crate::support::varnish::free_port;

const EVENT: &str = r#"{"verify":["rec"]}"#;
const OTHER: &str = "[[subscription]]\nstream = \"other\"\n";
const OTHER_TOKEN: &str = "Authorization: Bearer another-token-of-16\r\n";

fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

fn status(address: SocketAddr, headers: &str) -> u16 {
    post(address, headers, EVENT).0
}

#[test]
fn tokens_are_replaced() {
    let (stage, address) = stage("");
    assert_eq!(status(address, TOKEN), 200);
    fs::write(stage.place.path().join("tokens"), "another-token-of-16\n").unwrap();
    assert!(stage.reload_same());
    assert_eq!(status(address, TOKEN), 401);
    assert_eq!(status(address, &OTHER_TOKEN.replace("Bearer", "bearer")), 200);
}

/// The port's tokens went away with the port's key, and the port took events from everybody.
#[test]
fn a_port_that_is_not_configured_any_more_takes_no_events() {
    let (stage, address) = stage("");
    let socket = stage.place.path().join("socket");
    let of_socket = format!("[invalidations]\nsocket = \"{}\"\n", socket.display());
    assert!(stage.reload(&of_socket));
    until("the port is closed", || is_closed(address));
    assert_eq!(post_to_socket(&socket, "", EVENT).0, 200);
    // The socket goes over to tokens, and then away.
    assert!(stage.reload(&format!(
        "{}socket = \"{}\"\n",
        table(stage.place.path(), address),
        socket.display()
    )));
    assert_eq!((status(address, ""), status(address, TOKEN)), (401, 200));
    assert_eq!(post_to_socket(&socket, "", EVENT).0, 401);
    assert_eq!(post_to_socket(&socket, TOKEN, EVENT).0, 200);
    assert!(stage.reload(""));
    until("the port is closed", || is_closed(address));
    assert!(!socket.exists());
}

#[test]
fn who_waits_where_it_is_closed_gets_a_ticket() {
    let (stage, address) = stage("");
    stage.path.set_blocked(true);
    thread::scope(|scope| {
        let event = r#"{"bans":["obj.http.x-model == one"]}"#;
        let waiting = scope.spawn(|| post(address, TOKEN, event));
        thread::sleep(Duration::from_secs(1));
        let begin = Instant::now();
        assert!(stage.reload(""));
        let (status, _, body) = waiting.join().unwrap();
        assert_eq!(status, 202, "{body}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    });
    stage.path.set_blocked(false);
    until("it is taken all the same", || stage.bans("obj.http.x-model == one").len() == 1);
}

#[test]
fn the_table_comes_changes_and_goes() {
    let (stage, first) = stage("");
    let second = free_port("127.0.0.1");
    let place = stage.place.path();
    let mut begun = TcpStream::connect(first).unwrap();
    begun.write_all(b"POST /api/v1/invalidations HTTP/1.1\r\nHost: h\r\n").unwrap();
    assert!(stage.reload(&table(place, second)));
    assert_eq!((status(second, ""), status(second, TOKEN)), (401, 200));
    until("the first one is closed", || is_closed(first));
    // Nor is a request let in that had begun before.
    let _ = write!(begun, "{TOKEN}Content-Length: {}\r\n\r\n{EVENT}", EVENT.len());
    let mut answer = Vec::new();
    let _ = begun.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
    assert!(stage.reload(""));
    until("the second one is closed", || is_closed(second));
    stage.daemon.wait("its series are gone", || stage.results("http", "taken").is_none());
    assert!(stage.reload(&format!("{}max_rate = 0.01\nmax_body = 1024\n", table(place, first))));
    let large = format!("{{\"bans\":[\"obj.http.x == {}\"]}}", "a".repeat(2_000));
    assert_eq!(post(first, TOKEN, &large).0, 413);
    assert_eq!(status(first, TOKEN), 429);
    assert!(stage.reload(&format!("{}max_rate = 100\n", table(place, first))));
    assert_eq!((post(first, TOKEN, &large).0, status(first, TOKEN)), (200, 200));
    stage.daemon.wait("both are counted", || stage.results("http", "taken") == Some(2.0));
}

/// An alert is there for reloads that did not work: it has to see them.
#[test]
fn tokens_that_cannot_be_read_are_a_fault_of_the_reload() {
    let (stage, address) = stage("");
    let file = stage.place.path().join("tokens");
    let also_other = table(stage.place.path(), address) + OTHER;
    for wrong in ["short\n", "", "# none\n"] {
        fs::write(&file, wrong).unwrap();
        assert!(!stage.reload(&also_other), "{wrong:?}");
    }
    fs::remove_file(&file).unwrap();
    assert!(!stage.reload_same());
    // All is as before.
    assert_eq!((status(address, ""), status(address, TOKEN)), (401, 200));
    assert_eq!(stage.daemon.metric("purgewatch_subscription_up", &["\"other\""]), None);
    fs::write(&file, "another-token-of-16\n").unwrap();
    assert!(stage.reload_same());
    assert_eq!((status(address, TOKEN), status(address, OTHER_TOKEN)), (401, 200));
    stage.wait_for_up("other");
}

#[test]
fn a_place_that_is_taken_is_a_fault_of_the_reload() {
    let (stage, address) = stage("");
    let place = stage.place.path();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = table(place, other.local_addr().unwrap()) + OTHER;
    assert!(!stage.reload(&taken));
    assert!(stage.daemon.log().contains("is in use"), "{}", stage.daemon.log());
    // Nor can it be listened on twice.
    let overlap = table(place, format!("0.0.0.0:{}", address.port()).parse().unwrap());
    assert!(!stage.reload(&overlap));
    assert!(stage.daemon.log().contains("or restart"), "{}", stage.daemon.log());
    // What could have been opened is closed again.
    let free = free_port("127.0.0.1");
    let no_socket = place.join("tokens");
    let half = format!("{}socket = \"{}\"\n", table(place, free), no_socket.display());
    assert!(!stage.reload(&half));
    until("it is closed", || is_closed(free));
    assert!(no_socket.exists());
    assert_eq!((status(address, ""), status(address, TOKEN)), (401, 200));
    // Once it can be had, the same configuration is taken over.
    assert!(!stage.reload(&taken));
    drop(other);
    assert!(stage.reload_same());
    until("the old one is closed", || is_closed(address));
    stage.wait_for_up("other");
}

#[test]
fn a_new_password_of_redis_is_read() {
    let stage = Stage::of_stream("");
    let other = format!("{PASSWORD}, the next");
    stage.redis.cli(&["CONFIG", "SET", "requirepass", &other]);
    let cli = |arguments: &[&str]| stage.redis.cli(&[&["-a", &other], arguments].concat());
    cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let is_up = || stage.daemon.metric("purgewatch_subscription_up", &["\"inv\""]);
    stage.daemon.wait("it is refused", || is_up() == Some(0.0));
    fs::write(stage.place.path().join("password"), &other).unwrap();
    assert!(stage.reload_same());
    stage.wait_for_up("inv");
    cli(&["XADD", "inv", "*", "ban", "obj.http.x-model == one"]);
    until("it is taken", || stage.bans("obj.http.x-model == one").len() == 1);
}

/// A new subscription was lost for good when the password could not be read at that moment.
#[test]
fn a_reload_that_failed_is_made_up_for_by_the_next() {
    let stage = Stage::of_stream("");
    let config = fs::read_to_string(stage.daemon.config()).unwrap();
    let config = config.split_once("[defaults]").unwrap().1;
    let both = format!("[defaults]{config}{OTHER}");
    let password = stage.place.path().join("password");
    fs::remove_file(&password).unwrap();
    let before = stage.reloads();
    stage.daemon.reload(&both);
    stage.daemon.wait("it was read", || stage.reloads() != before);
    assert!(!stage.is_reloaded());
    let id = stage.add(&["ban", "obj.http.x-model == one"]);
    stage.wait_for_confirmation(&id, "taken");
    fs::write(&password, PASSWORD).unwrap();
    assert!(stage.reload_same());
    stage.wait_for_up("other");
    stage.redis.cli(&["XADD", "other", "*", "ban", "obj.http.x-model == other"]);
    until("it is taken", || stage.bans("obj.http.x-model == other").len() == 1);
}
