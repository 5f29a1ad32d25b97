//! When the next round is due: on a grid of its own for each watch, so that nothing drifts, and
//! with the grids spread evenly, so that nothing bunches.

use std::time::Duration;

use crate::model::Timestamp;

/// The jitter of each round, as a part of its interval. It is not carried over to the next one.
const JITTER: f64 = 0.02;

/// The grid of one watch: `origin + k * interval`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    anchor: Timestamp,
    interval: Duration,
}

impl Grid {
    /// The grid of the `index`-th watch. Consecutive indices fall far apart within the interval,
    /// and any number of them fills it evenly (multiples of the golden ratio).
    pub(super) fn new(index: u32, interval: Duration, start: Timestamp) -> Self {
        let phase = (f64::from(index) * 0.618_033_988_749_895).fract();
        Self { anchor: start + interval.mul_f64(phase), interval }
    }

    /// The first due time of a watch that starts now: soon, and spread like the grid, but with no
    /// more than a hundred watches a second.
    pub(super) fn first(&self, start: Timestamp, watches: usize) -> Timestamp {
        let spread =
            Duration::from_millis(10).saturating_mul(u32::try_from(watches).unwrap_or(u32::MAX));
        if spread >= self.interval || self.interval.is_zero() {
            return self.anchor;
        }
        let share = spread.as_secs_f64() / self.interval.as_secs_f64();
        start + self.anchor.since(start).mul_f64(share)
    }

    /// The next point of the grid after `now`, at least a tenth of an interval away, with
    /// jitter.
    /// `jitter` is from 0 to 1.
    pub(super) fn next(&self, now: Timestamp, jitter: f64) -> Timestamp {
        let interval = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let since = u64::try_from(now.since(self.anchor).as_millis()).unwrap_or(u64::MAX);
        let earliest = since.saturating_add(interval / 10);
        let step = earliest / interval + 1;
        let point = if now < self.anchor && self.anchor.since(now) >= self.interval / 10 {
            self.anchor
        } else {
            self.anchor + Duration::from_millis(step.saturating_mul(interval))
        };
        point + self.interval.mul_f64(JITTER * jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn start() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    #[test]
    fn it_does_not_drift() {
        let grid = Grid::new(7, INTERVAL, start());
        let mut now = grid.first(start(), 10);
        let mut rounds = 0;
        while now.since(start()) < INTERVAL * 1_000 {
            // Rounds take their time, and their jitter differs.
            now = grid.next(now + Duration::from_millis(900), f64::from(rounds % 10) / 10.0);
            rounds += 1;
        }
        assert!((999..=1_001).contains(&rounds), "{rounds}");
    }

    #[test]
    fn it_does_not_bunch() {
        let count = 10_000;
        let mut in_second = [0; 30];
        for index in 0..count {
            let grid = Grid::new(index, INTERVAL, start());
            let at = grid.first(start(), 10_000).since(start()).as_secs();
            in_second[usize::try_from(at).unwrap()] += 1;
        }
        for (second, number) in in_second.into_iter().enumerate() {
            assert!((323..=343).contains(&number), "{number} in second {second}");
        }
    }

    #[test]
    fn a_few_watches_start_at_once() {
        for index in 0..5 {
            let first = Grid::new(index, INTERVAL, start()).first(start(), 5);
            assert!(first.since(start()) <= Duration::from_millis(50));
        }
    }

    #[test]
    fn a_missed_round_is_not_made_up_for() {
        let grid = Grid::new(0, INTERVAL, start());
        let next = grid.next(start() + INTERVAL * 10, 0.0);
        assert_eq!(next.since(start()), INTERVAL * 11);
        let soon = grid.next(start() + Duration::from_millis(299_990), 0.0);
        assert_eq!(soon.since(start()), INTERVAL * 11, "not twice within a moment");
    }
}
