//! What was handed over and is not finished at the server. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ingest::StreamId;

/// So many acknowledgements or answers go to the server at once.
const BATCH: usize = 1_024;

/// The entries in the hands of the program, what became of them, and the answers that wait to be
/// written. Survives connections: nothing in it is forgotten before the server said that it has
/// it.
#[derive(Debug)]
pub(super) struct Outstanding {
    window: usize,
    window_bytes: usize,
    entries: BTreeMap<StreamId, Held>,
    bytes: usize,
    finished: BTreeSet<StreamId>,
    set_aside: BTreeMap<StreamId, SetAside>,
    /// What the server would not have set aside, to be tried again later.
    postponed: BTreeMap<StreamId, SetAside>,
    answers: VecDeque<Vec<u8>>,
    /// Whatever is not in `entries` and no newer than this is done with.
    reached: Option<StreamId>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    bytes: usize,
}

/// An entry that is to be put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetAside {
    /// Why.
    pub(super) reason: String,
    /// Whether its fields are put there, too; not when they are too much.
    pub(super) with_fields: bool,
}

impl Outstanding {
    pub(super) fn new(window: usize, window_bytes: usize) -> Self {
        Self {
            window: window.max(1),
            window_bytes,
            entries: BTreeMap::new(),
            bytes: 0,
            finished: BTreeSet::new(),
            set_aside: BTreeMap::new(),
            postponed: BTreeMap::new(),
            answers: VecDeque::new(),
            reached: None,
        }
    }

    /// How many more entries may be read.
    pub(super) fn room(&self) -> usize {
        if self.bytes >= self.window_bytes && !self.entries.is_empty() {
            return 0;
        }
        self.window.saturating_sub(self.entries.len())
    }

    /// An entry was read. Whether it is to be handed over; not when it is there already.
    pub(super) fn add(&mut self, id: StreamId, bytes: usize) -> bool {
        if self.entries.contains_key(&id) {
            return false;
        }
        self.bytes += bytes;
        self.entries.insert(id, Held { bytes });
        true
    }

    /// All up to there was read, and is done with or [added](Self::add).
    pub(super) fn reached(&mut self, id: StreamId) {
        self.reached = Some(id);
    }

    /// All up to there is done with, at the server as well; `None` before anything was read.
    pub(super) fn done_up_to(&self) -> Option<StreamId> {
        let reached = self.reached?;
        let oldest = self.entries.keys().next();
        Some(oldest.map_or(reached, |id| id.predecessor().min(reached)))
    }

    /// The ids of everything that is not finished at the server.
    pub(super) fn ids(&self) -> BTreeSet<StreamId> {
        self.entries.keys().copied().collect()
    }

    /// An entry is done with. Whether it is one of ours that is not done with already.
    pub(super) fn finish(&mut self, id: StreamId) -> bool {
        let aside = self.set_aside.contains_key(&id) || self.postponed.contains_key(&id);
        self.entries.contains_key(&id) && !aside && self.finished.insert(id)
    }

    /// An entry is to be put aside. Whether it is one of ours that was not finished.
    pub(super) fn put_aside(&mut self, id: StreamId, aside: SetAside) -> bool {
        let done = self.finished.contains(&id) || self.postponed.contains_key(&id);
        let ours = self.entries.contains_key(&id) && !done;
        if ours {
            self.set_aside.entry(id).or_insert(aside);
        }
        ours
    }

    /// The server refused to have an entry set aside: it waits until [`resume`](Self::resume).
    pub(super) fn postpone(&mut self, id: StreamId) {
        if let Some(aside) = self.set_aside.remove(&id) {
            self.postponed.insert(id, aside);
        }
    }

    /// What was postponed is to be tried again.
    pub(super) fn resume(&mut self) {
        self.set_aside.append(&mut self.postponed);
    }

    /// An answer is to be written. Whether there was room for it: four for each entry that may be
    /// unfinished.
    pub(super) fn answer(&mut self, text: Vec<u8>) -> bool {
        let room = self.answers.len() < self.window.saturating_mul(4);
        if room {
            self.answers.push_back(text);
        }
        room
    }

    /// The next batch of finished entries; none while there is more than a batch of answers, which
    /// come first. They stay until [`forget`](Self::forget).
    pub(super) fn next_finished(&self) -> Vec<StreamId> {
        if self.answers.len() > BATCH {
            return Vec::new();
        }
        self.first_finished()
    }

    /// The same, whatever becomes of the answers.
    pub(super) fn first_finished(&self) -> Vec<StreamId> {
        self.finished.iter().take(BATCH).copied().collect()
    }

    /// The next batch of answers. They stay until [`answered`](Self::answered).
    pub(super) fn next_answers(&self) -> Vec<Vec<u8>> {
        self.answers.iter().take(BATCH).cloned().collect()
    }

