//! From observations to a proof, step by step.

use std::time::Duration;

use super::super::{Comparison, Doubt, Fault, Sandwich, Sight, compare};
use super::serving::{Before, Maker, Sameness, Serving};
use super::{Obstacle, Proof, Survival, Uncompared};
use crate::model::Timestamp;

/// How often a sandwich is opened anew because the origin changed meanwhile or did not answer.
const ATTEMPTS: u8 = 3;

/// The pause after an answer that says nothing; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long and how often it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofLimits {
    /// From the invalidation on; an answer under way at the end still counts.
    pub within: Duration,
    /// How often the invalidation is made at most, the first one included.
    pub rounds: u32,
    /// Whether the old object may be served for some time yet, as after a soft purge, which leaves
    /// it to grace.
    pub grace: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask the origin, and tell [`Prover::origin`]. The question has to be asked after `since`.
    AskOrigin {
        /// When the invalidation was made, or the node answered.
        since: Timestamp,
        /// Whether it confirms a difference: then a connection of its own may lead to another
        /// replica.
        confirms: bool,
    },
    /// Fetch from the node, and tell [`Prover::node`].
    AskNode,
    /// Invalidate once more, and tell [`Prover::repeated`].
    Repeat,
    /// Wait until then, and tell [`Prover::waited`].
    Pause {
        /// Until when.
        until: Timestamp,
    },
    /// This is the result.
    Done(Proof),
}

/// The way to a proof for one URL at one node. Begins when the invalidation was taken.
#[derive(Debug, Clone)]
pub struct Prover {
    limits: ProofLimits,
    has_origin: bool,
    before: Before,
    began: Timestamp,
    /// When the last invalidation was taken.
    invalidated: Timestamp,
    round: u32,
    attempt: u8,
    pause: Duration,
    /// What follows a pause.
    after_pause: AfterPause,
    origin: Option<Sight>,
    confirming: bool,
    node: Option<Serving>,
    /// Whether what the node served last was shown to be old.
    seen_old: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterPause {
    Compare,
    Repeat,
}

impl Prover {
    /// Begins at `now`, right after the invalidation was taken. Without an origin, content is not
    /// compared.
    #[must_use]
    pub fn begin(
        before: Before,
        has_origin: bool,
        limits: ProofLimits,
        now: Timestamp,
    ) -> (Self, Step) {
        let mut prover = Self {
            limits,
            has_origin,
            before,
            began: now,
            invalidated: now,
            round: 1,
            attempt: 1,
            pause: FIRST_PAUSE,
            after_pause: AfterPause::Compare,
            origin: None,
            confirming: false,
            node: None,
            seen_old: false,
        };
        let step = prover.open();
        (prover, step)
    }

    /// The origin showed this.
    pub fn origin(&mut self, sight: Sight, now: Timestamp) -> Step {
        if self.confirming {
            return self.close(sight, now);
        }
        self.origin = Some(sight);
        Step::AskNode
    }

    /// The node served this.
    pub fn node(&mut self, serving: Serving, now: Timestamp) -> Step {
        let failed = match &serving.sight {
            Sight::Failed(fault) => Some(*fault),
            Sight::Version(_) | Sight::Unversioned(_) => None,
        };
        let is_replay = self.before.serving().is_some_and(|before| serving.is_replay_of(before));
        let (is_varnish, same) = (serving.is_varnish, self.before.sameness(&serving));
        let sight = serving.sight.clone();
        self.node = Some(serving);
        if let Some(fault) = failed {
            return self.later(Proof::Unprovable(Obstacle::NodeFailed(fault)), now);
        }
        if !is_varnish {
            return Step::Done(Proof::Unprovable(Obstacle::NotACache));
        }
        if is_replay {
            return Step::Done(Proof::Survived(Survival::Replayed));
        }
        if let Sameness::Same(basis) = same {
            let survived = Proof::Survived(Survival::SameObject { basis });
            return if self.limits.grace {
                self.later(survived, now)
            } else {
                Step::Done(survived)
            };
        }
        let Some(origin) = &self.origin else { return self.uncompared(Uncompared::NoOrigin) };
        match compare(origin, &sight, None, self.is_from_before(&sight)) {
            Sandwich::Done(comparison) => self.compared(&comparison, now),
            Sandwich::Confirm | Sandwich::Unsettled => {
                self.confirming = true;
                Step::AskOrigin { since: now, confirms: true }
            }
        }
    }

    /// The invalidation was made once more, or failed.
    pub fn repeated(&mut self, taken: bool, now: Timestamp) -> Step {
        if !taken {
            return Step::Done(self.old_proof());
        }
        self.round += 1;
        self.attempt = 1;
        self.invalidated = now;
        self.open()
    }

    /// A pause is over.
    pub fn waited(&mut self) -> Step {
        match self.after_pause {
            AfterPause::Compare => self.open(),
            AfterPause::Repeat => Step::Repeat,
        }
    }

    /// What is known when there is no more time.
    #[must_use]
    pub fn cut(&self) -> Proof {
        match &self.node {
            None => Proof::Unprovable(Obstacle::TimeUp),
            Some(_) if self.seen_old => self.old_proof(),
            Some(serving) => match (&serving.sight, self.before.sameness(serving)) {
                (Sight::Failed(fault), _) => Proof::Unprovable(Obstacle::NodeFailed(*fault)),
                (_, Sameness::Same(basis)) => Proof::Survived(Survival::SameObject { basis }),
                _ => Proof::Unprovable(Obstacle::TimeUp),
            },
        }
    }

