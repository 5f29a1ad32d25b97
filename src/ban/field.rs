//! What a condition looks at.

use std::fmt;

use super::version::ServerVersion;

/// The longest header name that varnishd survives, in bytes. It packs a name behind one byte of
/// length and a colon; with 127 bytes an assertion ends the cache process at once (tried on 7.1.1;
/// the same packing is in 6.0 to 9.0).
pub const MAXIMUM_HEADER_NAME: usize = 126;

/// A field of a request or of a cached object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// `req.url`: path and query of the request that looks the object up.
    RequestUrl,
    /// `req.http.NAME`: a header of that request.
    RequestHeader(HeaderName),
    /// `obj.status`: the three digits, compared as text.
    ObjectStatus,
    /// `obj.http.NAME`: a header of the stored response.
    ObjectHeader(HeaderName),
    /// `obj.ttl`: what is left of it when the ban is made.
    ObjectTtl,
    /// `obj.age`
    ObjectAge,
    /// `obj.grace`
    ObjectGrace,
    /// `obj.keep`
    ObjectKeep,
    /// `obj.last_hit`: time since the object was last delivered.
    ObjectLastHit,
    /// `obj.hfm`: whether it is a hit-for-miss marker.
    ObjectHitForMiss,
    /// `obj.hfp`: whether it is a hit-for-pass marker.
    ObjectHitForPass,
    /// `obj.uncacheable`: either of the two.
    ObjectUncacheable,
}

/// What kind of argument a field is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// With a text or a regex.
    Text,
    /// With a duration.
    Duration,
    /// With a truth value.
    Flag,
}

impl Field {
    /// The first release that knows the field; `None` when all in use do.
    ///
    /// `obj.hfm`, `obj.hfp` and `obj.uncacheable` are in the release notes of Vinyl Cache 9.1;
    /// Varnish Cache of the same number does not have them.
    #[must_use]
    pub fn since(&self) -> Option<ServerVersion> {
        match self {
            Self::RequestUrl
            | Self::RequestHeader(_)
            | Self::ObjectStatus
            | Self::ObjectHeader(_) => None,
            Self::ObjectTtl | Self::ObjectAge | Self::ObjectGrace | Self::ObjectKeep => {
                Some(ServerVersion::new(6, 2))
            }
            Self::ObjectLastHit => Some(ServerVersion::new(8, 0)),
            Self::ObjectHitForMiss | Self::ObjectHitForPass | Self::ObjectUncacheable => {
                Some(ServerVersion::new(9, 1))
            }
        }
    }

    /// Whether it belongs to the request, so that the ban can only be tested when a request comes.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self, Self::RequestUrl | Self::RequestHeader(_))
    }

    /// The name of the header that it looks at.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::RequestHeader(name) | Self::ObjectHeader(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn comparison(&self) -> Comparison {
        match self {
            Self::RequestUrl
            | Self::RequestHeader(_)
            | Self::ObjectStatus
            | Self::ObjectHeader(_) => Comparison::Text,
            Self::ObjectTtl
            | Self::ObjectAge
            | Self::ObjectGrace
            | Self::ObjectKeep
            | Self::ObjectLastHit => Comparison::Duration,
            Self::ObjectHitForMiss | Self::ObjectHitForPass | Self::ObjectUncacheable => {
                Comparison::Flag
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestUrl => f.write_str("req.url"),
            Self::RequestHeader(name) => write!(f, "req.http.{name}"),
            Self::ObjectStatus => f.write_str("obj.status"),
            Self::ObjectHeader(name) => write!(f, "obj.http.{name}"),
            Self::ObjectTtl => f.write_str("obj.ttl"),
            Self::ObjectAge => f.write_str("obj.age"),
            Self::ObjectGrace => f.write_str("obj.grace"),
            Self::ObjectKeep => f.write_str("obj.keep"),
            Self::ObjectLastHit => f.write_str("obj.last_hit"),
            Self::ObjectHitForMiss => f.write_str("obj.hfm"),
            Self::ObjectHitForPass => f.write_str("obj.hfp"),
            Self::ObjectUncacheable => f.write_str("obj.uncacheable"),
        }
    }
}

/// The name of a header, as it was written: 1 to [`MAXIMUM_HEADER_NAME`] characters of those that
/// a field name may have (RFC 9110 section 5.1). Varnish compares names without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderName(String);

impl HeaderName {
    /// A name, `None` when it is empty, too long, or holds another character.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits =
            (1..=MAXIMUM_HEADER_NAME).contains(&name.len()) && name.bytes().all(is_name_character);
        fits.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a byte may stand in a field name (RFC 9110 section 5.6.2, `tchar`).
pub(super) fn is_name_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
