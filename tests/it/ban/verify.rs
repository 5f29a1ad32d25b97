//! `purgewatch ban --verify` against real varnishd processes: each proof, and the awkward cases.

mod awkward;
mod race;
mod tested;

use std::process::Output;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::{ban, check_code, json, text};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

const HOST: &str = "www.example.com";
const URL: &str = "http://www.example.com/a";

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

/// A varnishd with this VCL behind its backend, and its origin, which serves `one` at `/a`.
fn with_vcl(vcl: &str) -> (Origin, Varnishd) {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    let (ip, port) = (origin.address.ip(), origin.address.port());
    let backend = format!("backend default {{ .host = \"{ip}\"; .port = \"{port}\"; }}\n");
    let vcl = Some(backend + vcl);
    let varnishd = Varnishd::start(Options { vcl, ..Options::default() });
    (origin, varnishd)
}

/// The same, `one` being cached and the origin having gone over to `two`.
fn stale(vcl: &str) -> (Origin, Varnishd) {
    let (origin, varnishd) = with_vcl(vcl);
    assert!(varnishd.get(HOST, "/a").ends_with("one"));
    origin.serve("/a", cacheable("two"));
    (origin, varnishd)
}

/// Runs the ban, to be proven at the varnishd; without an origin to compare with.
fn verify(varnishd: &Varnishd, expression: &str, further: &[&str]) -> Output {
    let node = format!("http://{}", varnishd.http);
    let proof = ["--verify", URL, "--node-http", &node, expression];
    ban(varnishd, &[&proof[..], further].concat(), "")
}

/// The same, compared with the origin.
fn verify_with(origin: &Origin, varnishd: &Varnishd, expression: &str, more: &[&str]) -> Output {
    let origin = origin.address.to_string();
    verify(varnishd, expression, &[&["--origin", &origin], more].concat())
}

/// The only proof, of a call with `--output json`, and its reason.
#[track_caller]
fn proof(output: &Output) -> (Value, String, String) {
    let document = json(output);
    let proofs = document["nodes"][0]["proofs"].as_array().unwrap_or_else(|| panic!("{document}"));
    assert_eq!(proofs.len(), 1, "{document}");
    let word = |key: &str| proofs[0][key].as_str().unwrap_or_default().to_owned();
    (proofs[0].clone(), word("proof"), word("reason"))
}

#[track_caller]
fn check_proof(output: &Output, code: i32, label: &str, reason: &str) -> Value {
    let (proof, found, why) = proof(output);
    assert_eq!((found.as_str(), why.as_str()), (label, reason), "{proof:#}");
    assert_eq!(output.status.code(), Some(code), "{proof:#}");
    proof
}

#[test]
fn what_the_origin_serves_is_proof() {
    let (origin, varnishd) = stale("");
    let output = verify_with(&origin, &varnishd, "req.url == /a", &[]);
    check_code(&output, 0, "");
    let out = text(&output.stdout);
    assert!(out.contains(&format!(": proven: {URL}: the node serves what the origin")), "{out}");
    assert!(varnishd.get(HOST, "/a").ends_with("two"));

    origin.serve("/a", cacheable("three"));
    let output = verify_with(&origin, &varnishd, "req.url == /a", &["--output", "json"]);
    let proof = check_proof(&output, 0, "proven", "");
    let version = |key: &str| proof[key]["version"].as_str().unwrap().to_owned();
    assert_ne!(version("before"), version("after"));
    assert_eq!(version("after"), proof["origin"].as_str().unwrap());
    assert!(proof["before"]["object"].is_u64() && proof["after"]["object"].is_null(), "{proof}");
    assert_eq!(proof["rounds"], 1);
}

#[test]
fn a_new_object_without_an_origin_is_no_more_than_replaced() {
    let (_origin, varnishd) = stale("");
    let output = verify(&varnishd, "req.url == /a", &["--output", "json"]);
    let proof = check_proof(&output, 0, "replaced", "no_origin");
    assert_eq!(proof["basis"], "x-varnish");
    let output = verify(&varnishd, "req.url == /a", &["--output", "jsonl"]);
    assert_eq!(json(&output)["proofs"][0]["proof"], "replaced");
    let output = verify(&varnishd, "req.url == /a", &[]);
    assert!(text(&output.stdout).contains("was not compared, since no origin is known"));
}

