//! Invalidations as a whole: their bans, the nodes that take them, and whether the nodes are fresh
//! then.
//!
//! Each is handed in under a key, and put out again once as [`Output::InvalidationSettled`], when
//! it is known at each of its nodes what came of it: never before the node answered each ban with
//! 200, or the ban was rejected or dropped. Whoever acknowledges only then loses none.
//!
//! After a node took one, its endpoints are looked at in a hurry; see `watch`. Where proof is asked
//! for, the node counts as settled when that has shown it fresh, or the time is up.

mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ledger::{BanText, DropReason, End, EntryId};
use super::{Engine, Output};
use crate::model::{EndpointName, NodeName, Timestamp};
use crate::verdict::{Cause, State};

/// The most invalidations that are open at a time.
pub const MOST_OPEN: usize = 20_000;

/// The most that all open ones name together: each ban once for each node, and each endpoint.
const MOST_NAMED: usize = 200_000;

/// Something that is to be invalidated at some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    /// The name that it is settled under: the caller's to choose, used by no other open one.
    pub key: u64,
    /// The bans, in order; none where the endpoints are only to be looked at.
    pub bans: Vec<BanText>,
    /// The nodes that are to take them.
    pub nodes: Vec<NodeName>,
    /// The endpoints that are to be fresh afterwards. Those that no longer exist are passed over.
    pub verify: Vec<EndpointName>,
    /// For how long after a node took the bans it is waited for a proof that the endpoints are
    /// fresh there; `None`: no proof is asked for.
    pub prove: Option<Duration>,
    /// A ban that is equal to one that was sent less than so long ago waits until that time is
    /// over; at most [`LONGEST_DEBOUNCE`](super::LONGEST_DEBOUNCE).
    pub debounce: Duration,
    /// When it arrived: the time to fresh counts from here.
    pub received: Timestamp,
}

/// What came of an invalidation at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The node took every ban, and no proof was asked for.
    Taken {
        /// When the last of them was taken.
        at: Timestamp,
    },
    /// varnishd does not take one of the bans.
    Rejected {
        /// The reason in one word.
        reason: String,
    },
    /// A round that began after the node took the bans found every variant of every endpoint fresh
    /// there.
    Proven {
        /// When that was known.
        at: Timestamp,
    },
    /// The node took every ban, and was not seen to be fresh in time.
    Unproven {
        /// The worst state of an endpoint there, as last known.
        state: State,
        /// Why it serves old content, where it does and that was found out.
        cause: Option<Cause>,
    },
    /// The node took every ban, and there is nothing there to prove it by.
    Unprovable {
        /// Why.
        why: Unprovable,
    },
    /// The node did not take every ban, and will not get it any more: the invalidation has to be
    /// handed in again, or it is lost there.
    Dropped {
        /// Why.
        why: Dropped,
    },
}

/// Why nothing can be proven at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unprovable {
    /// The invalidation names no endpoint that is watched at this node.
    NothingWatched,
}

/// Why a node does not get a ban any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The ledger had no room left.
    Full,
    /// It waited in the ledger for too long.
    Expired,
    /// No node of this name with an admin port is configured, or none any more.
    NotConfigured,
}

/// Why an invalidation was not taken in. Nothing was banned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidationError {
    /// An open one has that key: the caller's fault.
    #[error("an invalidation with the key {key} is open already")]
    KeyInUse {
        /// The key.
        key: u64,
    },
    /// It names no node: the caller's fault.
    #[error("the invalidation names no node")]
    NoNode,
    /// Too many are open: to be handed in again when some are settled.
    #[error("{open} invalidations are open, and no more than {limit} may be")]
    TooMany {
        /// How many are open.
        open: usize,
        /// The limit.
        limit: usize,
    },
    /// Those that are open name too many bans and endpoints together: to be handed in again when
    /// some are settled.
    #[error(
        "the open invalidations would name {got} bans and endpoints, and at most {limit} may be named"
    )]
    TooLarge {
        /// With this one.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// It names more than all open ones may together, and will never be taken in: the sender's
    /// fault, who can send it in parts.
    #[error(
        "it names {got} bans and endpoints, each ban once for each node, and no more than {limit} \
         are taken at a time: it has to be sent in parts"
    )]
    NeverNamed {
        /// How many.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The ledger would have no room for the bans if it were empty: the sender's fault, as before.
    #[error(
        "{bans} bans for {nodes} nodes do not fit into the ledger, also when nothing else waits: \
         they have to be sent in parts"
    )]
    NeverFits {
        /// How many there are.
        bans: usize,
        /// For how many nodes.
        nodes: usize,
    },
    /// The ledger has no room for the bans beside those that nodes are still to take: to be handed
    /// in again when they have.
    #[error("{bans} bans do not fit into the ledger beside those that nodes are still to take")]
    NoRoom {
        /// How many there are.
        bans: usize,
    },
}

impl InvalidationError {
    /// Whether the same will not be taken in later either.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::NeverNamed { .. } | Self::NeverFits { .. })
    }
}

