//! Gathers the evidence about a node that serves old content: one fetch, and a few questions to
//! its admin port.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::errands::ban_headers;
use super::journal::chain;
use super::{AdminPeer, Peers};
use crate::admin::{AdminError, Client};
use crate::ban::ServerVersion;
use crate::clock::Clock;
use crate::config::BanHeaders;
use crate::engine::{BanText, Case};
use crate::model::{NodeName, Timestamp, Untrusted};
use crate::protocol::answer::{Answer as _, BackendList, BanList, Envelope, ListedBan};
use crate::protocol::{Command, answer};
use crate::verdict::cause::{
    BackendEvidence, BanEvidence, BanJudge, BanListEvidence, Elsewhere, Evidence, Judged,
    LedgerEvidence, ObjectEvidence, PreparedBan, Sent, SentBan, Served, Span, explain, recall,
};
use crate::verdict::{Answer, Explanation, FetchRequest, Observation, Outcome};

/// For everything that is asked of one admin port.
const ADMIN_LIMIT: Duration = Duration::from_secs(10);

/// So long what an admin port said serves for other endpoints at the same node: long enough that
/// an outage does not ask it for each, short enough that a ban hardly comes in between.
const KEPT: Duration = Duration::from_secs(1);

/// The same for an admin port that said nothing: each attempt may take [`ADMIN_LIMIT`].
const FAILURE_KEPT: Duration = Duration::from_secs(20);

/// No more bans than this are looked at, the newest ones.
const MOST_BANS: usize = 2_000;

/// What a node's clock may differ by within a reply: it states its time to the millisecond, and a
/// ban was seen to be dated a fraction of a millisecond early.
const ROUNDING: Duration = Duration::from_millis(2);

/// From the start of a cache process until its first VCL is loaded. Backends are dated to the
/// second by some versions.
const AFTER_START: Duration = Duration::from_secs(2);

/// Gathers evidence; what an admin port says is asked once for many endpoints.
#[derive(Debug)]
pub struct Gatherer {
    peers: Arc<Peers>,
    clock: Clock,
    nodes: std::sync::Mutex<HashMap<NodeName, Arc<Mutex<Known>>>>,
}

/// What a node's admin port said; locked while it is asked.
#[derive(Debug, Default)]
struct Known {
    last: Option<Arc<NodeFacts>>,
    texts: BanTexts,
}

/// What the bans on a node's list say or said when they were read, by their times on the node's
/// clock: varnishd forgets it when it is through with a ban.
type BanTexts = HashMap<Duration, Vec<u8>>;

/// Who is asked for the header fields beside the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody: the origin is spared.
    NodeOnly,
    /// The origin, too, so that both can be shown.
    OriginToo,
}

/// A ban that a node never took.
#[derive(Debug, Clone)]
pub struct MissedBan {
    /// The ban.
    pub ban: BanText,
    /// When it was issued.
    pub issued: Timestamp,
}

/// What an admin port said.
#[derive(Debug)]
struct NodeFacts {
    at: Timestamp,
    bans: Result<Bans, String>,
    backends: Result<Vec<BackendEvidence>, String>,
    worker: Option<(u32, u32)>,
}

#[derive(Debug, Clone)]
struct Bans {
    list: Arc<[PreparedBan]>,
    complete: bool,
}

impl Gatherer {
    /// One that asks `peers`.
    #[must_use]
    pub fn new(peers: Arc<Peers>, clock: Clock) -> Self {
        Self { peers, clock, nodes: std::sync::Mutex::default() }
    }

