//! Pointers: watched by the daemon, checked, and waited for, with two varnishds and a store.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, peers, purgewatch, sample};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

const KEY: &str = "/v1/kv/rec/current?raw";
const HOST: &str = "rec.example.com";
const STATES: [&str; 7] =
    ["unknown", "good", "lagging", "broken", "split", "unverifiable", "unreadable"];

/// An origin, two caches in front of it, and a store as Consul is one: it has the pointer.
struct Stage {
    origin: Origin,
    store: Origin,
    nodes: [Varnishd; 2],
}

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

impl Stage {
    /// The pointer names 1, and 1 is there.
    fn set() -> Self {
        let (origin, store) = (Origin::start(), Origin::start());
        origin.serve("/v/1/", cacheable("one"));
        store.serve(KEY, Response::ok("1\n"));
        let nodes = [(); 2].map(|()| Varnishd::in_front_of(origin.address));
        Self { origin, store, nodes }
    }

    fn config(&self, pointer: &str) -> String {
        let [first, second] = &self.nodes;
        let second = format!("[[node]]\nname = \"cache-02\"\nhttp = \"http://{}\"\n", second.http);
        format!(
            "{QUICK}{}{second}[[pointer]]\nname = \"current\"\norigin = \"origin\"\n{pointer}\n",
            peers(first, self.origin.address)
        )
    }

    /// A pointer in the store.
    fn stored(&self, further: &str) -> String {
        self.config(&format!(
            "url = \"http://{}{KEY}\"\nendpoints = [\"http://{HOST}/v/{{value}}/\"]\n{further}",
            self.store.address
        ))
    }

    /// A pointer of the application, behind the caches as all else.
    fn served(&self, further: &str) -> String {
        self.config(&format!(
            "url = \"http://{HOST}/current\"\nendpoints = [\"http://{HOST}/v/{{value}}/\"]\n{further}"
        ))
    }
}

fn state(daemon: &Daemon) -> &'static str {
    let metrics = daemon.metrics();
    let is = |state: &&str| {
        let label = format!("state=\"{state}\"");
        sample(&metrics, "purgewatch_pointer_state", &["pointer=\"current\"", &label]) == Some(1.0)
    };
    STATES.into_iter().find(is).unwrap_or("none")
}

fn wait_for(daemon: &Daemon, wanted: &str) {
    daemon.wait(&format!("the pointer is {wanted}"), || state(daemon) == wanted);
}

fn document(daemon: &Daemon) -> serde_json::Value {
    let (status, text) = daemon.get("/api/v1/status").unwrap();
    assert_eq!(status, 200);
    serde_json::from_str(&text).unwrap()
}

fn first_finding(daemon: &Daemon) -> String {
    document(daemon)["pointers"][0]["findings"][0].as_str().unwrap_or_default().to_owned()
}

fn no_alarm_for(daemon: &Daemon, span: Duration) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        let state = state(daemon);
        assert!(!["broken", "split", "unreadable"].contains(&state), "{state}: {}", daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_pointer_that_moves_is_followed() {
    let stage = Stage::set();
    let daemon = Daemon::start(&stage.stored("grace = \"4s\""));
    wait_for(&daemon, "good");
    let target = ["endpoint=\"current\"", "variant=\"target-1\"", "cache-02", "\"fresh\""];
    assert_eq!(daemon.metric("purgewatch_endpoint_state", &target), Some(1.0));

    stage.origin.serve("/v/2/", cacheable("two"));
    stage.store.serve(KEY, Response::ok("2"));
    let value = || document(&daemon)["pointers"][0]["value"].as_str().map(str::to_owned);
    daemon.wait("it leads to 2", || value().as_deref() == Some("2"));
    wait_for(&daemon, "good");
    assert!(daemon.log().contains("current moved from 1 to 2"), "{}", daemon.log());
    let known = document(&daemon);
    let url = known["pointers"][0]["targets"]["target-1"].as_str().unwrap();
    assert_eq!(url, format!("http://{HOST}/v/2/"));
    let metrics = daemon.metrics();
    assert!(metrics.contains("variant=\"previous-1\""), "{metrics}");
    assert!(!metrics.contains(HOST) && !metrics.contains("/v/2/"), "no label holds a URL");
    let changed = "purgewatch_pointer_last_change_timestamp_seconds";
    assert!(daemon.metric(changed, &["current"]).is_some_and(|at| at > 1e9));
    daemon.wait("the old URL is forgotten", || !daemon.metrics().contains("previous-1"));
    let url = format!("http://{}", daemon.http);
    let (code, out, err) = run(&["status", "--url", &url]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("pointer current leads to 2: good"), "{out}");
    let (status, page) = daemon.get("/").unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("<h2>Pointers</h2>") && page.contains(">good<"), "{page}");
}

