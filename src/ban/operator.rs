//! What a condition compares with.

use std::fmt;

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `~`: the regex matches somewhere in the value.
    Match,
    /// `!~`: it does not.
    NotMatch,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Operator {
    /// As it is written in a ban.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Match => "~",
            Self::NotMatch => "!~",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    /// Whether the argument is a regex.
    #[must_use]
    pub const fn takes_regex(self) -> bool {
        matches!(self, Self::Match | Self::NotMatch)
    }

    /// Whether it holds for what differs from the argument.
    #[must_use]
    pub const fn is_negated(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotMatch)
    }

    pub(super) fn from_bytes(token: &[u8]) -> Option<Self> {
        Some(match token {
            b"==" => Self::Equal,
            b"!=" => Self::NotEqual,
            b"~" => Self::Match,
            b"!~" => Self::NotMatch,
            b">" => Self::Greater,
            b">=" => Self::GreaterOrEqual,
            b"<" => Self::Less,
            b"<=" => Self::LessOrEqual,
            _ => return None,
        })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
