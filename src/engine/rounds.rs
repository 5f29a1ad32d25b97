//! How the rounds of all watches go: who is asked next, within which budget, and what an end of a
//! round leads to.

use super::remedy::Patient;
use super::round::{self, Round, Step};
use super::watch::{Outcome, Watch};
use super::{Engine, FetchId, Output, Pending, Record, Side, Timer};
use crate::model::{OriginName, Timestamp};
use crate::verdict::{Change, Fault, FetchRequest, Observation, Sight};

impl Engine {
    pub(super) fn begin_round(&mut self, at: usize, now: Timestamp) {
        let moment = self.moment();
        let Some(watch) = self.watch(at) else { return };
        watch.hurry.round_begins(moment, now);
        let (round, step) = Round::begin(watch.places.len());
        watch.round = Some(round);
        self.take_step(at, step, now);
    }

    fn take_step(&mut self, at: usize, step: Step, now: Timestamp) {
        match step {
            Step::Wait => {}
            Step::AskOrigin | Step::ConfirmOrigin => self.ask_origin(at, now),
            Step::AskNodes(places) => {
                let Some(watch) = self.watch(at) else { return };
                let due = watch.due.max(now);
                let requests: Vec<_> = places
                    .into_iter()
                    .filter_map(|place| {
                        let node = watch.places.get(place)?.node.clone();
                        Some((place, node, watch.node_request()))
                    })
                    .collect();
                for (place, node, request) in requests {
                    self.fetch(at, Some(place), Side::Cache(node), request, due, now);
                }
            }
            Step::Finished(finding) => self.finish_round(at, finding, now),
        }
    }

    /// Asks the origin now if its budget allows, else as soon as it does.
    fn ask_origin(&mut self, at: usize, now: Timestamp) {
        let Some(watch) = self.watch(at) else { return };
        let confirming = watch.round.as_ref().is_some_and(Round::is_confirming);
        let name = watch.plan.origin.clone();
        let Some(budget) = self.origins.get_mut(&name) else { return };
        // Whoever confirms goes first: a node's answer is waiting for it.
        if confirming {
            budget.waiting.push_front(at);
        } else {
            budget.waiting.push_back(at);
        }
        self.serve_waiting(&name, now);
    }

    pub(super) fn serve_waiting(&mut self, name: &OriginName, now: Timestamp) {
        loop {
            let Some(budget) = self.origins.get_mut(name) else { return };
            let Some(at) = budget.waiting.front().copied() else { return };
            if budget.is_paused(now) {
                budget.waiting.pop_front();
                self.origin_sight(at, Sight::Failed(Fault::Paused), now);
                continue;
            }
            if let Err(ready) = budget.take(now) {
                if !budget.timer_set {
                    budget.timer_set = true;
                    self.set_timer(ready, Timer::Budget(name.clone()));
                }
                return;
            }
            budget.waiting.pop_front();
            let Some(watch) = self.watch(at) else { continue };
            let confirming = watch.round.as_ref().is_some_and(Round::is_confirming);
            let request = if confirming { watch.confirmation() } else { watch.origin_request(now) };
            let due = if confirming { now } else { watch.due };
            self.fetch(at, None, Side::Origin(name.clone()), request, due, now);
        }
    }

    fn fetch(
        &mut self,
        watch: usize,
        place: Option<usize>,
        side: Side,
        request: FetchRequest,
        due: Timestamp,
        now: Timestamp,
    ) {
        self.counter += 1;
        let id = FetchId(self.counter);
        let ends = now + request.target.timeout;
        self.pending.insert(id, Pending { watch, place, ends });
        self.outputs.push_back(Output::Fetch { id, side, request, due });
    }

    pub(super) fn fetched(&mut self, id: FetchId, observation: &Observation, now: Timestamp) {
        let Some(Pending { watch: at, place, .. }) = self.pending.remove(&id) else { return };
        let Some(watch) = self.watch(at) else { return };
        if let Some(place) = place {
            let (sight, is_old) = watch.node_seen(place, observation, now);
            let Some(round) = &mut watch.round else { return };
            let step = round.node(place, sight, is_old);
            self.take_step(at, step, now);
            return;
        }
        let (sight, change) = watch.origin_seen(observation);
        if change != Change::None {
            let record = Record::History(watch.history_record());
            self.outputs.push_back(Output::Record(record));
        }
        self.note_origin(at, observation, now);
        self.origin_sight(at, sight, now);
    }