    /// The next entry to put aside. It stays until [`forget`](Self::forget).
    pub(super) fn next_aside(&self) -> Option<(StreamId, SetAside)> {
        self.set_aside.iter().next().map(|(id, aside)| (*id, aside.clone()))
    }

    /// The server has these answers.
    pub(super) fn answered(&mut self, count: usize) {
        self.answers.drain(..count.min(self.answers.len()));
    }

    /// The server has finished with these entries.
    pub(super) fn forget(&mut self, ids: &[StreamId]) {
        for id in ids {
            self.finished.remove(id);
            self.set_aside.remove(id);
            if let Some(held) = self.entries.remove(id) {
                self.bytes = self.bytes.saturating_sub(held.bytes);
            }
        }
    }

    /// Whether nothing waits to be written to the server, but for what it refuses.
    pub(super) fn is_written(&self) -> bool {
        self.finished.is_empty() && self.set_aside.is_empty() && self.answers.is_empty()
    }

    /// How many entries are in the hands of the program.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { milliseconds: ms, sequence: 0 }
    }

    fn aside() -> SetAside {
        SetAside { reason: "no JSON".into(), with_fields: true }
    }

    #[test]
    fn an_entry_takes_room_until_the_server_is_done_with_it() {
        let mut held = Outstanding::new(2, 1_000);
        assert!(held.add(id(1), 10) && held.add(id(2), 10));
        assert!(!held.add(id(1), 10), "it is there already");
        assert_eq!(held.room(), 0);
        assert!(held.finish(id(1)));
        assert!(!held.finish(id(1)), "twice");
        assert!(!held.finish(id(9)), "not ours");
        assert_eq!(held.room(), 0, "the server has not said so yet");
        // A connection that breaks leaves it to the next one.
        assert_eq!(held.next_finished(), [id(1)]);
        assert_eq!(held.next_finished(), [id(1)]);
        held.forget(&[id(1)]);
        assert_eq!((held.room(), held.len()), (1, 1));
        assert!(held.is_written());
    }

    #[test]
    fn it_is_known_how_far_all_is_done_with() {
        let mut held = Outstanding::new(10, 100);
        assert_eq!(held.done_up_to(), None);
        held.reached(id(3));
        assert_eq!(held.done_up_to(), Some(id(3)));
        held.add(id(4), 1);
        held.add(id(5), 1);
        held.reached(id(5));
        held.finish(id(5));
        held.forget(&[id(5)]);
        assert_eq!(held.done_up_to(), Some(id(4).predecessor()));
        held.forget(&[id(4)]);
        assert_eq!(held.done_up_to(), Some(id(5)));
    }

    #[test]
    fn bytes_bound_it_too_but_one_entry_always_fits() {
        let mut held = Outstanding::new(10, 100);
        assert!(held.add(id(1), 500));
        assert_eq!(held.room(), 0);
        held.finish(id(1));
        held.forget(&[id(1)]);
        assert_eq!(held.room(), 10);
        assert_eq!(Outstanding::new(10, 0).room(), 10);
    }

    #[test]
    fn an_entry_has_one_end() {
        let mut held = Outstanding::new(10, 100);
        held.add(id(1), 1);
        held.add(id(2), 1);
        assert!(held.put_aside(id(1), aside()));
        assert!(!held.finish(id(1)), "it is put aside already");
        assert!(held.finish(id(2)));
        assert!(!held.put_aside(id(2), aside()));
        assert_eq!(held.next_aside(), Some((id(1), aside())));
        held.forget(&[id(1), id(2)]);
        assert_eq!((held.next_aside(), held.len()), (None, 0));
    }

    #[test]
    fn what_the_server_refuses_to_have_set_aside_is_tried_again() {
        let mut held = Outstanding::new(10, 100);
        held.add(id(1), 1);
        held.put_aside(id(1), aside());
        held.postpone(id(1));
        assert!(held.next_aside().is_none() && held.is_written());
        assert!(!held.finish(id(1)) && !held.put_aside(id(1), aside()));
        held.resume();
        assert_eq!(held.next_aside(), Some((id(1), aside())));
        assert_eq!(held.len(), 1);
    }

    #[test]
    fn answers_go_before_what_is_finished() {
        let mut held = Outstanding::new(1_000, 100);
        held.add(id(1), 1);
        for _ in 0..=BATCH {
            held.answer(Vec::new());
        }
        held.finish(id(1));
        assert!(held.next_finished().is_empty());
        held.answered(held.next_answers().len());
        assert_eq!(held.next_finished(), [id(1)]);
    }

    #[test]
    fn answers_are_bounded_and_kept_until_written() {
        let mut held = Outstanding::new(1, 100);
        for n in 0..4 {
            assert!(held.answer(vec![n]));
        }
        assert!(!held.answer(vec![4]));
        assert_eq!(held.next_answers().len(), 4);
        held.answered(3);
        assert_eq!(held.next_answers(), [vec![3]]);
    }
}
