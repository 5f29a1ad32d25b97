//! What is known of invalidations: which ban, when, from whom, which nodes took it and which did
//! not; and how those that did not get it when they are back.
//!
//! Pure, like all of the engine: time is a parameter. Whoever drives it carries out what
//! [`poll_output`](Ledger::poll_output) returns, answers each [`Request`] once, and calls
//! [`tick`](Ledger::tick) at [`next_deadline`](Ledger::next_deadline) at the latest.
//!
//! # Delivery
//!
//! A node that is to take bans is first asked which processes it has, and whether it keeps objects
//! over a restart. Bans from before the start of its cache process are void: nothing in it is
//! older than they are. That a process was started later is certain where varnishd, asked after the
//! ban, named another one or said that there was none. Else the ban is sent: one too many costs a
//! moment, one too few leaves old content in the cache. The others are sent in
//! the order in which they were issued, one after the other, up to the first that fails. A ban
//! counts as taken with status 200 and never without; one whose answer was lost is sent again.
//!
//! Bans of events ([`BanSource::Event`]) are never void, and so a node that only such bans wait for
//! is not looked at first, unless the last attempt failed: they are sent at once. One that is equal
//! to one that waits is delivered with it, and one that follows an equal one closely is held back
//! for a moment ([`Ledger::issue_event`]); others do not wait for it meanwhile. Where the ban list
//! of a node is too long, bans go there slowly ([`Ledger::limit_ban_lists`]).
//!
//! # Bounds
//!
//! At most [`Limits::entries`] bans, [`Limits::bytes`] and [`Limits::age`]. Settled ones
//! go first, then the oldest that still waits; that one is counted and told ([`News::Dropped`]).

mod bounds;
mod delivery;
mod entry;
mod pace;
mod waiting;

#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::model::{NodeName, Timestamp};

pub use bounds::{DropReason, Limits};
pub use entry::{
    BanResult, BanSource, BanText, BanTextError, Entry, EntryId, Evidence, LONGEST_BAN, Miss,
    Needless, Pending, Process, Standing,
};

pub use waiting::LONGEST_DEBOUNCE;

use delivery::Node;

/// Every ban that is known; see the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    entries: BTreeMap<EntryId, Entry>,
    /// The entries that no node is to take any more.
    settled: BTreeSet<EntryId>,
    settled_bytes: usize,
    nodes: BTreeMap<NodeName, Node>,
    bytes: usize,
    /// The longest ban list that a node may have before bans are held back; zero is no limit.
    ban_list_limit: usize,
    next: u64,
    dropped: [u64; DropReason::ALL.len()],
    outputs: VecDeque<LedgerOutput>,
    random: fastrand::Rng,
}

/// A ban that was issued, as it is handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The ban.
    pub ban: BanText,
    /// Who asked for it.
    pub source: BanSource,
    /// What came of it so far at each node that it is meant for; `None` where it was not sent.
    pub nodes: BTreeMap<NodeName, Option<Result<(), Miss>>>,
}

/// What an admin port says when it is asked before a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Its processes; `None` where this varnishd cannot tell.
    pub process: Option<Process>,
    /// Whether objects may outlive the cache process, with the bans on them.
    pub persistent: bool,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerOutput {
    /// Ask a node, and answer.
    Request {
        /// The node.
        node: NodeName,
        /// What.
        request: Request,
    },
    /// Store this.
    Record(LedgerRecord),
    /// Count or tell this.
    News(News),
    /// A ban of an event does not wait for a node any more.
    Ended {
        /// The entry.
        id: EntryId,
        /// The node.
        node: NodeName,
        /// What came of it.
        end: End,
    },
}

/// What came of a ban of an event at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The node took it, then.
    Taken(Timestamp),
    /// varnishd does not take it; the reason in one word.
    Rejected(String),
    /// It was dropped, and the node never took it.
    Dropped(DropReason),
}

/// What a node is asked. Each is answered once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Find out about its processes, and answer with [`Ledger::inspected`].
    Inspect,
    /// Send these bans in order, up to the first that fails otherwise than by being rejected, and
    /// answer with [`Ledger::delivered`]. They may be pipelined: what was sent already when one
    /// fails counts as [`BanResult::Unconfirmed`] then, whatever its answer is.
    Deliver(Vec<BanText>),
    /// Count the bans on its list, and answer with [`Ledger::counted`]. Beside the other requests.
    CountBans,
}

/// Something to be stored. A later one of the same entry replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerRecord {
    /// The entry as it is now.
    Put {
        /// The entry.
        entry: Entry,
        /// Whether it is the first record of this entry.
        first: bool,
    },
    /// The entry is known no longer.
    Remove(EntryId),
}

