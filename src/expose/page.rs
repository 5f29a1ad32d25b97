//! `/`: a page for people, with what is wrong at the top. No script, and nothing from elsewhere.

use std::fmt::Write;

use super::events::{EventResult, SubscriptionState};
use crate::engine::{NodeSnapshot, PointerSnapshot, PointerState, Snapshot, TargetSnapshot};
use crate::model::{Timestamp, format_duration};
use crate::verdict::{Explanation, State};

/// More rows than this are for programs: the API has them all.
const ROWS: usize = 500;

/// Longer texts are cut: a reason or a version is one line.
const LONGEST: usize = 300;

pub(super) const STYLE: &str = "\
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
td { overflow-wrap: anywhere; }
.state { font-weight: 600; white-space: nowrap; }
.stale, .down, .broken, .split, .unreadable { color: #c62828; }
.lagging, .unverifiable, .cache_down, .origin_down { color: #b26a00; }
.fresh, .up, .good { color: #2e7d32; }
.unknown { color: #777; }
.note { color: #777; }
.cause td { padding-left: 2rem; }
.cause ul { margin: .2rem 0; padding-left: 1.2rem; }
";

/// The order of the rows: what needs a person first.
const fn urgency(state: State) -> u8 {
    match state {
        State::Stale => 0,
        State::CacheDown => 1,
        State::OriginDown => 2,
        State::Lagging => 3,
        State::Unverifiable => 4,
        State::Unknown => 5,
        State::Fresh => 6,
    }
}

/// Writes the page.
pub(super) fn render(snapshot: &Snapshot, subscriptions: &[SubscriptionState]) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, snapshot, subscriptions);
    page
}

fn write_page(
    page: &mut String,
    snapshot: &Snapshot,
    subscriptions: &[SubscriptionState],
) -> std::fmt::Result {
    page.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"refresh\" content=\"15\">\n\
         <title>purgewatch</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
         <h1>purgewatch</h1>\n",
    );
    write_summary(page, snapshot, subscriptions)?;
    write_nodes(page, snapshot)?;
    write_subscriptions(page, subscriptions, snapshot.taken)?;
    write_pointers(page, snapshot)?;
    write_targets(page, snapshot)?;
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        page,
        "<p class=\"note\">purgewatch {version} · <a href=\"/metrics\">metrics</a> · \
         <a href=\"/api/v1/status\">status as JSON</a></p>\n</html>"
    )
}

fn write_summary(
    page: &mut String,
    snapshot: &Snapshot,
    subscriptions: &[SubscriptionState],
) -> std::fmt::Result {
    let mut counts: Vec<(State, usize)> = State::ALL
        .into_iter()
        .map(|state| (state, snapshot.targets.iter().filter(|t| t.state == state).count()))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.sort_by_key(|(state, _)| urgency(*state));
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let endpoints = counted(snapshot.endpoints, "endpoint");
    write!(page, "<p>{endpoints} at {}:", counted(snapshot.nodes.len(), "node"))?;
    for (place, (state, count)) in counts.into_iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let label = state.label();
        write!(page, "{comma} <span class=\"state {label}\">{count} {label}</span>")?;
    }
    page.push('.');
    // All may be fresh while bans do not work: that has to stand beside it.
    let number =
        |is_so: fn(&NodeSnapshot) -> bool| snapshot.nodes.iter().filter(|n| is_so(n)).count();
    let blocked = number(|node| node.admin.as_ref().is_some_and(|a| a.up == Some(false)));
    let failed = number(|node| node.canary.as_ref().is_some_and(|c| c.up == Some(false)));
    let waiting: usize = snapshot.nodes.iter().map(|node| node.pending_bans).sum();
    if blocked > 0 {
        let nodes = counted(blocked, "node");
        write!(page, " <span class=\"state down\">Bans cannot reach {nodes}.</span>")?;
    }
    if failed > 0 {
        let nodes = counted(failed, "node");
        write!(page, " <span class=\"state down\">Bans do not work at {nodes}.</span>")?;
    }
    let unread = subscriptions.iter().filter(|state| state.up == Some(false)).count();
    if unread > 0 {
        let sources = counted(unread, "subscription");
        write!(page, " <span class=\"state down\">No events come from {sources}.</span>")?;
    }
    if waiting > 0 {
        let bans = counted(waiting, "ban");
        write!(page, " <span class=\"state lagging\">Waiting for nodes: {bans}.</span>")?;
    }
    page.push_str("</p>\n");
    Ok(())
}

