//! How long to wait before connecting again.

use std::time::Duration;

use super::Options;
use crate::clock::random_seed;

/// No pause is longer, whatever the options say.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Counts failures in a row and spaces the attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(options: &Options) -> Self {
        Self::with_seed(options, random_seed())
    }

    fn with_seed(options: &Options, seed: u64) -> Self {
        Self {
            first: options.backoff_first,
            most: options.backoff_most.min(LONGEST),
            failures: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A reply came: the node is well.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed, or a connection ended before it was of any use. The pause before the
    /// next one.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.most).mul_f64(1.0 - self.random.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_most_with_jitter() {
        let options = Options {
            backoff_first: Duration::from_millis(100),
            backoff_most: Duration::from_secs(1),
            ..Options::default()
        };
        let mut backoff = Backoff::with_seed(&options, 7);
        for whole in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = backoff.failed().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= options.backoff_most);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= Duration::from_millis(100));
        let pauses = |seed| {
            let mut backoff = Backoff::with_seed(&options, seed);
            (0..5).map(|_| backoff.failed()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(1), pauses(2), "two clients do not march in step");
    }
}