/// Something to be counted or told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A ban was sent to a node, by whomever.
    Sent {
        /// The node.
        node: NodeName,
        /// Who asked for it.
        source: BanSource,
        /// What came of it.
        result: BanResult,
    },
    /// A node has taken bans that it had missed.
    Delivered {
        /// The node.
        node: NodeName,
        /// How many.
        bans: usize,
    },
    /// A node missed bans and does not need them any more.
    Void {
        /// The node.
        node: NodeName,
        /// How many.
        bans: usize,
        /// Why.
        because: Needless,
    },
    /// varnishd does not take a ban.
    Rejected {
        /// The node.
        node: NodeName,
        /// The ban.
        ban: BanText,
        /// The reason in one word.
        reason: String,
    },
    /// Bans that nodes never took were dropped.
    Dropped {
        /// The node.
        node: NodeName,
        /// The ban.
        ban: BanText,
        /// Why.
        because: DropReason,
    },
}

/// How the ledger stands with one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many bans wait for it.
    pub pending: usize,
    /// When the oldest of them was issued.
    pub oldest: Option<Timestamp>,
    /// How many bans were on its list when they were last counted; `None` where that is not known.
    pub listed: Option<usize>,
    /// Whether that was too many, so that bans go there slowly.
    pub paced: bool,
}

impl Ledger {
    /// A ledger with the entries that were stored. `seed` makes its jitter.
    #[must_use]
    pub fn new(limits: Limits, restored: Vec<Entry>, seed: u64, now: Timestamp) -> Self {
        let mut ledger = Self {
            limits,
            entries: BTreeMap::new(),
            settled: BTreeSet::new(),
            settled_bytes: 0,
            nodes: BTreeMap::new(),
            bytes: 0,
            ban_list_limit: 0,
            next: 1,
            dropped: [0; DropReason::ALL.len()],
            outputs: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        };
        for mut entry in restored {
            entry.issued = entry.issued.min(now);
            ledger.insert(entry);
        }
        ledger.keep_bounds(now);
        ledger
    }

    /// Goes over to these nodes with an admin port. Requests under way count as never made. Bans
    /// that wait for other nodes are kept, in case these come back.
    pub fn watch(&mut self, nodes: &[NodeName], now: Timestamp) {
        for node in self.nodes.values_mut() {
            node.configured = false;
            for id in node.forget_request(now) {
                if let Some(entry) = self.entries.get(&id) {
                    node.pending.hand_back(entry);
                }
            }
        }
        for name in nodes {
            self.nodes.entry(name.clone()).or_default().configured = true;
        }
        self.nodes.retain(|_, node| node.configured || !node.pending.is_empty());
        self.wake_all(now);
    }

    /// Takes in a ban that was issued; returns its name. Whoever handed it in is told so once the
    /// record that this puts out is stored.
    pub fn issue(&mut self, issue: Issue, now: Timestamp) -> EntryId {
        let Issue { ban, source, nodes } = issue;
        let id = EntryId::new(self.next);
        let mut standings = BTreeMap::new();
        for (node, outcome) in nodes {
            let result = match &outcome {
                None => None,
                Some(Ok(())) => Some(BanResult::Accepted),
                Some(Err(miss)) => Some(miss.result),
            };
            if let Some(result) = result {
                self.news(News::Sent { node: node.clone(), source, result });
            }
            let standing = match outcome {
                Some(Ok(())) => {
                    self.repeated(&node, &ban, now);
                    Standing::Taken { at: now }
                }
                Some(Err(Miss { result: BanResult::Rejected, reason })) => {
                    Standing::Rejected { at: now, reason }
                }
                Some(Err(miss)) => Standing::Pending(Pending::after(miss)),
                None => Standing::Pending(Pending::default()),
            };
            standings.insert(node, standing);
        }
        let entry = Entry { id, ban, source, issued: now, nodes: standings };
        self.outputs.push_back(LedgerOutput::Record(LedgerRecord::Put {
            entry: entry.clone(),
            first: true,
        }));
        self.insert(entry);
        self.keep_bounds(now);
        self.wake_all(now);
        id
    }

    /// Takes in a ban of an event, for these nodes, each once. Returns the entry that it waits in
    /// for each of them: one of its own, or one that waits there already and says the same. What
    /// becomes of it is put out as [`LedgerOutput::Ended`].
    ///
    /// Where an equal one was handed over less than `debounce` ago ([`LONGEST_DEBOUNCE`] at most),
    /// this one waits until that time is over. Nothing is sent before [`tick`](Self::tick).
    pub fn issue_event(
        &mut self,
        ban: &BanText,
        nodes: &[NodeName],
        debounce: Duration,
        now: Timestamp,
    ) -> Vec<(NodeName, EntryId)> {
        let id = EntryId::new(self.next);
        let mut own = BTreeMap::new();
        let mut ids = Vec::with_capacity(nodes.len());
        for node in nodes {
            let waiting = self.nodes.get(node).and_then(|node| node.pending.joinable(ban));
            ids.push((node.clone(), waiting.unwrap_or(id)));
            if waiting.is_none() {
                own.insert(node.clone(), Standing::Pending(Pending::default()));
            }
        }
        if own.is_empty() {
            return ids;
        }
        let source = BanSource::Event;
        let entry = Entry { id, ban: ban.clone(), source, issued: now, nodes: own };
        let record = LedgerRecord::Put { entry: entry.clone(), first: true };
        self.outputs.push_back(LedgerOutput::Record(record));
        self.insert(entry.clone());
        for name in entry.nodes.keys() {
            if let Some(node) = self.nodes.get_mut(name) {
                node.pending.debounce(&entry, debounce, now);
            }
        }
        self.keep_bounds(now);
        ids
    }

