//! One ban at one node with its proof: what is there before, the ban, what comes after.

use std::time::Duration;

use super::AdminProblem;
use crate::model::{Timestamp, Version};
use crate::verdict::proof::{Before, Maker, Proof, ProofLimits, Prover, Serving, Step};
use crate::verdict::{Fault, Observation, Sight};

/// So often an object that has to be in the cache is fetched until it is a hit.
const FETCHES: u8 = 4;

/// The pause before another look for a hit, times the number of looks so far.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the truth is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Truth {
    /// Nowhere: only that the object is another one can be shown.
    Nowhere,
    /// It is known.
    Known(Version),
    /// The origin has to be asked.
    AtOrigin,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Fetch from the node.
    FetchNode,
    /// Fetch from the origin.
    FetchOrigin {
        /// On a connection of its own.
        new_connection: bool,
    },
    /// Send the ban.
    Ban,
    /// Come again then.
    Wait(Timestamp),
    /// It is over.
    Done(Finding),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The ban was taken, and this is known of its effect.
    Proof(Proof),
    /// The ban was not taken, or nobody knows whether it was.
    NotBanned(AdminProblem),
    /// The object has to be in the cache, and fetched so often it never was. Nothing was banned.
    NeverHit {
        /// The status of the last answer.
        status: u16,
    },
    /// What is served is certainly not what is known to be the truth, by its status. Nothing was
    /// banned.
    Foreign {
        /// The status.
        status: u16,
    },
    /// The node's answer shows no sign of Varnish. Nothing was banned.
    NotACache,
    /// The node did not answer acceptably. Nothing was banned.
    NodeFailed(Fault),
}

/// A ban that is being proven.
#[derive(Debug)]
pub(super) struct Trial {
    truth: Truth,
    needs_hit: bool,
    limits: ProofLimits,
    fetches: u8,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Looking for what is there.
    Before,
    /// The first ban is under way.
    Banning(Before),
    /// The ban was taken.
    Proving(Box<Prover>),
}

impl Trial {
    /// Begins with a look at the node. With `needs_hit` nothing is banned that is not in the
    /// cache.
    pub(super) const fn begin(truth: Truth, needs_hit: bool, limits: ProofLimits) -> (Self, Act) {
        let trial = Self { truth, needs_hit, limits, fetches: 0, stage: Stage::Before };
        (trial, Act::FetchNode)
    }

    /// The fetch that was asked for last ended.
    pub(super) fn fetched(&mut self, from_origin: bool, seen: &Observation, now: Timestamp) -> Act {
        match &mut self.stage {
            Stage::Before => self.seen_before(Serving::of(seen), now),
            Stage::Banning(_) => Act::Ban,
            Stage::Proving(prover) => {
                let step = if from_origin {
                    prover.origin(Sight::from(seen), now)
                } else {
                    prover.node(Serving::of(seen), now)
                };
                self.follow(step, now)
            }
        }
    }

    /// The ban was taken, or not.
    pub(super) fn banned(&mut self, result: Result<(), AdminProblem>, now: Timestamp) -> Act {
        let step = match &mut self.stage {
            Stage::Proving(prover) => prover.repeated(result.is_ok(), now),
            Stage::Before => return Act::FetchNode,
            Stage::Banning(before) => {
                if let Err(problem) = result {
                    return Act::Done(Finding::NotBanned(problem));
                }
                let has_origin = self.truth != Truth::Nowhere;
                let (prover, step) = Prover::begin(before.clone(), has_origin, self.limits, now);
                self.stage = Stage::Proving(Box::new(prover));
                step
            }
        };
        self.follow(step, now)
    }

    /// The pause is over.
    pub(super) fn waited(&mut self, now: Timestamp) -> Act {
        match &mut self.stage {
            Stage::Before | Stage::Banning(_) => Act::FetchNode,
            Stage::Proving(prover) => {
                let step = prover.waited();
                self.follow(step, now)
            }
        }
    }

    fn seen_before(&mut self, seen: Serving, now: Timestamp) -> Act {
        self.fetches += 1;
        if let Sight::Failed(fault) = seen.sight {
            return Act::Done(Finding::NodeFailed(fault));
        }
        if !seen.is_varnish {
            return Act::Done(Finding::NotACache);
        }
        let status = seen.status.unwrap_or_default();
        if matches!(&self.truth, Truth::Known(version) if version.status != status) {
            return Act::Done(Finding::Foreign { status });
        }
        let last = self.fetches >= FETCHES;
        match seen.maker() {
            Maker::ThisRequest if self.needs_hit && last => {
                return Act::Done(Finding::NeverHit { status });
            }
            Maker::ThisRequest if self.needs_hit => {
                return Act::Wait(now + PAUSE * u32::from(self.fetches));
            }
            Maker::ThisRequest if self.fetches < 2 => return Act::FetchNode,
            // Young objects cannot be told from their successors by their age.
            Maker::Hidden if self.truth == Truth::Nowhere && !last => {
                if let Some(wait) = Before::wants_older(&seen) {
                    return Act::Wait(now + wait);
                }
            }
            Maker::Object(_) | Maker::Hidden | Maker::ThisRequest => {}
        }
        self.stage = Stage::Banning(Before::of(seen));
        Act::Ban
    }

    fn follow(&mut self, mut step: Step, now: Timestamp) -> Act {
        loop {
            match step {
                Step::AskOrigin { confirms, .. } => {
                    let (Truth::Known(version), Stage::Proving(prover)) =
                        (&self.truth, &mut self.stage)
                    else {
                        return Act::FetchOrigin { new_connection: confirms };
                    };
                    step = prover.origin(Sight::Version(version.clone()), now);
                }
                Step::AskNode => return Act::FetchNode,
                Step::Repeat => return Act::Ban,
                Step::Pause { until } => return Act::Wait(until),
                Step::Done(proof) => return Act::Done(Finding::Proof(proof)),
            }
        }
    }
}
