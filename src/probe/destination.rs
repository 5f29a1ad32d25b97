//! One node or one origin, and how it is asked.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::body::{Body, Need, Source};
use super::coding;
use super::connection::{Connection, Message};
use super::progress::Progress;
use super::reply::{Reply, cache_signs};
use super::stream::Transport;
use super::{request, version};
use crate::clock::Clock;
use crate::httpcache;
use crate::model::{HostPort, Scheme};
use crate::net::tls::TlsClient;
use crate::net::{DialErrorKind, dial};
use crate::verdict::{
    Answer, Failure, FetchRequest, Observation, Outcome, Phase, Target, Unversioned,
};

/// The smallest limit of a head that hyper takes.
const SMALLEST_HEAD: usize = 8_192;

/// How a [`Destination`] is asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most connections that are open at a time, at least one. Further fetches wait for one.
    pub connections: usize,
    /// How long a connection is kept open for the next fetch. Varnish closes one after
    /// `timeout_idle`, 5 seconds unless changed (varnishd(1)); a connection that the peer closed
    /// is noticed and replaced.
    pub idle_timeout: Duration,
    /// The longest head of an answer, in bytes, 8192 at the least; also how much is read at a
    /// time, and so what each connection takes in memory. A head has at most 100 lines.
    pub head_limit: usize,
    /// Sent where a target gives no `User-Agent`.
    pub user_agent: HeaderValue,
    /// Certificate authorities in PEM form that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 8,
            idle_timeout: Duration::from_secs(60),
            head_limit: 32 * 1_024,
            user_agent: HeaderValue::from_static(concat!("purgewatch/", env!("CARGO_PKG_VERSION"))),
            ca_file: None,
        }
    }
}

