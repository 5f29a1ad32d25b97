//! Pointers: URLs that name the current version of other URLs.
//!
//! A pointer is a watch like any other. When its origin is seen to name another value, the URLs
//! that this value leads to become watches at once, and those of the value before go on as
//! watches until their grace ends: whoever has read the pointer before it moved still uses them.
//! Nothing else is touched by that. What all these watches say comes to one
//! [`PointerState`].

mod judgement;
mod plan;
mod state;

use std::collections::{BTreeMap, HashMap};

use judgement::{Findings, Limits};

use super::watch::Watch;
use super::{Engine, HistoryRecord, Output, Record, VerdictRecord, WatchPlan};
use crate::model::{EndpointName, Mark, PointerValue, Timestamp, ValueFault, VariantName};
use crate::verdict::OriginHistory;

pub use plan::PointerPlan;
pub use state::{FindingKind, PointerFinding, PointerNews, PointerSnapshot, PointerState};

/// All pointers.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    list: Vec<Pointer>,
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
        self.list.iter().any(|pointer| pointer.plan.name == *endpoint)
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
            self.retire(at, true);
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
            self.retire(lead.watch, true);
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

    /// Goes over to what `value` leads to.
    fn follow(&mut self, number: usize, value: PointerValue, now: Timestamp) {
        let Some(pointer) = self.pointers.list.get_mut(number) else { return };
        if pointer.current.as_ref().is_some_and(|current| current.value == value) {
            return;
        }
        let from = pointer.current.take();
        let again = pointer.earlier.iter().position(|generation| generation.value == value);
        let again = again.map(|place| pointer.earlier.remove(place));
        // The round that is under way, if one is, compares the nodes with this very value.
        let own = self.watches.get(pointer.watch);
        pointer.since_round = own.map_or(0, |watch| watch.finished_rounds) + 1;
        pointer.trouble.get_or_insert(now);
        if let Some(before) = &from {
            self.outputs.push_back(Output::Pointer(PointerNews::Moved {
                pointer: pointer.plan.name.clone(),
                from: before.value.clone(),
                to: value.clone(),
            }));
        }
        if let Some(before) = from {
            self.demote(number, before, now);
        }
        let generation = match again {
            Some(generation) => self.promote(number, generation, now),
            None => self.begin(number, value, now),
        };
        let Some(pointer) = self.pointers.list.get_mut(number) else { return };
        pointer.current = Some(generation);
        self.forget_stored(number);
    }

    /// Lets a value go on as an earlier one, or forgets it where there is no room or no grace.
    fn demote(&mut self, number: usize, mut generation: Generation, now: Timestamp) {
        let Some(pointer) = self.pointers.list.get_mut(number) else { return };
        let mut over = None;
        if pointer.free_slot().is_none() && !pointer.earlier.is_empty() {
            over = Some(pointer.earlier.remove(0));
        }
        let slot = pointer.free_slot().filter(|_| !pointer.plan.grace.is_zero());
        let names: Vec<_> = pointer.plan.variants(slot).collect();
        let name = pointer.plan.name.clone();
        if slot.is_none() {
            over = Some(generation);
        } else {
            (generation.slot, generation.until) = (slot, now + pointer.plan.grace);
            // What is stored of the current URLs is the next value's from now on.
            for variant in pointer.plan.variants(None) {
                let endpoint = name.clone();
                self.outputs.push_back(Output::Record(Record::Forget { endpoint, variant }));
            }
            let targets = generation.targets.clone();
            pointer.earlier.push(generation);
            self.rename(&name, &targets, &names);
        }
        for lead in over.into_iter().flat_map(|generation| generation.targets) {
            self.retire(lead.watch, true);
        }
    }

    /// Takes an earlier value for the current one again.
    fn promote(&mut self, number: usize, mut generation: Generation, now: Timestamp) -> Generation {
        generation.slot = None;
        let Some(pointer) = self.pointers.list.get(number) else { return generation };
        let (name, names) = (pointer.plan.name.clone(), pointer.plan.variants(None));
        let names: Vec<_> = names.collect();
        if generation.targets.len() < pointer.plan.urls.len() {
            // Some of them were given up meanwhile.
            for lead in std::mem::take(&mut generation.targets) {
                self.retire(lead.watch, false);
            }
            return self.begin(number, generation.value, now);
        }
        self.rename(&name, &generation.targets, &names);
        for lead in &mut generation.targets {
            let Some(watch) = self.watches.get_mut(lead.watch) else { continue };
            lead.since_round = watch.finished_rounds + 1;
            if watch.round.is_none() {
                watch.hurry.plan(now);
                self.set_round_timer(lead.watch, now);
            }
        }
        generation
    }

    /// Begins to watch what a value leads to, with a round at once.
    fn begin(&mut self, number: usize, value: PointerValue, now: Timestamp) -> Generation {
        let mut generation =
            Generation { value, slot: None, until: now, targets: Vec::new(), fault: None };
        let Some(pointer) = self.pointers.list.get(number) else { return generation };
        let plans = match pointer.plan.watches(&generation.value, None) {
            Ok(plans) => plans,
            Err(fault) => {
                generation.fault = Some(fault);
                return generation;
            }
        };
        for plan in plans {
            let grid = self.new_grid(plan.interval, now);
            let names = (plan.endpoint.clone(), plan.variant.clone());
            let watch = Watch::new(plan, grid, now);
            let at = match self.pointers.spare.pop() {
                Some(at) => at,
                None => self.watches.len(),
            };
            match self.watches.get_mut(at) {
                Some(place) => *place = watch,
                None => self.watches.push(watch),
            }
            self.restore_target(number, at);
            self.names.insert(names, at);
            self.pointers.owners.insert(at, number);
            self.set_round_timer(at, now);
            generation.targets.push(Lead { watch: at, since_round: 1 });
        }
        generation
    }

    /// Takes over what was stored of a URL, if it was the same one.
    fn restore_target(&mut self, number: usize, at: usize) {
        let Some(watch) = self.watches.get_mut(at) else { return };
        let Some(stored) = self.pointers.list.get(number).map(|pointer| &pointer.stored) else {
            return;
        };
        let (variant, definition) = (watch.plan.variant.clone(), watch.definition);
        let histories = stored.histories.iter();
        let mut same = histories.filter(|r| r.variant == variant && r.definition == definition);
        if let Some(record) = same.next() {
            watch.history = OriginHistory::restore(record.parts.clone());
        }
        for record in &stored.verdicts {
            if record.variant == variant && record.definition == definition {
                watch.take_over(record);
            }
        }
    }

    /// What was stored is used once, and what is of no use is not stored any longer.
    fn forget_stored(&mut self, number: usize) {
        let Some(pointer) = self.pointers.list.get_mut(number) else { return };
        let stored = std::mem::take(&mut pointer.stored);
        let histories = stored.histories.into_iter().map(|r| (r.endpoint, r.variant));
        let verdicts = stored.verdicts.into_iter().map(|r| (r.endpoint, r.variant));
        let mut names: Vec<_> = histories.chain(verdicts).collect();
        names.sort();
        names.dedup();
        for (endpoint, variant) in names {
            let known = (endpoint, variant);
            if !self.names.contains_key(&known) {
                let (endpoint, variant) = known;
                self.outputs.push_back(Output::Record(Record::Forget { endpoint, variant }));
            }
        }
    }

    /// Lets watches appear under other names.
    fn rename(&mut self, endpoint: &EndpointName, targets: &[Lead], variants: &[VariantName]) {
        for lead in targets {
            let Some(watch) = self.watches.get(lead.watch) else { continue };
            self.names.remove(&(endpoint.clone(), watch.plan.variant.clone()));
        }
        for (lead, variant) in targets.iter().zip(variants) {
            let Some(watch) = self.watches.get_mut(lead.watch) else { continue };
            watch.plan.variant = variant.clone();
            self.names.insert((endpoint.clone(), variant.clone()), lead.watch);
        }
    }

    /// Ends a watch. What is under way for it comes to nothing.
    fn retire(&mut self, at: usize, forget: bool) {
        let Some(watch) = self.watches.get_mut(at) else { return };
        watch.retire();
        let names = (watch.plan.endpoint.clone(), watch.plan.variant.clone());
        if let Some(budget) = self.origins.get_mut(&watch.plan.origin) {
            budget.waiting.retain(|waiting| *waiting != at);
        }
        if self.names.get(&names) == Some(&at) {
            self.names.remove(&names);
            if forget {
                let (endpoint, variant) = names;
                self.outputs.push_back(Output::Record(Record::Forget { endpoint, variant }));
            }
        }
        self.pending.retain(|_, fetch| fetch.watch != at);
        self.inquiries.forget(at);
        self.pointers.owners.remove(&at);
        self.pointers.spare.push(at);
    }

    /// Says what all that is known comes to.
    fn judge_pointer(&mut self, number: usize, now: Timestamp) {
        let once = self.once;
        let Some(pointer) = self.pointers.list.get_mut(number) else { return };
        let Some(own) = self.watches.get(pointer.watch) else { return };
        let limits = Limits { failures: if once { 1 } else { 2 }, now };
        let mut found = Findings::default();
        let is_open = own.finished_rounds < pointer.since_round;
        found.of_pointer(own, is_open, limits);
        let is_flapping = own.history.is_flapping(now);
        if let Some(current) = &pointer.current {
            if let Some(fault) = current.fault {
                found.add(FindingKind::Unusable, fault);
            }
            for lead in &current.targets {
                let Some(watch) = self.watches.get(lead.watch) else { continue };
                let is_open = watch.finished_rounds < lead.since_round;
                found.of_target(watch, is_open, limits);
            }
        }
        let is_settled = once || own.history.is_settled(now);
        let named_since = own.history.current().map(|seen| seen.first_seen);
        let max_stale = if once { std::time::Duration::ZERO } else { pointer.plan.max_stale };
        let next = match (found.worst(), found.alarm()) {
            (None, _) => {
                pointer.trouble = None;
                PointerState::Good
            }
            _ if is_flapping => {
                pointer.trouble = None;
                PointerState::Unverifiable
            }
            (_, Some(alarm)) => {
                let since = match (pointer.is_restored, found.missing_since) {
                    (true, Some(missing)) => missing.max(named_since.unwrap_or(now)),
                    _ => now,
                };
                let since = *pointer.trouble.get_or_insert(since);
                // An origin that shows nothing cannot hold still either.
                let is_sure = is_settled || alarm == PointerState::Unreadable;
                let lasts = now.since(since) >= max_stale && is_sure;
                let goes_on = pointer.state == alarm;
                if lasts || goes_on || found.is_certain { alarm } else { PointerState::Lagging }
            }
            (Some(FindingKind::Open), None) => match pointer.state {
                PointerState::Unknown => PointerState::Unknown,
                // What was an alarm stays one until something else is known.
                alarm if alarm.is_alarm() => alarm,
                _ => PointerState::Lagging,
            },
            (Some(_), None) => {
                pointer.trouble = None;
                PointerState::Unverifiable
            }
        };
        let list = found.into_list();
        // One failure says nothing: the next answer is to come soon.
        let fails = own.origin_trouble(1).is_some() && !next.is_alarm();
        let hurry = fails || matches!(next, PointerState::Lagging | PointerState::Unknown);
        let leads = pointer.current.iter().flat_map(|current| &current.targets);
        for at in leads.map(|lead| lead.watch).chain([pointer.watch]) {
            if let Some(watch) = self.watches.get_mut(at) {
                watch.pressed = hurry;
            }
        }
        let reason = list.first().map(|finding| finding.text.clone());
        pointer.findings = list;
        if next != PointerState::Unknown {
            pointer.is_restored = false;
        }
        if next != pointer.state {
            let from = std::mem::replace(&mut pointer.state, next);
            self.outputs.push_back(Output::Pointer(PointerNews::Changed {
                pointer: pointer.plan.name.clone(),
                from,
                to: next,
                after: now.since(pointer.since),
                reason,
            }));
            pointer.since = now;
        }
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
