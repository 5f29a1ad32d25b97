//! What is read from answers, through a real varnishd and straight from an origin.

use std::time::Duration;

use purgewatch::model::{Mark, Version};
use purgewatch::verdict::{Compare, FetchRequest, Phases, Unversioned};

use super::{answer, answered, by, condition, destination, fetch, request, target, version_of};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

#[tokio::test]
async fn a_miss_and_a_hit_are_told_apart() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("content"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);

    let miss = answer(&node, &target("/a")).await;
    assert_eq!(miss.cache.is_hit(), Some(false));
    assert!(miss.cache.is_varnish);
    assert_eq!(miss.cache.age, Some(0));
    let hit = answer(&node, &target("/a")).await;
    assert_eq!(hit.cache.is_hit(), Some(true));
    assert_eq!(hit.version, miss.version);
    assert_eq!(hit.version, Ok(version_of("content")));
    assert_eq!(hit.body_bytes, 7);
    assert_eq!(origin.hits("/a"), 1);

    let truth = answer(&destination(origin.address), &target("/a")).await;
    assert_eq!(truth.version, hit.version);
    assert!(!truth.cache.is_varnish);
    assert_eq!(truth.cache.is_hit(), None);
    assert_eq!(truth.cache.age, None);
}

#[tokio::test]
async fn the_fetch_that_made_the_object_is_named() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("content"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);
    answer(&node, &target("/a")).await;
    let first = answer(&node, &target("/a")).await.cache.transaction.unwrap();
    let second = answer(&node, &target("/a")).await.cache.transaction.unwrap();
    assert_eq!(first.1, second.1);
    assert_ne!(first.0, second.0);
    varnishd.adm(&["ban", "req.url", "==", "/a"]);
    answer(&node, &target("/a")).await;
    let after_ban = answer(&node, &target("/a")).await.cache.transaction.unwrap();
    assert_ne!(after_ban.1, first.1);
}

#[tokio::test]
async fn a_node_takes_the_age_of_its_origin() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("content").header("Age", "17"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let age = answer(&destination(varnishd.http), &target("/a")).await.cache.age;
    assert!(matches!(age, Some(17..=19)), "{age:?}");
}

#[tokio::test]
async fn of_two_tiers_the_outer_one_counts() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("content"));
    let inner = Varnishd::in_front_of(origin.address);
    let outer = Varnishd::in_front_of(inner.http);
    let (inner, outer) = (destination(inner.http), destination(outer.http));
    answer(&inner, &target("/a")).await;
    let answer = answer(&outer, &target("/a")).await;
    assert_eq!(answer.cache.is_hit(), Some(false), "a hit on the inner tier, not on the outer");
}

#[tokio::test]
async fn the_request_says_what_the_url_says() {
    let origin = Origin::start();
    let path = "/A//b/../%7E?z={%22q%22}&a=[1]|2";
    origin.serve(path, Response::ok("x"));
    let node = destination(origin.address);
    let mut target = target(path);
    target.url = format!("http://Rec.Example.com:8080{path}").parse().unwrap();
    target.headers.push(("accept-language".parse().unwrap(), "de".parse().unwrap()));
    answer(&node, &target).await;

    let request = origin.requests().pop().unwrap();
    assert_eq!(request.method, "GET");
    assert_eq!(request.target, path);
    assert_eq!(request.header("host"), Some("Rec.Example.com:8080"));
    assert_eq!(request.header("accept-language"), Some("de"));
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
    let agent = concat!("purgewatch/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent));
    assert_eq!(request.header("content-length"), None);
}

#[tokio::test]
async fn an_etag_that_varnish_weakens_is_the_same_version() {
    let origin = Origin::start();
    let body = "content ".repeat(500);
    origin.serve("/a", Response::ok(&body).gzip().header("ETag", "\"v1\""));
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);
    let packed = by(Compare::Etag, "/a");
    let plain = super::with_header(packed.clone(), "accept-encoding", "identity");

    let truth = answer(&destination(origin.address), &packed).await;
    let packed = answer(&node, &packed).await;
    let plain = answer(&node, &plain).await;
    assert_eq!(plain.validators.etag.as_deref(), Some("W/\"v1\""), "varnishd unpacks and weakens");
    assert_eq!(packed.validators.etag.as_deref(), Some("\"v1\""));
    assert_eq!(plain.version, packed.version);
    assert_eq!(plain.version, truth.version);
}

#[tokio::test]
async fn what_did_not_change_stands_for_its_version() {
    let origin = Origin::start();
    origin.serve_tagged("/a", "\"v1\"", "one");
    let truth = destination(origin.address);
    let first = answer(&truth, &target("/a")).await;
    let again = FetchRequest { condition: condition(&first), ..request(&target("/a")) };
    let same = answered(truth.fetch(&again).await);
    assert_eq!(same.status, 304);
    assert_eq!(same.version, Ok(version_of("one")));
    assert_eq!(same.validators, first.validators);
    assert_eq!(origin.requests()[1].header("if-none-match"), Some("\"v1\""));

    origin.serve_tagged("/a", "\"v2\"", "two");
    let changed = answered(truth.fetch(&again).await);
    assert_eq!(changed.version, Ok(version_of("two")));
    assert_eq!(changed.validators.etag.as_deref(), Some("\"v2\""));
    assert_eq!(origin.connections(), 1, "a 304 leaves the connection usable");
}

#[tokio::test]
async fn a_304_that_repeats_no_validator_keeps_the_old_ones() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("one").header("ETag", "\"v1\""));
    let truth = destination(origin.address);
    let first = answer(&truth, &target("/a")).await;
    origin.serve("/a", Response::status(304));
    let again = FetchRequest { condition: condition(&first), ..request(&target("/a")) };
    assert_eq!(answered(truth.fetch(&again).await).validators, first.validators);
    let unasked = answer(&truth, &target("/a")).await;
    assert_eq!(unasked.version, Err(Unversioned::Status), "nobody asked for a 304");
}

