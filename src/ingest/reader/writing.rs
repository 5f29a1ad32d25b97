//! The half of a session that writes: acknowledgements, answers, what is set aside, and that we
//! are here.

use std::time::Duration;

use redis::{Pipeline, Value, cmd};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::outstanding::SetAside;
use super::session::{End, refused};
use super::{Shared, StreamNews};
use crate::ingest::connection::Link;
use crate::ingest::error::IngestError;
use crate::ingest::follower::Follower;
use crate::ingest::lease::{self, Holder};
use crate::ingest::{StreamId, StreamOptions, reply};

/// The stream of replies is kept to about so many.
const MOST_REPLIES: usize = 10_000;

/// The stream of what was set aside is kept to about so many.
const MOST_ASIDE: usize = 1_000;

/// The pause between two notes that this host follows the stream.
const ANNOUNCE: Duration = Duration::from_secs(10);

/// Writes on a connection of its own.
pub(super) struct Writing<'a> {
    link: Link,
    options: &'a StreamOptions,
    shared: &'a Shared,
    news: &'a mpsc::Sender<StreamNews>,
    lease_at: Instant,
    announce_at: Instant,
    /// Answers are held back until then: the server had no room for them.
    answers_at: Instant,
}

impl<'a> Writing<'a> {
    /// On a connection that has just got the lease.
    pub(super) fn new(
        link: Link,
        options: &'a StreamOptions,
        shared: &'a Shared,
        news: &'a mpsc::Sender<StreamNews>,
    ) -> Self {
        let now = Instant::now();
        let lease_at = now + options.lease / 3;
        Self { link, options, shared, news, lease_at, announce_at: now, answers_at: now }
    }

    /// Writes whatever there is, as it comes, until the lease is another's or the reader is
    /// stopped and all is written.
    pub(super) async fn run(mut self) -> Result<End, IngestError> {
        loop {
            while self.write().await? {}
            if self.shared.is_stopping() && self.shared.lock().is_written() {
                lease::release(&mut self.link, self.options).await?;
                return Ok(End::Stopped);
            }
            let now = Instant::now();
            if now >= self.lease_at {
                self.lease_at = now + self.options.lease / 3;
                if let Holder::Other(name) = self.renew().await? {
                    return Ok(End::OtherInstance(name));
                }
                self.shared.lock().resume();
                continue;
            }
            if now >= self.announce_at {
                self.announce().await?;
            }
            tokio::select! {
                () = self.shared.work.notified() => {}
                () = sleep_until(self.lease_at.min(self.announce_at)) => {}
            }
        }
    }

    async fn renew(&mut self) -> Result<Holder, IngestError> {
        lease::renew(&mut self.link, self.options, true).await
    }

    /// Notes beside the stream that this host follows it.
    pub(super) async fn announce(&mut self) -> Result<(), IngestError> {
        self.announce_at = Instant::now() + ANNOUNCE;
        let clock = self.options.clock;
        let note = Follower {
            name: self.options.name.clone(),
            nodes: self.options.nodes.clone(),
            seen: clock.now().shifted(clock.wall_offset()),
            version: self.options.version.clone(),
        };
        let mut set = cmd("HSET");
        set.arg(Follower::key(&self.options.stream)).arg(&note.name).arg(note.to_note());
        let answer = self.link.ask("HSET", &set).await;
        self.unless_refused(answer).map(drop)
    }

