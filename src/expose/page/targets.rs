//! The endpoints, those that need a person first.

use std::cmp::Reverse;
use std::fmt::{self, Write};

use super::{Escaped, ROWS, lasting, urgency, whole_seconds, write_more};
use crate::engine::{Snapshot, TargetSnapshot};
use crate::model::{Version, format_duration};
use crate::verdict::Explanation;

const COLUMNS: usize = 9;

/// So much of a version is enough to tell two apart, in characters.
const VERSION: usize = 18;

pub(super) fn write(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let mut targets: Vec<&TargetSnapshot> = snapshot.targets.iter().collect();
    targets.sort_by_key(|target| {
        (urgency(target.state), Reverse(target.staleness.unwrap_or_default()))
    });
    page.push_str(
        "<h2>Endpoints</h2>\n<div class=\"table\"><table>\n<tr><th>endpoint<th>variant<th>node\
         <th>state<th>for<th>stale for<th>allowed<th>node serves<th>origin serves\n",
    );
    for target in targets.iter().take(ROWS) {
        write_target(page, target, snapshot)?;
    }
    page.push_str("</table></div>\n");
    match targets.len().saturating_sub(ROWS) {
        0 => Ok(()),
        left_out => writeln!(page, "<p class=\"note\">{left_out} more are not shown.</p>"),
    }
}

fn write_target(page: &mut String, target: &TargetSnapshot, snapshot: &Snapshot) -> fmt::Result {
    let label = target.state.label();
    let stale = target.staleness.filter(|staleness| !staleness.is_zero());
    writeln!(
        page,
        "<tr><td class=\"name\">{}<td class=\"name\">{}<td class=\"name\">{}\
         <td class=\"state {label}\">{label}<td class=\"time\">{}<td class=\"time\">{}\
         <td class=\"time\">{}<td class=\"name\">{}<td class=\"name\">{}",
        Escaped(target.endpoint.as_str()),
        Escaped(target.variant.as_str()),
        Escaped(target.node.as_str()),
        lasting(snapshot.taken, target.since),
        stale.map(|s| format_duration(whole_seconds(s))).unwrap_or_default(),
        format_duration(target.max_stale),
        Escaped(&version(target.node_version.as_ref())),
        Escaped(&version(target.origin_version.as_ref())),
    )?;
    write_more(page, COLUMNS, "", target.reason.as_deref().unwrap_or_default())?;
    if let Some(explanation) = &target.cause {
        write_cause(page, explanation)?;
    }
    let remedy = target.remedy.as_ref().map_or("", |remedy| &remedy.result);
    write_more(page, COLUMNS, "the last remedy: ", remedy)
}

fn version(version: Option<&Version>) -> String {
    let short = version.map(Version::short).unwrap_or_default();
    match short.char_indices().nth(VERSION) {
        Some((end, _)) => format!("{}…", short.get(..end).unwrap_or(&short)),
        None => short,
    }
}

fn write_cause(page: &mut String, explanation: &Explanation) -> fmt::Result {
    let cause = explanation.cause.label();
    write!(
        page,
        "<tr class=\"more\"><td colspan=\"{COLUMNS}\"><span class=\"state\">{cause}</span>"
    )?;
    page.push_str("<ul>");
    for finding in &explanation.findings {
        write!(page, "<li>{}", Escaped(finding))?;
    }
    page.push_str("</ul>\n");
    Ok(())
}
