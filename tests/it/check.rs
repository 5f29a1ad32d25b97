//! `purgewatch check` against real varnishd processes.

use std::fs;

use crate::support::daemon::{endpoint, peers, purgewatch};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Varnishd, free_port};

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

/// Runs `check` without a configuration: exit code, stdout, stderr.
fn check(varnishd: &Varnishd, origin: &Origin, further: &[&str]) -> (i32, String, String) {
    let (node, origin) = (format!("http://{}", varnishd.http), origin.address.to_string());
    let mut arguments = vec!["check", "--node-http", &node, "--origin", &origin];
    arguments.extend(further);
    run(&arguments)
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = purgewatch(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn old_content_is_found_and_fresh_content_passes() {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let url = "http://rec.example.com/a";
    let (code, table, _) = check(&varnishd, &origin, &[url]);
    assert_eq!(code, 0, "{table}");
    assert!(table.contains(url) && table.contains("fresh"), "{table}");
    origin.serve("/a", cacheable("two"));
    let (code, table, _) = check(&varnishd, &origin, &[url]);
    assert_eq!(code, 1, "{table}");
    assert!(table.contains("stale"), "{table}");
    varnishd.adm(&["ban", "req.url", "==", "/a"]);
    assert_eq!(check(&varnishd, &origin, &[url]).0, 0);
}

#[test]
fn a_program_can_read_the_result() {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let url = "http://rec.example.com/a";
    let (code, text, _) = check(&varnishd, &origin, &["--output", "json", url]);
    assert_eq!(code, 0);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema"], 1);
    let result = &document["results"][0];
    assert_eq!(result["state"], "fresh");
    assert_eq!(result["url"], url);
    assert_eq!(result["node_version"], result["origin_version"]);
}

#[test]
fn what_cannot_be_compared_is_no_success() {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let url = "http://rec.example.com/a";
    // No ETag to compare.
    let (code, table, _) = check(&varnishd, &origin, &["--compare", "etag", url]);
    assert_eq!(code, 3, "{table}");
    assert!(table.contains("there is no ETag to compare"), "{table}");
    // Nobody at the node's address.
    let nobody = free_port("127.0.0.1").to_string();
    let origin_address = origin.address.to_string();
    let arguments = ["check", "--node-http", &nobody, "--origin", &origin_address, url];
    let (code, table, _) = run(&arguments);
    assert_eq!(code, 3);
    assert!(table.contains("cache_down") && table.contains("refused"), "{table}");
}

#[test]
fn a_configuration_names_what_is_checked() {
    let origin = Origin::start();
    origin.serve("/a", cacheable("one"));
    origin.serve("/b", cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let file = varnishd.dir().join("purgewatch.toml");
    let config = peers(&varnishd, origin.address)
        + &endpoint("a", "/a", "")
        + &endpoint("b", "/b", "max_stale = \"1h\"");
    fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(run(&["check", "-c", file]).0, 0);
    origin.serve("/b", cacheable("two"));
    assert_eq!(run(&["check", "-c", file, "a"]).0, 0);
    let (code, table, _) = run(&["check", "-c", file]);
    assert_eq!(code, 1, "old is old, whatever max_stale allows: {table}");
    assert_eq!(run(&["check", "-c", file, "--node", "cache-01", "b"]).0, 1);
}

#[test]
fn wrong_usage_says_what_to_do() {
    let origin = Origin::start();
    let varnishd = Varnishd::in_front_of(origin.address);
    let file = varnishd.dir().join("purgewatch.toml");
    fs::write(&file, peers(&varnishd, origin.address) + &endpoint("a", "/a", "")).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, said) in [
        (vec!["check", "-c", file, "z"], "the configuration has no endpoint z"),
        (vec!["check", "-c", file, "--node", "z"], "the configuration has no node z"),
        (vec!["check", "http://a/"], "say where: --node-http URL --origin ADDRESS"),
        (vec!["check", "-c", "/none"], "/none cannot be read"),
        (vec!["check", "--node-http", "x:1", "--origin", "y:1", "z"], "starts with http://"),
        (vec!["check", "--node-http", "x:1", "http://a/"], "--origin"),
    ] {
        let (code, _, text) = run(&arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}