#[test]
fn a_pointer_to_what_is_not_deployed_gets_patience_and_then_an_alarm() {
    let stage = Stage::set();
    let daemon = Daemon::start(&stage.stored(""));
    wait_for(&daemon, "good");
    stage.store.serve(KEY, Response::ok("2"));
    wait_for(&daemon, "lagging");
    let began = Instant::now();
    wait_for(&daemon, "broken");
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    let finding = first_finding(&daemon);
    assert!(finding.contains("/v/2/") && finding.contains("404"), "{finding}");
    assert!(daemon.log().contains("the pointer current is broken"), "{}", daemon.log());
    stage.origin.serve("/v/2/", cacheable("two"));
    // Varnish keeps the 404 for its default time.
    for node in &stage.nodes {
        node.adm(&["ban", "req.url", "~", "."]);
    }
    wait_for(&daemon, "good");

    // One that is deployed in time.
    stage.store.serve(KEY, Response::status(200).with_body("3"));
    thread::sleep(Duration::from_millis(1_500));
    stage.origin.serve("/v/3/", cacheable("three"));
    for node in &stage.nodes {
        node.adm(&["ban", "req.url", "~", "."]);
    }
    no_alarm_for(&daemon, Duration::from_secs(5));
    assert_eq!(state(&daemon), "good");
}

#[test]
fn a_404_that_one_cache_kept_is_found() {
    let stage = Stage::set();
    // Somebody asked too early.
    stage.nodes[1].get(HOST, "/v/2/");
    stage.origin.serve("/v/2/", cacheable("two"));
    stage.store.serve(KEY, Response::ok("2"));
    let daemon = Daemon::start(&stage.stored(""));
    wait_for(&daemon, "broken");
    let finding = first_finding(&daemon);
    assert!(finding.contains("cache-02 answers with status 404"), "{finding}");
}

#[test]
fn what_differs_on_two_nodes_is_split() {
    let stage = Stage::set();
    stage.nodes[1].get(HOST, "/v/1/");
    stage.origin.serve("/v/1/", cacheable("one, corrected"));
    let daemon = Daemon::start(&stage.stored(""));
    wait_for(&daemon, "split");
    let finding = first_finding(&daemon);
    assert!(finding.contains("cache-02 serves other content than the origin"), "{finding}");
    stage.nodes[1].adm(&["ban", "req.url", "~", "."]);
    wait_for(&daemon, "good");
}

#[test]
fn a_pointer_behind_the_caches_is_watched_there_too() {
    let stage = Stage::set();
    stage.origin.serve("/current", cacheable("{\"model\": {\"current\": \"1\"}}"));
    let daemon = Daemon::start(&stage.served("json = \"/model/current\""));
    wait_for(&daemon, "good");
    let own = ["endpoint=\"current\"", "variant=\"pointer\"", "cache-01", "\"fresh\""];
    assert_eq!(daemon.metric("purgewatch_endpoint_state", &own), Some(1.0));
    stage.origin.serve("/v/2/", cacheable("two"));
    stage.origin.serve("/current", cacheable("{\"model\": {\"current\": \"2\"}}"));
    stage.nodes[0].adm(&["ban", "req.url", "==", "/current"]);
    wait_for(&daemon, "split");
    assert_eq!(first_finding(&daemon), "cache-02 still names 1");
    stage.nodes[1].adm(&["ban", "req.url", "==", "/current"]);
    wait_for(&daemon, "good");
}

