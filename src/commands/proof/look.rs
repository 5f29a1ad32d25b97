//! Looks at everything at all nodes, before anything is done.

use std::io;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;

use super::super::fleet::{End, Outcome, Progress, Work, on_each};
use super::plan::{Plan, Watch};
use super::witness::Peers;
use crate::model::NodeName;
use crate::probe::Destination;
use crate::verdict::proof::{Before, Serving};
use crate::verdict::{Failure, Fault, FetchRequest, Observation, Phase};

/// What was there of one watch at one node.
#[derive(Debug)]
pub(in super::super) struct Seen {
    /// Its place in the plan.
    pub(in super::super) watch: usize,
    pub(in super::super) before: Before,
    /// The last answer, if there was time for one.
    pub(in super::super) observation: Option<Observation>,
}

/// Looks at every watch at each node that serves it, for so long at most.
///
/// # Errors
/// When the runtime or the signal handler cannot be set up.
pub(in super::super) fn look_at_all(
    plan: &Plan,
    peers: &Peers,
    names: &[NodeName],
    limit: Duration,
) -> io::Result<Outcome<Vec<Seen>>> {
    let look = |(node, name)| Look {
        plan,
        node: peers.node(node),
        watches: plan.watches_of(name),
        seen: Vec::new(),
    };
    let works: Vec<_> = names.iter().enumerate().map(look).collect();
    let progress = Progress::new(names.to_vec(), "look", "seen", works.len());
    on_each(works, limit, &progress, |_| {})
}

/// One node, before.
struct Look<'a> {
    plan: &'a Plan,
    node: Option<&'a Destination>,
    watches: Vec<usize>,
    seen: Vec<Seen>,
}

impl Work for Look<'_> {
    type Report = Vec<Seen>;

    async fn run(&mut self) {
        let (plan, node) = (self.plan, self.node);
        let looks = self.watches.iter().filter_map(|&at| {
            let (watch, node) = (plan.watches.get(at)?, node?);
            Some(async move {
                let (before, observation) = looked_at(watch, node).await;
                Seen { watch: at, before, observation: Some(observation) }
            })
        });
        let mut looks: FuturesUnordered<_> = looks.collect();
        while let Some(seen) = looks.next().await {
            self.seen.push(seen);
        }
    }

    fn report(&mut self, _: Option<End>) -> Self::Report {
        let mut seen = std::mem::take(&mut self.seen);
        for &watch in &self.watches {
            if !seen.iter().any(|seen| seen.watch == watch) {
                let before = Before::Unseen(Fault::Failure(Failure::Timeout(Phase::FirstByte)));
                seen.push(Seen { watch, before, observation: None });
            }
        }
        seen.sort_unstable_by_key(|seen| seen.watch);
        seen
    }
}

/// Fetches before the invalidation: what was there, and the answer itself.
async fn looked_at(watch: &Watch, node: &Destination) -> (Before, Observation) {
    let request = FetchRequest::with_headers(watch.target.clone());
    let mut observation = node.fetch(&request).await;
    let mut serving = Serving::of(&observation);
    let wait = Before::wants_older(&serving);
    if Before::wants_another(&serving) || wait.is_some() {
        sleep(wait.unwrap_or_default()).await;
        observation = node.fetch(&request).await;
        serving = Serving::of(&observation);
    }
    (Before::of(serving), observation)
}
