//! How soon changes of the origins show at a node: the last day and the last week, counted in
//! hours and in steps of time, so that memory stays the same however many changes there are.

use std::collections::VecDeque;
use std::time::Duration;

use super::record::HourRecord;
use crate::model::{NodeName, Timestamp};

/// The steps that times are counted in; the buckets of `purgewatch_time_to_fresh_seconds`.
pub const STEPS: [Duration; 9] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(600),
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
];

const HOUR: Duration = Duration::from_secs(3_600);

/// The hours of a day, and of a week.
const DAY: u64 = 24;
const WEEK: u64 = 7 * DAY;

/// The changes that a node followed, by the hour and by how long that took. About 8 KiB.
#[derive(Debug)]
pub(super) struct Consistency {
    since: Timestamp,
    /// The latest hours in which there was a change, oldest first; at most a week.
    hours: VecDeque<Hour>,
}

#[derive(Debug)]
struct Hour {
    /// Which hour, counted from the epoch.
    number: u64,
    /// How many changes showed within each step and within none before it; the last count is of
    /// those that took longer than all steps.
    counts: [u32; STEPS.len() + 1],
}

/// How soon changes showed at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceLevel {
    /// In the last 24 hours.
    pub day: Window,
    /// In the last seven days.
    pub week: Window,
}

/// The changes of some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// From when on changes were counted.
    pub since: Timestamp,
    /// How many changes there were, those that do not show yet included.
    pub changes: u64,
    /// How many of them showed within each of [`STEPS`].
    pub within: [u64; STEPS.len()],
    /// How many of them do not show yet, for longer than each of [`STEPS`]. One that is younger
    /// than a step may still show within it.
    pub missing: [u64; STEPS.len()],
    /// For how long the oldest of those has not shown.
    pub oldest_missing: Option<Duration>,
}

impl Consistency {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { since: now, hours: VecDeque::new() }
    }

    /// A change showed at the node `after` it was first seen at the origin. Returns what is to be
    /// stored.
    pub(super) fn showed(
        &mut self,
        node: &NodeName,
        after: Duration,
        now: Timestamp,
    ) -> Option<HourRecord> {
        let number = hour(now);
        if self.hours.back().is_none_or(|last| last.number < number) {
            self.hours.push_back(Hour { number, counts: [0; STEPS.len() + 1] });
        }
        while self.hours.front().is_some_and(|first| first.number + WEEK <= number) {
            self.hours.pop_front();
        }
        let step = STEPS.iter().position(|step| after <= *step).unwrap_or(STEPS.len());
        // An hour that was restored may lie ahead, by a clock that was set back: it goes on.
        let last = self.hours.back_mut()?;
        let count = last.counts.get_mut(step)?;
        *count = count.saturating_add(1);
        let (hour, counts) = (last.number, last.counts);
        Some(HourRecord { node: node.clone(), hour, since: self.since, counts })
    }

    /// Takes in what was stored before a restart.
    pub(super) fn restore(&mut self, record: &HourRecord, now: Timestamp) {
        let this = hour(now);
        if record.hour > this || record.hour + WEEK <= this {
            return;
        }
        self.since = self.since.min(record.since);
        let at = self.hours.partition_point(|known| known.number < record.hour);
        match self.hours.get_mut(at).filter(|known| known.number == record.hour) {
            Some(known) => {
                for (known, more) in known.counts.iter_mut().zip(record.counts) {
                    *known = known.saturating_add(more);
                }
            }
            None => {
                self.hours.insert(at, Hour { number: record.hour, counts: record.counts });
            }
        }
    }

    /// The last day and the last week. `open` are the changes that do not show yet, each with how
    /// long ago it was first seen: as long as that is less than a step, it may still show within
    /// it, and is left out of the count.
    pub(super) fn level(&self, open: &[Duration], now: Timestamp) -> ServiceLevel {
        let window = |hours| self.window(hours, open, now);
        ServiceLevel { day: window(DAY), week: window(WEEK) }
    }

    fn window(&self, hours: u64, open: &[Duration], now: Timestamp) -> Window {
        let oldest = hour(now).saturating_sub(hours - 1);
        let mut within = [0_u64; STEPS.len()];
        let mut changes = 0;
        for hour in self.hours.iter().filter(|hour| hour.number >= oldest) {
            let mut sum = 0;
            for (step, count) in within.iter_mut().zip(hour.counts) {
                sum += u64::from(count);
                *step += sum;
            }
            changes += hour.counts.iter().map(|count| u64::from(*count)).sum::<u64>();
        }
        // A change that has not shown for longer than the first step is one that was missed so
        // far; before that nobody can tell.
        let missing = STEPS.map(|step| {
            u64::try_from(open.iter().filter(|age| **age > step).count()).unwrap_or(u64::MAX)
        });
        let first = STEPS.first().copied().unwrap_or_default();
        let oldest_missing = open.iter().copied().max().filter(|age| *age > first);
        changes += missing.first().copied().unwrap_or_default();
        let begin = now.earlier_by(HOUR * u32::try_from(hours).unwrap_or(u32::MAX));
        Window { since: self.since.max(begin), changes, within, missing, oldest_missing }
    }
}

