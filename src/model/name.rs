//! Names that an operator gives to things: they become metric labels and table cells.

use std::fmt;
use std::sync::Arc;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written. The operator's fault: write a name.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than a label should be.
    #[error("a name has at most {limit} bytes, this one has {got}")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
        /// The length found, in bytes.
        got: usize,
    },
    /// A character that would need escaping in a label, a table or a shell.
    #[error("a name consists of letters, digits, '.', '_', ':' and '-', not {found:?}")]
    Character {
        /// The first character that does not fit.
        found: char,
    },
}

const LONGEST: usize = 128;

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > LONGEST {
        return Err(NameError::TooLong { limit: LONGEST, got: text.len() });
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    match text.chars().find(|&c| !fits(c)) {
        Some(found) => Err(NameError::Character { found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 128 bytes of letters, digits, `.`, `_`, `:` and `-`. Cloning shares the text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Takes `text` as a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }

            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// Names one Varnish instance.
    NodeName
}
name! {
    /// Names one origin.
    OriginName
}
name! {
    /// Names one watched URL.
    EndpointName
}
name! {
    /// Names one host that follows a stream of invalidation events.
    HostName
}
name! {
    /// Names one set of request headers of an endpoint; see [`VariantName::default`].
    VariantName
}

impl Default for VariantName {
    /// The variant of an endpoint that configures none: `default`.
    fn default() -> Self {
        Self("default".into())
    }
}

impl HostName {
    /// The name of this host as the system has it: characters that a name cannot hold become `_`.
    #[must_use]
    pub fn of_system(name: &str) -> Self {
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        let text: String = name.chars().take(32).map(|c| if fits(c) { c } else { '_' }).collect();
        Self(if text.is_empty() { "localhost".into() } else { text.into() })
    }
}

impl NodeName {
    /// The name as it stands in the path of a URL: what is not ASCII is percent-encoded
    /// (RFC 3986 section 2.1). No two names have the same.
    #[must_use]
    pub fn url_segment(&self) -> String {
        let mut segment = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii() {
                segment.push(char::from(byte));
            } else {
                segment.push_str(&format!("%{byte:02X}"));
            }
        }
        segment
    }

    /// The name of a node that was given by its address alone, as on a command line: the
    /// characters of the address that a name cannot hold become `_`.
    #[must_use]
    pub fn from_address(address: &str) -> Self {
        let text: String = address
            .chars()
            .take(LONGEST)
            .map(|c| if c.is_ascii_alphanumeric() || ".:-".contains(c) { c } else { '_' })
            .collect();
        if text.is_empty() { Self("_".into()) } else { Self(text.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_a_label_can_show() {
        assert_eq!(NodeName::new("cache-01.ams:6081").unwrap().as_str(), "cache-01.ams:6081");
        assert_eq!(NodeName::new(""), Err(NameError::Empty));
        assert_eq!(NodeName::new("a b"), Err(NameError::Character { found: ' ' }));
        assert_eq!(NodeName::new("a\u{1b}[31m"), Err(NameError::Character { found: '\u{1b}' }));
        let long = "x".repeat(129);
        assert_eq!(NodeName::new(&long), Err(NameError::TooLong { limit: 128, got: 129 }));
    }

    #[test]
    fn a_name_stands_in_a_path() {
        assert_eq!(NodeName::new("cache-01.ams:6081").unwrap().url_segment(), "cache-01.ams:6081");
        assert_eq!(NodeName::new("köln").unwrap().url_segment(), "k%C3%B6ln");
    }

    #[test]
    fn an_address_makes_a_name() {
        assert_eq!(NodeName::from_address("[::1]:6082").as_str(), "_::1_:6082");
        assert!(NodeName::new(NodeName::from_address("").as_str()).is_ok());
    }
}
