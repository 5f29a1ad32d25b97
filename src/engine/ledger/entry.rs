//! One ban in the ledger, and how it stands with each node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ban::{self, LintOptions, Refusal};
use crate::model::{NodeName, Timestamp};

/// The longest ban that the ledger takes, in bytes. varnishd takes longer ones; nobody writes them.
pub const LONGEST_BAN: usize = 64 * 1_024;

/// Names one ban of the ledger. Later ones have higher numbers; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId(u64);

impl EntryId {
    /// The entry of that number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A ban that may be sent: it parses, and nothing about it is dangerous. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BanText(Arc<str>);

/// Why a text is no ban for the ledger. The caller's to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BanTextError {
    /// It is no ban, or a dangerous one.
    #[error("{0}")]
    Refused(Refusal),
    /// It is longer than [`LONGEST_BAN`].
    #[error("a ban has at most {limit} bytes here, this one has {got}")]
    TooLong {
        /// The limit.
        limit: usize,
        /// Its length.
        got: usize,
    },
}

impl BanText {
    /// Takes `text` as a ban. One that matches everything, and a regex that can backtrack without
    /// end, are taken: whoever issued them had to say that they are meant.
    ///
    /// # Errors
    /// [`BanTextError`].
    pub fn new(text: &str) -> Result<Self, BanTextError> {
        let options = LintOptions { everything: true, allow_slow_regex: true, version: None };
        Self::examined(text, &options)
    }

    /// Takes `text` as a ban, as far as these options go.
    ///
    /// # Errors
    /// [`BanTextError`].
    pub fn examined(text: &str, options: &LintOptions) -> Result<Self, BanTextError> {
        if text.len() > LONGEST_BAN {
            return Err(BanTextError::TooLong { limit: LONGEST_BAN, got: text.len() });
        }
        let expression = ban::parse(text.as_bytes()).map_err(BanTextError::Refused)?;
        if let Some(refusal) = ban::lint(&expression, options).refusals.into_iter().next() {
            return Err(BanTextError::Refused(refusal));
        }
        // The words of a text stand between blanks: joined again they are text as well.
        let text = String::from_utf8(expression.to_bytes()).unwrap_or_else(|_| text.to_owned());
        Ok(Self(text.into()))
    }

    /// The ban, its words between single blanks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who asked for a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BanSource {
    /// A person or a program, by a command.
    Command,
    /// An invalidation event.
    Event,
    /// The canary that proves the purge path.
    Canary,
    /// The daemon, to cure what is stale.
    Remedy,
}

/// What came of a ban at one node, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BanResult {
    /// It is on the node's list.
    Accepted,
    /// varnishd did not take it: its arguments are wrong.
    Rejected,
    /// The node could not be reached, or the connection broke before the ban was sent.
    Unreachable,
    /// The node did not accept the secret, or the secret cannot be read.
    Unauthenticated,
    /// The node's cache process is not running.
    CacheStopped,
    /// It was sent, and the answer was lost or is not one to a ban: it may be on the list or not.
    Unconfirmed,
}

/// A ban that a node did not take, or not for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// What came of it; never [`BanResult::Accepted`].
    pub result: BanResult,
    /// The reason in one word, such as `connect_timeout`: a label of the admin client's.
    pub reason: String,
}

/// The processes of a varnishd, as `pid` tells them (varnish-cli(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// The manager.
    pub manager: u32,
    /// The cache process; `None` while there is none.
    pub worker: Option<u32>,
}

/// What is known of a node's cache process at the time of a ban or after it. It decides whether
/// the process that runs when the node is back can hold anything from before the ban.
///
/// Only what varnishd itself said counts. A connection that is refused says nothing: a packet filter
/// that rejects, a relay or a proxy whose varnishd is up refuses as well, and what was seen of the
/// processes before the ban does not tell whether they were started before it or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Evidence {
    /// Nothing.
    #[default]
    None,
    /// These processes were seen after the ban was issued.
    Running(Process),
    /// After the ban was issued there was no cache process: whichever runs later, started later.
    Stopped,
}

/// How a ban stands with one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// To be delivered.
    Pending(Pending),
    /// On the node's list: it answered 200.
    Taken {
        /// When that was known.
        at: Timestamp,
    },
    /// varnishd does not take this ban, and never will.
    Rejected {
        /// When it said so.
        at: Timestamp,
        /// The reason in one word.
        reason: String,
    },
    /// Not needed at this node any more, and not sent.
    Void {
        /// When that was known.
        at: Timestamp,
        /// Why.
        because: Needless,
    },
}

