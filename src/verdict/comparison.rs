//! The sandwich: origin, node, origin again.

use super::{Failure, Observation, Outcome, Unversioned};
use crate::model::{Relation, Version};

/// What one fetch showed, as far as a comparison needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// A version.
    Version(Version),
    /// An answer with an acceptable status, but without what the `compare` rule reads.
    Unversioned(Unversioned),
    /// No answer, or none with an acceptable status.
    Failed(Fault),
}

/// Why a fetch showed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There was no answer that can be judged.
    #[error(transparent)]
    Failure(Failure),
    /// The status is none that can be compared.
    #[error("answered with status {0}")]
    Status(u16),
    /// The origin was not asked, because it had asked for a pause (429, or 503 with
    /// `Retry-After`).
    #[error("not asked: it wants a pause")]
    Paused,
}

impl From<&Observation> for Sight {
    fn from(observation: &Observation) -> Self {
        match &observation.outcome {
            Outcome::Failed(failure) => Self::Failed(Fault::Failure(*failure)),
            Outcome::Answer(answer) => match &answer.version {
                Ok(version) => Self::Version(version.clone()),
                Err(Unversioned::Status) => Self::Failed(Fault::Status(answer.status)),
                Err(why) => Self::Unversioned(*why),
            },
        }
    }
}

/// What the observations of one round say about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// The node serves what the origin serves, or something newer.
    Same,
    /// The node serves something else, and the origin confirmed it.
    Differs {
        /// What the node serves.
        node: Version,
    },
    /// The versions cannot be told, or the origin disagrees with itself.
    Unverifiable(Doubt),
    /// The node did not answer acceptably.
    NodeFailed(Fault),
    /// The origin did not answer acceptably.
    OriginFailed {
        /// What it did instead.
        fault: Fault,
        /// What the node serves, where that is known.
        node: Option<Version>,
    },
}

/// Why nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Asked twice in a row, twice over, the origin gave two answers.
    #[error("the origin differs from itself: it varies on every request, or its replicas differ")]
    OriginDisagrees,
    /// The origin's answer lacks what is compared.
    #[error("the origin's answer cannot be compared: {0}")]
    OriginUnversioned(Unversioned),
    /// The node's answer lacks what is compared.
    #[error("the node's answer cannot be compared: {0}")]
    NodeUnversioned(Unversioned),
}

/// What follows from the observations so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandwich {
    /// They are enough.
    Done(Comparison),
    /// The node's version differs: the origin has to be asked once more, unconditionally.
    Confirm,
    /// The two answers of the origin differ from each other and from the node's: it may just have
    /// changed. The second one opens another sandwich.
    Unsettled,
}

/// Compares what the origin said `before`, the `node`, and the origin `after` it.
///
/// `is_old` says that the node's version is one that the origin left behind: then it is no newer
/// one, whatever its order says, and only equality counts.
#[must_use]
pub fn compare(before: &Sight, node: &Sight, after: Option<&Sight>, is_old: bool) -> Sandwich {
    let done = Sandwich::Done;
    let node = match node {
        Sight::Failed(fault) => return done(Comparison::NodeFailed(*fault)),
        Sight::Version(version) => Ok(version),
        Sight::Unversioned(why) => Err(*why),
    };
    let origin_failed = |fault: &Fault| {
        Sandwich::Done(Comparison::OriginFailed { fault: *fault, node: node.ok().cloned() })
    };
    let before = match before {
        Sight::Failed(fault) => return origin_failed(fault),
        Sight::Unversioned(why) => {
            return done(Comparison::Unverifiable(Doubt::OriginUnversioned(*why)));
        }
        Sight::Version(version) => version,
    };
    let node = match node {
        Err(why) => return done(Comparison::Unverifiable(Doubt::NodeUnversioned(why))),
        Ok(version) => version,
    };
    if keeps_up(node, before, is_old) {
        return done(Comparison::Same);
    }
    let after = match after {
        None => return Sandwich::Confirm,
        Some(Sight::Failed(fault)) => return origin_failed(fault),
        Some(Sight::Unversioned(why)) => {
            return done(Comparison::Unverifiable(Doubt::OriginUnversioned(*why)));
        }
        Some(Sight::Version(version)) => version,
    };
    if keeps_up(node, after, is_old) {
        return done(Comparison::Same);
    }
    let older_than_both =
        node.relation_to(before) == Relation::Older && node.relation_to(after) == Relation::Older;
    if before.relation_to(after) == Relation::Same || older_than_both {
        return done(Comparison::Differs { node: node.clone() });
    }
    Sandwich::Unsettled
}