    /// Time passed.
    pub fn tick(&mut self, now: Timestamp) {
        self.keep_bounds(now);
        self.wake_all(now);
        self.count_due(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<LedgerOutput> {
        self.outputs.pop_front()
    }

    /// When [`tick`](Self::tick) has to be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let attempts = self.nodes.values().filter_map(Node::due).min();
        let age = self.entries.values().next().map(|oldest| oldest.issued + self.limits.age);
        attempts.into_iter().chain(age).chain(self.next_count()).min()
    }

    /// Every entry, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.values()
    }

    /// The bans that this node has not taken and needs, oldest first: those that wait for it, and
    /// those that it rejected.
    pub fn undelivered<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a Entry> {
        let missed = |standing: &Standing| {
            matches!(standing, Standing::Pending(_) | Standing::Rejected { .. })
        };
        self.entries.values().filter(move |entry| entry.nodes.get(node).is_some_and(missed))
    }

    /// The bans that this node took, oldest first.
    pub fn taken<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a Entry> {
        let took = |standing: &Standing| matches!(standing, Standing::Taken { .. });
        self.entries.values().filter(move |entry| entry.nodes.get(node).is_some_and(took))
    }

    /// How the ledger stands with each configured node.
    pub fn backlogs(&self) -> impl Iterator<Item = (&NodeName, Backlog)> {
        self.nodes.iter().filter(|(_, node)| node.configured).map(|(name, node)| {
            let oldest = node.pending.first().and_then(|id| self.entries.get(&id));
            let (oldest, pending) = (oldest.map(|entry| entry.issued), node.pending.len());
            let (listed, paced) = (node.pace.length, node.pace.is_paced);
            (name, Backlog { pending, oldest, listed, paced })
        })
    }

    /// How many bans were dropped before a node had taken them, by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.dropped)
    }

    fn insert(&mut self, entry: Entry) {
        self.next = self.next.max(entry.id.number().saturating_add(1));
        self.bytes += entry.weight();
        for (name, standing) in &entry.nodes {
            if standing.is_pending() {
                self.nodes.entry(name.clone()).or_default().pending.insert(&entry);
            }
        }
        if entry.is_settled() {
            self.settled.insert(entry.id);
            self.settled_bytes += entry.weight();
        }
        self.entries.insert(entry.id, entry);
    }

    /// The node took a ban: the same one, issued before and not delivered yet, is needless.
    fn repeated(&mut self, node: &NodeName, ban: &BanText, now: Timestamp) {
        let Some(queue) = self.nodes.get(node) else { return };
        // An event may have come after the ban that the node took: its own is sent.
        let same = |id: &EntryId| self.entries.get(id).is_some_and(|entry| entry.ban == *ban);
        let last = EntryId::new(u64::MAX);
        let earlier: Vec<_> = queue.pending.voidable(last).filter(same).collect();
        let (because, bans) = (Needless::Repeated, earlier.len());
        for id in earlier {
            self.settle(id, node, Standing::Void { at: now, because });
        }
        if bans > 0 {
            self.news(News::Void { node: node.clone(), bans, because });
        }
    }

    /// Sets how an entry stands with a node, and has that stored.
    fn settle(&mut self, id: EntryId, node: &NodeName, standing: Standing) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(known) = entry.nodes.get_mut(node).filter(|known| **known != standing) else {
            return;
        };
        let is_pending = standing.is_pending();
        let end = match &standing {
            Standing::Taken { at } => Some(End::Taken(*at)),
            Standing::Rejected { reason, .. } => Some(End::Rejected(reason.clone())),
            Standing::Pending(_) | Standing::Void { .. } => None,
        };
        *known = standing;
        if entry.is_settled() && self.settled.insert(id) {
            self.settled_bytes += entry.weight();
        }
        let record = LedgerRecord::Put { entry: entry.clone(), first: false };
        if let Some(queue) = self.nodes.get_mut(node).filter(|_| !is_pending) {
            queue.pending.remove(id, &entry.ban);
        }
        self.outputs.push_back(LedgerOutput::Record(record));
        if let Some(end) = end.filter(|_| !entry.is_voidable()) {
            let node = node.clone();
            self.outputs.push_back(LedgerOutput::Ended { id, node, end });
        }
    }

    /// How an entry stands with a node that is to take it.
    fn pending(&self, id: EntryId, node: &NodeName) -> Option<&Pending> {
        match self.entries.get(&id)?.nodes.get(node)? {
            Standing::Pending(pending) => Some(pending),
            _ => None,
        }
    }

    fn news(&mut self, news: News) {
        self.outputs.push_back(LedgerOutput::News(news));
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 32 * 1_024 * 1_024,
            age: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}
