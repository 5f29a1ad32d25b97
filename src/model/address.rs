//! `host:port` as operators write it.

use std::fmt;
use std::str::FromStr;

/// Why a text is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no port.
    #[error("expected HOST:PORT, got {got:?} with no port")]
    NoPort {
        /// What was written.
        got: String,
    },
    /// The port is no number from 1 to 65535.
    #[error("expected a port from 1 to 65535, got {got:?}")]
    Port {
        /// What stands where the port belongs.
        got: String,
    },
    /// The host is empty where one is needed, or holds characters that no host has.
    #[error("expected a host name, an IPv4 address or an IPv6 address in brackets, got {got:?}")]
    Host {
        /// What stands where the host belongs.
        got: String,
    },
}

/// A host (a name, an IPv4 address, or an IPv6 address without its brackets) and a port.
///
/// Read from `host:port`, `host port`, `[v6]:port`, `[v6] port` and `:port` (this host), which
/// are the forms that varnishadm's `-T` takes (varnishadm(1)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// A host and a port that are known to be well-formed.
    ///
    /// # Errors
    /// [`AddressError::Host`] when `host` holds blanks, control characters or brackets.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || host.len() > 255 || !host.chars().all(fits) {
            return Err(AddressError::Host { got: host.to_owned() });
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The host, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let no_port = || AddressError::NoPort { got: text.to_owned() };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(no_port)?;
            let port = rest.strip_prefix([':', ' ']).ok_or_else(no_port)?;
            if !host.contains(':') {
                return Err(AddressError::Host { got: host.to_owned() });
            }
            (host, port)
        } else if let Some((host, port)) = text.split_once(' ') {
            (host, port)
        } else {
            let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
            if host.contains(':') {
                // Several colons and no brackets: an IPv6 address whose port is missing.
                return Err(no_port());
            }
            (host, port)
        };
        if port.is_empty() {
            return Err(no_port());
        }
        let number = match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err(AddressError::Port { got: port.to_owned() }),
        };
        let host = if host.is_empty() { "localhost" } else { host };
        Self::new(host, number)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, AddressError> {
        text.parse::<HostPort>().map(|a| a.to_string())
    }

    #[test]
    fn reads_every_form_of_varnishadm() {
        assert_eq!(parsed("localhost:6082").as_deref(), Ok("localhost:6082"));
        assert_eq!(parsed("localhost 6082").as_deref(), Ok("localhost:6082"));
        assert_eq!(parsed("[::1]:6082").as_deref(), Ok("[::1]:6082"));
        assert_eq!(parsed("[::1] 6082").as_deref(), Ok("[::1]:6082"));
        assert_eq!(parsed("::1 6082").as_deref(), Ok("[::1]:6082"));
        assert_eq!(parsed(":6082").as_deref(), Ok("localhost:6082"));
    }

    #[test]
    fn names_what_is_missing() {
        let no_port = |t: &str| Err(AddressError::NoPort { got: t.to_owned() });
        assert_eq!(parsed("localhost"), no_port("localhost"));
        assert_eq!(parsed("::1"), no_port("::1"));
        assert_eq!(parsed("[::1]"), no_port("[::1]"));
        assert_eq!(parsed("h:"), no_port("h:"));
        for port in ["0", "65536", "+1", "http"] {
            assert_eq!(parsed(&format!("h:{port}")), Err(AddressError::Port { got: port.into() }));
        }
        assert_eq!(parsed("a\tb:1"), Err(AddressError::Host { got: "a\tb".into() }));
        assert_eq!(parsed("[name]:1"), Err(AddressError::Host { got: "name".into() }));
    }
}
