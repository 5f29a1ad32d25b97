//! What a host says about an event that it has dealt with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::model::{HostName, NameError, NodeName, Timestamp};

use super::json::excerpt;
use super::object::Object;
use super::{SCHEMA, timestamp};

/// The longest confirmation that is read, in bytes.
const LONGEST: usize = 256 * 1_024;
/// The most nodes of one.
const MOST_NODES: usize = 1_000;
/// The longest detail, in bytes: what is longer is cut.
const LONGEST_DETAIL: usize = 1_024;
/// The longest name of an event, in bytes.
const LONGEST_EVENT_ID: usize = 128;

/// What a host says about an event: one line of JSON in the stream of replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// The id that the stream gave to the event.
    pub event: String,
    /// What the host is called at the stream.
    pub host: HostName,
    /// What came of it at each of its nodes. None when the event could not be read.
    pub nodes: BTreeMap<NodeName, NodeConfirmation>,
    /// What concerns the event as a whole, such as why it was set aside.
    pub detail: Option<String>,
}

/// What came of an event at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfirmation {
    /// In a word.
    pub result: ConfirmedResult,
    /// For people: at most 1 KiB, to be shown through [`Untrusted`](crate::model::Untrusted).
    pub detail: Option<String>,
    /// When, by the host's wall clock.
    pub at: Timestamp,
}

/// What came of an event at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfirmedResult {
    /// The node took every ban.
    Taken,
    /// It took them, and what was to be verified is fresh there.
    Proven,
    /// Objects were replaced, which may be the bans' doing.
    Replaced,
    /// It took the bans, and old content is served all the same.
    Survived,
    /// It took the bans, and nothing can be said about their effect.
    Unprovable,
    /// varnishd rejected a ban.
    Rejected,
    /// A ban was refused before it was sent.
    Refused,
    /// The event was set aside after too many tries.
    SetAside,
    /// Something that this version does not know.
    Unknown,
}

/// Why what came is no confirmation. The fault of whoever wrote it into the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// It is larger than one may be.
    #[error("a confirmation has at most {LONGEST} bytes, this one has {got}")]
    TooLarge {
        /// Its size in bytes.
        got: usize,
    },
    /// It is no JSON of this form.
    #[error("this is no confirmation: {detail}")]
    Shape {
        /// What was expected, and what was found; safe to show.
        detail: String,
    },
    /// It is written for another version.
    #[error("expected a confirmation of schema {SCHEMA}, got {got}")]
    Schema {
        /// The number in it.
        got: u64,
    },
    /// A host or a node has no name that one can have.
    #[error("\"{got}\" is no name of a host or node")]
    Name {
        /// What was written; safe to show.
        got: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Too many nodes.
    #[error("a confirmation is for at most {MOST_NODES} nodes, this one is for {got}")]
    TooMany {
        /// How many there are.
        got: usize,
    },
    /// A time that is none.
    #[error("the time {got} is none between 1970 and the year 9999")]
    Time {
        /// What was written.
        got: String,
    },
}

/// With its nodes as they are written, or as they are read.
#[derive(Debug, Serialize, Deserialize)]
struct Document<N> {
    schema: u64,
    event: String,
    host: String,
    nodes: BTreeMap<String, N>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Node {
    result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Seconds since the Unix epoch.
    at: f64,
}

impl ConfirmedResult {
    /// Every result.
    pub const ALL: [Self; 9] = [
        Self::Taken,
        Self::Proven,
        Self::Replaced,
        Self::Survived,
        Self::Unprovable,
        Self::Rejected,
        Self::Refused,
        Self::SetAside,
        Self::Unknown,
    ];

    /// In a word, as it is written; fit for a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Proven => "proven",
            Self::Replaced => "replaced",
            Self::Survived => "survived",
            Self::Unprovable => "unprovable",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::SetAside => "set_aside",
            Self::Unknown => "unknown",
        }
    }

    /// The result of that name; [`Unknown`](Self::Unknown) for any other.
    #[must_use]
    pub fn from_label(label: &str) -> Self {
        let named = Self::ALL.into_iter().find(|result| result.label() == label);
        named.unwrap_or(Self::Unknown)
    }

    /// Whether the node took every ban, and nothing is known to have survived them.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Taken | Self::Proven | Self::Replaced)
    }
}

impl Confirmation {
    /// Reads one. Keys that are not known are passed over, and results that are not known are
    /// [`ConfirmedResult::Unknown`]: a host may run a later version.
    ///
    /// # Errors
    /// [`ConfirmationError`] says what is wrong with it.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfirmationError> {
        if text.len() > LONGEST {
            return Err(ConfirmationError::TooLarge { got: text.len() });
        }
        let shape = |text: &str| ConfirmationError::Shape { detail: excerpt(text) };
        let Object(document): Object<Document<Object<Node>>> =
            serde_json::from_slice(text).map_err(|error| shape(&error.to_string()))?;
        if document.schema != SCHEMA {
            return Err(ConfirmationError::Schema { got: document.schema });
        }
        if document.nodes.len() > MOST_NODES {
            return Err(ConfirmationError::TooMany { got: document.nodes.len() });
        }
        let event = document.event;
        if event.is_empty() || event.len() > LONGEST_EVENT_ID || event.contains(char::is_control) {
            return Err(shape("expected the id of an event"));
        }
        let wrong = |text: &str, source| ConfirmationError::Name { got: excerpt(text), source };
        let host = HostName::new(&document.host).map_err(|fault| wrong(&document.host, fault))?;
        let mut nodes = BTreeMap::new();
        for (name, Object(node)) in document.nodes {
            let name = NodeName::new(&name).map_err(|fault| wrong(&name, fault))?;
            let got = node.at;
            let at = timestamp(got);
            let confirmation = NodeConfirmation {
                result: ConfirmedResult::from_label(&node.result),
                detail: node.detail.map(cut),
                at: at.ok_or_else(|| ConfirmationError::Time { got: got.to_string() })?,
            };
            nodes.insert(name, confirmation);
        }
        Ok(Self { event, host, nodes, detail: document.detail.map(cut) })
    }

    /// Whether there is a node, and every one has a result that
    /// [`is_success`](ConfirmedResult::is_success).
    #[must_use]
    pub fn is_success(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.values().all(|node| node.result.is_success())
    }

    /// The confirmation as one line of JSON, which [`from_json`](Self::from_json) reads back.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers that are finite cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn document(&self) -> Document<Node> {
        let nodes = self.nodes.iter().map(|(name, node)| {
            let node = Node {
                result: node.result.label().to_owned(),
                detail: node.detail.clone().map(cut),
                at: node.at.as_seconds(),
            };
            (name.to_string(), node)
        });
        Document {
            schema: SCHEMA,
            event: self.event.clone(),
            host: self.host.to_string(),
            nodes: nodes.collect(),
            detail: self.detail.clone().map(cut),
        }
    }
}

