//! The handle, one command at a time.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::task::{Asker, Job, Progress, Source, Task};
use super::{AdminError, Batch, Greeting, Kind, Options, Stage, Target};
use crate::model::NodeName;
use crate::protocol::{Command, Excerpt, Reply, Status, Verb};

/// The widest window: wider ones gain nothing, and each place in it takes memory.
const WIDEST: usize = 16_384;

/// A handle to one admin port.
///
/// Cheap to clone; all clones share one connection, which is made when the first command needs it
/// and again after it was lost, with growing pauses after failures. The task behind it ends, and
/// the connection with it, when the last handle is dropped.
///
/// Every method is cancellation safe. A command whose caller has gone before it was written is not
/// sent; if it was, its reply is read and thrown away, and no other caller gets it.
///
/// ```no_run
/// use purgewatch::admin::{Client, Options, SecretSource, Target};
/// use purgewatch::model::NodeName;
/// use purgewatch::protocol::Command;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = SecretSource::File("/etc/varnish/secret".into());
/// let target = Target::at(NodeName::new("cache-01")?, "127.0.0.1:6082".parse()?, secret);
/// let client = Client::new(target, Options::default());
/// client.ban(Command::ban(["obj.http.x-url", "~", "^/products/"])?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// In place of `Options::reply`.
    patience: Option<Duration>,
}

struct Shared {
    node: NodeName,
    options: Options,
    jobs: mpsc::Sender<Job>,
    progress: Progress,
    not_started: Mutex<Option<Task>>,
    task: OnceLock<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Client {
    /// A handle to `target`. Nothing is opened, read or started yet.
    #[must_use]
    pub fn new(target: Target, options: Options) -> Self {
        Self::with(Source::Dial, target, options)
    }

    /// A handle that uses `stream`, on which varnishd greets next: a connection that varnishd
    /// made (`varnishd -M`), or one in memory. When it ends, every command fails.
    #[must_use]
    pub fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        target: Target,
        options: Options,
    ) -> Self {
        Self::with(Source::Given(Some(Box::new(stream))), target, options)
    }

    fn with(source: Source, target: Target, mut options: Options) -> Self {
        options.window = options.window.clamp(1, WIDEST);
        let (jobs, queue) = mpsc::channel(2 * options.window);
        let (node, progress) = (target.node.clone(), Progress::default());
        let task = Task::new(source, target, options.clone(), queue, progress.clone());
        let not_started = Mutex::new(Some(task));
        let task = OnceLock::new();
        let shared = Shared { node, options, jobs, progress, not_started, task };
        Self { shared: Arc::new(shared), patience: None }
    }

