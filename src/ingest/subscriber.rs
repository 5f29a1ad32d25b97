//! Following Pub/Sub channels.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use redis::{PushInfo, PushKind, Value, cmd};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::connection::{LONGEST_REPLY, Link};
use super::error::{IngestError, Kind, Stage};
use super::metered::Budget;
use super::{RedisOptions, SubscriberOptions, Topic};
use crate::clock::{Clock, random_seed};
use crate::model::Timestamp;

/// Follows channels. Redis keeps nothing for those who are not there, so what is published during
/// a gap is lost: each gap is told, and it is for the caller to look what changed.
///
/// Its task ends when this value is dropped.
pub struct Subscriber {
    news: mpsc::Receiver<PubSubNews>,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

/// What a subscriber tells.
#[derive(Debug)]
pub enum PubSubNews {
    /// A message.
    Message(Message),
    /// Messages may have been, or were, lost.
    Gap {
        /// The last sign that the subscription worked; `None` before it worked for the first time.
        since: Option<Timestamp>,
        /// When it works again.
        until: Timestamp,
        /// Why.
        cause: SilenceCause,
        /// The places in the list of topics that it concerns.
        topics: Vec<usize>,
    },
    /// The subscription works.
    Up,
    /// It does not, or not any more; more of these come until it works again, further and further
    /// apart.
    Down(IngestError),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The places in the list of topics that it came by. One that several topics match comes once
    /// for all that are the same text, and once for each other.
    pub topics: Arc<[usize]>,
    /// The channel. Bytes from outside.
    pub channel: Vec<u8>,
    /// The payload. Bytes from outside.
    pub payload: Vec<u8>,
}

/// Why messages were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SilenceCause {
    /// The program has only just begun to listen.
    Started,
    /// The connection was lost.
    Disconnected,
    /// So many came that they could not be kept, or were too long. Told of each topic by itself.
    Overflow {
        /// How many.
        messages: u64,
    },
}

impl SilenceCause {
    /// The cause as a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Disconnected => "disconnected",
            Self::Overflow { .. } => "overflow",
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// The bytes of the messages that wait.
    waiting: AtomicUsize,
    /// The messages of each topic that were lost and not told of.
    lost: Vec<AtomicU64>,
    /// Messages were lost.
    overflowed: Notify,
    /// When a message or an answer last came, in milliseconds of the program's time line.
    heard: AtomicU64,
}