/// Every open invalidation.
#[derive(Debug, Default)]
pub(super) struct Invalidations {
    open: BTreeMap<u64, Open>,
    /// The keys that wait for an entry of the ledger at a node.
    waiting: BTreeMap<(EntryId, NodeName), Vec<u64>>,
    named: usize,
    /// The keys with a node that is being proven, by endpoint.
    proving: BTreeMap<EndpointName, BTreeSet<u64>>,
    /// When it is too late for a proof.
    deadlines: BTreeSet<(Timestamp, u64, NodeName)>,
}

#[derive(Debug)]
struct Open {
    nodes: BTreeMap<NodeName, Progress>,
    verify: Vec<EndpointName>,
    prove: Option<Duration>,
    received: Timestamp,
    /// How much it names.
    named: usize,
    /// Nodes that are not settled.
    left: usize,
}

/// How far an invalidation is at a node.
#[derive(Debug)]
enum Progress {
    Waiting(Wait),
    /// Its bans were taken, and it is to be seen fresh by a round that began after that moment.
    Proving {
        since: u64,
        until: Timestamp,
    },
    Settled(Settled),
}

/// What came of the bans so far.
#[derive(Debug, Default)]
struct Wait {
    /// Bans that the node has not answered.
    left: usize,
    rejected: Option<String>,
    dropped: Option<Dropped>,
}

impl Engine {
    /// Takes in an invalidation: its bans are handed over at once to the nodes that are up, and to
    /// the others when they are back. See [`Output::InvalidationSettled`].
    ///
    /// # Errors
    /// [`InvalidationError`]; nothing was done then.
    pub fn invalidate(
        &mut self,
        invalidation: Invalidation,
        now: Timestamp,
    ) -> Result<(), InvalidationError> {
        self.invalidate_all(vec![invalidation], now).pop().unwrap_or(Ok(()))
    }

    /// Takes in several, so that their bans are handed over together: the result of each, in
    /// order.
    pub fn invalidate_all(
        &mut self,
        invalidations: Vec<Invalidation>,
        now: Timestamp,
    ) -> Vec<Result<(), InvalidationError>> {
        let results =
            invalidations.into_iter().map(|invalidation| self.take_in(invalidation, now)).collect();
        self.ledger.tick(now);
        self.take_from_ledger(now);
        results
    }

    /// How many invalidations are open.
    #[must_use]
    pub fn open_invalidations(&self) -> usize {
        self.invalidations.open.len()
    }

    fn take_in(
        &mut self,
        invalidation: Invalidation,
        now: Timestamp,
    ) -> Result<(), InvalidationError> {
        let Invalidation { key, mut bans, nodes, verify, prove, debounce, received } = invalidation;
        let mut seen = BTreeSet::new();
        bans.retain(|ban| seen.insert(ban.clone()));
        let nodes: BTreeSet<NodeName> = nodes.into_iter().collect();
        let named = bans.len().saturating_mul(nodes.len()).saturating_add(verify.len());
        self.admit(key, &bans, &nodes, named)?;

        let left = nodes.len();
        let wait = |node| {
            let wait = Wait { left: bans.len(), ..Wait::default() };
            (node, Progress::Waiting(wait))
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            nodes.iter().cloned().partition(|node| self.has_admin(node));
        let nodes = nodes.into_iter().map(wait).collect();
        let open = Open { nodes, verify, prove, received, named, left };
        self.invalidations.named += named;
        self.invalidations.open.insert(key, open);
        for ban in bans.iter().filter(|_| !known.is_empty()) {
            for (node, entry) in self.ledger.issue_event(ban, &known, debounce, now) {
                self.invalidations.waiting.entry((entry, node)).or_default().push(key);
            }
        }
        for node in &unknown {
            self.settle(key, node, Settled::Dropped { why: Dropped::NotConfigured });
        }
        for node in known.iter().filter(|_| bans.is_empty()) {
            self.bans_ended(key, node, now);
        }
        Ok(())
    }

    /// Whether there is room for an invalidation.
    fn admit(
        &self,
        key: u64,
        bans: &[BanText],
        nodes: &BTreeSet<NodeName>,
        named: usize,
    ) -> Result<(), InvalidationError> {
        let Invalidations { open, named: so_far, .. } = &self.invalidations;
        if open.contains_key(&key) {
            return Err(InvalidationError::KeyInUse { key });
        }
        if nodes.is_empty() {
            return Err(InvalidationError::NoNode);
        }
        if named > MOST_NAMED {
            return Err(InvalidationError::NeverNamed { got: named, limit: MOST_NAMED });
        }
        if !self.ledger.could_hold(bans, nodes.len()) {
            return Err(InvalidationError::NeverFits { bans: bans.len(), nodes: nodes.len() });
        }
        if open.len() >= MOST_OPEN {
            return Err(InvalidationError::TooMany { open: open.len(), limit: MOST_OPEN });
        }
        let got = so_far.saturating_add(named);
        if got > MOST_NAMED {
            return Err(InvalidationError::TooLarge { got, limit: MOST_NAMED });
        }
        if !self.ledger.has_room(bans, nodes) {
            return Err(InvalidationError::NoRoom { bans: bans.len() });
        }
        Ok(())
    }

    fn has_admin(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|node| node.interval.is_some())
    }