    /// Gathers what there is to know about a case, and names its cause.
    ///
    /// `missed` are the bans that the ledger has and the node never took, where there is a ledger.
    ///
    /// Takes as long as two fetches and 10 seconds at most. What cannot be had is left out,
    /// with the reason in its place. Cancellation safe.
    pub async fn gather(
        &self,
        case: &Case,
        missed: Vec<MissedBan>,
        asked: Asked,
    ) -> (Evidence, Explanation) {
        // The list first: a ban that comes later shows in the object.
        let facts = self.facts(&case.node).await;
        let request = FetchRequest::with_headers(case.target.clone());
        let destination = self.peers.node(&case.node);
        let sent = destination.as_ref().and_then(|node| node.headers_of(&request));
        let served = match &destination {
            Some(node) => served(&node.fetch(&request).await, case),
            None => Served::Nothing { why: "the node is not in the configuration".to_owned() },
        };
        let origin = match (asked, self.peers.origin(&case.origin)) {
            (Asked::OriginToo, Some(origin)) => headers_of(&origin.fetch(&request).await),
            _ => None,
        };
        let (bans, ledger) = match &served {
            Served::Old(object) => {
                let headers = self.peers.ban_headers(&case.endpoint);
                let sent = sent.unwrap_or_default();
                let elsewhere = self.peers.elsewhere(&case.node);
                let bans = facts.bans.clone();
                judged(bans, missed, case, sent, object, headers, elsewhere).await
            }
            _ => (untested(&facts.bans), Vec::new()),
        };
        let evidence = Evidence {
            url: case.target.url.clone(),
            taken: self.clock.now(),
            served,
            origin,
            change: case.change,
            bans,
            backends: facts.backends.clone(),
            worker: facts.worker,
            ledger,
            variants: case.variants.clone(),
            nodes: case.nodes.clone(),
        };
        let explanation = explain(&evidence);
        (evidence, explanation)
    }

    /// What the node's admin port says, asked anew where that is some time ago. One connection to
    /// a node at a time.
    async fn facts(&self, node: &NodeName) -> Arc<NodeFacts> {
        let place = {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.entry(node.clone()).or_default().clone()
        };
        let mut known = place.lock().await;
        let now = self.clock.now();
        let is_good = |facts: &&Arc<NodeFacts>| {
            now.since(facts.at) < if facts.bans.is_ok() { KEPT } else { FAILURE_KEPT }
        };
        if let Some(facts) = known.last.as_ref().filter(is_good) {
            return facts.clone();
        }
        let facts = Arc::new(match self.peers.admin(node) {
            Some(peer) => self.ask(&peer, &mut known.texts).await,
            None => self.nothing("no admin port of the node is configured".to_owned()),
        });
        known.last = Some(facts.clone());
        facts
    }

    async fn ask(&self, peer: &AdminPeer, texts: &mut BanTexts) -> NodeFacts {
        let client = peer.client();
        let asked = timeout(ADMIN_LIMIT, async {
            let version = client.connect().await?.version.and_then(|version| version.numbers());
            let version = version.map(|(major, minor, _)| ServerVersion::new(major, minor));
            let before = client.pids().await.ok();
            let (list, time) = self.ban_list(&client).await?;
            let backends = client.backends(None).await;
            let after = client.pids().await.ok();
            let worker = before.and_then(|pids| pids.worker).zip(after.and_then(|p| p.worker));
            Ok::<_, AdminError>((version, list, time, backends, worker))
        });
        match asked.await {
            Ok(Ok((version, mut list, time, backends, worker))) => {
                *texts = remember(&mut list, texts);
                NodeFacts {
                    at: self.clock.now(),
                    bans: Ok(prepared(&list, backends.as_ref().ok(), time, version, &peer.sent())),
                    backends: backends.map(|list| health(&list)).map_err(|error| chain(&error)),
                    worker,
                }
            }
            Ok(Err(error)) => self.nothing(chain(&error)),
            Err(_) => {
                let seconds = ADMIN_LIMIT.as_secs();
                self.nothing(format!("the admin port was not done within {seconds} s"))
            }
        }
    }

    fn nothing(&self, why: String) -> NodeFacts {
        let backends = Err(why.clone());
        NodeFacts { at: self.clock.now(), bans: Err(why), backends, worker: None }
    }

    /// The bans, and what the node's clock showed when.
    async fn ban_list(&self, client: &Client) -> Result<(BanList, NodeTime), AdminError> {
        let command = Command::ban_list_json();
        let earliest = self.clock.now();
        let reply = client.run(command.clone()).await?;
        let asked = Span { earliest, latest: self.clock.now() };
        let read = (BanList::read(&reply, &command), Envelope::read(&reply, &command));
        if let (Ok(list), Ok(Envelope { time, .. })) = read {
            return Ok((list, NodeTime { asked, time, unit: ROUNDING }));
        }
        // Not every expression can be put into JSON.
        let list = client.ban_list().await?;
        let earliest = self.clock.now();
        let answer::Pong { time } = client.time().await?;
        let asked = Span { earliest, latest: self.clock.now() };
        Ok((list, NodeTime { asked, time, unit: Duration::from_secs(1) }))
    }
}

