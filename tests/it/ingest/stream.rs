//! Every entry at least once, whatever happens.

use std::collections::BTreeSet;
use std::time::Duration;

use purgewatch::ingest::{GroupStart, Publisher, StreamId, StreamNews};
use purgewatch::model::NodeName;

use super::{Following, LIMIT, add, follow, options, pending, until, value};
use crate::support::redis::Redis;

#[tokio::test]
async fn a_new_group_begins_at_the_end_and_goes_on_where_it_was() {
    let redis = Redis::start();
    add(&redis, "before");
    let mut first = Following::new_group(&redis).await;
    let id = add(&redis, "one");
    let entry = first.entry().await;
    assert_eq!((entry.id, value(&entry).as_str(), entry.attempts), (id, "one", 1));
    first.handle.finish([id]);
    first.stop().await;
    assert_eq!(pending(&redis), 0);

    add(&redis, "while it was away");
    let mut second = follow(&redis);
    assert_eq!(second.up().await, GroupStart::Resumed(id));
    assert_eq!(second.value().await.1, "while it was away");
}

#[tokio::test]
async fn names_and_values_come_in_order_and_as_bytes() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    redis.cli_lines(
        "XADD invalidations * ban a url b ban c bytes \"\\xff\\x00\\r\\n\" empty \"\"\n",
    );
    let names = [("ban", &b"a"[..]), ("url", b"b"), ("ban", b"c"), ("bytes", b"\xff\x00\r\n")];
    let mut expected: Vec<_> =
        names.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec())).collect();
    expected.push((b"empty".to_vec(), Vec::new()));
    assert_eq!(following.entry().await.fields, expected);
}

#[tokio::test]
async fn what_was_not_finished_comes_first_after_a_start_with_its_attempts() {
    let redis = Redis::start();
    let mut first = Following::new_group(&redis).await;
    for text in ["a", "b", "c"] {
        add(&redis, text);
    }
    let (a, _) = first.value().await;
    let (b, _) = first.value().await;
    first.value().await;
    first.handle.finish([b]);
    first.written().await;
    // As after SIGKILL: nothing is said, nothing released.
    drop(first);
    add(&redis, "d");

    let mut second = follow(&redis);
    second.up().await;
    let entry = second.entry().await;
    assert_eq!((entry.id, value(&entry).as_str(), entry.attempts), (a, "a", 2));
    assert_eq!(second.value().await.1, "c");
    assert_eq!(second.value().await.1, "d");
    second.silence(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_restart_of_the_server_loses_no_entry_and_no_acknowledgement() {
    let mut redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    let ids: Vec<_> = ["a", "b", "c"].map(|text| add(&redis, text)).to_vec();
    for id in &ids {
        assert_eq!(following.entry().await.id, *id);
    }
    redis.kill();
    // Finished while the server is away; the one in the middle is not.
    following.handle.finish([ids[0], ids[2]]);
    following.handle.confirm(b"{\"a\":1}".to_vec()).unwrap();
    assert!(!following.handle.is_written());
    following.down().await;
    redis.start_again();
    let d = add(&redis, "d");
    following.up_again().await;
    following.written().await;
    // What is in the hands of the program is not handed over again.
    assert_eq!(following.entry().await.id, d);
    following.silence(Duration::from_millis(200)).await;
    assert_eq!(pending(&redis), 2);
    assert_eq!(redis.cli(&["XLEN", "invalidations:replies"]), "1");
    following.handle.finish([ids[1], d]);
    following.written().await;
    assert_eq!((pending(&redis), following.handle.unfinished()), (0, 0));
}

#[tokio::test]
async fn a_server_that_forgot_everything_is_followed_on() {
    let mut redis = Redis::start_forgetful();
    let mut following = Following::new_group(&redis).await;
    let a = add(&redis, "a");
    assert_eq!(following.entry().await.id, a);
    redis.kill();
    redis.start_again();
    let b = add(&redis, "b");
    let gap = loop {
        match following.news().await {
            StreamNews::Gap { lost, cause } => break (lost, cause.label()),
            StreamNews::Down(_) => {}
            other => panic!("expected a gap: {other:?}"),
        }
    };
    assert_eq!(gap, (None, "group_deleted"));
    following.up_again().await;
    assert_eq!(following.entry().await.id, b);
    following.handle.finish([a, b]);
    following.written().await;
}

#[tokio::test]
async fn a_deleted_stream_is_followed_on() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    redis.cli(&["DEL", "invalidations"]);
    let error = following.down().await;
    assert_eq!(error.label(), "no_group", "{error}");
    let id = add(&redis, "after");
    let StreamNews::Gap { lost: None, .. } = following.news().await else { panic!("no gap") };
    following.up_again().await;
    assert_eq!(following.entry().await.id, id);
}

#[tokio::test]
async fn a_frozen_server_is_found_out_and_followed_on() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    redis.freeze();
    let start = std::time::Instant::now();
    let error = following.down().await;
    assert_eq!(error.label(), "reply_timeout", "{error}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    redis.thaw();
    following.up_again().await;
    let id = add(&redis, "after");
    assert_eq!(following.entry().await.id, id);
}

#[tokio::test]
async fn what_a_dying_connection_took_with_it_comes_on_the_next() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    let mut all = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for round in 0..30 {
        all.insert(add(&redis, &format!("{round}-a")));
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        all.insert(add(&redis, &format!("{round}-b")));
    }
    while seen.len() < all.len() {
        if let StreamNews::Entry(entry) = following.news().await {
            assert!(seen.insert(entry.id), "{} came twice", entry.id);
            following.handle.finish([entry.id]);
        }
    }
    assert_eq!(seen, all);
    following.written().await;
    assert_eq!(pending(&redis), 0);
}

