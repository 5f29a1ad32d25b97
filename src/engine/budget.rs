//! How often an origin may be asked: a rate, and a pause where it asked for one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::Timestamp;

/// The longest pause that an origin's `Retry-After` gets.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The first pause after a 429 without `Retry-After`; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// A token bucket: `rate` requests a second, with a burst of a quarter of a second's worth.
#[derive(Debug)]
pub(super) struct Budget {
    rate: f64,
    tokens: f64,
    counted: Timestamp,
    paused_until: Timestamp,
    pauses: u32,
    /// Watches that wait for their turn; a watch waits at most once.
    pub(super) waiting: VecDeque<usize>,
    /// Whether a timer is set for the first of them.
    pub(super) timer_set: bool,
}

impl Budget {
    pub(super) fn new(rate: f64, now: Timestamp) -> Self {
        let mut budget = Self {
            rate: 1.0,
            tokens: 0.0,
            counted: now,
            paused_until: Timestamp::EPOCH,
            pauses: 0,
            waiting: VecDeque::new(),
            timer_set: false,
        };
        budget.set_rate(rate);
        budget.tokens = budget.burst();
        budget
    }

    pub(super) fn set_rate(&mut self, rate: f64) {
        self.rate = if rate.is_finite() { rate.max(0.001) } else { 1.0 };
        self.tokens = self.tokens.min(self.burst());
    }

    /// Takes leave for one request, or says when to come again.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let elapsed = now.since(self.counted).as_secs_f64();
        self.counted = self.counted.max(now);
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst());
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.rate;
        Err(now + Duration::from_secs_f64(wait.min(3_600.0)) + Duration::from_millis(1))
    }

    /// Counts a request that does not wait for its turn; those that do wait the longer.
    pub(super) fn charge(&mut self) {
        self.tokens -= 1.0;
    }

    /// Whether the origin asked for a pause that is not over.
    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        now < self.paused_until
    }

    /// The origin answered 429, or 503 with `Retry-After`. `jitter` is from 0 to 1.
    pub(super) fn pause(&mut self, retry_after: Option<Duration>, jitter: f64, now: Timestamp) {
        if self.is_paused(now) {
            return;
        }
        self.pauses = self.pauses.saturating_add(1);
        let backed_off = FIRST_PAUSE * 2_u32.saturating_pow(self.pauses.min(10) - 1);
        let pause = retry_after.unwrap_or(backed_off).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.paused_until = now + pause.mul_f64(1.0 + jitter / 4.0);
    }

    /// The origin answered something else: the next pause starts small again.
    pub(super) fn answered(&mut self) {
        self.pauses = 0;
    }

    fn burst(&self) -> f64 {
        (self.rate / 4.0).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lets_through_the_rate_and_no_more() {
        let start = Timestamp::from_millis(1_000_000);
        let mut budget = Budget::new(20.0, start);
        let mut now = start;
        let mut sent = 0;
        while now.since(start) < Duration::from_secs(10) {
            match budget.take(now) {
                Ok(()) => sent += 1,
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!((195..=206).contains(&sent), "{sent}");
    }

    #[test]
    fn a_pause_is_kept_and_grows() {
        let now = Timestamp::from_millis(1_000_000);
        let mut budget = Budget::new(1.0, now);
        budget.pause(Some(Duration::from_secs(7)), 0.0, now);
        assert!(budget.is_paused(now + Duration::from_secs(6)));
        assert!(!budget.is_paused(now + Duration::from_secs(7)));
        let later = now + Duration::from_secs(100);
        budget.pause(None, 0.0, later);
        assert!(budget.is_paused(later + Duration::from_secs(3)), "the second one is longer");
        budget.pause(Some(Duration::from_secs(1_000_000)), 0.0, later + Duration::from_secs(50));
        assert!(!budget.is_paused(later + Duration::from_secs(351)), "no longer than five minutes");
    }
}
