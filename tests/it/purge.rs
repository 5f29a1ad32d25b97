//! `purgewatch purge` against real varnishd processes, by what their VCL makes of it.

use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::ban::{check_code, purgewatch, text};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd, free_port};

const HOST: &str = "www.example.com";
const URL: &str = "http://www.example.com/a";

/// A VCL that purges.
const PURGES: &str = "sub vcl_recv { if (req.method == \"PURGE\") { return (purge); } }";

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

/// A varnishd with this VCL, `one` being cached at `/a` and the origin having gone over to `two`.
fn stale(vcl: &str) -> (Origin, Varnishd) {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    let (ip, port) = (origin.address.ip(), origin.address.port());
    let vcl = format!("backend default {{ .host = \"{ip}\"; .port = \"{port}\"; }}\n{vcl}");
    let varnishd = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    assert!(varnishd.get(HOST, "/a").ends_with("one"));
    origin.serve("/a", cacheable("two"));
    (origin, varnishd)
}

fn purge(varnishd: &Varnishd, further: &[&str]) -> Output {
    let node = format!("http://{}", varnishd.http);
    purgewatch(&[&["purge", URL, "--node-http", &node], further].concat(), &[], "")
}

fn purge_with(origin: &Origin, varnishd: &Varnishd, further: &[&str]) -> Output {
    let origin = origin.address.to_string();
    purge(varnishd, &[&["--origin", &origin], further].concat())
}

/// The only purge, of a call with `--output json`.
#[track_caller]
fn check_json(output: &Output, code: i32, result: &str, proof: &str, reason: &str) -> Value {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    let purge = document["nodes"][0]["purges"][0].clone();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = [&purge["result"], &purge["proof"]["proof"], &purge["proof"]["reason"]].map(word);
    assert_eq!(found, [result, proof, reason], "{document:#}");
    assert_eq!(output.status.code(), Some(code), "{document:#}");
    assert_eq!(document["exit"], code);
    purge
}

#[test]
fn a_purge_is_proven_by_what_the_origin_serves() {
    let (origin, varnishd) = stale(PURGES);
    let output = purge_with(&origin, &varnishd, &[]);
    check_code(&output, 0, "");
    let out = text(&output.stdout);
    assert!(out.contains(&format!("purge of {URL} answered with 200 Purged")), "{out}");
    assert!(out.contains(&format!("proven: {URL}: the node serves what the origin")), "{out}");
    assert!(varnishd.get(HOST, "/a").ends_with("two"));
    let output = purge(&varnishd, &["--output", "json"]);
    let purge_ = check_json(&output, 0, "accepted", "replaced", "no_origin");
    assert_eq!((purge_["status"].as_u64(), purge_["phrase"].as_str()), (Some(200), Some("Purged")));
    let output = purge(&varnishd, &["--output", "jsonl"]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["purges"][0]["proof"]["proof"], "replaced");
}

#[test]
fn a_200_that_purged_nothing_is_no_success() {
    let does_nothing =
        "sub vcl_recv { if (req.method == \"PURGE\") { return (synth(200, \"Purged\")); } }";
    let (origin, varnishd) = stale(does_nothing);
    let output = purge_with(&origin, &varnishd, &[]);
    check_code(&output, 1, "survived");
    check_code(&output, 1, "answered the purge with 200 Purged, which says nothing");
    let output = purge(&varnishd, &["--output", "json"]);
    check_json(&output, 1, "accepted", "survived", "same_object");
    assert!(varnishd.get(HOST, "/a").ends_with("one"));
}

