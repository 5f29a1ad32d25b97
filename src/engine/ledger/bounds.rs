//! How much the ledger holds, and what goes first when that is too much.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{BanText, End, Entry, EntryId, Ledger, LedgerOutput, LedgerRecord, News, Standing};
use crate::model::{NodeName, Timestamp};

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
    /// Whether these bans of an event fit in for these nodes without anything being dropped that
    /// still waits.
    #[must_use]
    pub fn has_room(&self, bans: &[BanText], nodes: &BTreeSet<NodeName>) -> bool {
        let joins = |ban: &BanText, node: &NodeName| {
            self.nodes.get(node).is_some_and(|node| node.pending.joinable(ban).is_some())
        };
        let (mut entries, mut bytes) = (0_usize, 0_usize);
        for ban in bans {
            let own = nodes.iter().filter(|node| !joins(ban, node)).count();
            if own > 0 {
                entries += 1;
                bytes = bytes.saturating_add(Entry::weight_of(ban, own));
            }
        }
        let waiting = self.entries.len().saturating_sub(self.settled.len());
        let waiting_bytes = self.bytes.saturating_sub(self.settled_bytes);
        waiting.saturating_add(entries) <= self.limits.entries
            && waiting_bytes.saturating_add(bytes) <= self.limits.bytes
    }

    /// Whether these bans would fit in if there were nothing else.
    #[must_use]
    pub fn could_hold(&self, bans: &[BanText], nodes: usize) -> bool {
        let bytes = bans.iter().map(|ban| Entry::weight_of(ban, nodes)).sum::<usize>();
        bans.len() <= self.limits.entries && bytes <= self.limits.bytes
    }

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
        if self.settled.remove(&id) {
            self.settled_bytes = self.settled_bytes.saturating_sub(entry.weight());
        }
        self.bytes = self.bytes.saturating_sub(entry.weight());
        let waiting = entry.nodes.iter().filter(|(_, standing)| Standing::is_pending(standing));
        for (node, _) in waiting {
            if let Some(queue) = self.nodes.get_mut(node) {
                queue.pending.remove(id, &entry.ban);
            }
            if !entry.is_voidable() {
                let (node, end) = (node.clone(), End::Dropped(because));
                self.outputs.push_back(LedgerOutput::Ended { id, node, end });
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
