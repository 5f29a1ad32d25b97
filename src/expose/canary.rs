//! `/canary/NODE`: the object that a node caches and the daemon bans, see
//! [`engine::CanaryPlan`](crate::engine::CanaryPlan).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::model::NodeName;

/// The header that names the canary's node, so that a ban can go by it.
pub const CANARY_HEADER: &str = "x-purgewatch-canary";

/// What is served as the canary of each node. Copies share it.
#[derive(Debug, Clone, Default)]
pub struct CanaryBoard(Arc<RwLock<HashMap<String, Bytes>>>);

impl CanaryBoard {
    /// Serves this as the canary of the node from now on.
    pub fn serve(&self, node: &NodeName, body: String) {
        let mut bodies = self.0.write().unwrap_or_else(PoisonError::into_inner);
        bodies.insert(node.url_segment(), body.into());
    }

    /// Serves no other nodes' than these any more.
    pub fn retain<'n>(&self, nodes: impl IntoIterator<Item = &'n NodeName>) {
        let kept: Vec<String> = nodes.into_iter().map(NodeName::url_segment).collect();
        let mut bodies = self.0.write().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|node, _| kept.contains(node));
    }

    /// What is served to a node that is named like this in the path.
    pub(super) fn body(&self, segment: &str) -> Option<Bytes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(segment).cloned()
    }
}
