//! Nodes that hide, misplace or lose what a proof goes by.

use std::thread::sleep;
use std::time::Duration;

use super::{HOST, URL, cacheable, check_proof, stale, verify, verify_with, with_vcl};
use crate::ban::{check_code, text};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

#[test]
fn an_answer_without_a_sign_of_varnish_proves_nothing() {
    let (origin, varnishd) =
        stale("sub vcl_deliver { unset resp.http.x-varnish; unset resp.http.via; }");
    let output = verify_with(&origin, &varnishd, "req.url == /a", &["--output", "json"]);
    check_proof(&output, 3, "unprovable", "not_a_cache");
}

#[test]
fn where_x_varnish_is_removed_age_is_the_weaker_proof() {
    let (origin, varnishd) = stale("sub vcl_deliver { unset resp.http.x-varnish; }");
    let json = ["--output", "json"];
    let output = verify(&varnishd, "req.url == /a", &json);
    check_proof(&output, 3, "unprovable", "no_identity");
    sleep(Duration::from_millis(4_200));
    let missed = ["--verify-anyway", "--output", "json"];
    let output = verify(&varnishd, "req.url == /b", &missed);
    let proof = check_proof(&output, 1, "survived", "same_object");
    assert_eq!(proof["basis"], "age");
    let output = verify(&varnishd, "req.url == /a", &json);
    let proof = check_proof(&output, 0, "replaced", "no_origin");
    assert_eq!(proof["basis"], "age");
    assert!(proof["message"].as_str().unwrap().contains("judged by Age and Date"), "{proof}");
    // With an origin its content is proof enough.
    let output = verify_with(&origin, &varnishd, "req.url == /a", &json);
    let proof = check_proof(&output, 0, "proven", "");
    // And it says that this is all: a young object cannot be told from the one before.
    assert!(proof["basis"].is_null(), "{proof}");
    assert!(proof["message"].as_str().unwrap().contains("than before is not known"), "{proof}");
    let output = verify_with(&origin, &varnishd, "req.url == /a", &[]);
    assert!(text(&output.stdout).contains("than before is not known, since the VCL"));
}

#[test]
fn an_inner_tier_that_was_not_banned_is_named() {
    let (origin, inner) = with_vcl("");
    let outer = Varnishd::in_front_of(inner.http);
    assert!(outer.get(HOST, "/a").ends_with("one"));
    origin.serve("/a", cacheable("two"));
    let further = ["--within", "1s", "--output", "json"];
    let output = verify_with(&origin, &outer, "req.url == /a", &further);
    check_proof(&output, 1, "survived", "upstream");
    // In the right order both are proven.
    for tier in [&inner, &outer] {
        let output = verify_with(&origin, tier, "req.url == /a", &["--output", "json"]);
        check_proof(&output, 0, "proven", "");
    }
}

#[test]
fn a_host_that_the_node_does_not_serve_is_no_success() {
    let vcl = "sub vcl_recv { if (req.http.host != \"other\") { return (synth(404)); } }";
    let (origin, varnishd) = with_vcl(vcl);
    let output = verify_with(&origin, &varnishd, "req.url == /a", &["--output", "json"]);
    check_proof(&output, 3, "unprovable", "not_the_origins");
    let output = verify(&varnishd, "req.url == /a", &[]);
    check_code(&output, 0, "the node answers with status 404 and caches nothing");
}

#[test]
fn a_node_that_fails_after_the_ban_is_no_success() {
    let (origin, varnishd) = stale("");
    let truth = Origin::start();
    truth.serve("/a", cacheable("two"));
    origin.serve("/a", Response::status(503));
    let further = ["--within", "1s", "--output", "json"];
    let output = verify_with(&truth, &varnishd, "req.url == /a", &further);
    let proof = check_proof(&output, 3, "unprovable", "node_failed");
    assert!(proof["message"].as_str().unwrap().contains("503"), "{proof}");
}

#[test]
fn a_node_that_does_not_answer_http_is_banned_all_the_same() {
    let (origin, varnishd) = stale("");
    let nobody = format!("http://{}", crate::support::varnish::free_port("127.0.0.1"));
    let words = ["req.url == /a", "--verify", URL, "--node-http", &nobody, "--within", "500ms"];
    let output = crate::ban::ban(&varnishd, &words, "");
    check_code(&output, 3, "unprovable");
    check_code(&output, 3, "the connection was refused");
    assert!(text(&output.stdout).contains("taken"));
    assert!(varnishd.get(HOST, "/a").ends_with("two"));
    drop(origin);
}

#[test]
fn what_is_not_covered_is_said() {
    let (origin, varnishd) = with_vcl("sub vcl_backend_response { set beresp.do_esi = true; }");
    let page = "<esi:include src=\"/part\"/>";
    let varied = cacheable(page).header("Vary", "X-Kind, Accept-Encoding");
    origin.serve("/a", varied.header("Surrogate-Control", "content=\"ESI/1.0\""));
    origin.serve("/part", cacheable("old part"));
    assert!(varnishd.get(HOST, "/a").contains("old part"));
    origin.serve("/part", cacheable("new part"));
    let output = verify(&varnishd, "req.url == /a", &[]);
    check_code(&output, 0, "the answer varies on x-kind (--fetch-header asks for another)");
    check_code(&output, 0, "what it includes are objects of their own");
    // The page is another object, and its fragment is not.
    assert!(text(&output.stdout).contains("replaced"));
    assert!(varnishd.get(HOST, "/a").contains("old part"));

    let kind = ["--fetch-header", "X-Kind: x"];
    let output = verify(&varnishd, "req.url == /a", &kind);
    assert!(!text(&output.stderr).contains("varies on"), "{output:?}");
}

#[test]
fn a_cache_process_that_the_ban_ended_is_no_flush() {
    let (origin, varnishd) = stale("");
    let path = format!("/{}!", "a".repeat(30));
    origin.serve(&path, cacheable("one"));
    assert!(varnishd.get(HOST, &path).ends_with("one"));
    let url = format!("http://{HOST}{path}");
    let node = format!("http://{}", varnishd.http);
    let proof = ["--verify", &url, "--node-http", &node, "--output", "json"];
    let slow = ["req.url ~ ^/(a+)+$", "--allow-slow-regex", "--everything"];
    let output = crate::ban::ban(&varnishd, &[&slow[..], &proof].concat(), "");
    check_proof(&output, 6, "unprovable", "restarted");
    assert!(varnishd.adm(&["panic.show"]).contains("ban_evaluate"));
}
