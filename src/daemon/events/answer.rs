//! What the nodes say, as it is told to whoever sent an event.

use std::collections::BTreeMap;

use crate::engine::{Dropped, Settled, Unprovable};
use crate::event::{Confirmation, ConfirmedResult, NodeConfirmation};
use crate::model::{HostName, NodeName, Timestamp};
use crate::verdict::State;

/// What came of an event at all nodes together: the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// Every node took it; no proof was asked for.
    Taken,
    /// It is proven.
    Proven,
    /// It was taken everywhere, and there is nothing to prove it by: trying again cannot help.
    Unprovable,
    /// It was taken everywhere, and not seen to be fresh in time somewhere.
    Unproven,
    /// varnishd does not take it.
    Rejected,
    /// It has to be handed in again.
    Dropped,
}

pub(super) fn ending(nodes: &BTreeMap<NodeName, Settled>) -> Ending {
    let each = nodes.values().map(|settled| match settled {
        Settled::Taken { .. } => Ending::Taken,
        Settled::Proven { .. } => Ending::Proven,
        Settled::Unprovable { .. } => Ending::Unprovable,
        Settled::Unproven { .. } => Ending::Unproven,
        Settled::Rejected { .. } => Ending::Rejected,
        Settled::Dropped { .. } => Ending::Dropped,
    });
    each.max().unwrap_or(Ending::Taken)
}

/// What is told of an event; the wall clock is `offset` milliseconds ahead of the line.
pub(super) fn confirmation(
    event: String,
    host: HostName,
    nodes: BTreeMap<NodeName, Settled>,
    now: Timestamp,
    offset: i64,
) -> Confirmation {
    let nodes = nodes.into_iter().map(|(node, settled)| {
        let at = match &settled {
            Settled::Taken { at } | Settled::Proven { at } => *at,
            _ => now,
        };
        let (result, detail) = result(&settled);
        (node, NodeConfirmation { result, detail, at: at.shifted(offset) })
    });
    Confirmation { event, host, nodes: nodes.collect(), detail: None }
}

/// What is told of an event that nothing is done about.
pub(super) fn refusal(
    event: String,
    host: HostName,
    nodes: &[NodeName],
    why: &str,
    at: Timestamp,
) -> Confirmation {
    let refused =
        NodeConfirmation { result: ConfirmedResult::Refused, detail: Some(why.to_owned()), at };
    let nodes = nodes.iter().map(|node| (node.clone(), refused.clone())).collect();
    Confirmation { event, host, nodes, detail: Some(why.to_owned()) }
}

fn result(settled: &Settled) -> (ConfirmedResult, Option<String>) {
    match settled {
        Settled::Taken { .. } => (ConfirmedResult::Taken, None),
        Settled::Proven { .. } => (ConfirmedResult::Proven, None),
        Settled::Rejected { reason } => {
            (ConfirmedResult::Rejected, Some(format!("varnishd does not take the ban ({reason})")))
        }
        Settled::Unproven { state, cause } => {
            let cause = cause.map(|cause| format!(" (cause: {cause})")).unwrap_or_default();
            let detail = format!("not seen to be fresh in time: {}{cause}", state.label());
            let result = match state {
                State::Lagging | State::Stale => ConfirmedResult::Survived,
                _ => ConfirmedResult::Unprovable,
            };
            (result, Some(detail))
        }
        Settled::Unprovable { why: Unprovable::NothingWatched } => {
            let detail = "it names no endpoint that is watched at this node";
            (ConfirmedResult::Unprovable, Some(detail.to_owned()))
        }
        Settled::Dropped { why } => {
            let detail = match why {
                Dropped::Full => "the ledger had no room for it",
                Dropped::Expired => "it waited too long",
                Dropped::NotConfigured => "the node is not configured any more",
            };
            (ConfirmedResult::Unknown, Some(detail.to_owned()))
        }
    }
}

/// Why it failed, in a sentence: each node that did not do it.
pub(super) fn words(said: &Confirmation, tries: u32) -> String {
    let bad = said.nodes.iter().filter(|(_, node)| !node.result.is_success());
    let each: Vec<_> = bad
        .map(|(name, node)| format!("{name}: {}", node.detail.as_deref().unwrap_or("failed")))
        .collect();
    let tries = if tries > 1 { format!(" (tried {tries} times)") } else { String::new() };
    format!("{}{tries}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Cause;

    fn nodes(settled: &[Settled]) -> BTreeMap<NodeName, Settled> {
        let name = |n| NodeName::new(&format!("n{n}")).unwrap();
        settled.iter().cloned().enumerate().map(|(n, settled)| (name(n), settled)).collect()
    }

    #[test]
    fn the_worst_node_decides() {
        let at = Timestamp::EPOCH;
        let (taken, proven) = (Settled::Taken { at }, Settled::Proven { at });
        let rejected = Settled::Rejected { reason: "106".to_owned() };
        let dropped = Settled::Dropped { why: Dropped::Full };
        assert_eq!(ending(&nodes(std::slice::from_ref(&taken))), Ending::Taken);
        assert_eq!(ending(&nodes(&[taken.clone(), proven.clone()])), Ending::Proven);
        // Never called proven without proof.
        let unprovable = Settled::Unprovable { why: Unprovable::NothingWatched };
        assert_eq!(ending(&nodes(&[unprovable, proven])), Ending::Unprovable);
        assert_eq!(ending(&nodes(&[rejected.clone(), taken.clone()])), Ending::Rejected);
        assert_eq!(ending(&nodes(&[rejected, dropped, taken])), Ending::Dropped);
    }

    #[test]
    fn old_content_is_told_from_what_nobody_knows() {
        let of = |state, cause| result(&Settled::Unproven { state, cause });
        let (survived, why) = of(State::Stale, Some(Cause::Upstream));
        assert_eq!(survived, ConfirmedResult::Survived);
        assert_eq!(why.unwrap(), "not seen to be fresh in time: stale (cause: upstream)");
        assert_eq!(of(State::OriginDown, None).0, ConfirmedResult::Unprovable);
        assert_eq!(of(State::Unverifiable, None).0, ConfirmedResult::Unprovable);
    }
}
