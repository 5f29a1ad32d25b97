//! A point in time that never goes back.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point on the program's own time line, in milliseconds since the Unix epoch.
///
/// The line is set by the wall clock once, when the program starts, and moves with the monotonic
/// clock from then on (`clock.rs`): a wall clock that is stepped, forwards or back, moves nothing
/// that is measured. What is shown to others or stored is moved to the wall clock's time first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// The point `milliseconds` after the Unix epoch.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Seconds since the Unix epoch, as Prometheus wants them.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "2^53 ms is beyond the year 280,000")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` earlier, the epoch at the least.
    #[must_use]
    pub fn earlier_by(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// This point on a line that runs `offset_millis` ahead of this one.
    #[must_use]
    pub const fn shifted(self, offset_millis: i64) -> Self {
        Self(self.0.saturating_add_signed(offset_millis))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Timestamp::from_millis(1_000), Timestamp::from_millis(3_500));
        assert_eq!(late.since(early), Duration::from_millis(2_500));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.earlier_by(Duration::from_secs(5)), Timestamp::EPOCH);
        assert_eq!(early + Duration::MAX, Timestamp::from_millis(u64::MAX));
        assert_eq!(late.shifted(-500), Timestamp::from_millis(3_000));
    }
}
