//! The admin client against real varnishd processes and faulty peers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use futures_util::stream;
use purgewatch::admin::{
    AdminError, Client, Fault, Kind, Note, Options, Outcome, Retry, SecretSource, Stage, Target,
    check_path,
};
use purgewatch::model::{HostPort, NodeName, Secret};
use purgewatch::net::DialErrorKind;
use purgewatch::protocol::{Command, FrameError, Status, Verb};

use crate::support::faulty::Faulty;
use crate::support::varnish::{Options as Start, Varnishd, free_port};

fn target(address: SocketAddr, secret: SecretSource) -> Target {
    Target::at(NodeName::new("cache-01").unwrap(), address.to_string().parse().unwrap(), secret)
}

fn of(varnishd: &Varnishd) -> Target {
    target(varnishd.admin, SecretSource::File(varnishd.secret_file().to_owned()))
}

fn client(varnishd: &Varnishd) -> Client {
    Client::new(of(varnishd), Options::default())
}

/// One whose cache holds an object: only then do bans stay on the list, and the list is not cut.
fn with_an_object() -> Varnishd {
    let vcl = r#"
        backend default none;
        sub vcl_backend_error {
            set beresp.status = 200;
            set beresp.ttl = 1h;
            return (deliver);
        }
    "#;
    let varnishd = Varnishd::start(Start {
        vcl: Some(vcl.to_owned()),
        arguments: ["-p", "cli_limit=1m"].map(String::from).to_vec(),
        ..Start::default()
    });
    assert!(varnishd.get("example.com", "/").starts_with("HTTP/1.1 200"));
    varnishd
}

fn ban(words: &[&str]) -> Command {
    Command::ban(words).unwrap()
}

/// The error of a `ping` at `target`, within short limits.
async fn failure(target: Target) -> AdminError {
    let short = Duration::from_secs(1);
    let options =
        Options { connect: short, authenticate: short, reply: short, ..Options::default() };
    let checked = check_path(&target, &options).await.unwrap_err();
    let asked = Client::new(target, options).ping().await.unwrap_err();
    assert_eq!(checked.label(), asked.label(), "a check and a command fail alike");
    asked
}

#[tokio::test]
async fn a_ban_is_on_the_list_when_it_is_answered() {
    let varnishd = with_an_object();
    let client = client(&varnishd);
    client.ban(ban(&["obj.http.x-url", "~", r"^/a\.php\?"])).await.unwrap();
    client.ban(ban(&["req.url", "==", "/b", "&&", "obj.status", "!=", "404"])).await.unwrap();
    assert_eq!(
        varnishd.bans(),
        ["req.url == /b && obj.status != 404", r"obj.http.x-url ~ ^/a\.php\?"]
    );
    let greeting = client.connect().await.unwrap();
    assert_eq!(greeting.peer, Some(varnishd.admin));
    assert_eq!(greeting.version.unwrap().numbers(), Some((7, 1, 1)));
    assert_eq!((greeting.notes, greeting.child_stopped), (vec![], false));
}

/// What `quote` promises, byte by byte: varnishd reads back what was meant. Not the vertical tab,
/// which 7.1's cache process cannot read back from its own manager.
#[tokio::test]
async fn every_byte_arrives_as_it_is() {
    let varnishd = with_an_object();
    let client = client(&varnishd);
    let bytes: Vec<u8> = (1..=255).filter(|b| ![b' ', b'\n', 0x0b].contains(b)).collect();
    for chunk in bytes.chunks(50) {
        let mut value = b"<".to_vec();
        value.extend_from_slice(chunk);
        value.push(b'>');
        client.ban(Command::ban([b"obj.http.x", &b"=="[..], &value]).unwrap()).await.unwrap();
        let list = client.run(Command::ban_list()).await.unwrap();
        let spec: Vec<u8> = [b"obj.http.x == ", &value[..]].concat();
        assert!(
            list.body.windows(spec.len()).any(|window| window == spec),
            "{} in {}",
            String::from_utf8_lossy(&spec),
            list.excerpt(1_000)
        );
    }
    // Commands of the manager take blanks and empty arguments too.
    let set = Command::new("param.set", ["cc_command", "exec cc  -x %s"]).unwrap();
    client.run(set).await.unwrap();
    let shown = client.run(Command::new("param.show", ["cc_command"]).unwrap()).await.unwrap();
    assert!(shown.excerpt(200).lines().to_string().contains("exec cc  -x %s"));
    let empty = Command::new("vcl.inline", ["v1", ""]).unwrap();
    let error = client.run(empty).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Rejected { status: Status::PARAMETER }, "{error}");
}