    /// Another handle to the same connection, whose commands may take `limit` where others may take
    /// [`Options::reply`], for a VCL that takes a minute to compile. [`Options::deadline`] bounds
    /// them all the same. Batches do without it.
    ///
    /// varnishd answers one command after the other: while it is at such a command, those of other
    /// handles to this connection wait as long. Ask a second [`Client::new`] for what cannot.
    #[must_use]
    pub fn patient(&self, limit: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), patience: Some(limit) }
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.shared.node
    }

    /// The limits.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Connects and authenticates now, unless that is done already; says how it went.
    ///
    /// # Errors
    /// [`AdminError`] with the step that failed.
    pub async fn connect(&self) -> Result<Greeting, AdminError> {
        self.within_deadline(Stage::Connect, async {
            let (asker, answer) = oneshot::channel();
            self.enqueue(Job::Connect(asker), Stage::Connect).await?;
            answer.await.unwrap_or_else(|_| Err(self.error(Stage::Connect, Kind::Stopped)))
        })
        .await
    }

    /// Sends one command and returns its reply, whatever its status.
    ///
    /// # Errors
    /// [`AdminError`] when there is no reply, or none that can be the command's.
    pub async fn request(&self, command: Command) -> Result<Reply, AdminError> {
        let stage = Stage::Command(command.verb().clone());
        self.within_deadline(stage.clone(), self.exchange(command, stage)).await
    }

    /// Sends one command that has to succeed: status 200, or 201, which only says that the body
    /// was cut.
    ///
    /// # Errors
    /// [`AdminError`]; one whose kind is [`Kind::Rejected`], [`Kind::ChildNotRunning`] or
    /// [`Kind::ChildLost`] when varnishd answered with any other status.
    pub async fn run(&self, command: Command) -> Result<Reply, AdminError> {
        let (verb, stage) = (command.verb().clone(), Stage::Command(command.verb().clone()));
        self.within_deadline(stage.clone(), async {
            let reply = self.exchange(command, stage).await?;
            self.judge(&verb, reply).await
        })
        .await
    }

    /// Sends one ban, made by [`Command::ban`]. `Ok` means that the ban is on the node's list, and
    /// that no lookup from now on finds an object that it matches.
    ///
    /// # Errors
    /// [`AdminError`]; [`AdminError::outcome`] says whether the ban may be on the list all the
    /// same. [`Kind::ForeignReply`] for a reply that is not a ban's, whatever its status says.
    pub async fn ban(&self, ban: Command) -> Result<(), AdminError> {
        self.run(ban).await.map(drop)
    }

    /// Asks whether the node is there. The manager answers, also without a cache process.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn ping(&self) -> Result<(), AdminError> {
        self.run(Command::ping()).await.map(drop)
    }

    /// What is being done or waited for right now; `None` while there is nothing to do. For whoever
    /// gives up waiting and wants to say at which step.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.shared.progress.stage()
    }

    /// Whether there ever was a connection that commands could go out on. While there was none, no
    /// command can have been carried out.
    #[must_use]
    pub fn has_connected(&self) -> bool {
        self.shared.progress.has_arrived()
    }

    /// Sends many commands in order, several at a time, and returns their replies in the same
    /// order.
    #[must_use]
    pub fn batch<S>(&self, commands: S) -> Batch<S>
    where
        S: Stream<Item = Command> + Unpin,
    {
        Batch::new(self.clone(), commands)
    }

    /// Takes a reply to `verb` for success, or says what it means otherwise.
    ///
    /// varnishd answers 101 both to a command that does not exist and to one that needs the cache
    /// process while that is not running; a `status` in between tells them apart.
    ///
    /// # Errors
    /// [`AdminError`] for every status but 200 and 201.
    pub(super) async fn judge(&self, verb: &Verb, reply: Reply) -> Result<Reply, AdminError> {
        let kind = match reply.status {
            status if status.is_success() => return Ok(reply),
            Status::COMMS => Kind::ChildLost { body: reply.body },
            Status::UNKNOWN => self.unknown(verb, reply).await,
            status => Kind::Rejected { status, body: reply.body },
        };
        Err(self.error(Stage::Command(verb.clone()), kind))
    }

    async fn unknown(&self, verb: &Verb, reply: Reply) -> Kind {
        let stage = Stage::Command(Verb::STATUS);
        let state = match self.exchange(Command::status(), stage).await {
            Ok(status) if status.is_success() => {
                let words = status.body.strip_prefix(b"Child in state ").unwrap_or(&status.body);
                let state = words.trim_ascii();
                if state == b"running" && !is_known(verb) {
                    return Kind::Rejected { status: reply.status, body: reply.body };
                }
                Some(Excerpt::new(state, 40).lines().to_string())
            }
            Ok(_) | Err(_) if is_known(verb) => None,
            Ok(_) | Err(_) => {
                return Kind::Rejected { status: reply.status, body: reply.body };
            }
        };
        Kind::ChildNotRunning { state }
    }

    async fn exchange(&self, command: Command, stage: Stage) -> Result<Reply, AdminError> {
        let (asker, answer) = oneshot::channel();
        let asker = match self.patience {
            None => Asker::One(asker),
            Some(limit) => Asker::Patient(asker, limit),
        };
        self.enqueue(Job::Command(command, asker), stage.clone()).await?;
        answer.await.unwrap_or_else(|_| Err(self.error(stage, Kind::Stopped)))
    }

    async fn enqueue(&self, job: Job, stage: Stage) -> Result<(), AdminError> {
        let place = self.place(&stage).await?;
        place.send(job);
        Ok(())
    }

    /// A place in the queue, waited for no longer than for a reply.
    pub(super) async fn place(&self, stage: &Stage) -> Result<mpsc::Permit<'_, Job>, AdminError> {
        if let Some(place) = self.free_place() {
            return Ok(place);
        }
        let limit = self.patience.unwrap_or(self.shared.options.reply);
        match timeout(limit, self.shared.jobs.reserve()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.error(stage.clone(), Kind::Stopped)),
            Err(_) => Err(self.error(stage.clone(), Kind::Waiting { limit })),
        }
    }

    /// A place in the queue, if one is free.
    pub(super) fn free_place(&self) -> Option<mpsc::Permit<'_, Job>> {
        self.start();
        self.shared.jobs.try_reserve().ok()
    }

    /// Starts the task, once.
    fn start(&self) {
        if self.shared.task.get().is_some() {
            return;
        }
        let mut not_started =
            self.shared.not_started.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(runtime), Some(task)) = (Handle::try_current(), not_started.take()) {
            let _ = self.shared.task.set(runtime.spawn(task.run()).abort_handle());
        }
    }

    async fn within_deadline<T>(
        &self,
        stage: Stage,
        work: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, AdminError> {
        let Some(limit) = self.shared.options.deadline else { return work.await };
        timeout(limit, work).await.unwrap_or_else(|_| {
            let stage = self.shared.progress.stage().unwrap_or(stage);
            Err(self.error(stage, Kind::Deadline { limit }))
        })
    }

    pub(super) fn error(&self, stage: Stage, kind: Kind) -> AdminError {
        AdminError { node: self.shared.node.clone(), stage, kind }
    }
}

/// Commands that every version has once a session is authenticated: for them, 101 can only mean
/// that the cache process was not there.
fn is_known(verb: &Verb) -> bool {
    [Verb::BAN, Verb::BAN_LIST].contains(verb)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
