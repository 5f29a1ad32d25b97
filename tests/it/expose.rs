//! The HTTP listener and its metrics: a real listener, promtool, and clients that mean no good.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use purgewatch::clock::Clock;
use purgewatch::engine::{AdminState, NodeSnapshot, ServiceLevel, Snapshot, TargetSnapshot};
use purgewatch::expose::status::Document;
use purgewatch::expose::{
    BanResult, BanSource, BindError, CanaryBoard, Limits, Metrics, Question, Readiness,
    StoreHealth, Surface, bind, serve,
};
use purgewatch::model::{EndpointName, Mark, NodeName, OriginName, VariantName, Version};
use purgewatch::verdict::cause::OriginChange;
use purgewatch::verdict::{Cause, Explanation, State};
use tokio::sync::{mpsc, oneshot};

/// A listener with a daemon's loop behind it, on a thread of its own; ended when dropped.
struct Listener {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    /// While set, the daemon's loop does not answer.
    stuck: Arc<AtomicBool>,
    snapshots: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listener {
    fn start(snapshot: Snapshot) -> Self {
        Self::with(snapshot, Limits::default())
    }

    fn with(snapshot: Snapshot, limits: Limits) -> Self {
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new());
        let nodes: Vec<_> = snapshot.nodes.iter().map(|n| n.node.clone()).collect();
        metrics.watch(&nodes, &[OriginName::new("rec-api").unwrap()]);
        let readiness = Readiness::starting();
        let stuck = Arc::new(AtomicBool::new(false));
        let snapshots = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let (questions, mut asked) = mpsc::channel(1);
        let surface = Surface {
            canaries: CanaryBoard::default(),
            metrics: Arc::clone(&metrics),
            questions,
            readiness: readiness.clone(),
            clock,
            before_scrape: Some(Box::new(|metrics: &Metrics| {
                metrics.set_store(StoreHealth {
                    up: true,
                    errors: vec![("full", 0), ("corrupt", 1)],
                    ..StoreHealth::default()
                });
            })),
        };
        let (is_stuck, count) = (Arc::clone(&stuck), Arc::clone(&snapshots));
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let ended = async { drop(stopped.await) };
                let server = serve(listener, Arc::new(surface), limits, ended);
                let engine = async {
                    let mut unanswered = Vec::new();
                    while let Some(question) = asked.recv().await {
                        if is_stuck.load(Ordering::Relaxed) {
                            unanswered.push(question);
                            continue;
                        }
                        match question {
                            Question::Snapshot(reply) => {
                                count.fetch_add(1, Ordering::Relaxed);
                                let mut snapshot = snapshot.clone();
                                snapshot.taken = clock.now();
                                drop(reply.send(snapshot));
                            }
                            Question::Alive(reply) => drop(reply.send(())),
                            Question::Issue(..) | Question::Bans(..) => unreachable!("on a port"),
                        }
                    }
                };
                tokio::select! { () = server => {}, () = engine => {} }
            });
        });
        let address = told.recv().unwrap();
        let (stop, thread) = (Some(stop), Some(thread));
        Self { address, metrics, readiness, stuck, snapshots, stop, thread }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends `bytes`, and reads until the connection is closed.
    fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The peer may have closed before all was sent, which is what some of it is about.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn request(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Answer::parse(&self.talk(request.as_bytes()))
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path)
    }

    /// Ends the listener and waits for it.
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.contains("transfer-encoding: chunked") && !rest.is_empty();
        let body = if chunked { unchunked(rest) } else { rest.to_owned() };
        Self { status, head, body }
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("cut off within the body");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn snapshot(targets: usize) -> Snapshot {
    let now = Clock::start().now();
    let version = |tag: &str| Some(Version { status: 200, mark: Mark::Etag(tag.into()) });
    let target = |n: usize| TargetSnapshot {
        endpoint: EndpointName::new(&format!("endpoint-{n:05}")).unwrap(),
        variant: VariantName::default(),
        node: node("cache-01"),
        max_stale: Duration::from_secs(60),
        state: State::ALL[n % 7],
        since: now.earlier_by(Duration::from_secs(100)),
        staleness: match State::ALL[n % 7] {
            State::Fresh => Some(Duration::ZERO),
            State::Lagging | State::Stale => Some(Duration::from_millis(61_500)),
            _ => None,
        },
        age: (!n.is_multiple_of(7)).then_some(17),
        last_probe: (!n.is_multiple_of(7)).then_some(now),
        last_fresh: None,
        probes: [5, 0, 0, 0, 1, 0, 0],
        node_version: version("\"<script>alert('n')</script>\""),
        origin_version: version("\"v2\""),
        remedy: None,
        change: OriginChange::default(),
        reason: Some("the node says <b>\"no\"</b>\u{1b}[31m".to_owned()),
        cause: (State::ALL[n % 7] == State::Stale).then(|| {
            Arc::new(Explanation {
                cause: Cause::BanMissedIt,
                findings: vec!["the ban \"<i>\", misses".to_owned()],
            })
        }),
    };
    let admin = AdminState {
        up: Some(false),
        last_success: Some(now),
        failures: vec![("refused", 3), ("timeout", 0)],
        problem: Some("refused".to_owned()),
    };
    Snapshot {
        pointers: Vec::new(),
        taken: now,
        targets: (0..targets).map(target).collect(),
        nodes: vec![
            NodeSnapshot {
                node: node("cache-01"),
                admin: Some(admin),
                canary: None,
                pending_bans: 0,
                level: ServiceLevel::default(),
            },
            NodeSnapshot {
                node: node("cache-02"),
                admin: None,
                canary: None,
                pending_bans: 0,
                level: ServiceLevel::default(),
            },
            NodeSnapshot {
                node: node("cache-03"),
                admin: Some(AdminState::default()),
                canary: None,
                pending_bans: 0,
                level: ServiceLevel::default(),
            },
        ],
        endpoints: targets,
    }
}

