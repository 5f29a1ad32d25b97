//! Going over to what a pointer leads to now, and away from what it led to before.

use super::{Generation, Lead};
use crate::engine::watch::Watch;
use crate::engine::{Engine, Output, PointerNews, Record};
use crate::model::{EndpointName, PointerValue, Timestamp, VariantName};
use crate::verdict::OriginHistory;

impl Engine {
    /// Goes over to what `value` leads to.
    pub(super) fn follow(&mut self, number: usize, value: PointerValue, now: Timestamp) {
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
            self.retire(lead.watch);
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
                self.retire(lead.watch);
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
    pub(super) fn retire(&mut self, at: usize) {
        let Some(watch) = self.watches.get_mut(at) else { return };
        watch.retire();
        let names = (watch.plan.endpoint.clone(), watch.plan.variant.clone());
        if let Some(budget) = self.origins.get_mut(&watch.plan.origin) {
            budget.waiting.retain(|waiting| *waiting != at);
        }
        if self.names.get(&names) == Some(&at) {
            self.names.remove(&names);
            let (endpoint, variant) = names;
            self.outputs.push_back(Output::Record(Record::Forget { endpoint, variant }));
        }
        self.pending.retain(|_, fetch| fetch.watch != at);
        self.inquiries.forget(at);
        self.pointers.owners.remove(&at);
        self.pointers.spare.push(at);
    }
}
