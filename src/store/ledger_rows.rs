//! Entries of the ledger to and from their rows.
//!
//! The entry's own number is the row number; how it stands with its nodes is one JSON object.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::pending::{Change, Pending};
use super::rows::from_stored;
use crate::engine::{
    BanResult, BanSource, BanText, Entry, EntryId, Evidence, Miss, Needless, PendingBan, Process,
    Standing,
};
use crate::model::{NodeName, Timestamp};

/// What makes the table.
pub(super) const TABLE: &str = "CREATE TABLE ledger (
        id INTEGER PRIMARY KEY,
        ban TEXT NOT NULL,
        source TEXT NOT NULL,
        issued INTEGER NOT NULL,
        nodes TEXT NOT NULL
    ) STRICT;";

/// What reads it, from a row number on.
pub(super) const QUERY: &str = "SELECT id, ban, source, issued, nodes FROM ledger NOT INDEXED
    WHERE id >= ?1 ORDER BY id";

/// No ban will ever have a higher number; a row that has one is damaged.
const LAST: u64 = 1 << 53;

/// Writes what waits, with times as `wall` has them.
pub(super) fn write(
    connection: &Connection,
    pending: &Pending,
    wall: impl Fn(Timestamp) -> i64,
) -> rusqlite::Result<()> {
    let mut changes = pending.ledger().peekable();
    if changes.peek().is_none() {
        return Ok(());
    }
    let mut put = connection.prepare(
        "INSERT INTO ledger (id, ban, source, issued, nodes) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET ban = excluded.ban, source = excluded.source,
             issued = excluded.issued, nodes = excluded.nodes",
    )?;
    let mut remove = connection.prepare("DELETE FROM ledger WHERE id = ?1")?;
    for (id, change) in changes {
        let number = id.number().cast_signed();
        match change {
            Change::Put { entry, .. } => {
                let nodes: BTreeMap<&str, Stored> = entry
                    .nodes
                    .iter()
                    .map(|(node, standing)| (node.as_str(), Stored::new(standing, &wall)))
                    .collect();
                // Strings and numbers only: there is nothing that could fail.
                let nodes = serde_json::to_string(&nodes).unwrap_or_default();
                put.execute(params![
                    number,
                    entry.ban.as_str(),
                    entry.source.label(),
                    wall(entry.issued),
                    nodes,
                ])?;
            }
            Change::Remove => drop(remove.execute([number])?),
        }
    }
    Ok(())
}

