//! How many requests a second are let in.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::Timestamp;

/// A bucket that fills at a rate and holds a second of it.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: f64,
    at: Timestamp,
}

impl Rate {
    /// At most `per_second` requests, above zero.
    pub(super) fn new(per_second: f64, now: Timestamp) -> Self {
        let left = per_second.max(1.0);
        Self { per_second, state: Mutex::new(State { left, at: now }) }
    }

    /// Lets one more in, or says when to come again.
    pub(super) fn take(&self, now: Timestamp) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.since(state.at).as_secs_f64() * self.per_second;
        state.left = (state.left + gained).min(self.per_second.max(1.0));
        state.at = now;
        if state.left >= 1.0 {
            state.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - state.left) / self.per_second))
    }
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
}
