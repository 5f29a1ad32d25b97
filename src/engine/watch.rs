//! One watched variant of an endpoint: its history, its nodes, its schedule.

use std::time::Duration;

use super::explain::Inquiry;
use super::hurry::{Hurry, Invalidated};
use super::plan::WatchPlan;
use super::round::{Finding, Round};
use super::schedule::Grid;
use super::{HistoryRecord, VerdictRecord};
use crate::model::{NodeName, Timestamp, Version};
use crate::verdict::cause::OriginChange;
use crate::verdict::{
    Change, Comparison, Condition, Doubt, Fault, FetchRequest, Limits, Observation, OriginHistory,
    ProbeResult, Sight, State, Transition, Verdict,
};

/// After so many conditional questions the origin is asked unconditionally once: some answer 304
/// for ever.
const CONDITIONAL_ROUNDS: u8 = 10;

/// For so long at most questions are conditional: many rounds would be days where they are rare.
const CONDITIONAL_FOR: Duration = Duration::from_secs(330);

/// After so many hurried rounds in a row the watch goes back to its own pace.
const HURRIED_ROUNDS: u8 = 30;

/// One variant of an endpoint.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) plan: WatchPlan,
    pub(super) definition: u64,
    pub(super) history: OriginHistory,
    pub(super) places: Vec<Place>,
    pub(super) grid: Grid,
    pub(super) due: Timestamp,
    /// The timer that counts; earlier ones of this watch are void.
    pub(super) timer: u64,
    pub(super) round: Option<Round>,
    pub(super) finished_rounds: u64,
    pub(super) hurry: Hurry,
    condition: Option<Condition>,
    /// When an answer last came with its content.
    answered: Timestamp,
    conditional_rounds: u8,
    hurried_rounds: u8,
}

/// One node of a watch.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) node: NodeName,
    pub(super) verdict: Verdict,
    pub(super) age: Option<u64>,
    pub(super) version: Option<Version>,
    pub(super) probes: [u64; ProbeResult::ALL.len()],
    pub(super) reason: Option<Reason>,
    /// When the origin changed and this node was not seen to have followed yet.
    pub(super) behind_since: Option<Timestamp>,
    pub(super) inquiry: Inquiry,
    /// When the round began, as a moment, that last found it fresh.
    pub(super) fresh_as_of: Option<u64>,
    pub(super) invalidated: Option<Invalidated>,
}

/// Why a state is what it is, where there is more to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    Comparison(Comparison),
    /// What the node serves is known to be old, and the origin is silent now.
    OldBesides(Fault),
    Flapping,
    NodeDisagrees,
    NotACache,
}

/// What a round changed at one place.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) place: usize,
    pub(super) transition: Option<Transition>,
    /// The time from the origin's change to the round that saw the node follow it.
    pub(super) time_to_fresh: Option<Duration>,
    pub(super) record: bool,
    /// Whether it is stale beyond doubt: confirmed in this round, by an origin that answered, agreed
    /// with itself and is settled.
    pub(super) is_surely_stale: bool,
}

impl Watch {
    pub(super) fn new(plan: WatchPlan, grid: Grid, now: Timestamp) -> Self {
        let definition = plan.definition();
        let places = plan.nodes.iter().map(|node| Place::new(node.clone(), now)).collect();
        Self {
            plan,
            definition,
            history: OriginHistory::default(),
            places,
            grid,
            due: now,
            timer: 0,
            round: None,
            finished_rounds: 0,
            hurry: Hurry::default(),
            condition: None,
            answered: now,
            conditional_rounds: 0,
            hurried_rounds: 0,
        }
    }

    /// Takes over a plan with the same definition: what is known stays known.
    pub(super) fn replan(&mut self, plan: WatchPlan, now: Timestamp) {
        let mut old = std::mem::take(&mut self.places);
        for node in &plan.nodes {
            let kept = old.iter().position(|place| place.node == *node);
            let place = kept.map(|at| old.swap_remove(at));
            let mut place = place.unwrap_or_else(|| Place::new(node.clone(), now));
            place.inquiry.interrupt();
            self.places.push(place);
        }
        self.plan = plan;
        self.round = None;
    }

    /// The request that opens a round: conditional where that can save the origin work.
    pub(super) fn origin_request(&mut self, now: Timestamp) -> FetchRequest {
        let conditional = self.conditional_rounds < CONDITIONAL_ROUNDS
            && now.since(self.answered) < CONDITIONAL_FOR;
        let condition = self.condition.clone().filter(|_| conditional);
        self.conditional_rounds = if condition.is_some() { self.conditional_rounds + 1 } else { 0 };
        FetchRequest { condition, ..FetchRequest::new(self.plan.target.clone()) }
    }

