//! What is said of an event: for people on two streams, for programs as one document.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::super::Exit;
use super::super::output::{self, Output, Untrusted, complain};
use super::awaited::{Answer, Key};
use super::chain;
use super::event::{Ban, Examined};
use super::place::Place;
use super::send::{Delivery, Published, Trouble};
use crate::clock::Clock;
use crate::event::ConfirmedResult;
use crate::ingest::{Follower, IngestError, Kind};
use crate::model::{EndpointName, NodeName, Timestamp, format_duration};

/// The number of the JSON document's form: it grows when something is taken out or renamed.
const SCHEMA: u32 = 1;

const COMMAND: &str = "publish";

/// A host notes itself every ten seconds; one that did not for so long is away.
const UNSEEN: Duration = Duration::from_secs(60);

/// Says which bans are refused, and what there is to say of the others.
pub(super) fn examined(examined: &Examined) {
    let place = |ban: &Ban| match examined.bans.len() {
        1 => String::new(),
        _ => format!("{}: ", ban.shown),
    };
    for ban in &examined.bans {
        for refusal in &ban.refusals {
            fail(&format!("{}refused ({}): {refusal}", place(ban), refusal.code()));
        }
    }
    if examined.is_refused() {
        return complain("nothing was published");
    }
    for ban in &examined.bans {
        for warning in &ban.warnings {
            complain(format_args!("{}warning ({}): {warning}", place(ban), warning.code()));
        }
    }
}

/// How it ended, as an exit status.
pub(super) fn exit(delivery: &Delivery) -> Exit {
    if delivery.interrupted {
        return Exit::Interrupted;
    }
    let ended = match &delivery.trouble {
        None => Exit::Done,
        Some(Trouble::Nobody) => return Exit::Usage,
        Some(Trouble::Redis(error)) if delivery.published == Published::No => {
            return exit_before(error);
        }
        // Something was done: no call that has to be changed.
        Some(Trouble::Redis(error)) => match exit_before(error) {
            Exit::Usage => Exit::Unreachable,
            exit => exit,
        },
    };
    delivery
        .awaited
        .entries()
        .map(|(_, answer)| delivery.awaited.exit(answer))
        .fold(ended, Exit::max)
}

/// The status of what Redis did not do.
pub(super) const fn exit_before(error: &IngestError) -> Exit {
    match error.kind {
        Kind::PasswordRequired | Kind::WrongPassword | Kind::PasswordNotText => Exit::Secret,
        Kind::NotPermitted { .. } | Kind::Rejected { .. } => Exit::Rejected,
        // Another server or another stream has to be named.
        Kind::Cluster | Kind::Sentinel | Kind::TooOld | Kind::NotRedis | Kind::WrongType => {
            Exit::Usage
        }
        _ => Exit::Unreachable,
    }
}

/// Says who confirmed what.
pub(super) fn told(output: &mut Output, delivery: &Delivery) {
    for (key, answer) in delivery.awaited.entries() {
        if let Some(answer) = answer
            && delivery.awaited.exit(Some(answer)) == Exit::Done
        {
            output.line(said(key, answer));
        }
    }
}

/// Says what went wrong, on stderr.
pub(super) fn failed(delivery: &Delivery, place: &Place, within: Duration, clock: Clock) {
    match &delivery.trouble {
        None => {}
        Some(Trouble::Nobody) => fail(&format!(
            "no host is known to follow {}, or none has a node: there is nobody to wait for, and \
             nothing was published; --no-wait publishes all the same",
            Untrusted(&place.stream)
        )),
        Some(Trouble::Redis(error)) => fail(&redis_failed(delivery.published, error)),
    }
    if delivery.interrupted {
        complain(match delivery.published {
            Published::No => "interrupted: nothing was published",
            Published::Unknown => UNKNOWN,
            Published::As(_) => "interrupted: the event is in the stream, and the hosts act on it",
        });
    }
    if !matches!(delivery.published, Published::As(_)) {
        return;
    }
    let mut silent: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (key, answer) in delivery.awaited.entries() {
        match answer {
            None => {
                let nodes = silent.entry(key.host.as_deref()).or_default();
                nodes.extend(key.node.as_ref().map(NodeName::as_str));
            }
            Some(answer) if delivery.awaited.exit(Some(answer)) != Exit::Done => {
                let mut text = said(key, answer);
                if answer.result == ConfirmedResult::Taken {
                    text += ", and not proven";
                }
                fail(&text);
            }
            Some(_) => {}
        }
    }
    let time = if delivery.interrupted {
        "so far".to_owned()
    } else {
        format!("within {}", format_duration(within))
    };
    let is_silent = !silent.is_empty();
    for (host, nodes) in silent {
        let nodes = nodes.join(", ");
        let Some(host) = host else {
            fail(&format!(
                "{nodes}: no confirmation {time}; no host that follows {} has a node of that name",
                Untrusted(&place.stream)
            ));
            continue;
        };
        fail(&format!(
            "{nodes} ({}): no confirmation {time}; {}",
            Untrusted(host),
            last_seen(delivery.follower(host), clock)
        ));
    }
    if is_silent && !delivery.interrupted {
        complain("the event stays in the stream: a host that comes back acts on it");
    }
}

