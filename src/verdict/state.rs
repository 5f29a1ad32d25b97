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
    /// The staleness at this moment, where there is one; of what became fresh, the staleness that
    /// it had until then.
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
    pub fn is_pressing(&self, limits: Limits) -> bool {
        let unconfirmed = (1..limits.failures).contains(&self.failures);
        unconfirmed || matches!(self.state, State::Unknown | State::Lagging)
    }

    /// Whether `version`, served by the node, is old whatever its order says: the origin left it
    /// behind, or the run of mismatches that is under way is about it.
    #[must_use]
    pub fn is_old(&self, version: &Version, history: &OriginHistory, now: Timestamp) -> bool {
        let under_way = self.mismatch.as_ref().is_some_and(|run| run.version == *version);
        under_way || history.has_left(version, now)
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
        let before = self.staleness(now);
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
            staleness: if next == State::Fresh { before } else { self.staleness(now) },
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
            Comparison::NodeFailed(_) => return self.failed(State::CacheDown, limits),
            Comparison::OriginFailed { node, .. } => {
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
                let stale_since = superseded.unwrap_or(since);
                let long_ago = OriginHistory::is_long_ago(stale_since, now);
                let doubtful = history.is_flapping(now) && self.state != State::Stale && !long_ago;
                if changes >= NODE_CHANGES || doubtful {
                    self.stale_since = None;
                    return State::Unverifiable;
                }
                self.stale_since = Some(stale_since);
                self.graded(history.is_settled(now) || long_ago, limits, now)
            }
            Comparison::Unverifiable(_) => self.undecided(),
            Comparison::NodeFailed(_) | Comparison::OriginFailed { .. } => self.state,
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

    fn graded(&self, settled: bool, limits: Limits, now: Timestamp) -> State {
        let staleness = now.since(self.stale_since.unwrap_or(now));
        let settled = settled || self.state == State::Stale || !limits.settled;
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
        if history.is_in_doubt(now) && self.state != State::Stale {
            // What could not be told while the origin spoke is not told by its silence.
            return self.failed(State::OriginDown, limits);
        }
        let superseded = history.superseded(node);
        let same_old = self.mismatch.as_ref().filter(|run| run.version == *node);
        if let Some(since) = superseded.or(same_old.map(|run| run.since)) {
            self.failures = 0;
            self.stale_since = Some(since);
            // A silent origin cannot hold still; that it did not go back and forth is enough.
            return self.graded(true, limits, now);
        }
        self.failed(State::OriginDown, limits)
    }

    /// One failure may be a hiccup: the state says so from the second in a row.
    fn failed(&mut self, state: State, limits: Limits) -> State {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= limits.failures { state } else { self.state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mark;
    use crate::verdict::{Doubt, Fault};

    const LIMITS: Limits =
        Limits { max_stale: Duration::from_secs(60), failures: 2, settled: true };

    struct Case {
        history: OriginHistory,
        verdict: Verdict,
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn version(tag: &str) -> Version {
        Version { status: 200, mark: Mark::Etag(tag.into()) }
    }

    impl Case {
        fn new() -> Self {
            Self { history: OriginHistory::default(), verdict: Verdict::unknown(at(0)) }
        }

        /// A round in which the origin agrees with itself.
        fn round(&mut self, seconds: u64, origin: &str, node: &str) -> State {
            self.history.observe(&version(origin), at(seconds));
            self.history.round_agreed();
            let comparison = if origin == node {
                Comparison::Same
            } else {
                Comparison::Differs { node: version(node) }
            };
            self.apply(seconds, &comparison)
        }

        fn apply(&mut self, seconds: u64, comparison: &Comparison) -> State {
            self.verdict.apply(comparison, &self.history, LIMITS, at(seconds));
            self.verdict.state
        }

        fn staleness(&self, seconds: u64) -> Option<u64> {
            self.verdict.staleness(at(seconds)).map(|d| d.as_secs())
        }
    }

    #[test]
    fn a_silent_purge_failure_becomes_an_alarm_and_a_purge_ends_it() {
        let mut case = Case::new();
        assert_eq!(case.staleness(0), None);
        assert_eq!(case.round(10, "v1", "v1"), State::Fresh);
        assert_eq!(case.staleness(20), Some(0));
        assert_eq!(case.round(40, "v2", "v1"), State::Lagging);
        assert_eq!(case.staleness(55), Some(15), "it grows between probes");
        assert_eq!(case.round(70, "v2", "v1"), State::Lagging);
        assert_eq!(case.round(100, "v2", "v1"), State::Stale);
        assert_eq!(case.staleness(160), Some(120));
        assert_eq!(case.round(170, "v2", "v2"), State::Fresh);
        assert_eq!(case.verdict.last_fresh, Some(at(170)));
    }

    #[test]
    fn a_version_never_seen_at_the_origin_counts_from_the_first_mismatch() {
        let mut case = Case::new();
        assert_eq!(case.round(10, "v2", "v1"), State::Lagging);
        assert_eq!(case.staleness(10), Some(0));
        case.round(40, "v2", "v1");
        assert_eq!(case.round(70, "v2", "v1"), State::Stale);
        assert_eq!(case.staleness(70), Some(60));
    }

    #[test]
    fn a_node_that_is_refreshed_with_unseen_versions_is_not_stale() {
        let mut case = Case::new();
        for step in 0..20 {
            let state = case.round(step * 30, "v", &format!("n{step}"));
            assert_ne!(state, State::Stale);
            assert!(step < 4 || state == State::Unverifiable, "{step}");
        }
    }

    #[test]
    fn old_content_stays_an_alarm_while_the_origin_is_down() {
        let mut case = Case::new();
        let down = |node: &str| Comparison::OriginFailed {
            fault: Fault::Status(503),
            node: Some(version(node)),
        };
        case.round(0, "v1", "v1");
        for seconds in [30, 60, 90] {
            case.round(seconds, "v2", "v1");
        }
        assert_eq!(case.verdict.state, State::Stale);
        for seconds in [120, 150, 180] {
            assert_eq!(case.apply(seconds, &down("v1")), State::Stale);
        }
        assert_eq!(case.apply(210, &down("v2")), State::Stale, "one failure says nothing");
        assert_eq!(case.apply(240, &down("v2")), State::OriginDown);
        assert_eq!(case.staleness(240), None, "not known to be old, not known to be fresh");
    }

    #[test]
    fn an_origin_that_goes_down_right_after_its_change_hides_nothing() {
        let mut case = Case::new();
        case.round(0, "v1", "v1");
        assert_eq!(case.round(30, "v2", "v1"), State::Lagging);
        let down =
            Comparison::OriginFailed { fault: Fault::Status(500), node: Some(version("v1")) };
        assert_eq!(case.apply(60, &down), State::Lagging);
        assert_eq!(case.apply(90, &down), State::Stale);
        assert_eq!(case.staleness(90), Some(60));
    }

    #[test]
    fn an_origin_that_cannot_be_verified_and_goes_down_raises_no_alarm() {
        let mut case = Case::new();
        case.round(0, "v1", "v1");
        case.history.observe(&version("x1"), at(30));
        case.history.round_disagreed();
        let doubt = Comparison::Unverifiable(Doubt::OriginDisagrees);
        assert_eq!(case.apply(30, &doubt), State::Unverifiable);
        let down =
            Comparison::OriginFailed { fault: Fault::Status(500), node: Some(version("v1")) };
        for seconds in [60, 90, 120, 150] {
            assert_ne!(case.apply(seconds, &down), State::Stale);
        }
        assert_eq!(case.verdict.state, State::OriginDown);
    }

    #[test]
    fn one_failure_is_a_hiccup_and_two_are_a_state() {
        let mut case = Case::new();
        let failed = Comparison::NodeFailed(Fault::Status(503));
        case.round(0, "v1", "v1");
        assert_eq!(case.apply(30, &failed), State::Fresh);
        assert!(case.verdict.is_pressing(LIMITS));
        assert_eq!(case.apply(32, &failed), State::CacheDown);
        assert!(!case.verdict.is_pressing(LIMITS));
        assert_eq!(case.round(60, "v1", "v1"), State::Fresh);
    }

    #[test]
    fn an_origin_that_flaps_raises_no_alarm() {
        let mut case = Case::new();
        for step in 0..2_000 {
            // Replicas in turns of one to three rounds; the node keeps what it has.
            let origin = if step * 7 % 5 < 2 { "a" } else { "b" };
            let state = case.round(step * 10, origin, "a");
            assert_ne!(state, State::Stale, "round {step}");
            assert!(step < 10 || state == State::Unverifiable, "round {step}: {state:?}");
        }
    }

    #[test]
    fn doubt_is_neither_fresh_nor_stale() {
        let mut case = Case::new();
        case.round(0, "v1", "v1");
        let doubt = Comparison::Unverifiable(Doubt::OriginDisagrees);
        assert_eq!(case.apply(30, &doubt), State::Unverifiable);
        assert_eq!(case.staleness(40), None);
        assert_eq!(case.verdict.last_fresh, Some(at(0)));
    }

    #[test]
    fn labels_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::from_label(state.label()), Some(state));
        }
    }
}
