//! How bans that a node has missed get there.

use std::time::Duration;

use super::pace::{PACED_AT_A_TIME, Pace};
use super::waiting::Waiting;
use super::{
    BanResult, EntryId, Evidence, Inspection, Ledger, LedgerOutput, Miss, Needless, News, Pending,
    Process, Request, Standing,
};
use crate::model::{NodeName, Timestamp};

/// The pause after an attempt that failed; it doubles with each one, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// So many bans are handed over at a time.
const AT_A_TIME: usize = 256;

/// A ban that costs a node its cache process so often in a row is not sent there again.
const LOSSES: u8 = 3;

/// A node, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) configured: bool,
    pub(super) pending: Waiting,
    pub(super) pace: Pace,
    request: Under,
    failures: u32,
    /// The latest ban that had been issued when an attempt last failed.
    missed_up_to: EntryId,
    next_attempt: Timestamp,
    /// What the check of its admin port that is under way can tell about.
    checked: Option<Begun>,
}

/// When a look at a node began.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// The latest ban that had been issued: of later ones the look says nothing.
    up_to: EntryId,
}

/// What is being asked of a node.
#[derive(Debug, Default)]
enum Under {
    #[default]
    Nothing,
    Inspection(Begun),
    /// The entries of each ban that was handed over, in order.
    Delivery(Vec<Vec<EntryId>>),
}

impl Node {
    /// Forgets what is being asked of it. Returns the entries that were handed over.
    pub(super) fn forget_request(&mut self, now: Timestamp) -> Vec<EntryId> {
        let handed_over = match std::mem::take(&mut self.request) {
            Under::Delivery(groups) => groups.into_iter().flatten().collect(),
            Under::Nothing | Under::Inspection(_) => Vec::new(),
        };
        self.pace.forget_request();
        self.checked = None;
        self.failures = 0;
        self.next_attempt = now;
        handed_over
    }

    /// When it is to be asked next.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let is_free = matches!(self.request, Under::Nothing) && self.configured;
        let ready = self.pending.ready().filter(|_| is_free)?;
        Some(ready.max(self.next_attempt).max(self.pace.not_before))
    }

    /// Whether nothing speaks against it that it is there.
    pub(super) const fn is_reached(&self) -> bool {
        self.failures == 0
    }
}

impl Pending {
    /// A ban that missed a node.
    pub(super) fn after(miss: Miss) -> Self {
        let mut pending = Self::default();
        pending.missed(miss);
        pending
    }

    fn missed(&mut self, miss: Miss) {
        self.uncertain |= miss.result == BanResult::Unconfirmed;
        self.losses = if miss.is_loss() { self.losses.saturating_add(1) } else { 0 };
        self.learn_from(&miss);
        self.last = Some(miss);
    }

    /// What a miss says of the cache process.
    fn learn_from(&mut self, miss: &Miss) {
        if miss.result == BanResult::CacheStopped && !miss.is_loss() {
            self.evidence = Evidence::Stopped;
        }
    }
}

impl Ledger {
    /// A check of a node's admin port begins.
    pub fn check_begins(&mut self, node: &NodeName) {
        let begun = self.begun();
        if let Some(node) = self.nodes.get_mut(node) {
            node.checked = Some(begun);
        }
    }

    /// A check of a node's admin port passed, and these are its processes, if it tells: now is the
    /// time to deliver.
    pub fn check_passed(&mut self, name: &NodeName, process: Option<Process>, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let begun = node.checked.take();
        node.failures = 0;
        node.next_attempt = now;
        if let Some((process, begun)) = process.zip(begun) {
            self.learn(name, process, begun);
        }
        self.wake(name, now);
    }

    /// A check of a node's admin port failed for this reason.
    pub fn check_failed(&mut self, name: &NodeName, miss: &Miss) {
        let begun = self.nodes.get_mut(name).and_then(|node| node.checked.take());
        if let Some(begun) = begun {
            self.learn_from_failure(name, miss, begun);
        }
    }

