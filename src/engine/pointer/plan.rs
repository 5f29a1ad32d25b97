//! What the engine is asked to follow.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::WatchPlan;
use crate::model::{
    EndpointName, HttpUrl, NodeName, OriginName, PointerValue, ValueFault, VariantName,
    VersionedUrl,
};
use crate::verdict::Target;

/// The most URLs that one pointer makes the engine watch, the current and earlier ones together.
pub(super) const URLS: usize = 32;

/// The most values that are watched beside the current one.
const EARLIER: usize = 3;

/// A pointer: a URL that names the current version of other URLs.
#[derive(Debug, Clone)]
pub struct PointerPlan {
    /// Its name; the name of the endpoint that it and its URLs appear as, which no other has.
    pub name: EndpointName,
    /// Where it is read. Its rule is [`Compare::Value`](crate::verdict::Compare::Value).
    pub target: Arc<Target>,
    /// The origin that it is read from; one of the plan's origins.
    pub origin: OriginName,
    /// The nodes that serve the pointer itself; none for one that is read from its origin alone.
    pub nodes: Vec<NodeName>,
    /// What it leads to, 1 to 16.
    pub urls: Vec<VersionedUrl>,
    /// How these URLs are fetched and compared: all of it but the URL.
    pub followed: Arc<Target>,
    /// Where the truth about these URLs is; one of the plan's origins.
    pub followed_origin: OriginName,
    /// The nodes that serve these URLs, at least one.
    pub followed_nodes: Vec<NodeName>,
    /// The time from one round to the next, of the pointer and of what it leads to.
    pub interval: Duration,
    /// How long all may be out of step after the pointer moved, and a node behind its origin.
    pub max_stale: Duration,
    /// For how long the URLs of an earlier value are watched.
    pub grace: Duration,
}

impl PointerPlan {
    /// The variant that the pointer itself appears as.
    pub(super) fn own_variant() -> VariantName {
        named("pointer")
    }

    /// How many values are watched beside the current one.
    pub(super) fn earlier_values(&self) -> usize {
        let each = self.urls.len().max(1);
        (URLS.saturating_sub(each) / each).min(EARLIER)
    }

    /// The variants that the URLs appear as: of the current value, or of an earlier one in this
    /// slot.
    pub(super) fn variants(&self, slot: Option<usize>) -> impl Iterator<Item = VariantName> {
        let count = self.urls.len().min(URLS);
        (1..=count).map(move |number| match slot {
            None => named(&format!("target-{number}")),
            Some(slot) => named(&format!("previous-{}", slot * count + number)),
        })
    }

    /// How the pointer itself is watched.
    pub(super) fn own_watch(&self) -> WatchPlan {
        WatchPlan {
            endpoint: self.name.clone(),
            variant: Self::own_variant(),
            target: self.target.clone(),
            origin: self.origin.clone(),
            nodes: self.nodes.clone(),
            interval: self.interval,
            max_stale: self.max_stale,
            remedy: None,
        }
    }

    /// How what a value leads to is watched.
    pub(super) fn watches(
        &self,
        value: &PointerValue,
        slot: Option<usize>,
    ) -> Result<Vec<WatchPlan>, ValueFault> {
        let urls: Result<Vec<HttpUrl>, ValueFault> =
            self.urls.iter().take(URLS).map(|url| url.fill(value)).collect();
        let watches = urls?.into_iter().zip(self.variants(slot)).map(|(url, variant)| WatchPlan {
            endpoint: self.name.clone(),
            variant,
            target: Arc::new(Target { url, ..Target::clone(&self.followed) }),
            origin: self.followed_origin.clone(),
            nodes: self.followed_nodes.clone(),
            interval: self.interval,
            max_stale: self.max_stale,
            remedy: None,
        });
        Ok(watches.collect())
    }
}

/// The name of a variant, of letters, digits and `-`.
fn named(text: &str) -> VariantName {
    VariantName::new(text).unwrap_or_default()
}
