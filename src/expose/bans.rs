//! `/api/v1/bans`, on the Unix socket only: bans that were issued are handed in, and the ledger is
//! shown.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::engine::{
    BanResult, BanSource, BanText, BanTextError, Entry, EntryId, Miss, Needless, Standing,
};
use crate::model::{NodeName, Timestamp};

/// The longest body of a request, in bytes.
pub(super) const LONGEST_BODY: usize = 1024 * 1024;

/// The most bans of one request.
pub const MOST_BANS: usize = 1_000;

/// So many bans of the ledger are shown unless more are asked for, and so many at most.
const SHOWN: usize = 100;
const MOST_SHOWN: usize = 10_000;

/// The number of the documents' form: it grows when something is taken out or renamed.
const SCHEMA: u32 = 1;

/// Bans that were issued, as somebody hands them in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Who asked for them.
    pub source: BanSource,
    /// The bans, in the order issued, at least one.
    pub bans: Vec<SubmittedBan>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedBan {
    /// The ban.
    pub ban: BanText,
    /// The nodes that it is meant for; `None`: all.
    pub nodes: Option<Vec<SubmittedNode>>,
}

/// A node that a ban is meant for, as whoever hands it in knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedNode {
    /// Its name.
    pub name: String,
    /// Where its admin port is, as text.
    pub address: Option<String>,
    /// What came of it there; `None`: not sent yet.
    pub outcome: Option<Result<(), Miss>>,
}

/// What became of a submission.
#[derive(Debug)]
pub struct Accepted {
    /// The names of its bans, in order.
    pub ids: Vec<EntryId>,
    /// Whether that is on the disk. If not, it is in memory only, and the attempt is repeated.
    pub stored: bool,
    /// Names of nodes that are not known here, and were left out; of many, some.
    pub unknown: BTreeSet<String>,
}

/// Why nothing of a submission was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Of one ban, no node is known here.
    #[error("of the nodes that a ban is meant for, this daemon watches none with an admin port")]
    NoNode,
}

/// What of the ledger is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanQuery {
    /// Only what a node is still to take.
    pub pending: bool,
    /// At most so many, the latest first.
    pub most: usize,
}

/// Where an answer to a submission goes.
pub type IssueReply = oneshot::Sender<Result<Accepted, IssueError>>;

impl Submission {
    /// Reads the body of a request.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let written: WrittenSubmission =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let source = match &written.source {
            None => BanSource::Command,
            Some(label) => BanSource::from_label(label)
                .ok_or("expected source to be command, event, canary or remedy")?,
        };
        if written.bans.is_empty() || written.bans.len() > MOST_BANS {
            return Err(format!("expected 1 to {MOST_BANS} bans, got {}", written.bans.len()));
        }
        let bans = written
            .bans
            .into_iter()
            .enumerate()
            .map(|(at, ban)| ban.read().map_err(|fault| format!("bans[{at}]: {fault}")));
        Ok(Self { source, bans: bans.collect::<Result<_, _>>()? })
    }
}

impl BanQuery {
    /// Reads the query of a request, such as `pending&most=5`.
    pub(super) fn read(query: Option<&str>) -> Result<Self, &'static str> {
        let mut read = Self { pending: false, most: SHOWN };
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if part == "pending" => read.pending = true,
                Some(("most", number)) => {
                    let number = number.parse().ok().filter(|n| (1..=MOST_SHOWN).contains(n));
                    read.most = number.ok_or("expected most to be 1 to 10000\n")?;
                }
                _ => return Err("the query knows pending and most=NUMBER\n"),
            }
        }
        Ok(read)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSubmission {
    #[serde(default)]
    source: Option<String>,
    bans: Vec<WrittenBan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBan {
    expression: String,
    #[serde(default)]
    nodes: Option<Vec<WrittenNode>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    node: String,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

impl WrittenBan {
    fn read(self) -> Result<SubmittedBan, String> {
        let ban =
            BanText::new(&self.expression).map_err(|fault: BanTextError| fault.to_string())?;
        let nodes = match self.nodes {
            None => None,
            Some(nodes) => {
                Some(nodes.into_iter().map(WrittenNode::read).collect::<Result<_, _>>()?)
            }
        };
        Ok(SubmittedBan { ban, nodes })
    }
}

impl WrittenNode {
    fn read(self) -> Result<SubmittedNode, String> {
        let outcome = match &self.result {
            None => None,
            Some(label) => {
                let result = BanResult::from_label(label).ok_or_else(|| {
                    let known = BanResult::ALL.map(BanResult::label).join(", ");
                    format!("expected result to be one of {known}")
                })?;
                let reason = reason(self.reason.as_deref().unwrap_or(result.label()));
                Some(match result {
                    BanResult::Accepted => Ok(()),
                    result => Err(Miss { result, reason }),
                })
            }
        };
        Ok(SubmittedNode { name: self.node, address: self.address, outcome })
    }
}

/// A reason as one short word, whatever was written.
fn reason(text: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    text.chars().filter(fits).take(40).collect()
}

/// The document about a submission.
#[derive(Serialize)]
struct AcceptedDocument<'a> {
    schema: u32,
    ids: Vec<u64>,
    stored: bool,
    unknown_nodes: &'a BTreeSet<String>,
}

impl Accepted {
    pub(super) fn document(&self) -> String {
        let ids = self.ids.iter().map(|id| id.number()).collect();
        let document = AcceptedDocument {
            schema: SCHEMA,
            ids,
            stored: self.stored,
            unknown_nodes: &self.unknown,
        };
        serde_json::to_string(&document).unwrap_or_default() + "\n"
    }
}

#[derive(Serialize)]
struct LedgerDocument<'a> {
    schema: u32,
    /// The latest first.
    bans: Vec<BanItem<'a>>,
}