#[tokio::test]
async fn a_server_without_a_secret_works_and_is_noted() {
    let varnishd = Varnishd::start(Start { secret: None, ..Start::default() });
    let target = target(varnishd.admin, SecretSource::None);
    let check = check_path(&target, &Options::default()).await.unwrap();
    assert_eq!(check.greeting.notes, [Note::NoSecretAsked]);
    let unused = SecretSource::File(PathBuf::from("/nonexistent/secret"));
    let client = Client::new(Target { secret: unused, ..target }, Options::default());
    client.ping().await.unwrap();
}

#[tokio::test]
async fn a_secret_that_is_not_the_file_byte_for_byte_is_refused() {
    let varnishd = Varnishd::start(Start::default());
    let wrong = SecretSource::Value(Secret::new(b"wrong\n".to_vec()));
    let error = failure(target(varnishd.admin, wrong)).await;
    assert_eq!((error.label(), error.fault()), ("secret_refused", Fault::Secret));
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.to_string().ends_with("and this secret ends with a newline"), "{error}");

    let stripped = varnishd.dir().join("stripped");
    std::fs::write(&stripped, b"a secret of the tests").unwrap();
    let error = failure(target(varnishd.admin, SecretSource::File(stripped.clone()))).await;
    assert_eq!(
        error.to_string(),
        format!(
            "cache-01: authenticating: the secret from {} was refused (status 500): every byte of \
             varnishd's secret file counts, its last newline too, and this secret does not end \
             with a newline",
            stripped.display()
        )
    );
    assert!(!error.to_string().contains("a secret of the tests"));

    let error = failure(target(varnishd.admin, SecretSource::None)).await;
    assert_eq!((&error.stage, &error.kind), (&Stage::Secret, &Kind::SecretRequired));
    assert_eq!(error.fault(), Fault::Secret);
}

