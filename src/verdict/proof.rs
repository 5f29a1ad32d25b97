//! Proof that an invalidation took effect, from what a node served before and after it.
//!
//! A [`Prover`] is a state machine without sockets and clocks: it is given observations and the
//! time, and says what to do next ([`Step`]), in the end with a [`Proof`] that is never stronger
//! than its evidence. What evidence there is:
//!
//! - **The content.** The origin, asked after the ban, against the node, asked after that, and
//!   where they differ the origin once more. This alone shows a refill with old content: a fetch
//!   that was under way when the ban came is not affected by it (varnish-cache issue 1420), and
//!   the object that it makes looks new in every header.
//! - **The object.** `X-Varnish` names the fetch that made an object that was a hit. The same
//!   fetch before and after means that the ban does not match the object. Only ids of one life of
//!   the cache process can be compared: whoever drives this compares the process ids besides.
//! - **`Age` and `Date`**, where the VCL removes `X-Varnish`: weaker, since the first may be the
//!   origin's and the second the VCL's.
//!
//! It covers the one object that was fetched: not other variants of it, and not what ESI includes
//! in it, which are objects of their own.

mod prover;
mod serving;
#[cfg(test)]
mod tests;

use std::fmt;

pub use prover::{ProofLimits, Prover, Step};
pub use serving::{Basis, Before, Maker, Sameness, Serving};

use super::{Doubt, Fault};

/// What is known of one URL at one node after an invalidation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The node serves the origin's version, which was asked for after the ban, and not by the
    /// object that it had before.
    Proven,
    /// The old object is gone. What came in its place was not compared, so it may be old content
    /// from a fetch that was under way.
    Replaced {
        /// What shows that it is gone.
        basis: Basis,
        /// Why nothing was compared.
        why: Uncompared,
    },
    /// What should have gone is still served.
    Survived(Survival),
    /// Nothing can be said.
    Unprovable(Obstacle),
}

/// Why content was not compared with the origin's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncompared {
    /// No origin is known.
    NoOrigin,
    /// The origin did not answer acceptably.
    OriginFailed(Fault),
    /// The versions cannot be told, or the origin differs from itself.
    Doubtful(Doubt),
}

/// Why old content is still served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// The object is the one that was there before: the ban does not match it.
    SameObject {
        /// What shows that it is.
        basis: Basis,
    },
    /// The answer is the one from before, with the id of its request and all: another cache stands
    /// between here and the node, and answered in its place.
    Replayed,
    /// Fetched again after every ban, and each time not what the origin serves: by way of a
    /// replica of the origin that lags behind.
    OldAgain,
    /// The same, and the answer came through another cache behind this node, which was not
    /// banned, or later than this one.
    OldUpstream,
}

/// Why nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Neither before nor after was there an object in the cache, and no origin to compare with.
    NotCached {
        /// The status of the answer.
        status: u16,
    },
    /// The same, but the answer came out of a cache behind this node, which may be old.
    CachedBehind,
    /// No answer shows a sign of Varnish: is this the node?
    NotACache,
    /// The node did not answer acceptably after the ban.
    NodeFailed(Fault),
    /// What the node served before the ban is not known, because it did not answer acceptably, and
    /// the content was not compared.
    NotSeenBefore,
    /// Neither `X-Varnish` nor `Age` tell whether the object is another one.
    NoIdentity,
    /// The node does not cache this URL, and what it serves is not what the origin serves. It may
    /// not serve this host.
    NotTheOrigins,
    /// The cache process is another one than before the ban: it crashed or was restarted, and what
    /// was cached is lost with the ban.
    Restarted,
    /// Time was up before the first answer after the ban.
    TimeUp,
}

