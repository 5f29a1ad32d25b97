//! How `adm` ends: with varnishadm's own statuses.

use std::process::ExitCode;

use crate::commands::Exit;
use crate::commands::output::Output;

/// The exit statuses of varnishadm(1), so that scripts written for it work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::commands) enum Status {
    /// 0: every command was carried out.
    Done,
    /// 1: varnishd did not carry out a command; or wrong usage.
    Failed,
    /// 2: no connection, no secret, or no answer.
    NoAnswer,
    /// 130: interrupted (128 + SIGINT, as shells count it).
    Interrupted,
}

impl Status {
    /// The number that the process exits with.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::NoAnswer => 2,
            Self::Interrupted => 130,
        }
    }

    /// The status once the output has been written; an answer that could not be is no success.
    pub(super) fn after(self, output: Output) -> Self {
        match (self, output.finish(Exit::Done)) {
            (Self::Done, Exit::Done) => Self::Done,
            (Self::Done, _) => Self::Failed,
            (status, _) => status,
        }
    }
}

/// What kept a command from being begun.
impl From<Exit> for Status {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::Done,
            Exit::Interrupted => Self::Interrupted,
            Exit::Stale | Exit::Usage | Exit::Rejected => Self::Failed,
            Exit::Unreachable | Exit::Secret | Exit::CacheDown => Self::NoAnswer,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}
