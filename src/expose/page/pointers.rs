//! The pointers.

use std::fmt::{self, Write};

use super::{Escaped, ROWS, ago, lasting, write_more};
use crate::engine::{PointerSnapshot, PointerState, Snapshot};
use crate::model::{PointerValue, format_duration};

const COLUMNS: usize = 7;

/// Only where there are pointers; those that need a person first.
pub(super) fn write(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
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
        "<h2>Pointers</h2>\n<div class=\"table\"><table>\n<tr><th>pointer<th>state<th>for<th>leads to<th>before\
         <th>last change<th>allowed\n",
    );
    for pointer in pointers.into_iter().take(ROWS) {
        let label = pointer.state.label();
        let value = |value: &Option<PointerValue>| {
            value.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        writeln!(
            page,
            "<tr><td class=\"name\">{}<td class=\"state {label}\">{label}<td class=\"time\">{}<td>{}\
             <td>{}<td class=\"time\">{}<td class=\"time\">{}",
            Escaped(pointer.pointer.as_str()),
            lasting(snapshot.taken, pointer.since),
            Escaped(&value(&pointer.value)),
            Escaped(&value(&pointer.previous)),
            pointer.last_change.map(|at| ago(snapshot.taken, at)).unwrap_or_default(),
            format_duration(pointer.max_stale),
        )?;
        for finding in &pointer.findings {
            write_more(page, COLUMNS, "", &finding.text)?;
        }
    }
    page.push_str("</table></div>\n");
    Ok(())
}
