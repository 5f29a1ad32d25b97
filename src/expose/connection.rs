//! The listener: how many connections there are, and how long each may take for what.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::Surface;
use super::routes::{Answer, Reach, Router};
use crate::clock::Clock;
use crate::model::Timestamp;

/// What clients may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted. While all are taken, idle and slow
    /// ones are given [`crowded`](Self::crowded) only, so that they cannot keep others out.
    pub connections: usize,
    /// The longest request head, in bytes; at least 8192.
    pub head_bytes: usize,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// The same as `head` and `idle`, while all connections are taken.
    pub crowded: Duration,
    /// From a request to the end of its answer.
    pub answer: Duration,
    /// Without a byte that could be sent, while there is something to send.
    pub stall: Duration,
    /// Answers that hold a snapshot at once; further ones wait for as long as `engine`.
    pub readers: usize,
    /// For the daemon's loop to answer a question.
    pub engine: Duration,
    /// For answers under way when the listener is to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 16 * 1024,
            head: Duration::from_secs(5),
            idle: Duration::from_secs(90),
            crowded: Duration::from_millis(300),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(5),
            readers: 4,
            engine: Duration::from_secs(5),
            drain: Duration::from_secs(3),
        }
    }
}

/// An address that cannot be listened on. The operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else listens there.
    #[error("{address} is in use: another program, or another purgewatch, listens there")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// It is not one of this machine's addresses.
    #[error("{address} is no address of this machine")]
    NotLocal {
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 are for the privileged.
    #[error("this user may not listen on {address}: ports below 1024 need a privilege")]
    Permission {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Listens on `address`.
///
/// # Errors
/// [`BindError`] says what is in the way.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
        io::ErrorKind::PermissionDenied => BindError::Permission { address },
        _ => BindError::Other { address, source },
    })
}

/// Answers requests until `shutdown` is ready; then lets answers under way end, for
/// [`Limits::drain`] at most. Cancelling it closes everything at once.
pub async fn serve(
    listener: TcpListener,
    surface: Arc<Surface>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let clock = surface.clock;
    let router = Router::new(surface, &limits, Reach::Network);
    serve_on(listener, router, limits, clock, shutdown).await;
}

/// Somewhere that clients connect to.
pub(super) trait Listener {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection. Cancelling it loses none.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // A small answer should not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(Self::accept(self).await?.0)
    }
}

/// What answers the requests of every connection.
pub(super) trait Answers: Send + Sync + 'static {
    /// Answers one request. `busy` is held until the answer is sent.
    fn answer(&self, request: Request<Incoming>, busy: Busy)
    -> impl Future<Output = Answer> + Send;
}

/// The same on any kind of listener.
pub(super) async fn serve_on<L: Listener, R: Answers>(
    listener: L,
    router: R,
    limits: Limits,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) {
    let router = Arc::new(router);
    let limits = Arc::new(limits);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let crowded = watch::Sender::new(false);
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = next_connection(&listener, &slots, &crowded);
        let (stream, slot) = tokio::select! {
            next = next => next,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            () = &mut shutdown => break,
        };
        let connection = Connection {
            router: Arc::clone(&router),
            limits: Arc::clone(&limits),
            activity: Arc::new(Activity::new(clock)),
            crowded: crowded.subscribe(),
            stop: stop.subscribe(),
        };
        tasks.spawn(async move {
            connection.run(stream).await;
            drop(slot);
        });
    }
    drop(listener);
    stop.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.drain, ended).await;
}

/// Accepts the next connection once there is room for it. Cancelling it loses none.
async fn next_connection<L: Listener>(
    listener: &L,
    slots: &Arc<Semaphore>,
    crowded: &watch::Sender<bool>,
) -> (L::Stream, OwnedSemaphorePermit) {
    loop {
        let room = slots.available_permits() > 0;
        crowded.send_if_modified(|is| std::mem::replace(is, !room) == room);
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok(stream) => return (stream, slot),
            // The peer went away before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors or memory: nothing gets better by asking again at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

struct Connection<R> {
    router: Arc<R>,
    limits: Arc<Limits>,
    activity: Arc<Activity>,
    crowded: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
}

impl<R: Answers> Connection<R> {
    async fn run(mut self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let io = TokioIo::new(Watched { stream, activity: Arc::clone(&self.activity) });
        let (router, activity) = (Arc::clone(&self.router), Arc::clone(&self.activity));
        let service = service_fn(move |request| {
            let busy = Busy::new(Arc::clone(&activity));
            let router = Arc::clone(&router);
            async move { Ok::<_, Infallible>(router.answer(request, busy).await) }
        });
        let mut builder = http1::Builder::new();
        // Its timer sees neither slow readers nor crowds; those below see everything.
        builder.header_read_timeout(None).max_buf_size(self.limits.head_bytes);
        let mut connection = pin!(builder.serve_connection(io, service));
        loop {
            let is_crowded = *self.crowded.borrow_and_update();
            let Some(left) = self.activity.time_left(&self.limits, is_crowded) else { return };
            tokio::select! {
                _ = &mut connection => return,
                // A phase that begins meanwhile may have less time than the one that ended.
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
                changed = self.crowded.changed() => if changed.is_err() { return },
                changed = self.stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a connection does now, and since when.
struct Activity {
    clock: Clock,
    phase: AtomicU8,
    since: AtomicU64,
    /// When bytes were last sent.
    progress: AtomicU64,
    /// Whether there are bytes that cannot be sent now.
    blocked: AtomicBool,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const ANSWER: u8 = 2;

impl Activity {
    fn new(clock: Clock) -> Self {
        let now = AtomicU64::new(clock.now().as_millis());
        let progress = AtomicU64::new(clock.now().as_millis());
        let (phase, blocked) = (AtomicU8::new(IDLE), AtomicBool::new(false));
        Self { clock, phase, since: now, progress, blocked }
    }

    fn enter(&self, phase: u8) {
        self.since.store(self.clock.now().as_millis(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn received(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    fn sent(&self) {
        self.progress.store(self.clock.now().as_millis(), Ordering::Relaxed);
        self.blocked.store(false, Ordering::Relaxed);
    }

    fn blocked(&self) {
        if !self.blocked.swap(true, Ordering::Relaxed) {
            self.progress.store(self.clock.now().as_millis(), Ordering::Relaxed);
        }
    }

    /// How long the connection may go on like this; `None` when its time is up.
    fn time_left(&self, limits: &Limits, crowded: bool) -> Option<Duration> {
        let now = self.clock.now();
        let left = |since: &AtomicU64, limit: Duration| {
            let since = Timestamp::from_millis(since.load(Ordering::Relaxed));
            limit.checked_sub(now.since(since)).filter(|left| !left.is_zero())
        };
        let limit = match self.phase.load(Ordering::Relaxed) {
            ANSWER => limits.answer,
            HEAD if crowded => limits.head.min(limits.crowded),
            HEAD => limits.head,
            _ if crowded => limits.idle.min(limits.crowded),
            _ => limits.idle,
        };
        let phase = left(&self.since, limit)?;
        if self.blocked.load(Ordering::Relaxed) {
            return Some(phase.min(left(&self.progress, limits.stall)?));
        }
        Some(phase)
    }
}

/// Held from a request until its answer is handed over.
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: Arc<Activity>) -> Self {
        activity.enter(ANSWER);
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(IDLE);
    }
}

/// A connection whose activity is noted.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(_) => self.activity.sent(),
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
