//! Reverse mode: varnishd dials in.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::{Connection, over};
use super::socket::Socket;
use super::{AdminError, Kind, Note, Options, SecretSource, Stage};
use crate::model::NodeName;

/// So many connections may be open that are not authenticated yet.
const MOST_PENDING: usize = 64;

/// So long each of them is safe from having to make room for the next. varnishd greets at once and
/// answers within a round trip, so this is enough for one on the other side of the world.
const SAFE: Duration = Duration::from_millis(500);

/// So many connections the system keeps for us while we are not looking.
const BACKLOG: u32 = 128;

/// The pause after the system refused to hand out a connection, as when no descriptor is left.
const AFTER_FAULT: Duration = Duration::from_millis(100);

/// Where varnishd dials in that was started with `-M` (varnishd(1)): a listening port.
///
/// The clones share the port, which is opened when it is first needed, or by
/// [`listen`](Self::listen), and closed with the last clone. One connection is handed out for each
/// one that is asked for. A varnishd whose connection was closed dials again after about a second,
/// and after failures with pauses of up to about ten.
///
/// Whoever reaches the port may connect. A peer that says nothing, or something else than
/// varnishd, keeps nobody out: up to 64 connections are listened to at a time, the oldest makes
/// room for the next, and the first that takes the secret is used. With a secret, a peer that does
/// not ask for it is refused.
///
/// A peer is not known to be varnishd: the secret proves us to it and not it to us, and whoever
/// dials in gets an answer to a challenge of its choice, with which it can log in at any port that
/// has this secret. Let only the hosts through that run varnishd.
#[derive(Clone)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
}

impl Acceptor {
    /// A port that varnishd will dial. Nothing is opened yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { shared: Arc::new(Shared { address, listener: Mutex::new(None) }) }
    }

    /// Opens the port now, unless it is open; the address that it has, with the port that the
    /// system chose where none was given (0).
    ///
    /// Needs a runtime, whose connections they are from then on. Waits while a connection is being
    /// accepted. Cancellation safe.
    ///
    /// # Errors
    /// The system's, such as an address in use.
    pub async fn listen(&self) -> io::Result<SocketAddr> {
        open(&mut *self.shared.listener.lock().await, self.shared.address)?.local_addr()
    }

    /// The address as it was given.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Waits until somebody dials in and takes the secret, for no longer than
    /// [`Options::dial_in`]. Whoever waits beside another waits its turn within the same limit.
    pub(super) async fn accept<T>(
        &self,
        node: &NodeName,
        secret: &SecretSource,
        options: &Options,
        step: impl Fn(Stage),
    ) -> Result<Connection<T>, AdminError> {
        step(Stage::Accept);
        let address = self.shared.address;
        let fault = |kind| AdminError { node: node.clone(), stage: Stage::Accept, kind };
        let mut failed: Option<AdminError> = None;
        let waiting = async {
            let mut listener = self.shared.listener.lock().await;
            let listener = open(&mut listener, address).map_err(|error| {
                let in_use = error.kind() == io::ErrorKind::AddrInUse;
                fault(Kind::Listen { address, in_use, reason: error.to_string() })
            })?;
            let authenticate = async |(stream, peer): (TcpStream, SocketAddr)| {
                let (socket, awaits_more) = Socket::new(stream);
                let mut connection = over(Box::new(socket), node, secret, options, &|_| {}).await?;
                connection.awaits_more = awaits_more;
                connection.greeting.peer = Some(peer);
                let asked = !connection.greeting.notes.contains(&Note::NoSecretAsked);
                if asked || matches!(secret, SecretSource::None | SecretSource::Workdir) {
                    return Ok(connection);
                }
                let stage = Stage::Greeting;
                Err(AdminError { node: node.clone(), stage, kind: Kind::SecretNotAsked })
            };
            let mut pending = Pending::default();
            loop {
                let room_at = pending.room_at();
                tokio::select! {
                    biased;
                    ended = pending.next() => match ended {
                        Ok(connection) => return Ok(connection),
                        // It is ours to mend, whoever dials in.
                        Err(
                            error @ AdminError {
                                kind: Kind::SecretUnreadable { .. } | Kind::SecretMissing { .. },
                                ..
                            },
                        ) => {
                            return Err(error);
                        }
                        Err(error) => keep_most_telling(&mut failed, error),
                    },
                    accepted = listener.accept(), if room_at.is_none() => match accepted {
                        Ok((stream, peer)) => {
                            let _ = stream.set_nodelay(true);
                            pending.push(authenticate((stream, peer)));
                        }
                        Err(error) => {
                            let reason = error.to_string();
                            keep_most_telling(&mut failed, fault(Kind::Broken { reason }));
                            sleep(AFTER_FAULT).await;
                        }
                    },
                    () = sleep_until(room_at.unwrap_or_else(Instant::now)), if room_at.is_some() => {}
                }
            }
        };
        match timeout(options.dial_in, waiting).await {
            Ok(result) => result,
            Err(_) => {
                let nobody = || fault(Kind::NotDialled { address, limit: options.dial_in });
                Err(failed.unwrap_or_else(nobody))
            }
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.shared.address).finish()
    }
}

fn open(listener: &mut Option<TcpListener>, address: SocketAddr) -> io::Result<&TcpListener> {
    let opened = match listener.take() {
        Some(opened) => opened,
        None => bind(address)?,
    };
    Ok(listener.insert(opened))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process that has just ended do not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn keep_most_telling(kept: &mut Option<AdminError>, error: AdminError) {
    if kept.as_ref().is_none_or(|kept| kept.stage.rank() <= error.stage.rank()) {
        *kept = Some(error);
    }
}

/// Connections that are not authenticated yet, oldest first.
struct Pending<F>(Vec<(Instant, Pin<Box<F>>)>);

impl<F> Default for Pending<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F: Future> Pending<F> {
    /// Takes a connection in; the oldest makes room for it where there is none.
    fn push(&mut self, handshake: F) {
        if self.0.len() >= MOST_PENDING {
            self.0.remove(0);
        }
        self.0.push((Instant::now(), Box::pin(handshake)));
    }

    /// When another one may come; `None`: now.
    fn room_at(&self) -> Option<Instant> {
        let &(since, _) = self.0.first().filter(|_| self.0.len() >= MOST_PENDING)?;
        Some(since + SAFE).filter(|&at| at > Instant::now())
    }

    /// What the next one comes to; for ever, while there is none.
    fn next(&mut self) -> impl Future<Output = F::Output> {
        poll_fn(|context| self.poll(context))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let ready = self.0.iter_mut().enumerate().find_map(|(at, (_, handshake))| match handshake
            .as_mut()
            .poll(context)
        {
            Poll::Ready(output) => Some((at, output)),
            Poll::Pending => None,
        });
        match ready {
            Some((at, output)) => {
                drop(self.0.remove(at));
                Poll::Ready(output)
            }
            None => Poll::Pending,
        }
    }
}
