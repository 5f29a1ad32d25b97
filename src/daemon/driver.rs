//! Carries out what the engine asks for, and tells it what came of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Peers;
use super::errands;
use super::evidence::{Asked, Gatherer, MissedBan};
use super::journal::chain;
use super::ledger;
use crate::admin::AdminError;
use crate::clock::Clock;
use crate::engine::{
    AdminProblem, BanResult, BanSource, Case, Engine, EntryId, Errand, ErrandId, ErrandResult,
    EvidenceId, FetchId, Input, Inspection, Invalidation, InvalidationError, Issue, Ledger, Miss,
    News, Output, Plan, PointerNews, Process, Record, Request, Settled, Side, Snapshot,
};
use crate::expose::Metrics;
use crate::model::{EndpointName, NodeName, VariantName};
use crate::verdict::{
    Cause, Explanation, Failure, FetchRequest, Observation, Outcome, Phases, State, Transition,
};

/// What the rest of the program hears of.
#[derive(Debug)]
pub enum Event {
    /// To be stored.
    Record(Record),
    /// A state changed.
    Changed {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its variant.
        variant: VariantName,
        /// The node.
        node: NodeName,
        /// The change.
        transition: Transition,
        /// Why, where there is more to say.
        reason: Option<String>,
        /// The cause, where it is known already.
        cause: Option<Cause>,
    },
    /// The cause of a state was found.
    Explained {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its variant.
        variant: VariantName,
        /// The node.
        node: NodeName,
        /// The state.
        state: State,
        /// The cause, and what it rests on.
        explanation: Arc<Explanation>,
    },
    /// An admin port was lost or is back.
    AdminChanged {
        /// The node.
        node: NodeName,
        /// Whether it answers now.
        up: bool,
        /// What is wrong.
        problem: Option<String>,
    },
    /// A node was seen to follow a change of its origin.
    BecameFresh {
        /// The node.
        node: NodeName,
        /// How long after the change was first seen.
        after: Duration,
    },
    /// To be served as the canary of the node, before anything else is done.
    ServeCanary {
        /// The node.
        node: NodeName,
        /// The body.
        body: String,
    },
    /// A canary shows that bans work, or do not work any more.
    CanaryChanged {
        /// The node.
        node: NodeName,
        /// Whether they work.
        up: Option<bool>,
        /// What is wrong.
        problem: Option<String>,
    },
    /// What was stale was banned once more.
    Remedied {
        /// The endpoint.
        endpoint: EndpointName,
        /// The node.
        node: NodeName,
        /// Whether the node serves what the origin serves now.
        cured: bool,
        /// What came of it.
        result: String,
    },
    /// Something about a pointer.
    Pointer(PointerNews),
    /// Something of the ledger to be counted or told.
    News(News),
    /// It is known at each of its nodes what came of an invalidation.
    InvalidationSettled {
        /// Its key.
        key: u64,
        /// What came of it, for each node.
        nodes: BTreeMap<NodeName, Settled>,
    },
    /// Nothing is under way and nothing will be due: a plan for one round is done.
    Idle,
}

/// The engine with its fetches, its checks and its clock.
///
/// Dropping it cancels all that is under way.
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    peers: Arc<Peers>,
    gatherer: Arc<Gatherer>,
    clock: Clock,
    metrics: Option<Arc<Metrics>>,
    tasks: JoinSet<Done>,
    /// What each task is to answer, should it end without an answer.
    under_way: HashMap<Id, Task>,
}

#[derive(Debug)]
enum Done {
    Fetched { id: FetchId, side: Side, observation: Observation },
    Errand { id: ErrandId, result: ErrandResult },
    Checked { node: NodeName, result: Result<Option<Process>, AdminProblem> },
    Inspected { node: NodeName, result: Result<Inspection, Miss> },
    Delivered { node: NodeName, results: Vec<Result<(), Miss>> },
    Counted { node: NodeName, length: Option<usize> },
    Gathered { id: EvidenceId, explanation: Explanation },
}

