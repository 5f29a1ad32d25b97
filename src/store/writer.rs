//! The thread that owns the connection.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use super::pending::Pending;
use super::{FILE_NAME, Fault, Health, Problem, file, rows, timeline, unpoisoned};
use crate::clock::{Clock, random_seed};
use crate::model::Timestamp;

/// How long records gather before they are written together.
const BATCH: Duration = Duration::from_millis(200);

/// The first pause after a failure; it doubles with each one, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A wall clock that moved by more than this against the program's line was stepped: what is
/// stored is moved with it.
const STEP_MILLIS: u64 = 1_000;

/// Problems that nobody asked for; the oldest go first.
const PROBLEMS_KEPT: usize = 32;

/// Called with whether it is stored.
pub(super) type OnStored = Box<dyn FnOnce(bool) + Send>;

/// What the thread shares with the handle.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) wake: Condvar,
    /// Changes after each attempt to write.
    pub(super) attempts: watch::Sender<u64>,
}

pub(super) struct State {
    pub(super) pending: Pending,
    /// Records that are being written now.
    writing: usize,
    /// Somebody waits: no gathering, no pause.
    pub(super) urgent: bool,
    /// Who is to be told once everything that waits now is on the disk, or could not be put there.
    pub(super) waiting: Vec<OnStored>,
    closing: bool,
    up: bool,
    last_write: Option<Timestamp>,
    errors: [u64; Fault::ALL.len()],
    pub(super) problems: Vec<Problem>,
}

impl Shared {
    pub(super) fn new(pending: Pending, problems: &[Problem], up: bool) -> Self {
        let mut state = State {
            pending,
            writing: 0,
            urgent: false,
            waiting: Vec::new(),
            closing: false,
            up,
            last_write: None,
            errors: [0; Fault::ALL.len()],
            problems: Vec::new(),
        };
        for problem in problems {
            state.note(problem);
        }
        Self { state: Mutex::new(state), wake: Condvar::new(), attempts: watch::Sender::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }
}

impl State {
    /// Whether everything is written.
    pub(super) fn is_settled(&self) -> bool {
        self.unwritten() == 0
    }

    pub(super) fn unwritten(&self) -> usize {
        self.pending.len() + self.writing
    }

    pub(super) fn health(&self) -> Health {
        Health {
            up: self.up,
            last_write: self.last_write,
            errors: self.errors,
            pending: self.unwritten(),
        }
    }

    /// Counts a problem.
    pub(super) fn note(&mut self, problem: &Problem) {
        if let Some((fault, count)) = problem.fault()
            && let Some(errors) = self.errors.get_mut(fault as usize)
        {
            *errors = errors.saturating_add(count);
        }
        if matches!(problem, Problem::NotStored { .. }) {
            self.up = false;
        }
    }