    /// Lets the origin's budget know how it answered.
    fn note_origin(&mut self, at: usize, observation: &Observation, now: Timestamp) {
        let Some(origin) = self.watch(at).map(|watch| watch.plan.origin.clone()) else { return };
        let jitter = self.random.f64();
        let Some(budget) = self.origins.get_mut(&origin) else { return };
        match observation.answer().map(|answer| (answer.status, answer.retry_after)) {
            Some((429, after)) => budget.pause(after, jitter, now),
            Some((503, Some(after))) => budget.pause(Some(after), jitter, now),
            Some(_) => budget.answered(),
            None => {}
        }
    }

    fn origin_sight(&mut self, at: usize, sight: Sight, now: Timestamp) {
        let Some(round) = self.watch(at).and_then(|watch| watch.round.as_mut()) else { return };
        let step = round.origin(sight);
        self.take_step(at, step, now);
    }

    fn finish_round(&mut self, at: usize, finding: round::Finding, now: Timestamp) {
        let (once, jitter) = (self.once, self.random.f64());
        let Some(watch) = self.watch(at) else { return };
        let outcomes = watch.conclude(finding, once, now);
        let (mut outputs, mut patients) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            report(watch, &outcome, now, &mut outputs);
            if outcome.is_surely_stale && !once {
                patients.extend(patient(watch, outcome.place));
            }
        }
        let planned = watch.next_due(jitter, now);
        watch.hurry.plan(planned);
        let due = watch.next_hurried(now).map_or(planned, |due| due.min(planned));
        let mut records = Vec::new();
        for output in &outputs {
            if let Output::BecameFresh { node, after } = output
                && let Some(node) = self.nodes.get_mut(node)
            {
                let stored = node.consistency.showed(&node.name, *after, now);
                records.extend(stored.map(|record| Output::Record(Record::Hour(record))));
            }
        }
        self.outputs.extend(outputs.into_iter().chain(records));
        for patient in patients {
            self.remedies.stale(patient, now);
        }
        self.inquire(at, now);
        self.look_for_proofs(at, now);
        if !once {
            self.set_round_timer(at, due);
        }
    }

    pub(super) fn probe_now(&mut self, now: Timestamp) {
        for at in 0..self.watches.len() {
            let idle = self.watch(at).filter(|watch| watch.round.is_none());
            if let Some(watch) = idle {
                watch.hurry.plan(now);
                self.set_round_timer(at, now);
            }
        }
    }
}

/// What is to be done about a place that is stale, if anything is.
fn patient(watch: &Watch, place: usize) -> Option<Patient> {
    Some(Patient {
        endpoint: watch.plan.endpoint.clone(),
        node: watch.places.get(place)?.node.clone(),
        origin: watch.plan.origin.clone(),
        target: watch.plan.target.clone(),
        ban: watch.plan.remedy.clone()?,
    })
}

fn report(watch: &Watch, outcome: &Outcome, now: Timestamp, outputs: &mut Vec<Output>) {
    let Some(place) = watch.places.get(outcome.place) else { return };
    if let Some(transition) = outcome.transition {
        outputs.push(Output::Changed {
            endpoint: watch.plan.endpoint.clone(),
            variant: watch.plan.variant.clone(),
            node: place.node.clone(),
            transition,
            reason: place.reason.as_ref().map(ToString::to_string),
            cause: place.inquiry.found(place.verdict.state).map(|found| found.cause),
        });
    }
    if let Some(after) = outcome.time_to_fresh {
        outputs.push(Output::BecameFresh { node: place.node.clone(), after });
    }
    if outcome.record {
        outputs.push(Output::Record(Record::Verdict(watch.verdict_record(place, now))));
    }
}
