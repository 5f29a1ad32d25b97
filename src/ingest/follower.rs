//! What a host says of itself beside the stream that it follows.

use serde::{Deserialize, Serialize};

use crate::model::{NodeName, Timestamp};

/// No more bytes of a note are read.
const LONGEST: usize = 256 * 1_024;

/// A host that follows a stream: its field and value in the hash `<stream>:followers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// Its name at the stream. Text from outside.
    pub name: String,
    /// The nodes that it acts on.
    pub nodes: Vec<NodeName>,
    /// When it last said so, by its own wall clock.
    pub seen: Timestamp,
    /// The version of its program. Text from outside.
    pub version: String,
}

/// The value as it is written.
#[derive(Serialize, Deserialize)]
struct Note {
    nodes: Vec<String>,
    /// Milliseconds since the Unix epoch.
    seen: u64,
    version: String,
}

impl Follower {
    /// The key of the hash of those who follow `stream`.
    pub(super) fn key(stream: &str) -> String {
        format!("{stream}:followers")
    }

    /// The value of its field.
    pub(super) fn to_note(&self) -> Vec<u8> {
        let note = Note {
            nodes: self.nodes.iter().map(|node| node.as_str().to_owned()).collect(),
            seen: self.seen.as_millis(),
            version: self.version.clone(),
        };
        // A struct of texts and numbers always is JSON.
        serde_json::to_vec(&note).unwrap_or_default()
    }

    /// Reads a field and its value; `None` when it is not one that this program wrote.
    pub(super) fn from_note(name: &[u8], value: &[u8]) -> Option<Self> {
        if name.len() > 256 || value.len() > LONGEST {
            return None;
        }
        let note: Note = serde_json::from_slice(value).ok()?;
        let nodes = note.nodes.iter().map(|node| NodeName::new(node)).collect::<Result<_, _>>();
        Some(Self {
            name: std::str::from_utf8(name).ok()?.to_owned(),
            nodes: nodes.ok()?,
            seen: Timestamp::from_millis(note.seen),
            version: note.version.chars().take(64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let follower = Follower {
            name: "host-1".to_owned(),
            nodes: vec![NodeName::new("cache-01").unwrap()],
            seen: Timestamp::from_millis(1_700_000_000_000),
            version: "0.1.0".to_owned(),
        };
        let note = follower.to_note();
        assert_eq!(
            String::from_utf8(note.clone()).unwrap(),
            r#"{"nodes":["cache-01"],"seen":1700000000000,"version":"0.1.0"}"#
        );
        assert_eq!(Follower::from_note(b"host-1", &note), Some(follower));
        for wrong in [&b"{}"[..], b"", b"[]", br#"{"nodes":["a b"],"seen":1,"version":""}"#] {
            assert_eq!(Follower::from_note(b"host-1", wrong), None);
        }
        assert_eq!(Follower::from_note(b"\xff", &note), None);
    }
}
