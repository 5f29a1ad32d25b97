//! What is known of the server, as far as it helps whoever types.

use crate::ban;
use crate::protocol::answer::{HelpEntry, Parameter, Vcl};

/// What is known of the server. Nothing of it is relied on: it only helps typing.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Its commands.
    pub(super) commands: Vec<HelpEntry>,
    /// Its VCLs and labels.
    pub(super) vcls: Vec<Vcl>,
    /// Its parameters.
    pub(super) parameters: Vec<Parameter>,
    /// The names of its backends and directors.
    pub(super) backends: Vec<String>,
    /// Which fields and operators of bans it has; `None` where it does not say.
    pub(super) version: Option<ban::ServerVersion>,
}

/// A part of it, which can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Commands,
    Vcls,
    Parameters,
    Backends,
}

impl Known {
    /// Whether nothing is known of it.
    pub(super) fn lacks(&self, subject: Subject) -> bool {
        match subject {
            Subject::Commands => self.commands.is_empty(),
            Subject::Vcls => self.vcls.is_empty(),
            Subject::Parameters => self.parameters.is_empty(),
            Subject::Backends => self.backends.is_empty(),
        }
    }

    pub(super) fn command(&self, name: &str) -> Option<&HelpEntry> {
        self.commands.iter().find(|entry| entry.name == name)
    }
}