#[derive(Debug, Clone)]
enum Task {
    Fetch { id: FetchId, side: Side },
    Check(NodeName),
    Errand { id: ErrandId, is_ban: bool },
    Inspect(NodeName),
    Deliver(NodeName),
    Count(NodeName),
    Gather(EvidenceId),
}

impl Driver {
    /// Drives `engine` with fetches from `peers`, and counts them in `metrics`.
    #[must_use]
    pub fn new(
        engine: Engine,
        peers: Arc<Peers>,
        clock: Clock,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        let (tasks, under_way) = (JoinSet::new(), HashMap::new());
        let gatherer = Arc::new(Gatherer::new(Arc::clone(&peers), clock));
        Self { engine, peers, gatherer, clock, metrics, tasks, under_way }
    }

    /// Drives on until there is something to tell.
    ///
    /// Cancellation safe: what is under way goes on, and nothing is lost.
    pub async fn next(&mut self) -> Event {
        loop {
            while let Some(output) = self.engine.poll_output() {
                if let Some(event) = self.carry_out(output) {
                    return event;
                }
            }
            let deadline = self.engine.next_deadline();
            if deadline.is_none() && self.tasks.is_empty() {
                return Event::Idle;
            }
            let instant = deadline.map(|at| Instant::from_std(self.clock.instant_of(at)));
            let due = async {
                match instant {
                    Some(instant) => sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.ended(ended);
                }
                () = due => self.engine.handle(Input::Tick, self.clock.now()),
            }
        }
    }

    /// Goes over to another plan and other peers.
    ///
    /// What is under way is cancelled. The engine asks again for all of it; left alone, a fetch
    /// that hangs would keep a connection from the ones that matter now, and a check of an admin
    /// port would report on an address or a secret that is not in use any more.
    pub fn replan(&mut self, plan: Plan, peers: Arc<Peers>) {
        self.tasks = JoinSet::new();
        self.under_way.clear();
        self.gatherer = Arc::new(Gatherer::new(Arc::clone(&peers), self.clock));
        self.peers = peers;
        self.engine.handle(Input::Replan(plan), self.clock.now());
    }

    /// Takes in bans that were issued; see [`Engine::issue`].
    pub fn issue(&mut self, issues: Vec<Issue>) -> (Vec<EntryId>, Vec<Record>) {
        self.engine.issue(issues, self.clock.now())
    }

    /// Takes in invalidations; see [`Engine::invalidate`]. The result of each, in order; each that
    /// was taken in comes back once as [`Event::InvalidationSettled`].
    pub fn invalidate(
        &mut self,
        invalidations: Vec<Invalidation>,
    ) -> Vec<Result<(), InvalidationError>> {
        self.engine.invalidate_all(invalidations, self.clock.now())
    }

    /// How many invalidations are open.
    #[must_use]
    pub fn open_invalidations(&self) -> usize {
        self.engine.open_invalidations()
    }

    /// What is to be stored and was not told of yet; see [`Engine::take_records`].
    pub fn take_records(&mut self) -> Vec<Record> {
        self.engine.take_records()
    }