fn write_nodes(page: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    page.push_str(
        "<h2>Nodes</h2>\n<table>\n<tr><th>node<th>admin port<th>last success<th>problem<th>canary<th>last proven<th>problem<th>bans waiting\n",
    );
    for node in snapshot.nodes.iter().take(ROWS) {
        let (class, text) = match node.admin.as_ref().map(|admin| admin.up) {
            None => ("unknown", "not configured"),
            Some(None) => ("unknown", "not checked yet"),
            Some(Some(true)) => ("up", "up"),
            Some(Some(false)) => ("down", "down"),
        };
        let admin = node.admin.as_ref();
        let last = admin.and_then(|admin| admin.last_success).map(|at| {
            let ago = format_duration(whole_seconds(snapshot.taken.since(at)));
            format!("{ago} ago")
        });
        write!(
            page,
            "<tr><td>{}<td class=\"state {class}\">{text}<td>{}<td>{}",
            Escaped(node.node.as_str()),
            last.unwrap_or_default(),
            Escaped(admin.and_then(|admin| admin.problem.as_deref()).unwrap_or_default()),
        )?;
        write_canary(page, node, snapshot.taken)?;
    }
    page.push_str("</table>\n");
    Ok(())
}

fn write_canary(page: &mut String, node: &NodeSnapshot, taken: Timestamp) -> std::fmt::Result {
    let canary = node.canary.as_ref();
    let (class, text) = match canary.map(|canary| (canary.up, &canary.problem)) {
        None => ("unknown", "not configured"),
        Some((None, None)) => ("unknown", "not sent yet"),
        Some((None, Some(_))) => ("unknown", "not judged"),
        Some((Some(true), _)) => ("up", "proven"),
        Some((Some(false), _)) => ("down", "failed"),
    };
    let last = canary.and_then(|canary| canary.last_proven);
    let last = last.map(|at| format!("{} ago", format_duration(whole_seconds(taken.since(at)))));
    writeln!(
        page,
        "<td class=\"state {class}\">{text}<td>{}<td>{}<td>{}",
        last.unwrap_or_default(),
        Escaped(canary.and_then(|canary| canary.problem.as_deref()).unwrap_or_default()),
        node.pending_bans,
    )
}

/// Only where there are subscriptions; those that cannot be read first.
fn write_subscriptions(
    page: &mut String,
    subscriptions: &[SubscriptionState],
    taken: Timestamp,
) -> std::fmt::Result {
    if subscriptions.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&SubscriptionState> = subscriptions.iter().collect();
    sorted.sort_by_key(|state| state.up != Some(false));
    page.push_str(
        "<h2>Events</h2>\n<table>\n<tr><th>subscription<th>state<th>last event<th>open<th>taken\
         <th>proven<th>failed<th>lost<th>set aside<th>problem\n",
    );
    for state in sorted.into_iter().take(ROWS) {
        let (class, text) = match state.up {
            None => ("unknown", "listens"),
            Some(true) => ("up", "up"),
            Some(false) => ("down", "down"),
        };
        let last = state.last_event.map(|at| format_duration(whole_seconds(taken.since(at))));
        let last = last.map(|ago| format!("{ago} ago")).unwrap_or_default();
        let failed = state.results_of(EventResult::FAILED);
        writeln!(
            page,
            "<tr><td>{}<td class=\"state {class}\">{text}<td>{last}<td>{}<td>{}<td>{}<td>{failed}\
             <td>{}<td>{}<td>{}",
            Escaped(&state.name),
            state.open,
            state.results_of(&[EventResult::Taken]),
            state.results_of(&[EventResult::Proven]),
            state.lost.saturating_add(state.results_of(&[EventResult::Lost])),
            state.set_aside,
            Escaped(state.problem.as_deref().unwrap_or_default()),
        )?;
    }
    page.push_str("</table>\n");
    Ok(())
}