    /// What was there before.
    #[must_use]
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// What the node served last, if anything.
    #[must_use]
    pub fn last(&self) -> Option<&Serving> {
        self.node.as_ref()
    }

    /// What the origin served last, if anything.
    #[must_use]
    pub fn last_origin(&self) -> Option<&Sight> {
        self.origin.as_ref()
    }

    /// How often the invalidation was made.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.round
    }

    /// Opens a sandwich.
    fn open(&mut self) -> Step {
        self.confirming = false;
        if self.has_origin {
            Step::AskOrigin { since: self.invalidated, confirms: false }
        } else {
            Step::AskNode
        }
    }

    /// The origin answered once more: the sandwich is complete.
    fn close(&mut self, after: Sight, now: Timestamp) -> Step {
        self.confirming = false;
        let (Some(before), Some(node)) = (&self.origin, &self.node) else { return self.open() };
        let sandwich = compare(before, &node.sight, Some(&after), self.is_from_before(&node.sight));
        self.origin = Some(after);
        match sandwich {
            Sandwich::Done(comparison) => self.compared(&comparison, now),
            Sandwich::Confirm | Sandwich::Unsettled if self.attempt < ATTEMPTS => {
                self.attempt += 1;
                // The origin's second answer opens the next sandwich.
                Step::AskNode
            }
            Sandwich::Confirm | Sandwich::Unsettled => {
                self.uncompared(Uncompared::Doubtful(Doubt::OriginDisagrees))
            }
        }
    }

    fn compared(&mut self, comparison: &Comparison, now: Timestamp) -> Step {
        match comparison {
            Comparison::Same => Step::Done(Proof::Proven),
            Comparison::Differs { .. } => self.old(now),
            Comparison::Unverifiable(doubt) => self.uncompared(Uncompared::Doubtful(*doubt)),
            Comparison::NodeFailed(fault) => {
                self.later(Proof::Unprovable(Obstacle::NodeFailed(*fault)), now)
            }
            Comparison::OriginFailed { fault, .. } => {
                let why = Uncompared::OriginFailed(*fault);
                if self.attempt >= ATTEMPTS || *fault == Fault::Paused {
                    return self.uncompared(why);
                }
                self.attempt += 1;
                match self.uncompared(why) {
                    Step::Done(proof) => self.later(proof, now),
                    step => step,
                }
            }
        }
    }

    /// The node serves what the origin does not.
    fn old(&mut self, now: Timestamp) -> Step {
        let is_fetched = self.node.as_ref().is_some_and(|node| node.maker() == Maker::ThisRequest);
        let is_behind = self.node.as_ref().is_some_and(|node| node.hit_behind);
        if matches!(self.before, Before::Uncached(_)) && is_fetched && !is_behind {
            return Step::Done(Proof::Unprovable(Obstacle::NotTheOrigins));
        }
        self.seen_old = true;
        let until = self.next_repeat();
        if self.round >= self.limits.rounds || until > self.deadline() {
            return Step::Done(self.old_proof());
        }
        if until <= now {
            return Step::Repeat;
        }
        self.after_pause = AfterPause::Repeat;
        Step::Pause { until }
    }

    /// The second time at once, which is what a fetch that was under way needs; further times spread
    /// over the whole, which is what an origin needs whose replicas are not in step.
    fn next_repeat(&self) -> Timestamp {
        let share = f64::from(self.round - 1) / f64::from(self.limits.rounds.max(1));
        self.began + self.limits.within.mul_f64(share)
    }

    /// Tries again after a pause, unless there is no time: then `proof` it is.
    fn later(&mut self, proof: Proof, now: Timestamp) -> Step {
        let until = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if until > self.deadline() {
            return Step::Done(proof);
        }
        self.after_pause = AfterPause::Compare;
        Step::Pause { until }
    }

    fn deadline(&self) -> Timestamp {
        self.began + self.limits.within
    }

    fn old_proof(&self) -> Proof {
        let upstream = self.node.as_ref().is_some_and(|node| node.tiers > 1);
        Proof::Survived(if upstream { Survival::OldUpstream } else { Survival::OldAgain })
    }

    /// The proof without a comparison: by the object alone.
    fn uncompared(&self, why: Uncompared) -> Step {
        let Some(node) = &self.node else {
            return Step::Done(Proof::Unprovable(Obstacle::TimeUp));
        };
        Step::Done(match self.before.sameness(node) {
            Sameness::Same(basis) => Proof::Survived(Survival::SameObject { basis }),
            Sameness::Other(basis) => Proof::Replaced { basis, why },
            Sameness::NeverCached if node.hit_behind => Proof::Unprovable(Obstacle::CachedBehind),
            Sameness::NeverCached => {
                let status = node.status.unwrap_or_default();
                Proof::Unprovable(Obstacle::NotCached { status })
            }
            Sameness::Unclear => Proof::Unprovable(match self.before {
                Before::Unseen(_) => Obstacle::NotSeenBefore,
                _ => Obstacle::NoIdentity,
            }),
        })
    }

    /// Whether this is the version from before the invalidation: then it is no newer one than the
    /// origin's, whatever its order says.
    fn is_from_before(&self, sight: &Sight) -> bool {
        let Sight::Version(version) = sight else { return false };
        self.before.serving().and_then(Serving::version) == Some(version)
    }
}
