//! A name belongs to one start of one daemon, also where a daemon was copied with all its state.

use std::time::{Duration, Instant};

use purgewatch::ingest::StreamNews;

use super::{Following, add, options, pending};
use crate::support::redis::Redis;

const KEY: &str = "purgewatch:host-1:instance";

fn quick(redis: &Redis, instance: &str) -> Following {
    let mut quick = options(instance);
    quick.lease = Duration::from_millis(1_500);
    Following::start(redis, quick)
}

#[tokio::test]
async fn the_next_start_of_one_that_was_killed_goes_on_at_once() {
    let redis = Redis::start();
    let mut first = Following::start(&redis, options("first:1"));
    first.up().await;
    let id = add(&redis, "unfinished");
    assert_eq!(first.entry().await.id, id);
    drop(first);
    let start = Instant::now();
    let mut second = Following::start(&redis, options("first:2"));
    second.up().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(second.entry().await.id, id);
}

/// The one that began later has the name, and they do not take it from each other.
#[tokio::test]
async fn of_two_with_copies_of_one_state_one_reads() {
    let redis = Redis::start();
    let mut first = quick(&redis, "first:1");
    first.up().await;
    let mut second = quick(&redis, "first:2");
    second.up().await;
    let StreamNews::OtherInstance { instance, is_copy } = first.news().await else {
        panic!("no word")
    };
    assert_eq!((instance.as_str(), is_copy), ("first:2", true));
    for round in 0..20 {
        let id = add(&redis, &round.to_string());
        assert_eq!(second.entry().await.id, id);
        second.handle.finish([id]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    first.silence(Duration::from_millis(100)).await;
    assert_eq!(redis.cli(&["GET", KEY]), "first:2");
    // Another one is no copy.
    let mut other = quick(&redis, "second:1");
    let StreamNews::OtherInstance { is_copy: false, .. } = other.news().await else {
        panic!("it reads")
    };
    drop(other);
    second.stop().await;
    first.up().await;
    let id = add(&redis, "after");
    assert_eq!(first.entry().await.id, id);
}

/// What one had read before it lost the name is read by the one that has it now.
#[tokio::test]
async fn what_the_one_that_lost_the_name_holds_is_done_by_the_other() {
    let redis = Redis::start();
    let mut first = quick(&redis, "first:1");
    first.up().await;
    let id = add(&redis, "held");
    assert_eq!(first.entry().await.id, id);
    let mut second = quick(&redis, "first:2");
    second.up().await;
    assert_eq!(second.entry().await.id, id);
    second.handle.finish([id]);
    second.written().await;
    assert_eq!(pending(&redis), 0);
}

/// A server at its `maxmemory` refuses whatever sets something, and reading needs nothing of that.
#[tokio::test]
async fn a_server_without_memory_left_is_read_on() {
    let redis = Redis::start();
    let mut following = quick(&redis, "first:1");
    following.up().await;
    let a = add(&redis, "a");
    assert_eq!(following.entry().await.id, a);
    // The two at once: who is full takes nothing more.
    redis.cli_lines("XADD invalidations * ban b\nCONFIG SET maxmemory 1\n");
    let b = following.entry().await.id;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(redis.cli(&["GET", KEY]), "first:1");
    following.handle.finish([a]);
    following.written().await;
    assert_eq!(pending(&redis), 1);
    // Nor does a new connection.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(following.down().await.label(), "closed");
    loop {
        match following.news().await {
            StreamNews::Up { .. } => break,
            StreamNews::Down(error) => assert_ne!(error.label(), "out_of_memory", "{error}"),
            StreamNews::Refused(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    following.handle.finish([b]);
    following.written().await;
    assert_eq!(pending(&redis), 0);
}
