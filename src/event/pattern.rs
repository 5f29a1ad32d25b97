//! Channel patterns, as `PSUBSCRIBE` has them.

use std::fmt;
use std::str::FromStr;

/// The longest pattern, in bytes.
const LONGEST: usize = 1_024;

/// A channel, or a pattern of channels, in the language of Redis (the commands' page on
/// `PSUBSCRIBE`): `*` is any text, `?` any byte, `[ab]`, `[a-z]` and `[^a]` one byte of a set, and
/// a backslash takes what follows it literally.
///
/// Matches bytes, in time proportional to the length of the pattern times that of the channel at
/// the most. Each `*` takes as little as it can, from the left; `**` is one `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Set { negated: bool, ranges: Vec<(u8, u8)> },
    Star,
}

/// Why a text is no [`Pattern`]. The fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing was written.
    #[error("a channel has a name: expected one, got an empty text")]
    Empty,
    /// It is longer than a channel's name ought to be.
    #[error("a channel or pattern has at most {LONGEST} bytes, this one has {got}")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A `[` without its `]`. Redis would take the set to reach to the end.
    #[error("\"[\" opens a set that does not end: write \\[ for a bracket")]
    OpenSet,
    /// A set with nothing in it, which no channel matches.
    #[error("\"[]\" matches nothing: write \\[ for a bracket")]
    EmptySet,
    /// A backslash at the end.
    #[error("the backslash at the end has nothing to take literally: write \\\\ for a backslash")]
    Backslash,
    /// A control character.
    #[error("a channel or pattern holds no control characters, found {found:?}")]
    Control {
        /// The first one.
        found: char,
    },
}

impl Pattern {
    /// The channel's name, when the pattern can match only one: then it is one for `SUBSCRIBE`.
    #[must_use]
    pub fn literal(&self) -> Option<Vec<u8>> {
        let byte = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        };
        self.tokens.iter().map(byte).collect()
    }

    /// Whether it can match only one channel.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Byte(_)))
    }

    /// How many `*` there are.
    #[must_use]
    pub fn capture_count(&self) -> usize {
        self.tokens.iter().filter(|token| **token == Token::Star).count()
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches a channel.
    #[must_use]
    pub fn matches(&self, channel: &[u8]) -> bool {
        self.captures(channel).is_some()
    }

    /// What each `*` matched, in order, if the pattern matches the channel.
    #[must_use]
    pub fn captures<'c>(&self, channel: &'c [u8]) -> Option<Vec<&'c [u8]>> {
        let mut starts: Vec<(usize, usize)> = Vec::new();
        let (mut token, mut at) = (0, 0);
        // Where to go on when the text behind the last `*` does not fit: one byte later.
        let mut again: Option<(usize, usize)> = None;
        loop {
            match (self.tokens.get(token), channel.get(at)) {
                (None, None) => break,
                (Some(Token::Star), _) => {
                    starts.push((at, at));
                    token += 1;
                    again = Some((token, at));
                }
                (Some(one), Some(&byte)) if one.takes(byte) => {
                    token += 1;
                    at += 1;
                }
                _ => {
                    // An earlier `*` need not be tried again: what stands between was found at
                    // the first place there is, so nothing is gained by a later one.
                    let (behind, from) = again?;
                    if from >= channel.len() {
                        return None;
                    }
                    if let Some(last) = starts.last_mut() {
                        last.1 = from + 1;
                    }
                    again = Some((behind, from + 1));
                    (token, at) = (behind, from + 1);
                }
            }
        }
        starts.into_iter().map(|(from, to)| channel.get(from..to)).collect()
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::Any => true,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|&(from, to)| (from..=to).contains(&byte)) != *negated
            }
            Self::Star => false,
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > LONGEST {
            return Err(PatternError::TooLong { got: text.len() });
        }
        if let Some(found) = text.chars().find(|c| c.is_control()) {
            return Err(PatternError::Control { found });
        }
        let mut tokens = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            tokens.push(match byte {
                b'*' if tokens.last() == Some(&Token::Star) => continue,
                b'*' => Token::Star,
                b'?' => Token::Any,
                b'\\' => {
                    let (&literal, after) = after.split_first().ok_or(PatternError::Backslash)?;
                    rest = after;
                    Token::Byte(literal)
                }
                b'[' => {
                    let (set, after) = set(after)?;
                    rest = after;
                    set
                }
                other => Token::Byte(other),
            });
        }
        Ok(Self { text: text.to_owned(), tokens })
    }
}

