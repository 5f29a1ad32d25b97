//! Entries that were trimmed are missed, and counted.

use std::time::Duration;

use purgewatch::ingest::{GapCause, StreamNews};

use super::{Following, add, follow, options, pending};
use crate::support::redis::Redis;

async fn gap(following: &mut Following) -> (Option<u64>, GapCause) {
    match following.news().await {
        StreamNews::Gap { lost, cause } => (lost, cause),
        other => panic!("expected a gap: {other:?}"),
    }
}

/// A host that read one entry and went away.
async fn read_one(redis: &Redis) {
    let mut first = Following::new_group(redis).await;
    add(redis, "read");
    let id = first.entry().await.id;
    first.handle.finish([id]);
    first.stop().await;
}

#[tokio::test]
async fn what_was_trimmed_while_it_was_away_is_counted_once() {
    let redis = Redis::start();
    read_one(&redis).await;
    redis.cli_lines(&"XADD invalidations * ban x\n".repeat(20));
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "5"]);
    let mut second = follow(&redis);
    second.up().await;
    assert_eq!(gap(&mut second).await, (Some(15), GapCause::Trimmed));
    for _ in 0..5 {
        let id = second.entry().await.id;
        second.handle.finish([id]);
    }
    second.stop().await;
    // The counter was set right: the next start finds nothing.
    let mut third = follow(&redis);
    third.up().await;
    add(&redis, "after");
    third.entry().await;
    third.silence(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_stream_that_was_emptied_is_counted_too() {
    let redis = Redis::start();
    read_one(&redis).await;
    redis.cli_lines(&"XADD invalidations * ban x\n".repeat(7));
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "0"]);
    let mut second = follow(&redis);
    second.up().await;
    assert_eq!(gap(&mut second).await, (Some(7), GapCause::Trimmed));
    add(&redis, "after");
    assert_eq!(second.value().await.1, "after");
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "0"]);
    second.silence(Duration::from_millis(200)).await;
}

/// Redis 7.0 does not keep in its append-only file how many entries a group has read.
#[tokio::test]
async fn a_restart_of_the_server_invents_no_loss() {
    let mut redis = Redis::start();
    let mut first = Following::new_group(&redis).await;
    for _ in 0..3 {
        add(&redis, "read");
        let id = first.entry().await.id;
        first.handle.finish([id]);
    }
    first.written().await;
    redis.kill();
    first.down().await;
    redis.start_again();
    first.up_again().await;
    add(&redis, "after");
    let id = first.entry().await.id;
    first.handle.finish([id]);
    first.written().await;
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "0"]);
    add(&redis, "behind what was trimmed");
    let (id, text) = first.value().await;
    assert_eq!(text, "behind what was trimmed");
    first.handle.finish([id]);
    first.stop().await;
    // And while nobody follows it.
    redis.kill();
    redis.start_again();
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "0"]);
    let mut second = follow(&redis);
    second.up().await;
    add(&redis, "last");
    assert_eq!(second.value().await.1, "last");
    second.silence(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn trimming_past_a_reader_that_is_held_up_is_counted() {
    let redis = Redis::start();
    let mut narrow = options("first");
    narrow.window = 4;
    let mut following = Following::start(&redis, narrow);
    following.up().await;
    redis.cli_lines(&"XADD invalidations * ban x\n".repeat(30));
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(following.entry().await.id);
    }
    // 4 were read, 6 are left: 20 are lost.
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "6"]);
    following.handle.finish(ids);
    assert_eq!(gap(&mut following).await, (Some(20), GapCause::Trimmed));
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.push(following.entry().await.id);
    }
    following.handle.finish(rest);
    following.entry().await;
    following.entry().await;
}

/// A reader that waits gets what is left when a transaction added and trimmed at once: the loss is
/// found by the next look.
#[tokio::test]
async fn trimming_in_one_transaction_with_adding_is_counted() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    add(&redis, "warm");
    following.entry().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let burst = "XADD invalidations * ban x\n".repeat(10);
    redis.cli_lines(&format!("MULTI\n{burst}XTRIM invalidations MAXLEN 3\nEXEC\n"));
    let (mut entries, mut lost) = (0, 0);
    while entries < 3 || lost == 0 {
        match following.news().await {
            StreamNews::Entry(_) => entries += 1,
            StreamNews::Gap { lost: Some(more), cause: GapCause::Trimmed } => lost += more,
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!((entries, lost), (3, 7));
    following.silence(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn unfinished_entries_that_were_trimmed_are_counted_and_forgotten() {
    let redis = Redis::start();
    let mut first = Following::new_group(&redis).await;
    for text in ["a", "b", "c"] {
        add(&redis, text);
        first.entry().await;
    }
    drop(first);
    redis.cli(&["XTRIM", "invalidations", "MAXLEN", "1"]);
    let mut second = follow(&redis);
    second.up().await;
    let (id, text) = second.value().await;
    assert_eq!(text, "c");
    assert_eq!(gap(&mut second).await, (Some(2), GapCause::TrimmedUnfinished));
    second.handle.finish([id]);
    second.written().await;
    assert_eq!(pending(&redis), 0);
}
