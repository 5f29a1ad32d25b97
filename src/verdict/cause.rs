//! Why a node serves old content.
//!
//! [`Evidence`] is what was gathered about one case; [`explain`] names its [`Cause`] and says, in
//! sentences for people, on which evidence and what to do. It names none on a guess: each cause
//! stands for something that the evidence shows, and where it does not, the cause is
//! [`Cause::Undetermined`] and the sentences say what is missing.
//!
//! # Time
//!
//! All points of time are on our own clock, as bounds ([`Span`]). When an object was fetched
//! follows from when we asked and from `Age`, so the clocks of other hosts do not matter. `Age` is
//! rounded down, and counts the time in caches behind the node as well (RFC 9111 section 5.1): with
//! another tier behind it, the node may have fetched the object at any time since. The times on a
//! node's ban list are moved to our clock by the time that the node states along with the list.
//!
//! # What a ban proves
//!
//! Varnish tests an object at each lookup against all bans that are newer than it. So an object
//! that is older than a ban and is served all the same was certainly not hit by it, whatever can be
//! seen of the two from outside; and an object that is hit by a ban and is served all the same is
//! younger than the ban. A fetch belongs to the bans that come after its headers have arrived: one
//! that was under way when the ban came is not affected (varnish-cache issue 1420).
//!
//! # The decision
//!
//! The first row that holds decides. "Since the change" is since the origin was last seen to serve
//! the old version; where that was never seen, since the object was fetched.
//!
//! | | what is seen | cause |
//! |---|---|---|
//! | 1 | the node did not answer, serves something else by now, or restarted meanwhile | `undetermined` |
//! | 2 | the ledger has a matching ban since the change that the node did not take, and the node's list has no other that matches | `purge_undelivered` |
//! | 3 | a hit, older than its lifetime by its header fields, and all backends are sick | `grace`; `undetermined` where only some are |
//! | 4 | no hit: the answer was just fetched | `upstream` |
//! | 5 | the ban list cannot be read; but other variants followed, and the object is from before the change | `variant_only` |
//! | 6 | the ban list cannot be read | `undetermined` |
//! | 7 | a ban since the change matches, and the tier behind had the answer from before it | `upstream` |
//! | 8 | a ban since the change matches by all that can be seen, and the object is older than it | `ban_missed_it` |
//! | 9 | a ban since the change matches, and the object was fetched within [`LONGEST_FETCH`] after it | `raced_fill`; `undetermined` where nobody saw the change, which may have come after the fetch |
//! | 10 | a ban since the change matches, and the object was fetched later | `upstream` |
//! | 11 | a ban since the change cannot be judged, and the object may be younger than it | `undetermined` |
//! | 12 | other variants followed, and the object is not known to be from after the change | `variant_only` |
//! | 13 | fetched after the change, and the ban list reaches back far enough | `upstream` |
//! | 14 | fetched after the change | `undetermined` |
//! | 15 | bans since the change, none of which matches, and they are about this URL, or few | `ban_missed_it` |
//! | 16 | no ban since the change matches | `never_purged` |
//!
//! A node has bans for many URLs. One counts as being about this one when it names its path, a part
//! of its path, or its host and no path; up to [`FEW_BANS`] count in any case. Those that were
//! certainly meant for something else ([`Aim::Elsewhere`]) do not count at all, unless they match.

mod bans;
mod decide;
mod elsewhere;
mod evidence;
mod facts;
mod sent;

#[cfg(test)]
mod tests;

use std::fmt;

pub use bans::{BanJudge, PreparedBan, Sent};
pub use decide::explain;
pub use elsewhere::Elsewhere;
pub use evidence::{
    Aim, BackendEvidence, BanEvidence, BanListEvidence, Evidence, Judged, LedgerEvidence,
    ObjectEvidence, OriginChange, Served, Span, VariantEvidence,
};
pub use sent::{SentBan, recall};

/// From a ban to the fetch of an object that may have been under way when the ban came, at most:
/// varnishd's default for `first_byte_timeout` (varnishd(1)).
pub const LONGEST_FETCH: std::time::Duration = std::time::Duration::from_secs(60);

/// So few bans since a change that one of them was probably meant for the object.
pub const FEW_BANS: usize = 3;

/// Why a node serves old content; the `cause` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// No ban since the change matches it.
    NeverPurged,
    /// A ban for it was issued, and this node never took it.
    PurgeUndelivered,
    /// The node took bans since the change, and none of them hit it.
    BanMissedIt,
    /// A ban hit it, and a fetch of the old version that was under way put it back.
    RacedFill,
    /// Its time is over, and the node serves it on because its backend is sick.
    Grace,
    /// Other variants of it are fresh.
    VariantOnly,
    /// It came from behind the node when the change was over: another cache or a replica of the
    /// origin there serves the old version.
    Upstream,
    /// The evidence does not tell.
    Undetermined,
}

impl Cause {
    /// Every cause, in the order of the enumeration.
    pub const ALL: [Self; 8] = [
        Self::NeverPurged,
        Self::PurgeUndelivered,
        Self::BanMissedIt,
        Self::RacedFill,
        Self::Grace,
        Self::VariantOnly,
        Self::Upstream,
        Self::Undetermined,
    ];

    /// The `cause` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NeverPurged => "never_purged",
            Self::PurgeUndelivered => "purge_undelivered",
            Self::BanMissedIt => "ban_missed_it",
            Self::RacedFill => "raced_fill",
            Self::Grace => "grace",
            Self::VariantOnly => "variant_only",
            Self::Upstream => "upstream",
            Self::Undetermined => "undetermined",
        }
    }

    /// The cause with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.label() == label)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// A cause, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The cause.
    pub cause: Cause,
    /// Short sentences for people, safe on a terminal: the evidence, the strongest first, and last
    /// what to do.
    pub findings: Vec<String>,
}

impl Explanation {
    /// Nothing is known, because of this.
    #[must_use]
    pub fn undetermined(because: impl fmt::Display) -> Self {
        Self { cause: Cause::Undetermined, findings: vec![because.to_string()] }
    }
}

/// `never_purged: no ban since the change matches it`: the cause with its strongest finding.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.label())?;
        match self.findings.first() {
            Some(finding) => write!(f, ": {finding}"),
            None => Ok(()),
        }
    }
}
