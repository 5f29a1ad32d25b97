//! A real varnishd that dials in (`varnishd -M`).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command as Process;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use purgewatch::admin::{
    Acceptor, AdminError, Client, Kind, Note, Options, SecretSource, Stage, Target, check_path,
};
use purgewatch::model::{NodeName, Secret};
use purgewatch::protocol::Command;

use crate::support::daemon::{Daemon, QUICK, endpoint, peers};
use crate::support::faulty::Faulty;
use crate::support::varnish::{Options as Start, Varnishd, free_port};

fn node() -> NodeName {
    NodeName::new("cache-01").unwrap()
}

/// A varnishd that dials `address`, and listens for varnishadm besides.
fn dialling(address: SocketAddr, secret: Option<&[u8]>) -> Varnishd {
    Varnishd::start(Start {
        secret: secret.map(<[u8]>::to_vec),
        arguments: ["-M".to_owned(), address.to_string()].to_vec(),
        ..Start::default()
    })
}

const SECRET: &[u8] = b"a secret of the tests\n";

fn value(secret: &[u8]) -> SecretSource {
    SecretSource::Value(Secret::new(secret.to_vec()))
}

async fn listening(host: &str) -> (Acceptor, SocketAddr) {
    let acceptor = Acceptor::new(free_port(host));
    let address = acceptor.listen().await.unwrap();
    (acceptor, address)
}

fn client(acceptor: &Acceptor, secret: SecretSource) -> Client {
    let options = Options {
        backoff_first: Duration::from_millis(10),
        backoff_most: Duration::from_millis(10),
        ..Options::default()
    };
    Client::new(Target::reverse(node(), acceptor.clone(), secret), options)
}

async fn failure(acceptor: &Acceptor, secret: SecretSource, limit: Duration) -> AdminError {
    let options = Options { dial_in: limit, ..Options::default() };
    let target = Target::reverse(node(), acceptor.clone(), secret);
    check_path(&target, &options).await.unwrap_err()
}

fn ban() -> Command {
    Command::ban(["obj.http.x", "==", "y"]).unwrap()
}

#[tokio::test]
async fn one_that_dials_in_takes_bans() {
    for host in ["127.0.0.1", "::1"] {
        let (acceptor, address) = listening(host).await;
        let varnishd = dialling(address, Some(SECRET));
        let client = client(&acceptor, value(SECRET));
        client.ban(ban()).await.unwrap();
        let greeting = client.connect().await.unwrap();
        assert_eq!(greeting.peer.unwrap().ip(), address.ip());
        assert!(greeting.version.is_some() && greeting.notes.is_empty());
        assert_eq!(varnishd.bans(), ["obj.http.x == y"]);
    }
}

#[tokio::test]
async fn the_next_dial_in_is_used_when_a_connection_drops() {
    let (acceptor, address) = listening("127.0.0.1").await;
    let mut varnishd = dialling(address, Some(SECRET));
    let client = client(&acceptor, value(SECRET));
    client.ping().await.unwrap();
    varnishd.restart();
    // One that was under way when the connection ended may fail; the next one finds the new one.
    let _ = client.ping().await;
    client.ping().await.unwrap();
    let first = client.connect().await.unwrap().peer;
    client.request(Command::quit()).await.unwrap();
    client.ping().await.unwrap();
    assert_ne!(client.connect().await.unwrap().peer, first, "varnishd dialled again");
}

