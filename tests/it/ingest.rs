//! Redis to news and back, against real redis-servers.

mod anew;
mod lease;
mod pubsub;
mod refused;
mod speed;
mod stream;
mod trimmed;

use std::time::Duration;

use purgewatch::clock::Clock;
use purgewatch::ingest::{
    Entry, GroupStart, IngestError, StreamHandle, StreamId, StreamNews, StreamOptions, StreamReader,
};

use crate::support::redis::Redis;

const LIMIT: Duration = Duration::from_secs(30);

/// As `host-1`, with an instance of its own.
fn options(instance: &str) -> StreamOptions {
    StreamOptions::new("invalidations", "host-1", instance, Clock::start())
}

fn follow(redis: &Redis) -> Following {
    Following::start(redis, options("first"))
}

/// A reader whose news are looked at one by one.
struct Following {
    reader: StreamReader,
    handle: StreamHandle,
}

impl Following {
    fn start(redis: &Redis, options: StreamOptions) -> Self {
        let reader = StreamReader::start(redis.options(), options);
        let handle = reader.handle();
        Self { reader, handle }
    }

    /// One that is up on a stream without a group: the group is new.
    async fn new_group(redis: &Redis) -> Self {
        let mut following = follow(redis);
        assert_eq!(following.up().await, GroupStart::New);
        following
    }

    async fn news(&mut self) -> StreamNews {
        tokio::time::timeout(LIMIT, self.reader.next()).await.expect("no news").expect("it ended")
    }

    /// Nothing comes for a while.
    async fn silence(&mut self, while_: Duration) {
        if let Ok(news) = tokio::time::timeout(while_, self.reader.next()).await {
            panic!("unexpected: {news:?}");
        }
    }

    async fn up(&mut self) -> GroupStart {
        match self.news().await {
            StreamNews::Up { group } => group,
            other => panic!("expected to be up: {other:?}"),
        }
    }

    /// Up again, however often it was not.
    async fn up_again(&mut self) -> GroupStart {
        loop {
            match self.news().await {
                StreamNews::Up { group } => return group,
                StreamNews::Down(_) => {}
                other => panic!("expected to be up again: {other:?}"),
            }
        }
    }

    async fn down(&mut self) -> IngestError {
        match self.news().await {
            StreamNews::Down(error) => error,
            other => panic!("expected to be down: {other:?}"),
        }
    }

    async fn entry(&mut self) -> Entry {
        match self.news().await {
            StreamNews::Entry(entry) => entry,
            other => panic!("expected an entry: {other:?}"),
        }
    }

    /// The value of the only field of the next entry.
    async fn value(&mut self) -> (StreamId, String) {
        let entry = self.entry().await;
        (entry.id, value(&entry))
    }

    /// Until the server has all that was finished.
    async fn written(&self) {
        until("all is written", || self.handle.is_written()).await;
    }

    async fn stop(self) {
        assert!(self.reader.stop(LIMIT).await, "not all was written");
    }
}

fn value(entry: &Entry) -> String {
    String::from_utf8(entry.fields[0].1.clone()).unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + LIMIT;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not within the limit: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many entries the group has delivered and not heard the end of.
fn pending(redis: &Redis) -> u64 {
    let answer = redis.cli(&["XPENDING", "invalidations", "purgewatch:host-1"]);
    answer.lines().next().unwrap().parse().unwrap()
}

fn add(redis: &Redis, value: &str) -> StreamId {
    redis.cli(&["XADD", "invalidations", "*", "ban", value]).parse().unwrap()
}
