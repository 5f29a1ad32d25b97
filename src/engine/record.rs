//! What must survive a restart.

use super::consistency::STEPS;
use super::ledger::{Entry, LedgerRecord};
use crate::model::{EndpointName, NodeName, Timestamp, VariantName};
use crate::verdict::{HistoryParts, Verdict};

/// Something to be stored. A later record with the same names replaces an earlier one.
///
/// Points of time are on the program's own line; whoever stores them moves them to the wall
/// clock's, and back when they are restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// What an origin was seen to serve.
    History(HistoryRecord),
    /// What is known of one endpoint and variant at one node.
    Verdict(VerdictRecord),
    /// An endpoint's variant that is watched no longer: its history and verdicts can go.
    Forget {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its variant.
        variant: VariantName,
    },
    /// A ban of the ledger.
    Ledger(LedgerRecord),
    /// How soon changes showed at one node in one hour.
    Hour(HourRecord),
}

/// What an origin was seen to serve for one endpoint and variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Its variant.
    pub variant: VariantName,
    /// A digest of what the versions depend on (URL, headers, compare rule): a history stored
    /// under another definition means nothing.
    pub definition: u64,
    /// The history.
    pub parts: HistoryParts,
}

/// What is known of one endpoint and variant at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictRecord {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Its variant.
    pub variant: VariantName,
    /// The node.
    pub node: NodeName,
    /// See [`HistoryRecord::definition`].
    pub definition: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// When this was recorded. A clock that was set back meanwhile must not make staleness
    /// smaller than it was then.
    pub recorded: Timestamp,
}

/// How soon changes showed at one node in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourRecord {
    /// The node.
    pub node: NodeName,
    /// Which hour, counted from the epoch of the program's own line.
    pub hour: u64,
    /// From when on changes of this node were counted.
    pub since: Timestamp,
    /// How many changes showed within each of [`STEPS`] and within none before it; the last count
    /// is of those that took longer than all of them.
    pub counts: [u32; STEPS.len() + 1],
}

/// All that was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Histories, in any order.
    pub histories: Vec<HistoryRecord>,
    /// Verdicts, in any order.
    pub verdicts: Vec<VerdictRecord>,
    /// Bans of the ledger, in any order.
    pub ledger: Vec<Entry>,
    /// How soon changes showed, in any order.
    pub hours: Vec<HourRecord>,
}
