//! What went wrong, whose fault it is, what to do next.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::WorkdirError;
use crate::model::{NodeName, format_duration};
use crate::net::{DialError, DialErrorKind};
use crate::protocol::answer::AnswerError;
use crate::protocol::{CommandError, Excerpt, FrameError, Status, Verb};

/// As much of a server's text is shown, in characters.
const SHOWN: usize = 400;

/// Why a command has no good end: on which node, at which step, and what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminError {
    /// The node.
    pub node: NodeName,
    /// The step.
    pub stage: Stage,
    /// What happened.
    pub kind: Kind,
}

/// The steps towards a reply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The pause after failed attempts.
    Pause,
    /// Reading the work directory that says where the admin port is.
    Locate,
    /// Waiting for varnishd to dial in.
    Accept,
    /// Name lookup.
    Resolve,
    /// Opening the connection.
    Connect,
    /// Waiting for the server's first words.
    Greeting,
    /// Reading the secret.
    Secret,
    /// Proving that the secret is known.
    Authenticate,
    /// The command itself.
    Command(Verb),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The work directory leads to no admin port. The operator's; the text says what to do.
    Workdir(Box<WorkdirError>),
    /// The target has no address at all. The caller's.
    NoAddress,
    /// The port that varnishd is to dial cannot be listened on. The operator's: free the address,
    /// or name another.
    Listen {
        /// The address.
        address: SocketAddr,
        /// Whether another program has it.
        in_use: bool,
        /// Why, in the operating system's words.
        reason: String,
    },
    /// Nobody dialled in. The operator's or the network's: varnishd does not run, has no `-M` with
    /// this address, or cannot get here.
    NotDialled {
        /// Where it should have.
        address: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// A peer dialled in and asked for no secret, although one is configured: it is not the
    /// varnishd that was meant. The operator's, if that runs with `-S none`.
    SecretNotAsked,
    /// The secret file cannot be read. The operator's: set its path or its permissions right.
    SecretUnreadable {
        /// The file.
        path: PathBuf,
        /// Why, in the operating system's words.
        reason: String,
    },
    /// The secret is not where it should be. The operator's: see the reason.
    SecretMissing {
        /// Why, and what to do.
        reason: String,
    },
    /// The server wants a secret and none was given. The operator's: name the secret file.
    SecretRequired,
    /// The server did not take the secret. The operator's: it has to be the file that varnishd
    /// was started with, byte for byte.
    SecretRefused {
        /// What the server answered; 500 for a wrong secret.
        status: Status,
        /// What it said, nothing for a wrong secret.
        body: Bytes,
        /// The file it came from; `None` when it was given as a value.
        file: Option<PathBuf>,
        /// Whether the secret that was used ends with a newline.
        ends_with_newline: bool,
    },
    /// No connection. The network's or the operator's; the text says what it looks like.
    Dial(Box<DialError>),
    /// The server accepted the connection and then said nothing for the limit.
    Silent {
        /// The limit.
        limit: Duration,
    },
    /// What came is no reply of varnishd, too long, or cut off. For a peer that is no Varnish the
    /// operator's: the address or port is another service's.
    Frame(FrameError),
    /// A well-formed reply with an unexpected status, in place of a greeting.
    Greeting {
        /// The status.
        status: Status,
        /// The text.
        body: Bytes,
    },
    /// The server closed the connection.
    Closed,
    /// The connection broke.
    Broken {
        /// Why, in the operating system's words.
        reason: String,
    },
    /// No reply within the limit. The server is busy, or gone.
    ReplyTimedOut {
        /// The limit.
        limit: Duration,
    },
    /// Not sent, because for the whole limit an earlier command went without its reply.
    Waiting {
        /// The limit.
        limit: Duration,
    },
    /// The limit on the call as a whole was reached at this stage.
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// varnishd did not carry out the command. The caller's, as a rule; the text says more.
    Rejected {
        /// The status.
        status: Status,
        /// The text.
        body: Bytes,
    },
    /// The command needs the cache process and that is not running. The operator's: start it
    /// (`varnishadm start`), or see why it dies (`varnishadm panic.show`).
    ChildNotRunning {
        /// Its state, in varnishd's words; `None` when that could not be asked.
        state: Option<String>,
    },
    /// Status 400: the manager lost the cache process while that carried out the command. It
    /// crashed, hangs, or was slower than `cli_timeout`.
    ChildLost {
        /// The text.
        body: Bytes,
    },
    /// A reply that belongs to another command: on this node, manager and cache process are out of
    /// step, and stay so until the cache process is restarted. The server's.
    ForeignReply {
        /// The status.
        status: Status,
        /// The text.
        body: Bytes,
    },
    /// An argument that the protocol cannot carry; nothing was sent. The caller's.
    Unsendable(CommandError),
    /// A reply of success that does not say what was asked. The server's, or that of a version
    /// whose replies this program does not know.
    Unreadable(AnswerError),
    /// A reply that nothing had asked for.
    UnaskedReply {
        /// The status.
        status: Status,
        /// The text.
        body: Bytes,
    },
    /// The connection was dropped because the reply to an earlier command was no good.
    Dropped,
    /// The client's task ended with its runtime. A fault of the program.
    Stopped,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No: somebody has to change something first.
    Never,
    /// Yes, on a new connection. The client makes one by itself and paces the attempts.
    NewConnection,
    /// Yes, after a while: the node or its cache process has to come back first.
    Later,
}