#[test]
fn a_ban_that_cannot_match_is_not_sent() {
    let (origin, varnishd) = stale("");
    let output = verify_with(&origin, &varnishd, "req.url == /b", &[]);
    check_code(&output, 2, "refused (cannot-match): the ban cannot match http://www.example.com/a");
    check_code(&output, 2, "req.url is \"/a\" and not \"/b\"; --verify-anyway");
    assert!(varnishd.get(HOST, "/a").ends_with("one"));
    assert!(!varnishd.bans().iter().any(|ban| ban.contains("/b")));
    let output = verify(&varnishd, "req.http.host == example.com", &["--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(json(&output)["unmatched"][0]["message"].as_str().unwrap().contains("req.http.host"));

    // One of several is enough.
    let output = verify(&varnishd, "req.url == /b", &["req.url == /a", "--output", "json"]);
    check_proof(&output, 0, "replaced", "no_origin");
}

#[test]
fn an_object_that_was_not_hit_has_survived() {
    let (origin, varnishd) = stale("");
    let anyway = ["--verify-anyway", "--output", "json"];
    let output = verify_with(&origin, &varnishd, "req.url == /b", &anyway);
    let proof = check_proof(&output, 1, "survived", "same_object");
    assert_eq!(proof["before"]["object"], proof["after"]["object"]);

    // Also when its content is right.
    origin.serve("/a", cacheable("one"));
    let output = verify_with(&origin, &varnishd, "req.url == /b", &["--verify-anyway"]);
    check_code(&output, 1, "its content is what the origin serves all the same");

    // What the matcher cannot know, because the VCL removes the header on delivery.
    let output = verify(&varnishd, "obj.http.x-url == /b", &["--output", "json"]);
    check_proof(&output, 1, "survived", "same_object");
    // Unless it is told what the header holds.
    let (node, other) = (format!("http://{}", varnishd.http), "http://www.example.com/b");
    let proof = ["--verify", URL, "--node-http", &node];
    let told = ["--url", other, "--url-header", "x-url", "--host-header", "x-host"];
    let output = ban(&varnishd, &[&proof[..], &told].concat(), "");
    check_code(&output, 2, "the ban cannot match http://www.example.com/a");
    check_code(&output, 2, "obj.http.x-url is \"/a\" and not \"/b\"");
}

#[test]
fn an_object_that_was_not_cached_before_is_known_after_a_second_look() {
    let (origin, varnishd) = with_vcl("");
    let output = verify(&varnishd, "req.url == /a", &["--output", "json"]);
    let proof = check_proof(&output, 0, "replaced", "no_origin");
    assert!(proof["before"]["object"].is_u64(), "{proof}");
    assert_eq!(origin.hits("/a"), 2, "once before the ban, once after");
}

#[test]
fn what_is_never_cached_can_only_be_compared() {
    let (origin, varnishd) = with_vcl("sub vcl_recv { return (pass); }");
    let output = verify(&varnishd, "req.url == /a", &["--output", "json"]);
    check_proof(&output, 0, "unprovable", "not_cached");
    check_code(&verify(&varnishd, "req.url == /a", &[]), 0, "unprovable: http://www.example.com/a");
    let output = verify_with(&origin, &varnishd, "req.url == /a", &["--output", "json"]);
    check_proof(&output, 0, "proven", "");
}

#[test]
fn an_origin_that_does_not_answer_leaves_the_content_open() {
    let (_origin, varnishd) = stale("");
    let down = Origin::start();
    let dead = down.address.to_string();
    drop(down);
    let further = ["--origin", &dead, "--within", "1s", "--output", "json"];
    let output = verify(&varnishd, "req.url == /a", &further);
    check_proof(&output, 3, "replaced", "origin_failed");
    // One that says something else each time.
    let nonces = Origin::start();
    nonces.flap("/a", (0..40).map(|n| cacheable(&format!("nonce {n}"))).collect());
    let output = verify_with(&nonces, &varnishd, "req.url == /a", &["--output", "json"]);
    check_proof(&output, 3, "replaced", "not_comparable");
}

#[test]
fn endpoints_of_a_configuration_are_proven_with_all_their_variants() {
    let (origin, varnishd) = stale("");
    origin.serve("/a", cacheable("two").header("Vary", "X-Kind"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("purgewatch.toml");
    let toml = format!(
        "[[node]]\nname = \"cache-01\"\nhttp = \"http://{}\"\nadmin = \"{}\"\n\
         secret_file = \"{}\"\n\
         [[origin]]\nname = \"app\"\naddress = \"http://{}\"\n\
         [[endpoint]]\nname = \"a\"\nurl = \"{URL}\"\norigin = \"app\"\n\
         variants = [{{ name = \"x\", headers = {{ X-Kind = \"x\" }} }}, \
         {{ name = \"y\", headers = {{ X-Kind = \"y\" }} }}]\n",
        varnishd.http,
        varnishd.admin,
        varnishd.secret_file().display(),
        origin.address
    );
    std::fs::write(&path, toml).unwrap();
    for named in [["--verify-endpoint", "a"], ["--verify", URL]] {
        let config = path.to_str().unwrap();
        let words = ["ban", "-c", config, "req.url == /a", named[0], named[1]];
        let output = super::purgewatch(&words, &[], "");
        check_code(&output, 0, "");
        let out = text(&output.stdout);
        for variant in ["x", "y"] {
            assert!(out.contains(&format!("cache-01: proven: {URL} ({variant}): ")), "{out}");
        }
    }
    let config = path.to_str().unwrap();
    let words = ["ban", "-c", config, "req.url == /a", "--verify-endpoint", "b"];
    check_code(&super::purgewatch(&words, &[], ""), 2, "the configuration has no endpoint b");
}

#[test]
fn a_second_ban_closes_the_race_where_nothing_is_compared() {
    let (_origin, varnishd) = stale("");
    let added = || {
        let list = varnishd.adm(&["ban.list"]);
        list.lines().filter(|line| line.contains("req.url") || line.contains(" C ")).count()
    };
    let before = added();
    let further = ["--repeat-after", "300ms", "--output", "json"];
    let output = verify(&varnishd, "req.url == /a", &further);
    check_proof(&output, 0, "replaced", "no_origin");
    assert!(added() > before);
    let output = verify(&varnishd, "req.url == /a", &["--repeat-after", "1h"]);
    check_code(&output, 2, "--repeat-after is longer than all of --timeout");
}

#[test]
fn a_lagging_replica_is_banned_again_until_it_has_followed() {
    let (replica, varnishd) = with_vcl("");
    assert!(varnishd.get(HOST, "/a").ends_with("one"));
    let truth = Origin::start();
    truth.serve("/a", cacheable("two"));
    let followed = std::thread::scope(|scope| {
        scope.spawn(|| {
            sleep(Duration::from_millis(400));
            replica.serve("/a", cacheable("two"));
        });
        let further = ["--within", "4s", "--output", "json"];
        verify_with(&truth, &varnishd, "req.url == /a", &further)
    });
    let proof = check_proof(&followed, 0, "proven", "");
    assert_eq!(proof["rounds"], 3, "{proof}");
    assert!(varnishd.get(HOST, "/a").ends_with("two"));

    truth.serve("/a", cacheable("three"));
    let further = ["--within", "1s", "--rounds", "2", "--output", "json"];
    let output = verify_with(&truth, &varnishd, "req.url == /a", &further);
    let proof = check_proof(&output, 1, "survived", "old_again");
    assert_eq!(proof["rounds"], 2, "{proof}");
}

#[test]
fn wrong_usage_is_said() {
    let (_origin, varnishd) = stale("");
    let node = format!("http://{}", varnishd.http);
    let wrong = |arguments: &[&str], said: &str| {
        check_code(&ban(&varnishd, &[&["req.url == /a"], arguments].concat(), ""), 2, said);
    };
    wrong(&["--verify", URL], "Say --node-http URL");
    wrong(&["--node-http", &node], "go with --verify");
    let twice = ["--verify", URL, "--node-http", &node, "--node-http", &node];
    wrong(&twice, "--node-http is needed once for each node");
    let itself = ["--verify", URL, "--node-http", &node, "--origin", &node];
    wrong(&itself, "is the node too");
    let node = ["--verify-endpoint", "a", "--node-http", &node];
    wrong(&node, "there is no endpoint a");
}
