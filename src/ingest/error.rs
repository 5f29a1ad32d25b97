//! What went wrong, whose fault it is, what to do next.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;

use crate::model::{HostPort, Untrusted, format_duration};
use crate::net::DialError;
use crate::net::tls::TlsError;

/// As much of the server's text is kept, in characters.
const SHOWN: usize = 400;

/// Why Redis did not do what was wanted: at which server, at which step, and what happened.
#[derive(Debug, Clone)]
pub struct IngestError {
    /// The server.
    pub address: HostPort,
    /// The step.
    pub stage: Stage,
    /// What happened.
    pub kind: Kind,
}

/// The steps towards an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Looking the name up and opening the connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// HELLO with the password, SELECT.
    Authenticate,
    /// A command, by its name.
    Command(&'static str),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Kind {
    /// No connection. The network's or the operator's; the text says what it looks like.
    Dial(Box<DialError>),
    /// No TLS. The operator's as a rule: the certificate, the authorities, or a port without TLS.
    Tls(Arc<TlsError>),
    /// The server wants a password and none was given (NOAUTH). The operator's: name the file.
    PasswordRequired,
    /// The server did not take user and password (WRONGPASS). The operator's.
    WrongPassword,
    /// The password file holds bytes that are no text (UTF-8). The operator's.
    PasswordNotText,
    /// The ACL user may not do this (NOPERM). The operator's: grant the command and the keys.
    NotPermitted {
        /// The server's words, which name the command or the key.
        text: String,
    },
    /// The server is a node of a Redis Cluster. The operator's: events need one server that is not
    /// clustered, since their keys belong together.
    Cluster,
    /// The server is a Sentinel, which holds no data. The operator's: name the Redis server itself.
    Sentinel,
    /// The server is a replica, which cannot be written to. The operator's: name the master.
    Replica,
    /// The server is older than 6.0 and does not know HELLO. The operator's.
    TooOld,
    /// The server reads its data from disk and answers later (LOADING). Nobody's.
    Loading,
    /// The server has no memory left for what was to be written (OOM). The operator's.
    OutOfMemory,
    /// The key holds something that is no stream (WRONGTYPE). The operator's: name another key.
    WrongType,
    /// The consumer group or the stream is gone (NOGROUP): somebody deleted it. It is made again.
    NoGroup,
    /// The server answered with another error.
    Rejected {
        /// Its first word, such as ERR.
        code: String,
        /// The rest.
        text: String,
    },
    /// What came is not Redis's protocol. The operator's: the port is another service's, or speaks
    /// TLS.
    NotRedis,
    /// A well-formed answer that is not one to this question. The server's, or a proxy's.
    Unexpected {
        /// What was looked for in it.
        expected: &'static str,
    },
    /// The answer is longer than this program keeps.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// No answer within the limit: the server is busy, or gone without a sign.
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The connection ended: the server stopped, or something between dropped it.
    Closed {
        /// The operating system's words.
        reason: String,
    },
}

/// Every label that [`IngestError::label`] returns, so that each can have its series from the
/// start.
pub const LABELS: &[&str] = &[
    "closed",
    "cluster",
    "connect",
    "connect_timeout",
    "loading",
    "no_group",
    "not_permitted",
    "not_redis",
    "out_of_memory",
    "password_not_text",
    "password_required",
    "refused",
    "rejected",
    "replica",
    "reply_timeout",
    "resolve",
    "sentinel",
    "tls",
    "too_long",
    "too_old",
    "unexpected",
    "unreachable",
    "wrong_password",
    "wrong_type",
];

impl IngestError {
    /// The reason as a metric's label, one of [`LABELS`].
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match &self.kind {
            Kind::Dial(error) => error.kind.label(),
            Kind::Tls(_) => "tls",
            Kind::PasswordRequired => "password_required",
            Kind::WrongPassword => "wrong_password",
            Kind::PasswordNotText => "password_not_text",
            Kind::NotPermitted { .. } => "not_permitted",
            Kind::Cluster => "cluster",
            Kind::Sentinel => "sentinel",
            Kind::Replica => "replica",
            Kind::TooOld => "too_old",
            Kind::Loading => "loading",
            Kind::OutOfMemory => "out_of_memory",
            Kind::WrongType => "wrong_type",
            Kind::NoGroup => "no_group",
            Kind::Rejected { .. } => "rejected",
            Kind::NotRedis => "not_redis",
            Kind::Unexpected { .. } => "unexpected",
            Kind::TooLong { .. } => "too_long",
            Kind::TimedOut { .. } => "reply_timeout",
            Kind::Closed { .. } => "closed",
        }
    }

    /// Whether trying again can help with nobody changing anything: the server or the network may
    /// come back by itself. What this is not true of is tried again all the same by the tasks that
    /// go on for ever, since somebody may change it while they run.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self.kind,
            Kind::Dial(_)
                | Kind::Loading
                | Kind::OutOfMemory
                | Kind::NoGroup
                | Kind::Replica
                | Kind::TimedOut { .. }
                | Kind::Closed { .. }
        )
    }

    /// Whether the server answered and the connection is still good: it is the command that it
    /// did not carry out.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(
            self.kind,
            Kind::PasswordRequired
                | Kind::WrongPassword
                | Kind::NotPermitted { .. }
                | Kind::Cluster
                | Kind::Replica
                | Kind::Loading
                | Kind::OutOfMemory
                | Kind::WrongType
                | Kind::NoGroup
                | Kind::Rejected { .. }
                | Kind::Unexpected { .. }
        )
    }
}

