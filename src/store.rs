//! Layer 3: what must survive a restart.
//!
//! One SQLite file in the state directory, one connection, one thread. What is to be stored waits
//! in memory, the latest record of each name, and is written in one transaction about five times a
//! second. Storing is never a reason to stop: where it does not work, the daemon goes on with what
//! is in memory, says so as a [`Problem`], and tries again.
//!
//! # What can be lost
//!
//! The file is kept in write-ahead mode with `synchronous=NORMAL`: when the process is killed,
//! what was written is there; when the power fails, the last moments may be missing, but the file
//! is whole (<https://www.sqlite.org/pragma.html#pragma_synchronous>). That is the right bargain
//! here: a lost record is observed again at the next probe, and the disk of a busy cache host is
//! spared an `fsync` for each batch. What nobody would tell again, a ban that was handed in, is
//! stored by [`Store::save_durably`], with `synchronous=FULL` for that transaction.

mod fault;
mod file;
mod hour_rows;
mod ledger_rows;
mod pending;
mod rows;
mod timeline;
mod writer;

pub use fault::{Fault, Problem};
pub use file::FILE_NAME;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::engine::{Record, Restored};
use crate::model::Timestamp;
use writer::Shared;

/// What is stored, and the thread that writes it.
///
/// Dropping it lets the thread write once more and end, without waiting for it; use
/// [`close`](Store::close) to know how that went.
pub struct Store {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How storing goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether the file is open and the last write to it worked.
    pub up: bool,
    /// When something was last written, on the program's own line.
    pub last_write: Option<Timestamp>,
    /// How many faults there were of each kind, in the order of [`Fault::ALL`]. Skipped rows count
    /// one each; an attempt that fails again counts again.
    pub errors: [u64; Fault::ALL.len()],
    /// Records that are not written yet.
    pub pending: usize,
}

/// The deadline passed while there was still something to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pending} records are not stored yet")]
pub struct NotFlushed {
    /// How many records are left in memory.
    pub pending: usize,
}

impl Store {
    /// Opens the file in `directory`, reads what was stored, and starts the thread. Whatever is
    /// wrong with the file or the directory is told as a list of problems; it never fails.
    ///
    /// Points of time in what was restored lie on the line of `clock`, none later than now. The
    /// call blocks: usually for milliseconds, for at most some five seconds when another process
    /// holds the file.
    #[must_use]
    pub fn open(directory: &Path, clock: Clock) -> (Self, Restored, Vec<Problem>) {
        let opened = file::open(directory, None);
        let mut restored = opened.found;
        let mut problems = opened.problems;
        let mut pending = pending::Pending::default();

        let offset = clock.wall_offset();
        let moved = timeline::bring_to_line(&mut restored, clock.now(), offset);
        if let Some(by) = moved.furthest {
            problems.push(Problem::ClockSetBack { records: moved.records.len(), by });
        }
        let to_write = if opened.rewrite { rows::records(&restored) } else { moved.records };
        pending.add_older(to_write);
        let shared = Arc::new(Shared::new(pending, &problems, opened.connection.is_some()));
        let told = problems.iter().rev().find_map(|problem| match problem {
            Problem::NotStored { fault, .. } => Some(*fault),
            _ => None,
        });
        let writer = writer::Writer {
            shared: Arc::clone(&shared),
            directory: directory.to_path_buf(),
            connection: opened.connection,
            clock,
            offset,
            told,
            suspicion: None,
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(|| writer.run());
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                let path = directory.join(FILE_NAME);
                let detail = error.to_string();
                let problem = Problem::NotStored { path, fault: Fault::Other, detail };
                shared.lock().note(&problem);
                problems.push(problem);
                None
            }
        };
        (Self { shared, thread }, restored, problems)
    }

    /// Hands over records to be stored. Never waits for the disk.
    pub fn save(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        for record in records {
            state.pending.add(record);
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Hands over records that nobody would tell again, and has `tell` called once they are on the
    /// disk, whatever happens to the power then (`true`), or when an attempt to put them there
    /// failed (`false`; it is repeated, as for all records). Never waits for the disk.
    pub fn save_durably(&self, records: Vec<Record>, tell: impl FnOnce(bool) + Send + 'static) {
        let mut state = self.shared.lock();
        for record in records {
            state.pending.add(record);
        }
        if self.thread.is_none() {
            drop(state);
            return tell(false);
        }
        state.waiting.push(Box::new(tell));
        state.urgent = true;
        drop(state);
        self.shared.wake.notify_one();
    }

    /// How storing goes.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.lock().health()
    }

    /// The problems since the last call, oldest first: a change for the worse once, and a
    /// [`Problem::Recovered`] when it is over.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        std::mem::take(&mut self.shared.lock().problems)
    }

    /// Waits until everything that was handed over is written, for at most `limit`. Cancelling it
    /// stops the waiting, not the writing.
    ///
    /// # Errors
    /// [`NotFlushed`] when the limit passed first; what is left stays in memory and is tried again.
    pub async fn flush(&self, limit: Duration) -> Result<(), NotFlushed> {
        let mut attempts = self.shared.attempts.subscribe();
        // One attempt at once; when it fails, the next ones come as they would.
        self.shared.lock().urgent = true;
        self.shared.wake.notify_one();
        let written = async {
            while self.thread.is_some() && !self.shared.lock().is_settled() {
                if attempts.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limit, written).await;
        let state = self.shared.lock();
        if state.is_settled() { Ok(()) } else { Err(NotFlushed { pending: state.unwritten() }) }
    }

    /// Writes what is left, ends the thread and closes the file, within about `limit`.
    ///
    /// # Errors
    /// [`NotFlushed`] when something could not be written in that time.
    pub async fn close(mut self, limit: Duration) -> Result<(), NotFlushed> {
        let flushed = self.flush(limit).await;
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let ended = tokio::task::spawn_blocking(move || thread.join());
            let _ = tokio::time::timeout(limit, ended).await;
        }
        flushed
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// A lock whose holder panicked still guards whole values: each is replaced in one step.
fn unpoisoned<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
