//! The client against a scripted peer in memory, in paused time.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::admin::{Fault, Outcome, Retry, SecretSource};
use crate::model::Secret;
use crate::protocol::FrameError;

/// The server's end of a connection.
struct Peer(BufReader<DuplexStream>);

impl Peer {
    async fn say(&mut self, status: u16, body: &str) {
        self.raw(&format!("{status} {:<8}\n{body}\n", body.len())).await;
    }

    async fn raw(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// A greeting that wants no secret.
    async fn greet(&mut self) {
        self.say(200, "Varnish Cache CLI 1.0\n\nvarnish-7.1.1 revision 7cee1c5\n").await;
    }
}

fn options() -> Options {
    Options { keep_alive: None, ..Options::default() }
}

fn target(secret: SecretSource) -> Target {
    let address = "localhost:1".parse().unwrap();
    Target::at(NodeName::new("cache-01").unwrap(), address, secret)
}

fn client(options: Options) -> (Client, Peer) {
    let (ours, theirs) = duplex(1 << 16);
    (Client::over(ours, target(SecretSource::None), options), Peer(BufReader::new(theirs)))
}

fn status() -> Command {
    Command::status()
}

fn ban(value: &str) -> Command {
    Command::ban(["obj.http.x", "==", value]).unwrap()
}

fn body(reply: Result<Reply, AdminError>) -> String {
    String::from_utf8(reply.unwrap().body.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn replies_come_back_in_order() {
    let (client, mut peer) = client(options());
    let server = async {
        peer.greet().await;
        for expected in ["status", "ban obj.http.x == y", "ping"] {
            assert_eq!(peer.line().await, expected);
        }
        peer.say(200, "Child in state running").await;
        peer.say(200, "").await;
        peer.say(200, "PONG 1 1.0").await;
    };
    let (ban, ping, ()) = tokio::join!(
        async { tokio::join!(client.request(status()), client.ban(ban("y"))) },
        client.ping(),
        server
    );
    assert_eq!(body(ban.0), "Child in state running");
    assert_eq!((ban.1, ping), (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_went_away_shifts_nothing() {
    let (client, mut peer) = client(options());
    let impatient = timeout(Duration::from_secs(1), client.request(status()));
    let server = async {
        peer.greet().await;
        assert_eq!(peer.line().await, "status");
        sleep(Duration::from_secs(2)).await;
        peer.say(200, "late").await;
        assert_eq!(peer.line().await, "pid");
        peer.say(200, "in time").await;
    };
    let callers = async {
        impatient.await.unwrap_err();
        client.request(Command::pid()).await
    };
    // The second command is sent while the first is still without its reply.
    let (reply, ()) = tokio::join!(callers, server);
    assert_eq!(body(reply), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_caller_has_gone_is_not_sent() {
    let (client, mut peer) = client(options());
    timeout(Duration::from_secs(1), client.request(ban("x"))).await.unwrap_err();
    let server = async {
        peer.greet().await;
        assert_eq!(peer.line().await, "status", "and not the ban");
        peer.say(200, "here").await;
    };
    let (reply, ()) = tokio::join!(client.request(status()), server);
    assert_eq!(body(reply), "here");
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_thrown_away_and_the_connection_goes_on() {
    let (client, mut peer) = client(options());
    let server = async {
        peer.greet().await;
        assert_eq!(peer.line().await, "ban obj.http.x == a");
        sleep(Duration::from_secs(15)).await;
        peer.say(200, "").await;
        assert_eq!(peer.line().await, "status");
        peer.say(200, "mine").await;
    };
    let callers = async {
        let start = Instant::now();
        let error = client.ban(ban("a")).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        let limit = Duration::from_secs(10);
        assert_eq!(error.kind, Kind::ReplyTimedOut { limit });
        assert_eq!((error.outcome(), error.retry()), (Outcome::Unknown, Retry::Later));
        // Parked until the late reply is there.
        let reply = client.request(status()).await;
        assert_eq!(start.elapsed(), Duration::from_secs(15));
        reply
    };
    let (reply, ()) = tokio::join!(callers, server);
    assert_eq!(body(reply), "mine");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_behind_an_overdue_reply_is_given_up_unsent() {
    let (client, mut peer) = client(options());
    let callers = async {
        client.ban(ban("a")).await.unwrap_err();
        let error = client.ban(ban("b")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Waiting { limit: Duration::from_secs(10) });
        assert_eq!(error.outcome(), Outcome::NotDone);
        // 20 s after the first: 10 s later the connection is dropped, and there is no other.
        let error = client.ban(ban("c")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Waiting { limit: Duration::from_secs(10) });
        sleep(Duration::from_secs(15)).await;
        let error = client.ban(ban("d")).await.unwrap_err();
        assert_eq!((error.stage, error.kind), (Stage::Connect, Kind::Closed));
    };
    let server = async {
        peer.greet().await;
        let mut all = String::new();
        peer.0.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "ban obj.http.x == a\n");
    };
    tokio::join!(callers, server);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_pinged_and_a_dead_one_dropped() {
    let keep_alive = Some(Duration::from_secs(30));
    let (client, mut peer) = client(Options { keep_alive, ..Options::default() });
    let server = async {
        peer.greet().await;
        let start = Instant::now();
        assert_eq!(peer.line().await, "ping");
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        peer.say(200, "PONG 1 1.0").await;
        assert_eq!(peer.line().await, "ping");
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        let mut rest = Vec::new();
        peer.0.read_to_end(&mut rest).await.unwrap();
        assert_eq!((start.elapsed(), rest.len()), (Duration::from_secs(70), 0));
    };
    let (greeting, ()) = tokio::join!(client.connect(), server);
    assert_eq!(greeting.unwrap().version.unwrap().as_str(), "varnish-7.1.1");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_names_its_limit_and_the_step() {
    let deadline = Some(Duration::from_secs(2));
    let (silent, _peer) = client(Options { deadline, ..options() });
    let error = silent.ping().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cache-01: waiting for the greeting: given up at the limit of 2s on the whole"
    );
    let (slow, mut peer) = client(Options { deadline, ..options() });
    let (error, ()) = tokio::join!(slow.ban(ban("a")), peer.greet());
    assert_eq!(
        error.unwrap_err().to_string(),
        "cache-01: ban: given up at the limit of 2s on the whole; whether it was carried out is \
         unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn a_ban_answered_with_a_body_is_an_error_and_ends_the_connection() {
    let (client, mut peer) = client(options());
    let server = async {
        peer.greet().await;
        peer.line().await;
        peer.line().await;
        peer.say(200, "PONG 1795466153 1.0").await;
        peer.say(200, "").await;
        assert_eq!(peer.line().await, "", "closed");
    };
    let (first, second) = (ban("a"), ban("b"));
    let (first, second, ()) = tokio::join!(client.ban(first), client.ban(second), server);
    let first = first.unwrap_err();
    assert_eq!(
        first.to_string(),
        "cache-01: ban: the reply (200 with \"PONG 1795466153 1.0\") belongs to another command: \
         manager and cache process of this node are out of step until the cache process is \
         restarted; whether it was carried out is unknown"
    );
    assert_eq!((first.label(), first.fault()), ("foreign_reply", Fault::Unreliable));
    assert_eq!(second.unwrap_err().kind, Kind::Dropped);
}

#[tokio::test(start_paused = true)]
async fn limits_may_be_as_long_as_they_like() {
    let ever = Duration::MAX;
    let (client, mut peer) = client(Options {
        connect: ever,
        authenticate: ever,
        reply: ever,
        deadline: Some(ever),
        keep_alive: Some(ever),
        overdue: ever,
        backoff_first: ever,
        backoff_most: ever,
        window: usize::MAX,
        ..Options::default()
    });
    let server = async {
        peer.greet().await;
        peer.line().await;
        peer.say(200, "").await;
    };
    assert_eq!(tokio::join!(client.ban(ban("a")), server).0, Ok(()));
    drop(peer);
    client.ban(ban("a")).await.unwrap_err();
    let address = "127.0.0.1:1".parse().unwrap();
    crate::net::dial(&address, ever).await.unwrap_err();
}

/// What a ban comes to when the peer does `script` after reading it.
async fn ban_against(script: &[&str]) -> AdminError {
    let (client, mut peer) = client(Options { body_limit: 1_000, ..options() });
    let server = async move {
        peer.greet().await;
        assert_eq!(peer.line().await, "ban obj.http.x == a");
        for text in script {
            peer.raw(text).await;
        }
        // Whatever follows a 101 is answered; then the connection closes.
        let closes = script.is_empty();
        if !closes && peer.line().await == "status" {
            peer.say(200, "Child in state stopped").await;
        }
    };
    tokio::join!(client.ban(ban("a")), server).0.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn every_bad_end_of_a_ban_has_its_own_kind() {
    use Outcome::{NotDone, Unknown};
    let cases: &[(&[&str], &str, Outcome, Retry)] = &[
        (&["106 5       \nwrong\n"], "rejected", NotDone, Retry::Never),
        (&["104 0       \n\n"], "rejected", NotDone, Retry::Never),
        (&["300 0       \n\n"], "rejected", NotDone, Retry::Never),
        (&["999 0       \n\n"], "rejected", Unknown, Retry::Never),
        (&["101 0       \n\n"], "child_not_running", NotDone, Retry::Later),
        (&["400 29      \nCLI communication error (hdr)\n"], "child_lost", Unknown, Retry::Later),
        (&[], "closed", Unknown, Retry::NewConnection),
        (&["201 1       \nx\n"], "foreign_reply", Unknown, Retry::Never),
        (&["200 1001    \n"], "too_long", Unknown, Retry::Never),
        (&["HTTP/1.1 400 Bad Request\r\n"], "not_varnish", Unknown, Retry::Never),
    ];
    for (script, label, outcome, retry) in cases {
        let error = ban_against(script).await;
        let got = (error.label(), error.outcome(), error.retry());
        assert_eq!(got, (*label, *outcome, *retry), "{script:?}: {error}");
        assert!(crate::admin::LABELS.contains(&error.label()));
    }
    let closing = ban_against(&["500 4       \ndone\n"]).await;
    let status = Status::CLOSE;
    assert_eq!(closing.fault(), Fault::Rejected { status });
    let text = ban_against(&["106 10      \nbad \u{1b}[2J \n\n"]).await.to_string();
    assert_eq!(text, r#"cache-01: ban: varnishd answered 106 (wrong argument): "bad \x1b[2J""#);
}

#[tokio::test(start_paused = true)]
async fn a_reply_cut_in_half_says_so() {
    let (client, mut peer) = client(options());
    let server = async {
        peer.greet().await;
        peer.line().await;
        peer.raw("200 10      \nhalf").await;
        drop(peer);
    };
    let (reply, ()) = tokio::join!(client.request(status()), server);
    let error = reply.unwrap_err();
    assert!(matches!(error.kind, Kind::Frame(FrameError::Cut { got: 17, .. })), "{error}");
    assert_eq!(error.retry(), Retry::NewConnection);
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_proven_and_its_refusal_explained() {
    let challenge = "ixslvvxrgkjptxmcgnnsdxsvdmvfympg\n\nAuthentication required.\n";
    for (secret, taken) in [("foo\n", true), ("foo", false)] {
        let (ours, theirs) = duplex(1 << 16);
        let secret = SecretSource::Value(Secret::new(secret.into()));
        let client = Client::over(ours, target(secret), options());
        let mut peer = Peer(BufReader::new(theirs));
        let server = async {
            peer.say(107, challenge).await;
            let right = "auth 455ce847f0073c7ab3b1465f74507b75d3dc064c1e7de3b71e00de9092fdc89a";
            if peer.line().await == right {
                peer.say(200, "varnish-7.1.1\n").await;
            } else {
                peer.say(500, "").await;
            }
        };
        let (result, ()) = tokio::join!(client.connect(), server);
        if taken {
            assert_eq!(result.unwrap().notes, []);
            continue;
        }
        assert_eq!(
            result.unwrap_err().to_string(),
            "cache-01: authenticating: the secret was refused (status 500): every byte of \
             varnishd's secret file counts, its last newline too, and this secret does not end \
             with a newline"
        );
    }
    let (client, mut peer) = client(options());
    let (result, ()) = tokio::join!(client.connect(), peer.say(107, challenge));
    assert_eq!(result.unwrap_err().kind, Kind::SecretRequired);
}

#[tokio::test(start_paused = true)]
async fn a_batch_keeps_its_order_and_goes_on_after_a_rejection() {
    let (client, mut peer) = client(Options { window: 4, ..options() });
    let server = async {
        peer.greet().await;
        for n in 0..100 {
            assert_eq!(peer.line().await, format!("ban obj.http.x == {n}"));
            if n % 10 == 3 {
                peer.say(106, &format!("no {n}")).await;
            } else {
                peer.say(200, "").await;
            }
        }
    };
    let caller = async {
        let mut batch = client.batch(stream::iter((0..100).map(|n| ban(&n.to_string()))));
        let mut results = Vec::new();
        while let Some(result) = batch.next().await {
            assert!(batch.in_flight() <= 8);
            results.push(result);
        }
        results
    };
    let (results, ()) = tokio::join!(caller, server);
    assert_eq!(results.len(), 100);
    for (n, result) in results.into_iter().enumerate() {
        if n % 10 == 3 {
            let body = format!("no {n}").into();
            let status = Status::PARAMETER;
            assert_eq!(result.unwrap_err().kind, Kind::Rejected { status, body });
        } else {
            assert!(result.is_ok(), "{n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_never_has_more_under_way_than_the_window() {
    let (client, mut peer) = client(Options { window: 4, ..options() });
    let server = async {
        peer.greet().await;
        let mut buffer = [0; 4_096];
        let mut answered = 0;
        while answered < 100 {
            let n = peer.0.read(&mut buffer).await.unwrap();
            let lines = buffer[..n].iter().filter(|&&b| b == b'\n').count();
            assert!((1..=4).contains(&lines), "{lines} commands at once");
            sleep(Duration::from_millis(5)).await;
            for _ in 0..lines {
                peer.say(200, "").await;
            }
            answered += lines;
        }
    };
    let batch = client.batch(stream::iter((0..100).map(|n| ban(&n.to_string()))));
    let results = stream::unfold(batch, async |mut batch| Some((batch.next().await?, batch)));
    let (results, ()) = tokio::join!(results.collect::<Vec<_>>(), server);
    assert!(results.len() == 100 && results.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_a_slow_source_does_not_hold_replies_back() {
    let (client, mut peer) = client(options());
    let server = async {
        peer.greet().await;
        for _ in 0..2 {
            peer.line().await;
            peer.say(200, "").await;
        }
    };
    let caller = async {
        let slow = stream::unfold(0, async |n| {
            sleep(Duration::from_secs(100 * n)).await;
            (n < 2).then(|| (ban("x"), n + 1))
        });
        let mut slow = std::pin::pin!(slow);
        let mut batch = client.batch(slow.as_mut());
        let start = Instant::now();
        assert!(batch.next().await.unwrap().is_ok());
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(batch.next().await.unwrap().is_ok());
        assert!(batch.next().await.is_none());
    };
    tokio::join!(caller, server);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_connection_ends_gives_every_command_its_error() {
    let (client, mut peer) = client(Options { window: 4, ..options() });
    let server = async {
        peer.greet().await;
        peer.line().await;
        peer.say(200, "").await;
        peer.line().await;
        drop(peer);
    };
    let caller = async {
        let mut batch = client.batch(stream::iter((0..20).map(|n| ban(&n.to_string()))));
        let mut results = Vec::new();
        while let Some(result) = batch.next().await {
            results.push(result);
        }
        results
    };
    let (results, ()) = tokio::join!(caller, server);
    assert_eq!(results.len(), 20);
    assert!(results[0].is_ok());
    let outcomes: Vec<_> = results[1..].iter().map(|r| r.as_ref().unwrap_err().outcome()).collect();
    let unknown = outcomes.iter().filter(|&&outcome| outcome == Outcome::Unknown).count();
    assert!((1..=4).contains(&unknown), "only what was written: {unknown}");
    assert!(outcomes[unknown..].iter().all(|&outcome| outcome == Outcome::NotDone));
}

#[tokio::test(start_paused = true)]
async fn the_connection_ends_with_the_last_handle() {
    let (client, mut peer) = client(options());
    let (greeting, ()) = tokio::join!(client.connect(), peer.greet());
    greeting.unwrap();
    let clone = client.clone();
    drop(client);
    assert!(timeout(Duration::from_secs(5), peer.line()).await.is_err(), "a clone is left");
    drop(clone);
    assert_eq!(peer.line().await, "");
}

#[test]
fn a_client_can_outlive_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, mut peer) = client(options());
    let first = runtime();
    let mut under_way = client.batch(stream::iter([ban("x")]));
    first.block_on(async {
        tokio::join!(client.connect(), peer.greet()).0.unwrap();
        timeout(Duration::from_millis(50), under_way.next()).await.unwrap_err();
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(under_way.next().await.unwrap().unwrap_err().kind, Kind::Stopped);
        assert_eq!(client.ping().await.unwrap_err().kind, Kind::Stopped);
        let mut batch = client.batch(stream::iter([ban("x")]));
        assert_eq!(batch.next().await.unwrap().unwrap_err().kind, Kind::Stopped);
    });
}
