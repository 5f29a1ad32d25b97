//! The challenge, and the line that answers it.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::model::Secret;

/// The length of a challenge, in bytes.
pub const CHALLENGE_LENGTH: usize = 32;

/// What a server that wants a secret greets with: 32 letters, made up for this connection.
///
/// Never shown, not even by `Debug`: who has a challenge and its answer can try secrets at leisure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; CHALLENGE_LENGTH]);

impl Challenge {
    /// Reads the challenge from the body of a greeting with status 107: its first line.
    #[must_use]
    pub fn from_greeting(body: &[u8]) -> Option<Self> {
        let (letters, rest) = body.split_first_chunk::<CHALLENGE_LENGTH>()?;
        let whole = rest.first() == Some(&b'\n') && letters.iter().all(u8::is_ascii_graphic);
        whole.then_some(Self(*letters))
    }

    /// The answer that proves knowledge of `secret`: the SHA-256 digest, in lower-case hex, of the
    /// challenge, a line feed, every byte of the secret file, the challenge, and a line feed
    /// (varnish-cli(7), "Authentication with -S").
    #[must_use]
    pub fn answer(&self, secret: &Secret) -> String {
        let digest = Sha256::new()
            .chain_update(self.0)
            .chain_update(b"\n")
            .chain_update(secret.expose())
            .chain_update(self.0)
            .chain_update(b"\n")
            .finalize();
        hex::encode(digest)
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenge(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse;

    /// The example of varnish-cli(7): the secret file holds "foo\n".
    #[test]
    fn answers_as_the_manual_page_does() {
        let challenge =
            Challenge::from_greeting(b"ixslvvxrgkjptxmcgnnsdxsvdmvfympg\n\nAuth").unwrap();
        assert_eq!(
            challenge.answer(&Secret::new(b"foo\n".to_vec())),
            "455ce847f0073c7ab3b1465f74507b75d3dc064c1e7de3b71e00de9092fdc89a"
        );
    }

    #[test]
    fn answers_as_varnishd_took_it() {
        let greeting =
            include_bytes!("../../fixtures/transcripts/varnish-7.1.1/greeting-challenge.reply");
        let body = parse(greeting, 100).unwrap().unwrap().body;
        let secret = include_bytes!("../../fixtures/transcripts/varnish-7.1.1/secret");
        let taken = include_str!("../../fixtures/transcripts/varnish-7.1.1/auth.request");
        let challenge = Challenge::from_greeting(body).unwrap();
        assert_eq!(format!("auth {}\n", challenge.answer(&Secret::new(secret.to_vec()))), taken);
        let without_newline = Secret::new(secret.trim_ascii_end().to_vec());
        assert!(!taken.contains(&challenge.answer(&without_newline)));
    }

    #[test]
    fn a_cut_challenge_is_none() {
        assert_eq!(Challenge::from_greeting(b"short\n"), None);
        assert_eq!(Challenge::from_greeting(b"ixslvvxrgkjptxmcgnnsdxsvdmvfympg"), None);
        assert_eq!(Challenge::from_greeting(b"ixslvvxrgk ptxmcgnnsdxsvdmvfympg\n"), None);
    }
}
