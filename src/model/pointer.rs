//! Which version of a URL is the current one, and the URLs that it is filled into.

mod template;

use std::fmt;
use std::sync::Arc;

pub use template::{VersionedUrl, VersionedUrlError};

/// Whoever checks a URL may decode it more than once; nobody does so more often than this.
const DECODINGS: usize = 3;

/// The current version, as a pointer names it: what is filled into a [`VersionedUrl`].
///
/// 1 to 512 bytes of what the path of a URL can hold (RFC 3986 section 3.3, segments and the `/`
/// between them), with nothing in it that would lead elsewhere: no `.` or `..` segment, and no
/// control character, not even percent-encoded. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointerValue(Arc<str>);

/// Why a value cannot be used. The fault of whoever wrote the pointer: what stands there has to be
/// a version as it stands in a URL, percent-encoded where that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ValueFault {
    /// There is nothing but white space.
    #[error("the value cannot be used: it is empty")]
    Empty,
    /// It is longer than a version is.
    #[error(
        "the value cannot be used: expected at most {} bytes, got {got}",
        PointerValue::LONGEST
    )]
    TooLong {
        /// Its length, in bytes.
        got: usize,
    },
    /// It is not UTF-8.
    #[error("the value cannot be used: it is no text")]
    NotText,
    /// A character that a path cannot hold as it is.
    #[error("the value cannot be used: {found:?} cannot stand in a URL's path as it is")]
    Character {
        /// The first such character.
        found: char,
    },
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("the value cannot be used: a % that is not followed by two hexadecimal digits")]
    Percent,
    /// A control character, percent-encoded.
    #[error("the value cannot be used: it holds the control character %{code:02X}")]
    Control {
        /// Its code.
        code: u8,
    },
    /// Filled in, it would make a `.` or `..` segment and lead elsewhere.
    #[error("the value cannot be used: a . or .. segment would lead to another path")]
    Climbs,
    /// A character that would end the parameter, where the template has the value in its query.
    #[error("the value cannot be used: {found:?} would end the parameter that it stands in")]
    Query {
        /// The first such character.
        found: char,
    },
}

impl PointerValue {
    /// The longest value, in bytes.
    pub const LONGEST: usize = 512;

    /// Takes `text` as a value; white space around it is cut off.
    ///
    /// # Errors
    /// [`ValueFault`] says why it cannot be used.
    pub fn new(text: &str) -> Result<Self, ValueFault> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        if text.is_empty() {
            return Err(ValueFault::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(ValueFault::TooLong { got: text.len() });
        }
        if let Some(found) = text.chars().find(|&c| !is_in_path(c)) {
            return Err(ValueFault::Character { found });
        }
        let mut bytes = text.as_bytes().to_vec();
        for decoding in 0..DECODINGS {
            if has_dot_segment(&bytes) {
                return Err(ValueFault::Climbs);
            }
            let (decoded, is_whole) = decoded(&bytes);
            if decoding == 0 && !is_whole {
                return Err(ValueFault::Percent);
            }
            if let Some(&code) = decoded.iter().find(|byte| byte.is_ascii_control()) {
                return Err(ValueFault::Control { code });
            }
            bytes = decoded;
        }
        Ok(Self(text.into()))
    }

    /// The same, of the bytes of an answer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ValueFault> {
        let bytes = bytes.trim_ascii();
        if bytes.len() > Self::LONGEST {
            return Err(ValueFault::TooLong { got: bytes.len() });
        }
        std::str::from_utf8(bytes).map_err(|_| ValueFault::NotText).and_then(Self::new)
    }

    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PointerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PointerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A character of a path's segment, the `%` of an encoded one, or the `/` between segments
/// (RFC 3986 section 3.3).
fn is_in_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c)
}

/// Whether a segment is `.` or `..`. Some servers take `\` for `/`.
fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

/// The bytes with `%XX` decoded, and whether each `%` was followed by two hexadecimal digits.
fn decoded(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut out, mut is_whole) = (Vec::with_capacity(bytes.len()), true);
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            out.push(first);
            continue;
        }
        let code = after.get(..2).and_then(|digits| {
            let mut code = [0];
            hex::decode_to_slice(digits, &mut code).ok().map(|()| code)
        });
        match code {
            Some([code]) => {
                out.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(b'%');
                is_whole = false;
            }
        }
    }
    (out, is_whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_versions_look_like() {
        for value in ["42", "v2024-11-24", "2024/11/24", "8f3e2a", "a%20b", "1.2.3-rc.1+5", "..."] {
            assert_eq!(PointerValue::new(value).map(|v| v.to_string()).as_deref(), Ok(value));
        }
        assert_eq!(PointerValue::new(" \r\n42\n").map(|v| v.to_string()).as_deref(), Ok("42"));
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        let fault = |text: &str| PointerValue::new(text).unwrap_err();
        assert_eq!(fault(" \n"), ValueFault::Empty);
        let injection = "\" && obj.status == 200";
        assert_eq!(fault(injection), ValueFault::Character { found: '"' });
        assert_eq!(fault("a\r\nHost: b"), ValueFault::Character { found: '\r' });
        assert_eq!(fault("a b"), ValueFault::Character { found: ' ' });
        assert_eq!(fault("a?b"), ValueFault::Character { found: '?' });
        assert_eq!(fault("a#b"), ValueFault::Character { found: '#' });
        assert_eq!(fault("ü"), ValueFault::Character { found: 'ü' });
        assert_eq!(fault("<html>"), ValueFault::Character { found: '<' });
        assert_eq!(fault("100%"), ValueFault::Percent);
        assert_eq!(fault("%4"), ValueFault::Percent);
        assert_eq!(fault("%zz"), ValueFault::Percent);
        assert_eq!(fault("a%0d%0ab"), ValueFault::Control { code: 13 });
        assert_eq!(fault("a%2500"), ValueFault::Control { code: 0 });
        for climbing in [
            "..",
            ".",
            "../admin",
            "a/../../b",
            "a/..",
            "%2e%2e/x",
            "..%2fx",
            "%252e.",
            "a%5c..%5cb",
        ] {
            assert_eq!(fault(climbing), ValueFault::Climbs, "{climbing}");
        }
        assert_eq!(fault(&"x".repeat(513)), ValueFault::TooLong { got: 513 });
        assert_eq!(
            PointerValue::from_bytes(&[b'x'; 1 << 20]),
            Err(ValueFault::TooLong { got: 1 << 20 })
        );
        assert_eq!(PointerValue::from_bytes(b"\xff"), Err(ValueFault::NotText));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_taken_is_what_was_there(bytes: Vec<u8>) {
            if let Ok(value) = PointerValue::from_bytes(&bytes) {
                prop_assert_eq!(value.as_str().as_bytes(), bytes.trim_ascii());
            }
        }
    }
}