fn samples<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begins = |l: &&str| l.strip_prefix(name).is_some_and(|r| r.starts_with(['{', ' ']));
    text.lines().filter(begins).collect()
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let listener = Listener::start(snapshot(14));
    listener.metrics.record_reload(true, Clock::start().now());
    listener.metrics.record_time_to_fresh(&node("cache-01"), Duration::from_secs(7));
    listener.metrics.record_ban(&node("cache-01"), BanSource::Command, BanResult::Accepted);
    let answer = listener.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
    check_with_promtool(&answer.body, true);
    // promtool finds faults: a counter that is not named as one is one.
    check_with_promtool(&answer.body.replace("probes_total", "probes"), false);

    let text = &answer.body;
    let labels = |n: usize| {
        format!("{{endpoint=\"endpoint-{n:05}\",variant=\"default\",node=\"cache-01\"}}")
    };
    let staleness = samples(text, "purgewatch_endpoint_staleness_seconds");
    assert_eq!(staleness.len(), 6, "no sample where nothing is known: {staleness:?}");
    let line = format!("purgewatch_endpoint_staleness_seconds{} 61.5", labels(3));
    assert!(staleness.contains(&line.as_str()), "{staleness:?}");
    let line = format!("purgewatch_endpoint_staleness_seconds{} 0", labels(1));
    assert!(staleness.contains(&line.as_str()), "{staleness:?}");
    let states = samples(text, "purgewatch_endpoint_state");
    assert_eq!(states.len(), 14 * 7);
    assert_eq!(states.iter().filter(|line| line.ends_with(" 1")).count(), 14);
    let causes = samples(text, "purgewatch_endpoint_cause");
    // Of the 14, two are stale with a known cause and two lag with none that is known yet.
    assert_eq!(causes.len(), 4 * 8, "none where nothing is old: {causes:?}");
    let found: Vec<_> = causes.into_iter().filter(|line| line.ends_with(" 1")).collect();
    assert!(found.len() == 2 && found.iter().all(|line| line.contains("\"ban_missed_it\"")));
    assert_eq!(samples(text, "purgewatch_probes_total").len(), 14 * 7);
    assert_eq!(samples(text, "purgewatch_endpoint_max_stale_seconds").len(), 14);
    assert_eq!(samples(text, "purgewatch_endpoint_object_age_seconds").len(), 12);
    assert_eq!(samples(text, "purgewatch_endpoint_last_fresh_timestamp_seconds").len(), 0);
    assert_eq!(
        samples(text, "purgewatch_node_admin_up"),
        ["purgewatch_node_admin_up{node=\"cache-01\"} 0"]
    );
    let failures = samples(text, "purgewatch_node_admin_failures_total");
    assert_eq!(
        failures[0],
        "purgewatch_node_admin_failures_total{node=\"cache-01\",reason=\"refused\"} 3"
    );
    assert_eq!(samples(text, "purgewatch_endpoints"), ["purgewatch_endpoints 14"]);
    assert_eq!(samples(text, "purgewatch_store_up"), ["purgewatch_store_up 1"]);
    assert_eq!(samples(text, "purgewatch_build_info").len(), 1);
    assert_eq!(samples(text, "process_resident_memory_bytes").len(), 1);
    let seconds = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    let probe = seconds(samples(text, "purgewatch_endpoint_last_probe_timestamp_seconds")[0]);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((wall.as_secs_f64() - probe).abs() < 60.0);
}

