//! The remedy: what is stale at a node is banned there once more, exactly that URL on its host,
//! and the effect is proven.
//!
//! It is off unless an endpoint asks for it, and it is held back on every side: only a difference
//! that was confirmed in the round that has just ended, by an origin that answers and has held
//! still; only so many bans a minute in the whole daemon; and for each endpoint and node with
//! pauses that grow, since a ban that did not help will not help more the next minute.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::errand::{Errand, ErrandId, ErrandResult, Owner};
use super::plan::Plan;
use super::trial::{Act, Finding, Trial, Truth};
use super::{Output, Side};
use crate::ban::Expression;
use crate::model::{EndpointName, NodeName, OriginName, Timestamp};
use crate::verdict::proof::{Proof, ProofLimits};
use crate::verdict::{FetchRequest, Target};

/// The time in which the budget is spent.
const BUDGET_SPAN: Duration = Duration::from_secs(60);

/// The pause after a remedy; it doubles with each further one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// From the ban to its proof.
const PROOF: Duration = Duration::from_secs(10);

/// What came of the last remedy of an endpoint at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemedyState {
    /// How many there were since the daemon started.
    pub count: u64,
    /// When the last one ended.
    pub last: Timestamp,
    /// Whether the node was shown to serve what the origin serves.
    pub cured: bool,
    /// What came of it, in words.
    pub result: String,
}

/// What is to be banned, and where the truth is.
#[derive(Debug, Clone)]
pub(super) struct Patient {
    pub(super) endpoint: EndpointName,
    pub(super) node: NodeName,
    pub(super) origin: OriginName,
    pub(super) target: Arc<Target>,
    pub(super) ban: Arc<Expression>,
}

type Key = (EndpointName, NodeName);

/// All remedies.
#[derive(Debug)]
pub(super) struct Remedies {
    /// Bans a minute.
    rate: usize,
    /// When bans were sent, within the last minute.
    sent: VecDeque<Timestamp>,
    cases: BTreeMap<Key, Case>,
    /// When a pause is over.
    timers: BTreeSet<(Timestamp, Key)>,
    outputs: VecDeque<Output>,
    numbers: u64,
}

#[derive(Debug)]
struct Case {
    patient: Patient,
    trial: Option<Trial>,
    /// The errand that is waited for, and whether it asks the origin.
    waits_for: (u64, bool),
    not_before: Timestamp,
    pause: Duration,
    state: Option<RemedyState>,
}

impl Remedies {
    pub(super) const fn new() -> Self {
        Self {
            rate: 0,
            sent: VecDeque::new(),
            cases: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            numbers: 0,
        }
    }

    /// Goes over to another plan. What is under way is let go; pauses and the budget are kept.
    pub(super) fn replan(&mut self, plan: &Plan) {
        self.rate = plan.remedy_max_rate;
        self.outputs.clear();
        self.timers.clear();
        let watched = plan.watches.iter().filter(|watch| watch.remedy.is_some());
        let kept: BTreeSet<(&EndpointName, &NodeName)> = watched
            .flat_map(|watch| watch.nodes.iter().map(|node| (&watch.endpoint, node)))
            .collect();
        self.cases.retain(|(endpoint, node), _| kept.contains(&(endpoint, node)));
        for case in self.cases.values_mut() {
            case.trial = None;
        }
    }

