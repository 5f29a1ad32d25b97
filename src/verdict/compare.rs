//! The rule by which two answers are the same version.

use std::fmt;

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
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("body"),
            Self::Etag => f.write_str("etag"),
            Self::LastModified => f.write_str("last-modified"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}
