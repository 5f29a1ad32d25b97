//! Rounds that an invalidation asks for, beside the planned ones: at once when a node took it, and
//! 1, 5, 15 and 60 s later, until the endpoint is fresh at all its nodes.
//!
//! They change when something is found out, and nothing else. Requests to the origin go through
//! its budget like all others, and a stream of invalidations makes no more than a round a second of
//! a watch. What is judged by the number of rounds (an origin that has held still, a second
//! failure in a row) still takes the time that planned rounds take.

use std::time::Duration;

use super::Engine;
use super::explain::is_old;
use super::watch::Watch;
use crate::model::{NodeName, Timestamp};

/// How long after the invalidation was taken the rounds begin.
const STEPS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// From the beginning of one round to that of the next at least.
const APART: Duration = Duration::from_secs(1);

/// The hurried rounds of one watch.
#[derive(Debug, Default)]
pub(super) struct Hurry {
    asked: Option<Asked>,
    /// When the last round began, and which moment that was.
    began: Option<(Timestamp, u64)>,
    /// When the next planned round is due.
    planned: Timestamp,
    /// When a round last counted as one of the planned ones.
    counted: Timestamp,
}

#[derive(Debug)]
struct Asked {
    since: Timestamp,
    moment: u64,
    step: usize,
}

/// A place where an invalidation was taken and that was not seen to be fresh since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Invalidated {
    pub(super) received: Timestamp,
    /// When it was taken, as a moment.
    pub(super) taken: u64,
}

impl Engine {
    /// The next moment: what is compared with others to tell what was before what.
    pub(super) const fn moment(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A node took an invalidation that was received then: this watch is looked at.
    pub(super) fn hurry(
        &mut self,
        at: usize,
        node: &NodeName,
        received: Timestamp,
        now: Timestamp,
    ) {
        let moment = self.moment();
        let Some(watch) = self.watch(at) else { return };
        let Some(place) = watch.places.iter_mut().find(|place| place.node == *node) else { return };
        // Under a stream of them, the first that has not shown yet is the one that counts.
        place.invalidated.get_or_insert(Invalidated { received, taken: moment });
        watch.hurry.asked = Some(Asked { since: now, moment, step: 0 });
        if watch.round.is_none() {
            let due = watch.hurry.earliest(now);
            if due < watch.due {
                self.set_round_timer(at, due);
            }
        }
    }
}

impl Hurry {
    /// A round begins.
    pub(super) const fn round_begins(&mut self, moment: u64, now: Timestamp) {
        self.began = Some((now, moment));
    }

    /// The moment at which the round began that is under way, or was last.
    pub(super) fn began(&self) -> Option<u64> {
        self.began.map(|(_, moment)| moment)
    }

    /// Whether the round that ends now was not hurried, by its own or in place of planned ones: so
    /// long after the last that counted that it would be slow for a planned one.
    pub(super) fn counts(&mut self, pace: Duration, now: Timestamp) -> bool {
        let was_planned = self.began.is_none_or(|(at, _)| at >= self.planned);
        let counts = was_planned || now.since(self.counted) >= pace;
        if counts {
            self.counted = now;
        }
        counts
    }

    /// Whether the round that ended now counted.
    pub(super) fn has_counted(&self, now: Timestamp) -> bool {
        self.counted == now
    }

    /// The next planned round is due then.
    pub(super) const fn plan(&mut self, due: Timestamp) {
        self.planned = due;
    }

    fn earliest(&self, now: Timestamp) -> Timestamp {
        self.began.map_or(now, |(at, _)| now.max(at + APART))
    }
}

impl Watch {
    /// When the next hurried round is due, after one has ended.
    pub(super) fn next_hurried(&mut self, now: Timestamp) -> Option<Timestamp> {
        let began = self.hurry.began();
        let is_fresh = self.places.iter().all(|place| place.fresh_as_of == began);
        let earliest = self.hurry.earliest(now);
        let asked = self.hurry.asked.as_mut()?;
        if began > Some(asked.moment) {
            asked.step = if is_fresh { STEPS.len() } else { asked.step + 1 };
        }
        if let Some(after) = STEPS.get(asked.step) {
            return Some(earliest.max(asked.since + *after));
        }
        self.hurry.asked = None;
        // Where nothing can be told, nothing is waited for; what is old may yet become fresh.
        for place in &mut self.places {
            place.invalidated.take_if(|_| !is_old(place.verdict.state));
        }
        None
    }
}