    /// What is known of invalidations.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        self.engine.ledger()
    }

    /// Everything that is known.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.engine.snapshot(self.clock.now())
    }

    /// Every node that serves old content now, for a command that gathers the evidence itself.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        self.engine.cases()
    }

    /// Everything that is worth storing.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.engine.records(self.clock.now())
    }

    /// Whether probing goes on; see [`Engine::is_progressing`].
    #[must_use]
    pub fn is_progressing(&self, patience: Duration) -> bool {
        self.engine.is_progressing(patience, self.clock.now())
    }

    fn carry_out(&mut self, output: Output) -> Option<Event> {
        match output {
            Output::Fetch { id, side, request, due } => {
                if let Some(metrics) = &self.metrics {
                    metrics.record_probe_delay(self.clock.now().since(due));
                }
                self.fetch(id, side, request);
                None
            }
            Output::CheckAdmin(node) => {
                self.check_admin(node);
                None
            }
            Output::Request { node, request } => {
                self.request(node, request);
                None
            }
            Output::News(news) => Some(Event::News(news)),
            Output::Pointer(news) => Some(Event::Pointer(news)),
            Output::InvalidationSettled { key, nodes } => {
                Some(Event::InvalidationSettled { key, nodes })
            }
            Output::GatherEvidence { id, case } => {
                self.gather(id, case);
                None
            }
            Output::Explained { endpoint, variant, node, state, explanation } => {
                Some(Event::Explained { endpoint, variant, node, state, explanation })
            }
            Output::Record(record) => Some(Event::Record(record)),
            Output::Changed { endpoint, variant, node, transition, reason, cause } => {
                Some(Event::Changed { endpoint, variant, node, transition, reason, cause })
            }
            Output::AdminChanged { node, up, problem } => {
                Some(Event::AdminChanged { node, up, problem })
            }
            Output::BecameFresh { node, after } => Some(Event::BecameFresh { node, after }),
            Output::Errand { id, errand } => {
                self.errand(id, errand);
                None
            }
            Output::Proved { node, proof } => {
                if let Some(metrics) = &self.metrics {
                    metrics.record_proof(&node, &proof);
                }
                None
            }
            Output::Remedied { endpoint, node, cured, result } => {
                Some(Event::Remedied { endpoint, node, cured, result })
            }
            Output::ServeCanary { node, body } => Some(Event::ServeCanary { node, body }),
            Output::CanaryChanged { node, up, problem } => {
                Some(Event::CanaryChanged { node, up, problem })
            }
        }
    }

    fn fetch(&mut self, id: FetchId, side: Side, request: FetchRequest) {
        let destination = match &side {
            Side::Cache(node) => self.peers.node(node),
            Side::Origin(origin) => self.peers.origin(origin),
        };
        let task = Task::Fetch { id, side: side.clone() };
        let clock = self.clock;
        let handle = self.tasks.spawn(async move {
            let observation = match destination {
                Some(destination) => destination.fetch(&request).await,
                None => nothing_observed(clock),
            };
            Done::Fetched { id, side, observation }
        });
        self.under_way.insert(handle.id(), task);
    }

    fn check_admin(&mut self, node: NodeName) {
        let peer = self.peers.admin(&node);
        let task = Task::Check(node.clone());
        let handle = self.tasks.spawn(async move {
            let result = match peer {
                Some(peer) => peer.check().await,
                None => return Done::Checked { node, result: Ok(None) },
            };
            Done::Checked { node, result: result.map_err(|error| problem(&error)) }
        });
        self.under_way.insert(handle.id(), task);
    }

    fn errand(&mut self, id: ErrandId, errand: Errand) {
        let is_ban = matches!(errand, Errand::Ban { .. });
        let source = if id.is_canary() { BanSource::Canary } else { BanSource::Remedy };
        let (peers, metrics) = (Arc::clone(&self.peers), self.metrics.clone());
        let (task, clock) = (Task::Errand { id: id.clone(), is_ban }, self.clock);
        let handle = self.tasks.spawn(async move {
            let result = errands::carry_out(errand, source, &peers, metrics.as_ref()).await;
            let result = result.unwrap_or_else(|| ErrandResult::Fetched(nothing_observed(clock)));
            Done::Errand { id, result }
        });
        self.under_way.insert(handle.id(), task);
    }

    fn request(&mut self, node: NodeName, request: Request) {
        let peer = self.peers.admin(&node);
        let task = match &request {
            Request::Inspect => Task::Inspect(node.clone()),
            Request::Deliver(_) => Task::Deliver(node.clone()),
            Request::CountBans => Task::Count(node.clone()),
        };
        let handle = self.tasks.spawn(async move {
            match (request, peer) {
                (Request::Inspect, Some(peer)) => {
                    Done::Inspected { node, result: ledger::inspect(&peer).await }
                }
                (Request::Deliver(bans), Some(peer)) => {
                    Done::Delivered { node, results: ledger::deliver(&peer, &bans).await }
                }
                (Request::CountBans, Some(peer)) => {
                    Done::Counted { node, length: ledger::count(&peer).await }
                }
                (Request::CountBans, None) => Done::Counted { node, length: None },
                (Request::Inspect, None) => Done::Inspected { node, result: Err(internal()) },
                (Request::Deliver(_), None) => {
                    Done::Delivered { node, results: vec![Err(internal())] }
                }
            }
        });
        self.under_way.insert(handle.id(), task);
    }

    fn gather(&mut self, id: EvidenceId, case: Box<Case>) {
        let gatherer = Arc::clone(&self.gatherer);
        let missed = self
            .engine
            .ledger()
            .undelivered(&case.node)
            .map(|entry| MissedBan { ban: entry.ban.clone(), issued: entry.issued });
        let missed: Vec<_> = missed.collect();
        let handle = self.tasks.spawn(async move {
            let (_, explanation) = gatherer.gather(&case, missed, Asked::NodeOnly).await;
            Done::Gathered { id, explanation }
        });
        self.under_way.insert(handle.id(), Task::Gather(id));
    }

    fn ended(&mut self, ended: Result<(Id, Done), JoinError>) {
        let done = match ended {
            Ok((id, done)) => {
                self.under_way.remove(&id);
                done
            }
            // A task that panicked or was cancelled must be answered for all the same.
            Err(error) => match self.under_way.remove(&error.id()) {
                None => return,
                Some(Task::Fetch { id, side }) => {
                    Done::Fetched { id, side, observation: nothing_observed(self.clock) }
                }
                Some(Task::Check(node)) => {
                    let text = format!("the check itself failed: {error}");
                    Done::Checked { node, result: Err(AdminProblem { reason: "internal", text }) }
                }
                Some(Task::Errand { id, is_ban: false }) => {
                    Done::Errand { id, result: ErrandResult::Fetched(nothing_observed(self.clock)) }
                }
                Some(Task::Errand { id, is_ban: true }) => {
                    let text = format!("the ban itself failed: {error}");
                    let problem = AdminProblem { reason: "internal", text };
                    Done::Errand { id, result: ErrandResult::Banned(Err(problem)) }
                }
                Some(Task::Inspect(node)) => Done::Inspected { node, result: Err(internal()) },
                Some(Task::Deliver(node)) => {
                    Done::Delivered { node, results: vec![Err(internal())] }
                }
                Some(Task::Count(node)) => Done::Counted { node, length: None },
                Some(Task::Gather(id)) => {
                    let because = format!("the gathering of the evidence itself failed: {error}");
                    Done::Gathered { id, explanation: Explanation::undetermined(because) }
                }
            },
        };
        let now = self.clock.now();
        match done {
            Done::Fetched { id, side, observation } => {
                match (&self.metrics, &side) {
                    (Some(metrics), Side::Cache(_)) => metrics.record_cache_probe(&observation),
                    (Some(metrics), Side::Origin(origin)) => {
                        metrics.record_origin_probe(origin, &observation);
                    }
                    (None, _) => {}
                }
                self.engine.handle(Input::Fetched { id, observation }, now);
            }
            Done::Errand { id, result } => {
                self.engine.handle(Input::ErrandDone { id, result }, now);
            }
            Done::Checked { node, result } => {
                self.engine.handle(Input::AdminChecked { node, result }, now);
            }
            Done::Inspected { node, result } => {
                self.engine.handle(Input::Inspected { node, result }, now);
            }
            Done::Delivered { node, results } => {
                self.engine.handle(Input::Delivered { node, results }, now);
            }
            Done::Counted { node, length } => {
                self.engine.handle(Input::CountedBans { node, length }, now);
            }
            Done::Gathered { id, explanation } => {
                self.engine.handle(Input::Evidence { id, explanation }, now);
            }
        }
    }
}

fn nothing_observed(clock: Clock) -> Observation {
    let now = clock.now();
    let outcome = Outcome::Failed(Failure::Unreachable);
    Observation { started: now, finished: now, phases: Phases::default(), outcome }
}

/// A task ended without an answer: what it had sent is not known.
fn internal() -> Miss {
    Miss { result: BanResult::Unconfirmed, reason: "internal".to_owned() }
}

fn problem(error: &AdminError) -> AdminProblem {
    AdminProblem { reason: error.label(), text: chain(error) }
}