    /// A round has confirmed that this is stale, by an origin that answers and is settled. Bans it
    /// if that is allowed now; else the next round may.
    pub(super) fn stale(&mut self, patient: Patient, now: Timestamp) {
        let key = (patient.endpoint.clone(), patient.node.clone());
        let case = self.cases.get(&key);
        if case.is_some_and(|case| case.trial.is_some() || now < case.not_before) {
            return;
        }
        // Strictly within the span: a burst at its end and one at its start would be two budgets.
        while self.sent.front().is_some_and(|at| now.since(*at) >= BUDGET_SPAN) {
            self.sent.pop_front();
        }
        if self.sent.len() >= self.rate {
            return;
        }
        self.sent.push_back(now);
        let limits = ProofLimits { within: PROOF, rounds: 1, grace: false };
        let (trial, act) = Trial::begin(Truth::AtOrigin, false, limits);
        let case = self.cases.entry(key.clone()).or_insert_with(|| Case {
            patient: patient.clone(),
            trial: None,
            waits_for: (0, false),
            not_before: now,
            pause: FIRST_PAUSE,
            state: None,
        });
        case.patient = patient;
        case.trial = Some(trial);
        // Long after the last one, it is another story.
        let is_again = now.since(case.not_before) <= case.pause;
        case.pause = match &case.state {
            Some(_) if is_again => (case.pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        case.not_before = now + case.pause;
        self.follow(&key, act, now);
    }

    /// Goes on with those whose pause is over.
    pub(super) fn tick(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let Some((_, key)) = self.timers.pop_first() else { return };
            let trial = self.cases.get_mut(&key).and_then(|case| case.trial.as_mut());
            if let Some(act) = trial.map(|trial| trial.waited(now)) {
                self.follow(&key, act, now);
            }
        }
    }

    /// An errand ended. One that nobody waits for any more is ignored.
    pub(super) fn done(&mut self, key: &Key, number: u64, result: ErrandResult, now: Timestamp) {
        let Some(case) = self.cases.get_mut(key) else { return };
        let (expected, from_origin) = case.waits_for;
        let Some(trial) = case.trial.as_mut().filter(|_| expected == number) else { return };
        let act = match result {
            ErrandResult::Fetched(seen) => trial.fetched(from_origin, &seen, now),
            ErrandResult::Banned(result) => trial.banned(result, now),
        };
        self.follow(key, act, now);
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn state(&self, endpoint: &EndpointName, node: &NodeName) -> Option<RemedyState> {
        if self.cases.is_empty() {
            return None;
        }
        self.cases.get(&(endpoint.clone(), node.clone()))?.state.clone()
    }

    fn follow(&mut self, key: &Key, act: Act, now: Timestamp) {
        let Some(case) = self.cases.get_mut(key) else { return };
        let patient = &case.patient;
        let mut from_origin = false;
        let errand = match act {
            Act::FetchNode => {
                let request = FetchRequest::with_headers(Arc::clone(&patient.target));
                Errand::Fetch { side: Side::Cache(patient.node.clone()), request }
            }
            Act::FetchOrigin { new_connection } => {
                from_origin = true;
                let request = FetchRequest::new(Arc::clone(&patient.target));
                let request = FetchRequest { new_connection, ..request };
                Errand::Fetch { side: Side::Origin(patient.origin.clone()), request }
            }
            Act::Ban => {
                Errand::Ban { node: patient.node.clone(), ban: Expression::clone(&patient.ban) }
            }
            Act::Wait(until) => {
                self.timers.insert((until, key.clone()));
                return;
            }
            Act::Done(finding) => return self.finish(key, &finding, now),
        };
        self.numbers += 1;
        case.waits_for = (self.numbers, from_origin);
        let owner = Owner::Remedy(key.0.clone(), key.1.clone());
        let id = ErrandId { owner, number: self.numbers };
        self.outputs.push_back(Output::Errand { id, errand });
    }

    fn finish(&mut self, key: &Key, finding: &Finding, now: Timestamp) {
        let Some(case) = self.cases.get_mut(key) else { return };
        case.trial = None;
        let cured = *finding == Finding::Proof(Proof::Proven);
        let result = Told(finding).to_string();
        let count = case.state.as_ref().map_or(0, |state| state.count) + 1;
        case.state = Some(RemedyState { count, last: now, cured, result: result.clone() });
        let (endpoint, node) = key.clone();
        if let Finding::Proof(proof) = finding {
            self.outputs.push_back(Output::Proved { node: node.clone(), proof: *proof });
        }
        self.outputs.push_back(Output::Remedied { endpoint, node, cured, result });
    }
}

/// A finding in words.
struct Told<'f>(&'f Finding);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Finding::Proof(proof) => write!(f, "{}: {proof}", proof.label()),
            Finding::NotBanned(problem) => write!(f, "not banned: {}", problem.text),
            Finding::NodeFailed(fault) => write!(f, "not banned: the node: {fault}"),
            Finding::NotACache => f.write_str(
                "not banned: the node's answer shows no sign of Varnish (X-Varnish or Via)",
            ),
            Finding::NeverHit { status } | Finding::Foreign { status } => {
                write!(f, "not banned: answered with status {status}, and not from the cache")
            }
        }
    }
}
