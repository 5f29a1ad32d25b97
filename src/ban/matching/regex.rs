//! Regexes as varnishd runs them: PCRE2 on bytes, interpreted, with PCRE2's own limits.

use std::borrow::Cow;

use pcre2::bytes::{Regex, RegexBuilder};

use super::outcome::Reason;

/// A regex, compiled.
#[derive(Debug, Clone)]
pub(super) struct CompiledRegex(Regex);

/// Why a regex gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RegexFailure {
    /// It could not be compiled here.
    Compile(String),
    /// It ran into a limit; varnishd would abort its cache process.
    Limit(String),
}

impl CompiledRegex {
    pub(super) fn new(pattern: &[u8]) -> Result<Self, RegexFailure> {
        let regex = RegexBuilder::new().build(&as_text(pattern));
        regex.map(Self).map_err(|error| RegexFailure::Compile(error.to_string()))
    }

    pub(super) fn is_match(&self, value: &[u8]) -> Result<bool, RegexFailure> {
        self.0.is_match(value).map_err(|error| RegexFailure::Limit(error.to_string()))
    }
}

impl From<RegexFailure> for Reason {
    fn from(failure: RegexFailure) -> Self {
        match failure {
            RegexFailure::Compile(fault) => Self::Regex { fault },
            RegexFailure::Limit(fault) => Self::RegexLimit { fault },
        }
    }
}

/// The same regex as text, which is all that the library takes: bytes that are no UTF-8 are
/// written as escapes. Behind a backslash the byte's own escape takes its place, and between `\Q`
/// and `\E`, where nothing is an escape, the quotation is left for it.
pub(in crate::ban) fn as_text(pattern: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(pattern) {
        return Cow::Borrowed(text);
    }
    let (mut text, mut rest, mut quoted) =
        (String::with_capacity(pattern.len() * 4), pattern, false);
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [b'E', after @ ..]) if quoted => {
                (quoted, rest) = (false, after);
                text.push_str("\\E");
            }
            (b'\\', [next, after @ ..]) if !quoted => {
                (quoted, rest) = (*next == b'Q', after);
                if next.is_ascii() {
                    text.push('\\');
                    text.push(char::from(*next));
                } else {
                    text.push_str(&format!("\\x{next:02x}"));
                }
            }
            (0x80.., _) if quoted => text.push_str(&format!("\\E\\x{first:02x}\\Q")),
            (0x80.., _) => text.push_str(&format!("\\x{first:02x}")),
            _ => text.push(char::from(*first)),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &[u8], value: &[u8]) -> bool {
        CompiledRegex::new(pattern).unwrap().is_match(value).unwrap()
    }

    #[test]
    fn bytes_are_bytes() {
        assert!(matches(b"\xff", b"a\xffb"));
        assert!(matches(b"[\xfe-\xff]{2}", b"\xff\xfe"));
        assert!(matches(b"\\\xff", b"\xff"), "an escaped byte");
        assert!(matches(b"\\\\\xff", b"\\\xff"), "a backslash, then a byte");
        assert!(matches(b"\\Qa.\xff(\\E.", b"a.\xff(x"));
        assert!(!matches(b"\\Qa.\xff(\\E.", b"ab\xff(x"));
        // A character of two bytes is two to a dot, and has no other case.
        assert!(matches("^..$".as_bytes(), "\u{fc}".as_bytes()));
        assert!(!matches("(?i)^\u{fc}$".as_bytes(), "\u{dc}".as_bytes()));
    }

    #[test]
    fn a_limit_is_no_answer_and_no_panic() {
        let regex = CompiledRegex::new(b"^/(a|b|ab)*c$").unwrap();
        let value = [b"/".as_slice(), &b"ab".repeat(60), b"cx"].concat();
        assert!(matches!(regex.is_match(&value), Err(RegexFailure::Limit(_))));
        assert!(matches!(CompiledRegex::new(b"("), Err(RegexFailure::Compile(_))));
    }
}
