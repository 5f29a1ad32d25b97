//! How much the ledger holds, and what goes first when that is too much.

use std::time::Duration;

use super::{EntryId, Ledger, LedgerOutput, LedgerRecord, News, Standing};
use crate::model::Timestamp;

/// How much the ledger holds. Default: 10,000 bans, 32 MiB, seven days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bans.
    pub entries: usize,
    /// The most bytes that they take together, about: their texts, and 128 for each node.
    pub bytes: usize,
    /// How long a ban is kept. Objects rarely live longer.
    pub age: Duration,
}

/// Why a ban was dropped before every node had taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// There was no room left.
    Full,
    /// It waited too long.
    Expired,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Full, Self::Expired];

    /// The `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Expired => "expired",
        }
    }
}

impl Ledger {
    pub(super) fn keep_bounds(&mut self, now: Timestamp) {
        while let Some(oldest) = self.entries.values().next() {
            if now.since(oldest.issued) < self.limits.age {
                break;
            }
            self.drop_entry(oldest.id, DropReason::Expired);
        }
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            let settled = self.settled.first();
            let Some(&id) = settled.or_else(|| self.entries.keys().next()) else { return };
            self.drop_entry(id, DropReason::Full);
        }
    }

    fn drop_entry(&mut self, id: EntryId, because: DropReason) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.settled.remove(&id);
        self.bytes = self.bytes.saturating_sub(entry.weight());
        let waiting = entry.nodes.iter().filter(|(_, standing)| Standing::is_pending(standing));
        for (node, _) in waiting {
            if let Some(queue) = self.nodes.get_mut(node) {
                queue.pending.remove(&id);
            }
            if let Some(count) = self.dropped.get_mut(because as usize) {
                *count = count.saturating_add(1);
            }
            let (node, ban) = (node.clone(), entry.ban.clone());
            self.outputs.push_back(LedgerOutput::News(News::Dropped { node, ban, because }));
        }
        self.outputs.push_back(LedgerOutput::Record(LedgerRecord::Remove(id)));
    }
}
