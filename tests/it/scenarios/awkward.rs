//! What only looks like a fault: none of it may raise an alarm.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::{HOST, PATH, Scenario, Stage, cacheable, in_front_of, run};
use crate::support::daemon::{QUICK, endpoint, peers};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

/// Long enough for an alarm twice over: `max_stale` is three seconds.
const LONG: Duration = Duration::from_secs(8);

#[test]
fn nothing_healthy_raises_an_alarm() {
    assert!(AWKWARD.len() >= 12, "{}", AWKWARD.len());
    run(AWKWARD);
}

const AWKWARD: &[Scenario] = &[
    ("an origin that flaps", flapping),
    ("nonces", nonces),
    ("a slow deployment over two replicas", slow_deployment),
    ("TTL that runs out", ttl),
    ("a refresh in grace", grace_refresh),
    ("varnishd restarts", varnishd_restarts),
    ("the cache process restarts", child_restarts),
    ("the daemon restarts", daemon_restarts),
    ("the origin restarts", origin_restarts),
    ("a change and its ban at once", change_and_ban),
    ("changes one after the other, each banned", many_changes),
    ("packed in the cache, plain at the origin", packed),
    ("weak and strong ETags", weak_etag),
    ("a page that is never cached", passed),
    ("two nodes with objects of different age", two_ages),
    ("an origin that answers 304 for ever", frozen_304),
    ("a slow origin", slow_origin),
];

fn flapping() {
    let stage = Stage::new();
    stage.origin.flap(PATH, vec![cacheable("one"), cacheable("two"), cacheable("two")]);
    stage.raises_nothing_for(LONG + LONG / 2);
}

fn nonces() {
    let stage = Stage::new();
    let count = AtomicU32::new(0);
    stage.origin.route(PATH, move |_| {
        cacheable(&format!("request {}", count.fetch_add(1, Ordering::Relaxed)))
    });
    stage.raises_nothing_for(LONG);
    assert_eq!(stage.daemon.state("rec"), "unverifiable");
}

fn slow_deployment() {
    let stage = Stage::new().settle();
    // One replica has the new content; requests go to both in turn.
    stage.origin.flap(PATH, vec![cacheable("one"), cacheable("two")]);
    stage.raises_nothing_for(LONG);
    stage.change();
    stage.ban(&["req.url", "==", PATH]);
    stage.daemon.wait("it is fresh or was never proven otherwise", || {
        ["fresh", "unverifiable"].contains(&stage.daemon.state("rec").as_str())
    });
    stage.raises_nothing_for(LONG / 2);
}

fn short_lived(body: &str, seconds: u32) -> Response {
    Response::ok(body).header("Cache-Control", &format!("max-age={seconds}"))
}

fn ttl() {
    let origin = Origin::start();
    origin.serve(PATH, short_lived("one", 1));
    let varnishd = in_front_of(&origin, "sub vcl_backend_response { set beresp.grace = 0s; }");
    let stage = Stage::of(origin, varnishd, "").settle();
    stage.origin.serve(PATH, short_lived("two", 1));
    stage.raises_nothing_for(LONG);
    stage.daemon.wait_for_state("rec", "fresh");
}

fn grace_refresh() {
    let origin = Origin::start();
    origin.serve(PATH, short_lived("one", 1));
    let varnishd = in_front_of(&origin, "sub vcl_backend_response { set beresp.grace = 10s; }");
    let stage = Stage::of(origin, varnishd, "").settle();
    stage.origin.serve(PATH, short_lived("two", 1));
    stage.raises_nothing_for(LONG);
    stage.daemon.wait_for_state("rec", "fresh");
}

fn varnishd_restarts() {
    let mut stage = Stage::new().settle();
    for _ in 0..2 {
        stage.varnishd.restart();
        stage.raises_nothing_for(LONG / 4);
    }
    stage.daemon.wait_for_state("rec", "fresh");
}

fn child_restarts() {
    let stage = Stage::new().settle();
    for _ in 0..2 {
        stage.varnishd.adm(&["stop"]);
        stage.varnishd.adm(&["start"]);
        stage.raises_nothing_for(LONG / 4);
    }
    stage.daemon.wait_for_state("rec", "fresh");
}

fn daemon_restarts() {
    let mut stage = Stage::new().settle();
    for _ in 0..2 {
        stage.daemon.kill();
        stage.daemon.start_again();
        stage.raises_nothing_for(LONG / 4);
    }
    stage.daemon.wait_for_state("rec", "fresh");
}

