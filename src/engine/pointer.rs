//! Pointers: URLs that name the current version of other URLs.
//!
//! A pointer is a watch like any other. When its origin is seen to name another value, the URLs
//! that this value leads to become watches at once, and those of the value before go on as
//! watches until their grace ends: whoever has read the pointer before it moved still uses them.
//! Nothing else is touched by that. What all these watches say comes to one
//! [`PointerState`].

mod findings;
mod following;
mod judging;
mod plan;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::watch::Watch;
use super::{Engine, HistoryRecord, VerdictRecord, WatchPlan};
use crate::model::{EndpointName, Mark, PointerValue, Timestamp, ValueFault, VariantName};
use crate::verdict::OriginHistory;

pub use plan::PointerPlan;
pub use state::{FindingKind, PointerFinding, PointerNews, PointerSnapshot, PointerState};

/// All pointers.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    list: Vec<Pointer>,
    names: BTreeSet<EndpointName>,
    /// For each of their watches, whose it is.
    owners: HashMap<usize, usize>,
    /// Places of watches that are retired and can be used again.
    spare: Vec<usize>,
}

#[derive(Debug)]
struct Pointer {
    plan: PointerPlan,
    /// Its own watch.
    watch: usize,
    /// The finished rounds of its own watch that say something of the current value.
    since_round: u64,
    current: Option<Generation>,
    /// The values before, the oldest first.
    earlier: Vec<Generation>,
    state: PointerState,
    since: Timestamp,
    findings: Vec<PointerFinding>,
    /// Since when it has not been good.
    trouble: Option<Timestamp>,
    /// What was stored of URLs that it led to.
    stored: Stored,
    /// Nothing was judged since it was restored.
    is_restored: bool,
}

/// What one value leads to.
#[derive(Debug)]
struct Generation {
    value: PointerValue,
    /// For an earlier one, which of its names are taken.
    slot: Option<usize>,
    /// For an earlier one, when it is forgotten.
    until: Timestamp,
    targets: Vec<Lead>,
    fault: Option<ValueFault>,
}

/// A watch that a value leads to.
#[derive(Debug, Clone, Copy)]
struct Lead {
    watch: usize,
    /// The finished rounds from which on they say something of this value.
    since_round: u64,
}

#[derive(Debug, Default)]
struct Stored {
    histories: Vec<HistoryRecord>,
    verdicts: Vec<VerdictRecord>,
}

impl Pointers {
    /// Takes over the plan's pointers. Returns what is to be watched for them.
    pub(super) fn replan(&mut self, plans: Vec<PointerPlan>, now: Timestamp) -> Vec<WatchPlan> {
        self.owners.clear();
        self.spare.clear();
        let mut old: BTreeMap<EndpointName, Pointer> = std::mem::take(&mut self.list)
            .into_iter()
            .map(|pointer| (pointer.plan.name.clone(), pointer))
            .collect();
        self.names = plans.iter().map(|plan| plan.name.clone()).collect();
        let mut watches = Vec::new();
        for plan in plans {
            let definition = plan.own_watch().definition();
            let kept = old.remove(&plan.name);
            let kept = kept.filter(|kept| kept.plan.own_watch().definition() == definition);
            let mut pointer = match kept {
                Some(kept) => Pointer { plan, ..kept },
                None => Pointer::new(plan, now),
            };
            watches.push(pointer.plan.own_watch());
            let (plan, most) = (&pointer.plan, pointer.plan.earlier_values());
            pointer.earlier.retain(|generation| generation.slot.is_some_and(|slot| slot < most));
            for generation in pointer.current.iter_mut().chain(&mut pointer.earlier) {
                generation.targets.clear();
                match plan.watches(&generation.value, generation.slot) {
                    Ok(plans) => {
                        generation.fault = None;
                        watches.extend(plans);
                    }
                    Err(fault) => generation.fault = Some(fault),
                }
            }
            self.list.push(pointer);
        }
        watches
    }