    /// Counts a problem, and tells it unless it is the same as before.
    fn report(&mut self, problem: Problem, last: &mut Option<Fault>) {
        self.note(&problem);
        let fault = match &problem {
            Problem::NotStored { fault, .. } => Some(*fault),
            _ => None,
        };
        if fault.is_some() && *last == fault {
            return;
        }
        if fault.is_some() {
            *last = fault;
        }
        if self.problems.len() == PROBLEMS_KEPT {
            self.problems.remove(0);
        }
        self.problems.push(problem);
    }
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: PathBuf,
    pub(super) connection: Option<Connection>,
    pub(super) clock: Clock,
    /// How far the wall clock was ahead of the line for what is stored, give or take a second.
    pub(super) offset: i64,
    /// The fault that was told already and is not over.
    pub(super) told: Option<Fault>,
    /// What was wrong with the file when it was last written to.
    pub(super) suspicion: Option<(Fault, String)>,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut random = fastrand::Rng::with_seed(random_seed());
        let mut failures = u32::from(self.connection.is_none());
        let mut told = self.told;
        loop {
            let pause = if failures == 0 { BATCH } else { pause_after(failures, &mut random) };
            let Some((batch, waiting)) = self.next_batch(pause, failures > 0) else { return };
            let result = self.attempt(&batch, !waiting.is_empty(), &mut told);
            let is_stored = result.is_ok();
            let mut state = self.shared.lock();
            state.writing = 0;
            let closing = state.closing;
            match result {
                Ok(()) => {
                    failures = 0;
                    if !batch.is_empty() {
                        state.last_write = Some(self.clock.now());
                    }
                    if !state.up || told.is_some() {
                        state.up = true;
                        told = None;
                        let path = self.directory.join(FILE_NAME);
                        state.report(Problem::Recovered { path }, &mut told);
                    }
                }
                Err(problem) => {
                    failures = failures.saturating_add(1);
                    state.pending.put_back(batch);
                    state.report(problem, &mut told);
                }
            }
            let ends = closing && (state.pending.is_empty() || failures > 0);
            // Who came meanwhile and will not be served.
            let late = if ends { std::mem::take(&mut state.waiting) } else { Vec::new() };
            drop(state);
            waiting.into_iter().for_each(|tell| tell(is_stored));
            late.into_iter().for_each(|tell| tell(false));
            self.shared.attempts.send_modify(|attempts| *attempts = attempts.wrapping_add(1));
            if ends {
                return;
            }
        }
    }

    /// Waits until there is something to do; `None` when there is nothing and never will be.
    ///
    /// After a failure the wait is for `pause`, whatever comes; otherwise for the first record and
    /// then for `pause` more, so that others can join it.
    fn next_batch(&self, pause: Duration, failed: bool) -> Option<(Pending, Vec<OnStored>)> {
        let idle = |state: &mut State| {
            !failed && state.pending.is_empty() && !state.closing && !state.urgent
        };
        let state = unpoisoned(self.shared.wake.wait_while(self.shared.lock(), idle));
        let gathering = |state: &mut State| !state.closing && !state.urgent;
        let (mut state, _) =
            unpoisoned(self.shared.wake.wait_timeout_while(state, pause, gathering));
        state.urgent = false;
        let waiting = std::mem::take(&mut state.waiting);
        if state.closing && state.pending.is_empty() && waiting.is_empty() {
            return None;
        }
        let batch = state.pending.take();
        state.writing = batch.len();
        Some((batch, waiting))
    }

    /// Opens the file where it is not open, and writes `batch` to it.
    /// With `durable`, it is on the disk when this returns, also if the power fails then.
    fn attempt(
        &mut self,
        batch: &Pending,
        durable: bool,
        told: &mut Option<Fault>,
    ) -> Result<(), Problem> {
        self.rescue_if_vanished(told);
        if self.connection.is_none() {
            self.reopen(told)?;
        }
        let offset = self.clock.wall_offset();
        let Some(connection) = &self.connection else { return Ok(()) };
        match write(connection, batch, durable, self.offset, offset) {
            Ok(moved) => {
                if moved {
                    self.offset = offset;
                }
                Ok(())
            }
            Err(error) => {
                let fault = Fault::of(&error);
                // A full disk leaves the connection as it was. After anything else the file is
                // looked at from the start: it may have to be put aside.
                if fault != Fault::Full {
                    self.connection = None;
                }
                let (path, detail) = (self.directory.join(FILE_NAME), error.to_string());
                if fault.is_of_the_file() {
                    self.suspicion = Some((fault, detail.clone()));
                }
                Err(Problem::NotStored { path, fault, detail })
            }
        }
    }

    /// Writing to a file that has no name any more works, and is of no use to anybody: where that
    /// has happened, everything in it waits to be written again.
    fn rescue_if_vanished(&mut self, told: &mut Option<Fault>) {
        let Some(connection) = self.connection.take_if(|connection| file::has_moved(connection))
        else {
            return;
        };
        let mut found = rows::read(&connection).found;
        timeline::shift_all(&mut found, self.offset.saturating_neg());
        let restored = rows::count(&found);
        let path = self.directory.join(FILE_NAME);
        let mut state = self.shared.lock();
        state.pending.add_older(rows::records(&found));
        state.report(Problem::Vanished { path, restored }, told);
    }

