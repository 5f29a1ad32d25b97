//! One connection after the other, for ever.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value, cmd};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::progress::Progress;
use super::reading::Reading;
use super::writing::Writing;
use super::{GapCause, GroupStart, Shared, StreamNews};
use crate::clock::random_seed;
use crate::ingest::backoff::Backoff;
use crate::ingest::connection::{Link, Purpose};
use crate::ingest::error::{IngestError, Kind};
use crate::ingest::lease::{self, Holder};
use crate::ingest::{RedisOptions, StreamId, StreamOptions, reply};

/// So many entries are read at once at most.
pub(super) const MOST_AT_ONCE: usize = 256;

/// After an answer that was too long, nothing is looked up of the stream for so long, since that
/// answer holds its first and its last entry; twice as long after the next one.
const UNINSPECTED: Duration = Duration::from_secs(60);

/// No longer than that.
const LONGEST_UNINSPECTED: Duration = Duration::from_secs(3_600);

/// What one session leaves to the next.
#[derive(Debug)]
pub(super) struct Memory {
    /// The newest entry that was read.
    pub(super) last: Option<StreamId>,
    /// Which entry of the stream that is, counted from the first one ever added, if it is known.
    pub(super) position: Option<(StreamId, u64)>,
    /// So many entries are read at once; fewer after an answer that was too long.
    pub(super) at_once: usize,
    /// The one entry that was asked for by itself when the answer was too long.
    pub(super) suspect: Option<StreamId>,
    /// Until when the stream is not looked up.
    pub(super) uninspected: Option<Instant>,
    /// How long it will not be looked up after the next answer that is too long.
    pub(super) pause: Duration,
    /// Whether the name was ours since the start.
    held: bool,
    /// The other instance that was told of.
    other: Option<String>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            last: None,
            position: None,
            at_once: MOST_AT_ONCE,
            suspect: None,
            uninspected: None,
            pause: UNINSPECTED,
            held: false,
            other: None,
        }
    }
}

impl Memory {
    /// Whether the stream is to be looked up.
    pub(super) fn inspects(&self) -> bool {
        self.uninspected.is_none_or(|until| until <= Instant::now())
    }

    /// It was looked up, and the answer was not too long.
    pub(super) fn inspected(&mut self) {
        self.uninspected = None;
        self.pause = UNINSPECTED;
    }
}

/// Why a session ended without an error.
pub(super) enum End {
    /// The task is to stop, and everything is written.
    Stopped,
    /// Another instance has the name now.
    OtherInstance(String),
}

/// Runs until the reader is dropped or stopped.
pub(super) async fn run(
    redis: RedisOptions,
    options: StreamOptions,
    shared: Arc<Shared>,
    news: mpsc::Sender<StreamNews>,
) {
    let mut backoff = Backoff::new(random_seed());
    let mut memory = Memory::default();
    loop {
        let mut up = false;
        let ended = session(&redis, &options, &shared, &news, &mut memory, &mut up).await;
        if up {
            backoff.succeeded();
        }
        let pause = match ended {
            Ok(End::Stopped) => return,
            Ok(End::OtherInstance(instance)) => {
                if memory.other.as_ref() != Some(&instance) {
                    memory.other = Some(instance.clone());
                    let is_copy = lease::is_ours(instance.as_bytes(), &options.instance);
                    let other = StreamNews::OtherInstance { instance, is_copy };
                    if tell(&news, other).await.is_err() {
                        return;
                    }
                }
                options.lease / 3
            }
            Err(error) => {
                if matches!(error.kind, Kind::TooLong { .. }) {
                    memory.at_once = (memory.at_once / 4).max(1);
                    memory.uninspected = Some(Instant::now() + memory.pause);
                    memory.pause = (memory.pause * 2).min(LONGEST_UNINSPECTED);
                } else {
                    memory.suspect = None;
                }
                if shared.is_stopping() || tell(&news, StreamNews::Down(error)).await.is_err() {
                    return;
                }
                backoff.failed()
            }
        };
        let stopped = async {
            while !shared.is_stopping() {
                shared.work.notified().await;
            }
        };
        if timeout(pause, stopped).await.is_ok() && shared.lock().is_written() {
            return;
        }
    }
}

/// The program does not listen any more.
pub(super) struct NobodyListens;

/// Tells, and waits for room to.
pub(super) async fn tell(
    news: &mpsc::Sender<StreamNews>,
    what: StreamNews,
) -> Result<(), NobodyListens> {
    news.send(what).await.map_err(|_| NobodyListens)
}

async fn session(
    redis: &RedisOptions,
    options: &StreamOptions,
    shared: &Shared,
    news: &mpsc::Sender<StreamNews>,
    memory: &mut Memory,
    up: &mut bool,
) -> Result<End, IngestError> {
    let mut commands = Link::open(redis, Purpose::Keys).await?;
    if let Holder::Other(instance) = lease::renew(&mut commands, options, memory.held).await? {
        return Ok(End::OtherInstance(instance));
    }
    memory.held = true;
    memory.other = None;
    if shared.is_stopping() {
        let writing = Writing::new(commands, options, shared, news);
        return writing.run().await;
    }
    let (group, progress) = enter_group(&mut commands, options, shared, news, memory).await?;
    let link = Link::open(redis, Purpose::Keys).await?;
    let mut writing = Writing::new(commands, options, shared, news);
    writing.announce().await?;
    *up = true;
    if tell(news, StreamNews::Up { group }).await.is_err() {
        return Ok(End::Stopped);
    }
    let reading = Reading::new(link, options, shared, news, memory, progress);
    tokio::select! {
        error = reading.run() => Err(error),
        written = writing.run() => written,
    }
}