    /// Notes where the watches are that [`replan`](Self::replan) asked for.
    pub(super) fn locate(&mut self, names: &BTreeMap<(EndpointName, VariantName), usize>) {
        for (number, pointer) in self.list.iter_mut().enumerate() {
            let find = |variant| names.get(&(pointer.plan.name.clone(), variant)).copied();
            if let Some(at) = find(PointerPlan::own_variant()) {
                pointer.watch = at;
                self.owners.insert(at, number);
            }
            for generation in pointer.current.iter_mut().chain(&mut pointer.earlier) {
                if generation.fault.is_some() {
                    continue;
                }
                let found = pointer.plan.variants(generation.slot).filter_map(find);
                generation.targets = found.map(|watch| Lead { watch, since_round: 1 }).collect();
                self.owners.extend(generation.targets.iter().map(|lead| (lead.watch, number)));
            }
        }
    }

    /// Whether an endpoint is a pointer.
    pub(super) fn has(&self, endpoint: &EndpointName) -> bool {
        self.names.contains(endpoint)
    }

    /// When an earlier value's URLs are to be forgotten next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let earlier = self.list.iter().flat_map(|pointer| &pointer.earlier);
        earlier.map(|generation| generation.until).min()
    }

    /// Keeps what was stored of an endpoint and variant that is not watched yet.
    pub(super) fn keep_history(&mut self, record: HistoryRecord) {
        if let Some(pointer) = self.list.iter_mut().find(|p| p.plan.name == record.endpoint) {
            pointer.stored.histories.push(record);
        }
    }

    /// The same of a verdict.
    pub(super) fn keep_verdict(&mut self, record: VerdictRecord) {
        if let Some(pointer) = self.list.iter_mut().find(|p| p.plan.name == record.endpoint) {
            pointer.stored.verdicts.push(record);
        }
    }
}

impl Pointer {
    fn new(plan: PointerPlan, now: Timestamp) -> Self {
        Self {
            plan,
            watch: usize::MAX,
            since_round: 1,
            current: None,
            earlier: Vec::new(),
            state: PointerState::Unknown,
            since: now,
            findings: Vec::new(),
            trouble: None,
            stored: Stored::default(),
            is_restored: false,
        }
    }

    /// A slot that no earlier value has.
    fn free_slot(&self) -> Option<usize> {
        let taken = |slot: &usize| self.earlier.iter().any(|g| g.slot == Some(*slot));
        (0..self.plan.earlier_values()).find(|slot| !taken(slot))
    }
}

impl Engine {
    /// A watch's origin answered: if the watch is a pointer, it may name another value now.
    pub(super) fn pointer_answered(&mut self, at: usize, now: Timestamp) {
        let Some(number) = self.pointers.owners.get(&at).copied() else { return };
        let Some(watch) = self.watches.get(at) else { return };
        let names = watch.history.current().map(|seen| &seen.version.mark);
        // One that goes back and forth is not followed: nobody could say where it leads.
        let Some(Mark::Value(value)) = names.filter(|_| !watch.history.is_flapping(now)) else {
            return;
        };
        let value = value.clone();
        let is_own = self.pointers.list.get(number).is_some_and(|pointer| pointer.watch == at);
        if is_own {
            self.follow(number, value, now);
            self.judge_pointer(number, now);
        }
    }

    /// A watch finished a round: what that says of the pointer that it belongs to.
    pub(super) fn pointer_round(&mut self, at: usize, now: Timestamp) {
        let Some(number) = self.pointers.owners.get(&at).copied() else { return };
        let Some(pointer) = self.pointers.list.get(number) else { return };
        if pointer.watch == at {
            return self.own_round(number, at, now);
        }
        let is_current = |generation: &Generation| generation.leads_to(at);
        if pointer.current.as_ref().is_some_and(is_current) {
            return self.judge_pointer(number, now);
        }
        // An earlier version that its origin has given up is no concern of anybody's.
        let is_gone = self.watches.get(at).is_some_and(Watch::is_gone_at_origin);
        if is_gone && let Some(pointer) = self.pointers.list.get_mut(number) {
            for generation in &mut pointer.earlier {
                generation.targets.retain(|lead| lead.watch != at);
            }
            self.retire(at);
        }
    }