fn check_with_promtool(text: &str, clean: bool) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.success() && said.is_empty(), clean, "{said}");
}

#[test]
fn the_status_document_says_what_the_snapshot_says() {
    let listener = Listener::start(snapshot(7));
    let answer = listener.get("/api/v1/status");
    assert!(answer.head.contains("content-type: application/json"));
    let document: Document = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((document.schema, document.endpoints), (1, 7));
    let states: Vec<_> = document.targets.iter().map(|t| t.state.as_ref()).collect();
    assert_eq!(states, State::ALL.map(State::label));
    let stale = &document.targets[3];
    assert_eq!((stale.staleness_seconds, stale.max_stale_seconds), (Some(61.5), 60.0));
    assert_eq!(stale.probes["ok"], 5);
    assert_eq!(stale.cause.as_deref(), Some("ban_missed_it"));
    assert_eq!(stale.findings, ["the ban \"<i>\", misses"]);
    assert_eq!(document.targets[1].cause, None);
    assert_eq!(stale.node_version.as_deref(), Some("200 etag:\"<script>alert('n')</script>\""));
    assert_eq!(document.targets[0].last_probe, None);
    let admin = document.nodes[0].admin.as_ref().unwrap();
    assert_eq!((admin.up, admin.failures["refused"]), (Some(false), 3));
    assert_eq!(document.nodes[1].admin, None);
    // What a reader gets is what was written, field by field: nothing more is in there.
    let as_read: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), as_read);
    let empty: Document =
        serde_json::from_str(&Listener::start(snapshot(0)).get("/api/v1/status").body).unwrap();
    assert!(empty.targets.is_empty());
}

#[test]
fn the_page_shows_what_is_wrong_first_and_nothing_as_markup() {
    let listener = Listener::start(snapshot(700));
    let answer = listener.get("/");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-security-policy: default-src 'none'; style-src 'self'"));
    assert!(answer.head.contains("x-content-type-options: nosniff"));
    let page = &answer.body;
    assert!(
        !page.contains("<script")
            && !page.contains("<b>")
            && !page.contains("<i>")
            && !page.contains('\u{1b}')
    );
    assert!(page.contains("&lt;script&gt;…") && page.contains("&lt;b&gt;&quot;no&quot;&lt;/b&gt;"));
    let place = |state: &str| page.find(&format!("<td class=\"state {state}\">")).unwrap();
    assert!(place("stale") < place("cache_down") && place("cache_down") < place("lagging"));
    assert!(page.contains("<li>the ban &quot;&lt;i&gt;&quot;, misses"));
    assert!(page.contains("200 more are not shown"), "it is bounded");
    assert_eq!(listener.get("/style.css").status, 200);
}

#[test]
fn health_is_whether_the_loop_answers() {
    let limits = Limits { engine: Duration::from_millis(300), ..Limits::default() };
    let mut listener = Listener::with(snapshot(1), limits);
    assert_eq!(listener.get("/-/healthy").status, 200);
    assert_eq!(listener.get("/-/ready").status, 503);
    listener.readiness.set_ready();
    assert_eq!(listener.get("/-/ready").status, 200);

    listener.stuck.store(true, Ordering::Relaxed);
    for path in ["/-/healthy", "/metrics", "/api/v1/status", "/"] {
        let answer = listener.get(path);
        assert_eq!(answer.status, 503, "{path}: half an answer would look like the whole");
    }
    listener.stuck.store(false, Ordering::Relaxed);
    assert_eq!(listener.get("/metrics").status, 200);

    listener.readiness.set_draining();
    assert_eq!(listener.get("/-/ready").body, "ending\n");
    listener.stop();
    assert!(TcpStream::connect(listener.address).is_err());
}

