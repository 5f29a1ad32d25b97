//! What an origin was seen to serve for one endpoint and variant, and when.

use std::time::Duration;

use crate::model::{Relation, Timestamp, Version};

/// How many versions are remembered. A node that serves an older one still is no match for the
/// origin; only its staleness then counts from the first confirmed mismatch.
pub const VERSIONS_KEPT: usize = 32;

/// How many returns to an earlier version are remembered.
const RETURNS_KEPT: usize = 8;

/// How long a return to an earlier version casts doubt on what the origin says.
const RETURNS_REMEMBERED: Duration = Duration::from_secs(3_600);

/// Rounds in a row without a step back before an origin that never went back to an earlier version
/// counts as settled.
const ROUNDS_TO_SETTLE: u32 = 3;

/// One version of an origin's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The version.
    pub version: Version,
    /// When the origin was first seen to serve it.
    pub first_seen: Timestamp,
    /// When it was last seen to serve it.
    pub last_seen: Timestamp,
    /// When the origin was first seen to serve another one after `last_seen`; `None` while it is
    /// the current version.
    pub superseded: Option<Timestamp>,
}

/// The versions that an origin was seen to serve: the last one is the current one.
///
/// An origin that goes back and forth between versions (replicas that are not in step, a slow
/// deployment) is not believed until it has gone without that for longer: each return to an
/// earlier version within the last hour asks for more rounds. One that only moves on, however
/// often, is believed: waiting until it stands still would excuse a frozen cache for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginHistory {
    seen: Vec<Seen>,
    returns: Vec<Timestamp>,
    steady_rounds: u32,
    /// Whether the last round that heard of the origin found it at odds with itself.
    disagreed: bool,
}

/// Parts of a history, as they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryParts {
    /// The versions, the current one last.
    pub seen: Vec<Seen>,
    /// When the origin went back to an earlier version, oldest first.
    pub returns: Vec<Timestamp>,
}

/// What an answer of the origin changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The same version as before.
    None,
    /// The first version ever seen.
    First,
    /// A version that was not seen before.
    New,
    /// A version that had been superseded.
    Return,
}

impl OriginHistory {
    /// A history as it was stored. More than is kept is cut off at its old end.
    #[must_use]
    pub fn restore(mut parts: HistoryParts) -> Self {
        let excess = parts.seen.len().saturating_sub(VERSIONS_KEPT);
        parts.seen.drain(..excess);
        let excess = parts.returns.len().saturating_sub(RETURNS_KEPT);
        parts.returns.drain(..excess);
        if let Some(current) = parts.seen.last_mut() {
            current.superseded = None;
        }
        Self { seen: parts.seen, returns: parts.returns, steady_rounds: 0, disagreed: false }
    }

    /// Takes note of what the origin answered at `at`.
    pub fn observe(&mut self, version: &Version, at: Timestamp) -> Change {
        if let Some(current) = self.seen.last_mut() {
            if current.version == *version {
                current.last_seen = current.last_seen.max(at);
                return Change::None;
            }
            current.superseded = Some(at);
            if version.relation_to(&current.version) == Relation::Older {
                self.steady_rounds = 0;
            }
        }
        if let Some(place) = self.seen.iter().position(|seen| seen.version == *version) {
            let mut again = self.seen.remove(place);
            again.last_seen = at;
            again.superseded = None;
            self.seen.push(again);
            if self.returns.len() == RETURNS_KEPT {
                self.returns.remove(0);
            }
            self.returns.push(at);
            self.steady_rounds = 0;
            return Change::Return;
        }
        let change = if self.seen.is_empty() { Change::First } else { Change::New };
        if self.seen.len() == VERSIONS_KEPT {
            self.seen.remove(0);
        }
        let version = version.clone();
        self.seen.push(Seen { version, first_seen: at, last_seen: at, superseded: None });
        change
    }

    /// Takes note that a whole round brought nothing but the current version from the origin.
    pub fn round_agreed(&mut self) {
        self.steady_rounds = self.steady_rounds.saturating_add(1);
        self.disagreed = false;
    }

    /// Takes note that the origin differed from itself throughout a round.
    pub fn round_disagreed(&mut self) {
        self.steady_rounds = 0;
        self.disagreed = true;
    }

    /// The version that the origin serves, as far as is known.
    #[must_use]
    pub fn current(&self) -> Option<&Seen> {
        self.seen.last()
    }

