//! The canary: a harmless cached object of each node that is banned on a schedule, to prove that a
//! ban does its work there.
//!
//! A round: the object is fetched until it is a hit, banned, and fetched until it was replaced.
//! Whatever stands between a ban and its effect shows within a round, without any content having
//! to change: an admin port that cannot be reached, a secret that was rotated, a cache process
//! that hangs, a VCL that does not cache any more, a ban that is taken and matches nothing.
//!
//! The object is any URL that the node caches, or one that the daemon itself serves with another
//! body each round: then the content is compared as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::errand::{Errand, ErrandId, ErrandResult, Owner};
use super::plan::NodePlan;
use super::schedule::Grid;
use super::trial::{Act, Finding, Trial, Truth};
use super::{Output, Side};
use crate::ban::Expression;
use crate::model::{Mark, NodeName, Timestamp, Version};
use crate::verdict::proof::{Obstacle, Proof, ProofLimits, Survival};
use crate::verdict::{Fault, FetchRequest, Target};

/// The longest time from the ban to its proof.
const LONGEST_PROOF: Duration = Duration::from_secs(10);

/// A second ban is for a fetch of the object that was under way during the first one.
const BANS: u32 = 2;

/// The canary of one node.
#[derive(Debug, Clone)]
pub struct CanaryPlan {
    /// What is fetched. Its `compare` is [`Compare::Body`](crate::verdict::Compare::Body).
    pub target: Arc<Target>,
    /// What bans that object, and nothing else.
    pub ban: Expression,
    /// From one round to the next.
    pub interval: Duration,
    /// Whether the daemon serves the object itself; see [`Output::ServeCanary`].
    pub is_served: bool,
}

/// What is known of a canary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanaryState {
    /// Whether the last round proved that a ban works; `None` before the first one ended, and when
    /// the last one could not be judged.
    pub up: Option<bool>,
    /// When a round last proved it.
    pub last_proven: Option<Timestamp>,
    /// What the last round showed instead, in words.
    pub problem: Option<String>,
}

/// All canaries.
#[derive(Debug)]
pub(super) struct Canaries {
    canaries: BTreeMap<NodeName, Canary>,
    /// When each is due, or its pause over.
    timers: BTreeSet<(Timestamp, NodeName)>,
    outputs: VecDeque<Output>,
    random: fastrand::Rng,
    numbers: u64,
}

#[derive(Debug)]
struct Canary {
    plan: CanaryPlan,
    state: CanaryState,
    grid: Grid,
    timer: Option<Timestamp>,
    trial: Option<Trial>,
    /// The errand that is waited for, and whether it asks the origin.
    waits_for: u64,
    /// What the daemon serves.
    body: String,
    /// What it serves from the next ban on.
    next_body: String,
}

impl CanaryPlan {
    fn is_same(&self, other: &Self) -> bool {
        self.target.url == other.target.url
            && self.ban == other.ban
            && self.interval == other.interval
            && self.is_served == other.is_served
    }
}

