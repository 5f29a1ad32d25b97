//! Bearer tokens (RFC 6750): who may hand in events.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::model::Secret;

/// The shortest and the longest token, in bytes.
const SHORTEST: usize = 16;
const LONGEST: usize = 512;

/// The most tokens of a file: those in use, and their successors while they are handed out.
const MOST: usize = 100;

/// The tokens that let somebody in. Only their digests are kept.
#[derive(Clone)]
pub struct Tokens(Vec<[u8; 32]>);

/// A file of tokens that cannot be used. The operator's to put right; no byte of a token is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// There is none.
    #[error("there is no token: expected one a line")]
    None,
    /// A line is no token.
    #[error(
        "line {line} is no token: expected {SHORTEST} to {LONGEST} letters, digits and -._~+/=, \
         got {got}"
    )]
    NoToken {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        got: String,
    },
    /// There are too many.
    #[error("expected {MOST} tokens at most")]
    TooMany,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It names no token.
    NoToken,
    /// It names one that is none of these.
    Wrong,
}

impl Tokens {
    /// Reads a file: one token a line; empty lines, and those that begin with `#`, are left out.
    ///
    /// # Errors
    /// [`TokensError`] for a line that is no token, or when there is none.
    pub fn read(file: &Secret) -> Result<Self, TokensError> {
        let mut digests = Vec::new();
        for (number, line) in file.expose().split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let no_token = |got| TokensError::NoToken { line: number + 1, got };
            if !(SHORTEST..=LONGEST).contains(&line.len()) {
                return Err(no_token(format!("{} bytes", line.len())));
            }
            if !line.iter().all(is_of_token) {
                return Err(no_token("another character".to_owned()));
            }
            if digests.len() == MOST {
                return Err(TokensError::TooMany);
            }
            digests.push(digest(line));
        }
        if digests.is_empty() { Err(TokensError::None) } else { Ok(Self(digests)) }
    }

    /// Whether the request names one of the tokens. How long that takes tells nothing about them:
    /// digests are compared, each whole, and all of them.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let given = headers.get(AUTHORIZATION).ok_or(Denied::NoToken)?.as_bytes();
        let (scheme, token) = given.split_at_checked(7).ok_or(Denied::NoToken)?;
        // The scheme's name has no case (RFC 9110 section 11.1).
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Denied::NoToken);
        }
        let given = digest(token.trim_ascii());
        let is_known = self.0.iter().fold(false, |known, token| known | is_same(token, &given));
        if is_known { Ok(()) } else { Err(Denied::Wrong) }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// The characters of RFC 6750 section 2.1.
fn is_of_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte)
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Tokens, TokensError> {
        Tokens::read(&Secret::new(text.as_bytes().to_vec()))
    }

    fn admit(tokens: &Tokens, header: &str) -> Result<(), Denied> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        tokens.admit(&headers)
    }

    #[test]
    fn each_token_of_the_file_lets_in() {
        let known = tokens("# deploy\nabcdefghijklmnop\n\n  0123456789abcdef0\r\n").unwrap();
        assert_eq!(admit(&known, "Bearer abcdefghijklmnop"), Ok(()));
        assert_eq!(admit(&known, "bearer 0123456789abcdef0"), Ok(()));
        for wrong in ["Bearer abcdefghijklmno", "Bearer abcdefghijklmnopq", "Bearer # deploy"] {
            assert_eq!(admit(&known, wrong), Err(Denied::Wrong), "{wrong}");
        }
        for none in ["Basic abcdefghijklmnop", "Bearer", "", "abcdefghijklmnop"] {
            assert_eq!(admit(&known, none), Err(Denied::NoToken), "{none}");
        }
        assert_eq!(known.admit(&HeaderMap::new()), Err(Denied::NoToken));
        assert_eq!(format!("{known:?}"), "Tokens(2)");
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line_alone() {
        assert_eq!(tokens("\n# none\n").unwrap_err(), TokensError::None);
        let short = tokens("abcdefghijklmnop\nsecret\n").unwrap_err();
        assert_eq!(short, TokensError::NoToken { line: 2, got: "6 bytes".to_owned() });
        let blank = tokens("abcdefgh ijklmnop").unwrap_err();
        assert!(matches!(blank, TokensError::NoToken { line: 1, .. }));
        assert!(!blank.to_string().contains("abcd"));
        assert_eq!(tokens(&"abcdefghijklmnop\n".repeat(101)).unwrap_err(), TokensError::TooMany);
    }
}