    /// The request that confirms a mismatch: unconditional, and on a connection of its own, which
    /// may lead to another replica.
    pub(super) fn confirmation(&self) -> FetchRequest {
        FetchRequest { new_connection: true, ..FetchRequest::new(self.plan.target.clone()) }
    }

    pub(super) fn node_request(&self) -> FetchRequest {
        FetchRequest::new(self.plan.target.clone())
    }

    /// Takes in an answer of the origin. Returns what the history made of it.
    pub(super) fn origin_seen(&mut self, observation: &Observation) -> (Sight, Change) {
        let sight = Sight::from(observation);
        let Sight::Version(version) = &sight else {
            self.condition = None;
            return (sight, Change::None);
        };
        let change = self.history.observe(version, observation.finished);
        if let Some(answer) = observation.answer().filter(|answer| answer.status != 304) {
            self.answered = observation.finished;
            self.condition = (!answer.validators.is_empty()).then(|| Condition {
                validators: answer.validators.clone(),
                version: version.clone(),
            });
        }
        if matches!(change, Change::New | Change::Return) {
            for place in &mut self.places {
                place.behind_since.get_or_insert(observation.finished);
            }
        }
        (sight, change)
    }

    /// Takes in an answer of a node. Returns also whether what it showed is known to be old.
    pub(super) fn node_seen(
        &mut self,
        place: usize,
        observation: &Observation,
        now: Timestamp,
    ) -> (Sight, bool) {
        let sight = Sight::from(observation);
        let mut is_old = false;
        if let Some(place) = self.places.get_mut(place) {
            let result = observation.result();
            let counted = ProbeResult::ALL.iter().position(|known| *known == result);
            if let Some(count) = counted.and_then(|at| place.probes.get_mut(at)) {
                *count += 1;
            }
            place.age = observation.answer().and_then(|answer| answer.cache.age);
            place.version = observation.version().cloned();
            is_old = place
                .version
                .as_ref()
                .is_some_and(|version| place.verdict.is_old(version, &self.history, now));
            place.reason = (result == ProbeResult::NotACache).then_some(Reason::NotACache);
        }
        (sight, is_old)
    }

    /// Draws the conclusions of a finished round.
    pub(super) fn conclude(
        &mut self,
        finding: Finding,
        once: bool,
        now: Timestamp,
    ) -> Vec<Outcome> {
        self.round = None;
        self.finished_rounds += 1;
        let at_odds = Comparison::Unverifiable(Doubt::OriginDisagrees);
        let counts = self.hurry.counts(self.pressing_pace(), now);
        let began = self.hurry.began();
        if finding.comparisons.iter().any(|(_, comparison)| *comparison == at_odds) {
            self.history.round_disagreed();
        } else if finding.origin_agreed && counts {
            self.history.round_agreed();
        }
        let limits = self.limits(once);
        let is_sure = finding.origin_agreed && self.history.is_settled(now);
        let mut outcomes = Vec::with_capacity(finding.comparisons.len());
        for (at, comparison) in finding.comparisons {
            let Some(place) = self.places.get_mut(at) else { continue };
            let failed =
                matches!(comparison, Comparison::NodeFailed(_) | Comparison::OriginFailed { .. });
            if failed && !counts {
                continue;
            }
            let run = place.verdict.mismatch.as_ref().map(|run| run.since);
            let transition = place.verdict.apply(&comparison, &self.history, limits, now);
            let state = place.verdict.state;
            if let Some(reason) = reason(&comparison, state, &self.history, now) {
                place.reason = Some(reason);
            }
            let followed = state == State::Fresh && comparison == Comparison::Same;
            let since = if followed { place.followed(began) } else { None };
            outcomes.push(Outcome {
                place: at,
                transition,
                time_to_fresh: since.map(|since| now.since(since)),
                record: transition.is_some()
                    || run != place.verdict.mismatch.as_ref().map(|run| run.since),
                is_surely_stale: is_sure
                    && state == State::Stale
                    && matches!(comparison, Comparison::Differs { .. }),
            });
        }
        outcomes
    }

    /// When the next round is due. `jitter` is from 0 to 1.
    pub(super) fn next_due(&mut self, jitter: f64, now: Timestamp) -> Timestamp {
        let limits = self.limits(false);
        let hurry = self.places.iter().any(|place| place.verdict.is_pressing(limits));
        self.hurried_rounds = match hurry {
            true => self.hurried_rounds.saturating_add(u8::from(self.hurry.has_counted(now))),
            false => 0,
        };
        let planned = self.grid.next(now, jitter);
        if !hurry || self.hurried_rounds > HURRIED_ROUNDS {
            return planned;
        }
        planned.min(now + self.pressing_pace().mul_f64(0.9 + 0.2 * jitter))
    }