/// Reads a set behind its bracket, and what follows it.
fn set(text: &[u8]) -> Result<(Token, &[u8]), PatternError> {
    let (negated, mut rest) = match text {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges = Vec::new();
    loop {
        let (range, after) = match rest {
            [] => return Err(PatternError::OpenSet),
            [b']', after @ ..] if ranges.is_empty() && !negated => {
                let _ = after;
                return Err(PatternError::EmptySet);
            }
            [b']', after @ ..] => return Ok((Token::Set { negated, ranges }, after)),
            [b'\\', literal, after @ ..] => ((*literal, *literal), after),
            // As Redis has it, the end of a range is any byte, a bracket too.
            [from, b'-', to, after @ ..] => ((*from.min(to), *from.max(to)), after),
            [one, after @ ..] => ((*one, *one), after),
        };
        ranges.push(range);
        rest = after;
    }
}

/// As it was written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captures(pattern: &str, channel: &str) -> Option<Vec<String>> {
        let pattern: Pattern = pattern.parse().unwrap();
        let found = pattern.captures(channel.as_bytes())?;
        Some(found.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect())
    }

    fn is(captured: &[&str]) -> Option<Vec<String>> {
        Some(captured.iter().map(|&part| part.to_owned()).collect())
    }

    #[test]
    fn each_star_is_captured() {
        assert_eq!(captures("invalidate:model:*", "invalidate:model:a7"), is(&["a7"]));
        assert_eq!(captures("*:*", "a:b:c"), is(&["a", "b:c"]));
        assert_eq!(captures("*b*", "abab"), is(&["a", "ab"]));
        assert_eq!(captures("*b", "abab"), is(&["aba"]));
        assert_eq!(captures("a**b", "axb"), is(&["x"]));
        assert_eq!(captures("a*", "a"), is(&[""]));
        assert_eq!(captures("*", ""), is(&[""]));
        assert_eq!(captures("*a?c*", "xabcabc"), is(&["x", "abc"]));
        assert_eq!(captures("*a*b", "aab!b"), is(&["", "ab!"]));
        assert_eq!(captures("news", "news"), is(&[]));
        assert_eq!(captures("news", "newsx"), None);
        assert_eq!(captures("a*c", "ab"), None);
    }

    #[test]
    fn sets_and_escapes_are_those_of_redis() {
        for (pattern, yes, no) in [
            ("h[ae]llo", "hello", "hillo"),
            ("h[^e]llo", "hallo", "hello"),
            ("h[a-b]llo", "hbllo", "hcllo"),
            ("h[b-a]llo", "hbllo", "hcllo"),
            (r"h[\]]", "h]", "ha"),
            (r"a\*b", "a*b", "axb"),
            (r"a\[b", "a[b", "ab"),
            ("h?llo", "hxllo", "hllo"),
            ("a[^]b", "axb", "ab"),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert!(pattern.matches(yes.as_bytes()), "{pattern} {yes}");
            assert!(!pattern.matches(no.as_bytes()), "{pattern} {no}");
        }
    }

    #[test]
    fn a_literal_has_one_channel() {
        let literal = |text: &str| text.parse::<Pattern>().unwrap().literal();
        assert_eq!(literal(r"a\*b"), Some(b"a*b".to_vec()));
        assert_eq!(literal("a*"), None);
        assert_eq!(literal("a[b]"), None);
        assert!("news".parse::<Pattern>().unwrap().is_literal());
    }

    #[test]
    fn what_is_hardly_meant_is_refused() {
        let fault = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert_eq!(fault(""), PatternError::Empty);
        assert_eq!(fault("a[b"), PatternError::OpenSet);
        assert_eq!(fault("a[]"), PatternError::EmptySet);
        assert_eq!(fault("a\\"), PatternError::Backslash);
        assert_eq!(fault("a\nb"), PatternError::Control { found: '\n' });
        assert_eq!(fault(&"x".repeat(1_025)), PatternError::TooLong { got: 1_025 });
    }

    /// No pattern takes more than its length times the channel's.
    #[test]
    fn takes_bounded_time() {
        let pattern: Pattern = format!("{}b", "*a".repeat(500)).parse().unwrap();
        assert!(!pattern.matches(&vec![b'a'; 60_000]));
    }

    /// By the definition: the shortest text for the first star with which the rest matches.
    fn by_definition(tokens: &[Token], text: &[u8]) -> Option<Vec<Vec<u8>>> {
        match tokens.split_first() {
            None => text.is_empty().then(Vec::new),
            Some((Token::Star, rest)) => (0..=text.len()).find_map(|length| {
                let mut captured = by_definition(rest, &text[length..])?;
                captured.insert(0, text[..length].to_vec());
                Some(captured)
            }),
            Some((one, rest)) => {
                let (&byte, text) = text.split_first()?;
                if one.takes(byte) { by_definition(rest, text) } else { None }
            }
        }
    }

    proptest! {
        #[test]
        fn is_what_the_definition_says(pattern in "[ab*?]{1,8}", text in "[ab]{0,10}") {
            let pattern: Pattern = pattern.parse().unwrap();
            let found = pattern.captures(text.as_bytes());
            let found = found.map(|parts| parts.iter().map(|part| part.to_vec()).collect());
            prop_assert_eq!(found, by_definition(&pattern.tokens, text.as_bytes()));
        }

        #[test]
        fn no_text_panics(pattern in "[a*?\\[\\]^\\\\-]{0,12}", channel in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(pattern) = pattern.parse::<Pattern>() {
                let found = pattern.captures(&channel);
                prop_assert!(found.is_none_or(|found| found.len() == pattern.capture_count()));
            }
        }
    }
}
