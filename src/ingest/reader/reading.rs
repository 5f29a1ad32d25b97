//! The half of a session that reads.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outstanding::SetAside;
use super::progress::Progress;
use super::session::{MOST_AT_ONCE, Memory, NobodyListens, begin_anew, refused, tell};
use super::{Entry, GapCause, Shared, StreamNews};
use crate::ingest::connection::{LONGEST_REPLY, Link};
use crate::ingest::error::{IngestError, Kind};
use crate::ingest::reply::{self, Fields};
use crate::ingest::{StreamId, StreamOptions};

/// The one consumer of the group.
const CONSUMER: &str = "daemon";

/// A read waits so long at the server. A dead connection is found out after this and the limit on
/// a reply.
const WAIT: Duration = Duration::from_secs(5);

/// The pause between two looks for what others took with them; longer than a read of theirs waits.
const RECOVER: Duration = Duration::from_secs(6);

/// Reads on a connection of its own, since a read that waits holds up whatever comes behind it.
pub(super) struct Reading<'a> {
    link: Link,
    options: &'a StreamOptions,
    group: String,
    shared: &'a Shared,
    news: &'a mpsc::Sender<StreamNews>,
    memory: &'a mut Memory,
    progress: Progress,
    /// When it is looked again for what others took with them.
    recover_at: Instant,
}

/// Why reading ends.
enum Stop {
    Failed(IngestError),
    NobodyListens,
}

impl From<IngestError> for Stop {
    fn from(error: IngestError) -> Self {
        Self::Failed(error)
    }
}

impl From<NobodyListens> for Stop {
    fn from(_: NobodyListens) -> Self {
        Self::NobodyListens
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        link: Link,
        options: &'a StreamOptions,
        shared: &'a Shared,
        news: &'a mpsc::Sender<StreamNews>,
        memory: &'a mut Memory,
        progress: Progress,
    ) -> Self {
        let (group, recover_at) = (options.group(), Instant::now());
        Self { link, options, group, shared, news, memory, progress, recover_at }
    }

    /// First what was delivered and not finished, then what is new, until it fails. Once nobody
    /// listens it only waits, for what was finished is still to be written.
    pub(super) async fn run(mut self) -> IngestError {
        let stop = loop {
            if let Err(stop) = self.read_on().await {
                break stop;
            }
        };
        match stop {
            Stop::Failed(error) => error,
            Stop::NobodyListens => std::future::pending().await,
        }
    }

    /// What is there is read together with a look at the stream; once there is nothing, a read
    /// waits for more.
    async fn read_on(&mut self) -> Result<(), Stop> {
        if Instant::now() >= self.recover_at {
            self.recover().await?;
            self.recover_at = Instant::now() + RECOVER;
        }
        let count = self.room().await;
        if self.catch_up(count).await? == 0 {
            let read = self.read_command(count, Some(WAIT));
            let answer = self.link.ask_for("XREADGROUP", &read, WAIT).await?;
            self.hand_over_new(answer).await?;
        }
        Ok(())
    }

