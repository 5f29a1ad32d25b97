//! The rule by which two answers are the same version.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;

/// What is read from a response to tell its version; the configuration's `compare`.
///
/// Applies to answers with a 2xx status. Of a redirect the status and `Location` are compared, of
/// any other answer the status alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `body`: SHA-256 of the body after content decoding, with `ignore` blanked out.
    Body,
    /// `etag`: the `ETag`, weak or strong.
    Etag,
    /// `last-modified`: the `Last-Modified` date. Ordered.
    LastModified,
    /// `header:NAME`: the value of a response header. Ordered where it is a number.
    Header(String),
    /// `json:/POINTER`: a value within a JSON body (RFC 6901). Ordered where it is a number.
    Json(String),
    /// What a pointer names: the whole body, or a value within a JSON body, as a
    /// [`PointerValue`](crate::model::PointerValue). Not ordered. No rule that a configuration
    /// spells.
    Value(Option<String>),
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("body"),
            Self::Etag => f.write_str("etag"),
            Self::LastModified => f.write_str("last-modified"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::Value(None) => f.write_str("value"),
            Self::Value(Some(pointer)) => write!(f, "value:{pointer}"),
        }
    }
}

/// A text that is no rule of comparison.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// It is none of the rules.
    #[error(
        "expected \"body\", \"etag\", \"last-modified\", \"header:NAME\" or \
         \"json:/POINTER\", got {got:?}"
    )]
    Rule {
        /// What was written.
        got: String,
    },
    /// What follows `header:` is no header's name.
    #[error("expected a header name after \"header:\", got {got:?}")]
    Header {
        /// What follows.
        got: String,
    },
    /// What follows `json:` is no JSON pointer.
    #[error("expected a JSON pointer such as /version after \"json:\", got {got:?}")]
    Pointer {
        /// What follows.
        got: String,
    },
}

impl FromStr for Compare {
    type Err = CompareError;

    fn from_str(text: &str) -> Result<Self, CompareError> {
        let got = |text: &str| text.to_owned();
        match text.split_once(':') {
            None if text == "body" => Ok(Self::Body),
            None if text == "etag" => Ok(Self::Etag),
            None if text == "last-modified" => Ok(Self::LastModified),
            Some(("header", name)) => match HeaderName::from_str(name) {
                Ok(_) => Ok(Self::Header(name.to_owned())),
                Err(_) => Err(CompareError::Header { got: got(name) }),
            },
            Some(("json", pointer)) if is_pointer(pointer) => Ok(Self::Json(pointer.to_owned())),
            Some(("json", pointer)) => Err(CompareError::Pointer { got: got(pointer) }),
            _ => Err(CompareError::Rule { got: got(text) }),
        }
    }
}

/// RFC 6901 section 3: each token is led by `/`, and `~` is followed by 0 or 1. The empty pointer
/// names the whole document, which is no value to compare.
fn is_pointer(text: &str) -> bool {
    let escapes_hold =
        text.split('~').skip(1).all(|rest| rest.starts_with('0') || rest.starts_with('1'));
    text.starts_with('/') && escapes_hold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_printed_as_it_is_read() {
        for rule in ["body", "etag", "last-modified", "header:X-Version", "json:/a~1b/0"] {
            assert_eq!(rule.parse::<Compare>().unwrap().to_string(), rule);
        }
        for wrong in ["", "Body", "body:x", "header:", "header:a b", "json:", "json:a", "json:/~2"]
        {
            assert!(wrong.parse::<Compare>().is_err(), "{wrong}");
        }
    }
}
