//! What waits to be written: the latest record of each name, so that it is bounded by the number
//! of names however long the disk is away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use crate::engine::{
    Entry, EntryId, HistoryRecord, HourRecord, LedgerRecord, Record, VerdictRecord,
};
use crate::model::{EndpointName, NodeName, VariantName};

/// What waits, by endpoint and variant.
#[derive(Debug, Default)]
pub(super) struct Pending {
    groups: BTreeMap<(EndpointName, VariantName), Group>,
    ledger: BTreeMap<EntryId, Change>,
    hours: BTreeMap<(NodeName, u64), HourRecord>,
}

/// What waits for one entry of the ledger.
#[derive(Debug)]
pub(super) enum Change {
    /// To be written. `first`: it is not in the file yet, so that forgetting it costs nothing.
    Put { entry: Entry, first: bool },
    /// To be removed.
    Remove,
}

/// What waits for one endpoint and variant. Written in this order.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Everything stored earlier goes first.
    pub(super) forget: bool,
    pub(super) history: Option<HistoryRecord>,
    pub(super) verdicts: BTreeMap<NodeName, VerdictRecord>,
}

impl Pending {
    /// Adds a record; it replaces what waits under the same names.
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::History(history) => {
                let key = (history.endpoint.clone(), history.variant.clone());
                self.groups.entry(key).or_default().history = Some(history);
            }
            Record::Verdict(verdict) => {
                let key = (verdict.endpoint.clone(), verdict.variant.clone());
                let group = self.groups.entry(key).or_default();
                group.verdicts.insert(verdict.node.clone(), verdict);
            }
            Record::Forget { endpoint, variant } => {
                let group = Group { forget: true, ..Group::default() };
                self.groups.insert((endpoint, variant), group);
            }
            Record::Hour(record) => {
                self.hours.insert((record.node.clone(), record.hour), record);
            }
            Record::Ledger(LedgerRecord::Put { entry, first }) => {
                let first = first || self.is_first(entry.id);
                self.ledger.insert(entry.id, Change::Put { entry, first });
            }
            Record::Ledger(LedgerRecord::Remove(id)) => {
                if self.is_first(id) {
                    self.ledger.remove(&id);
                } else {
                    self.ledger.insert(id, Change::Remove);
                }
            }
        }
    }

    /// Adds records that are older than everything that waits.
    pub(super) fn add_older(&mut self, records: Vec<Record>) {
        let mut older = Self::default();
        for record in records {
            older.add(record);
        }
        self.put_back(older);
    }

    /// Takes back what could not be written; what came meanwhile is newer and wins.
    pub(super) fn put_back(&mut self, older: Self) {
        for (key, old) in older.groups {
            let group = self.groups.entry(key).or_default();
            if group.forget {
                continue;
            }
            group.forget = old.forget;
            group.history = group.history.take().or(old.history);
            for (node, verdict) in old.verdicts {
                group.verdicts.entry(node).or_insert(verdict);
            }
        }
        for (key, old) in older.hours {
            self.hours.entry(key).or_insert(old);
        }
        for (id, old) in older.ledger {
            match (old, self.ledger.entry(id)) {
                (old, Slot::Vacant(slot)) => drop(slot.insert(old)),
                // It never was in the file.
                (Change::Put { first: true, .. }, Slot::Occupied(mut slot)) => match slot.get_mut()
                {
                    Change::Put { first, .. } => *first = true,
                    Change::Remove => drop(slot.remove()),
                },
                (_, Slot::Occupied(_)) => {}
            }
        }
    }

    pub(super) fn hours(&self) -> impl Iterator<Item = &HourRecord> {
        self.hours.values()
    }

    fn is_first(&self, id: EntryId) -> bool {
        matches!(self.ledger.get(&id), Some(Change::Put { first: true, .. }))
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&EndpointName, &VariantName, &Group)> {
        self.groups.iter().map(|((endpoint, variant), group)| (endpoint, variant, group))
    }

    pub(super) fn ledger(&self) -> impl Iterator<Item = (EntryId, &Change)> {
        self.ledger.iter().map(|(id, change)| (*id, change))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.ledger.is_empty() && self.hours.is_empty()
    }

    /// How many records wait.
    pub(super) fn len(&self) -> usize {
        let in_group =
            |g: &Group| usize::from(g.forget) + usize::from(g.history.is_some()) + g.verdicts.len();
        self.groups.values().map(in_group).sum::<usize>() + self.ledger.len() + self.hours.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::verdict::{HistoryParts, Verdict};

    fn history(endpoint: &str, definition: u64) -> Record {
        Record::History(HistoryRecord {
            endpoint: EndpointName::new(endpoint).unwrap(),
            variant: VariantName::default(),
            definition,
            parts: HistoryParts::default(),
        })
    }

    fn verdict(endpoint: &str, node: &str, definition: u64) -> Record {
        Record::Verdict(VerdictRecord {
            endpoint: EndpointName::new(endpoint).unwrap(),
            variant: VariantName::default(),
            node: NodeName::new(node).unwrap(),
            definition,
            verdict: Verdict::unknown(Timestamp::EPOCH),
            recorded: Timestamp::EPOCH,
        })
    }

    fn forget(endpoint: &str) -> Record {
        Record::Forget {
            endpoint: EndpointName::new(endpoint).unwrap(),
            variant: VariantName::default(),
        }
    }

    /// What waits, in short: `e` and a definition for a history, `e/n` for a verdict, `-e`.
    fn shown(pending: &Pending) -> Vec<String> {
        let mut lines = Vec::new();
        for (endpoint, _, group) in pending.groups() {
            if group.forget {
                lines.push(format!("-{endpoint}"));
            }
            lines.extend(group.history.iter().map(|h| format!("{endpoint} {}", h.definition)));
            for (node, verdict) in &group.verdicts {
                lines.push(format!("{endpoint}/{node} {}", verdict.definition));
            }
        }
        assert_eq!(lines.len(), pending.len());
        lines
    }

    #[test]
    fn the_latest_of_each_name_waits() {
        let mut pending = Pending::default();
        for n in 0..1_000 {
            pending.add(history("a", n));
            pending.add(verdict("a", "x", n));
            pending.add(verdict("a", "y", n));
        }
        assert_eq!(shown(&pending), ["a 999", "a/x 999", "a/y 999"]);
    }

    #[test]
    fn forgetting_drops_what_came_before_and_keeps_what_comes_after() {
        let mut pending = Pending::default();
        pending.add(history("a", 1));
        pending.add(verdict("a", "x", 1));
        pending.add(forget("a"));
        assert_eq!(shown(&pending), ["-a"]);
        pending.add(verdict("a", "x", 2));
        assert_eq!(shown(&pending), ["-a", "a/x 2"]);
    }

    #[test]
    fn what_comes_back_from_a_failed_write_yields_to_what_is_newer() {
        let mut pending = Pending::default();
        for record in [history("a", 1), verdict("a", "x", 1), forget("b"), history("b", 1)] {
            pending.add(record);
        }
        pending.add(history("c", 1));
        let failed = pending.take();
        assert!(pending.is_empty());
        pending.add(history("a", 2));
        pending.add(verdict("b", "x", 2));
        pending.add(forget("c"));
        pending.put_back(failed);
        assert_eq!(shown(&pending), ["a 2", "a/x 1", "-b", "b 1", "b/x 2", "-c"]);
    }
}