#[test]
fn a_json_pointer_that_leads_nowhere_is_unreadable() {
    let stage = Stage::set();
    stage.store.serve(KEY, Response::ok("{\"current\": \"1\"}"));
    let daemon = Daemon::start(&stage.stored("json = \"/model/current\""));
    wait_for(&daemon, "unreadable");
    let finding = first_finding(&daemon);
    assert!(finding.contains("the JSON pointer leads to no value"), "{finding}");
    stage.store.serve(KEY, Response::ok("{\"model\": {\"current\": \"1\"}}"));
    wait_for(&daemon, "good");
    stage.store.serve(KEY, Response::status(404));
    wait_for(&daemon, "unreadable");
    assert!(first_finding(&daemon).contains("404"), "{}", first_finding(&daemon));
}

#[test]
fn a_hostile_value_goes_nowhere() {
    let stage = Stage::set();
    let daemon = Daemon::start(&stage.stored(""));
    wait_for(&daemon, "good");
    let long = "x".repeat(1 << 20);
    let values = [
        "\" && obj.status == 200",
        "1\r\nHost: evil.example.com",
        "../../admin",
        "%2e%2e/admin",
        "1?admin=1",
        "\u{1b}[31m",
        &long,
    ];
    for value in values {
        stage.store.serve(KEY, Response::ok(value));
        wait_for(&daemon, "unreadable");
        let finding = first_finding(&daemon);
        let said = finding.contains("cannot be used") || finding.contains("longer than the limit");
        assert!(said, "{finding}");
        stage.store.serve(KEY, Response::ok("1"));
        wait_for(&daemon, "good");
    }
    assert!(stage.origin.requests().iter().all(|r| r.target == "/v/1/"), "nothing else was asked");
    assert!(!daemon.log().contains('\u{1b}'), "{}", daemon.log());
}

#[test]
fn a_store_whose_replicas_differ_is_unverifiable() {
    let stage = Stage::set();
    stage.store.flap(KEY, vec![Response::ok("1"), Response::ok("2"), Response::ok("2")]);
    let daemon = Daemon::start(&stage.stored(""));
    wait_for(&daemon, "unverifiable");
    no_alarm_for(&daemon, Duration::from_secs(8));
}

#[test]
fn a_restart_raises_nothing_false() {
    let stage = Stage::set();
    let mut daemon = Daemon::start(&stage.stored(""));
    wait_for(&daemon, "good");
    daemon.wait("it is stored", || daemon.state_dir().exists());
    daemon.stop();
    daemon.start_again();
    let value = document(&daemon)["pointers"][0]["value"].as_str().map(str::to_owned);
    assert_eq!(value.as_deref(), Some("1"), "known from before");
    wait_for(&daemon, "good");
    // It moves while the daemon is away.
    daemon.kill();
    stage.origin.serve("/v/2/", cacheable("two"));
    stage.store.serve(KEY, Response::ok("2"));
    daemon.start_again();
    no_alarm_for(&daemon, Duration::from_secs(5));
    assert_eq!(state(&daemon), "good");
    daemon.reload(&stage.stored("grace = \"1s\""));
    no_alarm_for(&daemon, Duration::from_secs(2));
    wait_for(&daemon, "good");
}

#[test]
fn the_token_of_the_store_stays_there() {
    let stage = Stage::set();
    let daemon =
        Daemon::start(&stage.stored("headers = { X-Consul-Token = \"a token of the tests\" }"));
    wait_for(&daemon, "good");
    let has_token = |request: &crate::support::origin::Request| {
        request.header("x-consul-token") == Some("a token of the tests")
    };
    assert!(stage.store.requests().iter().all(has_token));
    assert!(!stage.origin.requests().iter().any(has_token));
    assert!(!daemon.log().contains("a token of the tests"));
}

/// Runs the program: exit code, stdout and stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = purgewatch(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

struct Command {
    dir: tempfile::TempDir,
}

impl Command {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("purgewatch.toml"), config).unwrap();
        Self { dir }
    }

    fn run(&self, command: &str, further: &[&str]) -> (i32, String, String) {
        let config = self.dir.path().join("purgewatch.toml");
        let mut arguments = vec![command, "-c", config.to_str().unwrap()];
        arguments.extend(further);
        run(&arguments)
    }

    fn wait_for(&self, value: &str, within: &str) -> (i32, String, String) {
        let pointer = ["--pointer", "current", "--value", value, "--every", "200ms"];
        self.run("wait", &[&pointer[..], &["--within", within]].concat())
    }
}