#[tokio::test]
async fn a_secret_file_that_cannot_be_read_is_named() {
    let varnishd = Varnishd::start(Start::default());
    for path in [varnishd.dir().join("absent"), varnishd.dir().to_owned()] {
        let error = failure(target(varnishd.admin, SecretSource::File(path.clone()))).await;
        assert_eq!((error.label(), error.fault()), ("secret_unreadable", Fault::Secret));
        let start = format!("cache-01: reading the secret: cannot read {}: ", path.display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}

#[tokio::test]
async fn a_changed_secret_is_read_again() {
    let mut varnishd = Varnishd::start(Start::default());
    let client = client(&varnishd);
    client.ping().await.unwrap();
    std::fs::write(varnishd.secret_file(), b"another secret").unwrap();
    varnishd.restart();
    client.ping().await.unwrap();
}

#[tokio::test]
async fn an_emptied_secret_is_noted() {
    let varnishd = Varnishd::start(Start::default());
    std::fs::write(varnishd.secret_file(), b"").unwrap();
    let check = check_path(&of(&varnishd), &Options::default()).await.unwrap();
    assert_eq!(check.greeting.notes, [Note::EmptySecret]);
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let error = failure(target(free_port("127.0.0.1"), SecretSource::None)).await;
    assert_eq!((error.label(), &error.stage), ("refused", &Stage::Connect));
    assert_eq!((error.fault(), error.retry()), (Fault::Unreachable, Retry::Later));
    assert_eq!(error.outcome(), Outcome::NotDone);
    assert!(error.to_string().contains("nothing listens there"), "{error}");
}

#[tokio::test]
async fn a_name_nobody_knows_is_not_resolved() {
    let address = HostPort::new("no-such-host.invalid", 6082).unwrap();
    let target =
        Target { place: address.into(), ..target(free_port("127.0.0.1"), SecretSource::None) };
    let error = check_path(&target, &Options::default()).await.unwrap_err();
    assert_eq!((error.label(), &error.stage), ("resolve", &Stage::Resolve));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    for admin_host in ["127.0.0.1", "::1"] {
        let varnishd = Varnishd::start(Start { admin_host, ..Start::default() });
        client(&varnishd).ping().await.unwrap();
        let address = HostPort::new("localhost", varnishd.admin.port()).unwrap();
        let target = Target { place: address.into(), ..of(&varnishd) };
        let check = check_path(&target, &Options::default()).await.unwrap();
        assert_eq!(check.greeting.peer, Some(varnishd.admin));
    }
}

#[tokio::test]
async fn a_stopped_cache_process_is_told_from_an_unknown_command() {
    let varnishd = Varnishd::start(Start::default());
    let client = client(&varnishd);
    let unknown = || Command::new("no.such", [""; 0]).unwrap();
    let error = client.run(unknown()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Rejected { status: Status::UNKNOWN });

    varnishd.adm(&["stop"]);
    for command in [ban(&["req.url", "~", "x"]), unknown()] {
        let error = client.run(command).await.unwrap_err();
        let state = Some("stopped".to_owned());
        assert_eq!(error.kind, Kind::ChildNotRunning { state });
        assert_eq!((error.fault(), error.outcome()), (Fault::ChildNotRunning, Outcome::NotDone));
        assert_eq!(error.retry(), Retry::Later);
    }
    let check = check_path(&of(&varnishd), &Options::default()).await.unwrap();
    assert!(check.greeting.child_stopped, "the manager answers all the same");
    varnishd.adm(&["start"]);
    client.ban(ban(&["req.url", "~", "x"])).await.unwrap();
}

#[tokio::test]
async fn a_restarted_varnishd_is_connected_to_again() {
    let mut varnishd = Varnishd::start(Start::default());
    let client = client(&varnishd);
    client.ping().await.unwrap();
    varnishd.stop();
    // The end of the idle connection was seen: nothing is sent into the void.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = client.ban(ban(&["req.url", "~", "x"])).await.unwrap_err();
    assert_eq!((error.label(), error.outcome()), ("refused", Outcome::NotDone));
    varnishd.start_again();
    client.ban(ban(&["req.url", "~", "x"])).await.unwrap();
    assert_eq!(varnishd.bans(), ["req.url ~ x"]);
}

#[tokio::test]
async fn what_varnishd_rejects_keeps_its_status_and_words() {
    let varnishd = Varnishd::start(Start::default());
    let client = client(&varnishd);
    let many: Vec<&str> = std::iter::repeat_n("x", 1_003).collect();
    for (command, status, words) in [
        (ban(&["req.url"]), Status::TOO_FEW, "Too few parameters"),
        (ban(&many), Status::TOO_MANY, "Too many parameters"),
        (ban(&["foo.bar", "==", "x"]), Status::PARAMETER, "Unknown or unsupported field"),
        (ban(&["req.url", "~", "("]), Status::PARAMETER, "missing closing parenthesis"),
        (Command::new("panic.show", [""; 0]).unwrap(), Status::CANNOT, "has not panicked"),
        (Command::new("ban.list", ["-x"]).unwrap(), Status::TOO_MANY, "Too many parameters"),
    ] {
        let error = client.run(command).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Rejected { status }, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((error.retry(), error.outcome()), (Retry::Never, Outcome::NotDone));
    }
    let quit = client.request(Command::quit()).await.unwrap();
    assert_eq!(quit.status, Status::CLOSE);
    client.ping().await.unwrap();
}

#[tokio::test]
async fn a_truncated_reply_is_success_and_says_so() {
    let varnishd = Varnishd::start(Start::default());
    let client = client(&varnishd);
    client.run(Command::new("param.set", ["cli_limit", "128"]).unwrap()).await.unwrap();
    let reply = client.run(Command::new("param.show", [""; 0]).unwrap()).await.unwrap();
    assert!(reply.is_truncated() && reply.body.len() < 129, "{}", reply.body.len());
    client.ping().await.unwrap();
}

#[tokio::test]
async fn many_callers_share_one_connection() {
    let varnishd = with_an_object();
    let client = client(&varnishd);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..300 {
        let client = client.clone();
        callers.spawn(async move {
            if n % 3 == 0 {
                let timestamp = Command::new("ping", [n.to_string()]).unwrap();
                assert!(client.run(timestamp).await.unwrap().body.starts_with(b"PONG"));
            } else {
                let value = format!("caller-{n}");
                client.ban(ban(&["obj.http.x", "==", &value])).await.unwrap();
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(varnishd.bans().len(), 200);
}

#[tokio::test]
async fn a_batch_is_answered_one_by_one() {
    let varnishd = with_an_object();
    let client = client(&varnishd);
    let command = |n: usize| {
        let field = if n % 100 == 50 { "no.such" } else { "obj.http.x" };
        ban(&[field, "==", &n.to_string()])
    };
    let mut batch = client.batch(stream::iter((0..1_000).map(command)));
    for n in 0..1_000 {
        let result = batch.next().await.unwrap();
        assert_eq!(result.is_err(), n % 100 == 50, "{n}: {result:?}");
    }
    assert!(batch.next().await.is_none());
    let bans = varnishd.bans();
    assert_eq!((bans.len(), bans[0].as_str()), (990, "obj.http.x == 999"));
}

#[tokio::test]
async fn a_busy_manager_is_silent_and_answers_late() {
    let varnishd = with_an_object();
    let options = Options { reply: Duration::from_secs(1), ..Options::default() };
    let client = Client::new(of(&varnishd), options);
    client.ping().await.unwrap();
    let manager = String::from_utf8(client.run(Command::pid()).await.unwrap().body.to_vec());
    let manager = manager.unwrap().split_whitespace().nth(1).unwrap().to_owned();
    signal("-STOP", &manager);

    let error = client.ban(ban(&["req.url", "~", "late"])).await.unwrap_err();
    assert_eq!((error.label(), error.outcome()), ("reply_timeout", Outcome::Unknown));
    let error = failure(of(&varnishd)).await;
    assert_eq!((error.label(), &error.stage), ("silent", &Stage::Greeting));
    assert!(error.to_string().contains("busy with a long command"), "{error}");

    signal("-CONT", &manager);
    // The late reply was the ban's, and is not taken for the one that is asked for now.
    let list = client.run(Command::ban_list()).await.unwrap();
    assert!(list.excerpt(300).lines().to_string().contains("req.url ~ late"));
}

#[tokio::test]
async fn a_hanging_cache_process_is_lost() {
    let varnishd = Varnishd::start(Start {
        arguments: ["-p", "cli_timeout=1"].map(String::from).to_vec(),
        ..Start::default()
    });
    let client = client(&varnishd);
    signal("-STOP", &worker(&client).await);
    let error = client.ban(ban(&["req.url", "~", "x"])).await.unwrap_err();
    assert!(matches!(error.kind, Kind::ChildLost { .. }), "{error}");
    assert_eq!((error.fault(), error.outcome()), (Fault::ChildNotRunning, Outcome::Unknown));
    assert_eq!(error.retry(), Retry::Later);
}

async fn worker(client: &Client) -> String {
    let pids = client.run(Command::pid()).await.unwrap();
    let pids = pids.excerpt(200).lines().to_string();
    pids.split_whitespace().last().unwrap().to_owned()
}

fn signal(signal: &str, pid: &str) {
    assert!(Process::new("kill").args([signal, pid]).status().unwrap().success());
}

#[tokio::test]
async fn an_http_port_is_not_taken_for_an_admin_port() {
    let varnishd = Varnishd::start(Start::default());
    let error = failure(target(varnishd.http, SecretSource::None)).await;
    assert_eq!(error.label(), "silent");
    assert!(error.to_string().contains("an HTTP port waits to be asked"), "{error}");
}

#[tokio::test]
async fn a_peer_that_is_no_varnish_is_named() {
    let ssh = Faulty::start(|peer| {
        peer.say(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        peer.wait_for_the_end();
    });
    let error = failure(target(ssh.address, SecretSource::None)).await;
    assert_eq!(
        error.to_string(),
        "cache-01: waiting for the greeting: expected a reply of varnishd, got \
         \"SSH-2.0-OpenSSH_9.2p1 Debian-2\": it looks like an SSH server"
    );
    assert_eq!((error.label(), error.retry()), ("not_varnish", Retry::Never));

    let refusing = Faulty::start(|peer| peer.say(b"500 6       \nno way\n"));
    let error = failure(target(refusing.address, SecretSource::None)).await;
    assert!(matches!(error.kind, Kind::Greeting { status: Status::CLOSE, .. }), "{error}");
}

#[tokio::test]
async fn a_bad_greeting_is_told_from_none() {
    let half = Faulty::start(|peer| peer.say(b"107 59      \nixslvvxrgkjp"));
    let error = failure(target(half.address, SecretSource::None)).await;
    assert!(matches!(error.kind, Kind::Frame(FrameError::Cut { got: 25, .. })), "{error}");
    assert_eq!((&error.stage, error.label()), (&Stage::Greeting, "cut"));

    let closing = Faulty::start(|_| ());
    let error = failure(target(closing.address, SecretSource::None)).await;
    assert_eq!((&error.stage, &error.kind), (&Stage::Greeting, &Kind::Closed));
    assert!(error.to_string().contains("closed without a word"), "{error}");

    let large = Faulty::start(|peer| peer.say(b"107 99999999\n"));
    let error = failure(target(large.address, SecretSource::None)).await;
    assert_eq!(error.label(), "too_long", "{error}");

    let silent = Faulty::start(|peer| peer.wait_for_the_end());
    let error = failure(target(silent.address, SecretSource::None)).await;
    assert_eq!(error.label(), "silent", "{error}");
}

#[tokio::test]
async fn a_full_backlog_looks_like_a_firewall() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let peer = listener.local_addr().unwrap();
    let mut held = Vec::new();
    let open =
        || tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(peer));
    while let Ok(stream) = open().await {
        held.push(stream.unwrap());
    }
    let error = failure(target(peer, SecretSource::None)).await;
    let Kind::Dial(dial) = &error.kind else { panic!("{error}") };
    assert_eq!((dial.kind, error.label()), (DialErrorKind::TimedOut, "connect_timeout"));
    assert!(error.to_string().contains("check firewalls and network ACLs"), "{error}");
}

/// What a ban comes to at a peer that answers it with `answer`.
async fn answered_with(answer: &'static [u8]) -> AdminError {
    let peer = Faulty::answering(answer);
    let options =
        Options { reply: Duration::from_secs(1), body_limit: 10_000, ..Options::default() };
    let client = Client::new(target(peer.address, SecretSource::None), options);
    let error = client.ban(ban(&["req.url", "~", "x"])).await.unwrap_err();
    assert_eq!(error.stage, Stage::Command(Verb::BAN));
    error
}

#[tokio::test]
async fn odd_answers_are_no_success() {
    for (answer, label) in [
        (&b"400 29      \nCLI communication error (hdr)\n"[..], "child_lost"),
        (b"500 0       \n\n", "rejected"),
        (b"999 0       \n\n", "rejected"),
        (b"200 4       \nPONG\n", "foreign_reply"),
        (b"200 10001   \n", "too_long"),
        (b"200 99999999\n", "too_long"),
        (b"200 5       \nab", "reply_timeout"),
        (b"200 0       \nX", "not_varnish"),
        (b"\n", "not_varnish"),
        (b"", "reply_timeout"),
    ] {
        let error = answered_with(answer).await;
        assert_eq!(error.label(), label, "{error}");
    }
    let text = answered_with(b"200 10001   \n").await.to_string();
    assert_eq!(
        text,
        "cache-01: ban: a reply of 10001 bytes is over the limit of 10000; whether it was carried \
         out is unknown"
    );
}

#[tokio::test]
async fn a_connection_closed_between_command_and_reply_leaves_it_unknown() {
    let peer = Faulty::start(|peer| {
        peer.greet();
        peer.line();
    });
    let client = Client::new(target(peer.address, SecretSource::None), Options::default());
    let error = client.ban(ban(&["req.url", "~", "x"])).await.unwrap_err();
    assert_eq!((error.label(), error.outcome()), ("closed", Outcome::Unknown));
    assert_eq!((error.fault(), error.retry()), (Fault::Unreachable, Retry::NewConnection));
}

/// The real thing: a cache process that ignores SIGQUIT, as one does whose varnishd was started in
/// the background of a script, outlives an exchange that its manager gave up. From then on, each
/// answer belongs to an earlier command.
#[tokio::test]
async fn shifted_replies_of_a_real_varnishd_are_noticed() {
    let quiet = Varnishd::start_ignoring_quit(Start {
        arguments: ["-p", "cli_timeout=1", "-p", "ping_interval=0"].map(String::from).to_vec(),
        ..Start::default()
    });
    let client = client(&quiet);
    let worker = worker(&client).await;
    signal("-STOP", &worker);
    let lost = client.run(Command::new("backend.list", [""; 0]).unwrap()).await.unwrap_err();
    assert!(matches!(lost.kind, Kind::ChildLost { .. }), "{lost}");
    signal("-CONT", &worker);

    let deadline = Instant::now() + Duration::from_secs(20);
    let error = loop {
        match client.ban(ban(&["req.url", "~", "x"])).await {
            Err(error) if error.label() == "foreign_reply" => break error,
            // Before the cache process is awake again.
            Err(_) | Ok(()) => assert!(Instant::now() < deadline, "never out of step"),
        }
    };
    assert_eq!((error.fault(), error.outcome()), (Fault::Unreliable, Outcome::Unknown));
}
