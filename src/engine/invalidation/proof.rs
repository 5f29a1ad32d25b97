//! Whether a node that took an invalidation is fresh now.

use std::collections::BTreeSet;

use super::super::watch::Place;
use super::super::{EndpointName, Engine};
use super::{Open, Progress, Settled, Unprovable};
use crate::model::{NodeName, Timestamp};
use crate::verdict::{Cause, State};

/// How an endpoint's variants stand at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// None of them is watched there.
    Nothing,
    /// All of them were found fresh by rounds that began late enough.
    Fresh,
    /// One of them was not; it is in that state.
    Not(State, Option<Cause>),
}

impl Engine {
    /// The watches of an endpoint, one for each variant.
    pub(super) fn watches_of(&self, endpoint: &EndpointName) -> Vec<usize> {
        let middle = (endpoint.clone(), Default::default());
        let before =
            self.names.range(..&middle).rev().take_while(|((name, _), _)| name == endpoint);
        let after = self.names.range(&middle..).take_while(|((name, _), _)| name == endpoint);
        before.chain(after).map(|(_, at)| *at).collect()
    }

    /// A node took every ban of an invalidation.
    pub(super) fn taken(&mut self, key: u64, node: &NodeName, now: Timestamp) {
        let Some(open) = self.invalidations.open.get(&key) else { return };
        let Some(prove) = open.prove else {
            return self.settle(key, node, Settled::Taken { at: now });
        };
        let since = self.moment();
        if self.found(key, node, since) == Found::Nothing {
            let why = Unprovable::NothingWatched;
            return self.settle(key, node, Settled::Unprovable { why });
        }
        let until = now + prove;
        let Some(open) = self.invalidations.open.get_mut(&key) else { return };
        for endpoint in &open.verify {
            self.invalidations.proving.entry(endpoint.clone()).or_default().insert(key);
        }
        if let Some(progress) = open.nodes.get_mut(node) {
            *progress = Progress::Proving { since, until };
            self.invalidations.deadlines.insert((until, key, node.clone()));
        }
    }

    /// A round of this watch has ended: what waited for it may be proven.
    pub(in super::super) fn look_for_proofs(&mut self, at: usize, now: Timestamp) {
        if self.invalidations.proving.is_empty() {
            return;
        }
        let Some(watch) = self.watches.get(at) else { return };
        let Some(keys) = self.invalidations.proving.get(&watch.plan.endpoint) else { return };
        let nodes: BTreeSet<NodeName> =
            watch.places.iter().map(|place| place.node.clone()).collect();
        let mut waiting = Vec::new();
        for key in keys {
            let Some(open) = self.invalidations.open.get(key) else { continue };
            waiting.extend(
                open.proving()
                    .filter(|(node, _)| nodes.contains(*node))
                    .map(|(node, since)| (*key, node.clone(), since)),
            );
        }
        for (key, node, since) in waiting {
            if self.found(key, &node, since) == Found::Fresh {
                self.forget_deadline(key, &node);
                self.settle(key, &node, Settled::Proven { at: now });
            }
        }
    }

    /// The time for some proofs is up.
    pub(in super::super) fn end_proofs(&mut self, now: Timestamp) {
        while let Some((until, ..)) = self.invalidations.deadlines.first()
            && *until <= now
        {
            let Some((_, key, node)) = self.invalidations.deadlines.pop_first() else { return };
            let progress = self.invalidations.progress(key, &node);
            let Some(Progress::Proving { since, .. }) = progress else { continue };
            let since = *since;
            let settled = match self.found(key, &node, since) {
                Found::Nothing => Settled::Unprovable { why: Unprovable::NothingWatched },
                Found::Fresh => Settled::Proven { at: now },
                Found::Not(state, cause) => Settled::Unproven { state, cause },
            };
            self.settle(key, &node, settled);
        }
    }

    /// When that is.
    pub(in super::super) fn next_proof_ends(&self) -> Option<Timestamp> {
        self.invalidations.deadlines.first().map(|(until, ..)| *until)
    }

    /// There is another plan: what was to be proven may not be watched any more.
    pub(super) fn replan_proofs(&mut self, now: Timestamp) {
        let mut waiting = Vec::new();
        for (_, key, node) in &self.invalidations.deadlines {
            let Some(open) = self.invalidations.open.get(key) else { continue };
            let since = open.proving().find(|(name, _)| *name == node).map(|(_, since)| since);
            waiting.extend(since.map(|since| (*key, node.clone(), since)));
        }
        for (key, node, since) in waiting {
            if self.found(key, &node, since) == Found::Nothing {
                self.forget_deadline(key, &node);
                let why = Unprovable::NothingWatched;
                self.settle(key, &node, Settled::Unprovable { why });
                continue;
            }
            // Rounds under way were let go.
            self.look_after(key, &node, now);
        }
    }

    pub(super) fn forget_deadline(&mut self, key: u64, node: &NodeName) {
        let progress = self.invalidations.progress(key, node);
        if let Some(Progress::Proving { until, .. }) = progress {
            let deadline = (*until, key, node.clone());
            self.invalidations.deadlines.remove(&deadline);
        }
    }

    /// How the endpoints of an invalidation stand at a node, by rounds that began after `since`.
    fn found(&self, key: u64, node: &NodeName, since: u64) -> Found {
        let Some(open) = self.invalidations.open.get(&key) else { return Found::Nothing };
        let mut found = Found::Nothing;
        for endpoint in &open.verify {
            for at in self.watches_of(endpoint) {
                let places = self.watches.get(at).map(|watch| &watch.places);
                let place = places.and_then(|all| all.iter().find(|place| place.node == *node));
                if let Some(place) = place {
                    found = found.worse(Found::of(place, since));
                }
            }
        }
        found
    }
}

impl Open {
    /// The nodes that are to be proven, and since when.
    fn proving(&self) -> impl Iterator<Item = (&NodeName, u64)> {
        self.nodes.iter().filter_map(|(node, progress)| match progress {
            Progress::Proving { since, .. } => Some((node, *since)),
            Progress::Waiting(_) | Progress::Settled(_) => None,
        })
    }
}

impl Found {
    fn of(place: &Place, since: u64) -> Self {
        if place.fresh_as_of.is_some_and(|began| began > since) {
            return Self::Fresh;
        }
        let state = place.verdict.state;
        Self::Not(state, place.inquiry.found(state).map(|found| found.cause))
    }

    fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Fresh => 1,
            Self::Not(State::Fresh, _) => 2,
            Self::Not(State::Unknown, _) => 3,
            Self::Not(State::OriginDown, _) => 4,
            Self::Not(State::Unverifiable, _) => 5,
            Self::Not(State::CacheDown, _) => 6,
            Self::Not(State::Lagging, _) => 7,
            Self::Not(State::Stale, _) => 8,
        }
    }
}
