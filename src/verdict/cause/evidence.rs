//! What is gathered about a node that serves old content.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::model::{HttpUrl, NodeName, Timestamp, VariantName};
use crate::verdict::State;

/// All that was gathered about one endpoint and variant at one node.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The URL.
    pub url: HttpUrl,
    /// When the gathering ended.
    pub taken: Timestamp,
    /// What the node answered when it was asked for it.
    pub served: Served,
    /// The header fields of the origin's answer, where it was asked.
    pub origin: Option<Arc<HeaderMap>>,
    /// When the origin went over to another version.
    pub change: OriginChange,
    /// The node's bans.
    pub bans: BanListEvidence,
    /// The backends of the node's active VCL; or why they are not known.
    pub backends: Result<Vec<BackendEvidence>, String>,
    /// The process id of the node's cache process before and after the gathering, where the node
    /// told it.
    pub worker: Option<(u32, u32)>,
    /// What the ledger has about this node.
    pub ledger: Vec<LedgerEvidence>,
    /// The other variants of the endpoint at this node.
    pub variants: Vec<VariantEvidence>,
    /// The same variant at other nodes.
    pub nodes: Vec<(NodeName, State)>,
}

/// What the node answered.
#[derive(Debug, Clone)]
pub enum Served {
    /// The old version still.
    Old(ObjectEvidence),
    /// Another version than the one in question: it was refreshed meanwhile.
    Other(ObjectEvidence),
    /// Nothing that can be judged.
    Nothing {
        /// What happened.
        why: String,
    },
}

/// One answer of the node, with its header fields.
#[derive(Debug, Clone)]
pub struct ObjectEvidence {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: Arc<HeaderMap>,
    /// From when we asked to when the answer was there.
    pub asked: Span,
}

/// A point of time that is known within bounds, both included, on our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Not before this.
    pub earliest: Timestamp,
    /// Not after this.
    pub latest: Timestamp,
}

impl Span {
    /// Whether the two may be the same point.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.earliest <= other.latest && other.earliest <= self.latest
    }

    /// The time that lies so long before this one, at least and at most.
    #[must_use]
    pub fn earlier_by(self, least: Duration, most: Duration) -> Self {
        Self { earliest: self.earliest.earlier_by(most), latest: self.latest.earlier_by(least) }
    }
}

/// When the origin stopped serving the version that the node still serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OriginChange {
    /// Not before this: the origin served the old version then. `None` where nobody saw that.
    pub after: Option<Timestamp>,
    /// Not after this: the origin served another one then. `None` where that was not seen before
    /// the evidence was gathered.
    pub before: Option<Timestamp>,
}

/// The node's ban list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanListEvidence {
    /// Read.
    Read {
        /// The bans, newest first, completed ones included.
        bans: Vec<BanEvidence>,
        /// Whether these are all that are on the list. If not, the oldest are missing.
        complete: bool,
    },
    /// Not read.
    Unread {
        /// Why.
        why: String,
    },
}

/// A ban on the node's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanEvidence {
    /// What it says, safe to show; empty where varnishd has forgotten it.
    pub expression: String,
    /// When it was taken.
    pub taken: Span,
    /// Whether it matches the object.
    pub judged: Judged,
    /// What it was meant for.
    pub aim: Aim,
}

/// What a ban was meant for, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The URL in question or something like it: it names its path, a part of that, or its host and
    /// no path.
    Here,
    /// It does not tell.
    Unclear,
    /// Something else: it is that of the node's canary, or names the path of another URL that is
    /// watched.
    Elsewhere,
}

/// Whether a ban matches the object, by what can be seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It does.
    Matches,
    /// It does not.
    Misses {
        /// The condition that fails.
        why: String,
    },
    /// It depends on what cannot be seen.
    Unknown {
        /// What that is.
        why: String,
    },
    /// varnishd is through with it and has forgotten what it said. No object that is older than it
    /// was hit by it and is still there.
    Completed,
    /// It is no ban of anybody's: varnishd puts it on the list when its cache process starts.
    Start,
    /// What it says is not a ban as we know the language.
    Unread {
        /// What is wrong.
        why: String,
    },
}

/// A backend of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendEvidence {
    /// Its name, safe to show.
    pub name: String,
    /// Whether the node takes it for healthy; `None` where it has no probe and nobody set it, so
    /// that nobody knows.
    pub healthy: Option<bool>,
}

/// A ban that the ledger knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEvidence {
    /// What it says, safe to show.
    pub ban: String,
    /// When it was issued.
    pub issued: Timestamp,
    /// When this node took it; `None` when it did not.
    pub taken: Option<Timestamp>,
    /// Whether it matches the object.
    pub matches: bool,
}

/// Another variant of the endpoint, at the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantEvidence {
    /// The variant.
    pub variant: VariantName,
    /// Its state.
    pub state: State,
    /// Whether the origin was seen to change this variant, too, no earlier than the one in
    /// question; `None` where nobody saw either.
    pub changed: Option<bool>,
}
