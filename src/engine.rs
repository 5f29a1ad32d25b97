//! Layer 2: the pure core of the daemon.
//!
//! [`Engine`] decides what is fetched when, and what it means. It opens no socket and reads no
//! clock: whoever drives it calls [`handle`](Engine::handle) with what happened and the time,
//! carries out what [`poll_output`](Engine::poll_output) returns, and calls again at
//! [`next_deadline`](Engine::next_deadline) at the latest.

mod admin;
mod budget;
mod canary;
mod consistency;
mod effect;
mod errand;
mod explain;
mod hurry;
mod invalidation;
mod ledger;
mod plan;
mod pointer;
mod record;
mod remedy;
mod replan;
mod round;
mod rounds;
mod schedule;
mod snapshot;
mod trial;
mod watch;

#[cfg(test)]
mod simulation;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use admin::Node;
use budget::Budget;
use canary::Canaries;
use errand::Owner;
use explain::Inquiries;
use invalidation::Invalidations;
use pointer::Pointers;
use remedy::Remedies;
use watch::Watch;

use crate::model::{EndpointName, NodeName, OriginName, Timestamp, VariantName};

pub use admin::AdminProblem;
pub use canary::{CanaryPlan, CanaryState};
pub use consistency::{STEPS, ServiceLevel, Window};
pub use effect::{FetchId, Input, Output, Side};
pub use errand::{Errand, ErrandId, ErrandResult};
pub use explain::{Case, EvidenceId};
pub use invalidation::{
    Dropped, Invalidation, InvalidationError, MOST_OPEN as MOST_OPEN_INVALIDATIONS, Settled,
    Unprovable,
};
pub use ledger::{
    Backlog, BanResult, BanSource, BanText, BanTextError, DropReason, Entry, EntryId, Evidence,
    Inspection, Issue, LONGEST_BAN, LONGEST_DEBOUNCE, Ledger, LedgerOutput, LedgerRecord,
    Limits as LedgerLimits, Miss, Needless, News, Pending as PendingBan, Process, Request,
    Standing,
};
pub use plan::{NodePlan, OriginPlan, Plan, WatchPlan};
pub use pointer::{
    FindingKind, PointerFinding, PointerNews, PointerPlan, PointerSnapshot, PointerState,
};
pub use record::{HistoryRecord, HourRecord, Record, Restored, VerdictRecord};
pub use remedy::RemedyState;
pub use snapshot::{AdminState, NodeSnapshot, Snapshot, TargetSnapshot};

/// The pure core of the daemon; see the module's documentation.
#[derive(Debug)]
pub struct Engine {
    watches: Vec<Watch>,
    names: BTreeMap<(EndpointName, VariantName), usize>,
    origins: HashMap<OriginName, Budget>,
    nodes: BTreeMap<NodeName, Node>,
    admin_reasons: &'static [&'static str],
    once: bool,
    pending: HashMap<FetchId, Pending>,
    inquiries: Inquiries,
    timers: BinaryHeap<Reverse<(Timestamp, u64, Timer)>>,
    canaries: Canaries,
    pointers: Pointers,
    remedies: Remedies,
    ledger: Ledger,
    invalidations: Invalidations,
    outputs: VecDeque<Output>,
    random: fastrand::Rng,
    counter: u64,
    grids: u32,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    watch: usize,
    /// `None`: the origin.
    place: Option<usize>,
    /// When it has to have ended, by its timeout.
    ends: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// When a round is due.
    Round(usize),
    /// When an admin port is to be checked.
    Admin(NodeName),
    /// When an origin's budget allows the next request.
    Budget(OriginName),
}

