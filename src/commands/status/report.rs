//! The daemon's document, as tables for people.

use std::borrow::Cow;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::super::output::{Output, Untrusted};
use crate::expose::status::{Changes, Document, Node, Pointer, Subscription, Target};
use crate::model::{VariantName, format_duration};

const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;

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
        let window = |changes, length| level(changes, document.taken, length);
        table.add_row([safe(&node.node), window(&node.day, DAY), window(&node.week, 7.0 * DAY)]);
    }
    lines(&table)
}

/// `99.9 % of 1204 within 5s`: the shortest time within which that share of the changes showed, or
/// else the share that did within the longest time that is counted. A change that does not show yet
/// counts against the times that it has exceeded, and is named besides.
fn level(changes: &Changes, taken: f64, length: f64) -> String {
    let counted = taken - changes.since;
    // Less than an hour short of the whole time is the grain of the count.
    let since = if counted + HOUR < length {
        format!(", counted for {}", seconds(counted))
    } else {
        String::new()
    };
    let missing = changes.missing_seconds.values().next().copied().unwrap_or_default();
    let showed = changes.changes.saturating_sub(missing);
    let late = |step: &u64| changes.missing_seconds.get(step).copied().unwrap_or(missing);
    let all = |step: &u64| showed.saturating_add(late(step));
    let within = |step: &u64| format_duration(Duration::from_secs(*step));
    let enough =
        |(step, showed): &(&u64, &u64)| u128::from(**showed) * 1_000 >= u128::from(all(step)) * 999;
    let reached = changes.within_seconds.iter().find(enough).filter(|_| showed > 0);
    let mut text = match (reached, changes.within_seconds.last_key_value()) {
        _ if changes.changes == 0 => "none seen".to_owned(),
        (Some((step, count)), _) if *count >= all(step) => {
            format!("all {count} within {}", within(step))
        }
        (Some((step, _)), _) => format!("99.9 % of {} within {}", all(step), within(step)),
        // Rounded down: what is missing must not vanish.
        (None, Some((step, count))) if all(step) > 0 => {
            let tenths = u128::from(*count) * 1_000 / u128::from(all(step));
            format!("{}.{} % of {} within {}", tenths / 10, tenths % 10, all(step), within(step))
        }
        _ => "none yet".to_owned(),
    };
    if missing > 0 {
        let lasting = changes.oldest_missing_seconds.map(seconds).unwrap_or_default();
        text.push_str(&format!("; {missing} not visible for {lasting}"));
    }
    text + &since
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_level_is_said_in_one_line() {
        let steps = |counts: [u64; 3]| [1, 5, 3_600].into_iter().zip(counts).collect();
        let behind = |all, within, missing, counted| {
            let changes = Changes {
                since: 1e9 - counted,
                changes: all,
                within_seconds: steps(within),
                missing_seconds: steps(missing),
                oldest_missing_seconds: (missing[0] > 0).then_some(26.0),
            };
            level(&changes, 1e9, DAY)
        };
        let say = |all, within, counted| behind(all, within, [0, 0, 0], counted);
        assert_eq!(say(0, [0, 0, 0], DAY), "none seen");
        assert_eq!(say(3, [1, 3, 3], DAY), "all 3 within 5s");
        assert_eq!(say(2_000, [100, 1_998, 2_000], DAY), "99.9 % of 2000 within 5s");
        assert_eq!(say(2_000, [100, 1_997, 1_997], DAY), "99.8 % of 2000 within 1h");
        assert_eq!(say(1, [0, 0, 0], 120.0), "0.0 % of 1 within 1h, counted for 2m");
        // What has not shown for 26 s may still show within the hour, and did not within 5 s.
        let said = behind(9, [7, 7, 7], [2, 2, 0], DAY);
        assert_eq!(said, "all 7 within 1h; 2 not visible for 26s");
        assert_eq!(behind(9, [7, 7, 7], [2, 0, 0], DAY), "all 7 within 5s; 2 not visible for 26s");
        assert_eq!(
            behind(9, [7, 7, 7], [2, 2, 2], DAY),
            "77.7 % of 9 within 1h; 2 not visible for 26s"
        );
        let said = behind(2, [0, 0, 0], [2, 2, 0], 120.0);
        assert_eq!(said, "none yet; 2 not visible for 26s, counted for 2m");
    }
}