/// As the stream of replies has it.
impl Serialize for Confirmation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_DETAIL {
        let end = (0..=LONGEST_DETAIL).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Confirmation {
        let node = |result, detail: Option<&str>| NodeConfirmation {
            result,
            detail: detail.map(str::to_owned),
            at: Timestamp::from_millis(1_795_490_000_123),
        };
        let name = |text: &str| NodeName::new(text).unwrap();
        Confirmation {
            event: "1795490000000-0".to_owned(),
            host: HostName::new("cache-01.ams").unwrap(),
            nodes: BTreeMap::from([
                (name("cache-01"), node(ConfirmedResult::Taken, None)),
                (name("cache-02"), node(ConfirmedResult::Rejected, Some("106 \"x\""))),
            ]),
            detail: None,
        }
    }

    #[test]
    fn is_read_as_it_is_written() {
        let confirmation = sample();
        let json = confirmation.to_json();
        assert_eq!(
            json,
            r#"{"schema":1,"event":"1795490000000-0","host":"cache-01.ams","nodes":{"#.to_owned()
                + r#""cache-01":{"result":"taken","at":1795490000.123},"#
                + r#""cache-02":{"result":"rejected","detail":"106 \"x\"","at":1795490000.123}}}"#
        );
        assert_eq!(Confirmation::from_json(json.as_bytes()), Ok(confirmation));
    }

    #[test]
    fn success_is_of_every_node() {
        let mut confirmation = sample();
        assert!(!confirmation.is_success());
        confirmation.nodes.pop_last();
        assert!(confirmation.is_success());
        confirmation.nodes.pop_last();
        assert!(!confirmation.is_success(), "nobody did anything");
        let good: Vec<_> =
            ConfirmedResult::ALL.into_iter().filter(|result| result.is_success()).collect();
        assert_eq!(
            good.iter().map(|r| r.label()).collect::<Vec<_>>(),
            ["taken", "proven", "replaced"]
        );
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_it_goes() {
        let json = sample().to_json().replace("\"taken\"", "\"frobnicated\",\"more\":1");
        let read = Confirmation::from_json(json.as_bytes()).unwrap();
        assert_eq!(read.nodes.values().next().unwrap().result, ConfirmedResult::Unknown);
        let json = sample().to_json().replace("\"schema\":1", "\"schema\":2");
        let expected = ConfirmationError::Schema { got: 2 };
        assert_eq!(Confirmation::from_json(json.as_bytes()), Err(expected));
    }

    #[test]
    fn nothing_is_taken_on_trust() {
        let code = |text: String| Confirmation::from_json(text.as_bytes()).unwrap_err();
        let with = |from: &str, to: &str| sample().to_json().replace(from, to);
        assert!(matches!(code(String::new()), ConfirmationError::Shape { .. }));
        assert!(matches!(code(with("cache-01.ams", "a b")), ConfirmationError::Name { .. }));
        assert!(matches!(code(with("cache-02", "\\u001b[2J")), ConfirmationError::Name { .. }));
        assert!(matches!(code(with("1795490000.123", "-1")), ConfirmationError::Time { .. }));
        assert!(matches!(code(with("1795490000.123", "1e300")), ConfirmationError::Time { .. }));
        assert!(matches!(code(with("1795490000000-0", "")), ConfirmationError::Shape { .. }));
        let by_position = r#"[1,"1795490000000-0","cache-01.ams",{},null]"#;
        assert!(matches!(code(by_position.to_owned()), ConfirmationError::Shape { .. }));
        let node = sample().to_json();
        let node = node.split_once("\"cache-01\":").unwrap().0.to_owned();
        let by_position = node + r#""cache-01":["taken",null,1795490000.123]}}"#;
        assert!(matches!(code(by_position), ConfirmationError::Shape { .. }));
        let long = with("106", &"ü".repeat(2_000));
        let read = Confirmation::from_json(long.as_bytes()).unwrap();
        let detail = read.nodes.values().last().unwrap().detail.as_ref().unwrap();
        assert_eq!(detail.len(), 1_024);
        let large = with("106", &"x".repeat(LONGEST));
        assert!(matches!(code(large), ConfirmationError::TooLarge { .. }));
        let many: Vec<String> =
            (0..1_001).map(|n| format!("\"n{n}\":{{\"result\":\"taken\",\"at\":1}}")).collect();
        let many = format!(
            "{{\"schema\":1,\"event\":\"1-0\",\"host\":\"h\",\"nodes\":{{{}}}}}",
            many.join(",")
        );
        assert_eq!(code(many), ConfirmationError::TooMany { got: 1_001 });
    }
}
