//! Sends the bans to every node at once, and keeps count of what became of each.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, sleep, timeout_at};

use super::super::Exit;
use super::input::{Bans, Refused};
use crate::admin::{AdminError, Client, Fault, Kind, Options, Outcome, Retry, Stage, Target};
use crate::ban::ServerVersion;
use crate::clock::random_seed;
use crate::model::{HostPort, NodeName};
use crate::protocol::Verb;

/// Nodes that are served at a time.
const NODES_AT_A_TIME: usize = 64;

/// The pause before the first retry; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Limits of the whole command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long it may take.
    pub(super) total: Duration,
    /// How often what can be tried again is.
    pub(super) retries: u32,
}

/// What became of the bans.
#[derive(Debug)]
pub(super) struct Sent {
    /// In the order of the nodes.
    pub(super) nodes: Vec<NodeResult>,
    pub(super) interrupted: bool,
}

/// What became of the bans at one node.
#[derive(Debug, Clone)]
pub(super) struct NodeResult {
    pub(super) node: NodeName,
    pub(super) address: HostPort,
    /// The server's version, once it is known.
    pub(super) version: Option<String>,
    /// For each ban: taken, or why not; `None` where there is no answer yet.
    pub(super) bans: Vec<Option<Result<(), AdminError>>>,
    /// Bans that this server does not know.
    pub(super) refused: Arc<Vec<Refused>>,
}

impl NodeResult {
    pub(super) fn taken(&self) -> usize {
        self.bans.iter().filter(|ban| matches!(ban, Some(Ok(())))).count()
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (usize, &AdminError)> {
        self.bans.iter().enumerate().filter_map(|(at, ban)| match ban {
            Some(Err(error)) => Some((at, error)),
            _ => None,
        })
    }

    /// The status of this node alone.
    pub(super) fn exit(&self) -> Exit {
        if !self.refused.is_empty() {
            return Exit::Usage;
        }
        let failed = self.failures().map(|(_, error)| match error.fault() {
            Fault::Unreachable | Fault::Unreliable => Exit::Unreachable,
            Fault::Secret => Exit::Secret,
            Fault::Rejected { .. } => Exit::Rejected,
            Fault::ChildNotRunning => Exit::CacheDown,
        });
        let unanswered = self.bans.iter().any(Option::is_none);
        let unanswered = unanswered.then_some(Exit::Unreachable);
        failed.chain(unanswered).max().unwrap_or(Exit::Done)
    }
}

/// What is known of one node, shared with whoever reports when the command is interrupted.
type Shared = Arc<Mutex<NodeResult>>;

fn lock(shared: &Shared) -> MutexGuard<'_, NodeResult> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends every ban to every node, within the limits or until Ctrl-C.
pub(super) async fn send(targets: Vec<(Target, Duration)>, bans: &Bans, limits: Limits) -> Sent {
    let deadline = Instant::now() + limits.total;
    let places = Semaphore::new(NODES_AT_A_TIME);
    let mut results: Vec<Shared> = Vec::new();
    let mut nodes = FuturesUnordered::new();
    for (target, step) in targets {
        let result = Arc::new(Mutex::new(NodeResult {
            node: target.node.clone(),
            address: target.address.clone(),
            version: None,
            bans: vec![None; bans.bans.len()],
            refused: Arc::default(),
        }));
        results.push(Arc::clone(&result));
        let places = &places;
        nodes.push(async move {
            // Never closed, so there is always a place in the end.
            let _place = places.acquire().await;
            Node::new(target, step, bans, result, limits, deadline).serve().await;
        });
    }
    let all = async { while nodes.next().await.is_some() {} };
    let interrupted = tokio::select! {
        biased;
        // When signals cannot be received, Ctrl-C ends the process at once, as it always does.
        Ok(()) = tokio::signal::ctrl_c() => true,
        () = all => false,
        () = show_progress(&results, bans.bans.len()) => false,
    };
    let nodes = results.iter().map(|result| lock(result).clone()).collect();
    Sent { nodes, interrupted }
}

/// One node, while it is being served.
struct Node<'a> {
    client: Client,
    bans: &'a Bans,
    result: Shared,
    limits: Limits,
    deadline: Instant,
}

impl<'a> Node<'a> {
    fn new(
        target: Target,
        step: Duration,
        bans: &'a Bans,
        result: Shared,
        limits: Limits,
        deadline: Instant,
    ) -> Self {
        // Each step within the whole, so that one that fails can say what its failure looks like.
        let most = limits.total.mul_f64(0.8);
        let (step, usual) = (step.min(most), Options::default());
        let options = Options {
            connect: step,
            authenticate: step,
            reply: usual.reply.min(most),
            keep_alive: None,
            ..usual
        };
        Self { client: Client::new(target, options), bans, result, limits, deadline }
    }

    /// Sends what has no good answer yet, again and again while that can help.
    async fn serve(&self) {
        let mut random = fastrand::Rng::with_seed(random_seed());
        let mut pause = FIRST_PAUSE;
        for attempt in 0..=self.limits.retries {
            let again = self.attempt().await;
            if !again || attempt == self.limits.retries {
                return;
            }
            let next = Instant::now() + pause.mul_f64(0.5 + random.f64());
            if next >= self.deadline {
                return;
            }
            sleep(next.saturating_duration_since(Instant::now())).await;
            pause *= 2;
        }
    }

