//! The version of a server, as far as the ban language differs by it.

use std::fmt;

/// A release of Varnish Cache or Vinyl Cache: major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// The first number, such as the 7 of 7.1.1.
    pub major: u16,
    /// The second number, such as the first 1 of 7.1.1.
    pub minor: u16,
}

impl ServerVersion {
    /// A version from its two numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
