//! Many commands in order.

use std::collections::VecDeque;
use std::fmt;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::task::{Answer, Asker, BatchAsker, Job};
use super::{AdminError, Client, Kind, Stage};
use crate::protocol::{Command, Reply, Verb};

/// Commands on their way, from [`Client::batch`]: their replies come in the order of the commands,
/// one for each.
///
/// Up to twice the client's window is taken from the stream ahead of the replies, so that the
/// connection always has something to do. When the connection is lost, the commands that were
/// written fail with [`Outcome::Unknown`](super::Outcome::Unknown), and the ones after them go to
/// the next connection.
///
/// ```no_run
/// use futures_util::stream;
/// use purgewatch::admin::{AdminError, Client};
/// use purgewatch::protocol::Command;
///
/// # async fn example(client: &Client, commands: Vec<Command>) -> Result<(), AdminError> {
/// let mut batch = client.batch(stream::iter(commands));
/// while let Some(result) = batch.next().await {
///     result?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Batch<S> {
    client: Client,
    commands: S,
    /// Taken from the stream and not yet queued.
    held: Option<Command>,
    ended: bool,
    waiting: VecDeque<Verb>,
    most: usize,
    /// A reply that is being looked into.
    judging: Option<(Verb, Reply)>,
    asker: mpsc::Sender<Answer>,
    replies: mpsc::Receiver<Answer>,
}

impl<S> Batch<S>
where
    S: Stream<Item = Command> + Unpin,
{
    pub(super) fn new(client: Client, commands: S) -> Self {
        let most = 2 * client.options().window;
        let (asker, replies) = mpsc::channel(most);
        let waiting = VecDeque::with_capacity(most.min(1_024));
        let (held, judging) = (None, None);
        Self { client, commands, held, ended: false, waiting, most, judging, asker, replies }
    }

    /// The result of the next command; `None` after the last one. A status other than 200 and 201
    /// is an error, as in [`Client::run`].
    ///
    /// Cancellation safe: no command is lost or sent twice, and no result is skipped.
    ///
    /// # Errors
    /// [`AdminError`] for that command; the batch goes on with the ones after it.
    pub async fn next(&mut self) -> Option<Result<Reply, AdminError>> {
        if self.judging.is_none() {
            let (verb, result) = self.next_answer().await?;
            match result {
                Ok(reply) if reply.is_success() => return Some(Ok(reply)),
                Ok(reply) => self.judging = Some((verb, reply)),
                Err(error) => return Some(Err(error)),
            }
        }
        let (verb, reply) = self.judging.as_ref()?;
        let result = self.client.judge(verb, reply.clone()).await;
        self.judging = None;
        Some(result)
    }

    /// The reply to the next command, whatever its status; `None` after the last one.
    ///
    /// Cancellation safe, as [`next`](Self::next) is.
    ///
    /// # Errors
    /// [`AdminError`] when there is no reply, or none that can be the command's.
    pub async fn next_reply(&mut self) -> Option<Result<Reply, AdminError>> {
        Some(self.next_answer().await?.1)
    }

    /// Gives up after an error: the errors of the commands after that one, in order, for those
    /// that were on their way. The rest of the commands taken from the stream is not sent.
    ///
    /// A reply that came in the meantime is thrown away, and its command counts as unsent: after
    /// an error of the connection there is none.
    #[must_use]
    pub fn abandon(mut self) -> Vec<AdminError> {
        let mut errors = Vec::new();
        while let Ok(Some(Err(error))) = self.replies.try_recv() {
            errors.push(error);
        }
        errors
    }

    /// How many commands were queued and have no result yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    async fn next_answer(&mut self) -> Option<(Verb, Result<Reply, AdminError>)> {
        loop {
            if let Err(failed) = self.fill().await {
                return Some(failed);
            }
            if self.ended && self.waiting.is_empty() {
                return None;
            }
            let wants_more = !self.ended && self.held.is_none() && self.waiting.len() < self.most;
            tokio::select! {
                biased;
                result = self.replies.recv(), if !self.waiting.is_empty() => {
                    let verb = self.waiting.pop_front()?;
                    let stopped = || Err(self.client.error(Stage::Command(verb.clone()), Kind::Stopped));
                    let result = result.flatten().unwrap_or_else(stopped);
                    return Some((verb, result));
                }
                command = self.commands.next(), if wants_more => match command {
                    Some(command) => self.held = Some(command),
                    None => self.ended = true,
                },
            }
        }
    }

    /// Queues as many commands as there are and as fit.
    async fn fill(&mut self) -> Result<(), (Verb, Result<Reply, AdminError>)> {
        while self.waiting.len() < self.most {
            if self.held.is_none() && !self.ended {
                match self.commands.next().now_or_never() {
                    Some(Some(command)) => self.held = Some(command),
                    Some(None) => self.ended = true,
                    None => {}
                }
            }
            let Some(verb) = self.held.as_ref().map(|command| command.verb().clone()) else {
                return Ok(());
            };
            let place = match self.client.free_place() {
                Some(place) => place,
                // Others have filled the queue. With replies to come, those come first.
                None if !self.waiting.is_empty() => return Ok(()),
                None => match self.client.place(&Stage::Command(verb.clone())).await {
                    Ok(place) => place,
                    Err(error) => {
                        self.held = None;
                        return Err((verb, Err(error)));
                    }
                },
            };
            if let Some(command) = self.held.take() {
                place
                    .send(Job::Command(command, Asker::Batch(BatchAsker::new(self.asker.clone()))));
                self.waiting.push_back(verb);
            }
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Batch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("client", &self.client)
            .field("in_flight", &self.waiting.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
