//! The layout of the file, and records to and from its rows.
//!
//! A table of histories and one of verdicts, both with an implicit row number, and one of the
//! ledger by its own numbers: that is what a damaged file is searched by. Layout 1 had no ledger,
//! and layout 2 did not count by the hour how soon changes showed. Times are milliseconds of the
//! wall clock since the Unix epoch, versions the text of [`Version`], a history one JSON object.

use rusqlite::{Connection, ErrorCode, Row, Statement, params};
use serde::{Deserialize, Serialize};

use super::pending::Pending;
use super::{hour_rows, ledger_rows};
use crate::engine::{HistoryRecord, LedgerRecord, Record, Restored, VerdictRecord};
use crate::model::{EndpointName, NodeName, Timestamp, VariantName, Version};
use crate::verdict::{HistoryParts, Mismatch, Seen, State, Verdict};

/// The number of this layout, kept in `user_version`.
pub(super) const LAYOUT: i64 = 3;

/// What marks the file as ours, kept in `application_id`: "pwst".
pub(super) const APPLICATION: i64 = 0x7077_7374;

/// How many row numbers in a row may fail before the rest of a table is given up.
const MISSES: i64 = 20_000;

/// What was read from a file; times are the wall clock's.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) found: Restored,
    /// Rows that do not parse, and gaps in a damaged file, one each.
    pub(super) skipped: usize,
    /// The first error of the database itself, if there was one.
    pub(super) error: Option<rusqlite::Error>,
}

/// Makes the tables in an empty file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE history (
             endpoint TEXT NOT NULL,
             variant TEXT NOT NULL,
             definition INTEGER NOT NULL,
             versions TEXT NOT NULL,
             UNIQUE (endpoint, variant)
         ) STRICT;
         CREATE TABLE verdict (
             endpoint TEXT NOT NULL,
             variant TEXT NOT NULL,
             node TEXT NOT NULL,
             definition INTEGER NOT NULL,
             state TEXT NOT NULL,
             since INTEGER NOT NULL,
             stale_since INTEGER,
             mismatch_since INTEGER,
             mismatch_version TEXT,
             mismatch_changes INTEGER,
             last_probe INTEGER,
             last_fresh INTEGER,
             failures INTEGER NOT NULL,
             recorded INTEGER NOT NULL,
             UNIQUE (endpoint, variant, node)
         ) STRICT;
         {ledger}
         {hour}
         PRAGMA application_id = {APPLICATION};
         PRAGMA user_version = {LAYOUT};
         COMMIT;",
        ledger = ledger_rows::TABLE,
        hour = hour_rows::TABLE,
    ))
}

/// Brings a file of an earlier layout up to this one, in one step; its records are kept.
pub(super) fn migrate(connection: &Connection, from: i64) -> rusqlite::Result<()> {
    let ledger = if from < 2 { ledger_rows::TABLE } else { "" };
    let hour = if from < 3 { hour_rows::TABLE } else { "" };
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {ledger} {hour} PRAGMA user_version = {LAYOUT}; COMMIT;"
    ))
}

/// Reads every row that can be read, also of a damaged file: where a page is broken, the search
/// goes on behind it by row number.
pub(super) fn read(connection: &Connection) -> Read {
    let mut read = Read::default();
    let mut histories = Vec::new();
    let mut verdicts = Vec::new();
    const HISTORIES: &str = "SELECT rowid, endpoint, variant, definition, versions
        FROM history NOT INDEXED WHERE rowid >= ?1 ORDER BY rowid";
    const VERDICTS: &str = "SELECT rowid, endpoint, variant, node, definition, state, since,
        stale_since, mismatch_since, mismatch_version, mismatch_changes, last_probe, last_fresh,
        failures, recorded
        FROM verdict NOT INDEXED WHERE rowid >= ?1 ORDER BY rowid";
    read_table(connection, HISTORIES, &mut read, |row| {
        let record = history_of(row);
        let parses = record.is_some();
        histories.extend(record);
        parses
    });
    read_table(connection, VERDICTS, &mut read, |row| {
        let record = verdict_of(row);
        let parses = record.is_some();
        verdicts.extend(record);
        parses
    });
    let mut ledger = Vec::new();
    // A file of layout 1 that may not be written to has none.
    if connection.table_exists(None, "ledger").unwrap_or(true) {
        read_table(connection, ledger_rows::QUERY, &mut read, |row| {
            let entry = ledger_rows::entry_of(row);
            let parses = entry.is_some();
            ledger.extend(entry);
            parses
        });
    }
    let mut hours = Vec::new();
    if connection.table_exists(None, "hour").unwrap_or(true) {
        read_table(connection, hour_rows::QUERY, &mut read, |row| {
            let record = hour_rows::record_of(row);
            let parses = record.is_some();
            hours.extend(record);
            parses
        });
    }
    read.found = Restored { histories, verdicts, ledger, hours };
    read
}

