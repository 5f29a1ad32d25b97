//! The checks of a node's admin port, on a schedule of their own.

use std::time::Duration;

use super::consistency::Consistency;
use super::snapshot::AdminState;
use crate::model::{NodeName, Timestamp};

/// A node and what is known of its admin port.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) interval: Option<Duration>,
    pub(super) state: Option<AdminState>,
    pub(super) consistency: Consistency,
    pub(super) in_flight: bool,
    pub(super) due: Timestamp,
    pub(super) timer: u64,
}

/// A check of an admin port that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminProblem {
    /// The `reason` label; one of those the engine was told of.
    pub reason: &'static str,
    /// The whole story, for people.
    pub text: String,
}

impl Node {
    pub(super) fn new(
        name: NodeName,
        interval: Option<Duration>,
        reasons: &'static [&'static str],
        now: Timestamp,
    ) -> Self {
        let failures = || reasons.iter().map(|reason| (*reason, 0)).collect();
        let state = interval.map(|_| AdminState { failures: failures(), ..AdminState::default() });
        let consistency = Consistency::new(now);
        Self { name, interval, state, consistency, in_flight: false, due: now, timer: 0 }
    }

    /// Takes in the result of a check. Returns whether it changed what was known.
    pub(super) fn checked(&mut self, result: Result<(), AdminProblem>, now: Timestamp) -> bool {
        self.in_flight = false;
        let Some(state) = &mut self.state else { return false };
        let before = state.up;
        match result {
            Ok(()) => {
                state.up = Some(true);
                state.last_success = Some(now);
                state.problem = None;
            }
            Err(problem) => {
                state.up = Some(false);
                match state.failures.iter_mut().find(|(reason, _)| *reason == problem.reason) {
                    Some((_, count)) => *count += 1,
                    None => state.failures.push((problem.reason, 1)),
                }
                state.problem = Some(problem.text);
            }
        }
        before != state.up
    }
}