fn origin_restarts() {
    let stage = Stage::new().settle();
    stage.origin.serve(PATH, Response::status(502));
    stage.raises_nothing_for(LONG / 2);
    stage.origin.serve(PATH, cacheable("one"));
    stage.daemon.wait_for_state("rec", "fresh");
    stage.raises_nothing_for(LONG / 4);
}

fn change_and_ban() {
    let stage = Stage::new().settle();
    stage.change();
    stage.ban(&["req.url", "==", PATH]);
    stage.raises_nothing_for(LONG);
    stage.daemon.wait_for_state("rec", "fresh");
}

fn many_changes() {
    let stage = Stage::new().settle();
    for n in 0..6 {
        stage.origin.serve(PATH, cacheable(&format!("version {n}")));
        thread::sleep(Duration::from_millis(400));
        stage.ban(&["req.url", "==", PATH]);
        stage.raises_nothing_for(LONG / 5);
    }
    stage.daemon.wait_for_state("rec", "fresh");
}

fn packed() {
    let body = "the same body, long enough to be worth packing, and packed it is";
    let origin = Origin::start();
    origin.route(PATH, move |request| {
        let response = cacheable(body);
        if request.header("x-varnish").is_some() { response.gzip() } else { response }
    });
    let varnishd = in_front_of(&origin, "");
    let stage = Stage::of(origin, varnishd, "").settle();
    stage.raises_nothing_for(LONG);
    assert_eq!(stage.daemon.state("rec"), "fresh");
}

fn weak_etag() {
    let origin = Origin::start();
    origin.route(PATH, |request| {
        let tag = if request.header("x-varnish").is_some() { "W/\"1\"" } else { "\"1\"" };
        cacheable("the same").header("ETag", tag)
    });
    let varnishd = in_front_of(&origin, "");
    let stage = Stage::of(origin, varnishd, "compare = \"etag\"").settle();
    stage.raises_nothing_for(LONG);
    assert_eq!(stage.daemon.state("rec"), "fresh");
}

fn passed() {
    let stage = Stage::with("sub vcl_recv { return (pass); }", "").settle();
    for n in 0..4 {
        stage.origin.serve(PATH, cacheable(&format!("version {n}")));
        stage.raises_nothing_for(LONG / 4);
    }
    stage.daemon.wait_for_state("rec", "fresh");
}

fn two_ages() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let (first, second) = (in_front_of(&origin, ""), in_front_of(&origin, ""));
    let second_node = peers(&second, origin.address).replace("cache-01", "cache-02");
    let second_node = second_node.split("[[origin]]").next().unwrap().to_owned();
    let config = QUICK.to_owned()
        + &peers(&first, origin.address)
        + &second_node
        + &endpoint("rec", PATH, "");
    let stage = Stage::configured(origin, first, &config).settle();
    thread::sleep(Duration::from_secs(2));
    stage.ban(&["req.url", "==", PATH]);
    stage.raises_nothing_for(LONG / 2);
    for node in ["cache-01", "cache-02"] {
        let labels = ["endpoint=\"rec\"", &format!("node=\"{node}\""), "state=\"fresh\""];
        assert_eq!(stage.daemon.metric("purgewatch_endpoint_state", &labels), Some(1.0), "{node}");
    }
    let _ = second.get(HOST, PATH);
}

fn frozen_304() {
    let origin = Origin::start();
    origin.route(PATH, |request| {
        let conditional = request.header("if-none-match").is_some();
        let response = if conditional { Response::status(304) } else { cacheable("one") };
        response.header("ETag", "\"for ever\"")
    });
    let varnishd = in_front_of(&origin, "");
    let stage = Stage::of(origin, varnishd, "").settle();
    stage.raises_nothing_for(LONG);
    assert_eq!(stage.daemon.state("rec"), "fresh");
}

fn slow_origin() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one").after(Duration::from_millis(700)));
    let (host, port) = (origin.address.ip(), origin.address.port());
    let vcl = format!("backend default {{ .host = \"{host}\"; .port = \"{port}\"; }}");
    let varnishd = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    let stage = Stage::of(origin, varnishd, "").settle();
    stage.raises_nothing_for(LONG);
    assert_eq!(stage.daemon.state("rec"), "fresh");
}