/// Only where there are pointers; those that need a person first.
fn write_pointers(page: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    if snapshot.pointers.is_empty() {
        return Ok(());
    }
    let urgency = |pointer: &&PointerSnapshot| match pointer.state {
        state if state.is_alarm() => 0,
        PointerState::Good => 2,
        _ => 1,
    };
    let mut pointers: Vec<&PointerSnapshot> = snapshot.pointers.iter().collect();
    pointers.sort_by_key(urgency);
    page.push_str(
        "<h2>Pointers</h2>\n<table>\n<tr><th>pointer<th>state<th>for<th>leads to<th>before\
         <th>last change<th>allowed<th>reason\n",
    );
    for pointer in pointers.into_iter().take(ROWS) {
        let label = pointer.state.label();
        let ago = |at: Timestamp| format_duration(whole_seconds(snapshot.taken.since(at)));
        let value = |value: &Option<crate::model::PointerValue>| {
            value.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        write!(
            page,
            "<tr><td>{}<td class=\"state {label}\">{label}<td>{}<td>{}<td>{}<td>{}<td>{}<td>",
            Escaped(pointer.pointer.as_str()),
            ago(pointer.since),
            Escaped(&value(&pointer.value)),
            Escaped(&value(&pointer.previous)),
            pointer.last_change.map(|at| format!("{} ago", ago(at))).unwrap_or_default(),
            format_duration(pointer.max_stale),
        )?;
        for finding in &pointer.findings {
            write!(page, "{}<br>", Escaped(&finding.text))?;
        }
        page.push('\n');
    }
    page.push_str("</table>\n");
    Ok(())
}

fn write_targets(page: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    let mut targets: Vec<&TargetSnapshot> = snapshot.targets.iter().collect();
    targets.sort_by_key(|target| {
        let staleness = target.staleness.unwrap_or_default();
        (urgency(target.state), std::cmp::Reverse(staleness))
    });
    page.push_str(
        "<h2>Endpoints</h2>\n<table>\n<tr><th>endpoint<th>variant<th>node<th>state<th>for\
         <th>stale for<th>allowed<th>node serves<th>origin serves<th>reason<th>remedy\n",
    );
    for target in targets.iter().take(ROWS) {
        let label = target.state.label();
        let lasting = format_duration(whole_seconds(snapshot.taken.since(target.since)));
        let stale = target.staleness.filter(|staleness| !staleness.is_zero());
        let stale = stale.map(|s| format_duration(whole_seconds(s))).unwrap_or_default();
        let version = |version: &Option<crate::model::Version>| {
            version.as_ref().map(crate::model::Version::short).unwrap_or_default()
        };
        writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}<td class=\"state {label}\">{label}<td>{lasting}<td>{stale}\
             <td>{}<td>{}<td>{}<td>{}<td>{}",
            Escaped(target.endpoint.as_str()),
            Escaped(target.variant.as_str()),
            Escaped(target.node.as_str()),
            format_duration(target.max_stale),
            Escaped(&version(&target.node_version)),
            Escaped(&version(&target.origin_version)),
            Escaped(target.reason.as_deref().unwrap_or_default()),
            Escaped(target.remedy.as_ref().map_or("", |remedy| &remedy.result)),
        )?;
        if let Some(explanation) = &target.cause {
            write_cause(page, explanation)?;
        }
    }
    page.push_str("</table>\n");
    let left_out = targets.len().saturating_sub(ROWS);
    if left_out > 0 {
        writeln!(page, "<p class=\"note\">{left_out} more are not shown.</p>")?;
    }
    Ok(())
}

/// A row of its own below the endpoint's, since its sentences are long.
fn write_cause(page: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let cause = explanation.cause.label();
    write!(page, "<tr class=\"cause\"><td colspan=\"11\"><span class=\"state\">{cause}</span>")?;
    page.push_str("<ul>");
    for finding in &explanation.findings {
        write!(page, "<li>{}", Escaped(finding))?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

fn whole_seconds(duration: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_secs(duration.as_secs())
}

/// Text from outside within a page: markup is escaped, control characters are shown as `\u{fffd}`,
/// and it has an end.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, c) in self.0.chars().enumerate() {
            match c {
                _ if place == LONGEST => return f.write_char('…'),
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Marks that turn the direction of text around could show something else.
                c if c.is_control()
                    || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    f.write_char('\u{fffd}')?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let escaped = |text: &str| Escaped(text).to_string();
        assert_eq!(escaped("<a href='x\">&"), "&lt;a href=&#39;x&quot;&gt;&amp;");
        assert_eq!(escaped("a\u{1b}[31m\u{202e}b"), "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(escaped(&"x".repeat(1_000)).chars().count(), LONGEST + 1);
    }
}