    fn reopen(&mut self, told: &mut Option<Fault>) -> Result<(), Problem> {
        let opened = file::open(&self.directory, self.suspicion.take());
        let mut state = self.shared.lock();
        let mut refused = None;
        for problem in opened.problems {
            match problem {
                Problem::NotStored { .. } => refused = Some(problem),
                other => state.report(other, told),
            }
        }
        if opened.rewrite && opened.connection.is_some() {
            let mut found = opened.found;
            timeline::shift_all(&mut found, self.offset.saturating_neg());
            state.pending.add_older(rows::records(&found));
        }
        drop(state);
        self.connection = opened.connection;
        match refused {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

/// Writes `batch` in one transaction. Where the wall clock was stepped since `stored_offset`, all
/// that is stored is moved with it first; returns whether it was.
fn write(
    connection: &Connection,
    batch: &Pending,
    durable: bool,
    stored_offset: i64,
    offset: i64,
) -> rusqlite::Result<bool> {
    let stepped = stored_offset.abs_diff(offset) > STEP_MILLIS;
    if batch.is_empty() && !stepped && !durable {
        return Ok(false);
    }
    if durable {
        // The log is synced at the end of the transaction, with all that was in it before
        // (https://www.sqlite.org/pragma.html#pragma_synchronous).
        connection.execute_batch("PRAGMA synchronous = FULL;")?;
        let written = write(connection, batch, false, stored_offset, offset);
        connection.execute_batch("PRAGMA synchronous = NORMAL;")?;
        return written;
    }
    let transaction = connection.unchecked_transaction()?;
    if stepped {
        let mut stored = rows::read(connection).found;
        timeline::shift_all(&mut stored, stored_offset.saturating_neg());
        let mut again = Pending::default();
        again.add_older(rows::records(&stored));
        rows::write(connection, &again, offset)?;
    }
    rows::write(connection, batch, offset)?;
    transaction.commit()?;
    Ok(stepped)
}

/// The pause after so many failures in a row, between half and the whole of what doubles.
fn pause_after(failures: u32, random: &mut fastrand::Rng) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LAST_PAUSE).mul_f64(0.5 + random.f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_moves_with_a_wall_clock_that_was_stepped() {
        use crate::engine::{Record, VerdictRecord};
        use crate::model::{EndpointName, NodeName, VariantName};
        use crate::verdict::Verdict;

        let at = Timestamp::from_millis;
        let batch = |endpoint: &str, line: u64| {
            let mut pending = Pending::default();
            pending.add(Record::Verdict(VerdictRecord {
                endpoint: EndpointName::new(endpoint).unwrap(),
                variant: VariantName::default(),
                node: NodeName::new("n").unwrap(),
                definition: 1,
                verdict: Verdict::unknown(at(line)),
                recorded: at(line),
            }));
            pending
        };
        let connection = Connection::open_in_memory().unwrap();
        rows::create(&connection).unwrap();
        let recorded = || {
            let verdicts = rows::read(&connection).found.verdicts;
            verdicts.iter().map(|v| v.recorded.as_millis()).collect::<Vec<_>>()
        };
        write(&connection, &batch("a", 10_000), false, 0, 0).unwrap();
        write(&connection, &batch("b", 20_000), true, 0, 999).unwrap();
        assert_eq!(recorded(), [10_000, 20_999], "an adjustment is no step");
        write(&connection, &batch("c", 30_000), false, 999, 3_600_999).unwrap();
        assert_eq!(recorded(), [3_610_000, 3_620_999, 3_630_999]);
    }

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let mut random = fastrand::Rng::with_seed(1);
        for (failures, longest) in [(1, 500), (2, 1_000), (5, 8_000), (7, 30_000), (90, 30_000)] {
            for _ in 0..100 {
                let pause = pause_after(failures, &mut random).as_millis();
                assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause}");
            }
        }
    }
}