#[derive(Serialize)]
struct BanItem<'a> {
    id: u64,
    expression: &'a str,
    source: &'static str,
    issued: f64,
    nodes: Vec<NodeItem<'a>>,
}

#[derive(Serialize)]
struct NodeItem<'a> {
    node: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Whether it may be on the node's list although it still waits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    uncertain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<f64>,
}

impl<'a> NodeItem<'a> {
    fn new(node: &'a NodeName, standing: &'a Standing, time: impl Fn(&Timestamp) -> f64) -> Self {
        let (reason, uncertain, at) = match standing {
            Standing::Pending(pending) => {
                (pending.last.as_ref().map(|miss| &*miss.reason), pending.uncertain, None)
            }
            Standing::Taken { at } => (None, false, Some(at)),
            Standing::Rejected { at, reason } => (Some(&**reason), false, Some(at)),
            Standing::Void { at, because } => (Some(Needless::label(*because)), false, Some(at)),
        };
        let (node, state) = (node.as_str(), standing.label());
        Self { node, state, reason, uncertain, at: at.map(time) }
    }
}

/// The document about the ledger; the wall clock is `offset` milliseconds ahead of the line.
pub(super) fn document(entries: &[Entry], offset: i64) -> String {
    let time = |at: &Timestamp| at.shifted(offset).as_seconds();
    let bans = entries.iter().map(|entry| BanItem {
        id: entry.id.number(),
        expression: entry.ban.as_str(),
        source: entry.source.label(),
        issued: time(&entry.issued),
        nodes: entry.nodes.iter().map(|(n, s)| NodeItem::new(n, s, time)).collect(),
    });
    let document = LedgerDocument { schema: SCHEMA, bans: bans.collect() };
    serde_json::to_string(&document).unwrap_or_default() + "\n"
}

impl fmt::Display for BanQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}most={}", if self.pending { "pending&" } else { "" }, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_says_what_came_of_each_ban() {
        let body = br#"{"bans": [{"expression": "req.url  == /a", "nodes": [
            {"node": "a", "address": "127.0.0.1:1", "result": "accepted"},
            {"node": "b", "result": "unreachable", "reason": "connect\u001b[2J_timeout"},
            {"node": "c"}]}, {"expression": "req.url == /b"}]}"#;
        let read = Submission::read(body).unwrap();
        assert_eq!((read.source, read.bans.len()), (BanSource::Command, 2));
        assert_eq!(read.bans[0].ban.as_str(), "req.url == /a");
        let nodes = read.bans[0].nodes.as_ref().unwrap();
        let (result, reason) = (BanResult::Unreachable, "connect2J_timeout".to_owned());
        assert_eq!(nodes[0].outcome, Some(Ok(())));
        assert_eq!(nodes[1].outcome, Some(Err(Miss { result, reason })));
        assert_eq!((&nodes[2].outcome, &read.bans[1].nodes), (&None, &None));
    }

    #[test]
    fn what_is_no_submission_is_refused_with_the_reason() {
        for (body, expected) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (r#"{"bans": []}"#, "1 to 1000"),
            (r#"{"bans": [{"expression": ""}]}"#, "bans[0]"),
            (r#"{"bans": [{"expression": "req.url == /a\nvcl.use x"}]}"#, "bans[0]"),
            (r#"{"bans": [{"expression": "req.url == /a", "x": 1}]}"#, "unknown field"),
            (r#"{"bans": [{"expression": "req.url == /a"}], "source": "me"}"#, "command, event"),
            (
                r#"{"bans": [{"expression": "req.url == /a", "nodes": [{"node": "a", "result": "ok"}]}]}"#,
                "accepted",
            ),
        ] {
            let fault = Submission::read(body.as_bytes()).unwrap_err();
            assert!(fault.contains(expected), "{body}: {fault}");
        }
        let deep = "[".repeat(100_000);
        assert!(Submission::read(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_query_says_how_much_is_shown() {
        let read = |query| BanQuery::read(Some(query)).map(|query| query.to_string());
        assert_eq!(read("").unwrap(), "most=100");
        assert_eq!(read("pending&most=5").unwrap(), "pending&most=5");
        for bad in ["most=0", "most=10001", "most=x", "all"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
