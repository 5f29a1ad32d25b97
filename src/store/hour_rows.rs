//! How soon changes showed at the nodes, hour by hour, to and from rows.

use rusqlite::{Connection, Row, params};

use super::pending::Pending;
use super::rows::from_stored;
use crate::engine::{HourRecord, STEPS};
use crate::model::{NodeName, Timestamp};

/// What makes the table.
pub(super) const TABLE: &str = "CREATE TABLE hour (
        node TEXT NOT NULL,
        hour INTEGER NOT NULL,
        since INTEGER NOT NULL,
        counts TEXT NOT NULL,
        UNIQUE (node, hour)
    ) STRICT;";

/// What reads it, from a row number on.
pub(super) const QUERY: &str = "SELECT rowid, node, hour, since, counts FROM hour NOT INDEXED
    WHERE rowid >= ?1 ORDER BY rowid";

/// Milliseconds in an hour.
const HOUR: i64 = 3_600_000;

/// Nobody asks for hours that are longer ago than this.
const KEPT: i64 = 8 * 24;

/// The same hour on a clock that is `milliseconds` ahead: the nearest one, so that a clock that is
/// being adjusted gives it no second name.
pub(super) fn shifted(hour: u64, milliseconds: i64) -> u64 {
    let hours = milliseconds.saturating_add(HOUR / 2).div_euclid(HOUR);
    hour.saturating_add_signed(hours)
}

/// Writes what waits, with times as `wall` has them, which is `offset` milliseconds ahead.
pub(super) fn write(
    connection: &Connection,
    pending: &Pending,
    wall: impl Fn(Timestamp) -> i64,
    offset: i64,
) -> rusqlite::Result<()> {
    let mut records = pending.hours().peekable();
    if records.peek().is_none() {
        return Ok(());
    }
    let mut put = connection.prepare(
        "INSERT INTO hour (node, hour, since, counts) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (node, hour) DO UPDATE SET since = excluded.since, counts = excluded.counts",
    )?;
    let mut latest = 0;
    for record in records {
        let hour = shifted(record.hour, offset).cast_signed();
        latest = latest.max(hour);
        // Numbers only: there is nothing that could fail.
        let counts = serde_json::to_string(&record.counts).unwrap_or_default();
        put.execute(params![record.node.as_str(), hour, wall(record.since), counts])?;
    }
    connection.execute("DELETE FROM hour WHERE hour < ?1", [latest.saturating_sub(KEPT)])?;
    Ok(())
}

/// The record of a row; `None` when it does not parse.
pub(super) fn record_of(row: &Row<'_>) -> Option<HourRecord> {
    let counts: [u32; STEPS.len() + 1] =
        serde_json::from_str(&row.get::<_, String>(4).ok()?).ok()?;
    Some(HourRecord {
        node: NodeName::new(&row.get::<_, String>(1).ok()?).ok()?,
        hour: u64::try_from(row.get::<_, i64>(2).ok()?).ok()?,
        since: from_stored(row.get(3).ok()?)?,
        counts,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two hours of a node.
    pub(in crate::store) fn samples() -> Vec<HourRecord> {
        let node = NodeName::new("n").unwrap();
        let since = Timestamp::from_millis(1_700_000_000_000);
        [472_222, 472_223]
            .map(|hour| HourRecord { node: node.clone(), hour, since, counts: [1; 10] })
            .into()
    }

    #[test]
    fn an_hour_is_moved_by_whole_ones() {
        assert_eq!(shifted(100, 0), 100);
        assert_eq!(shifted(100, 999), 100);
        assert_eq!(shifted(100, -999), 100);
        assert_eq!(shifted(100, HOUR), 101);
        assert_eq!(shifted(100, -2 * HOUR + 7), 98);
        assert_eq!(shifted(1, -5 * HOUR), 0);
    }
}