/// The entry of a row; `None` when it does not parse.
pub(super) fn entry_of(row: &Row<'_>) -> Option<Entry> {
    let stored: BTreeMap<String, Stored> =
        serde_json::from_str(&row.get::<_, String>(4).ok()?).ok()?;
    let mut nodes = BTreeMap::new();
    for (node, standing) in stored {
        nodes.insert(NodeName::new(&node).ok()?, standing.into_standing()?);
    }
    Some(Entry {
        id: EntryId::new(
            u64::try_from(row.get::<_, i64>(0).ok()?).ok().filter(|n| (1..=LAST).contains(n))?,
        ),
        ban: BanText::new(&row.get::<_, String>(1).ok()?).ok()?,
        source: BanSource::from_label(&row.get::<_, String>(2).ok()?)?,
        issued: from_stored(row.get(3).ok()?)?,
        nodes,
    })
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Stored {
    Pending {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        last: Option<StoredMiss>,
        uncertain: bool,
        losses: u8,
        evidence: StoredEvidence,
    },
    Taken {
        at: i64,
    },
    Rejected {
        at: i64,
        reason: String,
    },
    Restarted {
        at: i64,
    },
    Repeated {
        at: i64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredMiss {
    result: String,
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredEvidence {
    None,
    Running {
        manager: u32,
        worker: Option<u32>,
    },
    Stopped,
    /// Written by versions before this one, and no evidence.
    Refused {},
}

impl Stored {
    fn new(standing: &Standing, wall: impl Fn(Timestamp) -> i64) -> Self {
        match standing {
            Standing::Pending(pending) => Self::Pending {
                last: pending.last.as_ref().map(|miss| StoredMiss {
                    result: miss.result.label().to_owned(),
                    reason: miss.reason.clone(),
                }),
                uncertain: pending.uncertain,
                losses: pending.losses,
                evidence: match pending.evidence {
                    Evidence::None => StoredEvidence::None,
                    Evidence::Running(Process { manager, worker }) => {
                        StoredEvidence::Running { manager, worker }
                    }
                    Evidence::Stopped => StoredEvidence::Stopped,
                },
            },
            Standing::Taken { at } => Self::Taken { at: wall(*at) },
            Standing::Rejected { at, reason } => {
                Self::Rejected { at: wall(*at), reason: reason.clone() }
            }
            Standing::Void { at, because: Needless::Restarted } => {
                Self::Restarted { at: wall(*at) }
            }
            Standing::Void { at, because: Needless::Repeated } => Self::Repeated { at: wall(*at) },
        }
    }

    fn into_standing(self) -> Option<Standing> {
        Some(match self {
            Self::Pending { last, uncertain, losses, evidence } => {
                let last = match last {
                    None => None,
                    Some(StoredMiss { result, reason }) => {
                        Some(Miss { result: BanResult::from_label(&result)?, reason })
                    }
                };
                let evidence = match evidence {
                    StoredEvidence::None | StoredEvidence::Refused {} => Evidence::None,
                    StoredEvidence::Running { manager, worker } => {
                        Evidence::Running(Process { manager, worker })
                    }
                    StoredEvidence::Stopped => Evidence::Stopped,
                };
                Standing::Pending(PendingBan { last, uncertain, evidence, losses })
            }
            Self::Taken { at } => Standing::Taken { at: from_stored(at)? },
            Self::Rejected { at, reason } => Standing::Rejected { at: from_stored(at)?, reason },
            Self::Restarted { at } => {
                Standing::Void { at: from_stored(at)?, because: Needless::Restarted }
            }
            Self::Repeated { at } => {
                Standing::Void { at: from_stored(at)?, because: Needless::Repeated }
            }
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn what_versions_before_took_for_evidence_is_read_and_is_none() {
        let stored = r#"{"is": "pending", "uncertain": false, "losses": 0,
            "evidence": {"refused": {"manager": 9}}}"#;
        let stored: Stored = serde_json::from_str(stored).unwrap();
        let Some(Standing::Pending(pending)) = stored.into_standing() else { panic!() };
        assert_eq!(pending, PendingBan::default());
    }

    /// An entry with a node of every standing.
    pub(in crate::store) fn samples() -> Vec<Entry> {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let process = Process { manager: 1, worker: Some(2) };
        let miss = Miss { result: BanResult::Unconfirmed, reason: "closed".to_owned() };
        let pending = |evidence, last| {
            Standing::Pending(PendingBan { last, uncertain: true, evidence, losses: 1 })
        };
        let standings = [
            pending(Evidence::None, None),
            pending(Evidence::Running(process), Some(miss.clone())),
            pending(Evidence::Stopped, Some(miss.clone())),
            pending(Evidence::None, Some(miss)),
            Standing::Taken { at },
            Standing::Rejected { at, reason: "rejected".to_owned() },
            Standing::Void { at, because: Needless::Restarted },
            Standing::Void { at, because: Needless::Repeated },
        ];
        let node = |(n, standing)| (NodeName::new(&format!("n{n}")).unwrap(), standing);
        BanSource::ALL
            .into_iter()
            .enumerate()
            .map(|(n, source)| Entry {
                id: EntryId::new(7 + n as u64),
                ban: BanText::new("obj.http.x-url ~ ^/ä'").unwrap(),
                source,
                issued: at,
                nodes: standings.clone().into_iter().enumerate().map(node).collect(),
            })
            .collect()
    }
}
