//! Why nodes serve old content: the search, and how it is shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use futures_util::StreamExt as _;
use http::HeaderMap;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::super::output::{Untrusted, complain};
use super::super::subject::Subject;
use super::watched::Watched;
use crate::clock::Clock;
use crate::daemon::{Asked, Gatherer, Peers};
use crate::engine::{Case, TargetSnapshot};
use crate::model::{Timestamp, format_duration};
use crate::systemd::Credentials;
use crate::verdict::Explanation;
use crate::verdict::cause::{Aim, BanEvidence, BanListEvidence, Evidence, Judged, Served};

/// So many cases are looked into at a time.
const AT_ONCE: usize = 8;

/// Longer values are cut, in characters.
const LONGEST_VALUE: usize = 60;

/// So many header fields and bans are shown at most; the JSON has them all.
const ROWS: usize = 40;

/// What was found out about one case.
#[derive(Debug)]
pub(in crate::commands) struct Found {
    case: Case,
    /// `None` when the time was not enough.
    evidence: Option<Evidence>,
    pub(super) explanation: Explanation,
}

/// Gathers the evidence of all cases, within this limit.
pub(in crate::commands) async fn explain(
    subject: &Subject,
    cases: Vec<Case>,
    asked: Asked,
    limit: Duration,
    clock: Clock,
) -> Vec<Found> {
    if cases.is_empty() {
        return Vec::new();
    }
    let deadline = Instant::from_std(clock.instant_of(clock.now() + limit));
    let watched = Watched::ask(subject, clock).await;
    let gatherer = &Gatherer::new(Arc::new(peers(subject, clock)), clock);
    let found = futures_util::stream::iter(cases).map(async |mut case| {
        watched.add_to(&mut case);
        let gathered = timeout_at(deadline, gatherer.gather(&case, Vec::new(), asked)).await;
        let (evidence, explanation) = match gathered {
            Ok((evidence, explanation)) => (Some(evidence), explanation),
            Err(_) => (
                None,
                Explanation::undetermined("the evidence could not be gathered in the time left"),
            ),
        };
        let explanation = watched.instead_of(explanation, &case);
        Found { case, evidence, explanation }
    });
    found.buffered(AT_ONCE).collect().await
}

/// The peers with their admin ports, but for those whose secret cannot be found: that is said.
fn peers(subject: &Subject, clock: Clock) -> Peers {
    let mut config = subject.with_admin_ports();
    let credentials = Credentials::from_environment();
    // Each turn takes a node's admin port away, so there is an end.
    for _ in 0..=config.nodes.len() {
        match Peers::new(&config, &Peers::default(), &credentials, clock) {
            Ok(peers) => return peers,
            Err(fault) => {
                complain(format_args!("{fault}: {}", fault.source));
                let nodes = config.nodes.iter_mut().filter(|node| node.name == fault.node);
                nodes.for_each(|node| node.admin = None);
            }
        }
    }
    Peers::default()
}

impl Found {
    pub(super) fn is_about(&self, target: &TargetSnapshot) -> bool {
        self.case.endpoint == target.endpoint
            && self.case.variant == target.variant
            && self.case.node == target.node
    }

    /// The cause and its findings, and the evidence when that is wanted.
    pub(super) fn text(&self, name: &str, with_evidence: bool) -> String {
        let mut text = String::new();
        let Explanation { cause, findings } = &self.explanation;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} at {}: cause: {cause}", self.case.node);
        for finding in findings {
            let _ = writeln!(text, "  - {finding}");
        }
        if let Some(evidence) = self.evidence.as_ref().filter(|_| with_evidence) {
            text.push_str(&header_table(evidence));
            text.push_str(&ban_table(evidence));
        }
        text
    }

    /// The evidence for programs.
    pub(super) fn document(&self) -> Option<EvidenceDocument> {
        self.evidence.as_ref().map(EvidenceDocument::of)
    }
}

fn node_headers(evidence: &Evidence) -> Option<&HeaderMap> {
    match &evidence.served {
        Served::Old(object) | Served::Other(object) => Some(&object.headers),
        Served::Nothing { .. } => None,
    }
}

/// The header fields of both sides, side by side.
fn header_table(evidence: &Evidence) -> String {
    let (node, origin) = (node_headers(evidence), evidence.origin.as_deref());
    let sides = [node, origin].map(|headers| headers.map(all_values).unwrap_or_default());
    let [node, origin] = &sides;
    let mut names: Vec<_> = node.keys().chain(origin.keys()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["  HEADER", "NODE", "ORIGIN"]);
    for name in names.iter().take(ROWS) {
        let value = |side: &BTreeMap<String, Vec<String>>| {
            side.get(*name).map_or_else(|| "-".to_owned(), |values| cut(&values.join(", ")))
        };
        table.add_row([format!("  {name}"), value(node), value(origin)]);
    }
    lines(&table, names.len().saturating_sub(ROWS))
}