/// Says what came of forgetting a host.
pub(super) fn forgotten(host: &str, place: &Place, followers: &[Follower]) {
    let known: Vec<&str> = followers.iter().map(|follower| follower.name.as_str()).collect();
    let known = if known.is_empty() { "nobody".to_owned() } else { known.join(", ") };
    complain(format_args!(
        "{} is not known to follow {}: {} does",
        Untrusted(host),
        Untrusted(&place.stream),
        Untrusted(&known)
    ));
}

const UNKNOWN: &str = "whether the event was added to the stream is unknown; an event may be sent \
                       twice without harm";

fn redis_failed(published: Published, error: &IngestError) -> String {
    let error = chain(error);
    match published {
        Published::No => format!("{error}; nothing was published"),
        Published::Unknown => format!("{error}; {UNKNOWN}"),
        Published::As(_) => {
            format!("{error}; the event is in the stream, and no more confirmations can be read")
        }
    }
}

fn last_seen(follower: Option<&Follower>, clock: Clock) -> String {
    let Some(follower) = follower else {
        return "it is not on the list of those who follow the stream any more".to_owned();
    };
    let ago = unseen(follower, clock);
    if ago < UNSEEN {
        return format!(
            "the host was seen {} ago, so its daemon runs: its log says more",
            seconds(ago)
        );
    }
    format!(
        "the host was last seen {} ago; if it is gone for good: purgewatch publish --forget {}",
        seconds(ago),
        Untrusted(&follower.name)
    )
}

/// The hosts that are not there, and since when.
pub(super) fn long_unseen(
    followers: &[Follower],
    clock: Clock,
) -> impl Iterator<Item = (&Follower, String)> {
    let away = followers.iter().map(move |follower| (follower, unseen(follower, clock)));
    away.filter(|(_, ago)| *ago >= UNSEEN).map(|(follower, ago)| (follower, seconds(ago)))
}

/// By two wall clocks: one that is ahead of ours was seen just now.
fn unseen(follower: &Follower, clock: Clock) -> Duration {
    clock.now().since(follower.seen)
}

/// Two hosts' clocks do not agree by milliseconds.
fn seconds(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_secs()))
}

/// What a host said: `cache-01 (host-a): taken after 0.2s`.
fn said(key: &Key, answer: &Answer) -> String {
    let result = match answer.result {
        ConfirmedResult::Survived => "survived: old content is still served",
        ConfirmedResult::Rejected => "rejected by varnishd",
        ConfirmedResult::SetAside => "set aside",
        ConfirmedResult::Unknown => "a result that this version does not know",
        other => other.label(),
    };
    let detail = answer.detail.as_ref().map(|detail| format!(": {}", Untrusted(detail)));
    format!(
        "{}: {result}, after {}{}",
        who(key),
        format_duration(answer.after),
        detail.unwrap_or_default()
    )
}

fn who(key: &Key) -> String {
    let host = key.host.as_deref().map(|host| Untrusted(host).to_string());
    match (&key.node, host) {
        (Some(node), Some(host)) => format!("{node} ({host})"),
        (Some(node), None) => node.to_string(),
        (None, host) => host.unwrap_or_default(),
    }
}

fn fail(text: &str) {
    output::fail(COMMAND, text);
}

