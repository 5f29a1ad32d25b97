//! What the daemon knows at one moment, for metrics, the API and people.

use std::sync::Arc;
use std::time::Duration;

use super::{CanaryState, PointerSnapshot, RemedyState, ServiceLevel};
use crate::model::{EndpointName, NodeName, Timestamp, VariantName, Version};
use crate::verdict::cause::OriginChange;
use crate::verdict::{Explanation, ProbeResult, State};

/// All that is known, on the program's own time line.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was taken.
    pub taken: Timestamp,
    /// One for each endpoint, variant and node, ordered by these names.
    pub targets: Vec<TargetSnapshot>,
    /// One for each node, ordered by name.
    pub nodes: Vec<NodeSnapshot>,
    /// One for each pointer, ordered by name.
    pub pointers: Vec<PointerSnapshot>,
    /// How many endpoints are watched, pointers not counted.
    pub endpoints: usize,
}

/// What is known of one endpoint and variant at one node.
#[derive(Debug, Clone)]
pub struct TargetSnapshot {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Its variant.
    pub variant: VariantName,
    /// The node.
    pub node: NodeName,
    /// How long the node may lag behind.
    pub max_stale: Duration,
    /// The state.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Zero when fresh, growing while lagging or stale; `None` where nothing is known.
    pub staleness: Option<Duration>,
    /// The `Age` last seen at the node, in seconds.
    pub age: Option<u64>,
    /// When the node was last probed.
    pub last_probe: Option<Timestamp>,
    /// When it was last seen to be fresh.
    pub last_fresh: Option<Timestamp>,
    /// How many probes of the node had each result, in the order of [`ProbeResult::ALL`].
    pub probes: [u64; ProbeResult::ALL.len()],
    /// The version that the node served last.
    pub node_version: Option<Version>,
    /// The version that the origin served last.
    pub origin_version: Option<Version>,
    /// One line for people: why the state is what it is, where there is more to say.
    pub reason: Option<String>,
    /// What came of the last ban that was to cure the endpoint at this node, if there was one.
    pub remedy: Option<RemedyState>,
    /// While lagging or stale: when the origin stopped serving what the node serves, as far as that
    /// was seen.
    pub change: OriginChange,
    /// While lagging or stale: why the node serves old content, as soon as that was looked into.
    pub cause: Option<Arc<Explanation>>,
}

impl TargetSnapshot {
    /// How many probes of the node had this result.
    #[must_use]
    pub fn probes_with(&self, result: ProbeResult) -> u64 {
        let counted = ProbeResult::ALL.iter().zip(self.probes);
        counted.filter(|(known, _)| **known == result).map(|(_, count)| count).sum()
    }
}

/// What is known of a node's admin port.
#[derive(Debug, Clone)]
pub struct NodeSnapshot {
    /// The node.
    pub node: NodeName,
    /// `None` for a node without an admin address.
    pub admin: Option<AdminState>,
    /// Its canary; `None` for a node without one.
    pub canary: Option<CanaryState>,
    /// How many bans it missed and is to get, by the ledger.
    pub pending_bans: usize,
    /// How soon changes of the origins showed here.
    pub level: ServiceLevel,
}

/// What the checks of an admin port showed.
#[derive(Debug, Clone, Default)]
pub struct AdminState {
    /// Whether the last check passed; `None` before the first one ended.
    pub up: Option<bool>,
    /// When a check last passed.
    pub last_success: Option<Timestamp>,
    /// How many checks failed, by reason; every reason is there from the start.
    pub failures: Vec<(&'static str, u64)>,
    /// The last failure in words, while it lasts.
    pub problem: Option<String>,
}
