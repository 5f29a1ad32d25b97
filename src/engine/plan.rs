//! What the engine is asked to watch.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::canary::CanaryPlan;
use crate::ban::Expression;
use crate::model::{EndpointName, NodeName, OriginName, VariantName};
use crate::verdict::Target;

/// Everything to be watched. A new plan replaces the old one; what both watch goes on.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The origins, by name; each name once.
    pub origins: Vec<OriginPlan>,
    /// The nodes, by name; each name once.
    pub nodes: Vec<NodePlan>,
    /// The endpoints' variants; each pair of names once.
    pub watches: Vec<WatchPlan>,
    /// The most bans a minute that cure what is stale, at all nodes together.
    pub remedy_max_rate: usize,
    /// The longest ban list that a node may have before bans of events are sent there slowly; zero
    /// is no limit, and then it is not counted.
    pub ban_list_limit: usize,
    /// Whether each watch is for one round only, as in `check`: all are due at once, a confirmed
    /// mismatch is stale at once, and one failure is enough.
    pub once: bool,
    /// Whether evidence is asked for where a node serves old content. Off for commands, which
    /// gather it themselves at their end.
    pub explain: bool,
}

/// One origin.
#[derive(Debug, Clone)]
pub struct OriginPlan {
    /// Its name.
    pub name: OriginName,
    /// The most requests a second that it is sent; above zero.
    pub max_rate: f64,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Its name.
    pub name: NodeName,
    /// How often its admin port is checked; `None` for a node without one.
    pub admin_interval: Option<Duration>,
    /// Its canary, if it has one.
    pub canary: Option<CanaryPlan>,
}

/// One variant of an endpoint.
#[derive(Debug, Clone)]
pub struct WatchPlan {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// The variant.
    pub variant: VariantName,
    /// What is fetched.
    pub target: Arc<Target>,
    /// Where the truth is fetched from; one of the plan's origins.
    pub origin: OriginName,
    /// The nodes it is compared at; of the plan's nodes, each once.
    pub nodes: Vec<NodeName>,
    /// The time from one round to the next.
    pub interval: Duration,
    /// How long a node may lag behind.
    pub max_stale: Duration,
    /// What bans that URL and nothing else, where a stale one is to be banned; the same for all
    /// variants of an endpoint.
    pub remedy: Option<Arc<Expression>>,
}

impl WatchPlan {
    /// A digest of all that versions depend on. Versions recorded under another definition say
    /// nothing about this one. The same on every machine and in every version of the program.
    #[must_use]
    pub fn definition(&self) -> u64 {
        let target = &self.target;
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(bytes);
        };
        part(target.url.to_string().as_bytes());
        part(target.compare.to_string().as_bytes());
        for (name, value) in &target.headers {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
        part(b"ignore");
        for pattern in &target.ignore {
            part(pattern.as_str().as_bytes());
        }
        let bytes: [u8; 32] = digest.finalize().into();
        bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}