/// Which part failed, for an exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The node could not be reached, or stopped answering, or is no Varnish: exit status 3.
    Unreachable,
    /// The secret: exit status 4.
    Secret,
    /// varnishd rejected the command: exit status 5.
    Rejected {
        /// The status.
        status: Status,
    },
    /// The cache process is not running, or was lost meanwhile: exit status 6.
    ChildNotRunning,
    /// The node answers, and its replies cannot be relied on: exit status 3, since nothing is
    /// known of what it did.
    Unreliable,
}

/// Whether the command may have been carried out although it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was not.
    NotDone,
    /// Nobody knows. A ban may simply be sent again: the same ban twice does no harm.
    Unknown,
}

/// Every label that [`AdminError::label`] returns, so that each can have its series from the
/// start.
pub const LABELS: &[&str] = &[
    "child_lost",
    "child_not_running",
    "closed",
    "connect",
    "connect_timeout",
    "cut",
    "deadline",
    "foreign_reply",
    "listen",
    "not_dialled",
    "not_varnish",
    "refused",
    "rejected",
    "reply_timeout",
    "resolve",
    "secret_not_asked",
    "secret_refused",
    "secret_required",
    "secret_unreadable",
    "silent",
    "stopped",
    "too_long",
    "unreachable",
    "unreadable",
    "unsendable",
    "workdir_denied",
    "workdir_leftover",
    "workdir_missing",
    "workdir_no_admin_port",
    "workdir_unreadable",
];