#[test]
fn only_what_is_there_can_be_asked_for() {
    let listener = Listener::start(snapshot(1));
    let answer = listener.get("/metric");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("/metrics"), "{}", answer.body);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
        let answer = listener.request(method, "/metrics");
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    for path in ["/metrics", "/api/v1/status", "/", "/-/healthy"] {
        let answer = listener.request("HEAD", path);
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
    assert_eq!(listener.get("/metrics?name=x").status, 200);
    let smuggled = "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n\
                    GET /style.css HTTP/1.1\r\n\r\n";
    let text = listener.talk(smuggled.as_bytes());
    assert_eq!(
        (Answer::parse(&text).status, text.matches("HTTP/1.1 ").count()),
        (400, 1),
        "{text}"
    );
}

#[test]
fn an_address_that_cannot_be_listened_on_is_told_why() {
    let listener = Listener::start(snapshot(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = |address: SocketAddr| runtime.block_on(bind(address)).unwrap_err();
    assert!(matches!(refused(listener.address), BindError::InUse { .. }));
    assert!(matches!(refused("192.0.2.1:1".parse().unwrap()), BindError::NotLocal { .. }));
}

#[test]
fn rubbish_is_refused_and_the_next_one_served() {
    let limits = Limits { head: Duration::from_millis(300), ..Limits::default() };
    let listener = Listener::with(snapshot(1), limits);
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(2_000));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let rubbish: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        huge.as_bytes(),
        many.as_bytes(),
        long.as_bytes(),
    ];
    for bytes in rubbish {
        let text = listener.talk(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{shown:?}: {text:?}");
        assert_eq!(listener.get("/-/healthy").status, 200, "after {shown:?}");
    }
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let listener = Listener::start(snapshot(300));
    let paths = ["/-/healthy", "/metrics", "/none", "/api/v1/status", "/-/ready", "/style.css"];
    let mut requests: String =
        paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).concat();
    requests.push_str("GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = listener.talk(requests.as_bytes());
    let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]).collect();
    assert_eq!(statuses, ["200", "200", "404", "200", "503", "200", "200"]);
}

/// How long the peer takes to close the connection; what it sends meanwhile is thrown away.
fn until_closed(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut buffer = [0; 65_536];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    start.elapsed()
}

#[test]
fn slow_heads_and_silence_end() {
    let limits = Limits {
        head: Duration::from_millis(400),
        idle: Duration::from_secs(3),
        ..Limits::default()
    };
    let listener = Listener::with(snapshot(1), limits);
    let mut silent = listener.connect();
    let waited = until_closed(&mut silent);
    assert!((2_900..10_000).contains(&waited.as_millis()), "{waited:?}");

    // One byte every 50 ms is progress of a kind, and not enough.
    let mut slow = listener.connect();
    let start = Instant::now();
    let mut sent = 0;
    for byte in "GET /metrics HTTP/1.1\r\nHost: a-host-with-a-rather-long-name\r\n".bytes().cycle()
    {
        if slow.write_all(&[byte]).is_err() {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_millis(2_500), "{sent} bytes and still open");
    }
    assert!(sent >= 5, "it was given its time");

    // A connection that is used again and again has its time anew after each answer.
    let mut kept = listener.connect();
    for _ in 0..4 {
        kept.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut buffer = [0; 4_096];
        let read = kept.read(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(600));
    }
}

