//! What can be wrong with the file, as data.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;

use crate::model::format_duration;

/// A kind of fault; the `reason` label of `purgewatch_store_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The file is damaged: cut short, overwritten, or no database at all.
    Corrupt,
    /// The file is a database of another program.
    Foreign,
    /// The file was written by a later release, whose layout this one does not know.
    NewerSchema,
    /// There is something of that name that cannot be read and written: another user's file, a
    /// directory, a failing disk.
    Unreadable,
    /// The state directory does not exist and cannot be made.
    MissingDirectory,
    /// The state directory or the file may not be written to.
    Permission,
    /// The file system is read-only.
    ReadOnly,
    /// No space is left on the disk.
    Full,
    /// Another process holds the file: a second daemon on the same state directory.
    InUse,
    /// Reading or writing failed in another way: a quota (EDQUOT) or a limit on file sizes (EFBIG)
    /// is reached, which SQLite does not tell from a broken disk, or the kernel's log knows more.
    Io,
    /// The file was removed or replaced while it was in use.
    Vanished,
    /// A stored row that does not parse. Counted one by one.
    Row,
    /// Anything else.
    Other,
}

impl Fault {
    /// Every kind, in the order of the enumeration.
    pub const ALL: [Self; 13] = [
        Self::Corrupt,
        Self::Foreign,
        Self::NewerSchema,
        Self::Unreadable,
        Self::MissingDirectory,
        Self::Permission,
        Self::ReadOnly,
        Self::Full,
        Self::InUse,
        Self::Io,
        Self::Vanished,
        Self::Row,
        Self::Other,
    ];

    /// The `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Foreign => "foreign",
            Self::NewerSchema => "newer_schema",
            Self::Unreadable => "unreadable",
            Self::MissingDirectory => "missing_directory",
            Self::Permission => "permission",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::InUse => "in_use",
            Self::Io => "io",
            Self::Vanished => "vanished",
            Self::Row => "row",
            Self::Other => "other",
        }
    }

    /// Whether the file itself is what is wrong, so that a new one is the cure.
    pub(super) const fn is_of_the_file(self) -> bool {
        matches!(self, Self::Corrupt | Self::Foreign | Self::NewerSchema | Self::Unreadable)
    }

    /// The kind of an error that SQLite returned (<https://www.sqlite.org/rescode.html>).
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        let Some(failure) = error.sqlite_error() else { return Self::Other };
        match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt,
            // The statements are fixed and fit a sound file: what they do not fit is none.
            ErrorCode::Unknown
            | ErrorCode::SchemaChanged
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch => Self::Corrupt,
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::InUse,
            ErrorCode::ReadOnly => Self::ReadOnly,
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Self::Permission,
            // A read that fails will fail again; a write may not.
            ErrorCode::SystemIoFailure => match failure.extended_code {
                IOERR_READ | IOERR_SHORT_READ | IOERR_CORRUPTFS => Self::Unreadable,
                _ => Self::Io,
            },
            _ => Self::Other,
        }
    }
}

const IOERR_READ: i32 = 266;
const IOERR_SHORT_READ: i32 = 522;
const IOERR_CORRUPTFS: i32 = 8_458;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "it is damaged or no database",
            Self::Foreign => "it belongs to another program",
            Self::NewerSchema => "a later release of purgewatch wrote it",
            Self::Unreadable => "it cannot be read and written",
            Self::MissingDirectory => "the directory does not exist",
            Self::Permission => "this user may not write there",
            Self::ReadOnly => "the file system is read-only",
            Self::Full => "no space is left",
            Self::InUse => "another process holds the file",
            Self::Io => {
                "the disk reported an error, or a quota or a limit on file sizes is reached"
            }
            Self::Vanished => "the file is gone",
            Self::Row => "a stored record does not parse",
            Self::Other => "an unexpected error",
        })
    }
}

/// Something about storing that an operator should know. None of them stops the daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file could not be used and was put aside; what could be read of it was taken over.
    #[error(
        "the state file {} cannot be used: {fault}; it was moved to {} and a new one started, \
         with {restored} records that could still be read",
        path.display(), kept_as.display()
    )]
    MovedAside {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        fault: Fault,
        /// Where it is now. Some such files are kept, the oldest goes first.
        kept_as: PathBuf,
        /// How many records could be read from it.
        restored: usize,
    },
    /// The file was removed or replaced while it was in use. Everything is written to a new one.
    #[error(
        "the state file {} was removed or replaced by somebody; its {restored} records are \
         written to a new one",
        path.display()
    )]
    Vanished {
        /// The file.
        path: PathBuf,
        /// How many records it held.
        restored: usize,
    },
    /// Rows that do not parse were left out.
    #[error("{count} records in {} do not parse and were left out", path.display())]
    RowsSkipped {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// Nothing can be stored now. What is known is kept in memory, and the attempt is repeated.
    #[error(
        "nothing can be stored in {}: {fault} ({detail}); until that is put right, a restart \
         forgets what happened since",
        path.display()
    )]
    NotStored {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        fault: Fault,
        /// The system's own words.
        detail: String,
    },
    /// What could not be stored before is stored now.
    #[error("storing in {} works again", path.display())]
    Recovered {
        /// The file.
        path: PathBuf,
    },
    /// The wall clock is earlier than what was stored: it was set back while the daemon was down.
    #[error(
        "the wall clock was set back by {} or more since the last run; {records} records were \
         moved with it, so that nothing is less stale than it was",
        format_duration(*by)
    )]
    ClockSetBack {
        /// How many records were moved.
        records: usize,
        /// The longest way that one was moved.
        by: Duration,
    },
}

impl Problem {
    /// The kind of fault, and how often it counts; `None` where nothing failed.
    #[must_use]
    pub fn fault(&self) -> Option<(Fault, u64)> {
        match self {
            Self::MovedAside { fault, .. } | Self::NotStored { fault, .. } => Some((*fault, 1)),
            Self::Vanished { .. } => Some((Fault::Vanished, 1)),
            Self::RowsSkipped { count, .. } => {
                Some((Fault::Row, u64::try_from(*count).unwrap_or(u64::MAX)))
            }
            Self::Recovered { .. } | Self::ClockSetBack { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_order_and_differ() {
        let labels: std::collections::BTreeSet<_> = Fault::ALL.map(Fault::label).into();
        assert_eq!(labels.len(), Fault::ALL.len());
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place);
        }
    }
}