impl AdminError {
    /// The reason as a metric's label, one of [`LABELS`].
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match &self.kind {
            Kind::Workdir(error) => error.label(),
            Kind::NoAddress => "connect",
            Kind::Listen { .. } => "listen",
            Kind::NotDialled { .. } => "not_dialled",
            Kind::SecretNotAsked => "secret_not_asked",
            Kind::SecretUnreadable { .. } | Kind::SecretMissing { .. } => "secret_unreadable",
            Kind::SecretRequired => "secret_required",
            Kind::SecretRefused { .. } => "secret_refused",
            Kind::Dial(error) => error.kind.label(),
            Kind::Silent { .. } => "silent",
            Kind::Frame(FrameError::TooLong { .. }) => "too_long",
            Kind::Frame(FrameError::Cut { .. }) => "cut",
            Kind::Frame(FrameError::Header { .. } | FrameError::Unterminated { .. })
            | Kind::Greeting { .. } => "not_varnish",
            Kind::Closed | Kind::Broken { .. } | Kind::Dropped => "closed",
            Kind::ReplyTimedOut { .. } | Kind::Waiting { .. } => "reply_timeout",
            Kind::Deadline { .. } => "deadline",
            Kind::Rejected { .. } => "rejected",
            Kind::ChildNotRunning { .. } => "child_not_running",
            Kind::ChildLost { .. } => "child_lost",
            Kind::ForeignReply { .. } | Kind::UnaskedReply { .. } => "foreign_reply",
            Kind::Unreadable(_) => "unreadable",
            Kind::Unsendable(_) => "unsendable",
            Kind::Stopped => "stopped",
        }
    }

    /// What varnishd said, whole: what a VCL compiler found, for one. `None` where it said nothing.
    /// It is text from outside: show it with [`Excerpt`].
    #[must_use]
    pub const fn words(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::SecretRefused { body, .. }
            | Kind::Greeting { body, .. }
            | Kind::Rejected { body, .. }
            | Kind::ChildLost { body }
            | Kind::ForeignReply { body, .. }
            | Kind::UnaskedReply { body, .. } => Some(body),
            _ => None,
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match &self.kind {
            // varnishd may be starting, or stopped for a moment.
            Kind::Workdir(error) if error.may_pass() => Retry::Later,
            Kind::Workdir(_)
            | Kind::NoAddress
            | Kind::Listen { .. }
            | Kind::SecretNotAsked
            | Kind::SecretUnreadable { .. }
            | Kind::SecretMissing { .. }
            | Kind::SecretRequired
            | Kind::SecretRefused { .. }
            | Kind::Greeting { .. }
            | Kind::Rejected { .. }
            | Kind::ForeignReply { .. }
            | Kind::Unreadable(_)
            | Kind::Unsendable(_)
            | Kind::Stopped => Retry::Never,
            Kind::Frame(FrameError::Cut { .. })
            | Kind::Closed
            | Kind::Broken { .. }
            | Kind::UnaskedReply { .. }
            | Kind::Dropped => Retry::NewConnection,
            Kind::Frame(_) => Retry::Never,
            Kind::Dial(_)
            | Kind::NotDialled { .. }
            | Kind::Silent { .. }
            | Kind::ReplyTimedOut { .. }
            | Kind::Waiting { .. }
            | Kind::Deadline { .. }
            | Kind::ChildNotRunning { .. }
            | Kind::ChildLost { .. } => Retry::Later,
        }
    }

    /// Which part failed.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match &self.kind {
            Kind::SecretUnreadable { .. }
            | Kind::SecretMissing { .. }
            | Kind::SecretRequired
            | Kind::SecretRefused { .. }
            | Kind::SecretNotAsked => Fault::Secret,
            Kind::Rejected { status, .. } => Fault::Rejected { status: *status },
            Kind::Unsendable(_) => Fault::Rejected { status: Status::PARAMETER },
            Kind::ChildNotRunning { .. } | Kind::ChildLost { .. } => Fault::ChildNotRunning,
            Kind::ForeignReply { .. }
            | Kind::UnaskedReply { .. }
            | Kind::Unreadable(_)
            | Kind::Frame(FrameError::TooLong { .. }) => Fault::Unreliable,
            Kind::Workdir(_)
            | Kind::NoAddress
            | Kind::Listen { .. }
            | Kind::NotDialled { .. }
            | Kind::Dial(_)
            | Kind::Silent { .. }
            | Kind::Frame(_)
            | Kind::Greeting { .. }
            | Kind::Closed
            | Kind::Broken { .. }
            | Kind::ReplyTimedOut { .. }
            | Kind::Waiting { .. }
            | Kind::Deadline { .. }
            | Kind::Dropped
            | Kind::Stopped => Fault::Unreachable,
        }
    }

    /// What happened, without node and step.
    pub(super) fn reason(&self) -> String {
        Reason(self).to_string()
    }

    /// Whether the command may have been carried out.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let refused = |status: Status| {
            status.as_u16() < 200 || status == Status::CANNOT || status == Status::CLOSE
        };
        match (&self.stage, &self.kind) {
            (
                Stage::Command(_),
                Kind::Waiting { .. } | Kind::ChildNotRunning { .. } | Kind::Unsendable(_),
            ) => Outcome::NotDone,
            (Stage::Command(_), Kind::Rejected { status, .. }) if refused(*status) => {
                Outcome::NotDone
            }
            (Stage::Command(_), _) => Outcome::Unknown,
            _ => Outcome::NotDone,
        }
    }
}

