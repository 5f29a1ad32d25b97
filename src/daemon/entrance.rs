//! Where events are handed in over HTTP.

use std::io;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use super::events::read_secret;
use super::ledger::{Socket, open_socket};
use crate::clock::Clock;
use crate::config::{Invalidations, SecretSettings};
use crate::expose::{
    self, BindError, Door, HandedIn, Tokens, TokensError, serve_invalidations,
    serve_invalidations_socket,
};
use crate::model::Secret;
use crate::systemd::{CredentialError, Credentials};

/// The longest file of tokens that is read.
const LONGEST: u64 = 64 * 1_024;

/// Tokens that cannot be had. The operator's to put right; no byte of a token is in it.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// They are a credential that systemd did not hand over.
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
}

/// What is listened on.
#[derive(Debug)]
pub(super) struct Entrance {
    listener: Option<std::net::TcpListener>,
    socket: Option<(PathBuf, std::os::unix::net::UnixListener)>,
    settings: Invalidations,
    events: mpsc::Sender<HandedIn>,
    tokens: watch::Receiver<Option<Tokens>>,
    clock: Clock,
}

impl Entrance {
    /// Listens as configured.
    pub(super) async fn open(
        settings: &Invalidations,
        events: mpsc::Sender<HandedIn>,
        tokens: watch::Receiver<Option<Tokens>>,
        clock: Clock,
    ) -> Result<Self, BindError> {
        let listener = match settings.listen {
            Some(address) => {
                let listener = expose::bind(address).await?.into_std();
                Some(listener.map_err(|source| BindError::Other { address, source })?)
            }
            None => None,
        };
        let socket = match &settings.socket {
            Some(path) => open_socket(path.clone()).await.and_then(|it| Socket::detach(it).ok()),
            None => None,
        };
        if let Some(address) = settings.listen {
            info!("events are taken on http://{address}/api/v1/invalidations");
        }
        Ok(Self { listener, socket, settings: settings.clone(), events, tokens, clock })
    }

    /// Takes events until `shutdown` is ready.
    pub(super) async fn serve<S: Future<Output = ()>>(self, shutdown: impl Fn() -> S) {
        let on_port = async {
            let Some(listener) = &self.listener else { return };
            match listener.try_clone().and_then(TcpListener::from_std) {
                Ok(listener) => serve_invalidations(listener, self.door(), shutdown()).await,
                Err(fault) => error!("events cannot be taken on the port: {fault}"),
            }
        };
        let on_socket = async {
            let Some((path, listener)) = &self.socket else { return };
            match listener.try_clone().and_then(UnixListener::from_std) {
                Ok(listener) => {
                    // Removed while it is still listened on, as the other one.
                    let shutdown = async {
                        shutdown().await;
                        let _ = std::fs::remove_file(path);
                    };
                    serve_invalidations_socket(listener, self.door(), shutdown).await;
                }
                Err(fault) => error!("events cannot be taken on the socket: {fault}"),
            }
        };
        tokio::join!(on_port, on_socket);
    }

    fn door(&self) -> Door {
        Door {
            events: self.events.clone(),
            tokens: self.tokens.clone(),
            max_rate: self.settings.max_rate,
            max_body: self.settings.max_body,
            clock: self.clock,
        }
    }
}

/// The tokens that are configured; `None` where none are asked for.
pub(super) fn tokens(
    settings: &Invalidations,
    credentials: &Credentials,
) -> Result<Option<Tokens>, TokenFileError> {
    let path = match &settings.tokens {
        SecretSettings::None => return Ok(None),
        SecretSettings::File(path) => path.clone(),
        SecretSettings::Credential { name, file } => match (credentials.path(name), file) {
            (Ok(path), _) => path,
            (Err(_), Some(file)) => file.clone(),
            (Err(fault), None) => return Err(TokenFileError::Credential(fault)),
        },
    };
    let read: Result<Secret, io::Error> = read_secret(&path, LONGEST);
    let file = read.map_err(|source| TokenFileError::Read { path: path.clone(), source })?;
    let tokens = Tokens::read(&file);
    tokens.map(Some).map_err(|source| TokenFileError::Content { path, source })
}
