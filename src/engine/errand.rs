//! What canaries and remedies ask to be done: fetches and bans of their own, beside the rounds.

use super::AdminProblem;
use super::effect::Side;
use crate::ban::Expression;
use crate::model::{EndpointName, NodeName};
use crate::verdict::{FetchRequest, Observation};

/// Names one errand that is under way. Never used twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrandId {
    pub(super) owner: Owner,
    pub(super) number: u64,
}

/// Whose errand it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The canary of this node.
    Canary(NodeName),
    /// What was stale at this node.
    Remedy(EndpointName, NodeName),
}

/// Something to be done once, and reported once.
#[derive(Debug, Clone)]
pub enum Errand {
    /// Make this fetch.
    Fetch {
        /// Where to.
        side: Side,
        /// What.
        request: FetchRequest,
    },
    /// Send this ban.
    Ban {
        /// To which node.
        node: NodeName,
        /// The ban.
        ban: Expression,
    },
}

/// What came of an errand.
#[derive(Debug)]
pub enum ErrandResult {
    /// Of a fetch.
    Fetched(Observation),
    /// Of a ban: `Ok` when it is on the node's list.
    Banned(Result<(), AdminProblem>),
}

impl ErrandId {
    /// Whether it is a canary's; else it is a remedy's.
    #[must_use]
    pub const fn is_canary(&self) -> bool {
        matches!(self.owner, Owner::Canary(_))
    }
}