impl std::error::Error for AdminError {}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.node, self.stage, Reason(self))?;
        let unknown = self.outcome() == Outcome::Unknown;
        if unknown { f.write_str("; whether it was carried out is unknown") } else { Ok(()) }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("pausing before the next attempt"),
            Self::Locate => f.write_str("finding the admin port"),
            Self::Accept => f.write_str("waiting for varnishd to dial in"),
            Self::Resolve => f.write_str("looking up the name"),
            Self::Connect => f.write_str("connecting"),
            Self::Greeting => f.write_str("waiting for the greeting"),
            Self::Secret => f.write_str("reading the secret"),
            Self::Authenticate => f.write_str("authenticating"),
            Self::Command(verb) => f.pad(verb.as_str()),
        }
    }
}

/// The kind of an error in words, which depend on the stage.
struct Reason<'a>(&'a AdminError);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = &self.0.stage;
        match &self.0.kind {
            Kind::Workdir(error) => error.fmt(f),
            Kind::NoAddress => f.write_str("no address is known"),
            Kind::Listen { address, in_use: true, .. } => write!(
                f,
                "another program listens on {address}, the running daemon as a rule: varnishd \
                 keeps one connection, and that is the daemon's"
            ),
            Kind::Listen { address, in_use: false, reason } => {
                write!(f, "cannot listen on {address}: {reason}")
            }
            Kind::NotDialled { address, limit } => write!(
                f,
                "nobody dialled {address} within {}: varnishd does not run, or was started \
                 without -M and this address, or something on the way lets nobody through",
                format_duration(*limit)
            ),
            Kind::SecretNotAsked => f.write_str(
                "the peer that dialled in asked for no secret although one is configured: it is \
                 another program, or a varnishd with -S none",
            ),
            Kind::SecretUnreadable { path, reason } => {
                write!(f, "cannot read {}: {reason}", path.display())?;
                if path.file_name().is_some_and(|name| name == "_.secret") {
                    f.write_str(
                        " (varnishd made this secret itself, for its own user and root alone: \
                         start it with -S FILE to let others in)",
                    )?;
                }
                Ok(())
            }
            Kind::SecretMissing { reason } => f.write_str(reason),
            Kind::SecretRequired => f.write_str(
                "the server asks for a secret and none was given: name its secret file (-S FILE, \
                 or secret_file in a configuration)",
            ),
            Kind::SecretRefused { status, body, file, ends_with_newline } => {
                refused(f, *status, body, file.as_ref(), *ends_with_newline)
            }
            Kind::Dial(error) => error.fmt(f),
            Kind::Silent { limit } if *stage == Stage::Greeting => write!(
                f,
                "the connection was accepted and nothing said for {}: varnishd greets at once, so \
                 a packet filter or proxy on the way answers in its place, or this is another \
                 service (an HTTP port waits to be asked), or varnishd is busy with a long command",
                format_duration(*limit)
            ),
            Kind::Silent { limit } => write!(f, "no answer within {}", format_duration(*limit)),
            Kind::Frame(error) => error.fmt(f),
            Kind::Greeting { status, body } => write!(
                f,
                "expected a greeting of varnishd, got status {status} with {}",
                Excerpt::new(body, SHOWN)
            ),
            Kind::Closed if *stage == Stage::Greeting => f.write_str(
                "the connection was accepted and closed without a word: this is no varnishd, or \
                 something between here and there lets nobody through",
            ),
            Kind::Closed => f.write_str("the server closed the connection instead of an answer"),
            Kind::Broken { reason } => write!(f, "the connection broke: {reason}"),
            Kind::ReplyTimedOut { limit } => write!(
                f,
                "no reply within {}: varnishd is busy with a long command, or out of reach",
                format_duration(*limit)
            ),
            Kind::Waiting { limit } => write!(
                f,
                "not sent: an earlier command had no reply for {} more",
                format_duration(*limit)
            ),
            Kind::Deadline { limit } => {
                write!(f, "given up at the limit of {} on the whole", format_duration(*limit))
            }
            Kind::Rejected { status, body } => rejected(f, *status, body),
            Kind::ChildNotRunning { state } => {
                f.write_str("the cache process is not running")?;
                match state {
                    Some(state) => write!(f, " (its state: {state})"),
                    None => Ok(()),
                }
            }
            Kind::ChildLost { body } => write!(
                f,
                "varnishd lost its cache process over it (status 400, {}): it crashed, hangs, or \
                 was too slow",
                Excerpt::new(body, SHOWN)
            ),
            Kind::ForeignReply { status, body } => write!(
                f,
                "the reply ({status} with {}) belongs to another command: manager and cache \
                 process of this node are out of step until the cache process is restarted",
                Excerpt::new(body, SHOWN)
            ),
            Kind::Unreadable(error) => error.fmt(f),
            Kind::Unsendable(error) => error.fmt(f),
            Kind::UnaskedReply { status, body } => write!(
                f,
                "a reply that nothing had asked for: {status} with {}",
                Excerpt::new(body, SHOWN)
            ),
            Kind::Dropped => f.write_str(
                "the connection was dropped, because the reply to an earlier command was no good",
            ),
            Kind::Stopped => f.write_str("the client has been stopped"),
        }
    }
}

