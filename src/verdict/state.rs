//! The state of one endpoint and variant at one node, and how observations move it.

use std::time::Duration;

use super::{Comparison, OriginHistory};
use crate::model::{Timestamp, Version};

/// What is known about one endpoint and variant at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nothing learned yet. Neither fresh nor stale.
    Unknown,
    /// The node serves what the origin serves, or something newer.
    Fresh,
    /// The node serves superseded content, for less than `max_stale` so far, or the origin has
    /// not held still for long enough to raise an alarm.
    Lagging,
    /// The node has served superseded content for `max_stale` or longer: this is the alarm.
    Stale,
    /// What the origin serves cannot be told: it differs from itself, or lacks what is compared.
    Unverifiable,
    /// The node does not answer, or not with an acceptable status.
    CacheDown,
    /// The origin does not answer, or not with an acceptable status, and what the node serves is
    /// not known to be superseded.
    OriginDown,
}

impl State {
    /// Every state, in the order of the enumeration.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Fresh,
        Self::Lagging,
        Self::Stale,
        Self::Unverifiable,
        Self::CacheDown,
        Self::OriginDown,
    ];

    /// The `state` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fresh => "fresh",
            Self::Lagging => "lagging",
            Self::Stale => "stale",
            Self::Unverifiable => "unverifiable",
            Self::CacheDown => "cache_down",
            Self::OriginDown => "origin_down",
        }
    }

    /// The state with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.label() == label)
    }
}

/// What is remembered about one endpoint and variant at one node; all of it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// While lagging or stale: from when staleness counts. A lower bound: the node has served
    /// superseded content since then at the latest.
    pub stale_since: Option<Timestamp>,
    /// The run of confirmed mismatches that is under way.
    pub mismatch: Option<Mismatch>,
    /// When the node last answered a probe, or failed to.
    pub last_probe: Option<Timestamp>,
    /// When the node was last seen to be fresh.
    pub last_fresh: Option<Timestamp>,
    /// Failures of the node, or of the origin, in a row.
    pub failures: u8,
}

/// A run of confirmed mismatches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// When the first one was confirmed.
    pub since: Timestamp,
    /// What the node served, from `since` on.
    pub version: Version,
    /// How often in a row the node came with yet another version that the origin was never seen
    /// to serve.
    pub changes: u8,
}

/// After so many versions in a row that the origin was never seen to serve, it is the node that
/// does not agree with itself (a VCL that writes a time stamp, say): no staleness can be told.
const NODE_CHANGES: u8 = 3;

/// A change of state, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// How long the state before had lasted.
    pub after: Duration,
    /// The staleness at this moment, where there is one.
    pub staleness: Option<Duration>,
}

/// When a mismatch is an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a cache may lag behind its origin.
    pub max_stale: Duration,
    /// Failures in a row of the node, or of the origin, before the state says so.
    pub failures: u8,
    /// Whether the origin must have held still before old content is an alarm. Off for a single
    /// check, which has no history to judge by.
    pub settled: bool,
}

impl Verdict {
    /// Nothing learned yet.
    #[must_use]
    pub const fn unknown(now: Timestamp) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            stale_since: None,
            mismatch: None,
            last_probe: None,
            last_fresh: None,
            failures: 0,
        }
    }

    /// How stale the node's content is at least: zero when fresh, growing while it is lagging or
    /// stale, `None` where nothing is known.
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        match self.state {
            State::Fresh => Some(Duration::ZERO),
            State::Lagging | State::Stale => Some(now.since(self.stale_since.unwrap_or(now))),
            _ => None,
        }
    }

    /// Whether the next probe should come sooner than planned: something is not as it should be
    /// and not yet known for sure.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        self.failures > 0 || matches!(self.state, State::Unknown | State::Lagging)
    }

    /// Takes in what one round found out. Returns the change of state, if there is one.
    pub fn apply(
        &mut self,
        comparison: &Comparison,
        history: &OriginHistory,
        limits: Limits,
        now: Timestamp,
    ) -> Option<Transition> {
        self.last_probe = Some(now);
        let next = self.judge(comparison, history, limits, now);
        if next == State::Fresh {
            self.last_fresh = Some(now);
        }
        if next == self.state {
            return None;
        }
        let transition = Transition {
            from: std::mem::replace(&mut self.state, next),
            to: next,
            after: now.since(self.since),
            staleness: self.staleness(now),
        };
        self.since = now;
        Some(transition)
    }

    fn judge(
        &mut self,
        comparison: &Comparison,
        history: &OriginHistory,
        limits: Limits,
        now: Timestamp,
    ) -> State {
        match comparison {
            Comparison::NodeFailed => return self.failed(State::CacheDown, limits),
            Comparison::OriginFailed { node } => {
                return self.origin_failed(node.as_ref(), history, limits, now);
            }
            _ => self.failures = 0,
        }
        match comparison {
            Comparison::Same if history.is_flapping(now) => self.undecided(),
            Comparison::Same => {
                self.mismatch = None;
                self.stale_since = None;
                State::Fresh
            }
            Comparison::Differs { node } => {
                let superseded = history.superseded(node);
                let run = self.mismatched(node, superseded.is_some(), now);
                let (since, changes) = (run.since, run.changes);
                if changes >= NODE_CHANGES
                    || (history.is_flapping(now) && self.state != State::Stale)
                {
                    self.stale_since = None;
                    return State::Unverifiable;
                }
                self.stale_since = Some(superseded.unwrap_or(since));
                self.graded(history, limits, now)
            }
            Comparison::Unverifiable(_) => self.undecided(),
            Comparison::NodeFailed | Comparison::OriginFailed { .. } => self.state,
        }
    }

    /// Continues the run of mismatches, or starts another one: a node that comes with another
    /// version has been refreshed meanwhile, and that one counts from now on.
    fn mismatched(&mut self, node: &Version, known: bool, now: Timestamp) -> &Mismatch {
        let (since, changes) = match self.mismatch.take() {
            Some(run) if run.version == *node => (run.since, 0),
            Some(run) if !known => (now, run.changes.saturating_add(1)),
            _ => (now, 0),
        };
        self.mismatch.insert(Mismatch { since, version: node.clone(), changes })
    }

    /// Neither fresh nor stale: the run of mismatches is over, since nothing confirms it.
    fn undecided(&mut self) -> State {
        self.mismatch = None;
        self.stale_since = None;
        State::Unverifiable
    }

    fn graded(&self, history: &OriginHistory, limits: Limits, now: Timestamp) -> State {
        let staleness = now.since(self.stale_since.unwrap_or(now));
        let settled = self.state == State::Stale || !limits.settled || history.is_settled(now);
        if staleness >= limits.max_stale && settled { State::Stale } else { State::Lagging }
    }

    /// The origin is silent: what is known of it still tells whether the node's content is old.
    fn origin_failed(
        &mut self,
        node: Option<&Version>,
        history: &OriginHistory,
        limits: Limits,
        now: Timestamp,
    ) -> State {
        let Some(node) = node else { return self.failed(State::OriginDown, limits) };
        let superseded = history.superseded(node);
        let same_old = self.mismatch.as_ref().filter(|run| run.version == *node);
        if let Some(since) = superseded.or(same_old.map(|run| run.since)) {
            self.failures = 0;
            self.stale_since = Some(since);
            return self.graded(history, limits, now);
        }
        self.failed(State::OriginDown, limits)
    }

    /// One failure may be a hiccup: the state says so from the second in a row.
    fn failed(&mut self, state: State, limits: Limits) -> State {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= limits.failures { state } else { self.state }
    }
}
