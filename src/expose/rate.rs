//! How many requests a second are let in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::Timestamp;

/// A bucket that fills at a rate and holds a second of it.
#[derive(Debug)]
pub(super) struct Rate(Mutex<State>);

#[derive(Debug)]
struct State {
    per_second: f64,
    left: f64,
    at: Timestamp,
}

impl Rate {
    /// At most `per_second` requests, above zero.
    pub(super) fn new(per_second: f64, now: Timestamp) -> Self {
        Self(Mutex::new(State { per_second, left: capacity(per_second), at: now }))
    }

    /// Another rate from `now` on. What was used up stays so.
    pub(super) fn set(&self, per_second: f64, now: Timestamp) {
        let mut state = self.state();
        state.fill(now);
        let more = capacity(per_second) - capacity(state.per_second);
        state.left = (state.left + more).max(0.0);
        state.per_second = per_second;
    }

    /// Lets one more in, or says when to come again.
    pub(super) fn take(&self, now: Timestamp) -> Result<(), Duration> {
        let mut state = self.state();
        state.fill(now);
        if state.left >= 1.0 {
            state.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - state.left) / state.per_second))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fill(&mut self, now: Timestamp) {
        let gained = now.since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + gained).min(capacity(self.per_second));
        self.at = now;
    }
}

/// What the bucket holds.
fn capacity(per_second: f64) -> f64 {
    per_second.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_it_may_come_at_once() {
        let now = Timestamp::from_millis(1_000_000);
        let rate = Rate::new(3.0, now);
        for _ in 0..3 {
            assert_eq!(rate.take(now), Ok(()));
        }
        let wait = rate.take(now).unwrap_err();
        assert!((0.33..0.34).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(rate.take(now + Duration::from_millis(340)), Ok(()));
        assert!(rate.take(now + Duration::from_millis(340)).is_err());
        let later = now + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| rate.take(later).is_ok()).count(), 3);
    }

    #[test]
    fn less_than_one_a_second_still_lets_one_in() {
        let now = Timestamp::from_millis(1_000_000);
        let rate = Rate::new(0.1, now);
        assert_eq!(rate.take(now), Ok(()));
        assert!(rate.take(now).unwrap_err() > Duration::from_secs(9));
        assert_eq!(rate.take(now + Duration::from_secs(11)), Ok(()));
    }

    #[test]
    fn another_rate_gives_nothing_back() {
        let now = Timestamp::from_millis(1_000_000);
        let rate = Rate::new(3.0, now);
        for _ in 0..3 {
            assert_eq!(rate.take(now), Ok(()));
        }
        for _ in 0..9 {
            rate.set(3.0, now);
        }
        assert!(rate.take(now).is_err());
        rate.set(5.0, now);
        assert_eq!((0..9).filter(|_| rate.take(now).is_ok()).count(), 2);
        rate.set(1.0, now);
        assert_eq!(rate.take(now), Err(Duration::from_secs(1)));
        let later = now + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| rate.take(later).is_ok()).count(), 1);
    }
}