#[tokio::test]
async fn last_modified_asks_conditionally_through_varnish() {
    let origin = Origin::start();
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    origin.serve("/a", Response::ok("one").header("Last-Modified", date));
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);
    let target = by(Compare::LastModified, "/a");
    let first = answer(&node, &target).await;
    assert_eq!(first.version, Ok(Version { status: 200, mark: Mark::LastModified(784_111_777) }));
    let again = FetchRequest { condition: condition(&first), ..request(&target) };
    let same = answered(node.fetch(&again).await);
    assert_eq!((same.status, same.version), (304, first.version));
}

#[tokio::test]
async fn redirects_are_compared_and_not_followed() {
    let origin = Origin::start();
    origin.serve("/a", Response::status(302).header("Location", "/b"));
    origin.serve("/b", Response::ok("there"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let answer = answer(&destination(varnishd.http), &target("/a")).await;
    assert_eq!(answer.version.unwrap().to_string(), "302 location:/b");
    assert_eq!(origin.hits("/b"), 0);
}

#[tokio::test]
async fn a_refusal_has_no_version_and_says_when_to_come_back() {
    let origin = Origin::start();
    origin.serve("/busy", Response::status(503).header("Retry-After", "7"));
    origin.serve("/odd", Response::status(500).header("Retry-After", "7"));
    let truth = destination(origin.address);
    let busy = answer(&truth, &target("/busy")).await;
    assert_eq!((busy.status, busy.version), (503, Err(Unversioned::Status)));
    assert_eq!(busy.retry_after, Some(Duration::from_secs(7)));
    let odd = answer(&truth, &target("/odd")).await;
    assert_eq!((odd.status, odd.retry_after), (500, None));
    let gone = answer(&truth, &target("/nothing")).await;
    assert_eq!(gone.version.unwrap().to_string(), "404 status:");
}

#[tokio::test]
async fn a_dead_backend_shows_as_503_of_varnish() {
    let varnishd = Varnishd::start(Options::default());
    let answer = answer(&destination(varnishd.http), &target("/a")).await;
    assert_eq!((answer.status, answer.version), (503, Err(Unversioned::Status)));
    assert!(answer.cache.is_varnish);
}

#[tokio::test]
async fn each_rule_reads_what_it_names() {
    let origin = Origin::start();
    let body = r#"{"meta":{"version":12345678901234567890123}}"#;
    origin.serve("/a", Response::ok(body).gzip().header("X-Model", "42"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let node = destination(varnishd.http);
    let rules = [
        (Compare::Header("X-Model".into()), "200 token:42"),
        (Compare::Json("/meta/version".into()), "200 token:12345678901234567890123"),
    ];
    for (compare, version) in rules {
        let answer = answer(&node, &by(compare, "/a")).await;
        assert_eq!(answer.version.unwrap().to_string(), version);
    }
    let nothing = [
        (Compare::Etag, Unversioned::NoEtag),
        (Compare::LastModified, Unversioned::NoLastModified),
        (Compare::Header("x-other".into()), Unversioned::NoHeader),
        (Compare::Json("/meta".into()), Unversioned::NoJsonValue),
    ];
    for (compare, why) in nothing {
        assert_eq!(answer(&node, &by(compare, "/a")).await.version, Err(why));
    }
    origin.serve("/text", Response::ok("no json"));
    let answer = answer(&node, &by(Compare::Json("/v".into()), "/text")).await;
    assert_eq!(answer.version, Err(Unversioned::NotJson));
}

#[tokio::test]
async fn what_is_ignored_makes_no_difference() {
    let origin = Origin::start();
    let at = |time: u32| Response::ok(format!(r#"{{"generated_at":"{time}","v":1}}"#));
    origin.flap("/a", vec![at(1), at(2).gzip(), at(3).chunked()]);
    let truth = destination(origin.address);
    let mut target = target("/a");
    let plain = answer(&truth, &target).await.version;
    assert_ne!(answer(&truth, &target).await.version, plain);
    answer(&truth, &target).await;
    target.ignore = vec![regex::bytes::Regex::new(r#""generated_at":"[^"]*","#).unwrap()];
    for _ in 0..3 {
        assert_eq!(answer(&truth, &target).await.version, Ok(version_of(r#"{"v":1}"#)));
    }
}

#[tokio::test]
async fn an_empty_answer_has_a_version() {
    let origin = Origin::start();
    origin.serve("/none", Response::status(204));
    origin.serve("/empty", Response::ok(""));
    let truth = destination(origin.address);
    let none = answer(&truth, &target("/none")).await;
    assert_eq!(none.version.unwrap().mark, version_of("").mark);
    let empty = answer(&truth, &target("/empty")).await;
    assert_eq!((empty.version, empty.body_bytes), (Ok(version_of("")), 0));
}

#[tokio::test]
async fn every_phase_that_was_reached_is_timed() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x").after(Duration::from_millis(60)));
    let truth = destination(origin.address);
    let first = fetch(&truth, &target("/a")).await;
    let Phases { connect, tls, first_byte, body } = first.phases;
    assert!(connect.is_some() && tls.is_none() && body.is_some(), "{:?}", first.phases);
    assert!(first_byte >= Some(Duration::from_millis(60)), "{first_byte:?}");
    assert!(first.finished.since(first.started) >= Duration::from_millis(59));
    let second = fetch(&truth, &target("/a")).await;
    assert_eq!(second.phases.connect, None, "the connection was kept");
}