/// Daemons that are killed, connections that are cut and a server that is restarted, at random,
/// while entries flow: every entry is finished, none before it was handed over.
#[tokio::test]
async fn nothing_is_lost_at_random() {
    let mut redis = Redis::start();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let (mut added, mut finished) = (BTreeSet::new(), BTreeSet::new());
    let mut following = Following::new_group(&redis).await;
    for round in 0..40 {
        for _ in 0..random.usize(1..40) {
            added.insert(add(&redis, &format!("of round {round}")));
        }
        for _ in 0..random.usize(0..40) {
            let news = tokio::time::timeout(Duration::from_millis(20), following.reader.next());
            match news.await {
                Ok(Some(StreamNews::Entry(entry))) if random.f64() < 0.9 => {
                    finished.insert(entry.id);
                    following.handle.finish([entry.id]);
                }
                Ok(Some(StreamNews::Gap { lost, cause })) => panic!("{lost:?} lost: {cause:?}"),
                _ => {}
            }
        }
        // What the server counts as done was finished here.
        match random.usize(0..4) {
            0 => following = follow(&redis),
            1 => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
            2 => {
                redis.kill();
                redis.start_again();
            }
            _ => {}
        }
        let open: BTreeSet<StreamId> = unfinished_at(&redis);
        let lost: Vec<_> = added.difference(&finished).filter(|id| !open.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    let mut last = follow(&redis);
    while finished.len() < added.len() {
        if let StreamNews::Entry(entry) = last.news().await {
            finished.insert(entry.id);
            last.handle.finish([entry.id]);
        }
    }
    assert_eq!(finished, added);
    // What was finished as one of the readers was killed may come again.
    until("all is acknowledged", || {
        while let Ok(Some(news)) = poll(&mut last) {
            if let StreamNews::Entry(entry) = news {
                last.handle.finish([entry.id]);
            }
        }
        pending(&redis) == 0
    })
    .await;
}

/// What the group has not delivered, or delivered and not heard the end of.
fn unfinished_at(redis: &Redis) -> BTreeSet<StreamId> {
    let group = redis.cli(&["XINFO", "GROUPS", "invalidations"]);
    let mut lines = group.lines().skip_while(|line| *line != "last-delivered-id");
    let delivered: StreamId = lines.nth(1).unwrap().parse().unwrap();
    let from = delivered.successor().to_string();
    let behind = redis.cli(&["XRANGE", "invalidations", &from, "+"]);
    let range = ["XPENDING", "invalidations", "purgewatch:host-1", "-", "+", "100000"];
    let pending = redis.cli(&range);
    behind.lines().chain(pending.lines()).filter_map(|line| line.parse().ok()).collect()
}

fn poll(following: &mut Following) -> Result<Option<StreamNews>, ()> {
    use futures_util::FutureExt;
    following.reader.next().now_or_never().ok_or(())
}

#[tokio::test]
async fn no_more_than_the_window_is_read() {
    let redis = Redis::start();
    let mut narrow = options("first");
    narrow.window = 10;
    let mut following = Following::start(&redis, narrow);
    following.up().await;
    redis.cli_lines(&"XADD invalidations * ban x\n".repeat(50));
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(following.entry().await.id);
    }
    following.silence(Duration::from_millis(300)).await;
    assert_eq!(pending(&redis), 10);
    following.handle.finish([ids[3]]);
    ids.push(following.entry().await.id);
    following.silence(Duration::from_millis(300)).await;
    while ids.len() < 50 {
        following.handle.finish(ids.iter().copied());
        ids.push(following.entry().await.id);
    }
    assert!(ids.is_sorted());
    following.handle.finish(ids);
    following.written().await;
    assert_eq!(pending(&redis), 0);
}

#[tokio::test]
async fn an_entry_is_set_aside_with_its_fields_and_the_reason() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    redis.cli(&["XADD", "invalidations", "*", "event", "{broken", "more", "text"]);
    add(&redis, "behind it");
    let (id, _) = following.value().await;
    following.handle.set_aside(id, "no JSON: line 1 column 2");
    assert_eq!(following.value().await.1, "behind it");
    following.written().await;
    let aside = redis.cli(&["XRANGE", "invalidations:set-aside", "-", "+"]);
    let lines: Vec<_> = aside.lines().skip(1).collect();
    let id = id.to_string();
    let expected = ["set-aside-id", &id, "set-aside-by", "host-1", "set-aside-reason"];
    assert_eq!(lines[..5], expected);
    assert_eq!(lines[5..], ["no JSON: line 1 column 2", "event", "{broken", "more", "text"]);
    assert_eq!(pending(&redis), 1);
}