impl Proof {
    /// The `result` label of `ban_proofs_total`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Replaced { .. } => "replaced",
            Self::Survived(_) => "survived",
            Self::Unprovable(_) => "unprovable",
        }
    }

    /// The reason, a name of a closed set for programs; none of what is proven.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Proven => return None,
            Self::Replaced { why, .. } => match why {
                Uncompared::NoOrigin => "no_origin",
                Uncompared::OriginFailed(_) => "origin_failed",
                Uncompared::Doubtful(_) => "not_comparable",
            },
            Self::Survived(Survival::SameObject { .. }) => "same_object",
            Self::Survived(Survival::Replayed) => "in_front",
            Self::Survived(Survival::OldAgain) => "old_again",
            Self::Survived(Survival::OldUpstream) => "upstream",
            Self::Unprovable(obstacle) => match obstacle {
                Obstacle::NotCached { .. } => "not_cached",
                Obstacle::CachedBehind => "cached_behind",
                Obstacle::NotACache => "not_a_cache",
                Obstacle::NodeFailed(_) => "node_failed",
                Obstacle::NotSeenBefore => "not_seen_before",
                Obstacle::NoIdentity => "no_identity",
                Obstacle::NotTheOrigins => "not_the_origins",
                Obstacle::Restarted => "restarted",
                Obstacle::TimeUp => "time_up",
            },
        })
    }
}

/// What it means and, where there is something to do, what; one line, without the label.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven => f.write_str("the node serves what the origin serves"),
            Self::Replaced { basis, why } => {
                write!(f, "the old object is gone{}; what came in its place ", basis.reserve())?;
                match why {
                    Uncompared::NoOrigin => f.write_str(
                        "was not compared, since no origin is known (--origin, or an endpoint of \
                         the configuration)",
                    ),
                    Uncompared::OriginFailed(fault) => {
                        write!(f, "was not compared: the origin: {fault}")
                    }
                    Uncompared::Doubtful(doubt) => write!(f, "cannot be compared: {doubt}"),
                }
            }
            Self::Survived(survival) => survival.fmt(f),
            Self::Unprovable(obstacle) => obstacle.fmt(f),
        }
    }
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameObject { basis } => {
                write!(f, "the object is the one from before{}: it was not hit", basis.reserve())
            }
            Self::Replayed => f.write_str(
                "the answer is the very one from before, request id and all: a cache between here \
                 and the node answered in its place, and has to be invalidated as well",
            ),
            Self::OldAgain => f.write_str(
                "fetched again, and again not what the origin serves: a replica of the origin \
                 lags behind, or another cache stands behind this node",
            ),
            Self::OldUpstream => f.write_str(
                "fetched again, and again not what the origin serves: the answer comes through \
                 another Varnish behind this node; invalidate there first",
            ),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCached { status } => write!(
                f,
                "the node answers with status {status} and caches nothing, neither before nor \
                 after; with an origin to compare with (--origin) its content can be proven"
            ),
            Self::CachedBehind => f.write_str(
                "the node caches nothing, and the answer came out of another Varnish behind it: \
                 invalidate there, or say what is right (--origin)",
            ),
            Self::NotACache => f.write_str(
                "the answer shows no sign of Varnish (X-Varnish or Via): something else answered \
                 in its place",
            ),
            Self::NodeFailed(fault) => write!(f, "the node: {fault}"),
            Self::NotSeenBefore => f.write_str(
                "what the node served before is not known, since it did not answer acceptably, \
                 and no origin was compared with",
            ),
            Self::NoIdentity => f.write_str(
                "the answers do not tell one object from another: the VCL removes X-Varnish, and \
                 Age and Date are not enough; with an origin to compare with (--origin) the \
                 content can be proven",
            ),
            Self::NotTheOrigins => f.write_str(
                "the node caches nothing under this URL, and what it serves is not what the \
                 origin serves: does it serve this host?",
            ),
            Self::Restarted => f.write_str(
                "the cache process ended meanwhile: its whole cache is lost, and the ban too; \
                 `purgewatch adm panic.show` may tell why",
            ),
            Self::TimeUp => f.write_str("time was up before an answer came"),
        }
    }
}