#[tokio::test]
async fn strangers_on_the_port_keep_nobody_out() {
    let (acceptor, address) = listening("127.0.0.1").await;
    // Before varnishd: silent ones, as many as there is room for and more, and noisy ones.
    let mut strangers: Vec<_> = (0..70).map(|_| TcpStream::connect(address).unwrap()).collect();
    for n in 0..20 {
        let mut stranger = TcpStream::connect(address).unwrap();
        let words: &[u8] = if n % 2 == 0 { b"GET / HTTP/1.1\r\n\r\n" } else { b"107 " };
        stranger.write_all(words).unwrap();
        strangers.push(stranger);
    }
    let varnishd = dialling(address, Some(SECRET));
    // And one that claims to need no secret.
    let mut open = TcpStream::connect(address).unwrap();
    open.write_all(b"200 29      \nvarnish-7.1.1 revision 7cee1c\n").unwrap();
    let client = client(&acceptor, value(SECRET));
    let start = Instant::now();
    client.ban(ban()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(varnishd.bans(), ["obj.http.x == y"]);
    drop(strangers);
}

/// A hundred a second, for as long as it takes.
#[tokio::test]
async fn a_flood_of_strangers_keeps_nobody_out() {
    let (acceptor, address) = listening("127.0.0.1").await;
    let (stop, stopped) = channel::<()>();
    let flood = std::thread::spawn(move || {
        let mut held = Vec::new();
        while held.len() < 1_000 && stopped.try_recv() == Err(TryRecvError::Empty) {
            held.extend(TcpStream::connect_timeout(&address, Duration::from_secs(1)));
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let varnishd = dialling(address, Some(SECRET));
    let client = client(&acceptor, value(SECRET));
    let start = Instant::now();
    client.ban(ban()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(stop);
    assert_eq!(varnishd.bans(), ["obj.http.x == y"]);
    flood.join().unwrap();
}

#[tokio::test]
async fn without_anybody_the_wait_has_a_limit() {
    let (acceptor, address) = listening("127.0.0.1").await;
    let limit = Duration::from_millis(300);
    let error = failure(&acceptor, value(SECRET), limit).await;
    assert_eq!(error.kind, Kind::NotDialled { address, limit });
    assert_eq!((error.label(), &error.stage), ("not_dialled", &Stage::Accept));
    // Two that wait: each within its own limit.
    let start = Instant::now();
    let other = acceptor.clone();
    let (one, two) = tokio::join!(
        failure(&acceptor, value(SECRET), limit),
        failure(&other, value(SECRET), limit)
    );
    assert_eq!((one.label(), two.label()), ("not_dialled", "not_dialled"));
    assert!(start.elapsed() < 2 * limit);
}

#[tokio::test]
async fn a_peer_that_asks_for_no_secret_is_refused_where_there_is_one() {
    let (acceptor, address) = listening("127.0.0.1").await;
    let _varnishd = dialling(address, None);
    let error = failure(&acceptor, value(SECRET), Duration::from_secs(2)).await;
    assert_eq!((error.label(), error.kind), ("secret_not_asked", Kind::SecretNotAsked));
    let client = client(&acceptor, SecretSource::None);
    assert_eq!(client.connect().await.unwrap().notes, [Note::NoSecretAsked]);
    client.ban(ban()).await.unwrap();
}

#[tokio::test]
async fn a_wrong_secret_is_said_and_a_new_one_used_at_once() {
    let (acceptor, address) = listening("127.0.0.1").await;
    let varnishd = dialling(address, Some(SECRET));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, b"wrong").unwrap();
    let source = || SecretSource::File(file.clone());
    let error = failure(&acceptor, source(), Duration::from_secs(2)).await;
    assert_eq!((error.label(), &error.stage), ("secret_refused", &Stage::Authenticate));
    // Rotated on both sides, while the listener lives.
    for secret in [b"second\n", b"third\n\n"] {
        fs::write(varnishd.secret_file(), secret).unwrap();
        fs::write(&file, secret).unwrap();
        check_path(&Target::reverse(node(), acceptor.clone(), source()), &Options::default())
            .await
            .unwrap();
    }
    fs::remove_file(&file).unwrap();
    let start = Instant::now();
    let error = failure(&acceptor, source(), Duration::from_secs(15)).await;
    assert_eq!(error.label(), "secret_unreadable");
    assert!(start.elapsed() < Duration::from_secs(12), "nobody waits for what cannot come");
}

#[tokio::test]
async fn an_address_in_use_is_said_to_be() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let acceptor = Acceptor::new(holder.local_addr().unwrap());
    let error = failure(&acceptor, value(SECRET), Duration::from_secs(5)).await;
    assert_eq!((error.label(), &error.stage), ("listen", &Stage::Accept));
    assert!(error.to_string().contains("another program listens on"), "{error}");
    drop(holder);
    let error = failure(&acceptor, value(SECRET), Duration::from_millis(50)).await;
    assert_eq!(error.label(), "not_dialled", "free again");
}

/// The daemon's own connection goes on through reloads, loss and rotation of the secret; a command
/// beside it says why it cannot have one.
#[test]
fn the_daemon_checks_the_connection_that_varnishd_made() {
    let address = free_port("127.0.0.1");
    let mut varnishd = dialling(address, Some(SECRET));
    let origin = Faulty::start(|peer| {
        peer.line();
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    });
    let admin = format!("admin = \"{}\"", varnishd.admin);
    let config = |listen: &str| {
        let peers = peers(&varnishd, origin.address).replace(&admin, listen);
        format!("{QUICK}{peers}{}", endpoint("home", "/", ""))
    };
    let listen = format!("admin_listen = \"{address}\"");
    let daemon = Daemon::start(&config(&listen));
    let up = |expected: &str| {
        let deadline = Instant::now() + Duration::from_secs(25);
        loop {
            let metrics = daemon.get("/metrics").map(|(_, text)| text).unwrap_or_default();
            let line = format!("purgewatch_node_admin_up{{node=\"cache-01\"}} {expected}\n");
            if metrics.contains(&line) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "not {expected}:\n{metrics}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    up("1");

    // From a shell, meanwhile.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("purgewatch.toml");
    fs::write(&path, config(&listen)).unwrap();
    let ban = || {
        Process::new(env!("CARGO_BIN_EXE_purgewatch"))
            .args(["ban", "-c", path.to_str().unwrap(), "obj.http.x == y"])
            .output()
            .unwrap()
    };
    let refused = ban();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{text}");
    assert!(text.contains("the running daemon as a rule"), "{text}");

    // A reload that changes the settings keeps the port.
    daemon.reload(&format!("{}\n", config(&format!("{listen}\nconnections = 3"))));
    daemon.reload(&config(&listen).replace("admin_timeout = \"1s\"", "admin_timeout = \"2s\""));
    std::thread::sleep(Duration::from_millis(500));
    up("1");
    varnishd.stop();
    let metrics = up("0");
    assert!(
        metrics.contains(
            "purgewatch_node_admin_failures_total{node=\"cache-01\",reason=\"listen\"} 0"
        ),
        "{metrics}"
    );
    varnishd.start_again();
    up("1");

    // The port is free when the daemon has gone: then a command listens itself.
    drop(daemon);
    let taken = ban();
    let text = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!(taken.status.code(), Some(0), "{text}");
    assert_eq!(String::from_utf8_lossy(&taken.stdout), "cache-01: taken: obj.http.x == y\n");
}

/// The port is closed with the last clone.
#[tokio::test]
async fn the_port_closes_with_its_last_user() {
    let (acceptor, address) = listening("127.0.0.1").await;
    let client = client(&acceptor, SecretSource::None);
    drop(acceptor);
    assert!(TcpStream::connect(address).is_ok());
    drop(client);
    let mut refused = TcpStream::connect(address);
    if let Ok(stream) = &mut refused {
        assert!(stream.read(&mut [0]).is_err());
    }
}
