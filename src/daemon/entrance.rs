//! Where events are handed in over HTTP: opened, changed and closed as the configuration says.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

use super::events::read_secret;
use super::journal::chain;
use crate::config::{Invalidations, SecretSettings};
use crate::expose::{
    BindError, Desk, SocketError, Tokens, TokensError, bind, bind_socket, serve_invalidations,
    serve_invalidations_socket,
};
use crate::model::Secret;
use crate::systemd::{CredentialError, Credentials};

/// The longest file of tokens that is read.
const LONGEST: u64 = 64 * 1_024;

/// Why events cannot be taken as configured. The operator's to put right; no byte of a token is in
/// it.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The tokens are a credential that systemd did not hand over.
    #[error("[invalidations]: its tokens cannot be found")]
    Credential(#[source] CredentialError),
    /// Their file cannot be read.
    #[error("[invalidations]: its tokens cannot be read from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Their file holds something else.
    #[error("[invalidations]: {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokensError,
    },
    /// There is an address, and nothing says who may use it.
    #[error("[invalidations]: `listen` needs tokens")]
    NoTokens,
    /// The address cannot be listened on.
    #[error("[invalidations]")]
    Bind(#[source] BindError),
    /// Neither can it beside the one that is listened on now.
    #[error(
        "[invalidations]: {address} cannot be listened on while {now} is: use another port, or \
         restart"
    )]
    Overlap {
        /// The address.
        address: SocketAddr,
        /// The one that is listened on.
        now: SocketAddr,
    },
    /// The socket cannot be listened on.
    #[error("[invalidations]")]
    Socket(#[source] SocketError),
}

/// What is listened on. Each place is open for as long as its value lives.
#[derive(Debug)]
pub(super) struct Entrance {
    desk: Arc<Desk>,
    port: Option<Port>,
    socket: Option<Socket>,
    /// Where the listeners run.
    runtime: Handle,
    tasks: JoinSet<()>,
}

/// A port that is open, to those with a token alone.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    tokens: watch::Sender<Tokens>,
}

/// A socket that is open.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    tokens: watch::Sender<Option<Tokens>>,
}

/// What is to be listened on. All that can fail is behind it, and nobody is served yet.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The most requests a second, and the most bytes of a body.
    allowed: Option<(f64, u64)>,
    /// A listener where none is open at that address.
    port: Option<(SocketAddr, Tokens, Option<std::net::TcpListener>)>,
    /// The same for a path.
    socket: Option<(PathBuf, Option<Tokens>, Option<std::os::unix::net::UnixListener>)>,
}

impl Prepared {
    /// Reads and opens what `settings` say and is not open `now`. At the start (`now` is `None`) a
    /// socket that cannot be opened is told of and left out: the daemon watches all the same.
    ///
    /// # Errors
    /// [`EntranceError`]; nothing was changed then.
    pub(super) async fn new(
        settings: Option<&Invalidations>,
        now: Option<&Entrance>,
        credentials: &Credentials,
    ) -> Result<Self, EntranceError> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        let tokens = tokens(settings, credentials)?;
        let mut prepared =
            Self { allowed: Some((settings.max_rate, settings.max_body)), ..Self::default() };
        if let Some(address) = settings.listen {
            let tokens = tokens.clone().ok_or(EntranceError::NoTokens)?;
            let open = now.and_then(|now| now.port.as_ref()).map(|port| port.address);
            let listener = match open == Some(address) {
                true => None,
                false => Some(open_port(address, open).await?),
            };
            prepared.port = Some((address, tokens, listener));
        }
        // The last thing that can fail: a socket takes the place of what was there.
        if let Some(path) = &settings.socket {
            let open = now.and_then(|now| now.socket.as_ref()).map(|socket| &socket.path);
            let listener = match open == Some(path) {
                true => None,
                false => match open_socket(path).await {
                    Ok(listener) => Some(listener),
                    Err(fault) if now.is_none() => {
                        error!("events cannot be handed in: {}", chain(&fault));
                        return Ok(prepared);
                    }
                    Err(fault) => return Err(EntranceError::Socket(fault)),
                },
            };
            prepared.socket = Some((path.clone(), tokens, listener));
        }
        Ok(prepared)
    }
}

impl Entrance {
    /// Nothing is listened on yet. Listeners will run on `runtime`, and events go to `desk`.
    pub(super) fn new(desk: Desk, runtime: Handle) -> Self {
        let (desk, tasks) = (Arc::new(desk), JoinSet::new());
        Self { desk, port: None, socket: None, runtime, tasks }
    }