    /// The time from one round to the next while something is not known for sure.
    fn pressing_pace(&self) -> Duration {
        (self.plan.max_stale / 5).max(Duration::from_secs(1)).min(self.plan.interval)
    }

    /// When the origin went over from `served`, which `place` still serves, to another version.
    ///
    /// An answer may have been on its way for as long as a fetch may take: what it shows was so
    /// then, at the latest.
    pub(super) fn change_from(&self, served: &Version, place: &Place) -> OriginChange {
        match self.history.seen(served) {
            Some(seen) => OriginChange {
                after: Some(seen.last_seen.earlier_by(self.plan.target.timeout)),
                before: seen.superseded,
            },
            None => OriginChange {
                after: None,
                before: place.verdict.mismatch.as_ref().map(|run| run.since),
            },
        }
    }

    pub(super) fn history_record(&self) -> HistoryRecord {
        HistoryRecord {
            endpoint: self.plan.endpoint.clone(),
            variant: self.plan.variant.clone(),
            definition: self.definition,
            parts: self.history.parts(),
        }
    }

    pub(super) fn verdict_record(&self, place: &Place, now: Timestamp) -> VerdictRecord {
        VerdictRecord {
            endpoint: self.plan.endpoint.clone(),
            variant: self.plan.variant.clone(),
            node: place.node.clone(),
            definition: self.definition,
            verdict: place.verdict.clone(),
            recorded: now,
        }
    }

    fn limits(&self, once: bool) -> Limits {
        if once {
            Limits { max_stale: Duration::ZERO, failures: 1, settled: false }
        } else {
            Limits { max_stale: self.plan.max_stale, failures: 2, settled: true }
        }
    }
}

impl Place {
    /// A round that began at that moment has seen it fresh: since when it was to be, if an origin's
    /// change or an invalidation asked for that.
    fn followed(&mut self, began: Option<u64>) -> Option<Timestamp> {
        self.fresh_as_of = began;
        let invalidated = self.invalidated.take_if(|invalidated| began > Some(invalidated.taken));
        let received = invalidated.map(|invalidated| invalidated.received);
        self.behind_since.take().into_iter().chain(received).min()
    }

    pub(super) fn new(node: NodeName, now: Timestamp) -> Self {
        Self {
            node,
            verdict: Verdict::unknown(now),
            age: None,
            version: None,
            probes: [0; ProbeResult::ALL.len()],
            reason: None,
            behind_since: None,
            inquiry: Inquiry::default(),
            fresh_as_of: None,
            invalidated: None,
        }
    }
}

fn reason(
    comparison: &Comparison,
    state: State,
    history: &OriginHistory,
    now: Timestamp,
) -> Option<Reason> {
    match (comparison, state) {
        (Comparison::Same | Comparison::Differs { .. }, State::Unverifiable)
            if history.is_flapping(now) =>
        {
            Some(Reason::Flapping)
        }
        (Comparison::Differs { .. }, State::Unverifiable) => Some(Reason::NodeDisagrees),
        (Comparison::OriginFailed { fault, .. }, State::Lagging | State::Stale) => {
            Some(Reason::OldBesides(*fault))
        }
        (Comparison::Same, _) => None,
        _ => Some(Reason::Comparison(comparison.clone())),
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Comparison(Comparison::Same) => f.write_str("the node serves what the origin serves"),
            Self::Comparison(Comparison::Differs { .. }) => {
                f.write_str("the node serves other content than the origin, which was asked twice")
            }
            Self::Comparison(Comparison::Unverifiable(doubt)) => write!(f, "{doubt}"),
            Self::Comparison(Comparison::NodeFailed(fault)) => write!(f, "the node: {fault}"),
            Self::Comparison(Comparison::OriginFailed { fault, .. }) => {
                write!(f, "the origin: {fault}")
            }
            Self::OldBesides(fault) => write!(
                f,
                "the node serves what the origin had stopped serving before it went silent (the \
                 origin: {fault})"
            ),
            Self::Flapping => f.write_str(
                "the origin goes back and forth between versions: replicas out of step, or a deployment under way",
            ),
            Self::NodeDisagrees => {
                f.write_str("the node serves yet another version each time, none of them the origin's")
            }
            Self::NotACache => f.write_str(
                "the node's answer shows no sign of Varnish (X-Varnish, Via): is its address a cache?",
            ),
        }
    }
}
