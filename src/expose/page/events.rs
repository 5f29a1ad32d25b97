//! Where events come from.

use std::fmt::{self, Write};

use super::super::events::{EventResult, SubscriptionState};
use super::{Escaped, ROWS, ago, write_more};
use crate::model::Timestamp;

const COLUMNS: usize = 9;

/// Only where there are subscriptions; those that cannot be read first.
pub(super) fn write(
    page: &mut String,
    subscriptions: &[SubscriptionState],
    taken: Timestamp,
) -> fmt::Result {
    if subscriptions.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&SubscriptionState> = subscriptions.iter().collect();
    sorted.sort_by_key(|state| state.up != Some(false));
    page.push_str(
        "<h2>Events</h2>\n<div class=\"table\"><table>\n<tr><th>subscription<th>state<th>last event<th>open<th>taken\
         <th>proven<th>failed<th>lost<th>set aside\n",
    );
    for state in sorted.into_iter().take(ROWS) {
        let (class, text) = match state.up {
            None => ("unknown", "listens"),
            Some(true) => ("up", "up"),
            Some(false) => ("down", "down"),
        };
        let last = state.last_event.map(|at| ago(taken, at)).unwrap_or_default();
        let failed = state.results_of(EventResult::FAILED);
        writeln!(
            page,
            "<tr><td class=\"name\">{}<td class=\"state {class}\">{text}<td class=\"time\">{last}<td>{}\
             <td>{}<td>{}<td>{failed}<td>{}<td>{}",
            Escaped(&state.name),
            state.open,
            state.results_of(&[EventResult::Taken]),
            state.results_of(&[EventResult::Proven]),
            state.lost.saturating_add(state.results_of(&[EventResult::Lost])),
            state.set_aside,
        )?;
        write_more(page, COLUMNS, "", state.problem.as_deref().unwrap_or_default())?;
    }
    page.push_str("</table></div>\n");
    Ok(())
}