impl Canaries {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            canaries: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            // Another sequence than the engine's, which has the same seed.
            random: fastrand::Rng::with_seed(!seed),
            numbers: 0,
        }
    }

    /// Takes over the canaries of these nodes. What is known of one that did not change is kept;
    /// its round begins anew.
    pub(super) fn replan(&mut self, nodes: &[NodePlan], now: Timestamp) {
        let mut old = std::mem::take(&mut self.canaries);
        self.timers.clear();
        self.outputs.clear();
        let planned = nodes.iter().filter_map(|node| Some((node, node.canary.as_ref()?)));
        let count = planned.clone().count();
        for (index, (node, plan)) in planned.enumerate() {
            let name = node.name.clone();
            let kept = old.remove(&name).filter(|canary| canary.plan.is_same(plan));
            let mut canary = kept.unwrap_or_else(|| {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                Canary::new(&name, plan.clone(), Grid::new(index, plan.interval, now), now)
            });
            canary.plan = plan.clone();
            canary.trial = None;
            let due = canary.grid.first(now, count).max(now);
            let due = due.min(canary.grid.next(now, 0.0));
            canary.set_timer(&name, Some(due), &mut self.timers);
            if plan.is_served {
                self.outputs.push_back(canary.serve(&name));
            }
            self.canaries.insert(name, canary);
        }
    }

    /// Begins the rounds that are due, and goes on with those whose pause is over.
    pub(super) fn tick(&mut self, now: Timestamp) {
        while let Some((at, name)) = self.timers.first().cloned()
            && at <= now
        {
            let Some(canary) = self.canaries.get_mut(&name) else {
                self.timers.remove(&(at, name));
                continue;
            };
            canary.set_timer(&name, None, &mut self.timers);
            let act = match &mut canary.trial {
                Some(trial) => trial.waited(now),
                None => canary.begin(&name, now),
            };
            self.follow(&name, act, now);
        }
    }

    /// An errand ended. One that nobody waits for any more is ignored.
    pub(super) fn done(
        &mut self,
        name: &NodeName,
        number: u64,
        result: ErrandResult,
        now: Timestamp,
    ) {
        let Some(canary) = self.canaries.get_mut(name) else { return };
        let Some(trial) = canary.trial.as_mut().filter(|_| canary.waits_for == number) else {
            return;
        };
        let act = match result {
            ErrandResult::Fetched(seen) => trial.fetched(false, &seen, now),
            ErrandResult::Banned(result) => trial.banned(result, now),
        };
        self.follow(name, act, now);
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn state(&self, name: &NodeName) -> Option<CanaryState> {
        self.canaries.get(name).map(|canary| canary.state.clone())
    }

    fn follow(&mut self, name: &NodeName, act: Act, now: Timestamp) {
        let Some(canary) = self.canaries.get_mut(name) else { return };
        let errand = match act {
            Act::FetchNode | Act::FetchOrigin { .. } => {
                let request = FetchRequest::with_headers(Arc::clone(&canary.plan.target));
                Errand::Fetch { side: Side::Cache(name.clone()), request }
            }
            Act::Ban => {
                if canary.plan.is_served && canary.body != canary.next_body {
                    canary.body.clone_from(&canary.next_body);
                    self.outputs.push_back(canary.serve(name));
                }
                Errand::Ban { node: name.clone(), ban: canary.plan.ban.clone() }
            }
            Act::Wait(until) => {
                return canary.set_timer(name, Some(until.max(now)), &mut self.timers);
            }
            Act::Done(finding) => return self.finish(name, &finding, now),
        };
        self.numbers += 1;
        canary.waits_for = self.numbers;
        let id = ErrandId { owner: Owner::Canary(name.clone()), number: self.numbers };
        self.outputs.push_back(Output::Errand { id, errand });
    }

    fn finish(&mut self, name: &NodeName, finding: &Finding, now: Timestamp) {
        let jitter = self.random.f64();
        let Some(canary) = self.canaries.get_mut(name) else { return };
        canary.trial = None;
        let before = canary.state.up;
        if let Finding::Proof(proof) = finding {
            self.outputs.push_back(Output::Proved { node: name.clone(), proof: *proof });
        }
        let was_judged = canary.state.problem.is_none() || before.is_some();
        let problem = problem(finding, &canary.plan);
        canary.state.up = match unjudged(finding, &canary.plan) {
            true => None,
            false => Some(problem.is_none()),
        };
        if problem.is_none() {
            canary.state.last_proven = Some(now);
        }
        canary.state.problem = problem;
        if before != canary.state.up || canary.state.up.is_none() && was_judged {
            self.outputs.push_back(Output::CanaryChanged {
                node: name.clone(),
                up: canary.state.up,
                problem: canary.state.problem.clone(),
            });
        }
        let due = canary.grid.next(now, jitter);
        canary.set_timer(name, Some(due), &mut self.timers);
    }
}

impl Canary {
    fn new(name: &NodeName, plan: CanaryPlan, grid: Grid, now: Timestamp) -> Self {
        let body = body(name, now);
        Self {
            plan,
            state: CanaryState::default(),
            grid,
            timer: None,
            trial: None,
            waits_for: 0,
            next_body: body.clone(),
            body,
        }
    }