    /// A node answers [`Request::Inspect`].
    pub fn inspected(&mut self, name: &NodeName, result: Result<Inspection, Miss>, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Under::Inspection(begun) = std::mem::take(&mut node.request) else { return };
        let inspection = match result {
            Ok(inspection) => inspection,
            Err(miss) => {
                self.learn_from_failure(name, &miss, begun);
                return self.pause(name, now);
            }
        };
        if let Some(process) = inspection.process {
            self.void(name, process, inspection.persistent, begun.up_to, now);
            self.learn(name, process, begun);
            if process.worker.is_none() {
                return self.pause(name, now);
            }
        }
        if !self.hand_over(name, begun.up_to, now) {
            if let Some(node) = self.nodes.get_mut(name) {
                node.failures = 0;
            }
            self.wake(name, now);
        }
    }

    /// Hands over what waits for a node, of bans up to that one. Returns whether there was
    /// anything.
    fn hand_over(&mut self, name: &NodeName, up_to: EntryId, now: Timestamp) -> bool {
        let groups = self.groups(name, up_to);
        let Some(node) = self.nodes.get_mut(name).filter(|_| !groups.is_empty()) else {
            return false;
        };
        let mut bans = Vec::with_capacity(groups.len());
        for group in &groups {
            let mut entries = group.iter().filter_map(|id| self.entries.get(id)).peekable();
            bans.extend(entries.peek().map(|entry| entry.ban.clone()));
            entries.for_each(|entry| node.pending.hand_over(entry, now));
        }
        node.pace.handed_over(bans.len(), now);
        node.request = Under::Delivery(groups);
        let (node, request) = (name.clone(), Request::Deliver(bans));
        self.outputs.push_back(LedgerOutput::Request { node, request });
        true
    }

    /// A node answers [`Request::Deliver`]: one result for each ban that was sent, in order.
    pub fn delivered(&mut self, name: &NodeName, results: Vec<Result<(), Miss>>, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Under::Delivery(groups) = std::mem::take(&mut node.request) else { return };
        let missed_up_to = node.missed_up_to;
        node.pace.answered(results.len());
        for entry in groups.iter().flatten().filter_map(|id| self.entries.get(id)) {
            node.pending.hand_back(entry);
        }
        let (mut taken, mut failed) = (0, results.is_empty());
        for (group, result) in groups.iter().zip(results) {
            let source = group.first().and_then(|id| self.entries.get(id)).map(|e| e.source);
            if let Some(source) = source {
                let outcome =
                    result.as_ref().map_or_else(|miss| miss.result, |()| BanResult::Accepted);
                self.news(News::Sent { node: name.clone(), source, result: outcome });
            }
            match result {
                Ok(()) => {
                    for id in group {
                        let missed = |p: &Pending| p.last.is_some() || *id <= missed_up_to;
                        taken += usize::from(self.pending(*id, name).is_some_and(missed));
                        self.settle(*id, name, Standing::Taken { at: now });
                    }
                }
                Err(miss) => failed |= self.missed(name, group, &miss, now),
            }
        }
        if taken > 0 {
            self.news(News::Delivered { node: name.clone(), bans: taken });
        }
        if failed {
            return self.pause(name, now);
        }
        if let Some(node) = self.nodes.get_mut(name) {
            node.failures = 0;
            node.next_attempt = now;
        }
        self.wake(name, now);
    }

    /// Notes that a node did not take a ban. Returns whether it is to be tried again.
    fn missed(&mut self, name: &NodeName, group: &[EntryId], miss: &Miss, now: Timestamp) -> bool {
        let mut again = false;
        for id in group {
            let Some(mut pending) = self.pending(*id, name).cloned() else { continue };
            pending.missed(miss.clone());
            let gives_up = miss.result == BanResult::Rejected || pending.losses >= LOSSES;
            again |= !gives_up;
            if gives_up {
                let reason = miss.reason.clone();
                let rejected = Standing::Rejected { at: now, reason: reason.clone() };
                let ban = self.entries.get(id).map(|entry| entry.ban.clone());
                self.settle(*id, name, rejected);
                if let Some(ban) = ban {
                    self.news(News::Rejected { node: name.clone(), ban, reason });
                }
            } else {
                self.settle(*id, name, Standing::Pending(pending));
            }
        }
        again
    }

    pub(super) fn wake_all(&mut self, now: Timestamp) {
        let due = |node: &Node| node.due().is_some_and(|at| at <= now);
        let names: Vec<_> =
            self.nodes.iter().filter(|(_, n)| due(n)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.wake(&name, now);
        }
    }