/// The bans of the node's list, with whether each matches.
fn ban_table(evidence: &Evidence) -> String {
    let BanListEvidence::Read { bans, complete } = &evidence.bans else { return String::new() };
    let mut bans: Vec<_> = bans.iter().filter(|ban| is_since(ban, evidence)).collect();
    // Those about the URL are what is looked for.
    bans.sort_by_key(|ban| ban.aim != Aim::Here);
    let mut text = match (bans.len(), evidence.change.after) {
        (0, Some(_)) => return "  no bans since the change\n".to_owned(),
        (_, Some(_)) => "  bans since the change:\n".to_owned(),
        (0, None) => return "  no bans on the list\n".to_owned(),
        (_, None) => "  bans on the list:\n".to_owned(),
    };
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["  TAKEN", "THIS OBJECT", "BAN"]);
    for ban in bans.iter().take(ROWS) {
        let ago = format!("  {} ago", whole(evidence.taken.since(ban.taken.latest)));
        let (judged, why) = judged(&ban.judged);
        let mut expression = cut(&ban.expression);
        if let Some(why) = why {
            expression = format!("{expression} ({})", Untrusted(why));
        }
        table.add_row([ago, judged.to_owned(), expression]);
    }
    text.push_str(&lines(&table, bans.len().saturating_sub(ROWS)));
    if !complete {
        text.push_str("  the list was cut: older bans are missing\n");
    }
    text
}

fn is_since(ban: &BanEvidence, evidence: &Evidence) -> bool {
    let from = evidence.change.after.unwrap_or(Timestamp::EPOCH);
    ban.judged != Judged::Start && ban.taken.latest >= from
}

const fn judged(judged: &Judged) -> (&'static str, Option<&String>) {
    match judged {
        Judged::Matches => ("matches", None),
        Judged::Misses { why } => ("misses", Some(why)),
        Judged::Unknown { why } => ("unknown", Some(why)),
        Judged::Completed => ("completed", None),
        Judged::Start => ("start", None),
        Judged::Unread { why } => ("unread", Some(why)),
    }
}

fn lines(table: &Table, left_out: usize) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more");
    }
    text
}

fn all_values(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.to_string()).or_default().push(Untrusted(&value).to_string());
    }
    all
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

fn whole(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_secs()))
}

/// The evidence, as JSON has it. Ages are in seconds, as of when it was gathered.
#[derive(Debug, Serialize)]
pub(super) struct EvidenceDocument {
    node_headers: BTreeMap<String, Vec<String>>,
    origin_headers: BTreeMap<String, Vec<String>>,
    /// When the origin was last seen to serve the old version, and first seen not to.
    origin_changed_after_seconds: Option<f64>,
    origin_changed_before_seconds: Option<f64>,
    bans: Vec<BanDocument>,
    /// Whether these are all of the node's list.
    bans_complete: bool,
    /// Why the list was not read.
    bans_unread: Option<String>,
    backends: Vec<BackendDocument>,
}

#[derive(Debug, Serialize)]
struct BanDocument {
    expression: String,
    taken_seconds: f64,
    /// `matches`, `misses`, `unknown`, `completed`, `start`, `unread`.
    judged: &'static str,
    why: Option<String>,
    related: bool,
}

#[derive(Debug, Serialize)]
struct BackendDocument {
    name: String,
    healthy: Option<bool>,
}

impl EvidenceDocument {
    fn of(evidence: &Evidence) -> Self {
        let ago = |at: Timestamp| evidence.taken.since(at).as_secs_f64();
        let (bans, bans_complete, bans_unread) = match &evidence.bans {
            BanListEvidence::Read { bans, complete } => (bans.as_slice(), *complete, None),
            BanListEvidence::Unread { why } => (&[][..], false, Some(why.clone())),
        };
        let ban = |ban: &BanEvidence| {
            let (label, why) = judged(&ban.judged);
            BanDocument {
                expression: ban.expression.clone(),
                taken_seconds: ago(ban.taken.latest),
                judged: label,
                why: why.cloned(),
                related: ban.aim == Aim::Here,
            }
        };
        let backends = evidence.backends.as_deref().unwrap_or_default().iter();
        Self {
            node_headers: node_headers(evidence).map(all_values).unwrap_or_default(),
            origin_headers: evidence.origin.as_deref().map(all_values).unwrap_or_default(),
            origin_changed_after_seconds: evidence.change.after.map(ago),
            origin_changed_before_seconds: evidence.change.before.map(ago),
            bans: bans.iter().map(ban).collect(),
            bans_complete,
            bans_unread,
            backends: backends
                .map(|b| BackendDocument { name: b.name.clone(), healthy: b.healthy })
                .collect(),
        }
    }
}
