//! From a socket to a session that is ready.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Encoder as _, FramedRead};

use super::place::MOST_ADDRESSES;
use super::socket::{AwaitsMore, Socket};
use super::{
    AdminError, Instance, Kind, Options, Place, SecretSource, Stage, Target, Workdir, WorkdirError,
};
use crate::model::{HostPort, NodeName};
use crate::net::dial;
use crate::protocol::{
    Banner, Codec, CodecError, Command, Event, Phase, Reply, ServerVersion, Session, Violation,
};

/// The longest body taken before the server has been proven to be one, in bytes: a greeting and a
/// banner have a few hundred.
const GREETING_LIMIT: usize = 64 * 1024;

/// Anything that a session can be held over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Transport for S {}

/// How a connection came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The address that answered; `None` for a connection that was handed in.
    pub peer: Option<SocketAddr>,
    /// The server's version, if its banner states one.
    pub version: Option<ServerVersion>,
    /// Whether the banner says that the cache process is stopped.
    pub child_stopped: bool,
    /// What the operator should know of.
    pub notes: Vec<Note>,
    /// How long the name lookup took.
    pub lookup: Duration,
    /// How long connecting took.
    pub connect: Duration,
    /// How long it took from the open connection to the server's consent.
    pub authenticate: Duration,
}

/// Something that works and should not stay so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Note {
    /// The server took an empty secret: its secret file was emptied, and everybody who reaches the
    /// port may command it.
    EmptySecret,
    /// The server asked for no secret: everybody who reaches the port may command it.
    NoSecretAsked,
}

impl Note {
    /// The note as a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::EmptySecret => "empty_secret",
            Self::NoSecretAsked => "no_secret_asked",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptySecret => {
                "the secret is empty and was taken: whoever reaches the admin port may command \
                 this node"
            }
            Self::NoSecretAsked => {
                "the server asks for no secret: whoever reaches the admin port may command this \
                 node"
            }
        })
    }
}

/// An open connection with its session and what waits to be written.
pub(super) struct Connection<T> {
    pub(super) reader: FramedRead<ReadHalf<Box<dyn Transport>>, Codec>,
    pub(super) writer: WriteHalf<Box<dyn Transport>>,
    pub(super) output: BytesMut,
    pub(super) session: Session<T>,
    pub(super) greeting: Greeting,
    pub(super) awaits_more: AwaitsMore,
}

/// Finds the target, connects and authenticates. `step` is told each stage as it begins.
pub(super) async fn open<T>(
    target: &Target,
    options: &Options,
    step: impl Fn(Stage),
) -> Result<Connection<T>, AdminError> {
    let Target { node, place, secret } = target;
    match place {
        Place::Addresses(addresses) => open_any(node, addresses, secret, options, &step).await,
        Place::Workdir(workdir) => open_instance(node, workdir, secret, options, &step).await,
        Place::Reverse(acceptor) => acceptor.accept(node, secret, options, step).await,
    }
}

/// Opens what a work directory leads to.
async fn open_instance<T>(
    node: &NodeName,
    workdir: &Workdir,
    secret: &SecretSource,
    options: &Options,
    step: &impl Fn(Stage),
) -> Result<Connection<T>, AdminError> {
    step(Stage::Locate);
    let located = |error: WorkdirError| AdminError {
        node: node.clone(),
        stage: Stage::Locate,
        kind: Kind::Workdir(Box::new(error)),
    };
    let found = workdir.find().map_err(located)?;
    let secret = if let SecretSource::Workdir = secret { &found.secret } else { secret };
    let Instance { addresses, dir, manager, .. } = &found;
    let opened = open_any(node, addresses, secret, options, step).await;
    opened.map_err(|error| {
        // Whoever asked for the secret is a varnishd, whatever the directory looks like.
        if found.manager_is_gone && error.stage.rank() <= Stage::Greeting.rank() {
            let (dir, manager, attempt) = (dir.clone(), *manager, error.reason());
            return located(WorkdirError::Leftover { dir, manager, attempt });
        }
        error
    })
}

