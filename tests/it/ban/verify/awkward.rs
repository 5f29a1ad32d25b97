//! Nodes that hide, misplace or lose what a proof goes by.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{HOST, URL, cacheable, check_proof, stale, verify, verify_with, with_vcl};
use crate::ban::{ban, check_code, purgewatch, text};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd, free_port, get};

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
    // A young object is waited for, until its age can tell it from another one.
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
    assert_eq!(proof["basis"], "age");
    assert!(proof["message"].as_str().unwrap().contains("judged by Age and Date"), "{proof}");
    // A ban that hit nothing is not proven by content that has not changed.
    let output = verify_with(&origin, &varnishd, "req.url == /b", &missed);
    check_proof(&output, 1, "survived", "same_object");
}

/// Where nothing tells one object from another, content is all that there is, and that is said.
#[test]
fn where_age_is_removed_as_well_content_is_the_only_proof() {
    let (origin, varnishd) =
        stale("sub vcl_deliver { unset resp.http.x-varnish; unset resp.http.age; }");
    let json = ["--output", "json"];
    let output = verify(&varnishd, "req.url == /a", &json);
    check_proof(&output, 3, "unprovable", "no_identity");
    let output = verify_with(&origin, &varnishd, "req.url == /a", &json);
    let proof = check_proof(&output, 0, "proven", "");
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
    let nobody = format!("http://{}", free_port("127.0.0.1"));
    let words = ["req.url == /a", "--verify", URL, "--node-http", &nobody, "--within", "500ms"];
    let output = ban(&varnishd, &words, "");
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
    let output = ban(&varnishd, &[&slow[..], &proof].concat(), "");
    check_proof(&output, 6, "unprovable", "restarted");
    assert!(varnishd.adm(&["panic.show"]).contains("ban_evaluate"));
}

/// A cache that stands before the node answers in its place, and is told by the ids of requests.
#[test]
fn a_cache_in_front_of_the_node_is_no_success() {
    let (origin, varnishd) = with_vcl("");
    let front = CachingProxy::in_front_of(varnishd.http);
    assert!(get(front.address, HOST, "/a").ends_with("one"));
    origin.serve("/a", cacheable("two"));
    let node = format!("http://{}", front.address);
    let words = ["req.url == /a", "--verify", URL, "--node-http", &node, "--output", "json"];
    let output = ban(&varnishd, &words, "");
    check_proof(&output, 1, "survived", "in_front");
    let output = purgewatch(&["purge", URL, "--node-http", &node, "--output", "json"], &[], "");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
}

/// A node that passes everything on to another Varnish has nothing that could be old, but the other
/// one has.
#[test]
fn what_a_node_passes_on_may_be_old_behind_it() {
    let (origin, inner) = with_vcl("");
    let (ip, port) = (inner.http.ip(), inner.http.port());
    let vcl = format!(
        "backend default {{ .host = \"{ip}\"; .port = \"{port}\"; }}
         sub vcl_recv {{ return (pass); }}"
    );
    let outer = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    for _ in 0..2 {
        assert!(outer.get(HOST, "/a").ends_with("one"));
    }
    origin.serve("/a", cacheable("two"));
    let json = ["--within", "1s", "--output", "json"];
    let output = verify(&outer, "req.url == /a", &json);
    check_proof(&output, 3, "unprovable", "cached_behind");
    let output = verify_with(&origin, &outer, "req.url == /a", &json);
    check_proof(&output, 1, "survived", "upstream");
}

/// An nginx that caches what the node answers.
struct CachingProxy {
    process: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl CachingProxy {
    fn in_front_of(node: SocketAddr) -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), free_port("127.0.0.1"));
        let root = dir.path().display();
        let temporary = ["client_body", "fastcgi", "uwsgi", "scgi", "proxy"]
            .map(|what| format!("{what}_temp_path {root}/{what};"))
            .concat();
        let config = format!(
            "daemon off; pid {root}/pid; error_log {root}/log; user root;
             events {{ worker_connections 64; }}
             http {{ access_log off; {temporary}
             proxy_cache_path {root}/cache keys_zone=all:1m;
             server {{ listen {address}; location / {{
                 proxy_pass http://{node}; proxy_set_header Host $host;
                 proxy_cache all; proxy_cache_valid 200 1h; }} }} }}"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs: apt-get install nginx-light");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen on {address}");
            sleep(Duration::from_millis(20));
        }
        Self { process, address, _dir: dir }
    }
}

impl Drop for CachingProxy {
    fn drop(&mut self) {
        // SIGTERM, so that its workers end as well.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
