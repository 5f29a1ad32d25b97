//! What all that is known of a pointer comes to.

use std::time::Duration;

use super::findings::{Findings, Limits};
use super::state::{FindingKind, PointerNews, PointerState};
use crate::engine::{Engine, Output};
use crate::model::Timestamp;

/// Said of a pointer that is to be read where it is kept.
const THROUGH_A_CACHE: &str = "the pointer's answer comes through a Varnish, so it may be old: with \
     `through_nodes = true` it is read from the origin";

impl Engine {
    /// Says what all that is known comes to.
    pub(super) fn judge_pointer(&mut self, number: usize, now: Timestamp) {
        let once = self.once;
        let Some(pointer) = self.pointers.list.get_mut(number) else { return };
        let Some(own) = self.watches.get(pointer.watch) else { return };
        let limits = Limits { failures: if once { 1 } else { 2 }, now };
        let mut found = Findings::default();
        let is_open = own.finished_rounds < pointer.since_round;
        found.of_pointer(own, is_open, limits);
        if pointer.plan.nodes.is_empty() && own.origin_is_varnish {
            found.add(FindingKind::Doubt, THROUGH_A_CACHE);
        }
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
        let max_stale = if once { Duration::ZERO } else { pointer.plan.max_stale };
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
                match found.is_certain {
                    _ if lasts || goes_on => alarm,
                    true => PointerState::Split,
                    false => PointerState::Lagging,
                }
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
