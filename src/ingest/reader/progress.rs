//! What was trimmed before it was read. Pure.

use crate::ingest::StreamId;
use crate::ingest::reply::StreamInfo;

/// So many ids are kept between two checks.
const MOST_UNCHECKED: usize = 8_192;

/// How far the group has read, in entries ever added, to be compared with what the stream still
/// holds.
///
/// The server's own counter (`entries-read` of XINFO GROUPS) cannot be used for this while it
/// runs: Redis 7.0 adds one for each entry that it delivers, also across a trimmed range, and does
/// not write it to its append-only file, so that it is too low after a restart of the server. It is
/// corrected whenever a loss was found, and when it is seen to be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The newest entry delivered.
    last: StreamId,
    /// How many entries were added up to `last`, those deleted since included.
    position: Option<u64>,
    /// What was delivered since the last check, in order.
    unchecked: Vec<StreamId>,
}

impl Progress {
    /// A group that read up to `last`, the entry number `position`.
    pub(super) fn new(last: StreamId, position: Option<u64>) -> Self {
        Self { last, position, unchecked: Vec::new() }
    }

    /// The newest entry delivered.
    pub(super) fn last(&self) -> StreamId {
        self.last
    }

    /// Where the group stands, and the number of its last entry, if that is known.
    pub(super) fn standing(&self) -> Option<(StreamId, u64)> {
        Some((self.last, self.position? + count(self.unchecked.len())))
    }

    /// These were delivered by one read, which nothing was trimmed within.
    pub(super) fn read(&mut self, ids: impl Iterator<Item = StreamId>) {
        for id in ids {
            if id > self.last {
                self.last = id;
                self.unchecked.push(id);
            }
        }
        // Only where nothing is looked up for long.
        if self.unchecked.len() > MOST_UNCHECKED {
            self.position = self.position.map(|position| position + count(self.unchecked.len()));
            self.unchecked.clear();
        }
    }

    /// Compares with what the stream holds, as it was after everything that was read till now and
    /// before what is read next. Servers before 7.0 do not count, so nothing is found there.
    ///
    /// The number of entries that were gone before they were read, if any.
    pub(super) fn check(&mut self, info: &StreamInfo) -> Option<u64> {
        let unchecked = std::mem::take(&mut self.unchecked);
        let believed = self.position.map(|position| position + count(unchecked.len()));
        self.position = believed;
        let added = info.added?;
        let gone = added.saturating_sub(info.length);
        let is_last = info.last <= self.last;
        let (actual, at) = match info.first {
            // All that ever came was read.
            None if is_last => {
                self.position = Some(added);
                return None;
            }
            // All that was read is gone, and perhaps more.
            Some(first) if first > self.last => (gone, first.predecessor()),
            None => (gone, info.last.max(self.last)),
            // The oldest that is left is one that was read since the last check: its place in the
            // stream is known, and so is that of the newest that was read.
            Some(first) => {
                let before = unchecked.partition_point(|id| *id < first);
                if before == 0 && unchecked.first() != Some(&first) {
                    // What is older than anything unread is still there: nothing was lost, whatever
                    // was believed.
                    if is_last {
                        self.position = Some(added);
                    }
                    return None;
                }
                (gone + count(unchecked.len() - before), self.last)
            }
        };
        let Some(believed) = believed else {
            self.position = Some(actual);
            return None;
        };
        self.position = Some(actual);
        // Less than believed: the stream was made anew, or the server went back to an older copy.
        (actual > believed).then(|| {
            self.last = at.max(self.last);
            actual - believed
        })
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { milliseconds: ms, sequence: 0 }
    }

    fn info(first: Option<u64>, length: u64, added: u64) -> StreamInfo {
        StreamInfo { length, added: Some(added), first: first.map(id), last: id(added) }
    }

