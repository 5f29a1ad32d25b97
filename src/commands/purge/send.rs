//! Purges on their way to the nodes, and what the nodes say to them.

use std::fmt;
use std::io;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::{HeaderName, HeaderValue, Method};

use super::super::Exit;
use super::super::fleet::{End, Outcome, Progress, Work, on_each};
use super::super::output::Untrusted;
use super::super::proof::{self, Attested, Peers, Plan, Seen, Witness};
use crate::model::{NodeName, format_duration};
use crate::probe::Reply;
use crate::verdict::Failure;
use crate::verdict::proof::Proof;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) plan: &'a Plan,
    pub(super) method: &'a Method,
    /// Sent with each purge, besides the headers of the fetches.
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
}

/// How it went at one node.
#[derive(Debug)]
pub(super) struct NodeReport {
    pub(super) node: NodeName,
    /// Where it serves HTTP, as text.
    pub(super) address: String,
    /// One for each watch that it serves.
    pub(super) purges: Vec<Purge>,
}

/// How one purge went.
#[derive(Debug)]
pub(super) struct Purge {
    /// What it was for, in the plan.
    pub(super) watch: usize,
    pub(super) answer: Said,
    /// What was found out, where the purge was not refused.
    pub(super) proof: Option<Attested>,
}

/// What was answered to a purge.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// 2xx, 404 or 410: the last two are what some VCLs say when there was nothing to purge.
    Accepted(Reply),
    /// Another status: not purged.
    Refused(Reply),
    /// No answer.
    Failed(Failure),
    /// The limit on the whole, or Ctrl-C, came first.
    Ended(End),
}

/// Sends the purges to all nodes and proves them. `looked` is what was there before, of each node.
///
/// # Errors
/// When the runtime or the signal handler cannot be set up.
pub(super) fn send(
    order: &Order<'_>,
    names: &[NodeName],
    looked: Vec<Vec<Seen>>,
    limit: Duration,
    progress: &Progress,
    on_done: impl FnMut(&NodeReport),
) -> io::Result<Outcome<NodeReport>> {
    let peers = Peers::new(order.plan);
    let errands = looked.into_iter().zip(names).enumerate().map(|(at, (seen, node))| Errand {
        order: *order,
        peers: &peers,
        progress,
        at,
        node,
        open: seen.into_iter().map(Open::new).collect(),
    });
    on_each(errands.collect(), limit, progress, on_done)
}

/// The purges of one node.
struct Errand<'a> {
    order: Order<'a>,
    peers: &'a Peers,
    progress: &'a Progress,
    at: usize,
    node: &'a NodeName,
    open: Vec<Open>,
}

/// One purge, under way.
struct Open {
    watch: usize,
    said: Option<Said>,
    witness: Witness,
}

impl Open {
    fn new(seen: Seen) -> Self {
        let Seen { watch, before, .. } = seen;
        Self { watch, said: None, witness: Witness::new(watch, Some(before)) }
    }
}

impl Work for Errand<'_> {
    type Report = NodeReport;

    async fn run(&mut self) {
        let Self { order, peers, progress, at, open, .. } = self;
        let mut running: FuturesUnordered<_> =
            open.iter_mut().map(|open| carry_out(*order, peers, *at, open)).collect();
        while running.next().await.is_some() {
            progress.advance();
        }
    }

    fn report(&mut self, end: Option<End>) -> NodeReport {
        let clock = self.peers.clock();
        let ended = || Said::Ended(end.unwrap_or(End::Interrupt));
        let purges = std::mem::take(&mut self.open).into_iter().map(|open| {
            let answer = open.said.unwrap_or_else(ended);
            let accepted = matches!(answer, Said::Accepted(_));
            let proof = accepted.then(|| open.witness.attest(clock));
            Purge { watch: open.watch, answer, proof }
        });
        let purges = purges.collect();
        let address = self.order.plan.nodes.get(self.at).map(|node| node.address.to_string());
        NodeReport { node: self.node.clone(), address: address.unwrap_or_default(), purges }
    }
}

async fn carry_out(order: Order<'_>, peers: &Peers, at: usize, open: &mut Open) {
    let said = purge(order, peers, at, open.watch).await;
    let accepted = matches!(said, Said::Accepted(_));
    open.said = Some(said);
    if accepted {
        let watch = open.watch;
        let again = async || matches!(purge(order, peers, at, watch).await, Said::Accepted(_));
        open.witness.look(order.plan, peers, at, again).await;
    }
}