fn refused(
    f: &mut fmt::Formatter<'_>,
    status: Status,
    body: &Bytes,
    file: Option<&PathBuf>,
    ends_with_newline: bool,
) -> fmt::Result {
    match file {
        Some(file) => write!(f, "the secret from {} was refused", file.display())?,
        None => f.write_str("the secret was refused")?,
    }
    write!(f, " (status {status}")?;
    if !body.is_empty() {
        write!(f, ", {}", Excerpt::new(body, SHOWN))?;
    }
    let ends = if ends_with_newline { "ends" } else { "does not end" };
    write!(
        f,
        "): every byte of varnishd's secret file counts, its last newline too, and this secret \
         {ends} with a newline"
    )
}

fn rejected(f: &mut fmt::Formatter<'_>, status: Status, body: &Bytes) -> fmt::Result {
    write!(f, "varnishd answered {status}")?;
    if let Some(meaning) = status.meaning() {
        write!(f, " ({meaning})")?;
    }
    if body.is_empty() { Ok(()) } else { write!(f, ": {}", Excerpt::new(body, SHOWN)) }
}

impl From<DialError> for Kind {
    fn from(error: DialError) -> Self {
        Self::Dial(Box::new(error))
    }
}

impl Stage {
    /// How far the step is from the start, for comparing attempts.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Pause | Self::Locate | Self::Accept => 0,
            Self::Resolve => 1,
            Self::Connect => 2,
            Self::Greeting => 3,
            Self::Secret => 4,
            Self::Authenticate => 5,
            Self::Command(_) => 6,
        }
    }

    /// The step at which dialling failed.
    pub(super) const fn of_dialling(error: &DialError) -> Self {
        match error.kind {
            DialErrorKind::Resolve => Self::Resolve,
            DialErrorKind::Refused
            | DialErrorKind::TimedOut
            | DialErrorKind::Unreachable
            | DialErrorKind::Other => Self::Connect,
        }
    }
}
