//! The nodes: whether bans reach them and work there, and how soon changes show.

use std::fmt::{self, Write};

use super::super::status::{Changes, DAY, WEEK};
use super::{Escaped, ROWS, ago, write_more};
use crate::engine::{AdminState, CanaryState, NodeSnapshot, Snapshot};

const COLUMNS: usize = 8;

pub(super) fn write(page: &mut String, snapshot: &Snapshot, offset: i64) -> fmt::Result {
    page.push_str(
        "<h2>Nodes</h2>\n<div class=\"table\"><table>\n<tr><th>node<th>admin port<th>last success\
         <th>canary<th>last proven<th>bans waiting<th>changes visible, last day<th>last week\n",
    );
    for node in snapshot.nodes.iter().take(ROWS) {
        write_node(page, node, snapshot, offset)?;
        let admin = node.admin.as_ref().and_then(|admin| admin.problem.as_deref());
        let canary = node.canary.as_ref().and_then(|canary| canary.problem.as_deref());
        write_more(page, COLUMNS, "", admin.unwrap_or_default())?;
        // Most often it is the same one.
        let canary = canary.filter(|_| canary != admin).unwrap_or_default();
        write_more(page, COLUMNS, "the canary: ", canary)?;
    }
    page.push_str("</table></div>\n");
    Ok(())
}

fn write_node(
    page: &mut String,
    node: &NodeSnapshot,
    snapshot: &Snapshot,
    offset: i64,
) -> fmt::Result {
    let (admin_class, admin) = admin_state(node.admin.as_ref());
    let (canary_class, canary) = canary_state(node.canary.as_ref());
    let success = node.admin.as_ref().and_then(|admin| admin.last_success);
    let proven = node.canary.as_ref().and_then(|canary| canary.last_proven);
    let taken = snapshot.taken.shifted(offset).as_seconds();
    writeln!(
        page,
        "<tr><td class=\"name\">{}<td class=\"state {admin_class}\">{admin}<td class=\"time\">{}\
         <td class=\"state {canary_class}\">{canary}<td class=\"time\">{}<td>{}<td>{}<td>{}",
        Escaped(node.node.as_str()),
        success.map(|at| ago(snapshot.taken, at)).unwrap_or_default(),
        proven.map(|at| ago(snapshot.taken, at)).unwrap_or_default(),
        node.pending_bans,
        Escaped(&Changes::of(&node.level.day, offset).told(taken, DAY)),
        Escaped(&Changes::of(&node.level.week, offset).told(taken, WEEK)),
    )
}

fn admin_state(admin: Option<&AdminState>) -> (&'static str, &'static str) {
    match admin.map(|admin| admin.up) {
        None => ("unknown", "not configured"),
        Some(None) => ("unknown", "not checked yet"),
        Some(Some(true)) => ("up", "up"),
        Some(Some(false)) => ("down", "down"),
    }
}

fn canary_state(canary: Option<&CanaryState>) -> (&'static str, &'static str) {
    match canary.map(|canary| (canary.up, &canary.problem)) {
        None => ("unknown", "not configured"),
        Some((None, None)) => ("unknown", "not sent yet"),
        Some((None, Some(_))) => ("unknown", "not judged"),
        Some((Some(true), _)) => ("up", "proven"),
        Some((Some(false), _)) => ("down", "failed"),
    }
}
