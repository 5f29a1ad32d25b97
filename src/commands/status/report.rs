//! The daemon's document, as tables for people.

use std::borrow::Cow;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::super::output::{Output, Untrusted};
use crate::expose::status::{DAY, Document, Node, Pointer, Subscription, Target, WEEK, seconds};
use crate::model::VariantName;

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
    for node in &document.nodes {
        output.text(troubles(node));
    }
    if !document.subscriptions.is_empty() {
        output.text("\n");
        output.text(subscriptions(document));
        for subscription in &document.subscriptions {
            output.text(unread(subscription));
        }
    }
    output.text("\n");
    output.text(levels(document));
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
    table.set_header([
        "NODE",
        "ADMIN PORT",
        "LAST SUCCESS",
        "CANARY",
        "LAST PROVEN",
        "BANS WAITING",
    ]);
    let ago = |at: Option<f64>| {
        at.map_or_else(|| "-".to_owned(), |at| format!("{} ago", seconds(document.taken - at)))
    };
    for node in &document.nodes {
        table.add_row([
            safe(&node.node),
            admin_state(node).to_owned(),
            ago(node.admin.as_ref().and_then(|admin| admin.last_success)),
            canary_state(node).to_owned(),
            ago(node.canary.as_ref().and_then(|canary| canary.last_proven)),
            node.pending_bans.to_string(),
        ]);
    }
    lines(&table)
}

/// What is wrong with the purge path of a node, a line for each fault: too long for a table.
fn troubles(node: &Node<'_>) -> String {
    let name = safe(&node.node);
    let mut text = String::new();
    // What the admin client says begins with the node's name.
    let problem = |problem: &Option<Cow<'_, str>>| {
        let problem = problem.as_deref().map_or_else(|| "no reason known".to_owned(), safe);
        problem.strip_prefix(&format!("{name}: ")).map(str::to_owned).unwrap_or(problem)
    };
    if let Some(admin) = node.admin.as_ref().filter(|admin| admin.up == Some(false)) {
        text.push_str(&format!("bans cannot reach {name}: {}\n", problem(&admin.problem)));
    }
    if let Some(canary) = node.canary.as_ref().filter(|canary| canary.up == Some(false)) {
        text.push_str(&format!("bans do not work at {name}: {}\n", problem(&canary.problem)));
    }
    if let Some(canary) = node.canary.as_ref().filter(|c| c.up.is_none() && c.problem.is_some()) {
        let problem = problem(&canary.problem);
        text.push_str(&format!("whether bans work at {name} cannot be told: {problem}\n"));
    }
    if node.pending_bans > 0 {
        let bans = counted(node.pending_bans, "ban");
        text.push_str(&format!(
            "{name} has missed {bans}: the daemon delivers what is waiting when it can\n"
        ));
    }
    text
}

/// Where events come from, and what came of them since the daemon started.
fn subscriptions(document: &Document) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "EVENTS FROM",
        "STATE",
        "LAST EVENT",
        "OPEN",
        "TAKEN",
        "PROVEN",
        "FAILED",
        "LOST",
        "SET ASIDE",
    ]);
    for subscription in &document.subscriptions {
        let of = |results: &[&str]| -> u64 {
            results.iter().filter_map(|result| subscription.events.get(*result)).sum()
        };
        let last = subscription.last_event;
        table.add_row([
            safe(&subscription.subscription),
            match subscription.up {
                None => "listens".to_owned(),
                Some(true) => "up".to_owned(),
                Some(false) => "down".to_owned(),
            },
            last.map_or_else(
                || "-".to_owned(),
                |at| format!("{} ago", seconds(document.taken - at)),
            ),
            subscription.open.to_string(),
            of(&["taken"]).to_string(),
            of(&["proven"]).to_string(),
            of(&["unproven", "rejected", "refused"]).to_string(),
            subscription.lost.saturating_add(of(&["lost"])).to_string(),
            subscription.set_aside.to_string(),
        ]);
    }
    lines(&table)
}

/// Why no events come, in a line: too long for a table.
fn unread(subscription: &Subscription<'_>) -> String {
    match (subscription.up, &subscription.problem) {
        (Some(false), Some(problem)) => {
            format!("no events come from {}: {}\n", safe(&subscription.subscription), safe(problem))
        }
        _ => String::new(),
    }
}

/// How soon changes showed at each node, over the last day and the last week.
fn levels(document: &Document) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["NODE", "CHANGES VISIBLE, LAST DAY", "LAST WEEK"]);
    for node in &document.nodes {
        let (day, week) = (&node.day, &node.week);
        let row = [day.told(document.taken, DAY), week.told(document.taken, WEEK)];
        table.add_row([vec![safe(&node.node)], row.to_vec()].concat());
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

const fn canary_state(node: &Node<'_>) -> &'static str {
    match &node.canary {
        None => "not configured",
        Some(canary) => match (canary.up, &canary.problem) {
            (None, None) => "not sent yet",
            (None, Some(_)) => "not judged",
            (Some(true), _) => "proven",
            (Some(false), _) => "failed",
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
    let mut parts: Vec<_> =
        counts.into_iter().map(|(state, count)| format!("{count} {}", safe(state))).collect();
    if parts.is_empty() {
        parts.push("nothing is watched".to_owned());
    }
    let nodes = &document.nodes;
    let number = |is_so: fn(&Node<'_>) -> bool| nodes.iter().filter(|node| is_so(node)).count();
    let blocked = number(|node| node.admin.as_ref().is_some_and(|a| a.up == Some(false)));
    let failed = number(|node| node.canary.as_ref().is_some_and(|c| c.up == Some(false)));
    let waiting: u64 = nodes.iter().map(|node| node.pending_bans).sum();
    if blocked > 0 {
        parts.push(format!("{} down", counted(blocked as u64, "admin port")));
    }
    if failed > 0 {
        parts.push(format!("{} failed", counted(failed as u64, "canary")));
    }
    let unread = document.subscriptions.iter().filter(|it| it.up == Some(false)).count();
    if unread > 0 {
        parts.push(format!("{} down", counted(unread as u64, "subscription")));
    }
    if waiting > 0 {
        parts.push(format!("{} waiting", counted(waiting, "ban")));
    }
    if document.reload_failed {
        parts.push("the last new configuration was refused".to_owned());
    }
    if document.store_failed {
        parts.push("the state cannot be stored".to_owned());
    }
    parts.join(", ")
}

fn counted(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ => format!("{count} {what}s"),
    }
}

fn safe(text: &str) -> String {
    Untrusted(text).to_string()
}

fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}
