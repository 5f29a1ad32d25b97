//! Moving points of time between the wall clock, which the file holds, and the program's line.
//!
//! A wall clock that is behind the stored times was set back while nobody looked. How long the
//! daemon was down cannot be told then; it was not less than nothing, though, so the stored times
//! are moved back by as much as they lie in the future. An endpoint's history and verdicts are
//! moved together, since staleness is counted from the one or the other.

use std::collections::HashMap;
use std::time::Duration;

use super::hour_rows;
use crate::engine::{Entry, HistoryRecord, Record, Restored, Standing, VerdictRecord};
use crate::model::{EndpointName, Timestamp, VariantName};

/// What [`bring_to_line`] had to move back.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// The records that were moved, as they are now.
    pub(super) records: Vec<Record>,
    /// How far the furthest one was moved, if that is worth telling.
    pub(super) furthest: Option<Duration>,
}

/// Less than this may be a clock that is being adjusted, and is moved without a word.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Moves times of the wall clock, which is `offset` milliseconds ahead of the line, to the line.
pub(super) fn bring_to_line(restored: &mut Restored, now: Timestamp, offset: i64) -> Moved {
    shift_all(restored, offset.saturating_neg());
    let mut latest: HashMap<(EndpointName, VariantName), Timestamp> = HashMap::new();
    let mut note = |endpoint: &EndpointName, variant: &VariantName, at: Timestamp| {
        if at > now {
            let entry = latest.entry((endpoint.clone(), variant.clone())).or_insert(at);
            *entry = (*entry).max(at);
        }
    };
    for history in &mut restored.histories {
        let (endpoint, variant) = (history.endpoint.clone(), history.variant.clone());
        each_time(history, &mut |at| note(&endpoint, &variant, *at));
    }
    for verdict in &mut restored.verdicts {
        let (endpoint, variant) = (verdict.endpoint.clone(), verdict.variant.clone());
        each_verdict_time(verdict, &mut |at| note(&endpoint, &variant, *at));
    }
    let mut moved = Moved::default();
    let back = |endpoint: &EndpointName, variant: &VariantName| {
        latest.get(&(endpoint.clone(), variant.clone())).map(|at| at.since(now))
    };
    for history in &mut restored.histories {
        if let Some(by) = back(&history.endpoint, &history.variant) {
            each_time(history, &mut |at| *at = at.earlier_by(by));
            moved.records.push(Record::History(history.clone()));
        }
    }
    for verdict in &mut restored.verdicts {
        if let Some(by) = back(&verdict.endpoint, &verdict.variant) {
            each_verdict_time(verdict, &mut |at| *at = at.earlier_by(by));
            moved.records.push(Record::Verdict(verdict.clone()));
        }
    }
    // A ban is no earlier than the ones before it; what lies in the future is of now.
    for entry in &mut restored.ledger {
        each_ledger_time(entry, &mut |at| *at = (*at).min(now));
    }
    for record in &mut restored.hours {
        record.since = record.since.min(now);
    }
    let furthest = latest.values().map(|at| at.since(now)).max();
    moved.furthest = furthest.filter(|by| *by >= WORTH_TELLING);
    moved
}

/// Moves every time of `restored` by `milliseconds`.
pub(super) fn shift_all(restored: &mut Restored, milliseconds: i64) {
    if milliseconds == 0 {
        return;
    }
    let mut shift = |at: &mut Timestamp| *at = at.shifted(milliseconds);
    for history in &mut restored.histories {
        each_time(history, &mut shift);
    }
    for verdict in &mut restored.verdicts {
        each_verdict_time(verdict, &mut shift);
    }
    for entry in &mut restored.ledger {
        each_ledger_time(entry, &mut shift);
    }
    for record in &mut restored.hours {
        shift(&mut record.since);
        record.hour = hour_rows::shifted(record.hour, milliseconds);
    }
}

fn each_time(history: &mut HistoryRecord, visit: &mut impl FnMut(&mut Timestamp)) {
    for seen in &mut history.parts.seen {
        visit(&mut seen.first_seen);
        visit(&mut seen.last_seen);
        seen.superseded.iter_mut().for_each(&mut *visit);
    }
    history.parts.returns.iter_mut().for_each(visit);
}

fn each_ledger_time(entry: &mut Entry, visit: &mut impl FnMut(&mut Timestamp)) {
    visit(&mut entry.issued);
    for standing in entry.nodes.values_mut() {
        match standing {
            Standing::Taken { at } | Standing::Rejected { at, .. } | Standing::Void { at, .. } => {
                visit(at);
            }
            Standing::Pending(_) => {}
        }
    }
}

