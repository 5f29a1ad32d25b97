//! The shared secret of an admin port.

use std::fmt;

use zeroize::Zeroizing;

/// The bytes of a secret file, exactly as they are: a last newline counts (varnishd(1), `-S`).
///
/// Wiped from memory when dropped. Neither `Debug` nor any error shows a byte of it. How long a
/// comparison takes depends on the bytes: it is for two that were read here, and lets nobody in.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes of a secret.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the digest and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are no bytes at all: varnishd accepts such a secret from everybody, so it
    /// deserves a warning.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the last byte is a newline, as in files that an editor or `echo` wrote.
    #[must_use]
    pub fn ends_with_newline(&self) -> bool {
        self.0.last() == Some(&b'\n')
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shows_itself() {
        let secret = Secret::new(b"hunter2\n".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert!(secret.ends_with_newline());
    }
}