    fn begin(&mut self, name: &NodeName, now: Timestamp) -> Act {
        let truth = if self.plan.is_served {
            self.next_body = body(name, now);
            Truth::Known(version(&self.next_body))
        } else {
            Truth::Nowhere
        };
        let within = self.plan.interval.min(LONGEST_PROOF);
        let limits = ProofLimits { within, rounds: BANS, grace: false };
        let (trial, act) = Trial::begin(truth, true, limits);
        self.trial = Some(trial);
        act
    }

    fn serve(&self, name: &NodeName) -> Output {
        Output::ServeCanary { node: name.clone(), body: self.body.clone() }
    }

    fn set_timer(
        &mut self,
        name: &NodeName,
        at: Option<Timestamp>,
        timers: &mut BTreeSet<(Timestamp, NodeName)>,
    ) {
        if let Some(old) = std::mem::replace(&mut self.timer, at) {
            timers.remove(&(old, name.clone()));
        }
        if let Some(at) = at {
            timers.insert((at, name.clone()));
        }
    }
}

/// What the daemon serves in a round that began at `now`: no other one has the same.
fn body(name: &NodeName, now: Timestamp) -> String {
    format!("purgewatch canary\nnode {name}\nround {}\n", now.as_millis())
}

/// The version of an answer with this body.
fn version(body: &str) -> Version {
    Version { status: 200, mark: Mark::Body(Sha256::digest(body.as_bytes()).into()) }
}

/// Whether a round shows nothing of bans: the node answers with an error in place of the object,
/// which its origin most likely failed to deliver.
fn unjudged(finding: &Finding, plan: &CanaryPlan) -> bool {
    let fault = match finding {
        Finding::NodeFailed(fault)
        | Finding::Proof(Proof::Unprovable(Obstacle::NodeFailed(fault))) => *fault,
        _ => return false,
    };
    !plan.is_served && matches!(fault, Fault::Status(500..=599))
}

/// What a round showed, if that is not that bans work.
fn problem(finding: &Finding, plan: &CanaryPlan) -> Option<String> {
    let hint = Hint(plan);
    Some(match finding {
        Finding::NodeFailed(fault)
        | Finding::Proof(Proof::Unprovable(Obstacle::NodeFailed(fault)))
            if unjudged(finding, plan) =>
        {
            format!("the node {fault}: its origin cannot deliver the canary, most likely")
        }
        Finding::Proof(Proof::Proven | Proof::Replaced { .. }) => return None,
        Finding::Proof(Proof::Survived(Survival::SameObject { .. })) => format!(
            "the ban was taken and had no effect: the object that was there before is still \
             served{}",
            if plan.is_served {
                format!("; does the VCL remove the header x-purgewatch-canary?{hint}")
            } else {
                "; does the VCL change the URL or the Host, or not set what ban_headers names?"
                    .to_owned()
            }
        ),
        Finding::Proof(Proof::Survived(survival @ Survival::Replayed)) => survival.to_string(),
        Finding::Proof(Proof::Survived(_)) => format!(
            "the object was fetched again, and is not what this daemon serves: another cache \
             stands behind this node, or another server{hint}"
        ),
        Finding::Proof(Proof::Unprovable(Obstacle::NoIdentity | Obstacle::NotSeenBefore)) => {
            "the ban was taken, and nothing shows whether the object is another one: the VCL \
             removes X-Varnish, and Age and Date are not enough"
                .to_owned()
        }
        Finding::Proof(Proof::Unprovable(obstacle)) => obstacle.to_string(),
        Finding::NotBanned(problem) => problem.text.clone(),
        Finding::NeverHit { status } => {
            format!(
                "answered with status {status} and never a hit: the node does not cache it{hint}"
            )
        }
        Finding::Foreign { status } => {
            format!("answered with status {status}, and not by this daemon{hint}")
        }
        Finding::NotACache => "the answer shows no sign of Varnish (X-Varnish or Via)".to_owned(),
        Finding::NodeFailed(fault) => format!("the node: {fault}"),
    })
}

/// What to look at where the daemon serves the object.
struct Hint<'p>(&'p CanaryPlan);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_served {
            return Ok(());
        }
        let path = self.0.target.url.path_and_query();
        write!(f, "; does the VCL lead {path} to this daemon (purgewatch config example --vcl)?")
    }
}
