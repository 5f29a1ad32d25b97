//! What a check found, for people and for programs.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use serde::Serialize;

use super::super::output::{Format, Output, Untrusted, stdout_takes_colour};
use super::super::subject::Subject;
use super::explain::{EvidenceDocument, Found};
use super::pointers::{self, PointerLine};
use crate::engine::{Snapshot, TargetSnapshot};
use crate::model::{VariantName, format_duration};
use crate::verdict::State;

/// The form of the JSON document; raised when a field goes or changes its meaning.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    results: Vec<Line<'a>>,
    pointers: Vec<PointerLine<'a>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    endpoint: &'a str,
    url: String,
    variant: &'a str,
    node: &'a str,
    state: &'static str,
    /// `Age` of the node's answer, in seconds.
    age_seconds: Option<u64>,
    node_version: Option<String>,
    origin_version: Option<String>,
    reason: Option<&'a str>,
    /// Why the node serves old content, where that was asked for.
    cause: Option<&'static str>,
    findings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceDocument>,
}

/// How much is shown of what was found out.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) enum Detail<'a> {
    /// The causes, and what they rest on.
    Findings(&'a [Found]),
    /// The evidence as well.
    Evidence(&'a [Found]),
}

impl<'a> Detail<'a> {
    fn of(self, target: &TargetSnapshot) -> Option<&'a Found> {
        let (Self::Findings(found) | Self::Evidence(found)) = self;
        found.iter().find(|found| found.is_about(target))
    }
}

pub(in crate::commands) fn show(
    output: &mut Output,
    format: Format,
    subject: &Subject,
    snapshot: &Snapshot,
    detail: Detail<'_>,
) {
    match format {
        Format::Json => {
            let targets = snapshot.targets.iter();
            let results = targets.map(|target| line(subject, snapshot, target, detail)).collect();
            let pointers = snapshot.pointers.iter().map(PointerLine::of).collect();
            output.json(&Document { schema: SCHEMA, results, pointers });
        }
        Format::Human => {
            let colour = stdout_takes_colour();
            output.text(table(subject, snapshot, colour));
            output.text(pointers::text(&snapshot.pointers));
            let targets = snapshot.targets.iter();
            for (target, found) in targets.filter_map(|t| Some((t, detail.of(t)?))) {
                let name = name(subject, target);
                output.text(found.text(&name, matches!(detail, Detail::Evidence(_))));
            }
            output.line(summary(snapshot));
        }
    }
}

/// What was fetched: of a pointer, its URL or one that it leads to.
fn url(subject: &Subject, snapshot: &Snapshot, target: &TargetSnapshot) -> String {
    let pointer = snapshot.pointers.iter().find(|p| p.pointer == target.endpoint);
    let mut urls = pointer.into_iter().flat_map(|pointer| &pointer.targets);
    let found = urls.find(|(variant, _)| *variant == target.variant);
    found.map_or_else(|| subject.url(&target.endpoint), |(_, url)| url.to_string())
}

fn line<'a>(
    subject: &Subject,
    snapshot: &Snapshot,
    target: &'a TargetSnapshot,
    detail: Detail<'a>,
) -> Line<'a> {
    let found = detail.of(target);
    let explanation = found.map(|found| &found.explanation);
    Line {
        endpoint: target.endpoint.as_str(),
        url: url(subject, snapshot, target),
        variant: target.variant.as_str(),
        node: target.node.as_str(),
        state: target.state.label(),
        age_seconds: target.age,
        node_version: target.node_version.as_ref().map(ToString::to_string),
        origin_version: target.origin_version.as_ref().map(ToString::to_string),
        reason: target.reason.as_deref(),
        cause: explanation.map(|explanation| explanation.cause.label()),
        findings: explanation.map(|e| e.findings.as_slice()).unwrap_or_default(),
        evidence: match detail {
            Detail::Evidence(_) => found.and_then(Found::document),
            Detail::Findings(_) => None,
        },
    }
}

fn table(subject: &Subject, snapshot: &Snapshot, colour: bool) -> String {
    let with_variants = snapshot.targets.iter().any(|t| t.variant != VariantName::default());
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut heading =
        vec!["ENDPOINT", "VARIANT", "NODE", "STATE", "AGE", "NODE SERVES", "ORIGIN SERVES"];
    if !with_variants {
        heading.retain(|name| *name != "VARIANT");
    }
    table.set_header(heading);
    for target in &snapshot.targets {
        let version = |version: Option<&crate::model::Version>| {
            let short = version.map(crate::model::Version::short);
            Cell::new(short.map_or("-".to_owned(), |text| Untrusted(&text).to_string()))
        };
        let age = target.age.map(std::time::Duration::from_secs).map(format_duration);
        let mut row = vec![
            Cell::new(subject.title(&target.endpoint)),
            Cell::new(&target.variant),
            Cell::new(&target.node),
            Cell::new(target.state.label()),
            Cell::new(age.unwrap_or_else(|| "-".to_owned())),
            version(target.node_version.as_ref()),
            version(target.origin_version.as_ref()),
        ];
        if !with_variants {
            row.remove(1);
        }
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    if colour {
        for (state, code) in
            [("stale", "31;1"), ("cache_down", "31"), ("origin_down", "31"), ("unverifiable", "33")]
        {
            text =
                text.replace(&format!(" {state} "), &format!(" \u{1b}[{code}m{state}\u{1b}[0m "));
        }
    }
    for target in &snapshot.targets {
        if let Some(reason) = &target.reason {
            let name = name(subject, target);
            let (node, state, reason) = (&target.node, target.state.label(), Untrusted(reason));
            text.push_str(&format!("{name} at {node}: {state}: {reason}\n"));
        } else if let Some(status) = failure_status(target) {
            let (name, node) = (subject.title(&target.endpoint), &target.node);
            text.push_str(&format!(
                "{name} at {node}: both answer {status}: is this the URL that was meant?\n"
            ));
        }
    }
    text
}

/// What a target is called in front of people.
fn name(subject: &Subject, target: &TargetSnapshot) -> String {
    let title = subject.title(&target.endpoint);
    if target.variant == VariantName::default() {
        return title;
    }
    format!("{title} ({})", target.variant)
}

/// The status that node and origin agree on, when it is that of an error.
fn failure_status(target: &TargetSnapshot) -> Option<u16> {
    let status = target.origin_version.as_ref()?.status;
    (target.state == State::Fresh && status >= 400).then_some(status)
}

fn summary(snapshot: &Snapshot) -> String {
    let count = |state| snapshot.targets.iter().filter(|target| target.state == state).count();
    let parts: Vec<_> = State::ALL
        .into_iter()
        .map(|state| (count(state), state.label()))
        .filter(|(number, _)| *number > 0)
        .map(|(number, label)| format!("{number} {label}"))
        .collect();
    if parts.is_empty() { "nothing was compared".to_owned() } else { parts.join(", ") }
}

/// A line on stderr that counts up, on a terminal and nowhere else.
pub(super) struct Progress {
    done: usize,
    all: usize,
    shown: bool,
}

/// Progress over this many comparisons.
pub(super) fn progress(all: usize) -> Progress {
    Progress { done: 0, all, shown: all > 3 && std::io::stderr().is_terminal() }
}

impl Progress {
    pub(super) fn advance(&mut self) {
        self.done += 1;
        if self.shown {
            // There is nobody to tell when the terminal is gone.
            let _ = write!(std::io::stderr(), "\r{} of {} compared", self.done, self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.done > 0 {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