#[tokio::test]
async fn what_cannot_be_set_aside_stays_unfinished_until_it_can() {
    let redis = Redis::start();
    let mut quick = options("first");
    quick.lease = Duration::from_millis(900);
    let mut following = Following::start(&redis, quick);
    following.up().await;
    let id = add(&redis, "a");
    assert_eq!(following.entry().await.id, id);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    following.handle.set_aside(id, "why");
    let StreamNews::Refused(error) = following.news().await else { panic!("not refused") };
    assert_eq!(error.label(), "out_of_memory", "{error}");
    assert_eq!(pending(&redis), 1);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    until("it is set aside", || redis.cli(&["XLEN", "invalidations:set-aside"]) == "1").await;
    until("it is finished", || pending(&redis) == 0).await;
}

#[tokio::test]
async fn a_long_entry_is_set_aside_by_itself_and_holds_nothing_up() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    let mut publisher = Publisher::connect(redis.options()).await.unwrap();
    let mut publish = async |bytes: usize| {
        let value = vec![b'x'; bytes];
        publisher.publish("invalidations", &[(b"ban", &value)], 1_000).await.unwrap()
    };
    let fits = publish(500 * 1_024).await;
    let long = publish(1_024 * 1_024).await;
    // More than is ever read in one answer: it is not seen at all.
    let huge = publish(20 * 1_024 * 1_024).await;
    let last = publish(10).await;
    assert_eq!(following.entry().await.id, fits);
    let (mut oversize, mut entries) = (Vec::new(), Vec::new());
    while entries.is_empty() || oversize.len() < 2 {
        match following.news().await {
            StreamNews::Oversize { id, bytes } => oversize.push((id, bytes)),
            StreamNews::Entry(entry) => entries.push(entry.id),
            StreamNews::Down(error) => assert_eq!(error.label(), "too_long", "{error}"),
            StreamNews::Up { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(oversize, [(long, Some(1_024 * 1_024 + 3)), (huge, None)]);
    assert_eq!(entries, [last]);
    following.handle.finish([fits, last]);
    following.written().await;
    assert_eq!(pending(&redis), 0);
    let aside = redis.cli(&["XRANGE", "invalidations:set-aside", "-", "+"]);
    assert!(aside.contains("1048579 bytes of fields, at most 524288 are taken"), "{aside}");
    assert!(aside.contains("too many bytes of fields"), "{aside}");
}

#[tokio::test]
async fn two_daemons_with_one_name_do_not_both_read() {
    let redis = Redis::start();
    let mut first = Following::new_group(&redis).await;
    let quick = |instance| {
        let mut quick = options(instance);
        quick.lease = Duration::from_secs(3);
        quick
    };
    let mut second = Following::start(&redis, quick("second"));
    let StreamNews::OtherInstance { instance, .. } = second.news().await else {
        panic!("it reads")
    };
    assert_eq!(instance, "first");
    let id = add(&redis, "a");
    assert_eq!(first.entry().await.id, id);
    // Said once; and nothing is read.
    second.silence(Duration::from_secs(3)).await;
    first.handle.finish([id]);
    first.stop().await;
    // One that was stopped gives the name up at once.
    second.up_again().await;
    let b = add(&redis, "b");
    assert_eq!(second.entry().await.id, b);
    // The one that had it before comes back as itself, and takes turns: it waits.
    let mut again = Following::start(&redis, quick("first"));
    let StreamNews::OtherInstance { instance, .. } = again.news().await else { panic!("it reads") };
    assert_eq!(instance, "second");
    // One that is killed is waited for until the lease runs out, and what it had is taken over.
    drop(second);
    let start = std::time::Instant::now();
    again.up_again().await;
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(again.entry().await.id, b);
}

/// A daemon that was frozen for longer than the lease finds another one in its place.
#[tokio::test]
async fn a_name_that_was_lost_is_waited_for() {
    let redis = Redis::start();
    let mut quick = options("first");
    quick.lease = Duration::from_millis(1_500);
    let mut following = Following::start(&redis, quick);
    following.up().await;
    let id = add(&redis, "a");
    following.entry().await;
    redis.cli(&["SET", "purgewatch:host-1:instance", "another", "PX", "2000"]);
    let StreamNews::OtherInstance { instance, .. } = following.news().await else {
        panic!("no word")
    };
    assert_eq!(instance, "another");
    let later = add(&redis, "b");
    following.silence(Duration::from_millis(500)).await;
    following.handle.finish([id]);
    following.up().await;
    assert_eq!(following.entry().await.id, later);
    following.written().await;
    assert_eq!(pending(&redis), 1);
}

/// The program takes no news: reading stops, what was finished is written all the same, and the
/// lease is kept.
#[tokio::test]
async fn a_slow_program_holds_up_nothing_but_reading() {
    let redis = Redis::start();
    let mut quick = options("first");
    quick.lease = Duration::from_millis(900);
    let mut following = Following::start(&redis, quick);
    following.up().await;
    redis.cli_lines(&"XADD invalidations * ban x\n".repeat(2_000));
    let first = following.entry().await.id;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(following.handle.unfinished() <= 1_024, "{:?}", following.handle);
    following.handle.finish([first]);
    following.written().await;
    assert_eq!(redis.cli(&["GET", "purgewatch:host-1:instance"]), "first");
    let mut last = first;
    for _ in 1..2_000 {
        let id = following.entry().await.id;
        assert!(id > last);
        last = id;
        following.handle.finish([id]);
    }
    following.stop().await;
    assert_eq!(pending(&redis), 0);
}

#[tokio::test]
async fn answers_that_there_is_no_memory_for_are_written_later() {
    let redis = Redis::start();
    let mut quick = options("first");
    quick.lease = Duration::from_millis(900);
    let mut following = Following::start(&redis, quick);
    following.up().await;
    let id = add(&redis, "a");
    following.entry().await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    following.handle.confirm(b"{}".to_vec()).unwrap();
    following.handle.finish([id]);
    let StreamNews::Refused(error) = following.news().await else { panic!("not refused") };
    assert_eq!(error.label(), "out_of_memory", "{error}");
    assert_eq!(pending(&redis), 0, "it holds up no acknowledgement");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    until("it is written", || redis.cli(&["XLEN", "invalidations:replies"]) == "1").await;
    following.written().await;
}

#[tokio::test]
async fn an_instance_that_was_killed_goes_on_at_once() {
    let redis = Redis::start();
    let first = Following::new_group(&redis).await;
    drop(first);
    let start = std::time::Instant::now();
    let mut again = follow(&redis);
    again.up().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn publishers_see_the_followers_and_what_they_confirm() {
    let mut redis = Redis::start();
    let mut with_nodes = options("first");
    with_nodes.nodes = vec![NodeName::new("cache-01").unwrap(), NodeName::new("cache-02").unwrap()];
    let mut following = Following::start(&redis, with_nodes);
    following.up().await;

    let mut publisher = Publisher::connect(redis.options()).await.unwrap();
    let followers = publisher.followers("invalidations").await.unwrap();
    assert_eq!(followers.len(), 1);
    assert_eq!((followers[0].name.as_str(), followers[0].nodes.len()), ("host-1", 2));
    let age = purgewatch::clock::Clock::start().now().since(followers[0].seen);
    assert!(age < Duration::from_secs(20), "{age:?}");

    let replies = "invalidations:replies";
    let mut after = publisher.position(replies).await.unwrap();
    let id = publisher.publish("invalidations", &[(b"ban", b"a")], 100).await.unwrap();
    assert_eq!(following.entry().await.id, id);
    following.handle.confirm(b"{\"first\":1}".to_vec()).unwrap();
    following.handle.finish([id]);
    let got = publisher.confirmations(replies, &mut after, LIMIT).await.unwrap();
    assert_eq!(got, [b"{\"first\":1}".to_vec()]);
    let none = publisher.confirmations(replies, &mut after, Duration::from_millis(200)).await;
    assert!(none.unwrap().is_empty());

    // A restart in between loses nothing.
    redis.kill();
    following.handle.confirm(b"{\"second\":2}".to_vec()).unwrap();
    redis.start_again();
    let got = publisher.confirmations(replies, &mut after, LIMIT).await.unwrap();
    assert_eq!(got, [b"{\"second\":2}".to_vec()]);

    assert!(publisher.forget("invalidations", "host-1").await.unwrap());
    assert!(!publisher.forget("invalidations", "host-1").await.unwrap());
    assert!(publisher.followers("invalidations").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_reply_that_is_too_long_to_be_read_is_passed_over() {
    let redis = Redis::start_forgetful();
    let long = "redis.call('XADD', 'invalidations:replies', '*', 'x', string.rep('x', 20000000))";
    redis.cli(&["EVAL", long, "0"]);
    let mut publisher = Publisher::connect(redis.options()).await.unwrap();
    let replies = "invalidations:replies";
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut after = publisher.position(replies).await.unwrap();
    publisher.publish("invalidations", &[(b"ban", b"a")], 100).await.unwrap();
    redis.cli(&["XADD", replies, "*", "confirmation", "{}"]);
    let got = publisher.confirmations(replies, &mut after, LIMIT).await.unwrap();
    assert_eq!(got, [b"{}".to_vec()]);
}

#[tokio::test]
async fn finishing_what_is_not_ours_does_nothing() {
    let redis = Redis::start();
    let mut following = Following::new_group(&redis).await;
    let id = add(&redis, "a");
    let other = StreamId { milliseconds: 1, sequence: 1 };
    following.handle.finish([other]);
    following.handle.set_aside(other, "no");
    assert_eq!(following.entry().await.id, id);
    following.handle.finish([id, id]);
    following.written().await;
    assert_eq!(redis.cli(&["XLEN", "invalidations:set-aside"]), "0");
}
