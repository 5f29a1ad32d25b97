//! A set of bytes.

/// A set of bytes, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::ban) struct ByteSet([u64; 4]);

impl ByteSet {
    /// No byte.
    pub(super) const EMPTY: Self = Self([0; 4]);
    /// Every byte.
    pub(super) const ALL: Self = Self([u64::MAX; 4]);
    /// What `.` matches: everything but a line feed.
    pub(super) const DOT: Self = Self([u64::MAX ^ (1 << b'\n'), u64::MAX, u64::MAX, u64::MAX]);

    pub(super) fn one(byte: u8) -> Self {
        Self::EMPTY.with(byte, byte)
    }

    /// The same with `first..=last`.
    pub(super) fn with(mut self, first: u8, last: u8) -> Self {
        for byte in first..=last {
            if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
                *word |= 1 << (byte & 63);
            }
        }
        self
    }

    pub(super) fn union(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    pub(super) fn negated(self) -> Self {
        Self::ALL.minus(self)
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| a & b != 0)
    }

    pub(in crate::ban) fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    /// The one byte that is in it, if it is only one.
    pub(super) fn only(&self) -> Option<u8> {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        if count != 1 {
            return None;
        }
        let words = self.0.iter().zip([0_u32, 64, 128, 192]);
        words
            .filter(|(word, _)| **word != 0)
            .find_map(|(word, base)| u8::try_from(base + word.trailing_zeros()).ok())
    }

    /// Some byte that is in it.
    pub(super) fn any(&self) -> Option<u8> {
        (b' '..=b'~').chain(0..=u8::MAX).find(|&b| self.contains(b))
    }

    /// With each letter its other case.
    pub(super) fn caseless(mut self) -> Self {
        for byte in b'a'..=b'z' {
            let upper = byte.to_ascii_uppercase();
            if self.contains(byte) || self.contains(upper) {
                self = self.with(byte, byte).with(upper, upper);
            }
        }
        self
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in() {
        let set = ByteSet::EMPTY.with(b'a', b'c').with(0xff, 0xff);
        for byte in 0..=255 {
            assert_eq!(set.contains(byte), matches!(byte, b'a'..=b'c' | 0xff));
            assert_eq!(set.negated().contains(byte), !set.contains(byte));
        }
        assert!(set.caseless().contains(b'B'));
        assert!(!ByteSet::DOT.contains(b'\n') && ByteSet::DOT.contains(0));
    }
}