/// The whole result as a program reads it.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    command: &'static str,
    /// The exit status of the process.
    exit: u8,
    stream: &'a str,
    replies: &'a str,
    /// `yes`; `no`; `unknown`: the connection was lost while the event was added.
    published: &'static str,
    /// The id that the stream gave to the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    interrupted: bool,
    event: EventItem<'a>,
    /// What Redis did not do.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorItem>,
    /// Those who were waited for, by host and node.
    nodes: Vec<NodeItem<'a>>,
}

#[derive(Debug, Serialize)]
struct EventItem<'a> {
    bans: Vec<BanItem<'a>>,
    urls: Vec<String>,
    endpoints: Vec<&'a str>,
    verify: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prove_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct BanItem<'a> {
    expression: &'a str,
    refusals: Vec<Remark>,
    warnings: Vec<Remark>,
}

#[derive(Debug, Serialize)]
struct Remark {
    code: &'static str,
    message: String,
    /// The flag that sends the ban all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    overridden_by: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ErrorItem {
    reason: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct NodeItem<'a> {
    host: Option<&'a str>,
    node: Option<&'a str>,
    exit: u8,
    /// As the host wrote it; `silent` when it wrote nothing.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// When, by the host's clock, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<f64>,
    /// How long after the event was published its confirmation was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// When the host last noted itself, by its clock, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<f64>,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        examined: &'a Examined,
        place: &'a Place,
        delivery: &'a Delivery,
        exit: Exit,
    ) -> Self {
        let (published, id) = match delivery.published {
            Published::No => ("no", None),
            Published::Unknown => ("unknown", None),
            Published::As(id) => ("yes", Some(id.to_string())),
        };
        let error = match &delivery.trouble {
            Some(Trouble::Redis(error)) => {
                Some(ErrorItem { reason: error.label(), message: chain(error) })
            }
            Some(Trouble::Nobody) => {
                let message = "no host is known to follow the stream, or none has a node";
                Some(ErrorItem { reason: "nobody", message: message.to_owned() })
            }
            None => None,
        };
        let node = |(key, answer): (&'a Key, Option<&'a Answer>)| NodeItem {
            host: key.host.as_deref(),
            node: key.node.as_ref().map(NodeName::as_str),
            exit: delivery.awaited.exit(answer).code(),
            result: answer.map_or("silent", |answer| answer.result.label()),
            detail: answer.and_then(|answer| answer.detail.as_deref()),
            at: answer.and_then(|answer| answer.at).map(Timestamp::as_seconds),
            seconds: answer.map(|answer| answer.after.as_secs_f64()),
            last_seen: key
                .host
                .as_deref()
                .and_then(|host| delivery.follower(host))
                .map(|follower| follower.seen.as_seconds()),
        };
        Self {
            schema: SCHEMA,
            command: COMMAND,
            exit: exit.code(),
            stream: &place.stream,
            replies: &place.replies,
            published,
            id,
            interrupted: delivery.interrupted,
            event: event_item(examined),
            error,
            nodes: delivery.awaited.entries().map(node).collect(),
        }
    }
}

fn event_item(examined: &Examined) -> EventItem<'_> {
    let event = &examined.event;
    EventItem {
        bans: event
            .bans
            .iter()
            .zip(&examined.bans)
            .map(|(text, ban)| ban_item(text, ban))
            .collect(),
        urls: event.urls.iter().map(ToString::to_string).collect(),
        endpoints: event.endpoints.iter().map(EndpointName::as_str).collect(),
        verify: event.verify.iter().map(EndpointName::as_str).collect(),
        nodes: event.nodes.as_ref().map(|nodes| nodes.iter().map(NodeName::as_str).collect()),
        prove_seconds: event.prove.map(|prove| prove.as_secs_f64()),
        reason: event.reason.as_deref(),
    }
}

fn ban_item<'a>(text: &'a str, ban: &Ban) -> BanItem<'a> {
    let refusals = ban.refusals.iter().map(|refusal| Remark {
        code: refusal.code(),
        message: refusal.to_string(),
        overridden_by: refusal.overridden_by(),
    });
    let warnings = ban.warnings.iter().map(|warning| Remark {
        code: warning.code(),
        message: warning.to_string(),
        overridden_by: None,
    });
    BanItem { expression: text, refusals: refusals.collect(), warnings: warnings.collect() }
}