async fn purge(order: Order<'_>, peers: &Peers, at: usize, watch: usize) -> Said {
    let (Some(node), Some(watch)) = (peers.node(at), order.plan.watches.get(watch)) else {
        return Said::Failed(Failure::Unreachable);
    };
    match node.command(order.method, &watch.target, order.headers).await {
        Err(failure) => Said::Failed(failure),
        Ok(reply) => match reply.status {
            200..=299 | 404 | 410 => Said::Accepted(reply),
            _ => Said::Refused(reply),
        },
    }
}

impl NodeReport {
    /// The exit status that this node alone would give.
    pub(super) fn exit(&self) -> Exit {
        Exit::of_nodes(self.purges.iter().map(Purge::exit))
    }
}

impl Purge {
    fn exit(&self) -> Exit {
        let proven = self.proof.as_ref().map_or(Exit::Done, |proof| proof::exit(&proof.proof));
        match &self.answer {
            Said::Accepted(_) => proven,
            Said::Refused(_) => Exit::Rejected,
            Said::Failed(_) | Said::Ended(End::Limit(_)) => Exit::Unreachable,
            Said::Ended(End::Interrupt) => Exit::Interrupted,
        }
    }

    /// What the answer to the purge lets suspect beside the proof, where that is no good one.
    pub(super) fn suspicion(&self) -> Option<String> {
        let (Said::Accepted(reply), Some(attested)) = (&self.answer, &self.proof) else {
            return None;
        };
        if proof::exit(&attested.proof) == Exit::Done {
            return None;
        }
        let node = attested.after_via();
        if !reply.cache.is_varnish && attested.is_varnish() {
            return Some(format!(
                "the {} to the purge shows no sign of Varnish, and the fetches do: most likely \
                 the VCL does not know the method and handed it on to the origin (the built-in \
                 VCL pipes PURGE), or else something in front of the node answered it",
                reply.status
            ));
        }
        match (&reply.via, node) {
            (Some(purged), Some(served)) if purged.as_str() != served => Some(format!(
                "the purge was answered by way of {}, and the fetch by way of {}: are these two \
                 nodes behind one address?",
                Untrusted(purged),
                Untrusted(served)
            )),
            _ if !matches!(attested.proof, Proof::Survived(_)) => None,
            _ => Some(format!(
                "the VCL answered the purge with {}, which says nothing: does it `return (purge)` \
                 for this method, host and URL?",
                Said::status(reply)
            )),
        }
    }
}

impl Said {
    /// A name of a closed set for programs.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "unreachable",
            Self::Ended(End::Limit(_)) => "deadline",
            Self::Ended(End::Interrupt) => "interrupted",
        }
    }

    pub(super) fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Accepted(reply) | Self::Refused(reply) => Some(reply),
            Self::Failed(_) | Self::Ended(_) => None,
        }
    }

    /// `200 Purged`
    pub(super) fn status(reply: &Reply) -> String {
        match &reply.phrase {
            Some(phrase) if !phrase.is_empty() => {
                format!("{} {}", reply.status, Untrusted(phrase))
            }
            _ => reply.status.to_string(),
        }
    }
}

/// What it means, in one line.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reply = match self {
            Self::Accepted(reply) => return write!(f, "answered with {}", Self::status(reply)),
            Self::Failed(failure) => return write!(f, "not purged: {failure}"),
            Self::Ended(End::Limit(limit)) => {
                let limit = format_duration(*limit);
                return write!(f, "no answer when the limit of {limit} was reached");
            }
            Self::Ended(End::Interrupt) => return f.write_str("interrupted before the answer"),
            Self::Refused(reply) => reply,
        };
        write!(f, "not purged: refused with {}", Self::status(reply))?;
        let whose = if reply.cache.is_varnish {
            ""
        } else {
            "; the answer shows no sign of Varnish: the VCL handed the purge on to the origin, or \
             something in front of the node refused it"
        };
        match reply.status {
            300..=399 => {
                let location = reply.location.as_deref().unwrap_or("nowhere");
                write!(f, ", a redirect to {}: purges are not redirected", Untrusted(location))?;
            }
            401 | 403 | 405 => f.write_str(
                ": the VCL lets only some addresses purge (its `acl`), or wants a header \
                 (--header), or does not know the method",
            )?,
            501 => f.write_str(": the VCL does not know the method")?,
            _ => {}
        }
        f.write_str(whose)
    }
}
