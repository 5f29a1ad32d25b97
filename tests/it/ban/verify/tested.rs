//! `purgewatch ban --until-tested`: proof by the list of bans.

use std::process::Output;
use std::thread::{scope, sleep};
use std::time::Duration;

use crate::ban::{ban, check_code, json, text};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

/// One whose lurker is quick, with so many objects.
fn varnishd(objects: usize, lurker_age: &str) -> (Origin, Varnishd) {
    let origin = Origin::start();
    let arguments = ["-p", &format!("ban_lurker_age={lurker_age}")].map(str::to_owned).to_vec();
    let backend = Some(origin.address);
    let varnishd = Varnishd::start(Options { backend, arguments, ..Options::default() });
    for number in 0..objects {
        let path = format!("/{number}");
        let response = Response::ok("one").header("Cache-Control", "max-age=3600");
        origin.serve(&path, response.header("X-Model", "7"));
        assert!(varnishd.get("h", &path).ends_with("one"));
    }
    (origin, varnishd)
}

fn tested(varnishd: &Varnishd, expression: &str, further: &[&str]) -> Output {
    ban(varnishd, &[&["--until-tested", expression], further].concat(), "")
}

#[test]
fn the_lurker_tests_a_ban_on_objects() {
    let (_origin, varnishd) = varnishd(10, "0.2");
    let output = tested(&varnishd, "obj.http.x-model == 8", &["--output", "json"]);
    let document = json(&output);
    assert_eq!(output.status.code(), Some(0), "{document}");
    let tested_ = &document["nodes"][0]["tested"];
    assert_eq!((tested_["result"].as_str(), tested_["left"].as_u64()), (Some("tested"), Some(0)));
    assert_eq!(tested_["began_with"], 10, "{document}");
    // One that takes all of them, and a cache that is empty then.
    for _ in 0..2 {
        let output = tested(&varnishd, "obj.http.x-model == 7", &[]);
        check_code(&output, 0, "");
        assert!(text(&output.stdout).contains("tested: every object"));
    }
}

#[test]
fn a_ban_on_requests_is_tested_by_requests() {
    let (_origin, varnishd) = varnishd(5, "0.2");
    let output = tested(&varnishd, "req.url == /0", &["--within", "1s"]);
    check_code(&output, 3, "5 objects were not tested within 1s: a ban on the request");
    let output = scope(|scope| {
        let waiting = scope.spawn(|| tested(&varnishd, "req.url == /1", &[]));
        sleep(Duration::from_millis(300));
        for number in 0..5 {
            varnishd.get("h", &format!("/{number}"));
        }
        waiting.join().unwrap()
    });
    check_code(&output, 0, "");
}

/// An older ban on the request keeps the references of the objects, and the lurker has tested them
/// all the same.
#[test]
fn an_older_ban_on_requests_is_no_hindrance() {
    let (_origin, varnishd) = varnishd(3, "0.2");
    varnishd.adm(&["ban", "req.url", "==", "/elsewhere"]);
    let output = tested(&varnishd, "obj.http.x-model == 8", &["--within", "8s"]);
    check_code(&output, 0, "");
    assert!(text(&output.stdout).contains("tested: every object"));
}

#[test]
fn a_list_that_is_cut_says_nothing() {
    let (_origin, varnishd) = varnishd(3, "60");
    let bans: String = (0..40).map(|n| format!("obj.http.x-url == /long/path/{n}\n")).collect();
    check_code(&ban(&varnishd, &["--file", "-"], bans), 0, "");
    varnishd.adm(&["param.set", "cli_limit", "1k"]);
    let output = tested(&varnishd, "obj.http.x-model == 7", &[]);
    check_code(&output, 3, "`purgewatch adm param.set cli_limit 4m`");
    varnishd.adm(&["param.set", "cli_limit", "4m"]);
    let output = tested(&varnishd, "obj.http.x-model == 7", &["--within", "300ms"]);
    check_code(&output, 3, "3 objects were not tested within 300ms: the ban lurker");
}

#[test]
fn a_cache_process_that_ended_has_tested_nothing() {
    let (origin, varnishd) = varnishd(1, "60");
    let path = format!("/{}!", "a".repeat(30));
    origin.serve(&path, Response::ok("one").header("Cache-Control", "max-age=3600"));
    assert!(varnishd.get("h", &path).ends_with("one"));
    let slow = ["--allow-slow-regex", "--everything", "--output", "json"];
    let output = scope(|scope| {
        let waiting = scope.spawn(|| tested(&varnishd, "req.url ~ ^/(a+)+$", &slow));
        sleep(Duration::from_millis(500));
        let _ = std::panic::catch_unwind(|| varnishd.get("h", &path));
        waiting.join().unwrap()
    });
    let document = json(&output);
    assert_eq!(document["nodes"][0]["tested"]["result"], "restarted", "{document}");
    assert_eq!(output.status.code(), Some(6));
}