fn each_verdict_time(record: &mut VerdictRecord, visit: &mut impl FnMut(&mut Timestamp)) {
    let verdict = &mut record.verdict;
    visit(&mut verdict.since);
    verdict.stale_since.iter_mut().for_each(&mut *visit);
    verdict.mismatch.iter_mut().for_each(|run| visit(&mut run.since));
    verdict.last_probe.iter_mut().for_each(&mut *visit);
    verdict.last_fresh.iter_mut().for_each(&mut *visit);
    visit(&mut record.recorded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mark, NodeName, Version};
    use crate::verdict::{HistoryParts, Mismatch, Seen, State, Verdict};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn version() -> Version {
        Version { status: 200, mark: Mark::Status }
    }

    fn history(endpoint: &str, superseded: u64, last_seen: u64) -> HistoryRecord {
        let seen = |superseded, last_seen| Seen {
            version: version(),
            first_seen: at(1),
            last_seen: at(last_seen),
            superseded,
        };
        HistoryRecord {
            endpoint: EndpointName::new(endpoint).unwrap(),
            variant: VariantName::default(),
            definition: 1,
            parts: HistoryParts {
                seen: vec![seen(Some(at(superseded)), 5), seen(None, last_seen)],
                returns: vec![at(2)],
            },
        }
    }

    fn verdict(endpoint: &str, stale_since: u64, recorded: u64) -> VerdictRecord {
        VerdictRecord {
            endpoint: EndpointName::new(endpoint).unwrap(),
            variant: VariantName::default(),
            node: NodeName::new("n").unwrap(),
            definition: 1,
            verdict: Verdict {
                state: State::Stale,
                since: at(stale_since + 60),
                stale_since: Some(at(stale_since)),
                mismatch: Some(Mismatch { since: at(stale_since), version: version(), changes: 0 }),
                last_probe: Some(at(recorded)),
                last_fresh: Some(at(stale_since - 1)),
                failures: 0,
            },
            recorded: at(recorded),
        }
    }

    #[test]
    fn a_clock_that_runs_on_moves_nothing() {
        let mut restored = Restored {
            histories: vec![history("a", 6_000, 9_000)],
            verdicts: vec![verdict("a", 6_000, 9_000)],
            ledger: vec![],
            hours: vec![],
        };
        let before = restored.clone();
        let moved = bring_to_line(&mut restored, at(9_000), 0);
        assert_eq!(restored, before);
        assert!(moved.records.is_empty() && moved.furthest.is_none());
    }

    #[test]
    fn staleness_is_not_less_than_it_was_when_the_clock_went_back() {
        // "a" was stale for 3,000 s when it was recorded at 9,000; the clock says 4,000 now.
        let mut restored = Restored {
            histories: vec![history("a", 6_000, 8_990), history("b", 100, 3_000)],
            verdicts: vec![verdict("a", 6_000, 9_000), verdict("b", 100, 3_000)],
            ledger: vec![],
            hours: vec![],
        };
        let untouched = (restored.histories[1].clone(), restored.verdicts[1].clone());
        let moved = bring_to_line(&mut restored, at(4_000), 0);
        let verdict = &restored.verdicts[0].verdict;
        assert_eq!(verdict.staleness(at(4_000)), Some(Duration::from_secs(3_000)));
        assert_eq!(restored.verdicts[0].recorded, at(4_000));
        assert_eq!(verdict.last_fresh, Some(at(999)));
        let seen = &restored.histories[0].parts.seen;
        assert_eq!(seen[0].superseded, Some(at(1_000)), "moved by as much as the verdict");
        assert_eq!(seen[0].first_seen, Timestamp::EPOCH);
        assert_eq!((restored.histories[1].clone(), restored.verdicts[1].clone()), untouched);
        assert_eq!(moved.records.len(), 2);
        assert_eq!(moved.furthest, Some(Duration::from_secs(5_000)));
    }

    #[test]
    fn the_offset_of_the_wall_clock_is_taken_off() {
        let verdicts = vec![verdict("a", 700, 800)];
        let mut restored = Restored { verdicts, ..Restored::default() };
        bring_to_line(&mut restored, at(600), 300_000);
        assert_eq!(restored.verdicts[0].verdict.stale_since, Some(at(400)));
        assert_eq!(restored.verdicts[0].recorded, at(500));
    }
}
