//! The daemon's document, as tables for people.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::super::output::{Output, Untrusted};
use crate::expose::status::{Document, Node, Pointer, Target};
use crate::model::{VariantName, format_duration};

pub(super) fn show(output: &mut Output, document: &Document) {
    output.text(targets(document));
    for target in document.targets.iter().filter(|target| target.state != "fresh") {
        output.text(because(target));
    }
    for pointer in &document.pointers {
        output.text(self::pointer(pointer, document.taken));
    }
    output.text("\n");
    output.text(nodes(document));
    output.line(summary(document));
}

fn targets(document: &Document) -> String {
    let default = VariantName::default();
    let with_variants = document.targets.iter().any(|target| target.variant != default.as_str());
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut heading = vec!["ENDPOINT", "VARIANT", "NODE", "STATE", "FOR", "STALE FOR", "CAUSE"];
    if !with_variants {
        heading.retain(|name| *name != "VARIANT");
    }
    table.set_header(heading);
    for target in &document.targets {
        let stale = target.staleness_seconds.filter(|seconds| *seconds > 0.0);
        let mut row = vec![
            safe(&target.endpoint),
            safe(&target.variant),
            safe(&target.node),
            safe(&target.state),
            seconds(document.taken - target.since),
            stale.map_or_else(|| "-".to_owned(), seconds),
            target.cause.as_deref().map_or_else(|| "-".to_owned(), safe),
        ];
        if !with_variants {
            row.remove(1);
        }
        table.add_row(row);
    }
    lines(&table)
}

/// Why a target is not fresh.
fn because(target: &Target<'_>) -> String {
    let mut name = safe(&target.endpoint);
    if target.variant != VariantName::default().as_str() {
        name = format!("{name} ({})", safe(&target.variant));
    }
    let (node, state) = (safe(&target.node), safe(&target.state));
    let mut text = match &target.cause {
        Some(cause) => format!("{name} at {node}: {state}, cause: {}\n", safe(cause)),
        None => match &target.reason {
            Some(reason) => format!("{name} at {node}: {state}: {}\n", safe(reason)),
            None => return String::new(),
        },
    };
    for finding in &target.findings {
        text.push_str(&format!("  - {}\n", safe(finding)));
    }
    text
}

/// A pointer, and why it is not good.
fn pointer(pointer: &Pointer<'_>, taken: f64) -> String {
    let (name, state) = (safe(&pointer.pointer), safe(&pointer.state));
    let value = pointer.value.as_deref().map(|value| format!(" leads to {}", safe(value)));
    let lasting = seconds(taken - pointer.since);
    let mut text = format!("pointer {name}{}: {state} for {lasting}\n", value.unwrap_or_default());
    for finding in &pointer.findings {
        text.push_str(&format!("  - {}\n", safe(finding)));
    }
    text
}

fn nodes(document: &Document) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["NODE", "ADMIN PORT", "LAST SUCCESS", "PROBLEM"]);
    for node in &document.nodes {
        let admin = node.admin.as_ref();
        let last = admin.and_then(|admin| admin.last_success);
        let problem = admin.and_then(|admin| admin.problem.as_deref());
        table.add_row([
            safe(&node.node),
            admin_state(node).to_owned(),
            last.map_or_else(
                || "-".to_owned(),
                |at| format!("{} ago", seconds(document.taken - at)),
            ),
            problem.map_or_else(|| "-".to_owned(), safe),
        ]);
    }
    lines(&table)
}

const fn admin_state(node: &Node<'_>) -> &'static str {
    match &node.admin {
        None => "not configured",
        Some(admin) => match admin.up {
            None => "not checked yet",
            Some(true) => "up",
            Some(false) => "down",
        },
    }
}

fn summary(document: &Document) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for target in &document.targets {
        match counts.iter_mut().find(|(state, _)| *state == target.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((&target.state, 1)),
        }
    }
    counts.sort_unstable();
    let parts: Vec<_> =
        counts.into_iter().map(|(state, count)| format!("{count} {}", safe(state))).collect();
    if parts.is_empty() { "nothing is watched".to_owned() } else { parts.join(", ") }
}

fn safe(text: &str) -> String {
    Untrusted(text).to_string()
}

/// Whole seconds; nothing that is no number of them.
fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0).trunc());
    duration.map_or_else(|_| "-".to_owned(), format_duration)
}

fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}
