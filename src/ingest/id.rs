//! The id of a stream's entry.

use std::fmt;
use std::str::FromStr;

/// The id of an entry in a stream: milliseconds and a sequence number, ordered as Redis orders
/// them (redis.io, "Redis Streams: entry IDs").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, by the server's clock.
    pub milliseconds: u64,
    /// The number within the millisecond.
    pub sequence: u64,
}

/// A text is no id of a stream's entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a stream id such as 1700000000000-0, got {got:?}")]
pub struct StreamIdError {
    /// The text.
    pub got: String,
}

impl StreamId {
    /// Before every entry.
    pub const ZERO: Self = Self { milliseconds: 0, sequence: 0 };

    /// The smallest id that is greater; itself at the end of all ids.
    #[must_use]
    pub const fn successor(self) -> Self {
        match (self.sequence.checked_add(1), self.milliseconds.checked_add(1)) {
            (Some(sequence), _) => Self { milliseconds: self.milliseconds, sequence },
            (None, Some(milliseconds)) => Self { milliseconds, sequence: 0 },
            (None, None) => self,
        }
    }

    /// The greatest id that is smaller; itself at the start.
    #[must_use]
    pub const fn predecessor(self) -> Self {
        match (self.sequence.checked_sub(1), self.milliseconds.checked_sub(1)) {
            (Some(sequence), _) => Self { milliseconds: self.milliseconds, sequence },
            (None, Some(milliseconds)) => Self { milliseconds, sequence: u64::MAX },
            (None, None) => self,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, StreamIdError> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u64>().ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(ms, seq)| Some(Self { milliseconds: number(ms)?, sequence: number(seq)? }))
            .ok_or_else(|| StreamIdError { got: text.chars().take(64).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_read_and_orders_as_redis_does() {
        let id = |text: &str| text.parse::<StreamId>().unwrap();
        assert_eq!(id("1700000000000-7").to_string(), "1700000000000-7");
        assert!(id("9-10") > id("9-9") && id("10-0") > id("9-10"));
        for wrong in ["", "1", "1-", "-1", "+1-0", "1-0-0", "18446744073709551616-0", "*", "$"] {
            assert!(wrong.parse::<StreamId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn neighbours_are_inverse() {
        for (ms, seq) in [(5, 0), (5, 7), (5, u64::MAX), (0, 1)] {
            let id = StreamId { milliseconds: ms, sequence: seq };
            assert_eq!(id.successor().predecessor(), id);
            assert_eq!(id.predecessor().successor(), id);
        }
        assert_eq!(StreamId::ZERO.predecessor(), StreamId::ZERO);
        let last = StreamId { milliseconds: u64::MAX, sequence: u64::MAX };
        assert_eq!(last.successor(), last);
    }
}