    /// A ban of an event does not wait for a node any more.
    pub(super) fn ban_ended(&mut self, id: EntryId, node: NodeName, end: &End, now: Timestamp) {
        let place = (id, node);
        let keys = self.invalidations.waiting.remove(&place).unwrap_or_default();
        let (_, node) = place;
        for key in keys {
            let progress = self.invalidations.progress(key, &node);
            let Some(Progress::Waiting(wait)) = progress else { continue };
            wait.left = wait.left.saturating_sub(1);
            match end {
                End::Taken(_) => {}
                End::Rejected(reason) => wait.rejected = Some(reason.clone()),
                End::Dropped(DropReason::Full) => wait.dropped = Some(Dropped::Full),
                End::Dropped(DropReason::Expired) => wait.dropped = Some(Dropped::Expired),
            }
            if wait.left == 0 {
                self.bans_ended(key, &node, now);
            }
        }
    }

    /// It is known of every ban of an invalidation what came of it at a node.
    fn bans_ended(&mut self, key: u64, node: &NodeName, now: Timestamp) {
        let Some(Progress::Waiting(wait)) = self.invalidations.progress(key, node) else { return };
        let (rejected, dropped) = (wait.rejected.take(), wait.dropped);
        // What was taken is looked at, whatever became of the rest.
        if dropped.is_none() {
            self.look_after(key, node, now);
        }
        match (dropped, rejected) {
            (Some(why), _) => self.settle(key, node, Settled::Dropped { why }),
            (None, Some(reason)) => self.settle(key, node, Settled::Rejected { reason }),
            (None, None) => self.taken(key, node, now),
        }
    }

    /// Has the endpoints of an invalidation looked at, since a node took it.
    fn look_after(&mut self, key: u64, node: &NodeName, now: Timestamp) {
        let Some(open) = self.invalidations.open.get(&key) else { return };
        if self.once || open.verify.is_empty() {
            return;
        }
        let received = open.received;
        let is_waiting = |(other, progress): (&NodeName, &Progress)| {
            other != node && matches!(progress, Progress::Waiting(_))
        };
        let others = open.nodes.iter().any(is_waiting);
        let mut watches = BTreeSet::new();
        for endpoint in &open.verify {
            watches.extend(self.watches_of(endpoint));
        }
        for at in watches {
            self.hurry(at, node, received, others, now);
        }
    }

    /// It is known what came of an invalidation at a node.
    fn settle(&mut self, key: u64, node: &NodeName, settled: Settled) {
        let Some(open) = self.invalidations.open.get_mut(&key) else { return };
        let Some(progress) = open.nodes.get_mut(node) else { return };
        if matches!(progress, Progress::Settled(_)) {
            return;
        }
        *progress = Progress::Settled(settled);
        open.left = open.left.saturating_sub(1);
        if open.left > 0 {
            return;
        }
        let Some(open) = self.invalidations.close(key) else { return };
        let nodes = open.nodes.into_iter().filter_map(|(node, progress)| match progress {
            Progress::Settled(settled) => Some((node, settled)),
            Progress::Waiting(_) | Progress::Proving { .. } => None,
        });
        self.outputs.push_back(Output::InvalidationSettled { key, nodes: nodes.collect() });
    }

    /// There is another plan: nodes and endpoints may be gone.
    pub(super) fn replan_invalidations(&mut self, now: Timestamp) {
        let nodes = &self.nodes;
        let is_gone = |name: &NodeName| nodes.get(name).is_none_or(|node| node.interval.is_none());
        self.invalidations.waiting.retain(|(_, node), _| !is_gone(node));
        let mut gone = Vec::new();
        for (key, open) in &self.invalidations.open {
            let left = |progress: &Progress| !matches!(progress, Progress::Settled(_));
            let places = open.nodes.iter().filter(|(node, p)| left(p) && is_gone(node));
            gone.extend(places.map(|(node, _)| (*key, node.clone())));
        }
        for (key, node) in gone {
            self.forget_deadline(key, &node);
            self.settle(key, &node, Settled::Dropped { why: Dropped::NotConfigured });
        }
        self.replan_proofs(now);
    }
}

impl Invalidations {
    fn progress(&mut self, key: u64, node: &NodeName) -> Option<&mut Progress> {
        self.open.get_mut(&key)?.nodes.get_mut(node)
    }

    fn close(&mut self, key: u64) -> Option<Open> {
        let open = self.open.remove(&key)?;
        self.named = self.named.saturating_sub(open.named);
        if open.prove.is_some() {
            for endpoint in &open.verify {
                if let Some(keys) = self.proving.get_mut(endpoint) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.proving.remove(endpoint);
                    }
                }
            }
        }
        Some(open)
    }
}
