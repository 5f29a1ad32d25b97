//! `on_stale = "ban"` against real varnishd processes.

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Daemon, QUICK, endpoint, peers};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

const PATH: &str = "/api/";

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    origin.serve("/other", cacheable("other"));
    origin
}

/// Bans of remedies with this result.
fn bans(daemon: &Daemon, result: &str) -> f64 {
    let labels = ["source=\"remedy\"", &format!("result=\"{result}\"")];
    daemon.metric("purgewatch_bans_total", &labels).unwrap_or(-1.0)
}

fn watch(origin: &Origin, varnishd: &Varnishd, further: &str) -> Daemon {
    let peers = peers(varnishd, origin.address);
    let daemon = Daemon::start(&(QUICK.to_owned() + &peers + &endpoint("rec", PATH, further)));
    daemon.wait_for_state("rec", "fresh");
    daemon
}

#[test]
fn what_is_stale_is_banned_once_more_and_proven() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    varnishd.get("rec.example.com", "/other");
    varnishd.get("elsewhere.example.com", PATH);
    let daemon = watch(&origin, &varnishd, "on_stale = \"ban\"");
    origin.serve(PATH, cacheable("two"));
    daemon.wait("it is stale", || daemon.log().contains("rec at cache-01 is stale"));
    daemon.wait_for_state("rec", "fresh");
    assert_eq!(bans(&daemon, "accepted"), 1.0);
    let proven = daemon.metric("purgewatch_ban_proofs_total", &["result=\"proven\""]);
    assert_eq!(proven, Some(1.0));
    let told = "rec at cache-01 was stale and was banned once more: proven";
    daemon.wait("the log says it", || daemon.log().contains(told));
    let (_, text) = daemon.get("/api/v1/status").unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let remedy = &document["targets"][0]["remedy"];
    assert_eq!((&remedy["count"], &remedy["cured"]), (&1.into(), &true.into()), "{remedy}");
    // Exactly that object: neither another URL, nor that URL on another host.
    let hit = |host: &str, path: &str| {
        let answer = varnishd.get(host, path).to_lowercase();
        let ids = answer.lines().find_map(|line| line.strip_prefix("x-varnish: ")).unwrap();
        ids.split(' ').count() == 2
    };
    assert!(hit("rec.example.com", "/other") && hit("elsewhere.example.com", PATH));
    assert!(varnishd.get("elsewhere.example.com", PATH).ends_with("one"));
}

#[test]
fn it_goes_by_the_object_where_the_vcl_sets_the_headers() {
    let origin = origin();
    let (host, port) = (origin.address.ip(), origin.address.port());
    let vcl = Some(format!(
        "backend default {{ .host = \"{host}\"; .port = \"{port}\"; }}\n\
         sub vcl_backend_response {{ set beresp.http.x-url = bereq.url; \
         set beresp.http.x-host = bereq.http.host; }}"
    ));
    let varnishd = Varnishd::start(Options { vcl, ..Options::default() });
    let keys = "on_stale = \"ban\"\nban_headers = { url = \"x-url\", host = \"x-host\" }";
    let daemon = watch(&origin, &varnishd, keys);
    // Keeps the ban on the list: an object that is older and was not tested yet.
    varnishd.get("rec.example.com", "/other");
    origin.serve(PATH, cacheable("two"));
    daemon.wait("it is banned", || bans(&daemon, "accepted") == 1.0);
    daemon.wait_for_state("rec", "fresh");
    let ban = r"obj.http.x-host ~ (?i)^rec\.example\.com(:80)?\z && obj.http.x-url == /api/";
    assert_eq!(varnishd.bans(), [ban]);
}

#[test]
fn it_is_off_by_default() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = watch(&origin, &varnishd, "");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.state("rec"), "stale");
    assert_eq!(bans(&daemon, "accepted"), 0.0);
    assert!(varnishd.bans().is_empty());
}

#[test]
fn nothing_is_banned_while_the_origin_is_down() {
    let origin = origin();
    let varnishd = Varnishd::in_front_of(origin.address);
    let daemon = watch(&origin, &varnishd, "on_stale = \"ban\"");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "lagging");
    origin.serve(PATH, Response::status(500));
    daemon.wait_for_state("rec", "stale");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(bans(&daemon, "accepted"), 0.0, "a banned object is not served from grace");
    assert!(varnishd.get("rec.example.com", PATH).ends_with("one"));
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "fresh");
    assert_eq!(bans(&daemon, "accepted"), 1.0);
}

#[test]
fn the_budget_is_kept_with_fifty_stale_endpoints() {
    let origin = Origin::start();
    let varnishd = Varnishd::in_front_of(origin.address);
    let path = |n: usize| format!("/page/{n}");
    let serve = |body: &str| (0..50).for_each(|n| origin.serve(&path(n), cacheable(body)));
    serve("one");
    let pages = (0..50).map(|n| endpoint(&format!("page-{n}"), &path(n), "")).collect::<String>();
    let defaults = format!("{QUICK}on_stale = \"ban\"\n");
    let peers = peers(&varnishd, origin.address);
    let daemon = Daemon::start(&format!("remedy_max_rate = 3\n{defaults}{peers}{pages}"));
    let count = |state: &str| {
        let metrics = daemon.metrics();
        let label = format!("state=\"{state}\"");
        let samples = metrics.lines().filter(|line| line.contains(&label));
        samples.filter(|line| line.ends_with(" 1")).count()
    };
    daemon.wait("all are fresh", || count("fresh") == 50);
    serve("two");
    daemon.wait("most are stale", || count("stale") >= 40);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(bans(&daemon, "accepted"), 3.0);
    assert_eq!((count("fresh"), count("stale")), (3, 47));
}