fn read_table(
    connection: &Connection,
    query: &str,
    read: &mut Read,
    mut take: impl FnMut(&Row<'_>) -> bool,
) {
    let mut statement = match connection.prepare(query) {
        Ok(statement) => statement,
        Err(error) => {
            read.error.get_or_insert(error);
            return;
        }
    };
    let (mut next, mut misses) = (i64::MIN, 0);
    loop {
        let scanned = scan(&mut statement, next, |row, number| {
            // Pages that lead in a circle give no end of rows; sound ones give them in order.
            if number < next {
                read.skipped += 1;
                return false;
            }
            misses = 0;
            next = number.saturating_add(1);
            if !take(row) {
                read.skipped += 1;
            }
            true
        });
        let Err(error) = scanned else { return };
        if misses == 0 {
            read.skipped += 1;
        }
        misses += 1;
        // Row numbers count from 1; before the first row was read, the search starts there.
        next = next.max(0).saturating_add(1);
        let may_go_on = error.sqlite_error().is_some_and(|e| {
            matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure)
        });
        read.error.get_or_insert(error);
        if !may_go_on || misses > MISSES {
            return;
        }
    }
}

/// Reads rows from number `from` on, until the end, the first error, or until `take` has enough.
fn scan(
    statement: &mut Statement<'_>,
    from: i64,
    mut take: impl FnMut(&Row<'_>, i64) -> bool,
) -> rusqlite::Result<()> {
    let mut rows = statement.query([from])?;
    while let Some(row) = rows.next()? {
        if !take(row, row.get(0)?) {
            break;
        }
    }
    Ok(())
}

/// How many records these are.
pub(super) fn count(restored: &Restored) -> usize {
    restored.histories.len()
        + restored.verdicts.len()
        + restored.ledger.len()
        + restored.hours.len()
}

/// Everything that was read, as records to be written.
pub(super) fn records(restored: &Restored) -> Vec<Record> {
    let histories = restored.histories.iter().cloned().map(Record::History);
    let verdicts = restored.verdicts.iter().cloned().map(Record::Verdict);
    let ledger = restored.ledger.iter().cloned();
    let ledger = ledger.map(|entry| Record::Ledger(LedgerRecord::Put { entry, first: false }));
    let hours = restored.hours.iter().cloned().map(Record::Hour);
    histories.chain(verdicts).chain(ledger).chain(hours).collect()
}

/// Writes what waits, with times moved from the program's line to the wall clock, which is
/// `offset` milliseconds ahead. The caller holds the transaction.
pub(super) fn write(
    connection: &Connection,
    pending: &Pending,
    offset: i64,
) -> rusqlite::Result<()> {
    let mut forget_history =
        connection.prepare("DELETE FROM history WHERE endpoint = ?1 AND variant = ?2")?;
    let mut forget_verdicts =
        connection.prepare("DELETE FROM verdict WHERE endpoint = ?1 AND variant = ?2")?;
    // An update in place keeps row numbers dense.
    let mut put_history = connection.prepare(
        "INSERT INTO history (endpoint, variant, definition, versions) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (endpoint, variant) DO UPDATE SET
             definition = excluded.definition, versions = excluded.versions",
    )?;
    let mut put_verdict = connection.prepare(
        "INSERT INTO verdict (endpoint, variant, node, definition, state, since, stale_since,
             mismatch_since, mismatch_version, mismatch_changes, last_probe, last_fresh, failures,
             recorded)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (endpoint, variant, node) DO UPDATE SET
             definition = excluded.definition, state = excluded.state, since = excluded.since,
             stale_since = excluded.stale_since, mismatch_since = excluded.mismatch_since,
             mismatch_version = excluded.mismatch_version,
             mismatch_changes = excluded.mismatch_changes, last_probe = excluded.last_probe,
             last_fresh = excluded.last_fresh, failures = excluded.failures,
             recorded = excluded.recorded",
    )?;
    let wall = |at: Timestamp| to_stored(at.shifted(offset));
    for (endpoint, variant, group) in pending.groups() {
        if group.forget {
            forget_history.execute([endpoint.as_str(), variant.as_str()])?;
            forget_verdicts.execute([endpoint.as_str(), variant.as_str()])?;
        }
        if let Some(history) = &group.history {
            put_history.execute(params![
                endpoint.as_str(),
                variant.as_str(),
                history.definition.cast_signed(),
                StoredHistory::new(&history.parts, wall).to_json(),
            ])?;
        }
        for (node, record) in &group.verdicts {
            let verdict = &record.verdict;
            let run = verdict.mismatch.as_ref();
            put_verdict.execute(params![
                endpoint.as_str(),
                variant.as_str(),
                node.as_str(),
                record.definition.cast_signed(),
                verdict.state.label(),
                wall(verdict.since),
                verdict.stale_since.map(wall),
                run.map(|run| wall(run.since)),
                run.map(|run| run.version.to_string()),
                run.map(|run| run.changes),
                verdict.last_probe.map(wall),
                verdict.last_fresh.map(wall),
                verdict.failures,
                wall(record.recorded),
            ])?;
        }
    }
    ledger_rows::write(connection, pending, wall)?;
    hour_rows::write(connection, pending, wall, offset)
}

