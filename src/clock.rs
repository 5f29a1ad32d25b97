//! Layer 3: the only place that asks the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;

/// Tells the time on the program's own line (see [`Timestamp`]). Copies share the line.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    anchored_at: Timestamp,
}

impl Clock {
    /// Starts a time line at the wall clock's time of now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that asks the time")]
    pub fn start() -> Self {
        Self { anchor: Instant::now(), anchored_at: wall_clock() }
    }

    /// Now, on the time line: never earlier than any answer before.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.anchored_at + self.anchor.elapsed()
    }

    /// The monotonic clock, to measure how long something took: finer than the line's
    /// milliseconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that asks the time")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// How far the wall clock is ahead of the time line now, in milliseconds; not zero once the
    /// wall clock was stepped. A point of the line [`shifted`](Timestamp::shifted) by this is one
    /// that others understand.
    #[must_use]
    pub fn wall_offset(&self) -> i64 {
        let difference =
            |a: Timestamp, b: Timestamp| i64::try_from(a.since(b).as_millis()).unwrap_or(i64::MAX);
        let (wall, line) = (wall_clock(), self.now());
        difference(wall, line) - difference(line, wall)
    }

    /// The monotonic instant at which the line reaches `at`, for a timer.
    #[must_use]
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        self.anchor + at.since(self.anchored_at)
    }
}

/// A seed for random numbers: jitter needs no secrecy, only that two daemons differ.
#[must_use]
pub fn random_seed() -> u64 {
    let pid = u64::from(std::process::id());
    wall_clock().as_millis().rotate_left(20) ^ pid.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[expect(clippy::disallowed_methods, reason = "this is the place that asks the time")]
fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::EPOCH + since_epoch
}
