//! Streams that go back and groups that are gone: said, and nothing that is there is passed over.

use std::time::Duration;

use purgewatch::ingest::{GapCause, GroupStart, StreamId, StreamNews};

use super::{Following, add, follow, options, pending};
use crate::support::redis::Redis;

/// An id that the server's clock reaches in ten minutes.
fn ahead(redis: &Redis) -> StreamId {
    let seconds: u64 = redis.cli(&["TIME"]).lines().next().unwrap().parse().unwrap();
    StreamId { milliseconds: (seconds + 600) * 1_000, sequence: 0 }
}

fn add_at(redis: &Redis, id: StreamId, value: &str) {
    redis.cli(&["XADD", "invalidations", &id.to_string(), "ban", value]);
}

/// The causes of gaps until it is up, and where the group stands then.
async fn gaps_until_up(following: &mut Following) -> (Vec<GapCause>, GroupStart) {
    let mut gaps = Vec::new();
    loop {
        match following.news().await {
            StreamNews::Gap { cause, .. } => gaps.push(cause),
            StreamNews::Down(_) => {}
            StreamNews::Up { group } => return (gaps, group),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

async fn finish_one(following: &mut Following, text: &str) {
    let (id, got) = following.value().await;
    assert_eq!(got, text);
    following.handle.finish([id]);
    following.written().await;
}

#[tokio::test]
async fn a_stream_made_anew_behind_the_ids_that_were_read_is_read() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    add_at(&redis, ahead(&redis), "ahead of the clock");
    finish_one(&mut following, "ahead of the clock").await;
    redis.cli(&["DEL", "invalidations"]);
    add(&redis, "after");
    let (gaps, _) = gaps_until_up(&mut following).await;
    assert_eq!(gaps, [GapCause::GroupDeleted]);
    finish_one(&mut following, "after").await;
    add(&redis, "and on");
    finish_one(&mut following, "and on").await;
    following.silence(Duration::from_millis(200)).await;
}

/// As one that an earlier version has left.
#[tokio::test]
async fn a_group_that_stands_ahead_of_its_stream_is_set_right_at_the_start() {
    let redis = Redis::start();
    let place = ahead(&redis).to_string();
    redis.cli(&["XGROUP", "CREATE", "invalidations", "purgewatch:host-1", &place, "MKSTREAM"]);
    let added = add(&redis, "passed over");
    let mut following = follow(&redis);
    let (gaps, group) = gaps_until_up(&mut following).await;
    assert_eq!(gaps, [GapCause::WentBack]);
    // Ten minutes before the end: an older copy of a long stream is not read all over again.
    let GroupStart::Resumed(from) = group else { panic!("{group:?}") };
    assert_eq!(from.milliseconds, added.milliseconds - 600_000);
    finish_one(&mut following, "passed over").await;
    following.stop().await;
    // Once.
    let mut again = follow(&redis);
    assert_eq!(gaps_until_up(&mut again).await.0, []);
    again.silence(Duration::from_millis(200)).await;
}

/// Through a proxy that goes over to a server that is behind.
#[tokio::test]
async fn a_stream_that_goes_back_while_it_is_read_is_read_on() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    add_at(&redis, ahead(&redis), "ahead of the clock");
    finish_one(&mut following, "ahead of the clock").await;
    // With a group, as the other server has one: nothing tells but the ids.
    let place = ahead(&redis).to_string();
    redis.cli_lines(&format!(
        "MULTI\nDEL invalidations\n\
         XGROUP CREATE invalidations purgewatch:host-1 {place} MKSTREAM\n\
         XADD invalidations * ban after\nEXEC\n"
    ));
    loop {
        match following.news().await {
            StreamNews::Gap { cause, .. } => break assert_eq!(cause, GapCause::WentBack),
            StreamNews::Down(_) | StreamNews::Up { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    let after = loop {
        match following.news().await {
            StreamNews::Entry(entry) => break entry,
            StreamNews::Up { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    };
    assert_eq!(super::value(&after), "after");
    following.silence(Duration::from_millis(200)).await;
}

/// One that followed, finished one entry, and knows how far it was.
async fn followed(redis: &Redis) -> StreamId {
    let mut first = Following::new_group(redis).await;
    add(redis, "read");
    finish_one(&mut first, "read").await;
    let place = first.handle.done_up_to().unwrap();
    first.stop().await;
    place
}

fn again(redis: &Redis, place: StreamId) -> Following {
    let mut known = options("first");
    known.followed = Some(place);
    Following::start(redis, known)
}

#[tokio::test]
async fn a_group_that_was_deleted_while_nobody_followed_is_a_gap() {
    let redis = Redis::start();
    let place = followed(&redis).await;
    add(&redis, "while it was away");
    redis.cli(&["XGROUP", "DESTROY", "invalidations", "purgewatch:host-1"]);
    let mut second = again(&redis, place);
    let expected = (vec![GapCause::GroupDeleted], GroupStart::Resumed(place));
    assert_eq!(gaps_until_up(&mut second).await, expected);
    finish_one(&mut second, "while it was away").await;
    second.silence(Duration::from_millis(200)).await;
    assert_eq!(pending(&redis), 0);
}

#[tokio::test]
async fn a_server_that_was_emptied_while_nobody_followed_is_a_gap() {
    let redis = Redis::start();
    let place = followed(&redis).await;
    redis.cli(&["FLUSHALL"]);
    let mut second = again(&redis, place);
    assert_eq!(gaps_until_up(&mut second).await.0, [GapCause::GroupDeleted]);
    add(&redis, "after");
    finish_one(&mut second, "after").await;
    second.stop().await;
    // With ids that are behind those of before.
    redis.cli(&["FLUSHALL"]);
    redis.cli(&["XADD", "invalidations", "5-0", "ban", "behind"]);
    let mut third = again(&redis, place);
    let expected = (vec![GapCause::GroupDeleted], GroupStart::Resumed(StreamId::ZERO));
    assert_eq!(gaps_until_up(&mut third).await, expected);
    finish_one(&mut third, "behind").await;
}

#[tokio::test]
async fn how_far_all_is_done_counts_what_is_unfinished() {
    let redis = Redis::start();
    let mut first = Following::new_group(&redis).await;
    let a = add(&redis, "a");
    let b = add(&redis, "b");
    assert_eq!(first.entry().await.id, a);
    assert_eq!(first.entry().await.id, b);
    first.handle.finish([b]);
    first.written().await;
    assert_eq!(first.handle.done_up_to(), Some(a.predecessor()));
    drop(first);
    let mut second = follow(&redis);
    second.up().await;
    assert_eq!(second.handle.done_up_to(), Some(a.predecessor()));
    finish_one(&mut second, "a").await;
    assert_eq!(second.handle.done_up_to(), Some(b));
}

/// A proxy that tells the server late that a connection is gone: what comes meanwhile is given to
/// whoever waits there no more.
#[tokio::test]
async fn what_is_given_to_a_connection_that_is_gone_is_found_later() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    add(&redis, "mine");
    let (mine, _) = following.value().await;
    // As the server sees it: delivered, to the same consumer, over another connection.
    redis.cli_lines(
        "MULTI\nXADD invalidations * ban taken\nXREADGROUP GROUP purgewatch:host-1 daemon \
         STREAMS invalidations >\nEXEC\n",
    );
    let entry = following.entry().await;
    assert_eq!((super::value(&entry).as_str(), entry.attempts), ("taken", 2));
    // Once, and what is in the hands of the program is left alone.
    following.silence(Duration::from_secs(13)).await;
    following.handle.finish([mine, entry.id]);
    following.written().await;
    assert_eq!(pending(&redis), 0);
}