/// One node or one origin: where to connect, the connections that are kept open, how many there
/// may be, and its TLS.
///
/// Dropping it closes the connections that are idle; a fetch under way borrows it.
pub struct Destination {
    address: HostPort,
    tls: Option<TlsClient>,
    options: Options,
    clock: Clock,
    /// One permit for each fetch under way.
    permits: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

/// A connection that waits for its next fetch; the one used last is at the end.
struct Idle {
    connection: Connection,
    /// The name that the peer has shown a certificate for; none without TLS.
    server_name: Option<Arc<str>>,
    since: Instant,
}

impl Destination {
    /// A peer that is reached at `address`, by TLS or not. Nothing is opened before the first
    /// fetch.
    #[must_use]
    pub fn new(scheme: Scheme, address: HostPort, options: Options, clock: Clock) -> Self {
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https => Some(TlsClient::new(options.ca_file.clone())),
        };
        let permits = Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS));
        Self { address, tls, options, clock, permits, idle: Mutex::new(Vec::new()) }
    }

    /// Where the peer is reached.
    #[must_use]
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Makes one request, reads the answer to its end, and says what happened.
    ///
    /// `GET` with the URL's path and `Host` as written; redirects are not followed. It takes at
    /// most the target's timeout, waiting for a connection included. A request on a connection
    /// that was kept open and that the peer closed before the first byte of an answer is repeated
    /// once, on a new one. A path of more than 65,534 bytes cannot be sent:
    /// [`Failure::NotHttp`].
    ///
    /// With [`FetchRequest::new_connection`] the request goes over a connection of its own; that
    /// one is kept for later fetches like any other.
    ///
    /// Cancellation safe: a dropped call closes the connection that it was using.
    pub async fn fetch(&self, request: &FetchRequest) -> Observation {
        let started = self.clock.now();
        let mut progress = Progress::start(self.clock);
        let limit = request.target.timeout;
        let fetched = timeout(limit, self.exchange(request, &mut progress)).await;
        let phase = progress.phase();
        let outcome = match fetched {
            Ok(Ok(answer)) => Outcome::Answer(Box::new(answer)),
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(_) => Outcome::Failed(Failure::Timeout(phase)),
        };
        Observation { started, finished: self.clock.now(), phases: progress.finish(), outcome }
    }

    /// Makes one request with another method than `GET`, such as `PURGE`, with the target's URL
    /// and headers, and `headers` besides.
    ///
    /// It goes over a connection of its own, which is closed when the head of the answer is there.
    /// The built-in VCL of Varnish pipes methods that it does not know: what follows on such a
    /// connection is answered by the origin, and would be taken for the node's.
    ///
    /// Cancellation safe: a dropped call closes the connection that it was using.
    ///
    /// # Errors
    /// [`Failure`] when no head of an answer came within the target's timeout.
    pub async fn command(
        &self,
        method: &Method,
        target: &Target,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Reply, Failure> {
        let mut progress = Progress::start(self.clock);
        let exchange = self.carry_out(method, target, headers, &mut progress);
        let done = timeout(target.timeout, exchange).await;
        done.unwrap_or_else(|_| Err(Failure::Timeout(progress.phase())))
    }

    async fn carry_out(
        &self,
        method: &Method,
        target: &Target,
        headers: &[(HeaderName, HeaderValue)],
        progress: &mut Progress,
    ) -> Result<Reply, Failure> {
        let message = || request::command(method, target, headers, &self.options.user_agent);
        let _permit = self.permits.acquire().await.map_err(|_| Failure::Closed)?;
        let (_, head) = self.answered(target, true, message, progress).await?;
        Ok(Reply::of(&head))
    }

    /// The header fields that [`fetch`](Self::fetch) sends with this request, `Host` among them;
    /// `None` when it cannot be sent.
    #[must_use]
    pub fn headers_of(&self, request: &FetchRequest) -> Option<HeaderMap> {
        request::build(request, &self.options.user_agent).map(|message| message.headers().clone())
    }

    async fn exchange(
        &self,
        request: &FetchRequest,
        progress: &mut Progress,
    ) -> Result<Answer, Failure> {
        let target = &*request.target;
        let message = || request::build(request, &self.options.user_agent);
        // Never closed, so there is always a permit in the end.
        let _permit = self.permits.acquire().await.map_err(|_| Failure::Closed)?;
        let (mut connection, head) =
            self.answered(target, request.new_connection, message, progress).await?;
        progress.enter(Phase::Body);
        let (head, body) = head.into_parts();
        let status = head.status.as_u16();
        let body = read_body(&mut connection, body, status, &head.headers, target).await?;
        if connection.is_reusable().await {
            self.keep(connection, self.server_name(target));
        }
        Ok(answer_of(status, &head.headers, &body, request))
    }

    /// Sends a request, on a connection that was kept open unless `new_connection`, and waits for
    /// the head of the answer.
    async fn answered(
        &self,
        target: &Target,
        new_connection: bool,
        message: impl Fn() -> Option<Message>,
        progress: &mut Progress,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        let message = || message().ok_or(Failure::NotHttp);
        let kept =
            if new_connection { None } else { self.take_idle(self.server_name(target)).await };
        if let Some(connection) = kept {
            progress.enter(Phase::FirstByte);
            if let Some(answered) = send_on_kept(connection, message()?).await? {
                return Ok(answered);
            }
        }
        let mut connection = self.open(target, progress).await?;
        progress.enter(Phase::FirstByte);
        let head = connection.send(message()?).await.map_err(|error| error.failure)?;
        Ok((connection, head))
    }

    /// The name that the peer shows a certificate for; none without TLS.
    fn server_name<'a>(&self, target: &'a Target) -> Option<&'a str> {
        self.tls.as_ref().map(|_| target.url.address().host())
    }

    async fn open(&self, target: &Target, progress: &mut Progress) -> Result<Connection, Failure> {
        self.make_room();
        progress.enter(Phase::Connect);
        let limit = progress.left_of(target.timeout);
        let dialled = dial(&self.address, limit).await.map_err(|error| {
            tracing::debug!(address = %self.address, %error, "no connection");
            match error.kind {
                DialErrorKind::Resolve => Failure::Resolve,
                DialErrorKind::Refused => Failure::Refused,
                DialErrorKind::TimedOut => Failure::Timeout(Phase::Connect),
                DialErrorKind::Unreachable | DialErrorKind::Other => Failure::Unreachable,
            }
        })?;
        let transport = match &self.tls {
            None => Transport::Plain(dialled.stream),
            Some(tls) => {
                progress.enter(Phase::Tls);
                let host = target.url.address().host();
                let session = tls.connect(dialled.stream, host).await.map_err(|error| {
                    let reason = error.source().map(tracing::field::display);
                    tracing::debug!(address = %self.address, %error, reason, "no TLS");
                    Failure::Tls
                })?;
                Transport::Tls(Box::new(session))
            }
        };
        Connection::over(transport, self.options.head_limit.max(SMALLEST_HEAD)).await
    }

    /// The connection used last that is still good, for that name.
    async fn take_idle(&self, server_name: Option<&str>) -> Option<Connection> {
        loop {
            let mut connection = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let now = self.clock.instant();
                let limit = self.options.idle_timeout;
                idle.retain(|kept| now.saturating_duration_since(kept.since) < limit);
                let found =
                    idle.iter().rposition(|kept| kept.server_name.as_deref() == server_name);
                idle.remove(found?).connection
            };
            if connection.is_reusable().await {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection, server_name: Option<&str>) {
        let server_name = server_name.map(Arc::from);
        let idle = Idle { connection, server_name, since: self.clock.instant() };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }

    /// Closes the idle connection that was unused for longest if one more would be too many.
    fn make_room(&self) {
        let most = self.options.connections.max(1);
        let in_use = most.saturating_sub(self.permits.available_permits());
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // This fetch holds a permit already: `in_use` counts the connection to be opened.
        let surplus = idle.len().saturating_add(in_use).saturating_sub(most).min(idle.len());
        idle.drain(..surplus);
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("address", &self.address)
            .field("tls", &self.tls.is_some())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The answer on a connection that was kept open; `None` when the peer had closed it, and the
/// connection is closed on this side too.
async fn send_on_kept(
    mut connection: Connection,
    message: Message,
) -> Result<Option<(Connection, Response<Incoming>)>, Failure> {
    match connection.send(message).await {
        Ok(head) => Ok(Some((connection, head))),
        Err(unanswered) if unanswered.hung_up => Ok(None),
        Err(unanswered) => Err(unanswered.failure),
    }
}

async fn read_body(
    connection: &mut Connection,
    body: Incoming,
    status: u16,
    headers: &HeaderMap,
    target: &Target,
) -> Result<Body, Failure> {
    let need = version::need(status, target);
    let codings = match need {
        // Nobody looks into it.
        Need::End => Vec::new(),
        Need::Digest | Need::Bytes => coding::codings(headers).map_err(|_| Failure::Encoding)?,
    };
    Source::new(connection, body).read(&codings, target.body_limit, need).await
}

fn answer_of(status: u16, headers: &HeaderMap, body: &Body, request: &FetchRequest) -> Answer {
    let mut validators = version::validators(headers);
    let version = match (&request.condition, status) {
        (Some(condition), 304) => {
            // A 304 need not repeat what it confirms.
            if validators.is_empty() {
                validators = condition.validators.clone();
            }
            Ok(condition.version.clone())
        }
        (None, 304) => Err(Unversioned::Status),
        _ => version::version(status, headers, body, &request.target),
    };
    let retry_after = match status {
        429 | 503 => httpcache::retry_after(headers),
        _ => None,
    };
    let cache = cache_signs(headers);
    let kept = request.keep_headers.then(|| Arc::new(headers.clone()));
    let body_bytes = body.size;
    Answer { status, version, validators, cache, retry_after, body_bytes, headers: kept }
}