    /// Goes over to what was prepared: opens, closes, and replaces tokens. What stays open keeps its
    /// connections.
    pub(super) fn replan(&mut self, prepared: Prepared) {
        while self.tasks.try_join_next().is_some() {}
        let Prepared { allowed, port, socket } = prepared;
        if let Some((max_rate, max_body)) = allowed {
            self.desk.allow(max_rate, max_body);
        }
        match (port, &self.port) {
            (Some((address, tokens, Some(listener))), _) => {
                self.port = Some(self.serve_port(address, tokens, listener));
            }
            (Some((_, tokens, None)), Some(open)) => drop(open.tokens.send_replace(tokens)),
            (_, _) => self.port = None,
        }
        match (socket, &self.socket) {
            (Some((path, tokens, Some(listener))), _) => {
                self.socket = Some(self.serve_socket(path, tokens, listener));
            }
            (Some((_, tokens, None)), Some(open)) => drop(open.tokens.send_replace(tokens)),
            (_, _) => self.socket = None,
        }
    }

    /// Closes everything, and lets answers under way end.
    pub(super) async fn stop(mut self) {
        self.replan(Prepared::default());
        while self.tasks.join_next().await.is_some() {}
    }

    fn serve_port(
        &mut self,
        address: SocketAddr,
        tokens: Tokens,
        listener: std::net::TcpListener,
    ) -> Port {
        let (sender, tokens) = watch::channel(tokens);
        let desk = Arc::clone(&self.desk);
        let serve = async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve_invalidations(listener, desk, tokens).await,
                Err(fault) => error!("events cannot be taken on the port: {fault}"),
            }
        };
        self.tasks.spawn_on(serve, &self.runtime);
        info!("events are taken on http://{address}/api/v1/invalidations");
        Port { address, tokens: sender }
    }

    fn serve_socket(
        &mut self,
        path: PathBuf,
        tokens: Option<Tokens>,
        listener: std::os::unix::net::UnixListener,
    ) -> Socket {
        let (sender, tokens) = watch::channel(tokens);
        let desk = Arc::clone(&self.desk);
        let serve = async move {
            match UnixListener::from_std(listener) {
                Ok(listener) => serve_invalidations_socket(listener, desk, tokens).await,
                Err(fault) => error!("events cannot be taken on the socket: {fault}"),
            }
        };
        self.tasks.spawn_on(serve, &self.runtime);
        Socket { path, tokens: sender }
    }
}

impl Drop for Socket {
    /// Its file goes while it is still listened on: after that, another daemon may have put its own
    /// there.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a port, for another runtime.
async fn open_port(
    address: SocketAddr,
    open: Option<SocketAddr>,
) -> Result<std::net::TcpListener, EntranceError> {
    let listener = bind(address).await.map_err(|fault| match (fault, open) {
        (BindError::InUse { .. }, Some(now)) if now.port() == address.port() => {
            EntranceError::Overlap { address, now }
        }
        (fault, _) => EntranceError::Bind(fault),
    })?;
    let detached = listener.into_std();
    detached.map_err(|source| EntranceError::Bind(BindError::Other { address, source }))
}

/// Opens a socket, for another runtime.
async fn open_socket(path: &Path) -> Result<std::os::unix::net::UnixListener, SocketError> {
    let detached = bind_socket(path).await?.into_std();
    detached.map_err(|source| SocketError::Other { path: path.to_owned(), source })
}

/// The tokens that are configured; `None` where none are asked for.
fn tokens(
    settings: &Invalidations,
    credentials: &Credentials,
) -> Result<Option<Tokens>, EntranceError> {
    let path = match &settings.tokens {
        SecretSettings::None => return Ok(None),
        SecretSettings::File(path) => path.clone(),
        SecretSettings::Credential { name, file } => match (credentials.path(name), file) {
            (Ok(path), _) => path,
            (Err(_), Some(file)) => file.clone(),
            (Err(fault), None) => return Err(EntranceError::Credential(fault)),
        },
    };
    let read: Result<Secret, io::Error> = read_secret(&path, LONGEST);
    let file = read.map_err(|source| EntranceError::Read { path: path.clone(), source })?;
    let tokens = Tokens::read(&file);
    tokens.map(Some).map_err(|source| EntranceError::Content { path, source })
}
