//! What is counted of events.

use super::text::{Family, Value, end, label};
use crate::model::Timestamp;

/// What came of an event on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventResult {
    /// Every node took every ban; no proof was asked for.
    Taken,
    /// It is proven at every node.
    Proven,
    /// The bans were taken, and it could not be proven at some node.
    Unproven,
    /// varnishd does not take one of the bans.
    Rejected,
    /// It cannot be carried out, whatever the nodes say.
    Refused,
    /// It is for nodes of other hosts.
    Elsewhere,
    /// It was lost on the way to the nodes: from a channel, which keeps nothing, while there was no
    /// room.
    Lost,
}

impl EventResult {
    /// Every result.
    pub const ALL: [Self; 7] = [
        Self::Taken,
        Self::Proven,
        Self::Unproven,
        Self::Rejected,
        Self::Refused,
        Self::Elsewhere,
        Self::Lost,
    ];

    /// What was not done, or did not prove to work.
    pub(super) const FAILED: &[Self] = &[Self::Unproven, Self::Rejected, Self::Refused];

    /// The `result` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Elsewhere => "elsewhere",
            Self::Lost => "lost",
        }
    }
}

/// How one subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// The stream or channel, as it is configured; `http` for events over HTTP.
    pub name: String,
    /// Whether it can be read; `None` where nobody can tell, as over HTTP.
    pub up: Option<bool>,
    /// Events that the nodes have not settled.
    pub open: usize,
    /// What came of events, in the order of [`EventResult::ALL`].
    pub results: [u64; EventResult::ALL.len()],
    /// How often events may have been lost before they were read.
    pub gaps: u64,
    /// How many were certainly lost so, as far as that is known.
    pub lost: u64,
    /// Entries that were set aside.
    pub set_aside: u64,
    /// When an event last came.
    pub last_event: Option<Timestamp>,
    /// Why it cannot be read, in words, while that is so.
    pub problem: Option<String>,
}

impl SubscriptionState {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            up: None,
            open: 0,
            results: [0; EventResult::ALL.len()],
            gaps: 0,
            lost: 0,
            set_aside: 0,
            last_event: None,
            problem: None,
        }
    }

    /// How many events ended in one of these.
    pub(super) fn results_of(&self, results: &[EventResult]) -> u64 {
        let each = EventResult::ALL.iter().zip(self.results);
        let wanted = each.filter(|(result, _)| results.contains(result));
        wanted.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Counts what came of an event.
    pub fn count(&mut self, result: EventResult) {
        let place = EventResult::ALL.iter().position(|known| *known == result);
        if let Some(count) = place.and_then(|at| self.results.get_mut(at)) {
            *count = count.saturating_add(1);
        }
    }
}

const UP: Family = Family::gauge(
    "purgewatch_subscription_up",
    "1 while the stream or channel can be read; 0 also while another daemon has this host's name.",
);
const OPEN: Family =
    Family::gauge("purgewatch_events_open", "Events that some node of this host has not settled.");
const RESULTS: Family =
    Family::counter("purgewatch_events_total", "Events, by what came of them on this host.");
const GAPS: Family = Family::counter(
    "purgewatch_subscription_gaps_total",
    "How often events may have been lost before they were read.",
);
const LOST: Family = Family::counter(
    "purgewatch_events_lost_total",
    "Events that were lost before they were read, as far as that is known.",
);
const SET_ASIDE: Family = Family::counter(
    "purgewatch_events_set_aside_total",
    "Entries of the stream that could not be carried out, and were set aside.",
);
const LAST: Family = Family::gauge(
    "purgewatch_subscription_last_event_timestamp_seconds",
    "When an event last came; no sample before the first one.",
);

/// Writes them; the wall clock is `offset` milliseconds ahead of the line.
pub(super) fn write(out: &mut Vec<u8>, states: &[SubscriptionState], offset: i64) {
    if states.is_empty() {
        return;
    }
    let each = |out: &mut Vec<u8>,
                family: &Family,
                value: &dyn Fn(&SubscriptionState) -> Option<Value>| {
        let known: Vec<_> =
            states.iter().filter_map(|state| Some((state, value(state)?))).collect();
        if known.is_empty() {
            return;
        }
        family.open(out);
        for (state, value) in known {
            sample(out, family, state, None, value);
        }
    };
    each(out, &UP, &|state| state.up.map(Value::flag));
    each(out, &OPEN, &|state| Some(Value::Number(state.open as u64)));
    RESULTS.open(out);
    for state in states {
        for (result, count) in EventResult::ALL.into_iter().zip(state.results) {
            sample(out, &RESULTS, state, Some(result.label()), Value::Number(count));
        }
    }
    each(out, &GAPS, &|state| Some(Value::Number(state.gaps)));
    each(out, &LOST, &|state| Some(Value::Number(state.lost)));
    each(out, &SET_ASIDE, &|state| Some(Value::Number(state.set_aside)));
    each(out, &LAST, &|state| state.last_event.map(|at| Value::time(at, offset)));
}

fn sample(
    out: &mut Vec<u8>,
    family: &Family,
    state: &SubscriptionState,
    result: Option<&str>,
    value: Value,
) {
    out.extend_from_slice(family.name.as_bytes());
    out.push(b'{');
    label(out, "subscription", &state.name);
    if let Some(result) = result {
        out.push(b',');
        label(out, "result", result);
    }
    out.push(b'}');
    end(out, value);
}