    /// Reads what is there, without waiting. How many entries that was.
    async fn catch_up(&mut self, count: usize) -> Result<usize, Stop> {
        let read = self.read_command(count, None);
        if !self.memory.inspects() {
            let answer = self.link.ask("XREADGROUP", &read).await?;
            return self.hand_over_new(answer).await;
        }
        let mut both = Pipeline::new();
        both.cmd("XINFO").arg("STREAM").arg(&self.options.stream);
        both.add_command(read.clone());
        let answers = match self.link.transact("XREADGROUP", &both).await {
            // It takes no transactions then, and is read all the same.
            Err(IngestError { kind: Kind::OutOfMemory, .. }) => {
                let answer = self.link.ask("XREADGROUP", &read).await?;
                return self.hand_over_new(answer).await;
            }
            answers => answers?.unwrap_or_default(),
        };
        let mut answers = answers.into_iter();
        let (Some(info), Some(entries)) = (answers.next(), answers.next()) else {
            return Err(self.link.unexpected("XREADGROUP", "two answers").into());
        };
        if let Some(error) = refused(&self.link, "XREADGROUP", &entries) {
            return Err(error.into());
        }
        let info = reply::stream_info(&info)
            .ok_or_else(|| self.link.unexpected("XINFO STREAM", "a stream"))?;
        self.memory.inspected();
        if info.last < self.progress.last() {
            let cause = GapCause::WentBack;
            tell(self.news, StreamNews::Gap { lost: None, cause }).await?;
            let stream = &self.options.stream;
            self.progress = begin_anew(&mut self.link, stream, &self.group, info.last).await?;
        }
        let loss = self.progress.check(&info);
        if let Some(lost) = loss {
            let lost = Some(lost);
            tell(self.news, StreamNews::Gap { lost, cause: GapCause::Trimmed }).await?;
        }
        let read = self.hand_over_new(entries).await?;
        if loss.is_some()
            && let Some((at, position)) = self.progress.standing()
        {
            self.correct(at, position).await?;
        }
        Ok(read)
    }

