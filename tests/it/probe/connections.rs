//! Connections: kept, replaced, limited, and never left dirty.

use std::time::Duration;

use futures_util::future::join_all;
use purgewatch::probe::Options;
use purgewatch::verdict::{Failure, FetchRequest, Phase, Target};
use tokio::time::timeout;

use super::{
    answer, answered, destination, destination_with, eventually, failure, fetch, request, target,
    version_of,
};
use crate::support::origin::{Origin, Response, Step};
use crate::support::varnish::Varnishd;

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_connection_is_kept() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x"));
    let truth = destination(origin.address);
    for _ in 0..5 {
        answer(&truth, &target("/a")).await;
        answer(&truth, &target("/missing")).await;
    }
    assert_eq!(origin.connections(), 1);
    drop(truth);
    // A destination takes its connections with it.
    eventually(|| origin.open_connections() == 0).await;
}

#[tokio::test]
async fn a_connection_that_the_peer_closed_is_replaced() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x"));
    let truth = destination(origin.address);
    answer(&truth, &target("/a")).await;
    origin.close_connections();
    tokio::time::sleep(MOMENT).await;
    assert_eq!(answer(&truth, &target("/a")).await.version, Ok(version_of("x")));
    assert_eq!((origin.connections(), origin.hits("/a")), (2, 2));
}

#[tokio::test]
async fn varnishd_may_close_an_idle_connection() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x"));
    let varnishd = Varnishd::in_front_of(origin.address);
    varnishd.adm(&["param.set", "timeout_idle", "0.2"]);
    let node = destination(varnishd.http);
    for _ in 0..3 {
        answer(&node, &target("/a")).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test]
async fn a_request_is_repeated_once_when_a_kept_connection_dies_under_it() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x"));
    // The peer hangs up in the very moment in which the request is under way.
    origin.flap("/dies", vec![Response::script([Step::Close]), Response::ok("x")]);
    let truth = destination(origin.address);
    answer(&truth, &target("/a")).await;
    assert_eq!(answer(&truth, &target("/dies")).await.version, Ok(version_of("x")));
    assert_eq!((origin.connections(), origin.hits("/dies")), (2, 2));

    origin.serve("/dies", Response::script([Step::Close]));
    assert_eq!(failure(&truth, &target("/dies")).await, Failure::Closed);
    assert_eq!(origin.hits("/dies"), 4, "once, not for ever");
    assert_eq!(failure(&truth, &target("/dies")).await, Failure::Closed);
    assert_eq!(origin.hits("/dies"), 5, "a new connection that dies is the peer's answer");

    origin.serve("/dies", Response::raw("HTTP/1.1 2"));
    answer(&truth, &target("/a")).await;
    assert_eq!(failure(&truth, &target("/dies")).await, Failure::Closed);
    assert_eq!(origin.hits("/dies"), 6, "a part of an answer is an answer");
}

#[tokio::test]
async fn a_reset_is_no_answer() {
    let origin = Origin::start();
    origin.serve("/a", Response::script([Step::Reset]));
    assert_eq!(failure(&destination(origin.address), &target("/a")).await, Failure::Closed);
}

#[tokio::test]
async fn a_new_connection_is_new_and_then_kept() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x"));
    let options = Options { connections: 1, ..Options::default() };
    let truth = destination_with(origin.address, options);
    answer(&truth, &target("/a")).await;
    let anew = FetchRequest { new_connection: true, ..request(&target("/a")) };
    answered(truth.fetch(&anew).await);
    answer(&truth, &target("/a")).await;
    let connections: Vec<_> = origin.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [1, 2, 2]);
    // The cap holds for idle connections too.
    eventually(|| origin.open_connections() == 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_not_kept_for_ever() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x"));
    let options = Options { idle_timeout: MOMENT, ..Options::default() };
    let truth = destination_with(origin.address, options);
    answer(&truth, &target("/a")).await;
    tokio::time::sleep(MOMENT * 2).await;
    answer(&truth, &target("/a")).await;
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let origin = Origin::start();
    origin.serve("/a", Response::ok("x").after(Duration::from_millis(20)));
    let options = Options { connections: 3, ..Options::default() };
    let truth = destination_with(origin.address, options);
    let target = target("/a");
    let answers = join_all((0..12).map(|_| answer(&truth, &target))).await;
    assert_eq!(answers.len(), 12);
    assert_eq!((origin.hits("/a"), origin.most_open(), origin.connections()), (12, 3, 3));
}

#[tokio::test]
async fn waiting_for_a_connection_has_a_limit() {
    let origin = Origin::start();
    origin.serve("/slow", Response::ok("x").after(Duration::from_millis(400)));
    let options = Options { connections: 1, ..Options::default() };
    let truth = destination_with(origin.address, options);
    let slow = target("/slow");
    let hasty = Target { timeout: Duration::from_millis(100), ..slow.clone() };
    let (first, second) = tokio::join!(fetch(&truth, &slow), failure(&truth, &hasty));
    answered(first);
    assert_eq!(second, Failure::Timeout(Phase::Queue));
}

#[tokio::test]
async fn a_fetch_may_be_dropped_at_any_moment() {
    let origin = Origin::start();
    let long = "x".repeat(200_000);
    origin.serve("/head", Response::ok("late").after(MOMENT * 4));
    origin.route("/body", {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nbegin", long.len() + 5);
        move |_| {
            let rest = long.clone().into_bytes();
            let head = head.clone().into_bytes();
            Response::script([Step::Send(head), Step::Pause(MOMENT * 4), Step::Send(rest)])
        }
    });
    origin.serve("/a", Response::ok("x"));
    let options = Options { connections: 1, ..Options::default() };
    let truth = destination_with(origin.address, options);
    for path in ["/head", "/body", "/head", "/body"] {
        let target = target(path);
        assert!(timeout(MOMENT, fetch(&truth, &target)).await.is_err(), "{path} has to be slow");
        let next = timeout(Duration::from_secs(5), answer(&truth, &super::target("/a"))).await;
        let next = next.expect("the permit of a dropped fetch is free again");
        assert_eq!(next.version, Ok(version_of("x")), "no other answer's bytes");
    }
}

#[tokio::test]
async fn drops_at_random_moments_never_mix_answers() {
    let origin = Origin::start();
    for n in 0..8_u64 {
        let body = format!("{n}").repeat(30_000);
        let slow = Response::ok(body).after(Duration::from_micros(n * 300));
        origin.serve(&format!("/{n}"), slow.chunked());
    }
    let options = Options { connections: 2, ..Options::default() };
    let truth = destination_with(origin.address, options);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut dropped, mut whole) = (0, 0);
    while dropped < 30 || whole < 30 {
        assert!(dropped + whole < 5_000, "{dropped} dropped, {whole} whole");
        let n = random.u64(0..8);
        let target = target(&format!("/{n}"));
        let limit = Duration::from_micros(random.u64(0..6_000));
        match timeout(limit, answer(&truth, &target)).await {
            Err(_) => dropped += 1,
            Ok(answer) => {
                whole += 1;
                assert_eq!(answer.version, Ok(version_of(format!("{n}").repeat(30_000))));
            }
        }
    }
}