    /// One attempt. Returns whether another one can help.
    async fn attempt(&self) -> bool {
        if self.bans.need_version() && !self.knows_version().await {
            return self.can_retry();
        }
        let open: Vec<usize> = {
            let result = lock(&self.result);
            if !result.refused.is_empty() {
                return false;
            }
            let open = |ban: &Option<Result<(), AdminError>>| match ban {
                None => true,
                Some(Ok(())) => false,
                Some(Err(error)) => error.retry() != Retry::Never,
            };
            result.bans.iter().enumerate().filter(|(_, b)| open(b)).map(|(at, _)| at).collect()
        };
        match open.as_slice() {
            [only] => self.send_one(*only).await,
            _ => self.send_many(&open).await,
        }
        self.can_retry()
    }

    fn can_retry(&self) -> bool {
        let result = lock(&self.result);
        result.failures().any(|(_, error)| error.retry() != Retry::Never)
    }

    /// Learns the server's version and refuses what it does not know.
    async fn knows_version(&self) -> bool {
        match timeout_at(self.deadline, self.client.connect()).await {
            Ok(Ok(greeting)) => {
                let Some(version) = greeting.version else { return true };
                let refused = version.numbers().map(|(major, minor, _)| {
                    self.bans.refusals_for(ServerVersion::new(major, minor))
                });
                let mut result = lock(&self.result);
                result.version = Some(version.as_str().to_owned());
                result.refused = Arc::new(refused.unwrap_or_default());
                true
            }
            Ok(Err(error)) => {
                self.fail_open(&error);
                false
            }
            Err(_) => {
                self.fail_open(&self.overdue());
                false
            }
        }
    }

    async fn send_one(&self, at: usize) {
        let Some(ban) = self.bans.bans.get(at) else { return };
        let answer = timeout_at(self.deadline, self.client.ban(ban.command.clone())).await;
        match answer {
            Ok(answer) => self.note(at, answer),
            Err(_) => self.note_unanswered(at, &self.overdue()),
        }
    }

    /// Sends many in a pipeline. After a failure that is not about one ban alone, no further ones
    /// are sent: they would fail alike.
    async fn send_many(&self, open: &[usize]) {
        let broken = Rc::new(Cell::new(false));
        let commands = open
            .iter()
            .take_while(|_| !broken.get())
            .filter_map(|at| self.bans.bans.get(*at).map(|ban| ban.command.clone()));
        let mut batch = self.client.batch(stream::iter(commands));
        let mut last: Option<AdminError> = None;
        for (place, at) in open.iter().enumerate() {
            let answer = match timeout_at(self.deadline, batch.next()).await {
                Ok(Some(answer)) => answer.map(drop),
                Ok(None) => break,
                Err(_) => {
                    // Those under way may have been taken; the others were never sent.
                    let error = self.overdue();
                    for at in open.iter().skip(place).take(batch.in_flight()) {
                        self.note_unanswered(*at, &error);
                    }
                    let kind = Kind::Waiting { limit: self.limits.total };
                    last = Some(AdminError { kind, ..error });
                    break;
                }
            };
            if let Err(error) = &answer
                && !matches!(error.kind, Kind::Rejected { .. })
            {
                broken.set(true);
                last = Some(error.clone());
            }
            self.note(*at, answer);
        }
        if let Some(error) = last {
            self.fail_open(&error);
        }
    }

    fn note(&self, at: usize, answer: Result<(), AdminError>) {
        if let Some(place) = lock(&self.result).bans.get_mut(at) {
            *place = Some(answer);
        }
    }

    /// Notes that there was no answer in time, unless an earlier attempt ended in an error: that
    /// one says more.
    fn note_unanswered(&self, at: usize, error: &AdminError) {
        if let Some(place @ None) = lock(&self.result).bans.get_mut(at) {
            *place = Some(Err(error.clone()));
        }
    }

    /// Notes this error for every ban that has no answer.
    fn fail_open(&self, error: &AdminError) {
        for at in 0..self.bans.bans.len() {
            self.note_unanswered(at, error);
        }
    }

    /// The limit on the whole passed: at which step, the client knows.
    fn overdue(&self) -> AdminError {
        let stage = self.client.stage().unwrap_or(Stage::Command(Verb::BAN));
        let kind = Kind::Deadline { limit: self.limits.total };
        AdminError { node: self.client.node().clone(), stage, kind }
    }
}

/// Counts the bans on stderr, on a terminal and for a batch only. Never ends.
async fn show_progress(results: &[Shared], bans: usize) {
    if bans < 100 || !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let _clear = ClearLine;
    let mut ticks = interval(Duration::from_millis(100));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let taken: usize = results.iter().map(|result| lock(result).taken()).sum();
        let all = bans.saturating_mul(results.len());
        // There is nobody to tell when the terminal is gone.
        let _ = write!(std::io::stderr(), "\r{taken} of {all} bans taken");
    }
}

struct ClearLine;

impl Drop for ClearLine {
    fn drop(&mut self) {
        let _ = write!(std::io::stderr(), "\r\u{1b}[K");
    }
}

/// Whether the ban may be on the node's list although there was no good answer.
pub(super) fn is_unknown(error: &AdminError) -> bool {
    error.outcome() == Outcome::Unknown
}
