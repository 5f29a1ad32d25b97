//! A varnishd, and what is between it and the daemon.

use super::super::*;
use super::{ban, miss};

/// What is between the daemon and a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Open,
    /// Packets are dropped.
    Dropped,
    /// Connections are refused although varnishd runs.
    Refused,
}

/// A varnishd.
#[derive(Debug)]
pub(super) struct Varnish {
    pub(super) path: Path,
    pub(super) manager: u32,
    /// The worker and when it was started.
    pub(super) worker: Option<(u32, Timestamp)>,
    pub(super) manager_runs: bool,
    pub(super) persistent: bool,
    pub(super) pids: u32,
    /// The answer to the ban after so many more is lost.
    pub(super) loses: Option<usize>,
    /// Bans that are answered with 106.
    pub(super) rejects: Option<u8>,
    /// What was answered with 200, with the worker that took it.
    pub(super) took: Vec<BanText>,
    /// How long it says that its list is.
    pub(super) listed: usize,
}

impl Varnish {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            path: Path::Open,
            manager: 10,
            worker: Some((11, now)),
            manager_runs: true,
            persistent: false,
            pids: 11,
            loses: None,
            rejects: None,
            took: Vec::new(),
            listed: 1,
        }
    }

    /// Bans that are sent without waiting for each answer: once one has failed, the others were
    /// sent and nobody waits for their answers.
    pub(super) fn pipelined(&mut self, bans: &[BanText]) -> Vec<Result<(), Miss>> {
        let mut results: Vec<Result<(), Miss>> = Vec::new();
        let mut failed = false;
        for text in bans {
            let mut result = self.ban(text);
            if failed {
                result = Err(miss(BanResult::Unconfirmed, "not_awaited"));
            }
            let is_unsent = result.as_ref().is_err_and(|miss| miss.result.is_unsent());
            failed |= result.as_ref().is_err_and(|miss| miss.result != BanResult::Rejected);
            results.push(result);
            if is_unsent {
                break;
            }
        }
        results
    }

    pub(super) fn pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    pub(super) fn reach(&self) -> Result<(), Miss> {
        match self.path {
            Path::Dropped => Err(miss(BanResult::Unreachable, "connect_timeout")),
            Path::Refused => Err(miss(BanResult::Unreachable, "refused")),
            Path::Open if !self.manager_runs => Err(miss(BanResult::Unreachable, "refused")),
            Path::Open => Ok(()),
        }
    }

    pub(super) fn process(&self) -> Process {
        Process { manager: self.manager, worker: self.worker.map(|(pid, _)| pid) }
    }

    pub(super) fn inspect(&self) -> Result<Inspection, Miss> {
        let (process, persistent) = (Some(self.process()), self.persistent);
        self.reach().map(|()| Inspection { process, persistent })
    }

    pub(super) fn ban(&mut self, text: &BanText) -> Result<(), Miss> {
        self.reach()?;
        if self.worker.is_none() {
            return Err(miss(BanResult::CacheStopped, "child_not_running"));
        }
        if self.rejects.is_some_and(|at| ban(at) == *text) {
            return Err(miss(BanResult::Rejected, "rejected"));
        }
        match self.loses {
            Some(0) => {
                self.loses = None;
                return Err(miss(BanResult::Unconfirmed, "closed"));
            }
            Some(left) => self.loses = Some(left - 1),
            None => {}
        }
        self.took.push(text.clone());
        Ok(())
    }
}