    /// Hands over what waits for a node, if the time has come. Where some of it may be needless,
    /// or the last attempt failed, the node is asked for its processes first.
    pub(super) fn wake(&mut self, name: &NodeName, now: Timestamp) {
        let begun = self.begun();
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.pending.release_due(now);
        if node.due().is_none_or(|at| at > now) {
            return;
        }
        if node.is_reached() && !node.pending.has_voidable() {
            self.hand_over(name, begun.up_to, now);
            return;
        }
        node.request = Under::Inspection(begun);
        let (node, request) = (name.clone(), Request::Inspect);
        self.outputs.push_back(LedgerOutput::Request { node, request });
    }

    fn pause(&mut self, name: &NodeName, now: Timestamp) {
        let jitter = 0.5 + self.random.f64() / 2.0;
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.missed_up_to = EntryId::new(self.next.saturating_sub(1));
        let doubled = FIRST_PAUSE.saturating_mul(1 << node.failures.min(10));
        node.failures = node.failures.saturating_add(1);
        node.next_attempt = now + doubled.min(LAST_PAUSE).mul_f64(jitter);
    }

    /// A look at a node begins.
    fn begun(&self) -> Begun {
        Begun { up_to: EntryId::new(self.next.saturating_sub(1)) }
    }

    /// What waits for a node and may be needless: what is seen of the node is noted there.
    fn voidable(&self, name: &NodeName, up_to: EntryId) -> Vec<EntryId> {
        let Some(node) = self.nodes.get(name) else { return Vec::new() };
        node.pending.voidable(up_to).collect()
    }

    /// Notes which processes a node had at some time since the look began.
    fn learn(&mut self, name: &NodeName, process: Process, begun: Begun) {
        for id in self.voidable(name, begun.up_to) {
            let Some(mut pending) = self.pending(id, name).cloned() else { continue };
            // What shows a restart already must not be covered up by what came after it: whether
            // the ban is void is decided when the storages are known.
            if !pending.evidence.shows_restart(process) && pending.evidence != Evidence::Stopped {
                pending.evidence = Evidence::with(process);
                self.settle(id, name, Standing::Pending(pending));
            }
        }
    }

    fn learn_from_failure(&mut self, name: &NodeName, miss: &Miss, begun: Begun) {
        for id in self.voidable(name, begun.up_to) {
            let Some(mut pending) = self.pending(id, name).cloned() else { continue };
            pending.learn_from(miss);
            pending.last = Some(miss.clone());
            self.settle(id, name, Standing::Pending(pending));
        }
    }

    /// Notes the bans that were issued before the node's cache process was started.
    fn void(
        &mut self,
        name: &NodeName,
        process: Process,
        persistent: bool,
        up_to: EntryId,
        now: Timestamp,
    ) {
        if persistent {
            return;
        }
        let (because, mut bans) = (Needless::Restarted, 0);
        for id in self.voidable(name, up_to) {
            if self.pending(id, name).is_some_and(|p| p.evidence.shows_restart(process)) {
                self.settle(id, name, Standing::Void { at: now, because });
                bans += 1;
            }
        }
        if bans > 0 {
            self.news(News::Void { node: name.clone(), bans, because });
        }
    }

    /// What is to be sent to a node next: equal bans in a row are one.
    fn groups(&self, name: &NodeName, up_to: EntryId) -> Vec<Vec<EntryId>> {
        let mut groups: Vec<Vec<EntryId>> = Vec::new();
        let Some(node) = self.nodes.get(name) else { return groups };
        let most = if node.pace.is_paced { PACED_AT_A_TIME } else { AT_A_TIME };
        for id in node.pending.up_to(up_to).filter(|id| !node.pending.is_held(*id)) {
            let ban = |id: &EntryId| self.entries.get(id).map(|entry| &entry.ban);
            let handed_over = groups.len();
            match groups.last_mut() {
                Some(group) if group.first().and_then(ban) == ban(&id) => group.push(id),
                _ if handed_over == most => break,
                _ => {
                    // One that was there when a cache process was lost goes alone: with others on
                    // their way, nobody could tell which of them it was.
                    let is_suspect = self.pending(id, name).is_some_and(|p| p.losses > 0);
                    if is_suspect && handed_over > 0 {
                        break;
                    }
                    groups.push(vec![id]);
                    if is_suspect {
                        break;
                    }
                }
            }
        }
        groups
    }
}
