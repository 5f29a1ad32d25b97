//! What surrounds a ban that is to be proven: a look before it, the question whether it can match
//! at all, and a look after it.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::Exit;
use super::super::proof::{Attested, Named, Peers, Plan, Seen, Witness, look_at_all};
use super::super::target::Chosen;
use super::Arguments;
use super::source::{Bans, headers_for};
use crate::ban::BanHeaders;
use crate::ban::matching::{Judgement, Matcher, Object, Request, Seconds, Times, Vantage};
use crate::model::NodeName;
use crate::probe::Destination;
use crate::verdict::proof::{Before, Obstacle, Proof};
use crate::verdict::{FetchRequest, Observation};

/// What is to be proven, and what was there before the ban.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) plan: Plan,
    /// Of each node, of each watch that it serves.
    before: Vec<Vec<Looked>>,
}

/// One watch at one node, before the ban.
#[derive(Debug)]
struct Looked {
    watch: usize,
    before: Before,
    /// The bans that may match it.
    bans: Vec<usize>,
}

/// An object that none of the bans can match.
#[derive(Debug)]
pub(super) struct Unmatched {
    pub(super) node: NodeName,
    pub(super) title: String,
    /// The condition, what it wants and what was seen.
    pub(super) reason: String,
}

/// The proofs of one node, on their way.
#[derive(Debug)]
pub(super) struct NodeProofs<'a> {
    verification: &'a Verification,
    peers: &'a Peers,
    node: usize,
    witnesses: Vec<(Witness, &'a [usize])>,
}

/// Looks at everything that is to be proven, at all nodes.
///
/// # Errors
/// When it cannot be done at all; after it was said why.
pub(super) fn look(
    plan: Plan,
    chosen: &Chosen,
    bans: &Bans,
    arguments: &Arguments,
) -> io::Result<(Verification, Vec<Unmatched>, bool)> {
    let total = arguments.timeout;
    let peers = Peers::new(&plan);
    let names: Vec<_> = chosen.nodes.iter().map(|node| node.target.node.clone()).collect();
    // A node that does not answer must not use up the time of the bans.
    let outcome = look_at_all(&plan, &peers, &names, total / 2)?;
    let matchers: Vec<Option<Matcher>> = bans
        .bans
        .iter()
        .map(|ban| ban.expression.as_ref().map(|expression| Matcher::new(expression, None)))
        .collect();
    let mut unmatched = Vec::new();
    let mut before = Vec::new();
    for (node, seen) in outcome.reports.into_iter().enumerate() {
        let (Some(name), Some(destination)) = (names.get(node), peers.node(node)) else { continue };
        let mut looked = Vec::new();
        for Seen { watch, before, observation } in seen {
            let Some(target) = plan.watches.get(watch) else { continue };
            let request = FetchRequest::new(target.target.clone());
            let headers = headers_for(arguments, chosen.config.as_ref(), &target.target.url);
            let seen = (observation.as_ref(), headers.as_ref());
            let judged = judge(&matchers, destination, &request, seen, total);
            let bans = match judged {
                Ok(bans) => bans,
                Err(reason) => {
                    let (node, title) = (name.clone(), target.title());
                    unmatched.push(Unmatched { node, title, reason });
                    (0..matchers.len()).collect()
                }
            };
            looked.push(Looked { watch, before, bans });
        }
        before.push(looked);
    }
    Ok((Verification { plan, before }, unmatched, outcome.interrupted))
}

/// The bans that may match what was seen and what the VCL hides of it, or why none can.
fn judge(
    matchers: &[Option<Matcher>],
    node: &Destination,
    request: &FetchRequest,
    (observation, hidden): (Option<&Observation>, Option<&BanHeaders>),
    until_ban: Duration,
) -> Result<Vec<usize>, String> {
    let all = || (0..matchers.len()).collect();
    let Some(answer) = observation.and_then(Observation::answer) else { return Ok(all()) };
    let (Some(sent), Some(received)) = (node.headers_of(request), answer.headers.as_deref()) else {
        return Ok(all());
    };
    let stored = hidden.map(|hidden| hidden.stored_with(received, &request.target.url));
    let url = request.target.url.path_and_query().as_bytes();
    let request = Request { url, headers: &sent, vantage: Vantage::Client };
    let age = answer.cache.age.map(|age| Seconds::from_age(age, until_ban));
    let times = Times { age, ..Times::default() };
    let status = answer.status;
    let object = Object {
        status,
        headers: stored.as_ref().unwrap_or(received),
        vantage: Vantage::Client,
        times,
    };
    let mut may = Vec::new();
    let mut reason = None;
    for (at, matcher) in matchers.iter().enumerate() {
        match matcher.as_ref().map(|matcher| matcher.judge(&request, &object)) {
            Some(Judgement::Misses { condition }) => {
                reason = reason.or_else(|| Some(condition.to_string()));
            }
            Some(Judgement::Matches | Judgement::Unknown { .. }) | None => may.push(at),
        }
    }
    match reason {
        Some(reason) if may.is_empty() => Err(reason),
        _ => Ok(may),
    }
}

impl Verification {
    /// The proofs of the node at this place, not begun yet.
    pub(super) fn of_node<'a>(&'a self, peers: &'a Peers, node: usize) -> NodeProofs<'a> {
        let looked = self.before.get(node).map(Vec::as_slice).unwrap_or_default();
        let witnesses = looked.iter().map(|looked| {
            (Witness::new(looked.watch, Some(looked.before.clone())), looked.bans.as_slice())
        });
        let witnesses = witnesses.collect();
        NodeProofs { verification: self, peers, node, witnesses }
    }
}

impl NodeProofs<'_> {
    /// Looks at everything until it is proven. `again` sends the bans with these numbers once more.
    pub(super) async fn prove(&mut self, again: impl AsyncFn(&[usize]) -> bool) {
        let Self { verification, peers, node, witnesses, .. } = self;
        let again = &again;
        let looks = witnesses.iter_mut().map(|(witness, bans)| {
            let bans: &[usize] = bans;
            witness.look(&verification.plan, peers, *node, async move || again(bans).await)
        });
        join_all(looks).await;
    }

    /// What was found out, or had been until it was cut short. `restarted` says that the cache
    /// process is another one than before the first ban.
    pub(super) fn attest(self, restarted: bool) -> Vec<Attested> {
        let clock = self.peers.clock();
        let attest = |(witness, _): (Witness, _)| {
            let mut attested = witness.attest(clock);
            if restarted {
                attested.proof = Proof::Unprovable(Obstacle::Restarted);
            }
            attested
        };
        self.witnesses.into_iter().map(attest).collect()
    }
}

impl Arguments {
    /// What is to be proven, if anything is.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was said what is wrong.
    pub(super) fn plan(&self, chosen: &Chosen) -> Result<Option<Plan>, Exit> {
        let named = Named { urls: &self.verify, endpoints: &self.verify_endpoint };
        if named.urls.is_empty() && named.endpoints.is_empty() {
            if self.evidence.is_given() {
                super::complain(
                    "--node-http, --origin and --fetch-header go with --verify or \
                     --verify-endpoint",
                );
                return Err(Exit::Usage);
            }
            return Ok(None);
        }
        let names: Vec<_> = chosen.nodes.iter().map(|node| node.target.node.clone()).collect();
        Plan::new(&self.evidence, named, chosen.config.as_ref(), &names).map(Some)
    }
}
