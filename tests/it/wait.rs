//! `purgewatch wait` against a real varnishd.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::purgewatch;
use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

const URL: &str = "http://rec.example.com/a";

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

/// Runs `wait` without a configuration: exit code, stdout, stderr.
fn wait(node: &str, origin: &Origin, further: &[&str]) -> (i32, String, String) {
    let origin = origin.address.to_string();
    let mut arguments = vec!["wait", "--node-http", node, "--origin", &origin, URL];
    arguments.extend(further);
    let output = purgewatch(&arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn stale() -> (Origin, Varnishd, String) {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    assert!(varnishd.get("rec.example.com", "/a").ends_with("one"));
    origin.serve("/a", cacheable("two"));
    let node = format!("http://{}", varnishd.http);
    (origin, varnishd, node)
}

#[test]
fn it_ends_as_soon_as_the_node_is_fresh() {
    let (origin, varnishd, node) = stale();
    let begin = Instant::now();
    let waiting = thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&node, &origin, &["--within", "50s"]));
        // Until it has seen the old content; then the ban comes.
        while origin.requests().len() < 4 {
            thread::sleep(Duration::from_millis(20));
        }
        varnishd.adm(&["ban", "req.url", "==", "/a"]);
        waiting.join().unwrap()
    });
    let (code, out, err) = waiting;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("all fresh after"), "{out}");
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
}

#[test]
fn what_stays_old_is_named_at_the_end() {
    let (origin, _varnishd, node) = stale();
    let (code, out, err) = wait(&node, &origin, &["--within", "2s", "--every", "200ms"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains(" stale ") || out.contains(" lagging "), "{out}");
    assert!(err.contains("not all was fresh within"), "{err}");

    let (code, out, _) = wait(&node, &origin, &["--within", "1s", "--output", "json"]);
    assert_eq!(code, 1, "{out}");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    let state = document["results"][0]["state"].as_str().unwrap();
    assert!(["lagging", "stale"].contains(&state), "{state}");
}

#[test]
fn a_server_that_is_no_cache_is_not_waited_for() {
    let (origin, _varnishd, _) = stale();
    let other = Origin::start();
    other.serve("/a", cacheable("two"));
    let node = format!("http://{}", other.address);
    let begin = Instant::now();
    let (code, out, err) = wait(&node, &origin, &["--within", "50s"]);
    assert_eq!(code, 3, "{out}{err}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn a_node_that_is_down_is_no_success() {
    let (origin, varnishd, node) = stale();
    drop(varnishd);
    let (code, out, _) = wait(&node, &origin, &["--within", "2s"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("cache_down") || out.contains("unknown"), "{out}");
}