#[test]
fn who_does_not_read_is_cut_off_and_keeps_nobody_out() {
    let limits = Limits {
        stall: Duration::from_millis(700),
        idle: Duration::from_secs(1),
        ..Limits::default()
    };
    let listener = Listener::with(snapshot(20_000), limits);
    let mut deaf = deaf_clients(&listener);
    assert_eq!(listener.get("/-/healthy").status, 200);
    // They hold the leave to read snapshots, and lose it again.
    let start = Instant::now();
    let answer = loop {
        let answer = listener.get("/metrics");
        if answer.status == 200 {
            break answer;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    };
    assert!(answer.body.len() > 10_000_000);
    let mut cut_off = 0;
    for stream in &mut deaf {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        cut_off += usize::from(rest.starts_with(b"HTTP/1.1 200") && !rest.ends_with(b"0\r\n\r\n"));
    }
    assert!(cut_off >= 4, "{cut_off}");
}

/// Clients that ask for everything and read nothing.
fn deaf_clients(listener: &Listener) -> Vec<TcpStream> {
    let mut deaf: Vec<TcpStream> = (0..20).map(|_| listener.connect()).collect();
    for stream in &mut deaf {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    deaf
}

#[test]
fn answers_that_nobody_reads_cost_little_memory() {
    // Memory is counted for a whole process: this one has to be alone in its own.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "expose::in_another_process", "--ignored", "--nocapture"])
        .env("PURGEWATCH_TEST_ROLE", "expose")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let grown = text.lines().find_map(|line| line.strip_prefix("grown by KiB: ")).expect(&text);
    // 40 MB each, were they written in full.
    assert!(grown.parse::<u64>().unwrap() < 40 * 1_024, "{grown} KiB");
}

/// Not a test of its own: what the test above starts as another process.
#[test]
#[ignore = "runs as another process of the test above"]
fn in_another_process() {
    if std::env::var("PURGEWATCH_TEST_ROLE").as_deref() != Ok("expose") {
        return;
    }
    let listener = Listener::start(snapshot(20_000));
    let before = resident_kib();
    let deaf = deaf_clients(&listener);
    std::thread::sleep(Duration::from_secs(1));
    let grown = resident_kib().saturating_sub(before);
    let _ = writeln!(std::io::stdout(), "\ngrown by KiB: {grown}");
    drop(deaf);
}

#[test]
fn an_answer_that_trickles_away_has_an_end() {
    let limits = Limits { answer: Duration::from_secs(1), ..Limits::default() };
    let listener = Listener::with(snapshot(20_000), limits);
    let mut trickle = listener.connect();
    trickle.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let start = Instant::now();
    let mut total = 0;
    let mut buffer = vec![0; 100_000];
    while let Ok(read) = trickle.read(&mut buffer)
        && read > 0
    {
        total += read;
        std::thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(
        total < 30_000_000,
        "{total}: cut off, and seen to be, since the last chunk is missing"
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_thousand_connections_do_not_keep_prometheus_out() {
    let listener = Listener::start(snapshot(10));
    // From here, since the queue of the kernel may be short: then it is connecting that takes long.
    let start = Instant::now();
    let mut crowd: Vec<TcpStream> = Vec::new();
    for n in 0..1_000 {
        let mut stream = listener.connect();
        if n % 2 == 0 {
            stream.write_all(b"GET /metrics HTT").unwrap();
        }
        crowd.push(stream);
    }
    assert_eq!(listener.get("/metrics").status, 200);
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    drop(crowd);
    assert_eq!(listener.get("/-/healthy").status, 200);
}

#[test]
fn readers_at_the_same_time_share_a_snapshot() {
    let listener = Listener::start(snapshot(20_000));
    let mut first = listener.connect();
    first.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut buffer = [0; 100];
    first.read_exact(&mut buffer).unwrap();
    assert_eq!(listener.snapshots.load(Ordering::Relaxed), 1);
    assert_eq!(listener.get("/").status, 200);
    assert_eq!(listener.snapshots.load(Ordering::Relaxed), 1, "the first one still reads it");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(listener.get("/").status, 200);
    assert_eq!(listener.snapshots.load(Ordering::Relaxed), 2, "an old one is of no use");
    drop(first);
}

#[test]
fn an_answer_under_way_is_finished_before_the_end() {
    let mut listener = Listener::start(snapshot(20_000));
    let mut reader = listener.connect();
    let mut idle = listener.connect();
    reader.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = vec![0; 1_000];
    reader.read_exact(&mut text).unwrap();
    drop(listener.stop.take());
    assert!(until_closed(&mut idle) < Duration::from_secs(2), "an idle one is closed at once");
    reader.read_to_end(&mut text).unwrap();
    let answer = Answer::parse(&String::from_utf8(text).unwrap());
    assert_eq!(samples(&answer.body, "purgewatch_probes_total").len(), 140_000, "to its end");
    let start = Instant::now();
    listener.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
    let _ = idle.shutdown(Shutdown::Both);
}
