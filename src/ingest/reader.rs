//! Following a stream with a consumer group.

mod outstanding;
mod progress;
mod reading;
mod session;
mod writing;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::outstanding::{Outstanding, SetAside};
use super::{IngestError, RedisOptions, StreamId, StreamOptions};

/// So much news waits at most to be taken; then reading waits.
const QUEUE: usize = 256;

/// As much of a reason is kept, in characters.
const LONGEST_REASON: usize = 1_000;

/// Follows a stream for one host and hands over its entries, each at least once.
///
/// The consumer group is `purgewatch:<name>`, its consumer `daemon`. A group that exists goes on
/// where it was; a new one begins at the end of the stream, unless the stream is known to have been
/// followed before ([`StreamOptions::followed`]): then the group is gone, which is a gap. What was delivered and not finished is
/// handed over first after a start; after a lost connection only what is not in the hands of the
/// program. An entry is finished by [`StreamHandle::finish`] or [`StreamHandle::set_aside`], which
/// are carried out as soon as there is a connection, and again when it is not known whether they
/// were.
///
/// Its task ends when this value is dropped; what was not written to the server by then is handed
/// over again after the next start. [`stop`](Self::stop) ends it in good order.
#[derive(Debug)]
pub struct StreamReader {
    news: mpsc::Receiver<StreamNews>,
    handle: StreamHandle,
    task: JoinSet<()>,
}

/// Says what became of entries. Can be cloned and used from any task; no call waits.
#[derive(Clone)]
pub struct StreamHandle {
    shared: Arc<Shared>,
}

/// What a reader tells.
#[derive(Debug)]
pub enum StreamNews {
    /// An entry, to be finished or set aside.
    Entry(Entry),
    /// An entry that was too long and is being set aside: nothing is left to do for it.
    Oversize {
        /// The entry.
        id: StreamId,
        /// The bytes of its names and values; `None` when they were too many to be read at all.
        bytes: Option<usize>,
    },
    /// Entries are gone for good.
    Gap {
        /// How many; `None` when nobody knows. Entries that somebody deleted singly (XDEL) near the
        /// place are counted in.
        lost: Option<u64>,
        /// How that came.
        cause: GapCause,
    },
    /// There is a connection and the stream is followed.
    Up {
        /// Where the group stands.
        group: GroupStart,
    },
    /// There is none, or not any more; more of these come until it is up again, further and further
    /// apart.
    Down(IngestError),
    /// The connection is good, and the server refused something that is not needed for reading on:
    /// an answer could not be written, for one.
    Refused(IngestError),
    /// Another daemon has this host's name. Nothing is read until it is gone.
    OtherInstance {
        /// Its instance. Text from outside.
        instance: String,
        /// Whether it is another start of this one, later than ours: from a copy of its state, or
        /// a second time from the same.
        is_copy: bool,
    },
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id, by which it is finished.
    pub id: StreamId,
    /// Its names and values, in order, a name as often as it was given. Bytes from outside.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// How often it was handed over, this time included: 1, and one more for each start of this
    /// program that found it unfinished. A start is no failure of the entry's by itself.
    pub attempts: u64,
}

/// How entries were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The stream was trimmed (MAXLEN, MINID) further than this host had read.
    Trimmed,
    /// Entries that had been read and not finished, and were not in memory any more, were trimmed.
    TrimmedUnfinished,
    /// Somebody deleted the stream or the consumer group of a stream that is followed, or was. The
    /// group was made again behind the last entry that is known to be read; what was unfinished
    /// is remembered only here.
    GroupDeleted,
    /// The newest id of the stream is older than where the group stands: it was made anew, or the
    /// server went back to an older copy. It is read from its beginning.
    WentBack,
}

impl GapCause {
    /// The cause as a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::TrimmedUnfinished => "trimmed_unfinished",
            Self::GroupDeleted => "group_deleted",
            Self::WentBack => "went_back",
        }
    }
}

/// Where the group stands when the stream begins to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupStart {
    /// It is new: entries from before now are not read.
    New,
    /// It goes on behind this entry.
    Resumed(StreamId),
}

/// Too many answers wait for the server already; this one was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} answers wait to be written to Redis already")]
pub struct QueueFull {
    /// How many.
    pub waiting: usize,
}

