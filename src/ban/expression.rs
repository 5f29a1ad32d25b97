//! A ban, parsed.

use std::fmt;

use crate::model::Untrusted;

use super::duration::BanDuration;
use super::field::Field;
use super::operator::Operator;

/// One or more conditions that all have to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    conditions: Vec<Condition>,
}

/// A field, an operator and what the field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub field: Field,
    /// How.
    pub operator: Operator,
    /// Compared with what.
    pub argument: Argument,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A text, byte for byte; or, behind `~` and `!~`, a regex.
    Text(Vec<u8>),
    /// A duration.
    Duration(BanDuration),
}

impl Expression {
    pub(super) fn new(conditions: Vec<Condition>) -> Self {
        Self { conditions }
    }

    /// The conditions, at least one.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The arguments of the `ban` command, in order, not yet quoted for the wire.
    #[must_use]
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let mut arguments = Vec::with_capacity(self.conditions.len() * 4);
        for (at, condition) in self.conditions.iter().enumerate() {
            if at > 0 {
                arguments.push(b"&&".to_vec());
            }
            arguments.push(condition.field.to_string().into_bytes());
            arguments.push(condition.operator.as_str().as_bytes().to_vec());
            arguments.push(condition.argument.bytes().to_vec());
        }
        arguments
    }

    /// The ban as one text, which [`parse`](super::parse) reads back.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.arguments().join(&b' ')
    }

    /// Whether a condition looks at the request: then the ban can only be tested when a request
    /// comes, and stays on the list until every older object was asked for.
    #[must_use]
    pub fn is_request_ban(&self) -> bool {
        self.conditions.iter().any(|c| c.field.is_request())
    }
}

/// For people: bytes that are no UTF-8 and control characters are shown as escapes, so printing it
/// is safe on a terminal.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.conditions.iter().enumerate() {
            if at > 0 {
                f.write_str(" && ")?;
            }
            let Condition { field, operator, argument } = condition;
            write!(f, "{field} {operator} {}", Printable(argument.bytes()))?;
        }
        Ok(())
    }
}

impl Argument {
    /// As it is sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Duration(duration) => duration.as_str().as_bytes(),
        }
    }
}

/// Shows bytes: text as far as it is safe to show, everything else as an escape.
pub(super) struct Printable<'a>(pub(super) &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}", Untrusted(chunk.valid()))?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Shows at most the first 80 characters or so of what somebody wrote, for messages.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = Printable(bytes.get(..400).unwrap_or(bytes)).to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or(&text)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_that_moves_a_cursor() {
        assert_eq!(Printable(b"/a\x1b[2J\xff").to_string(), "/a\\x1b[2J\\xff");
        assert_eq!(Printable("/ü".as_bytes()).to_string(), "/ü");
        assert_eq!(Printable("\u{202e}".as_bytes()).to_string(), "\\u{202e}");
        assert_eq!(excerpt(&[b'a'; 500]).len(), 83);
    }
}