/// Makes the group, or finds it.
async fn enter_group(
    link: &mut Link,
    options: &StreamOptions,
    shared: &Shared,
    news: &mpsc::Sender<StreamNews>,
    memory: &mut Memory,
) -> Result<(GroupStart, Progress), IngestError> {
    let (stream, group) = (&options.stream, options.group());
    // Somebody who deletes a stream that is followed loses nothing that is added afterwards: ids
    // grow, since they are times. Where they do not, that is seen below.
    let known = memory.last.or(options.followed);
    let from = known.map_or_else(|| "$".to_owned(), |id| id.to_string());
    let mut create = cmd("XGROUP");
    create.arg("CREATE").arg(stream).arg(&group).arg(from).arg("MKSTREAM");
    let mut refusal = None;
    let created = match link.ask("XGROUP CREATE", &create).await {
        Ok(_) => true,
        Err(IngestError { kind: Kind::Rejected { ref code, .. }, .. }) if code == "BUSYGROUP" => {
            false
        }
        // Refused before the server looks whether it is there, which it may be.
        Err(error) if matches!(error.kind, Kind::OutOfMemory) => {
            refusal = Some(error);
            false
        }
        Err(error) => return Err(error),
    };
    if created && known.is_some() {
        let gap = StreamNews::Gap { lost: None, cause: GapCause::GroupDeleted };
        // Nobody who listens means that the next message will find that out, too.
        let _ = tell(news, gap).await;
    }
    let inspect = memory.inspects();
    let mut ask = Pipeline::new();
    ask.cmd("XINFO").arg("GROUPS").arg(stream);
    ask.cmd("XPENDING").arg(stream).arg(&group);
    if inspect {
        ask.cmd("XINFO").arg("STREAM").arg(stream);
    }
    let answers = match link.transact("XINFO", &ask).await {
        // It takes no transactions then.
        Err(error) if matches!(error.kind, Kind::OutOfMemory) => {
            link.ask_all("XINFO", &ask).await?
        }
        answers => answers?.unwrap_or_default(),
    };
    let info = answers
        .first()
        .and_then(|answer| reply::group_info(answer, &group))
        .ok_or_else(|| refusal.unwrap_or_else(|| link.unexpected("XINFO GROUPS", "the group")))?;
    let stream_info = answers.get(2).and_then(reply::stream_info);
    let start = match created {
        true if known.is_none() => GroupStart::New,
        _ => GroupStart::Resumed(info.delivered),
    };
    if let Some(last) = stream_info.map(|stream| stream.last).filter(|last| *last < info.delivered)
    {
        if !(created && known.is_some()) {
            let _ = tell(news, StreamNews::Gap { lost: None, cause: GapCause::WentBack }).await;
        }
        let progress = begin_anew(link, stream, &group, last).await?;
        memory.last = Some(progress.last());
        memory.position = None;
        shared.lock().reached(progress.last());
        return Ok((GroupStart::Resumed(progress.last()), progress));
    }
    // What is older than anything unfinished is done with.
    let oldest = answers.get(1).and_then(reply::oldest_pending);
    let done = oldest.map_or(info.delivered, |id| id.predecessor().min(info.delivered));
    // A group at the end of the stream stands at its last number, whatever the server's counter of
    // the group says: a new group has none, and a restart of the server sets it back. What was added
    // to a new one since it was made (a moment ago) is read, not lost, and not counted as read.
    let at_end = || {
        let stream = stream_info?;
        stream.added.filter(|_| stream.last <= info.delivered)
    };
    let remembered = memory.position.filter(|(at, _)| !created && *at == info.delivered);
    let remembered = remembered.map(|(_, position)| position);
    let position = remembered.or_else(at_end).or(info.read);
    if let Some(position) = position.filter(|_| created || info.read != position) {
        let mut set = cmd("XGROUP");
        set.arg("SETID").arg(stream).arg(&group).arg(info.delivered.to_string());
        set.arg("ENTRIESREAD").arg(position);
        // Servers before 7.0 do not know the counter.
        match link.ask("XGROUP SETID", &set).await {
            Err(error) if !error.is_answer() => return Err(error),
            _ => {}
        }
    }
    memory.last = Some(info.delivered);
    shared.lock().reached(done);
    Ok((start, Progress::new(info.delivered, position)))
}

/// How far a group goes back that stands beyond the end of its stream, in milliseconds: as long as
/// it can have taken to notice. More would have an older copy of a long stream read all over again,
/// each of its bans once more.
const WAY_BACK: u64 = 600_000;

/// Has a group that stands beyond the end of its stream, which is at `last`, read the end of it: the
/// stream was made anew, or is an older copy, and what is added to it would be passed over until its
/// ids have caught up.
pub(super) async fn begin_anew(
    link: &mut Link,
    stream: &str,
    group: &str,
    last: StreamId,
) -> Result<Progress, IngestError> {
    let milliseconds = last.milliseconds.saturating_sub(WAY_BACK);
    let from = StreamId { milliseconds, sequence: 0 };
    let mut set = cmd("XGROUP");
    set.arg("SETID").arg(stream).arg(group).arg(from.to_string());
    link.ask("XGROUP SETID", &set).await?;
    Ok(Progress::new(from, None))
}

/// The first error among answers.
pub(super) fn refused(link: &Link, name: &'static str, answer: &Value) -> Option<IngestError> {
    match answer {
        Value::ServerError(error) => Some(link.failed(name, Kind::of(&error.clone().into()))),
        _ => None,
    }
}