    /// Forgets the earlier values whose grace is over.
    pub(super) fn tick_pointers(&mut self, now: Timestamp) {
        if self.pointers.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        let mut over = Vec::new();
        for pointer in &mut self.pointers.list {
            let (gone, kept) = std::mem::take(&mut pointer.earlier)
                .into_iter()
                .partition(|generation| generation.until <= now);
            pointer.earlier = kept;
            over.extend::<Vec<Generation>>(gone);
        }
        for lead in over.into_iter().flat_map(|generation| generation.targets) {
            self.retire(lead.watch);
        }
    }

    /// Follows the pointers to where they led when that was stored last.
    pub(super) fn restore_pointers(&mut self, now: Timestamp) {
        for number in 0..self.pointers.list.len() {
            let Some(pointer) = self.pointers.list.get_mut(number) else { continue };
            pointer.is_restored = true;
            let history = self.watches.get(pointer.watch).map(|watch| &watch.history);
            let Some(value) = history.and_then(last_value) else { continue };
            self.follow(number, value, now);
            if let Some(pointer) = self.pointers.list.get_mut(number) {
                // Since when it is in trouble, if it is, follows from what was stored.
                pointer.trouble = None;
            }
        }
    }

    /// What is known of each pointer.
    pub(super) fn pointer_snapshots(&self) -> Vec<PointerSnapshot> {
        let mut snapshots: Vec<_> =
            self.pointers.list.iter().map(|pointer| self.pointer_snapshot(pointer)).collect();
        snapshots.sort_by(|a, b| a.pointer.cmp(&b.pointer));
        snapshots
    }

    fn pointer_snapshot(&self, pointer: &Pointer) -> PointerSnapshot {
        let own = self.watches.get(pointer.watch);
        let targets = pointer.current.iter().flat_map(|generation| &generation.targets);
        let targets = targets.filter_map(|lead| self.watches.get(lead.watch));
        let places = own.map(|watch| watch.places.iter()).into_iter().flatten();
        PointerSnapshot {
            pointer: pointer.plan.name.clone(),
            state: pointer.state,
            since: pointer.since,
            value: pointer.current.as_ref().map(|generation| generation.value.clone()),
            last_change: own.and_then(|watch| last_change(&watch.history)),
            previous: pointer.earlier.last().map(|generation| generation.value.clone()),
            max_stale: pointer.plan.max_stale,
            nodes: places.map(|place| (place.node.clone(), place.version.clone())).collect(),
            targets: targets
                .map(|watch| (watch.plan.variant.clone(), watch.plan.target.url.clone()))
                .collect(),
            findings: pointer.findings.clone(),
        }
    }

    fn own_round(&mut self, number: usize, at: usize, now: Timestamp) {
        // It may have gone back and forth when its origin answered, and not any more.
        self.pointer_answered(at, now);
        self.judge_pointer(number, now);
    }
}

impl Generation {
    fn leads_to(&self, at: usize) -> bool {
        self.targets.iter().any(|lead| lead.watch == at)
    }
}

/// The value that the origin named last.
fn last_value(history: &OriginHistory) -> Option<PointerValue> {
    history.parts().seen.iter().rev().find_map(|seen| match &seen.version.mark {
        Mark::Value(value) => Some(value.clone()),
        _ => None,
    })
}

/// When the origin was seen to go over to another answer, or first seen.
fn last_change(history: &OriginHistory) -> Option<Timestamp> {
    let parts = history.parts();
    let moved = parts.seen.iter().filter_map(|seen| seen.superseded).max();
    moved.or(parts.seen.first().map(|seen| seen.first_seen))
}

#[cfg(test)]
impl Engine {
    /// How many watches are in use, where pointers are read from their origins alone.
    pub(super) fn pointers_watched(&self) -> usize {
        self.watches.iter().filter(|watch| !watch.retired).count()
    }
}