fn keeps_up(node: &Version, origin: &Version, is_old: bool) -> bool {
    match node.relation_to(origin) {
        Relation::Same => true,
        Relation::Newer => !is_old,
        Relation::Older | Relation::Different => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mark;

    fn tag(tag: &str) -> Sight {
        Sight::Version(Version { status: 200, mark: Mark::Etag(tag.into()) })
    }

    fn number(number: u32) -> Sight {
        Sight::Version(Version { status: 200, mark: Mark::Token(number.to_string().into()) })
    }

    fn differs(sight: &Sight) -> Sandwich {
        let Sight::Version(node) = sight else { panic!("a version") };
        Sandwich::Done(Comparison::Differs { node: node.clone() })
    }

    fn compare(before: &Sight, node: &Sight, after: Option<&Sight>) -> Sandwich {
        super::compare(before, node, after, false)
    }

    const SAME: Sandwich = Sandwich::Done(Comparison::Same);

    #[test]
    fn a_mismatch_counts_only_when_the_origin_confirms_it() {
        let (a, b, c) = (tag("a"), tag("b"), tag("c"));
        assert_eq!(compare(&a, &a, None), SAME);
        assert_eq!(compare(&b, &a, None), Sandwich::Confirm);
        assert_eq!(compare(&b, &a, Some(&b)), differs(&a));
        assert_eq!(compare(&b, &a, Some(&a)), SAME);
        assert_eq!(compare(&b, &a, Some(&c)), Sandwich::Unsettled);
    }

    #[test]
    fn what_is_newer_is_fresh_and_older_than_both_is_old() {
        assert_eq!(compare(&number(5), &number(6), None), SAME);
        assert_eq!(compare(&number(5), &number(4), Some(&number(6))), differs(&number(4)));
        assert_eq!(compare(&number(6), &number(5), Some(&number(5))), SAME);
    }

    #[test]
    fn what_the_origin_left_behind_is_no_newer_one() {
        let (five, six) = (number(5), number(6));
        assert_eq!(super::compare(&five, &six, None, true), Sandwich::Confirm);
        assert_eq!(super::compare(&five, &six, Some(&five), true), differs(&six));
        assert_eq!(super::compare(&five, &six, Some(&six), true), SAME, "it came back");
    }

    #[test]
    fn who_failed_is_said() {
        let fault = Fault::Status(503);
        let failed = Sight::Failed(fault);
        let node_failed = Sandwich::Done(Comparison::NodeFailed(fault));
        assert_eq!(compare(&failed, &failed, None), node_failed);
        assert_eq!(compare(&tag("a"), &failed, None), node_failed);
        let Sight::Version(a) = tag("a") else { panic!("a version") };
        let origin_failed = Sandwich::Done(Comparison::OriginFailed { fault, node: Some(a) });
        assert_eq!(compare(&failed, &tag("a"), None), origin_failed);
        assert_eq!(compare(&tag("b"), &tag("a"), Some(&failed)), origin_failed);
    }

    #[test]
    fn what_cannot_be_compared_is_neither_fresh_nor_stale() {
        let none = Sight::Unversioned(Unversioned::NoEtag);
        let doubt = |doubt| Sandwich::Done(Comparison::Unverifiable(doubt));
        let origin = doubt(Doubt::OriginUnversioned(Unversioned::NoEtag));
        assert_eq!(compare(&none, &none, None), origin);
        assert_eq!(compare(&tag("b"), &tag("a"), Some(&none)), origin);
        let node = doubt(Doubt::NodeUnversioned(Unversioned::NoEtag));
        assert_eq!(compare(&tag("a"), &none, None), node);
    }
}