    /// What is remembered of `version`; `None` when it was never seen, or too long ago.
    #[must_use]
    pub fn seen(&self, version: &Version) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.version == *version)
    }

    /// Whether the origin was seen to serve more than one version.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.seen.len() > 1
    }

    /// When `version` was superseded; `None` when it is the current one or was never seen.
    #[must_use]
    pub fn superseded(&self, version: &Version) -> Option<Timestamp> {
        self.seen(version)?.superseded
    }

    /// Whether the origin went back and forth of late and has not stopped that since: what it says
    /// now may not be what it says next.
    #[must_use]
    pub fn is_flapping(&self, now: Timestamp) -> bool {
        self.recent_returns(now) >= 2 && !self.is_settled(now)
    }

    /// Whether the last that was heard of the origin is no ground to judge a node by.
    #[must_use]
    pub fn is_in_doubt(&self, now: Timestamp) -> bool {
        self.disagreed || self.is_flapping(now)
    }

    /// Whether the origin has gone without a step back for long enough that old content in a cache
    /// is an alarm.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        self.steady_rounds >= ROUNDS_TO_SETTLE * (1 + self.recent_returns(now))
    }

    /// Whether the origin served `version`, left it behind and is believed not to come back to it:
    /// then it is old, even where its order makes it look newer (a release taken back, a counter
    /// that started over).
    #[must_use]
    pub fn has_left(&self, version: &Version, now: Timestamp) -> bool {
        self.superseded(version).is_some() && self.is_settled(now)
    }

    /// The parts to store.
    #[must_use]
    pub fn parts(&self) -> HistoryParts {
        HistoryParts { seen: self.seen.clone(), returns: self.returns.clone() }
    }

    /// Whether what an origin did since `since` outweighs that it goes back and forth: it would
    /// have come back to a version by now.
    #[must_use]
    pub fn is_long_ago(since: Timestamp, now: Timestamp) -> bool {
        now.since(since) >= RETURNS_REMEMBERED
    }

    fn recent_returns(&self, now: Timestamp) -> u32 {
        let recent = |at: &&Timestamp| now.since(**at) < RETURNS_REMEMBERED;
        u32::try_from(self.returns.iter().filter(recent).count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mark;

    fn version(tag: &str) -> Version {
        Version { status: 200, mark: Mark::Etag(tag.into()) }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_version_is_superseded_by_the_first_answer_after_it() {
        let mut history = OriginHistory::default();
        assert_eq!(history.observe(&version("a"), at(10)), Change::First);
        assert_eq!(history.observe(&version("a"), at(40)), Change::None);
        assert_eq!(history.superseded(&version("a")), None);
        assert_eq!(history.observe(&version("b"), at(70)), Change::New);
        assert_eq!(history.superseded(&version("a")), Some(at(70)));
        history.observe(&version("c"), at(100));
        assert_eq!(history.superseded(&version("a")), Some(at(70)));
        assert_eq!(history.superseded(&version("b")), Some(at(100)));
        assert_eq!(history.superseded(&version("x")), None);
    }

    #[test]
    fn a_roll_back_makes_the_old_version_current_again() {
        let mut history = OriginHistory::default();
        history.observe(&version("a"), at(0));
        history.observe(&version("b"), at(10));
        assert_eq!(history.observe(&version("a"), at(20)), Change::Return);
        assert_eq!(history.superseded(&version("a")), None);
        assert_eq!(history.superseded(&version("b")), Some(at(20)));
    }

    #[test]
    fn each_return_asks_for_more_rounds_of_stillness() {
        let mut history = OriginHistory::default();
        history.observe(&version("a"), at(0));
        let settle = |history: &mut OriginHistory| {
            (0..100).find(|_| {
                let settled = history.is_settled(at(200));
                history.round_agreed();
                settled
            })
        };
        assert_eq!(settle(&mut history), Some(3));
        history.observe(&version("b"), at(100));
        history.observe(&version("a"), at(110));
        assert!(!history.is_flapping(at(111)), "one roll-back is no flapping");
        assert_eq!(settle(&mut history), Some(6));
        history.observe(&version("b"), at(120));
        assert!(history.is_flapping(at(121)));
        assert_eq!(settle(&mut history), Some(9));
        assert!(!history.is_flapping(at(130)), "it held still");
        history.observe(&version("a"), at(140));
        assert!(history.is_flapping(at(150)));
        assert!(!history.is_flapping(at(150 + 3_600)), "long ago");
    }

    #[test]
    fn it_is_bounded() {
        let mut history = OriginHistory::default();
        for n in 0..1_000 {
            history.observe(&version(&n.to_string()), at(n));
            history.observe(&version("0"), at(n));
        }
        let parts = history.parts();
        assert!(parts.seen.len() <= VERSIONS_KEPT && parts.returns.len() <= RETURNS_KEPT);
        assert_eq!(OriginHistory::restore(parts.clone()).parts(), parts);
    }
}