impl Engine {
    /// An engine that knows what was `restored` and starts on `plan`. `seed` makes its jitter;
    /// `admin_reasons` are the reasons that failures of admin ports are counted by.
    #[must_use]
    pub fn new(
        plan: Plan,
        restored: Restored,
        admin_reasons: &'static [&'static str],
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let mut engine = Self {
            watches: Vec::new(),
            names: BTreeMap::new(),
            origins: HashMap::new(),
            nodes: BTreeMap::new(),
            admin_reasons,
            once: plan.once,
            pending: HashMap::new(),
            inquiries: Inquiries::default(),
            timers: BinaryHeap::new(),
            canaries: Canaries::new(seed),
            pointers: Pointers::default(),
            remedies: Remedies::new(),
            ledger: Ledger::new(LedgerLimits::default(), restored.ledger, seed, now),
            invalidations: Invalidations::default(),
            outputs: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
            counter: 0,
            grids: 0,
        };
        let restored = Restored { ledger: Vec::new(), ..restored };
        engine.replan(plan, now);
        engine.restore(restored, now);
        engine.take_from_ledger(now);
        engine
    }

    /// Takes in something that happened at `now`.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Tick => {}
            Input::Fetched { id, observation } => self.fetched(id, &observation, now),
            Input::AdminChecked { node, result } => self.admin_checked(&node, result, now),
            Input::ErrandDone { id, result } => self.errand_done(id, result, now),
            Input::Evidence { id, explanation } => self.evidence(id, explanation),
            Input::Replan(plan) => self.replan(plan, now),
            Input::ProbeNow => self.probe_now(now),
            Input::Inspected { node, result } => self.ledger.inspected(&node, result, now),
            Input::CountedBans { node, length } => self.ledger.counted(&node, length, now),
            Input::Delivered { node, results } => self.ledger.delivered(&node, results, now),
        }
        self.run_timers(now);
        self.tick_pointers(now);
        self.canaries.tick(now);
        self.remedies.tick(now);
        self.ledger.tick(now);
        self.end_proofs(now);
        self.take_from_ledger(now);
    }

    /// Takes in bans that were issued; see [`Ledger::issue`]. Returns their names, and every record
    /// that is to be stored before anybody is told of them, with those that had not been polled.
    pub fn issue(&mut self, issues: Vec<Issue>, now: Timestamp) -> (Vec<EntryId>, Vec<Record>) {
        let ids = issues.into_iter().map(|issue| self.ledger.issue(issue, now)).collect();
        self.take_from_ledger(now);
        (ids, self.take_records())
    }

    /// Everything that is to be stored and had not been polled, in order, for whoever is not told
    /// before it is on the disk.
    pub fn take_records(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Record(record) => records.push(record),
                other => self.outputs.push_back(other),
            }
        }
        records
    }

    /// What is known of invalidations.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is to be done next; `None` when there is nothing before the next deadline or input.
    pub fn poll_output(&mut self) -> Option<Output> {
        let own = self.outputs.pop_front().or_else(|| self.canaries.poll_output());
        own.or_else(|| self.remedy_output())
    }

    /// When [`handle`](Self::handle) has to be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        timer
            .into_iter()
            .chain(self.canaries.next_deadline())
            .chain(self.pointers.next_deadline())
            .chain(self.remedies.next_deadline())
            .chain(self.ledger.next_deadline())
            .chain(self.next_proof_ends())
            .min()
    }

    /// Whether each watch has finished a round since the plan began.
    #[must_use]
    pub fn all_probed(&self) -> bool {
        self.watches.iter().all(|watch| watch.finished_rounds > 0)
    }

    /// Whether probing goes on: no fetch is later than its timeout, and no deadline later than its
    /// time, by `patience` or more. A fetch that hangs until its timeout is progress: that ends by
    /// itself, and a restart of the daemon would not cure it.
    #[must_use]
    pub fn is_progressing(&self, patience: Duration, now: Timestamp) -> bool {
        let is_late = |due: Timestamp| now.since(due) >= patience;
        !self.next_deadline().is_some_and(is_late)
            && !self.pending.values().any(|fetch| is_late(fetch.ends))
    }

    /// Everything that is known, for whoever asks.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let mut targets = Vec::with_capacity(self.names.len());
        let mut endpoints = 0;
        let mut last_endpoint = None;
        // The changes that do not show at a node yet, by how long ago each was first seen.
        let mut open: HashMap<&NodeName, Vec<Duration>> = HashMap::new();
        for ((endpoint, variant), at) in &self.names {
            let Some(watch) = self.watches.get(*at) else { continue };
            if last_endpoint != Some(endpoint) {
                endpoints += usize::from(!self.pointers.has(endpoint));
                last_endpoint = Some(endpoint);
            }
            let first = targets.len();
            for place in &watch.places {
                let old = place.version.as_ref().filter(|_| explain::is_old(place.verdict.state));
                if let Some(since) = place.behind_since {
                    open.entry(&place.node).or_default().push(now.since(since));
                }
                targets.push(TargetSnapshot {
                    endpoint: endpoint.clone(),
                    variant: variant.clone(),
                    node: place.node.clone(),
                    max_stale: watch.plan.max_stale,
                    state: place.verdict.state,
                    since: place.verdict.since,
                    staleness: place.verdict.staleness(now),
                    age: place.age,
                    last_probe: place.verdict.last_probe,
                    last_fresh: place.verdict.last_fresh,
                    probes: place.probes,
                    node_version: place.version.clone(),
                    origin_version: watch.history.current().map(|seen| seen.version.clone()),
                    reason: place.reason.as_ref().map(ToString::to_string),
                    remedy: self.remedies.state(endpoint, &place.node),
                    change: old.map(|old| watch.change_from(old, place)).unwrap_or_default(),
                    cause: place.inquiry.found(place.verdict.state),
                });
            }
            if let Some(added) = targets.get_mut(first..) {
                added.sort_by(|a, b| a.node.cmp(&b.node));
            }
        }
        let backlogs: HashMap<_, _> = self.ledger.backlogs().collect();
        let nodes = self.nodes.values().map(|node| NodeSnapshot {
            node: node.name.clone(),
            admin: node.state.clone(),
            canary: self.canaries.state(&node.name),
            pending_bans: backlogs.get(&node.name).map_or(0, |backlog| backlog.pending),
            level: node.consistency.level(open.get(&node.name).map_or(&[], Vec::as_slice), now),
        });
        let nodes = nodes.collect();
        let pointers = self.pointer_snapshots();
        Snapshot { taken: now, targets, nodes, pointers, endpoints }
    }

    /// Everything that is worth storing, for the end of the daemon.
    #[must_use]
    pub fn records(&self, now: Timestamp) -> Vec<Record> {
        let mut records = Vec::new();
        for watch in &self.watches {
            if watch.history.current().is_some() {
                records.push(Record::History(watch.history_record()));
            }
            for place in &watch.places {
                if place.verdict.last_probe.is_some() {
                    records.push(Record::Verdict(watch.verdict_record(place, now)));
                }
            }
        }
        records
    }

    // Timers.

    fn run_timers(&mut self, now: Timestamp) {
        while let Some(Reverse((at, ..))) = self.timers.peek() {
            if *at > now {
                return;
            }
            let Some(Reverse((_, number, timer))) = self.timers.pop() else { return };
            match timer {
                Timer::Round(at) => {
                    let valid = |w: &&mut Watch| w.timer == number && w.round.is_none();
                    if self.watch(at).filter(valid).is_some() {
                        self.begin_round(at, now);
                    }
                }
                Timer::Admin(name) => {
                    let valid = |node: &&mut Node| node.timer == number && !node.in_flight;
                    if let Some(node) = self.nodes.get_mut(&name).filter(valid) {
                        node.in_flight = true;
                        self.ledger.check_begins(&name);
                        self.outputs.push_back(Output::CheckAdmin(name));
                    }
                }
                Timer::Budget(name) => {
                    if let Some(budget) = self.origins.get_mut(&name) {
                        budget.timer_set = false;
                    }
                    self.serve_waiting(&name, now);
                }
            }
        }
    }

    fn set_timer(&mut self, at: Timestamp, timer: Timer) -> u64 {
        self.counter += 1;
        self.timers.push(Reverse((at, self.counter, timer)));
        self.counter
    }

    fn set_round_timer(&mut self, at: usize, due: Timestamp) {
        let number = self.set_timer(due, Timer::Round(at));
        if let Some(watch) = self.watch(at) {
            watch.due = due;
            watch.timer = number;
        }
    }

    fn set_admin_timer(&mut self, name: &NodeName, due: Timestamp) {
        let number = self.set_timer(due, Timer::Admin(name.clone()));
        if let Some(node) = self.nodes.get_mut(name) {
            node.due = due;
            node.timer = number;
        }
    }

    // Admin ports.

    fn admin_checked(
        &mut self,
        name: &NodeName,
        result: Result<Option<Process>, AdminProblem>,
        now: Timestamp,
    ) {
        match &result {
            Ok(process) => self.ledger.check_passed(name, *process, now),
            Err(problem) => {
                let (result, reason) = (BanResult::Unreachable, problem.reason.to_owned());
                self.ledger.check_failed(name, &Miss { result, reason });
            }
        }
        let result = result.map(drop);
        let jitter = 0.95 + 0.1 * self.random.f64();
        let Some(node) = self.nodes.get_mut(name) else { return };
        let changed = node.checked(result, now);
        // The schedule counts from when the check was due, so that a slow one does not drift.
        let due = node.interval.map(|interval| (node.due + interval.mul_f64(jitter)).max(now));
        if changed {
            let state = node.state.as_ref();
            self.outputs.push_back(Output::AdminChanged {
                node: name.clone(),
                up: state.is_some_and(|state| state.up == Some(true)),
                problem: state.and_then(|state| state.problem.clone()),
            });
        }
        if let Some(due) = due.filter(|_| !self.once) {
            self.set_admin_timer(name, due);
        }
    }

    // Canaries and remedies.

    fn errand_done(&mut self, id: ErrandId, result: ErrandResult, now: Timestamp) {
        match id.owner {
            Owner::Canary(node) => self.canaries.done(&node, id.number, result, now),
            Owner::Remedy(endpoint, node) => {
                self.remedies.done(&(endpoint, node), id.number, result, now);
            }
        }
    }

    fn remedy_output(&mut self) -> Option<Output> {
        let output = self.remedies.poll_output()?;
        if let Output::Errand { errand: Errand::Fetch { side: Side::Origin(name), .. }, .. } =
            &output
            && let Some(budget) = self.origins.get_mut(name)
        {
            budget.charge();
        }
        Some(output)
    }

    // The ledger.

    fn take_from_ledger(&mut self, now: Timestamp) {
        while let Some(output) = self.ledger.poll_output() {
            self.outputs.push_back(match output {
                LedgerOutput::Request { node, request } => Output::Request { node, request },
                LedgerOutput::Record(record) => Output::Record(Record::Ledger(record)),
                LedgerOutput::News(news) => Output::News(news),
                LedgerOutput::Ended { id, node, end } => {
                    self.ban_ended(id, node, &end, now);
                    continue;
                }
            });
        }
    }

    fn watch(&mut self, at: usize) -> Option<&mut Watch> {
        self.watches.get_mut(at)
    }
}
