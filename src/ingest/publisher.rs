//! Adding an entry to a stream, and what the hosts answer.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::connection::{Link, Purpose};
use super::error::{IngestError, Kind};
use super::{Follower, RedisOptions, StreamId, reply};
use crate::clock::random_seed;

/// So many answers are read at once at most.
const MOST_AT_ONCE: usize = 64;

/// No read waits longer at the server, so that a dead connection is found out.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A connection to publish on.
pub struct Publisher {
    redis: RedisOptions,
    link: Option<Link>,
    at_once: usize,
}

/// A place in a stream of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(StreamId);

impl Publisher {
    /// Connects, once.
    ///
    /// # Errors
    /// [`IngestError`] with the step that failed.
    pub async fn connect(redis: RedisOptions) -> Result<Self, IngestError> {
        let link = Link::open(&redis, Purpose::Keys).await?;
        Ok(Self { redis, link: Some(link), at_once: MOST_AT_ONCE })
    }

    /// The end of the stream of replies as it is now. To be taken before
    /// [`publish`](Self::publish), so that no answer is missed.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn position(&mut self, replies: &str) -> Result<Position, IngestError> {
        let mut last = cmd("XREVRANGE");
        last.arg(replies).arg("+").arg("-").arg("COUNT").arg(1);
        let link = self.link().await?;
        let answer = link.ask("XREVRANGE", &last).await;
        let answer = match self.kept(answer) {
            // An id is the time, as a rule: what is answered from now on is behind it.
            Err(error) if matches!(error.kind, Kind::TooLong { .. }) => {
                let link = self.link().await?;
                let time = link.ask("TIME", &cmd("TIME")).await;
                let unexpected = link.unexpected("TIME", "a time");
                return reply::time(&self.kept(time)?).map(Position).ok_or(unexpected);
            }
            answer => answer?,
        };
        let entries = reply::entries(answer).unwrap_or_default();
        Ok(Position(entries.first().map_or(StreamId::ZERO, |(id, _)| *id)))
    }

    /// Adds an entry to a stream, which is kept to about `most` entries.
    ///
    /// # Errors
    /// [`IngestError`]. After one that is no refusal of the server's nobody knows whether the entry
    /// is there; it is not sent again by itself.
    pub async fn publish(
        &mut self,
        stream: &str,
        fields: &[(&[u8], &[u8])],
        most: u64,
    ) -> Result<StreamId, IngestError> {
        let mut add = cmd("XADD");
        add.arg(stream).arg("MAXLEN").arg("~").arg(most).arg("*");
        for (name, value) in fields {
            add.arg(*name).arg(*value);
        }
        let link = self.link().await?;
        let answer = link.ask("XADD", &add).await;
        let unexpected = link.unexpected("XADD", "an id");
        reply::id(&self.kept(answer)?).ok_or(unexpected)
    }

    /// Who follows a stream, or did and was not [forgotten](Self::forget). A note that this program
    /// did not write is left out.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn followers(&mut self, stream: &str) -> Result<Vec<Follower>, IngestError> {
        let mut all = cmd("HGETALL");
        all.arg(Follower::key(stream));
        let link = self.link().await?;
        let answer = link.ask("HGETALL", &all).await;
        let note = |name: &Value, value: &Value| {
            Follower::from_note(reply::bytes(name)?, reply::bytes(value)?)
        };
        let mut followers: Vec<Follower> = match &self.kept(answer)? {
            Value::Map(pairs) => pairs.iter().filter_map(|(n, v)| note(n, v)).collect(),
            _ => Vec::new(),
        };
        followers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(followers)
    }

    /// Takes a host that is no more off the list of followers. Whether it was on it.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn forget(&mut self, stream: &str, name: &str) -> Result<bool, IngestError> {
        let mut delete = cmd("HDEL");
        delete.arg(Follower::key(stream)).arg(name);
        let link = self.link().await?;
        let answer = link.ask("HDEL", &delete).await;
        Ok(matches!(self.kept(answer)?, Value::Int(deleted) if deleted > 0))
    }

    /// Waits for answers behind `after`, which moves along; none when `limit` ran out. A lost
    /// connection is made again within the limit, and no answer is missed by that.
    ///
    /// Cancellation safe: what was not returned is read again.
    ///
    /// # Errors
    /// [`IngestError`] when the server refuses to be read, or the limit ran out without a
    /// connection.
    pub async fn confirmations(
        &mut self,
        replies: &str,
        after: &mut Position,
        limit: Duration,
    ) -> Result<Vec<Vec<u8>>, IngestError> {
        let deadline = Instant::now() + limit;
        let mut backoff = Backoff::new(random_seed());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.read(replies, after, left.min(LONGEST_WAIT)).await {
                Ok(answers) if answers.is_empty() && !left.is_zero() => {}
                Ok(answers) => return Ok(answers),
                Err(error) if matches!(error.kind, Kind::TooLong { .. }) && self.at_once > 1 => {
                    self.at_once = (self.at_once / 4).max(1);
                }
                Err(error) if !error.may_pass() || left.is_zero() => return Err(error),
                Err(_) => sleep(backoff.failed().min(left)).await,
            }
        }
    }

    async fn read(
        &mut self,
        replies: &str,
        after: &mut Position,
        wait: Duration,
    ) -> Result<Vec<Vec<u8>>, IngestError> {
        // A wait of zero would be one without an end (redis.io, XREAD).
        let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(self.at_once).arg("BLOCK").arg(milliseconds);
        read.arg("STREAMS").arg(replies).arg(after.0.to_string());
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.redis, Purpose::Keys).await?,
        };
        let answer = link.ask_for("XREAD", &read, wait).await;
        let entries = match answer {
            Ok(answer) => reply::read(answer),
            Err(error) => {
                if error.is_answer() {
                    self.link = Some(link);
                }
                return Err(error);
            }
        };
        let entries = entries.ok_or_else(|| link.unexpected("XREAD", "a list of entries"))?;
        // Put back only now: a connection that was left in the middle of a read is closed.
        self.link = Some(link);
        if let Some((last, _)) = entries.last() {
            after.0 = *last;
        }
        let named = |(name, value): (Vec<u8>, Vec<u8>)| (name == b"confirmation").then_some(value);
        let fields = entries.into_iter().filter_map(|(_, fields)| fields).flatten();
        Ok(fields.filter_map(named).collect())
    }

    async fn link(&mut self) -> Result<&mut Link, IngestError> {
        let link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.redis, Purpose::Keys).await?,
        };
        Ok(self.link.insert(link))
    }

    /// Drops the connection after an error that leaves it unusable.
    fn kept(&mut self, answer: Result<Value, IngestError>) -> Result<Value, IngestError> {
        if answer.as_ref().is_err_and(|error| !error.is_answer()) {
            self.link = None;
        }
        answer
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("address", &self.redis.address).finish_non_exhaustive()
    }
}