#[test]
fn an_answer_from_something_else_than_the_node_is_told() {
    // The built-in VCL pipes what it does not know: the origin answers.
    let (origin, varnishd) = stale("");
    let output = purge(&varnishd, &["--output", "json"]);
    let purge_ = check_json(&output, 1, "accepted", "survived", "same_object");
    let suspicion = purge_["suspicion"].as_str().unwrap();
    assert!(suspicion.contains("handed it on to the origin"), "{suspicion}");
    // No node at all.
    let node = format!("http://{}", origin.address);
    let output = purgewatch(&["purge", URL, "--node-http", &node, "--output", "json"], &[], "");
    check_json(&output, 3, "accepted", "unprovable", "not_a_cache");
    // Two nodes behind one address.
    let other = "sub vcl_recv { if (req.method == \"PURGE\") { return (synth(200)); } }
        sub vcl_synth { set resp.http.via = \"1.1 cache-02 (Varnish/7.7)\"; return (deliver); }";
    let (_origin, varnishd) = stale(other);
    let output = purge(&varnishd, &[]);
    check_code(&output, 1, "are these two nodes behind one address?");
}

#[test]
fn a_refusal_is_told_by_its_kind() {
    let refuses = "acl nobody { \"192.0.2.1\"; }
        sub vcl_recv { if (req.method == \"PURGE\") {
            if (req.http.host == \"redirect\") { return (synth(301)); }
            if (client.ip !~ nobody) { return (synth(405, \"Not allowed\")); } } }
        sub vcl_synth { if (resp.status == 301) { set resp.http.location = \"https://x/\"; } }";
    let (origin, varnishd) = stale(refuses);
    let output = purge_with(&origin, &varnishd, &[]);
    check_code(&output, 5, "not purged: refused with 405 Not allowed: the VCL lets only some");
    assert_eq!(text(&output.stdout), "");
    let output = purge(&varnishd, &["--output", "json"]);
    check_json(&output, 5, "refused", "", "");
    let node = format!("http://{}", varnishd.http);
    let output = purgewatch(&["purge", "http://redirect/a", "--node-http", &node], &[], "");
    check_code(&output, 5, "a redirect to https://x/: purges are not redirected");
}

#[test]
fn methods_and_headers_are_those_of_the_vcl() {
    let wants = "sub vcl_recv { if (req.method == \"BAN\") {
        if (req.http.x-token != \"s\") { return (synth(403)); } return (purge); } }";
    let (_origin, varnishd) = stale(wants);
    check_code(&purge(&varnishd, &["--method", "BAN"]), 5, "wants a header (--header)");
    let right = ["--method", "BAN", "--header", "X-Token: s"];
    check_code(&purge(&varnishd, &right), 0, "");
    check_code(&purge(&varnishd, &["--method", "GET"]), 2, "expected a method such as PURGE");
    check_code(&purge(&varnishd, &["--header", "none"]), 2, "expected NAME: VALUE");
    // What is wrong may be a token, and what cannot be set is not dropped in silence.
    let wrong = ["X-Token TOPSECRET", "X Token: TOPSECRET", "X-Token: TOP\u{7}SECRET"];
    for (flag, value) in ["--header", "--fetch-header", "--soft"].into_iter().zip(wrong) {
        let output = purge(&varnishd, &[flag, value]);
        check_code(&output, 2, &format!("{flag}: "));
        assert!(!text(&output.stderr).contains("SECRET"), "{}", text(&output.stderr));
    }
    for name in ["Host", "content-length", "Transfer-Encoding"] {
        let output = purge(&varnishd, &["--header", &format!("{name}: x")]);
        check_code(&output, 2, &format!("{} cannot be set", name.to_ascii_lowercase()));
    }
}

#[test]
fn a_soft_purge_leaves_the_old_object_to_grace_for_a_moment() {
    let soft = "import purge;
        sub vcl_recv { if (req.method == \"PURGE\") { return (hash); } }
        sub my_purge { if (req.method == \"PURGE\") {
            if (req.http.x-soft) { purge.soft(0s); } else { purge.hard(); }
            return (synth(200, \"Purged\")); } }
        sub vcl_hit { call my_purge; } sub vcl_miss { call my_purge; }";
    let (origin, varnishd) = stale(soft);
    let slow = cacheable("two").after(Duration::from_millis(300));
    origin.serve("/a", slow);
    let output = purge_with(&origin, &varnishd, &["--soft", "X-Soft: 1", "--output", "json"]);
    let purge_ = check_json(&output, 0, "accepted", "proven", "");
    assert!(purge_["proof"]["seconds"].as_f64().unwrap() > 0.3, "{purge_}");
    assert!(varnishd.get(HOST, "/a").ends_with("two"));
}

#[test]
fn a_fetch_under_way_is_purged_again() {
    let (origin, varnishd) = stale(PURGES);
    let asked = AtomicUsize::new(0);
    origin.route("/a", move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Response::ok("old").header("Cache-Control", "max-age=1"),
        1 => cacheable("old").after(Duration::from_millis(1_200)),
        _ => cacheable("new"),
    });
    let hits = origin.hits("/a");
    check_code(&purge(&varnishd, &[]), 0, "");
    sleep(Duration::from_millis(1_200));
    assert!(varnishd.get(HOST, "/a").ends_with("old"), "from grace");
    while origin.hits("/a") < hits + 2 {
        sleep(Duration::from_millis(2));
    }
    let output = purge_with(&origin, &varnishd, &["--output", "json"]);
    let purge_ = check_json(&output, 0, "accepted", "proven", "");
    assert_eq!(purge_["proof"]["rounds"], 2, "{purge_}");
}

#[test]
fn every_node_of_a_configuration_is_purged_and_a_dead_one_named() {
    let (origin, varnishd) = stale(PURGES);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("purgewatch.toml");
    let toml = format!(
        "[[node]]\nname = \"dead\"\nhttp = \"http://{}\"\n\
         [[node]]\nname = \"cache-01\"\nhttp = \"http://{}\"\n\
         [[origin]]\nname = \"app\"\naddress = \"http://{}\"\n\
         [[endpoint]]\nname = \"a\"\nurl = \"{URL}\"\norigin = \"app\"\n",
        free_port("127.0.0.1"),
        varnishd.http,
        origin.address
    );
    std::fs::write(&path, toml).unwrap();
    let config = path.to_str().unwrap();
    let output = purgewatch(&["purge", "-c", config, URL], &[], "");
    check_code(
        &output,
        3,
        "dead: http://www.example.com/a: not purged: the connection was refused",
    );
    assert!(text(&output.stdout).contains(&format!("cache-01: proven: {URL}")));
    let output = purgewatch(&["purge", "-c", config, "--node", "cache-01", URL], &[], "");
    check_code(&output, 0, "");
    let output = purgewatch(&["purge", "-c", config, "--node", "cache-02", URL], &[], "");
    check_code(&output, 2, "there is no node cache-02");
    let github = [("GITHUB_ACTIONS", "true")];
    let output = purgewatch(&["purge", "-c", config, "--node", "dead", URL], &github, "");
    check_code(&output, 3, "::error title=purgewatch purge::dead: ");
}
