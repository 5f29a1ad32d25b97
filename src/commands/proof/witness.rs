//! Looks at one URL at one node, before and after.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::plan::{Peer, Plan, Watch};
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::probe::{Destination, Options};
use crate::verdict::proof::{Before, Obstacle, Proof, Prover, Serving, Step};
use crate::verdict::{FetchRequest, Observation, Sight};

/// The servers of a plan, with their connections: good for one runtime.
#[derive(Debug)]
pub(in super::super) struct Peers {
    clock: Clock,
    nodes: Vec<Destination>,
    origins: Vec<Destination>,
    /// What the origin of each watch said last, and when it was asked.
    said: Vec<Mutex<Option<(Timestamp, Sight)>>>,
}

/// What was found out of one watch at one node.
#[derive(Debug)]
pub(in super::super) struct Attested {
    /// Its place in the plan.
    pub(in super::super) watch: usize,
    pub(in super::super) proof: Proof,
    pub(super) before: Option<Serving>,
    pub(super) after: Option<Serving>,
    pub(super) origin: Option<Sight>,
    /// How often was invalidated.
    pub(super) rounds: u32,
    /// From the invalidation to the proof.
    pub(super) took: Duration,
    /// Request headers that the answer varies on and that were not sent: objects under other values
    /// were not looked at.
    pub(super) varies_on: Vec<String>,
    /// Whether the answer says that it is made with ESI.
    pub(super) has_includes: bool,
    /// The `Via` entry of the last cache, of the last answer.
    via: Option<String>,
}

/// One watch at one node, after the invalidation was taken.
#[derive(Debug)]
pub(in super::super) struct Witness {
    watch: usize,
    before: Option<Before>,
    prover: Option<(Prover, Timestamp)>,
    done: Option<(Proof, Duration)>,
    varies_on: Vec<String>,
    has_includes: bool,
    via: Option<String>,
}

impl Peers {
    pub(in super::super) fn new(plan: &Plan) -> Self {
        let clock = Clock::start();
        let destination = |peer: &Peer| {
            let options = Options {
                connections: peer.connections,
                ca_file: peer.ca_file.clone(),
                ..Options::default()
            };
            let address = peer.address.clone();
            Destination::new(address.scheme, address.address, options, clock)
        };
        Self {
            clock,
            nodes: plan.nodes.iter().map(destination).collect(),
            origins: plan.origins.iter().map(destination).collect(),
            said: plan.watches.iter().map(|_| Mutex::new(None)).collect(),
        }
    }

    /// The node at this place.
    pub(in super::super) fn node(&self, node: usize) -> Option<&Destination> {
        self.nodes.get(node)
    }

    pub(in super::super) fn clock(&self) -> Clock {
        self.clock
    }

    /// What the origin of this watch says, asked after `since`: all nodes share an answer that is
    /// late enough for them.
    async fn origin(&self, at: usize, watch: &Watch, since: Timestamp, own: bool) -> Option<Sight> {
        let origin = self.origins.get(watch.origin?)?;
        let mut said = self.said.get(at)?.lock().await;
        if let Some((asked, sight)) = &*said
            && *asked > since
        {
            return Some(sight.clone());
        }
        let mut request = FetchRequest::new(watch.target.clone());
        request.new_connection = own;
        let observation = origin.fetch(&request).await;
        let sight = Sight::from(&observation);
        *said = Some((observation.started, sight.clone()));
        Some(sight)
    }
}

impl Witness {
    /// A witness of this watch, who saw `before`.
    pub(in super::super) fn new(watch: usize, before: Option<Before>) -> Self {
        let (varies_on, has_includes, via) = (Vec::new(), false, None);
        Self { watch, before, prover: None, done: None, varies_on, has_includes, via }
    }

