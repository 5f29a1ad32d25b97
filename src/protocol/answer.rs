//! What the replies to commands say, as types.
//!
//! A reply is text for people, or JSON when the command had `-j` as its first argument; each type
//! reads both, in the layouts of varnishd 6.0 to 9.0. What varnishd writes is not always what it
//! should be, and what comes from a socket is never trusted: a reply that was cut is taken for no
//! more than it is, one that repeats another command than was asked is refused, and no reply makes
//! more memory be used than a small multiple of its own size.
//!
//! | module | one idea |
//! |---|---|
//! | `json` | JSON as varnishd writes it, with its known faults |
//! | `envelope` | version, repeated command and time around the data |
//! | `process` | `ping`, `status`, `pid` |
//! | `bans` | `ban.list` |
//! | `backends` | `backend.list` |
//! | `parameters` | `param.show` |
//! | `vcls` | `vcl.list` |
//! | `panics` | `panic.show` |
//! | `storages` | `storage.list` |
//! | `help` | `help` |

use super::command::Command;
use super::reply::{Excerpt, Reply};
use super::status::Status;

mod backends;
mod bans;
mod envelope;
mod help;
mod json;
mod panics;
mod parameters;
mod process;
mod storages;
mod vcls;

pub use backends::{AdminHealth, Backend, BackendList};
pub use bans::{BanList, ListedBan};
pub use envelope::Envelope;
pub use help::{Help, HelpEntry};
pub use json::{Json, JsonError};
pub use panics::Panic;
pub use parameters::{Parameter, Parameters};
pub use process::{ChildState, Pids, Pong};
pub use storages::{Storage, Storages};
pub use vcls::{Vcl, VclList};

/// A reply that can be read as a type.
pub trait Answer: Sized {
    /// What `reply`, given to `asked`, says.
    ///
    /// # Errors
    /// [`AnswerError`]; nothing of the reply is to be relied on then.
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError>;
}

/// A reply that does not say what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The command failed: there is no answer.
    #[error("status {status} instead of an answer")]
    Failed {
        /// The status.
        status: Status,
    },
    /// The reply repeats another command than the one that was sent: on this node, manager and
    /// cache process are out of step. The server's fault.
    #[error("the reply is to another command, {}", Excerpt::new(got, 80))]
    Foreign {
        /// The command that it repeats, its words with blanks between them.
        got: Vec<u8>,
    },
    /// Cut at the server's `cli_limit`, before what had to be in it. Raise that parameter, or ask
    /// for less.
    #[error("the reply was cut short before {expected}")]
    Cut {
        /// What is missing.
        expected: &'static str,
    },
    /// Not in a form that any known version of varnishd writes.
    #[error("expected {expected} at byte {at} of the reply, got {}", Excerpt::new(got, 40))]
    Malformed {
        /// What should be there.
        expected: &'static str,
        /// Where, counted from 0.
        at: usize,
        /// What is there, at most 40 bytes.
        got: Vec<u8>,
    },
}

impl AnswerError {
    fn malformed(expected: &'static str, body: &[u8], at: usize) -> Self {
        let got = body.iter().skip(at).take(40).copied().collect();
        Self::Malformed { expected, at, got }
    }
}

/// The body of a reply that tells of success.
fn success(reply: &Reply) -> Result<&[u8], AnswerError> {
    if reply.is_success() {
        Ok(&reply.body)
    } else {
        Err(AnswerError::Failed { status: reply.status })
    }
}

/// A text that may have been cut, without the line that the cut went through.
///
/// Versions before 6.4 put `[response was truncated]` in place of the end; later ones say so in
/// the status only.
fn whole_lines(reply: &Reply) -> (&[u8], bool) {
    const MARK: &[u8] = b"!\n[response was truncated]\n";
    let (text, marked) = match reply.body.strip_suffix(MARK) {
        Some(text) => (text, true),
        None => (&reply.body[..], false),
    };
    if !marked && !reply.is_truncated() {
        return (text, true);
    }
    let end = text.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
    (text.get(..end).unwrap_or_default(), false)
}

/// Text for people as a string: what is no UTF-8 in it becomes U+FFFD.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::{Script, parse};

    /// A reply that varnishd 7.1.1 sent.
    pub(super) fn transcript(name: &str) -> Reply {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/transcripts/varnish-7.1.1");
        let bytes = std::fs::read(format!("{directory}/{name}.reply")).unwrap();
        let frame = parse(&bytes, 1 << 20).unwrap().unwrap();
        Reply { status: frame.status, body: Bytes::copy_from_slice(frame.body) }
    }

    pub(super) fn reply(status: u16, body: &'static str) -> Reply {
        Reply { status: Status::new(status).unwrap(), body: body.into() }
    }

    /// The command written as `line`.
    pub(super) fn asked(line: &str) -> Command {
        let mut script = Script::new();
        script.push(line.as_bytes());
        script.finish();
        Command::verbatim(script.next().unwrap().unwrap())
    }
}
