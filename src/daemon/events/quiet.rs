//! How much is said of what others do wrong: a flood of broken events must not be one of log lines.

use std::time::Duration;

use tracing::warn;

use crate::model::Timestamp;

/// So many lines within so long.
const LINES: u32 = 20;
const SPAN: Duration = Duration::from_secs(10);

/// Counts lines.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    since: Timestamp,
    said: u32,
    kept_back: u64,
}

impl Quiet {
    /// Whether one more line may be written.
    pub(super) fn may_speak(&mut self, now: Timestamp) -> bool {
        if now.since(self.since) >= SPAN {
            if self.kept_back > 0 {
                warn!("{} more lines about events were left out", self.kept_back);
            }
            *self = Self { since: now, said: 0, kept_back: 0 };
        }
        let may = self.said < LINES;
        self.said += u32::from(may);
        self.kept_back += u64::from(!may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_a_later_line_is_not() {
        let start = Timestamp::from_millis(1_000_000);
        let mut quiet = Quiet::default();
        let spoken = |quiet: &mut Quiet, at| (0..1_000).filter(|_| quiet.may_speak(at)).count();
        assert_eq!(spoken(&mut quiet, start), 20);
        assert_eq!(spoken(&mut quiet, start + Duration::from_secs(9)), 0);
        assert_eq!(quiet.kept_back, 1_980);
        assert!(quiet.may_speak(start + SPAN));
        assert_eq!(quiet.kept_back, 0);
    }
}