    /// Looks until there is a proof. `again` invalidates once more, and says whether that was taken.
    /// Cancellation safe: what was seen so far counts.
    pub(in super::super) async fn look(
        &mut self,
        plan: &Plan,
        peers: &Peers,
        node: usize,
        mut again: impl AsyncFnMut() -> bool,
    ) {
        let (Some(watch), Some(destination)) = (plan.watches.get(self.watch), peers.node(node))
        else {
            return;
        };
        let Some(before) = self.before.take() else { return };
        let began = peers.clock.now();
        let has_origin = watch.origin.is_some();
        let (prover, mut step) = Prover::begin(before, has_origin, plan.limits, began);
        let prover = &mut self.prover.insert((prover, began)).0;
        loop {
            step = match step {
                Step::Done(proof) => {
                    self.done = Some((proof, peers.clock.now().since(began)));
                    return;
                }
                Step::AskOrigin { since, confirms } => {
                    let sight = peers.origin(self.watch, watch, since, confirms).await;
                    let Some(sight) = sight else { return };
                    prover.origin(sight, peers.clock.now())
                }
                Step::AskNode => {
                    let request = FetchRequest::with_headers(watch.target.clone());
                    let observation = destination.fetch(&request).await;
                    (self.varies_on, self.has_includes) = uncovered(&observation, watch);
                    self.via = via(&observation);
                    prover.node(Serving::of(&observation), peers.clock.now())
                }
                Step::Repeat => {
                    let taken = again().await;
                    prover.repeated(taken, peers.clock.now())
                }
                Step::Pause { until } => {
                    sleep(until.since(peers.clock.now())).await;
                    prover.waited()
                }
            };
        }
    }

    /// What it found out, or had until it was cut short.
    pub(in super::super) fn attest(self, clock: Clock) -> Attested {
        let (prover, began) = self.prover.unzip();
        let took = began.map_or(Duration::ZERO, |began| clock.now().since(began));
        let cut = || prover.as_ref().map_or(Proof::Unprovable(Obstacle::TimeUp), Prover::cut);
        let (proof, took) = self.done.unwrap_or_else(|| (cut(), took));
        let before = prover.as_ref().map(Prover::before).or(self.before.as_ref());
        Attested {
            watch: self.watch,
            proof,
            before: before.and_then(Before::serving).cloned(),
            after: prover.as_ref().and_then(Prover::last).cloned(),
            origin: prover.as_ref().and_then(Prover::last_origin).cloned(),
            rounds: prover.as_ref().map_or(0, Prover::rounds),
            took,
            varies_on: self.varies_on,
            has_includes: self.has_includes,
            via: self.via,
        }
    }
}

impl Attested {
    /// Whether the last answer showed a sign of Varnish.
    pub(in super::super) fn is_varnish(&self) -> bool {
        self.after.as_ref().is_some_and(|after| after.is_varnish)
    }

    /// The `Via` entry of the last cache that the last answer came through.
    pub(in super::super) fn after_via(&self) -> Option<&str> {
        self.via.as_deref()
    }
}

fn via(observation: &Observation) -> Option<String> {
    let headers = observation.answer()?.headers.as_deref()?;
    let last = headers.get_all(http::header::VIA).iter().next_back()?;
    Some(String::from_utf8_lossy(last.as_bytes()).into_owned())
}

/// What the answer says that it is not all of.
fn uncovered(observation: &Observation, watch: &Watch) -> (Vec<String>, bool) {
    let headers = observation.answer().and_then(|answer| answer.headers.as_deref());
    let Some(headers) = headers else { return (Vec::new(), false) };
    let lines = headers.get_all(http::header::VARY).iter().filter_map(|line| line.to_str().ok());
    let mut names: Vec<String> = lines
        .flat_map(|line| line.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "accept-encoding")
        .filter(|name| !watch.target.headers.iter().any(|(sent, _)| sent.as_str() == name))
        .collect();
    names.sort_unstable();
    names.dedup();
    let control = headers.get_all("surrogate-control").iter();
    let has_includes = control.filter_map(|line| line.to_str().ok()).any(|l| l.contains("ESI/"));
    (names, has_includes)
}