    /// Writes one batch of each kind. Whether there was any.
    async fn write(&mut self) -> Result<bool, IngestError> {
        let (answers, finished, aside) = {
            let outstanding = self.shared.lock();
            let (answers, finished) = match Instant::now() >= self.answers_at {
                true => (outstanding.next_answers(), outstanding.next_finished()),
                false => (Vec::new(), outstanding.first_finished()),
            };
            (answers, finished, outstanding.next_aside())
        };
        if let Some((id, aside)) = &aside {
            self.set_aside(*id, aside).await?;
        }
        if answers.is_empty() && finished.is_empty() {
            return Ok(aside.is_some());
        }
        let mut batch = Pipeline::new();
        for answer in &answers {
            batch.cmd("XADD").arg(&self.options.replies).arg("MAXLEN").arg("~").arg(MOST_REPLIES);
            batch.arg("*").arg("confirmation").arg(answer.as_slice());
        }
        if !finished.is_empty() {
            batch.cmd("XACK").arg(&self.options.stream).arg(self.options.group());
            for id in &finished {
                batch.arg(id.to_string());
            }
        }
        let results = self.link.ask_all("XACK", &batch).await?;
        let (added, acknowledged) = results.split_at(answers.len().min(results.len()));
        match added.iter().find_map(|answer| refused(&self.link, "XADD", answer)) {
            None => self.shared.lock().answered(answers.len()),
            // They are kept and written later, some of them twice.
            Some(error) if error.may_pass() => {
                self.answers_at = Instant::now() + self.options.lease / 3;
                self.tell_refused(error);
            }
            // They would be refused again, and must not hold up what comes behind them.
            Some(error) => {
                self.shared.lock().answered(answers.len());
                self.tell_refused(error);
            }
        }
        if let Some(error) = acknowledged.iter().find_map(|a| refused(&self.link, "XACK", a)) {
            return Err(error);
        }
        self.forget(&finished);
        Ok(true)
    }

    /// Copies an entry and acknowledges it, both or neither.
    async fn set_aside(&mut self, id: StreamId, aside: &SetAside) -> Result<(), IngestError> {
        let (stream, group, text) = (&self.options.stream, self.options.group(), id.to_string());
        // A connection may have been lost after this was done and before that was known.
        let mut still = cmd("XPENDING");
        still.arg(stream).arg(&group).arg(&text).arg(&text).arg(1);
        let answer = self.link.ask("XPENDING", &still).await?;
        if reply::pending(&answer).is_some_and(|lines| lines.is_empty()) {
            self.forget(&[id]);
            return Ok(());
        }
        let mut fields = Vec::new();
        if aside.with_fields {
            let mut range = cmd("XRANGE");
            range.arg(stream).arg(&text).arg(&text);
            let answer = self.link.ask("XRANGE", &range).await?;
            // What was trimmed meanwhile is set aside without its fields.
            fields = reply::entries(answer)
                .and_then(|entries| entries.into_iter().next())
                .and_then(|(_, fields)| fields)
                .unwrap_or_default();
        }
        let mut both = Pipeline::new();
        let key = self.options.set_aside_key();
        both.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(MOST_ASIDE).arg("*");
        both.arg("set-aside-id").arg(&text);
        both.arg("set-aside-by").arg(&self.options.name);
        both.arg("set-aside-reason").arg(&aside.reason);
        for (name, value) in &fields {
            both.arg(name.as_slice()).arg(value.as_slice());
        }
        both.cmd("XACK").arg(stream).arg(&group).arg(&text);
        let answer = self.link.transact("XADD", &both).await;
        match answer {
            Ok(results) => {
                let results = results.unwrap_or_default();
                if let Some(error) = results.iter().find_map(|a| refused(&self.link, "XADD", a)) {
                    self.tell_refused(error);
                }
            }
            // The copy cannot be made (no memory, no permission): the entry stays unfinished,
            // takes up its room, and is tried again with the next lease.
            Err(error) if error.is_answer() => {
                self.tell_refused(error);
                self.shared.lock().postpone(id);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.forget(&[id]);
        Ok(())
    }

    fn forget(&self, ids: &[StreamId]) {
        self.shared.lock().forget(ids);
        self.shared.room.notify_one();
    }

    fn unless_refused(
        &self,
        answer: Result<Value, IngestError>,
    ) -> Result<Option<Value>, IngestError> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_answer() => {
                self.tell_refused(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Says it if there is room to: writing must not wait for whoever reads the news.
    fn tell_refused(&self, error: IngestError) {
        let _ = self.news.try_send(StreamNews::Refused(error));
    }
}