impl Subscriber {
    /// Begins to follow, in a task of the current runtime.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(redis: RedisOptions, options: SubscriberOptions) -> Self {
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            lost: options.topics.iter().map(|_| AtomicU64::new(0)).collect(),
            overflowed: Notify::new(),
            heard: AtomicU64::new(0),
        });
        let (sender, news) = mpsc::channel(options.queue.max(1));
        let mut task = JoinSet::new();
        task.spawn(run(redis, options, Arc::clone(&shared), sender));
        Self { news, shared, _task: task }
    }

    /// The next news; `None` only after the task came to an end.
    ///
    /// Cancellation safe: nothing is lost.
    pub async fn next(&mut self) -> Option<PubSubNews> {
        let news = self.news.recv().await;
        if let Some(PubSubNews::Message(message)) = &news {
            self.shared.waiting.fetch_sub(message.size(), Ordering::Relaxed);
        }
        news
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Message {
    fn size(&self) -> usize {
        self.channel.len() + self.payload.len()
    }
}

/// Puts messages into the queue, from within the connection's own task: it must not wait.
struct Inbox {
    shared: Arc<Shared>,
    /// The connection is gone.
    gone: Arc<Notify>,
    news: mpsc::Sender<PubSubNews>,
    channels: HashMap<Vec<u8>, Arc<[usize]>>,
    patterns: HashMap<Vec<u8>, Arc<[usize]>>,
    budget: Arc<Budget>,
    queue_bytes: usize,
    message_limit: usize,
    clock: Clock,
}

impl Inbox {
    fn push(&self, push: PushInfo) {
        self.budget.reset(LONGEST_REPLY);
        self.shared.hear(self.clock);
        let mut parts = push.data.into_iter().map(|part| match part {
            Value::BulkString(bytes) => bytes,
            _ => Vec::new(),
        });
        let topics = match push.kind {
            PushKind::Disconnection => return self.gone.notify_one(),
            PushKind::Message => None,
            PushKind::PMessage => {
                let pattern = parts.next().unwrap_or_default();
                self.patterns.get(&pattern).map(Arc::clone)
            }
            _ => return,
        };
        let (Some(channel), Some(payload)) = (parts.next(), parts.next()) else { return };
        let Some(topics) = topics.or_else(|| self.channels.get(&channel).map(Arc::clone)) else {
            return;
        };
        let message = Message { topics: Arc::clone(&topics), channel, payload };
        let size = message.size();
        let waiting = self.shared.waiting.fetch_add(size, Ordering::Relaxed);
        let fits = size <= self.message_limit && waiting + size <= self.queue_bytes;
        if !fits || self.news.try_send(PubSubNews::Message(message)).is_err() {
            self.shared.waiting.fetch_sub(size, Ordering::Relaxed);
            for lost in topics.iter().filter_map(|at| self.shared.lost.get(*at)) {
                lost.fetch_add(1, Ordering::Relaxed);
            }
            self.shared.overflowed.notify_one();
        }
    }
}

impl Shared {
    fn hear(&self, clock: Clock) {
        self.heard.store(clock.now().as_millis(), Ordering::Relaxed);
    }

    /// The last sign of life, if there ever was one.
    fn heard(&self) -> Option<Timestamp> {
        let milliseconds = self.heard.load(Ordering::Relaxed);
        (milliseconds > 0).then(|| Timestamp::from_millis(milliseconds))
    }
}

/// Nobody takes the news any more.
struct NobodyListens;

async fn run(
    redis: RedisOptions,
    options: SubscriberOptions,
    shared: Arc<Shared>,
    news: mpsc::Sender<PubSubNews>,
) {
    let mut backoff = Backoff::new(random_seed());
    loop {
        let mut up = false;
        let Ok(error) = session(&redis, &options, &shared, &news, &mut up).await else { return };
        if up {
            backoff.succeeded();
        }
        if news.send(PubSubNews::Down(error)).await.is_err() {
            return;
        }
        sleep(backoff.failed()).await;
    }
}

/// One connection, from its start to the error that ends it.
async fn session(
    redis: &RedisOptions,
    options: &SubscriberOptions,
    shared: &Arc<Shared>,
    news: &mpsc::Sender<PubSubNews>,
    up: &mut bool,
) -> Result<IngestError, NobodyListens> {
    let since = shared.heard();
    let (mut link, gone) = match subscribe(redis, options, shared, news).await {
        Ok(subscribed) => subscribed,
        Err(error) => return Ok(error),
    };
    let until = options.clock.now();
    let cause = since.map_or(SilenceCause::Started, |_| SilenceCause::Disconnected);
    shared.hear(options.clock);
    *up = true;
    let topics = (0..options.topics.len()).collect();
    for first in [PubSubNews::Gap { since, until, cause, topics }, PubSubNews::Up] {
        news.send(first).await.map_err(|_| NobodyListens)?;
    }
    let mut fine = until;
    loop {
        tokio::select! {
            () = gone.notified() => {
                let reason = "the server ended the connection".to_owned();
                let (address, kind) = (redis.address.clone(), Kind::Closed { reason });
                return Ok(IngestError { address, stage: Stage::Command("SUBSCRIBE"), kind });
            }
            () = shared.overflowed.notified() => {
                for (topic, lost) in shared.lost.iter().enumerate() {
                    if lost.load(Ordering::Relaxed) == 0 {
                        continue;
                    }
                    // As many as were lost until there is room for saying so.
                    let room = news.reserve().await.map_err(|_| NobodyListens)?;
                    let messages = lost.swap(0, Ordering::Relaxed);
                    let (until, topics) = (options.clock.now(), vec![topic]);
                    let cause = SilenceCause::Overflow { messages };
                    room.send(PubSubNews::Gap { since: Some(fine), until, cause, topics });
                }
                fine = options.clock.now();
            }
            () = sleep(options.ping_interval) => {
                if let Err(error) = link.ask("PING", &cmd("PING")).await {
                    return Ok(error);
                }
                shared.hear(options.clock);
            }
        }
        if shared.lost.iter().all(|lost| lost.load(Ordering::Relaxed) == 0) {
            fine = options.clock.now();
        }
    }
}

async fn subscribe(
    redis: &RedisOptions,
    options: &SubscriberOptions,
    shared: &Arc<Shared>,
    news: &mpsc::Sender<PubSubNews>,
) -> Result<(Link, Arc<Notify>), IngestError> {
    let gone = Arc::new(Notify::new());
    let mut channels: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    let mut patterns: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for (place, topic) in options.topics.iter().enumerate() {
        let (map, text) = match topic {
            Topic::Channel(channel) => (&mut channels, channel),
            Topic::Pattern(pattern) => (&mut patterns, pattern),
        };
        map.entry(text.clone().into_bytes()).or_default().push(place);
    }
    let shareable = |map: HashMap<Vec<u8>, Vec<usize>>| {
        map.into_iter().map(|(text, places)| (text, Arc::from(places))).collect()
    };
    let budget: Arc<Budget> = Arc::default();
    let inbox = Inbox {
        shared: Arc::clone(shared),
        gone: Arc::clone(&gone),
        news: news.clone(),
        channels: shareable(channels),
        patterns: shareable(patterns),
        budget: Arc::clone(&budget),
        queue_bytes: options.queue_bytes,
        message_limit: options.message_limit,
        clock: options.clock,
    };
    let names = |wanted: fn(&Topic) -> Option<&String>| -> Vec<String> {
        options.topics.iter().filter_map(wanted).cloned().collect()
    };
    let channels = names(|topic| match topic {
        Topic::Channel(channel) => Some(channel),
        Topic::Pattern(_) => None,
    });
    let patterns = names(|topic| match topic {
        Topic::Pattern(pattern) => Some(pattern),
        Topic::Channel(_) => None,
    });
    let push = move |push: PushInfo| -> Result<(), Infallible> {
        inbox.push(push);
        Ok(())
    };
    let mut link = Link::open_pushing(redis, budget, push).await?;
    link.subscribe(&channels, &patterns).await?;
    Ok((link, gone))
}
