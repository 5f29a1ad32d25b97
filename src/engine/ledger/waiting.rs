//! What waits for one node, and which of it may be handed over when.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::{BanText, Entry, EntryId};
use crate::model::Timestamp;

/// The longest time for which an equal ban is held back.
pub const LONGEST_DEBOUNCE: Duration = Duration::from_secs(60);

/// So many bans are remembered that were handed over of late. Of more, the oldest are forgotten:
/// an equal one is then sent at once.
const REMEMBERED: usize = 16_384;

/// The bans that wait for a node.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// All of them, oldest first.
    all: BTreeSet<EntryId>,
    /// Those that a restart of the cache process can make needless.
    voidable: BTreeSet<EntryId>,
    /// Those of events that are not handed over: a later one that is equal is delivered with them.
    joinable: BTreeMap<BanText, EntryId>,
    /// Those that are held back, and until when.
    held: BTreeMap<EntryId, Timestamp>,
    releases: BTreeSet<(Timestamp, EntryId)>,
    recent: Recent,
}

impl Waiting {
    pub(super) fn insert(&mut self, entry: &Entry) {
        self.all.insert(entry.id);
        if entry.is_voidable() {
            self.voidable.insert(entry.id);
        } else {
            self.joinable.entry(entry.ban.clone()).or_insert(entry.id);
        }
    }

    pub(super) fn remove(&mut self, id: EntryId, ban: &BanText) {
        self.all.remove(&id);
        self.voidable.remove(&id);
        self.release(id);
        if self.joinable.get(ban) == Some(&id) {
            self.joinable.remove(ban);
        }
    }

    /// The ban of an event that waits, was not handed over, and says the same.
    pub(super) fn joinable(&self, ban: &BanText) -> Option<EntryId> {
        self.joinable.get(ban).copied()
    }

    /// Holds an entry back if an equal one was handed over less than `debounce` ago.
    pub(super) fn debounce(&mut self, entry: &Entry, debounce: Duration, now: Timestamp) {
        let Some(last) = self.recent.last(&entry.ban) else { return };
        let until = last + debounce.min(LONGEST_DEBOUNCE);
        if until > now {
            self.held.insert(entry.id, until);
            self.releases.insert((until, entry.id));
        }
    }

    /// An entry is handed over: from now on it can not be joined.
    pub(super) fn hand_over(&mut self, entry: &Entry, now: Timestamp) {
        if entry.is_voidable() {
            return;
        }
        if self.joinable.get(&entry.ban) == Some(&entry.id) {
            self.joinable.remove(&entry.ban);
        }
        self.recent.note(&entry.ban, now);
    }

    /// An entry that was handed over waits again.
    pub(super) fn hand_back(&mut self, entry: &Entry) {
        if !entry.is_voidable() && self.all.contains(&entry.id) {
            self.joinable.entry(entry.ban.clone()).or_insert(entry.id);
        }
    }

    /// Those whose time has come are not held back any more.
    pub(super) fn release_due(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.releases.first().copied()
            && until <= now
        {
            self.release(id);
        }
    }

    fn release(&mut self, id: EntryId) {
        if let Some(until) = self.held.remove(&id) {
            self.releases.remove(&(until, id));
        }
    }

    /// When there is something to hand over: `None` when nothing waits, the epoch when something
    /// is not held back.
    pub(super) fn ready(&self) -> Option<Timestamp> {
        if self.all.len() > self.held.len() {
            return Some(Timestamp::EPOCH);
        }
        self.releases.first().map(|(until, _)| *until)
    }

    /// Those up to that one, oldest first, whether held back or not.
    pub(super) fn up_to(&self, last: EntryId) -> impl Iterator<Item = EntryId> {
        self.all.range(..=last).copied()
    }

    pub(super) fn is_held(&self, id: EntryId) -> bool {
        self.held.contains_key(&id)
    }

    /// Whether any of them may be needless, so that the node has to be looked at first.
    pub(super) fn has_voidable(&self) -> bool {
        !self.voidable.is_empty()
    }

    /// Those that may be needless, up to that one.
    pub(super) fn voidable(&self, last: EntryId) -> impl Iterator<Item = EntryId> {
        self.voidable.range(..=last).copied()
    }

    pub(super) fn first(&self) -> Option<EntryId> {
        self.all.first().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// When bans were handed over of late. Of each only a digest is kept: two with the same one cost a
/// moment, no more.
#[derive(Debug, Default)]
struct Recent {
    last: HashMap<u64, Timestamp>,
    order: VecDeque<(Timestamp, u64)>,
}

impl Recent {
    fn last(&self, ban: &BanText) -> Option<Timestamp> {
        self.last.get(&digest(ban)).copied()
    }

    fn note(&mut self, ban: &BanText, now: Timestamp) {
        while let Some((at, oldest)) = self.order.front().copied()
            && (now.since(at) >= LONGEST_DEBOUNCE || self.order.len() >= REMEMBERED)
        {
            self.order.pop_front();
            if self.last.get(&oldest) == Some(&at) {
                self.last.remove(&oldest);
            }
        }
        let digest = digest(ban);
        self.last.insert(digest, now);
        self.order.push_back((now, digest));
    }
}

fn digest(ban: &BanText) -> u64 {
    let mut hasher = DefaultHasher::new();
    ban.as_str().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        let start = Timestamp::from_millis(1_000_000);
        let ban = |at: usize| BanText::new(&format!("req.url == /{at}")).unwrap();
        for at in 0..REMEMBERED + 10 {
            recent.note(&ban(at), start);
        }
        assert_eq!((recent.last.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(recent.last(&ban(3)), None);
        assert_eq!(recent.last(&ban(20)), Some(start));
        recent.note(&ban(0), start + LONGEST_DEBOUNCE);
        assert_eq!((recent.last.len(), recent.order.len()), (1, 1));
    }
}