#[test]
fn a_deployment_waits_for_the_pointer() {
    let stage = Stage::set();
    let command = Command::new(&stage.stored(""));
    let (code, out, err) = command.wait_for("1", "20s");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("current leads to 1 everywhere"), "{out}");

    let (code, out, err) = command.wait_for("2", "1s");
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("still names 1 and not 2"), "{err}");

    // The pointer moves, and its URL is there a moment later.
    let (code, out, err) = thread::scope(|scope| {
        let waiting = scope.spawn(|| command.wait_for("2", "30s"));
        thread::sleep(Duration::from_millis(700));
        stage.store.serve(KEY, Response::ok("2"));
        thread::sleep(Duration::from_millis(700));
        stage.origin.serve("/v/2/", cacheable("two"));
        for node in &stage.nodes {
            node.adm(&["ban", "req.url", "~", "."]);
        }
        waiting.join().unwrap()
    });
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("target-1: http://rec.example.com/v/2/"), "{out}");

    // Somebody asked one cache too early.
    stage.nodes[1].get(HOST, "/v/3/");
    stage.origin.serve("/v/3/", cacheable("three"));
    stage.store.serve(KEY, Response::ok("3"));
    let (code, out, err) = command.wait_for("3", "2s");
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("cache-02 answers with status 404"), "{out}");
}

#[test]
fn a_wait_says_what_cannot_be_reached() {
    let stage = Stage::set();
    let command = Command::new(&stage.stored(""));
    let (code, _, err) = command.wait_for("../x", "1s");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cannot be used"), "{err}");
    let pointer = ["--pointer", "nothing", "--value", "1"];
    let (code, _, err) = command.run("wait", &pointer);
    assert_eq!((code, err.contains("has no pointer nothing")), (2, true), "{err}");
    let (code, ..) = command.run("wait", &["--pointer", "current"]);
    assert_eq!(code, 2);

    stage.store.serve(KEY, Response::ok("a b"));
    let (code, out, err) = command.wait_for("1", "1s");
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("cannot be used"), "{out}");

    let Stage { origin, store, nodes } = stage;
    drop(store);
    let (code, out, err) = command.wait_for("1", "1s");
    assert_eq!(code, 3, "{out}{err}");
    drop((origin, nodes));
}

#[test]
fn two_servers_that_agree_prove_nothing_of_a_cache() {
    let stage = Stage::set();
    let plain = Origin::start();
    plain.serve("/v/1/", cacheable("one"));
    let second = stage.nodes[1].http.to_string();
    let config = stage.stored("").replace(&second, &plain.address.to_string());
    let (code, out, err) = Command::new(&config).wait_for("1", "20s");
    assert_eq!(code, 3, "{out}{err}");
    assert!(err.contains("is no cache"), "{err}");
    // And a pointer that is read through a cache by mistake may be old.
    stage.origin.serve("/current", cacheable("1"));
    let pointer = format!(
        "url = \"http://{}/current\"\nendpoints = [\"http://{HOST}/v/{{value}}/\"]",
        stage.nodes[0].http
    );
    let (code, out, err) = Command::new(&stage.config(&pointer)).wait_for("1", "1s");
    assert_eq!(code, 3, "{out}{err}");
    assert!(out.contains("comes through a Varnish"), "{out}");
}

#[test]
fn a_check_shows_pointers() {
    let stage = Stage::set();
    let command = Command::new(&stage.stored(""));
    let (code, out, err) = command.run("check", &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("pointer current leads to 1: good"), "{out}");
    stage.origin.serve("/v/1/", Response::status(404));
    let (code, out, err) = command.run("check", &["current", "--output", "json"]);
    assert_eq!(code, 1, "{out}{err}");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["pointers"][0]["state"], "broken", "{out}");
    assert_eq!(document["results"][0]["url"], format!("http://{HOST}/v/1/"));
}
