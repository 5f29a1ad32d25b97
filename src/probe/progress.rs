//! Which phase a fetch is in, and how long each took.

use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::verdict::{Phase, Phases};

/// Kept outside the part of a fetch that a timeout cuts short, so that it tells where that was.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Clock,
    started: Instant,
    phase: Phase,
    entered: Instant,
    phases: Phases,
}

impl Progress {
    /// A fetch begins by waiting for a connection.
    pub(super) fn start(clock: Clock) -> Self {
        let now = clock.instant();
        let phases = Phases::default();
        Self { clock, started: now, phase: Phase::Queue, entered: now, phases }
    }

    /// One phase ends, another begins.
    pub(super) fn enter(&mut self, phase: Phase) {
        let now = self.clock.instant();
        self.close(now);
        self.phase = phase;
        self.entered = now;
    }

    /// Ends the last phase and tells how long each took.
    pub(super) fn finish(mut self) -> Phases {
        self.close(self.clock.instant());
        self.phases
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// How much of `limit` is left since the fetch began.
    pub(super) fn left_of(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.clock.instant().saturating_duration_since(self.started))
    }

    fn close(&mut self, now: Instant) {
        let took = Some(now.saturating_duration_since(self.entered));
        match self.phase {
            Phase::Queue => {}
            Phase::Connect => self.phases.connect = took,
            Phase::Tls => self.phases.tls = took,
            Phase::FirstByte => self.phases.first_byte = took,
            Phase::Body => self.phases.body = took,
        }
    }
}