    /// Sets the server's own counter right, for the next start.
    async fn correct(&mut self, at: StreamId, position: u64) -> Result<(), Stop> {
        let mut set = cmd("XGROUP");
        set.arg("SETID").arg(&self.options.stream).arg(&self.group).arg(at.to_string());
        set.arg("ENTRIESREAD").arg(position);
        match self.link.ask("XGROUP SETID", &set).await {
            Err(error) if !error.is_answer() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Hands over what was delivered before and is not in the hands of the program: all of it
    /// after a start, what the last connection took with it otherwise. That may be seen late: what
    /// it waited with at the server is given away there until the server knows that it is gone.
    async fn recover(&mut self) -> Result<(), Stop> {
        let mut from = StreamId::ZERO;
        loop {
            // Looked at before the question: what is finished between question and answer is
            // no news.
            let known = self.shared.lock().ids();
            let mut ask = cmd("XPENDING");
            ask.arg(&self.options.stream).arg(&self.group).arg(from.to_string()).arg("+");
            ask.arg(MOST_AT_ONCE);
            let answer = self.link.ask("XPENDING", &ask).await?;
            let page = reply::pending(&answer)
                .ok_or_else(|| self.link.unexpected("XPENDING", "a list of entries"))?;
            let Some(last) = page.last() else {
                self.shared.lock().reached(self.progress.last());
                return Ok(());
            };
            from = last.id.successor();
            let mut wanted = Vec::with_capacity(page.len());
            for line in page {
                if known.contains(&line.id) {
                    continue;
                }
                if self.memory.suspect == Some(line.id) {
                    self.memory.suspect = None;
                    self.oversize(line.id, None).await?;
                } else {
                    wanted.push(line);
                }
            }
            while !wanted.is_empty() {
                let count = self.room().await.min(wanted.len());
                self.claim(wanted.drain(..count).collect()).await?;
            }
        }
    }

    /// Takes unfinished entries once more, which counts as a delivery (XCLAIM).
    async fn claim(&mut self, wanted: Vec<reply::Pending>) -> Result<(), Stop> {
        if wanted.is_empty() {
            return Ok(());
        }
        if let [only] = wanted.as_slice() {
            self.memory.suspect = Some(only.id);
        }
        let mut claim = cmd("XCLAIM");
        claim.arg(&self.options.stream).arg(&self.group).arg(CONSUMER).arg(0);
        for line in &wanted {
            claim.arg(line.id.to_string());
        }
        let answer = self.link.ask("XCLAIM", &claim).await?;
        self.memory.suspect = None;
        let entries = reply::entries(answer)
            .ok_or_else(|| self.link.unexpected("XCLAIM", "a list of entries"))?;
        let mut gone: Vec<StreamId> = wanted.iter().map(|line| line.id).collect();
        for (id, fields) in entries {
            if let Some(fields) = fields {
                gone.retain(|other| *other != id);
                let before = wanted.iter().find(|line| line.id == id);
                let attempts = before.map_or(1, |line| line.deliveries.saturating_add(1));
                self.hand_over(id, fields, attempts).await?;
            }
        }
        if !gone.is_empty() {
            // Redis 7.0 has taken them off the list by now; older ones are asked to.
            let mut forget = cmd("XACK");
            forget.arg(&self.options.stream).arg(&self.group);
            for id in &gone {
                forget.arg(id.to_string());
            }
            self.link.ask("XACK", &forget).await?;
            let lost = u64::try_from(gone.len()).ok();
            let cause = GapCause::TrimmedUnfinished;
            tell(self.news, StreamNews::Gap { lost, cause }).await?;
        }
        Ok(())
    }

    /// Hands over what XREADGROUP answered. How many entries that was.
    async fn hand_over_new(&mut self, answer: Value) -> Result<usize, Stop> {
        let entries = reply::read(answer)
            .ok_or_else(|| self.link.unexpected("XREADGROUP", "a list of entries"))?;
        self.progress.read(entries.iter().map(|(id, _)| *id));
        self.memory.last = Some(self.progress.last());
        self.memory.position = self.progress.standing();
        let count = entries.len();
        // Entries are like those before them, as a rule: as many as make an answer of a quarter of
        // what is allowed.
        let bytes: usize = entries.iter().filter_map(|(_, f)| f.as_ref().map(reply::size)).sum();
        if let Some(mean) = bytes.checked_div(count) {
            let fitting = (LONGEST_REPLY / 4).checked_div(mean).unwrap_or(MOST_AT_ONCE);
            self.memory.at_once = (self.memory.at_once * 2).min(fitting).clamp(1, MOST_AT_ONCE);
        }
        for (id, fields) in entries {
            self.hand_over(id, fields.unwrap_or_default(), 1).await?;
        }
        self.shared.lock().reached(self.progress.last());
        Ok(count)
    }

    async fn hand_over(&mut self, id: StreamId, fields: Fields, attempts: u64) -> Result<(), Stop> {
        let bytes = reply::size(&fields);
        if bytes > self.options.entry_limit {
            drop(fields);
            return self.oversize(id, Some(bytes)).await;
        }
        // In the hands of the program already: the server has gone back to an older copy.
        if self.shared.lock().add(id, bytes) {
            tell(self.news, StreamNews::Entry(Entry { id, fields, attempts })).await?;
        }
        Ok(())
    }

    /// An entry that is too long is set aside without anybody's doing, and without its fields.
    async fn oversize(&mut self, id: StreamId, bytes: Option<usize>) -> Result<(), Stop> {
        let limit = self.options.entry_limit;
        let size = bytes.map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string());
        let reason = format!("{size} bytes of fields, at most {limit} are taken");
        let aside = SetAside { reason, with_fields: false };
        let new = {
            let mut outstanding = self.shared.lock();
            outstanding.add(id, 0) && outstanding.put_aside(id, aside)
        };
        if new {
            self.shared.work.notify_one();
            tell(self.news, StreamNews::Oversize { id, bytes }).await?;
        }
        Ok(())
    }

    /// How many entries may be read at once; waits until there is room for one.
    async fn room(&self) -> usize {
        loop {
            let room = self.shared.lock().room();
            if room > 0 {
                return room.min(self.memory.at_once);
            }
            self.shared.room.notified().await;
        }
    }

    fn read_command(&self, count: usize, wait: Option<Duration>) -> Cmd {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(CONSUMER).arg("COUNT").arg(count);
        if let Some(wait) = wait {
            read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        read.arg("STREAMS").arg(&self.options.stream).arg(">");
        read
    }
}
