//! HTTP URLs, kept as they were written: any rewriting would ask for another cache key.

use std::fmt;
use std::str::FromStr;

use super::{AddressError, HostPort};

/// Why a text is no URL that can be watched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It starts with neither `http://` nor `https://`.
    #[error("expected a URL that starts with http:// or https://, got {got:?}")]
    Scheme {
        /// What was written.
        got: String,
    },
    /// A user name or password stands before the host.
    #[error("a URL must not hold a user name or password")]
    Credentials,
    /// Everything from `#` on is for browsers and is never sent.
    #[error("a URL that is sent to a server has no #fragment")]
    Fragment,
    /// The host or port is malformed.
    #[error("the host of the URL is malformed")]
    Authority(#[source] AddressError),
    /// A byte that cannot stand in a request line as it is.
    #[error("{found:?} cannot be sent in a URL as it is: write it percent-encoded")]
    Character {
        /// The first character that does not fit.
        found: char,
    },
}

/// The scheme of an [`HttpUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain HTTP, port 80 unless another is written.
    Http,
    /// HTTP over TLS, port 443 unless another is written.
    Https,
}

impl Scheme {
    /// The port that is meant when none is written.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A URL, verbatim: neither its path is normalised nor its host's case changed.
///
/// The path is `/` when the URL ends after the host, since a request has to name one
/// (RFC 9112 section 3.2.1); nothing else is added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    scheme: Scheme,
    authority: String,
    address: HostPort,
    path_and_query: String,
}

impl HttpUrl {
    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host and port as written: what belongs into the `Host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host and the port, the scheme's own port when none is written.
    #[must_use]
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// The path with the query, as written: what belongs into the request line, and what VCL
    /// calls `req.url`.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else {
            return Err(UrlError::Scheme { got: text.to_owned() });
        };
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        // What the request line can hold (RFC 9112 section 3): no blanks, no controls, ASCII.
        let sendable = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '\\' | '^' | '`');
        // hyper cannot send a quote in a query; no browser does either.
        let query = tail.split_once('?').map_or("", |(_, query)| query);
        let found = tail.chars().find(|&c| !sendable(c)).or(query.chars().find(|&c| c == '"'));
        if let Some(found) = found {
            return Err(UrlError::Character { found });
        }
        let path_and_query =
            if tail.starts_with('/') { tail.to_owned() } else { format!("/{tail}") };
        let address = parse_authority(authority, scheme).map_err(UrlError::Authority)?;
        Ok(Self { scheme, authority: authority.to_owned(), address, path_and_query })
    }
}

fn parse_authority(authority: &str, scheme: Scheme) -> Result<HostPort, AddressError> {
    let bare = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(v6) = bare {
        return HostPort::new(v6, scheme.default_port());
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(AddressError::Host { got: authority.to_owned() });
    }
    if authority.contains(':') {
        authority.parse()
    } else {
        HostPort::new(authority, scheme.default_port())
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path_and_query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> HttpUrl {
        text.parse().unwrap()
    }

    #[test]
    fn keeps_what_was_written() {
        for text in [
            "http://Rec.Example.com/api//v1/../x/?b=2&a=1",
            "https://example.com:8443/%7Euser?q=%2F",
            "http://[::1]:6081/",
        ] {
            assert_eq!(url(text).to_string(), text);
        }
    }

    #[test]
    fn fills_in_path_and_port() {
        assert_eq!(url("http://a").path_and_query(), "/");
        assert_eq!(url("http://a?x").path_and_query(), "/?x");
        assert_eq!(url("https://a/").address().to_string(), "a:443");
        assert_eq!(url("http://[::1]/").address().to_string(), "[::1]:80");
        assert_eq!(url("http://a:81/").authority(), "a:81");
    }

    #[test]
    fn refuses_what_cannot_be_sent() {
        let wrong = |text: &str| text.parse::<HttpUrl>().unwrap_err();
        assert!(matches!(wrong("rec.example.com/"), UrlError::Scheme { .. }));
        assert_eq!(wrong("http://a/b c"), UrlError::Character { found: ' ' });
        assert_eq!(wrong("http://a/b\r\nX: y"), UrlError::Character { found: '\r' });
        assert_eq!(wrong("http://a/\"?\""), UrlError::Character { found: '"' });
        assert_eq!(wrong("http://a/ü"), UrlError::Character { found: 'ü' });
        assert_eq!(wrong("http://u:p@a/"), UrlError::Credentials);
        assert_eq!(wrong("http://a/#top"), UrlError::Fragment);
        assert!(matches!(wrong("http:///x"), UrlError::Authority(_)));
        assert!(matches!(wrong("http://a:b/"), UrlError::Authority(_)));
    }
}