/// Tries each address until one connects and takes the secret. The error is that of the attempt
/// that came furthest, the first of several.
async fn open_any<T>(
    node: &NodeName,
    addresses: &[HostPort],
    secret: &SecretSource,
    options: &Options,
    step: &impl Fn(Stage),
) -> Result<Connection<T>, AdminError> {
    let mut failed: Option<AdminError> = None;
    let mut left = options.connect;
    let count = addresses.len().min(MOST_ADDRESSES);
    for (address, waiting) in addresses.iter().zip((1..=count).rev()) {
        // An address that drops packets leaves the others their share of the limit.
        let share = left / u32::try_from(waiting).unwrap_or(u32::MAX);
        let start = Instant::now();
        let opened = open_at(node, address, share, secret, options, step).await;
        match opened {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                if matches!(error.kind, Kind::Dial(_)) {
                    left = left.saturating_sub(start.elapsed());
                }
                if failed.as_ref().is_none_or(|best| best.stage.rank() < error.stage.rank()) {
                    failed = Some(error);
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| AdminError {
        node: node.clone(),
        stage: Stage::Connect,
        kind: Kind::NoAddress,
    }))
}

async fn open_at<T>(
    node: &NodeName,
    address: &HostPort,
    limit: Duration,
    secret: &SecretSource,
    options: &Options,
    step: &impl Fn(Stage),
) -> Result<Connection<T>, AdminError> {
    step(Stage::Connect);
    let dialled = dial(address, limit).await.map_err(|error| AdminError {
        node: node.clone(),
        stage: Stage::of_dialling(&error),
        kind: error.into(),
    })?;
    let (socket, awaits_more) = Socket::new(dialled.stream);
    let mut connection = over(Box::new(socket), node, secret, options, step).await?;
    connection.awaits_more = awaits_more;
    connection.greeting.peer = Some(dialled.peer);
    connection.greeting.lookup = dialled.lookup;
    connection.greeting.connect = dialled.connect;
    Ok(connection)
}

/// Authenticates on a connection that is open.
pub(super) async fn over<T>(
    stream: Box<dyn Transport>,
    node: &NodeName,
    secret: &SecretSource,
    options: &Options,
    step: impl Fn(Stage),
) -> Result<Connection<T>, AdminError> {
    let start = Instant::now();
    let (read, writer) = split(stream);
    let mut connection = Connection {
        reader: FramedRead::new(read, Codec::new(GREETING_LIMIT)),
        writer,
        output: BytesMut::new(),
        session: Session::new(),
        greeting: Greeting {
            peer: None,
            version: None,
            child_stopped: false,
            notes: Vec::new(),
            lookup: Duration::ZERO,
            connect: Duration::ZERO,
            authenticate: Duration::ZERO,
        },
        awaits_more: AwaitsMore::default(),
    };
    let handshake = connection.handshake(secret, &step);
    let result = match timeout(options.authenticate, handshake).await {
        Ok(result) => result,
        Err(_) => Err(Kind::Silent { limit: options.authenticate }),
    };
    match result {
        Ok(banner) => {
            connection.greeting.version = banner.version;
            connection.greeting.child_stopped = banner.child_stopped;
            connection.greeting.authenticate = start.elapsed();
            connection.reader.decoder_mut().set_limit(options.body_limit);
            Ok(connection)
        }
        Err(kind) => {
            let stage = match (&kind, connection.session.phase()) {
                (
                    Kind::SecretUnreadable { .. }
                    | Kind::SecretMissing { .. }
                    | Kind::SecretRequired,
                    _,
                ) => Stage::Secret,
                (Kind::SecretRefused { .. }, _) | (_, Phase::Authenticating) => Stage::Authenticate,
                _ => Stage::Greeting,
            };
            Err(AdminError { node: node.clone(), stage, kind })
        }
    }
}

impl<T> Connection<T> {
    async fn handshake(
        &mut self,
        source: &SecretSource,
        step: &impl Fn(Stage),
    ) -> Result<Banner, Kind> {
        step(Stage::Greeting);
        let greeting = self.next_reply().await?;
        match self.session.handle(greeting)? {
            Event::Challenged => {}
            Event::Ready(banner) => {
                self.greeting.notes.push(Note::NoSecretAsked);
                return Ok(banner);
            }
            Event::Reply { reply, .. } => return Err(Violation::Unasked(reply).into()),
        }

        let secret = source.load()?.ok_or(Kind::SecretRequired)?;
        if let Some(auth) = self.session.authenticate(&secret) {
            step(Stage::Authenticate);
            self.write(&auth);
            self.flush().await?;
        }
        let answer = self.next_reply().await?;
        match self.session.handle(answer) {
            Ok(Event::Ready(banner)) => {
                if secret.is_empty() {
                    self.greeting.notes.push(Note::EmptySecret);
                }
                Ok(banner)
            }
            Ok(Event::Reply { reply, .. }) => Err(Violation::Unasked(reply).into()),
            Ok(Event::Challenged) => Err(Kind::SecretRequired),
            Err(Violation::Refused(reply)) => Err(Kind::SecretRefused {
                status: reply.status,
                body: reply.body,
                file: source.file().map(ToOwned::to_owned),
                ends_with_newline: secret.ends_with_newline(),
            }),
            Err(violation) => Err(violation.into()),
        }
    }

    /// Puts a command into the output, to be flushed.
    pub(super) fn write(&mut self, command: &Command) {
        // Copying into memory does not fail.
        let _ = self.reader.decoder_mut().encode(command, &mut self.output);
    }

    /// Writes the output out. Only where no reply can be under way: elsewhere the socket has to be
    /// read at the same time.
    pub(super) async fn flush(&mut self) -> Result<(), Kind> {
        self.writer.write_all_buf(&mut self.output).await.map_err(|error| broken(&error))
    }

    /// The next reply of the stream. Cancellation safe.
    pub(super) async fn next_reply(&mut self) -> Result<Reply, Kind> {
        received(self.reader.next().await)
    }
}

/// What reading brought, the end of the stream and failures as kinds.
pub(super) fn received(item: Option<Result<Reply, CodecError>>) -> Result<Reply, Kind> {
    match item {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(CodecError::Frame(error))) => Err(Kind::Frame(error)),
        Some(Err(CodecError::Io(error))) => Err(broken(&error)),
        None => Err(Kind::Closed),
    }
}

pub(super) fn broken(error: &io::Error) -> Kind {
    Kind::Broken { reason: error.to_string() }
}

impl From<Violation> for Kind {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Greeting(Reply { status, body }) => Self::Greeting { status, body },
            Violation::Refused(Reply { status, body }) => {
                Self::SecretRefused { status, body, file: None, ends_with_newline: false }
            }
            Violation::Unasked(Reply { status, body }) => Self::UnaskedReply { status, body },
            Violation::Foreign { reply: Reply { status, body }, .. } => {
                Self::ForeignReply { status, body }
            }
        }
    }
}