impl Kind {
    /// What the client library said, in this program's terms.
    pub(super) fn of(error: &RedisError) -> Self {
        use redis::ErrorKind;

        let short = |text: &str| text.chars().take(SHOWN).collect::<String>();
        let text = || short(error.detail().unwrap_or_default());
        match (error.kind(), error.code()) {
            (ErrorKind::RESP3NotSupported, _) => Self::TooOld,
            (ErrorKind::Parse, _) => Self::NotRedis,
            (ErrorKind::Io, _) => Self::Closed { reason: short(&error.to_string()) },
            (_, Some(code)) => match code {
                "NOAUTH" => Self::PasswordRequired,
                "WRONGPASS" => Self::WrongPassword,
                "NOPERM" => Self::NotPermitted { text: text() },
                "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => Self::Cluster,
                "READONLY" | "MASTERDOWN" => Self::Replica,
                "LOADING" => Self::Loading,
                "OOM" => Self::OutOfMemory,
                "WRONGTYPE" => Self::WrongType,
                "NOGROUP" => Self::NoGroup,
                "NOPROTO" => Self::TooOld,
                code => Self::Rejected { code: short(code), text: text() },
            },
            _ => Self::Closed { reason: short(&error.to_string()) },
        }
    }
}

impl std::error::Error for IngestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Dial(error) => Some(error.as_ref()),
            Kind::Tls(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}: {}: ", self.address, self.stage)?;
        match &self.kind {
            // The source says it.
            Kind::Dial(_) => f.write_str("no connection"),
            Kind::Tls(_) => f.write_str("no TLS"),
            Kind::PasswordRequired => {
                f.write_str("it wants a password and none was given: name the file that holds it")
            }
            Kind::WrongPassword => f.write_str("it refuses the user or the password"),
            Kind::PasswordNotText => f.write_str("the password is no UTF-8 text"),
            Kind::NotPermitted { text } => {
                write!(f, "the ACL user may not do this: {}", Untrusted(text))
            }
            Kind::Cluster => f.write_str(
                "this is a node of a Redis Cluster: events need a Redis server that is not \
                 clustered, since the keys of a stream belong together",
            ),
            Kind::Sentinel => f.write_str(
                "this is a Sentinel, which holds no data: name the Redis server that it watches",
            ),
            Kind::Replica => f.write_str(
                "this is a replica that cannot be written to, or its master is away: name the \
                 master",
            ),
            Kind::TooOld => f.write_str("it does not know HELLO 3: Redis 6.0 or newer is needed"),
            Kind::Loading => f.write_str("it is still reading its data from disk"),
            Kind::OutOfMemory => f.write_str("it has no memory left (maxmemory)"),
            Kind::WrongType => f.write_str("the key holds something other than is needed there"),
            Kind::NoGroup => f.write_str("the stream or its consumer group is gone"),
            Kind::Rejected { code, text } => {
                write!(f, "it answers {} {}", Untrusted(code), Untrusted(text))
            }
            Kind::NotRedis => f.write_str(
                "what answers does not speak Redis's protocol: another service's port, or one \
                 with TLS",
            ),
            Kind::Unexpected { expected } => {
                write!(f, "an answer to something else came, expected {expected}")
            }
            Kind::TooLong { limit } => write!(f, "the answer is over {limit} bytes long"),
            Kind::TimedOut { limit } => write!(f, "no answer within {}", format_duration(*limit)),
            Kind::Closed { reason } => write!(f, "the connection ended: {}", Untrusted(reason)),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connecting"),
            Self::Tls => f.write_str("TLS handshake"),
            Self::Authenticate => f.write_str("authenticating"),
            Self::Command(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> IngestError {
        let address = "redis.example.com:6379".parse().unwrap();
        IngestError { address, stage: Stage::Command("XADD"), kind }
    }

    #[test]
    fn servers_words_cannot_steer_a_terminal() {
        let shown = error(Kind::Rejected { code: "ERR".into(), text: "a\x1b[2Jb".into() });
        assert_eq!(
            shown.to_string(),
            "Redis at redis.example.com:6379: XADD: it answers ERR a\\x1b[2Jb"
        );
    }

    #[test]
    fn labels_are_sorted_and_closed() {
        assert!(LABELS.is_sorted());
        for kind in [Kind::Cluster, Kind::Sentinel, Kind::NotRedis, Kind::TooLong { limit: 1 }] {
            assert!(LABELS.contains(&error(kind).label()));
        }
    }
}