/// What a node's clock showed at some time on ours.
#[derive(Debug, Clone, Copy)]
struct NodeTime {
    asked: Span,
    time: Duration,
    /// How exactly it was told: rounded down by no more than this.
    unit: Duration,
}

impl NodeTime {
    /// A time on the node's clock, on ours.
    fn on_our_clock(&self, time: Duration) -> Span {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let distance = millis(time).saturating_sub(millis(self.time));
        let slack = millis(self.unit.max(ROUNDING));
        Span {
            earliest: self.asked.earliest.shifted(distance.saturating_sub(slack)),
            latest: self.asked.latest.shifted(distance.saturating_add(slack)),
        }
    }
}

/// Gives back to the bans what varnishd has forgotten and was read before. Returns what they say
/// now, for the next time.
fn remember(list: &mut BanList, known: &BanTexts) -> BanTexts {
    let mut texts = BanTexts::new();
    for ban in list.bans.iter_mut().take(MOST_BANS) {
        if ban.spec.is_empty()
            && let Some(spec) = known.get(&ban.time)
        {
            ban.spec.clone_from(spec);
            ban.completed = false;
        }
        if !ban.spec.is_empty() {
            texts.insert(ban.time, ban.spec.clone());
        }
    }
    texts
}

fn prepared(
    list: &BanList,
    backends: Option<&BackendList>,
    time: NodeTime,
    version: Option<ServerVersion>,
    sent: &[SentBan],
) -> Bans {
    let newest = list.bans.iter().take(MOST_BANS);
    let prepare = newest.enumerate().map(|(place, ban)| {
        let taken = time.on_our_clock(ban.time);
        if list.complete && place + 1 == list.bans.len() && is_start(ban, backends) {
            return PreparedBan::start(taken);
        }
        PreparedBan::new(&ban.spec, ban.completed, taken, version)
    });
    let mut bans: Vec<_> = prepare.collect();
    for (place, recalled) in recall(&bans, sent) {
        if let Some(ban) = bans.get_mut(place) {
            *ban = recalled;
        }
    }
    Bans { list: bans.into(), complete: list.complete && list.bans.len() <= MOST_BANS }
}

/// Whether the oldest entry of a list is the one that varnishd makes at the start of its cache
/// process. It looks like a ban that was worked off; but the backends of the VCL that varnishd was
/// started with, which is called `boot`, are made right after it.
fn is_start(ban: &ListedBan, backends: Option<&BackendList>) -> bool {
    let backends = backends.map(|list| list.backends.as_slice()).unwrap_or_default();
    ban.completed
        && backends.iter().filter(|backend| backend.name.starts_with("boot.")).any(|backend| {
            backend.last_change.is_some_and(|made| made.abs_diff(ban.time) <= AFTER_START)
        })
}

fn health(list: &BackendList) -> Vec<BackendEvidence> {
    let backends = list.backends.iter().map(|backend| BackendEvidence {
        name: Untrusted(&backend.name).to_string(),
        healthy: match backend.admin {
            answer::AdminHealth::Sick => Some(false),
            // Without a probe, healthy is what varnishd takes for granted.
            _ if backend.probes.is_none_or(|(_, all)| all == 0)
                && backend.healthy == Some(true) =>
            {
                None
            }
            _ => backend.healthy,
        },
    });
    backends.collect()
}

/// What is known of the bans where there is no object to test them against.
fn untested(bans: &Result<Bans, String>) -> BanListEvidence {
    match bans {
        Ok(bans) => BanListEvidence::Read { bans: Vec::new(), complete: bans.complete },
        Err(why) => BanListEvidence::Unread { why: why.clone() },
    }
}