/// A ban that waits for its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pending {
    /// Why the node has not taken it so far; `None` before the first attempt.
    pub last: Option<Miss>,
    /// Whether an attempt may have put it on the node's list all the same.
    pub uncertain: bool,
    /// What is known of the node's cache process since.
    pub evidence: Evidence,
    /// How many attempts in a row ended with the loss of the cache process.
    pub losses: u8,
}

/// Why a ban is not needed at a node any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needless {
    /// The cache process was started after the ban was issued, and its cache is in memory.
    Restarted,
    /// The node took the same ban, issued later.
    Repeated,
}

/// One ban that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// The ban.
    pub ban: BanText,
    /// Who asked for it.
    pub source: BanSource,
    /// When it was issued, or handed in at the latest.
    pub issued: Timestamp,
    /// The nodes it is meant for.
    pub nodes: BTreeMap<NodeName, Standing>,
}

impl Entry {
    /// How much memory it takes, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        Self::weight_of(&self.ban, self.nodes.len())
    }

    /// What an entry of this ban for so many nodes takes.
    pub(super) fn weight_of(ban: &BanText, nodes: usize) -> usize {
        const NODE: usize = 128;
        ban.as_str().len() + NODE * nodes
    }

    /// Whether a restart of the cache process makes it needless. A ban of an event is sent all the
    /// same: whoever sent the event is told that the node took it, and that is to be so.
    #[must_use]
    pub fn is_voidable(&self) -> bool {
        self.source != BanSource::Event
    }

    /// Whether no node is to take it any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.nodes.values().any(Standing::is_pending)
    }
}

impl Standing {
    /// Whether the node is still to take it.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self, Self::Pending(_))
    }

    /// The state in one word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Taken { .. } => "taken",
            Self::Rejected { .. } => "rejected",
            Self::Void { .. } => "void",
        }
    }
}

impl Needless {
    /// The reason in one word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::Repeated => "repeated",
        }
    }
}

impl Miss {
    /// Whether the cache process was lost while it carried out the ban.
    pub(super) fn is_loss(&self) -> bool {
        self.reason == "child_lost"
    }
}

impl Evidence {
    /// Whether `now`, seen after all that this is known from, shows that the cache process was
    /// started after the ban.
    pub(super) fn shows_restart(self, now: Process) -> bool {
        if now.worker.is_none() {
            return false;
        }
        match self {
            Self::None => false,
            Self::Running(before) => before != now,
            Self::Stopped => true,
        }
    }

    /// What is known once `process` was seen, too.
    pub(super) fn with(process: Process) -> Self {
        if process.worker.is_some() { Self::Running(process) } else { Self::Stopped }
    }
}

impl BanSource {
    /// Every source.
    pub const ALL: [Self; 4] = [Self::Command, Self::Event, Self::Canary, Self::Remedy];

    /// The `source` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Event => "event",
            Self::Canary => "canary",
            Self::Remedy => "remedy",
        }
    }

    /// The source of that label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.label() == label)
    }
}

impl BanResult {
    /// Every result.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Rejected,
        Self::Unreachable,
        Self::Unauthenticated,
        Self::CacheStopped,
        Self::Unconfirmed,
    ];

    /// Whether it certainly never got there.
    #[must_use]
    pub const fn is_unsent(self) -> bool {
        matches!(self, Self::Unreachable | Self::Unauthenticated)
    }

    /// The `result` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::Unauthenticated => "unauthenticated",
            Self::CacheStopped => "cache_stopped",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// The result of that label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.label() == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bans_are_taken() {
        assert_eq!(BanText::new(" req.url  ==\t/a ").unwrap().as_str(), "req.url == /a");
        assert!(BanText::new("req.url ~ .").is_ok(), "meant, as whoever sent it said");
        for bad in
            ["", "req.url", "req.url == /a\nvcl.use x", "obj.http.x == \"a b\"", "x ~ (", "<<"]
        {
            assert!(matches!(BanText::new(bad), Err(BanTextError::Refused(_))), "{bad:?}");
        }
        let long = format!("req.url == /{}", "a".repeat(LONGEST_BAN));
        assert!(matches!(BanText::new(&long), Err(BanTextError::TooLong { .. })));
    }

    #[test]
    fn a_restart_is_seen_only_where_it_is_certain() {
        let process = |manager, worker| Process { manager, worker };
        let up = process(1, Some(2));
        assert!(!Evidence::None.shows_restart(up));
        assert!(!Evidence::Running(up).shows_restart(up));
        assert!(Evidence::Running(up).shows_restart(process(1, Some(3))));
        assert!(Evidence::Running(up).shows_restart(process(4, Some(2))));
        assert!(!Evidence::Running(up).shows_restart(process(4, None)), "it will start yet");
        assert!(Evidence::Stopped.shows_restart(up));
    }
}
