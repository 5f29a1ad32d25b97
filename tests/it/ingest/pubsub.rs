//! Pub/Sub forgets: every gap is said.

use std::time::Duration;

use purgewatch::clock::Clock;
use purgewatch::ingest::{Message, PubSubNews, SilenceCause, Subscriber, SubscriberOptions, Topic};

use super::LIMIT;
use crate::support::redis::Redis;

fn topics() -> Vec<Topic> {
    vec![
        Topic::Channel("deploy".to_owned()),
        Topic::Pattern("invalidate:model:*".to_owned()),
        Topic::Channel("deploy".to_owned()),
    ]
}

fn options() -> SubscriberOptions {
    SubscriberOptions {
        ping_interval: Duration::from_secs(1),
        ..SubscriberOptions::new(topics(), Clock::start())
    }
}

async fn news(subscriber: &mut Subscriber) -> PubSubNews {
    tokio::time::timeout(LIMIT, subscriber.next()).await.expect("no news").expect("it ended")
}

async fn message(subscriber: &mut Subscriber) -> Message {
    match news(subscriber).await {
        PubSubNews::Message(message) => message,
        other => panic!("expected a message: {other:?}"),
    }
}

async fn started(redis: &Redis, options: SubscriberOptions) -> Subscriber {
    let mut subscriber = Subscriber::start(redis.options(), options);
    let first = news(&mut subscriber).await;
    assert!(
        matches!(first, PubSubNews::Gap { since: None, cause: SilenceCause::Started, .. }),
        "{first:?}"
    );
    assert!(matches!(news(&mut subscriber).await, PubSubNews::Up));
    subscriber
}

#[tokio::test]
async fn messages_name_the_topics_they_came_by() {
    let redis = Redis::start_forgetful();
    let mut subscriber = started(&redis, options()).await;
    redis.cli(&["PUBLISH", "deploy", "one"]);
    redis.cli(&["PUBLISH", "invalidate:model:7", "two"]);
    redis.cli(&["PUBLISH", "invalidate:other", "three"]);
    redis.cli(&["PUBLISH", "deploy", "four"]);
    let got = message(&mut subscriber).await;
    assert_eq!((got.channel.as_slice(), got.payload.as_slice()), (&b"deploy"[..], &b"one"[..]));
    assert_eq!(got.topics[..], [0, 2]);
    let got = message(&mut subscriber).await;
    assert_eq!((got.channel.as_slice(), &got.topics[..]), (&b"invalidate:model:7"[..], &[1][..]));
    assert_eq!(message(&mut subscriber).await.payload, b"four");
}

/// The gap that comes next, and what came before it.
async fn gap(subscriber: &mut Subscriber) -> (Duration, SilenceCause, Vec<&'static str>) {
    let mut down = Vec::new();
    loop {
        match news(subscriber).await {
            PubSubNews::Down(error) => down.push(error.label()),
            PubSubNews::Gap { since, until, cause, .. } => {
                return (until.since(since.expect("when it was lost")), cause, down);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_restart_of_the_server_is_a_gap() {
    let mut redis = Redis::start_forgetful();
    let mut subscriber = started(&redis, options()).await;
    redis.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    redis.start_again();
    let (length, cause, down) = gap(&mut subscriber).await;
    assert_eq!((cause, down[0]), (SilenceCause::Disconnected, "closed"));
    assert!(length >= Duration::from_millis(500), "{length:?}");
    assert!(matches!(news(&mut subscriber).await, PubSubNews::Up));
    redis.cli(&["PUBLISH", "deploy", "after"]);
    assert_eq!(message(&mut subscriber).await.payload, b"after");
}

#[tokio::test]
async fn a_frozen_server_is_a_gap() {
    let redis = Redis::start_forgetful();
    let mut subscriber = started(&redis, options()).await;
    redis.freeze();
    let start = std::time::Instant::now();
    let PubSubNews::Down(error) = news(&mut subscriber).await else { panic!("not down") };
    assert_eq!(error.label(), "reply_timeout", "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    redis.thaw();
    let (length, cause, _) = gap(&mut subscriber).await;
    assert_eq!(cause, SilenceCause::Disconnected);
    assert!(length >= Duration::from_secs(2), "{length:?}");
}

#[tokio::test]
async fn what_does_not_fit_is_counted() {
    let redis = Redis::start_forgetful();
    // Two topics of one name: what is lost is lost for each.
    let small = SubscriberOptions { queue: 10, ..options() };
    let mut subscriber = started(&redis, small).await;
    redis.cli_lines(&"PUBLISH deploy x\n".repeat(1_000));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut messages, mut lost) = (0, 0);
    let mut of_other = 0;
    while messages + lost < 1_000 || of_other < lost {
        match news(&mut subscriber).await {
            PubSubNews::Message(_) => messages += 1,
            PubSubNews::Gap { cause: SilenceCause::Overflow { messages }, topics, .. } => {
                match topics[..] {
                    [0] => lost += messages,
                    [2] => of_other += messages,
                    _ => panic!("lost from {topics:?}"),
                }
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(lost > 900, "{lost}");
    assert_eq!((messages + lost, of_other), (1_000, lost));
}

#[tokio::test]
async fn a_message_that_is_too_long_is_a_gap() {
    let redis = Redis::start_forgetful();
    let mut subscriber = started(&redis, options()).await;
    redis.cli(&["EVAL", "redis.call('PUBLISH', 'deploy', string.rep('x', 300000))", "0"]);
    redis.cli(&["PUBLISH", "deploy", "short"]);
    let (mut lost, mut short) = (Vec::new(), false);
    while lost.len() < 2 || !short {
        match news(&mut subscriber).await {
            PubSubNews::Message(message) => short = message.payload == b"short",
            PubSubNews::Gap { cause: SilenceCause::Overflow { messages: 1 }, topics, .. } => {
                lost.extend(topics);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(lost, [0, 2], "the two topics that it came by");
    // More than any answer may be: the connection is given up, and that is a gap, too.
    redis.cli(&["EVAL", "redis.call('PUBLISH', 'deploy', string.rep('x', 20000000))", "0"]);
    let (_, cause, _) = gap(&mut subscriber).await;
    assert_eq!(cause, SilenceCause::Disconnected);
}