/// What the task and the handles share.
struct Shared {
    outstanding: Mutex<Outstanding>,
    window: usize,
    /// Something waits to be written, or the task is to stop.
    work: Notify,
    /// Entries were finished, so there may be room to read.
    room: Notify,
    /// Whether the task is to end once everything is written.
    stopping: std::sync::atomic::AtomicBool,
}

impl StreamReader {
    /// Begins to follow a stream, in a task of the current runtime.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(redis: RedisOptions, options: StreamOptions) -> Self {
        let outstanding = Outstanding::new(options.window, options.window_bytes);
        let shared = Arc::new(Shared {
            outstanding: Mutex::new(outstanding),
            window: options.window,
            work: Notify::new(),
            room: Notify::new(),
            stopping: std::sync::atomic::AtomicBool::new(false),
        });
        let (sender, news) = mpsc::channel(QUEUE);
        let mut task = JoinSet::new();
        task.spawn(session::run(redis, options, Arc::clone(&shared), sender));
        Self { news, handle: StreamHandle { shared }, task }
    }

    /// What finishes entries.
    #[must_use]
    pub fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }

    /// The next news, in order; `None` only after the task came to an end.
    ///
    /// Cancellation safe: nothing is lost.
    pub async fn next(&mut self) -> Option<StreamNews> {
        self.news.recv().await
    }

    /// Waits for news and puts all that is there into `into`, at most `most`. How many; zero only
    /// after the task came to an end.
    ///
    /// Cancellation safe: nothing is lost.
    pub async fn next_many(&mut self, into: &mut Vec<StreamNews>, most: usize) -> usize {
        self.news.recv_many(into, most).await
    }

    /// Reads no further, writes what was finished to the server and gives the name up, within
    /// `limit`. Whether all was written; what was not is handed over again after the next start.
    pub async fn stop(mut self, limit: Duration) -> bool {
        self.handle.shared.stopping.store(true, std::sync::atomic::Ordering::Release);
        self.handle.shared.work.notify_one();
        // What is still in the channel is not finished, and will be handed over again.
        self.news.close();
        let ended = timeout(limit, self.task.join_next()).await.is_ok();
        ended && self.handle.shared.lock().is_written()
    }
}

impl StreamHandle {
    /// These entries are done: they are acknowledged (XACK), in batches, until the server has said
    /// so. Ids that are not in the hands of the program are left alone.
    pub fn finish(&self, ids: impl IntoIterator<Item = StreamId>) {
        let mut outstanding = self.shared.lock();
        let ours = ids.into_iter().filter(|id| outstanding.finish(*id)).count();
        drop(outstanding);
        if ours > 0 {
            self.shared.work.notify_one();
        }
    }

    /// This entry cannot be carried out: it is copied to `<stream>:set-aside` (the newest thousand
    /// or so) with its id, this host's name and the reason, and acknowledged, both in one
    /// transaction.
    pub fn set_aside(&self, id: StreamId, reason: &str) {
        let reason = reason.chars().take(LONGEST_REASON).collect();
        let aside = SetAside { reason, with_fields: true };
        if self.shared.lock().put_aside(id, aside) {
            self.shared.work.notify_one();
        }
    }

    /// Writes an answer to the stream of replies (the newest ten thousand or so). Answers are
    /// written in order, each before the entries that are finished after this call, unless the
    /// server refuses it; after a lost connection one may be written twice.
    ///
    /// # Errors
    /// [`QueueFull`] when four times the window of unfinished entries wait already, which is only
    /// while the server is away.
    pub fn confirm(&self, json: Vec<u8>) -> Result<(), QueueFull> {
        if !self.shared.lock().answer(json) {
            return Err(QueueFull { waiting: self.shared.window.saturating_mul(4) });
        }
        self.shared.work.notify_one();
        Ok(())
    }

    /// The place in the stream up to which all is done with, for
    /// [`StreamOptions::followed`]; `None` before it was followed.
    #[must_use]
    pub fn done_up_to(&self) -> Option<StreamId> {
        self.shared.lock().done_up_to()
    }

    /// How many entries are not finished at the server.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.shared.lock().len()
    }

    /// Whether everything that was finished, set aside or confirmed is at the server.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.shared.lock().is_written()
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("unfinished", &self.unfinished()).finish()
    }
}

impl Shared {
    /// Held for moments only, and nothing in between can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(std::sync::atomic::Ordering::Acquire)
    }
}