/// Tests every ban, those on the node's list and those that it missed. On a thread of its own: a
/// regex that backtracks without end would hold up the daemon for some tenths of a second.
async fn judged(
    bans: Result<Bans, String>,
    missed: Vec<MissedBan>,
    case: &Case,
    sent: HeaderMap,
    object: &ObjectEvidence,
    headers: Option<&BanHeaders>,
    elsewhere: Elsewhere,
) -> (BanListEvidence, Vec<LedgerEvidence>) {
    let (target, mut object) = (case.target.clone(), object.clone());
    if let Some(headers) = headers.and_then(ban_headers) {
        object.headers = Arc::new(headers.stored_with(&object.headers, &target.url));
    }
    let judge = move || {
        let judge = BanJudge::new(Sent { url: &target.url, headers: &sent }, &object, &elsewhere);
        let list = match bans {
            Ok(Bans { list, complete }) => {
                let bans = list.iter().map(|ban| judge.judge(ban)).collect();
                BanListEvidence::Read { bans, complete }
            }
            Err(why) => BanListEvidence::Unread { why },
        };
        let newest = missed.iter().rev().take(MOST_BANS);
        (list, newest.map(|ban| ban.judged(&judge)).collect())
    };
    match tokio::task::spawn_blocking(judge).await {
        Ok(judged) => judged,
        Err(error) => {
            (BanListEvidence::Unread { why: format!("the test of the bans: {error}") }, Vec::new())
        }
    }
}

impl MissedBan {
    fn judged(&self, judge: &BanJudge<'_>) -> LedgerEvidence {
        let issued = Span { earliest: self.issued, latest: self.issued };
        let ban = PreparedBan::new(self.ban.as_str().as_bytes(), false, issued, None);
        let BanEvidence { expression, judged, .. } = judge.judge(&ban);
        let matches = judged == Judged::Matches;
        LedgerEvidence { ban: expression, issued: self.issued, taken: None, matches }
    }
}

fn served(observation: &Observation, case: &Case) -> Served {
    let answer = match &observation.outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Failed(failure) => return Served::Nothing { why: failure.to_string() },
    };
    let object = ObjectEvidence {
        status: answer.status,
        headers: answer.headers.clone().unwrap_or_default(),
        asked: Span { earliest: observation.started, latest: observation.finished },
    };
    match version_of(answer) {
        Ok(version) if *version == case.served => Served::Old(object),
        Ok(_) => Served::Other(object),
        Err(why) => Served::Nothing { why },
    }
}

fn version_of(answer: &Answer) -> Result<&crate::model::Version, String> {
    answer.version.as_ref().map_err(|why| format!("status {}: {why}", answer.status))
}

fn headers_of(observation: &Observation) -> Option<Arc<HeaderMap>> {
    observation.answer().and_then(|answer| answer.headers.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varnishd_forgets_is_remembered_as_long_as_the_ban_is_listed() {
        let ban = |time, spec: &str| ListedBan {
            time: Duration::from_micros(time),
            references: 0,
            completed: spec.is_empty(),
            spec: spec.into(),
        };
        let list = |bans: Vec<ListedBan>| BanList { bans, complete: true };
        let mut first = list(vec![ban(7, "req.url == /a"), ban(5, "")]);
        let known = remember(&mut first, &BanTexts::new());
        assert_eq!(first.bans[1], ban(5, ""));
        let mut second = list(vec![ban(9, "req.url == /b"), ban(7, ""), ban(5, "")]);
        let known = remember(&mut second, &known);
        assert_eq!(second.bans[1], ban(7, "req.url == /a"));
        assert_eq!((known.len(), &second.bans[2]), (2, &ban(5, "")));
        let known = remember(&mut list(vec![ban(9, "")]), &known);
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn the_clocks_of_hosts_need_not_agree() {
        let ours = |millis: u64| Timestamp::from_millis(1_000_000 + millis);
        // The node is an hour ahead and answered within 20 ms.
        let time = NodeTime {
            asked: Span { earliest: ours(0), latest: ours(20) },
            time: Duration::from_millis(1_000_010 + 3_600_000),
            unit: ROUNDING,
        };
        let taken = time.on_our_clock(Duration::from_millis(1_000_010 + 3_600_000 - 5_000));
        assert_eq!(
            taken,
            Span { earliest: ours(0).shifted(-5_002), latest: ours(20).shifted(-4_998) }
        );
        let nonsense = time.on_our_clock(Duration::MAX);
        assert!(nonsense.earliest <= nonsense.latest);
    }
}