    #[test]
    fn what_was_trimmed_before_it_was_read_is_counted_once() {
        let mut progress = Progress::new(id(3), Some(3));
        // 10 were added, 4 are left: 4, 5 and 6 are lost.
        assert_eq!(progress.check(&info(Some(7), 4, 10)), Some(3));
        assert_eq!(progress.standing(), Some((id(7).predecessor(), 6)));
        progress.read([7, 8].map(id).into_iter());
        assert_eq!(progress.check(&info(Some(7), 4, 10)), None);
        // All were trimmed, the last two unread.
        assert_eq!(progress.check(&info(None, 0, 10)), Some(2));
        assert_eq!(progress.standing(), Some((id(10), 10)));
        assert_eq!(progress.check(&info(None, 0, 10)), None);
    }

    #[test]
    fn trimming_what_was_read_is_no_loss() {
        let mut progress = Progress::new(id(0), Some(0));
        progress.read([1, 2, 3].map(id).into_iter());
        assert_eq!(progress.check(&info(Some(3), 1, 3)), None);
        assert_eq!(progress.check(&info(None, 0, 3)), None);
    }

    #[test]
    fn a_stream_that_was_made_anew_is_no_loss() {
        let mut progress = Progress::new(id(50), Some(50));
        assert_eq!(progress.check(&info(Some(51), 2, 2)), None);
        progress.read([51, 52].map(id).into_iter());
        assert_eq!(progress.check(&info(Some(51), 2, 2)), None);
    }

    /// After a restart of the server with an append-only file.
    #[test]
    fn a_counter_that_is_too_low_invents_no_loss() {
        let mut progress = Progress::new(id(36), Some(0));
        assert_eq!(progress.check(&info(Some(1), 36, 36)), None);
        assert_eq!(progress.standing(), Some((id(36), 36)));
        let mut progress = Progress::new(id(36), Some(0));
        assert_eq!(progress.check(&info(None, 0, 36)), None);
        assert_eq!(progress.standing(), Some((id(36), 36)));
        // Two more came and are not read: what is behind them is not known yet.
        let mut progress = Progress::new(id(36), Some(0));
        assert_eq!(progress.check(&info(Some(1), 38, 38)), None);
        progress.read([37, 38].map(id).into_iter());
        assert_eq!(progress.check(&info(Some(1), 38, 38)), None);
        assert_eq!(progress.check(&info(None, 0, 38)), None);
        assert_eq!(progress.check(&info(Some(41), 1, 41)), Some(2));
    }

    #[test]
    fn servers_that_do_not_count_find_nothing() {
        let mut progress = Progress::new(id(3), None);
        let info = StreamInfo { added: None, ..info(Some(7), 4, 10) };
        assert_eq!(progress.check(&info), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u64),
        Trim(u64),
        /// A read that waited, so that nothing was looked up just before it.
        Read(usize),
        Check,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1_u64..8).prop_map(Step::Add),
            (0_u64..8).prop_map(Step::Trim),
            (1_usize..5).prop_map(Step::Read),
            Just(Step::Check),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        /// Whatever is added, trimmed and read: as long as there is a check after each read, which
        /// is how it is used, every loss is counted, once.
        #[test]
        fn every_loss_is_counted_once(steps in steps()) {
            let (mut held, mut added) = (VecDeque::new(), 0);
            let mut progress = Progress::new(id(0), Some(0));
            let (mut seen, mut lost) = (0, 0);
            let mut check = |progress: &mut Progress, held: &VecDeque<u64>, added| {
                let info = info(held.front().copied(), count(held.len()), added);
                lost += progress.check(&info).unwrap_or(0);
            };
            for step in steps {
                match step {
                    Step::Add(n) => {
                        for _ in 0..n { added += 1; held.push_back(added); }
                    }
                    Step::Trim(left) => while count(held.len()) > left { held.pop_front(); },
                    Step::Read(n) => {
                        let last = progress.last();
                        let new: Vec<_> =
                            held.iter().copied().map(id).filter(|i| *i > last).take(n).collect();
                        seen += count(new.len());
                        progress.read(new.into_iter());
                        check(&mut progress, &held, added);
                    }
                    Step::Check => check(&mut progress, &held, added),
                }
            }
            check(&mut progress, &held, added);
            let unread = held.iter().filter(|i| id(**i) > progress.last()).count();
            prop_assert_eq!(seen + lost + count(unread), added);
        }
    }
}
