//! What goes into the engine and what comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::admin::AdminProblem;
use super::errand::{Errand, ErrandId, ErrandResult};
use super::explain::{Case, EvidenceId};
use super::invalidation::Settled;
use super::ledger::{Inspection, Miss, News, Process, Request};
use super::plan::Plan;
use super::pointer::PointerNews;
use super::record::Record;
use crate::model::{EndpointName, NodeName, OriginName, Timestamp, VariantName};
use crate::verdict::proof::Proof;
use crate::verdict::{Cause, Explanation, FetchRequest, Observation, State, Transition};

/// Names one fetch that is under way. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(pub(super) u64);

/// Where a fetch goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// To a node.
    Cache(NodeName),
    /// To an origin.
    Origin(OriginName),
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Time passed; a deadline may have been reached.
    Tick,
    /// A fetch ended. Every fetch that was put out must be answered once; one whose watch is gone
    /// is ignored.
    Fetched {
        /// Which.
        id: FetchId,
        /// What happened.
        observation: Observation,
    },
    /// A check of an admin port ended.
    AdminChecked {
        /// The node.
        node: NodeName,
        /// Whether the port let us in and answered, and the processes behind it, if it tells.
        result: Result<Option<Process>, AdminProblem>,
    },
    /// The answer to [`Request::Inspect`].
    Inspected {
        /// The node.
        node: NodeName,
        /// What it said.
        result: Result<Inspection, Miss>,
    },
    /// The answer to [`Request::Deliver`].
    Delivered {
        /// The node.
        node: NodeName,
        /// What came of each ban that was sent, in order.
        results: Vec<Result<(), Miss>>,
    },
    /// The answer to [`Request::CountBans`].
    CountedBans {
        /// The node.
        node: NodeName,
        /// How many there are, or as many as it shows; `None` when it did not answer.
        length: Option<usize>,
    },
    /// Evidence was gathered, or could not be. Every gathering that was put out must be answered
    /// once; one whose target is gone is ignored.
    Evidence {
        /// Which.
        id: EvidenceId,
        /// What it comes to.
        explanation: Explanation,
    },
    /// An errand ended. Every errand that was put out must be answered once.
    ErrandDone {
        /// Which.
        id: ErrandId,
        /// What came of it.
        result: ErrandResult,
    },
    /// There is another plan.
    Replan(Plan),
    /// All rounds are due now: something happened that calls for a look.
    ProbeNow,
}

/// Something to be done.
#[derive(Debug)]
pub enum Output {
    /// Make this fetch and report it.
    Fetch {
        /// Its name.
        id: FetchId,
        /// Where to.
        side: Side,
        /// What.
        request: FetchRequest,
        /// When it was due: how late it starts is a measure of overload.
        due: Timestamp,
    },
    /// Find out why a node serves old content, and report it.
    GatherEvidence {
        /// Its name.
        id: EvidenceId,
        /// What is known of the case.
        case: Box<Case>,
    },
    /// The cause of a state was found, or another one than before: one line for the log.
    Explained {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its variant.
        variant: VariantName,
        /// The node.
        node: NodeName,
        /// [`State::Lagging`] or [`State::Stale`].
        state: State,
        /// The cause, and what it rests on.
        explanation: Arc<Explanation>,
    },
    /// Check this node's admin port: connect, authenticate, ping.
    CheckAdmin(NodeName),
    /// Ask this node something for the ledger; to be answered once.
    Request {
        /// The node.
        node: NodeName,
        /// What.
        request: Request,
    },
    /// Something of the ledger to be counted or told.
    News(News),
    /// Store this.
    Record(Record),
    /// A state changed: one line for the log.
    Changed {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its variant.
        variant: VariantName,
        /// The node.
        node: NodeName,
        /// The change.
        transition: Transition,
        /// Why, where there is more to say.
        reason: Option<String>,
        /// The cause, where it is known already.
        cause: Option<Cause>,
    },
    /// Something about a pointer: one line for the log.
    Pointer(PointerNews),
    /// It is known at each of its nodes what came of an invalidation.
    InvalidationSettled {
        /// Its key.
        key: u64,
        /// What came of it, for each node.
        nodes: BTreeMap<NodeName, Settled>,
    },
    /// An admin port was lost or is back, or showed itself for the first time.
    AdminChanged {
        /// The node.
        node: NodeName,
        /// Whether it answers now.
        up: bool,
        /// What is wrong.
        problem: Option<String>,
    },
    /// A node was seen to follow a change of the origin.
    BecameFresh {
        /// The node.
        node: NodeName,
        /// The time from the first sight of the origin's change to the round that saw the node
        /// follow it. Zero when the same round saw both.
        after: Duration,
    },
    /// Do this for a canary or a remedy and report it.
    Errand {
        /// Its name.
        id: ErrandId,
        /// What.
        errand: Errand,
    },
    /// Serve this as the canary of the node from now on, before anything that is put out later.
    ServeCanary {
        /// The node.
        node: NodeName,
        /// The body.
        body: String,
    },
    /// A canary shows that bans work, or do not work any more.
    CanaryChanged {
        /// The node.
        node: NodeName,
        /// Whether they work.
        up: Option<bool>,
        /// What is wrong.
        problem: Option<String>,
    },
    /// What was stale was banned once more.
    Remedied {
        /// The endpoint.
        endpoint: EndpointName,
        /// The node.
        node: NodeName,
        /// Whether the node serves what the origin serves now.
        cured: bool,
        /// What came of it, in words.
        result: String,
    },
    /// A ban of the daemon was taken, and this is known of its effect.
    Proved {
        /// The node.
        node: NodeName,
        /// What is known.
        proof: Proof,
    },
}