fn to_stored(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn from_stored(milliseconds: i64) -> Option<Timestamp> {
    u64::try_from(milliseconds).ok().map(Timestamp::from_millis)
}

fn history_of(row: &Row<'_>) -> Option<HistoryRecord> {
    let stored: StoredHistory = serde_json::from_str(&row.get::<_, String>(4).ok()?).ok()?;
    Some(HistoryRecord {
        endpoint: EndpointName::new(&row.get::<_, String>(1).ok()?).ok()?,
        variant: VariantName::new(&row.get::<_, String>(2).ok()?).ok()?,
        definition: row.get::<_, i64>(3).ok()?.cast_unsigned(),
        parts: stored.into_parts()?,
    })
}

fn verdict_of(row: &Row<'_>) -> Option<VerdictRecord> {
    let time = |column| row.get::<_, i64>(column).ok().and_then(from_stored);
    // `None` where the column is NULL, nothing at all where it is no time.
    let maybe_time = |column| match row.get::<_, Option<i64>>(column).ok()? {
        None => Some(None),
        Some(stored) => from_stored(stored).map(Some),
    };
    let mismatch = match row.get::<_, Option<String>>(9).ok()? {
        None => None,
        Some(version) => Some(Mismatch {
            since: time(8)?,
            version: version.parse::<Version>().ok()?,
            changes: row.get(10).ok()?,
        }),
    };
    let state = State::from_label(&row.get::<_, String>(5).ok()?)?;
    Some(VerdictRecord {
        endpoint: EndpointName::new(&row.get::<_, String>(1).ok()?).ok()?,
        variant: VariantName::new(&row.get::<_, String>(2).ok()?).ok()?,
        node: NodeName::new(&row.get::<_, String>(3).ok()?).ok()?,
        definition: row.get::<_, i64>(4).ok()?.cast_unsigned(),
        verdict: Verdict {
            state,
            since: time(6)?,
            stale_since: maybe_time(7)?,
            mismatch,
            last_probe: maybe_time(11)?,
            last_fresh: maybe_time(12)?,
            failures: row.get(13).ok()?,
        },
        recorded: time(14)?,
    })
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHistory {
    seen: Vec<StoredVersion>,
    returns: Vec<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredVersion {
    version: String,
    first_seen: i64,
    last_seen: i64,
    superseded: Option<i64>,
}

impl StoredHistory {
    fn new(parts: &HistoryParts, wall: impl Fn(Timestamp) -> i64) -> Self {
        let version = |seen: &Seen| StoredVersion {
            version: seen.version.to_string(),
            first_seen: wall(seen.first_seen),
            last_seen: wall(seen.last_seen),
            superseded: seen.superseded.map(&wall),
        };
        Self {
            seen: parts.seen.iter().map(version).collect(),
            returns: parts.returns.iter().map(|at| wall(*at)).collect(),
        }
    }

    fn to_json(&self) -> String {
        // Strings and numbers only: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn into_parts(self) -> Option<HistoryParts> {
        let seen = |stored: StoredVersion| {
            Some(Seen {
                version: stored.version.parse().ok()?,
                first_seen: from_stored(stored.first_seen)?,
                last_seen: from_stored(stored.last_seen)?,
                superseded: match stored.superseded {
                    None => None,
                    Some(at) => Some(from_stored(at)?),
                },
            })
        };
        Some(HistoryParts {
            seen: self.seen.into_iter().map(seen).collect::<Option<_>>()?,
            returns: self.returns.into_iter().map(from_stored).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mark;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn sample() -> Restored {
        let endpoint = EndpointName::new("api").unwrap();
        let version = |tag: &str| Version { status: 200, mark: Mark::Etag(tag.into()) };
        let seen = |tag: &str, superseded| Seen {
            version: version(tag),
            first_seen: at(10),
            last_seen: at(20),
            superseded,
        };
        let verdict = |node: &str, state, mismatch: Option<Mismatch>| VerdictRecord {
            endpoint: endpoint.clone(),
            variant: VariantName::default(),
            node: NodeName::new(node).unwrap(),
            definition: 7,
            verdict: Verdict {
                state,
                since: at(30),
                stale_since: mismatch.as_ref().map(|run| run.since),
                mismatch,
                last_probe: Some(at(40)),
                last_fresh: None,
                failures: 2,
            },
            recorded: at(50),
        };
        let run = Mismatch { since: at(25), version: version("\"old\""), changes: 1 };
        Restored {
            histories: vec![HistoryRecord {
                endpoint: endpoint.clone(),
                variant: VariantName::default(),
                definition: u64::MAX,
                parts: HistoryParts {
                    seen: vec![seen("\"old\"", Some(at(25))), seen("n'; --", None)],
                    returns: vec![at(15)],
                },
            }],
            verdicts: vec![verdict("a", State::Stale, Some(run)), verdict("b", State::Fresh, None)],
            ledger: ledger_rows::tests::samples(),
            hours: hour_rows::tests::samples(),
        }
    }

    fn stored(restored: &Restored, offset: i64) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection).unwrap();
        let mut pending = Pending::default();
        pending.add_older(records(restored));
        write(&connection, &pending, offset).unwrap();
        connection
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let connection = stored(&sample(), 0);
        let again = read(&connection);
        assert_eq!(again.found, sample());
        assert!(again.skipped == 0 && again.error.is_none());
    }

    #[test]
    fn times_are_stored_as_the_wall_clock_shows_them() {
        let found = read(&stored(&sample(), 3_600_000)).found;
        assert_eq!(found.verdicts[0].recorded, at(3_650));
        assert_eq!(found.histories[0].parts.seen[0].superseded, Some(at(3_625)));
    }

    #[test]
    fn rows_that_do_not_parse_are_counted_and_the_rest_is_kept() {
        for damage in [
            "UPDATE verdict SET state = 'excellent' WHERE node = 'b'",
            "UPDATE verdict SET node = 'a b' WHERE node = 'b'",
            "UPDATE verdict SET recorded = -1 WHERE node = 'b'",
            "UPDATE verdict SET failures = 300 WHERE node = 'b'",
            "UPDATE verdict SET last_probe = -1 WHERE node = 'b'",
            "UPDATE verdict SET mismatch_version = '200 body:zz', mismatch_since = 1,
             mismatch_changes = 0 WHERE node = 'b'",
        ] {
            let connection = stored(&sample(), 0);
            connection.execute(damage, []).unwrap();
            let again = read(&connection);
            assert_eq!(again.skipped, 1, "{damage}");
            assert_eq!(again.found.verdicts, sample().verdicts[..1], "{damage}");
            assert_eq!(again.found.histories, sample().histories, "{damage}");
        }
        let connection = stored(&sample(), 0);
        connection.execute("UPDATE history SET versions = substr(versions, 9)", []).unwrap();
        let again = read(&connection);
        assert_eq!((again.skipped, again.found.histories.len()), (1, 0));
        assert_eq!(again.found.verdicts, sample().verdicts);
    }

    #[test]
    fn forgetting_takes_the_history_and_every_verdict() {
        let connection = stored(&sample(), 0);
        let mut pending = Pending::default();
        let endpoint = EndpointName::new("api").unwrap();
        pending.add(Record::Forget { endpoint, variant: VariantName::default() });
        write(&connection, &pending, 0).unwrap();
        let Restored { ledger, hours, .. } = sample();
        let left = Restored { ledger, hours, ..Restored::default() };
        assert_eq!(read(&connection).found, left);
    }
}