fn hour(at: Timestamp) -> u64 {
    at.as_millis() / u64::try_from(HOUR.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn showed(seen: &mut Consistency, after: Duration, now: Timestamp) -> HourRecord {
        seen.showed(&NodeName::new("n").unwrap(), after, now).unwrap()
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut seen = Consistency::new(start());
        let first = showed(&mut seen, Duration::from_secs(2), start());
        let later = start() + HOUR;
        let second = showed(&mut seen, Duration::from_secs(9), later);
        let third = showed(&mut seen, Duration::from_secs(9), later);
        assert_eq!(second.hour, third.hour, "one record of an hour replaces the one before");
        let mut again = Consistency::new(later + HOUR);
        for record in [&third, &first] {
            again.restore(record, later + HOUR);
        }
        let now = later + HOUR;
        assert_eq!(again.level(&[], now), seen.level(&[], now));
        let mut late = Consistency::new(start() + HOUR * 168);
        late.restore(&first, start() + HOUR * 168);
        assert!(late.hours.is_empty(), "older than a week");
    }

    #[test]
    fn nothing_is_said_of_no_change() {
        let ServiceLevel { day, week } = Consistency::new(start()).level(&[], start());
        assert_eq!((day.changes, day.within), (0, [0; 9]));
        assert_eq!((week.changes, week.missing, week.oldest_missing), (0, [0; 9], None));
    }

    #[test]
    fn a_step_holds_what_showed_within_it() {
        let mut seen = Consistency::new(start());
        for _ in 0..999 {
            showed(&mut seen, Duration::from_millis(900), start());
        }
        showed(&mut seen, Duration::from_secs(40), start());
        let day = seen.level(&[], start()).day;
        assert_eq!(day.changes, 1_000);
        assert_eq!(day.within, [999, 999, 999, 999, 1_000, 1_000, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn a_change_that_never_shows_counts_against_it() {
        let mut seen = Consistency::new(start());
        showed(&mut seen, Duration::from_millis(10), start());
        let open = [Duration::from_secs(500), Duration::from_millis(300)];
        let day = seen.level(&open, start()).day;
        assert_eq!((day.changes, day.within[0]), (2, 1));
        // Within ten minutes it may still show.
        assert_eq!(day.missing, [1, 1, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(day.oldest_missing, Some(Duration::from_secs(500)));
    }

    #[test]
    fn the_day_forgets_before_the_week_and_memory_is_bounded() {
        let mut seen = Consistency::new(start());
        let mut now = start();
        for _ in 0..1_000 {
            showed(&mut seen, Duration::from_secs(2), now);
            now += HOUR;
        }
        assert!(seen.hours.len() <= usize::try_from(WEEK).unwrap());
        let ServiceLevel { day, week } = seen.level(&[], now);
        assert_eq!((day.changes, week.changes), (23, 167));
        assert_eq!(day.since, now.earlier_by(HOUR * 24));
        let ServiceLevel { day, week } = seen.level(&[], now + HOUR * 200);
        assert_eq!((day.changes, week.changes), (0, 0));
    }
}
