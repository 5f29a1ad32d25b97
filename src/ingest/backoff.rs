//! How long to wait before connecting again.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// No pause is longer: a server that came back is found within this.
const MOST: Duration = Duration::from_secs(10);

/// Counts failures in a row and spaces the attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The server did what it was asked.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed. The pause before the next one, its upper half at random: hosts that lost
    /// one server at once do not come back at once.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(MOST).mul_f64(1.0 - self.random.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_most_with_jitter() {
        let mut backoff = Backoff::new(7);
        for whole in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let pause = backoff.failed().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= MOST);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= FIRST);
    }
}
