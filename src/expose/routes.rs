//! From a request to an answer.

mod bans;

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::bans::{BanQuery, IssueReply, Submission};
use super::connection::{Answers, Busy};
use super::content::{Chunks, Content};
use super::families::Families;
use super::{CANARY_HEADER, CanaryBoard, Limits, Metrics, page, status};
use crate::clock::Clock;
use crate::engine::{Entry, Snapshot};

/// What the listener asks the daemon's loop.
#[derive(Debug)]
pub enum Question {
    /// What is known now.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Whether the loop still runs. Cheap, and answered at once.
    Alive(oneshot::Sender<()>),
    /// Take these bans into the ledger; to be answered once they are stored.
    Issue(Submission, IssueReply),
    /// What is in the ledger.
    Bans(BanQuery, oneshot::Sender<Vec<Entry>>),
}

/// Whether the daemon does what it is there for. Copies share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

// What is neither is starting: 0.
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn starting() -> Self {
        Self::default()
    }

    /// The configuration is loaded, the listener is bound and the engine runs.
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Relaxed);
    }

    /// The daemon is about to end.
    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Relaxed);
    }
}

/// What the listener shows.
pub struct Surface {
    /// What the process counts of itself.
    pub metrics: Arc<Metrics>,
    /// Where snapshots come from. A bounded channel; an answer that takes longer than
    /// [`Limits::engine`] is not waited for.
    pub questions: mpsc::Sender<Question>,
    /// What `/-/ready` says.
    pub readiness: Readiness,
    /// What is served as the canaries of nodes.
    pub canaries: CanaryBoard,
    /// The program's own line of time.
    pub clock: Clock,
    /// Called before each scrape, to bring `metrics` up to date with what is not pushed to it,
    /// such as [`Metrics::set_store`]. It must not block.
    pub before_scrape: Option<Refresh>,
}

/// Brings metrics up to date.
pub type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

impl fmt::Debug for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surface").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// What an answer holds on to until it is sent: the connection's state, and leave to hold a
/// snapshot.
pub(super) type Held = (Busy, Option<OwnedSemaphorePermit>);

pub(super) type Answer = Response<Content<Held>>;

/// How far a listener can be reached from, and so what it may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The network: nothing can be changed.
    Network,
    /// Whoever may connect on this host.
    Host,
}

/// Answers the requests of every connection.
pub(super) struct Router {
    surface: Arc<Surface>,
    reach: Reach,
    readers: Arc<Semaphore>,
    engine_limit: Duration,
    /// The snapshot of those who came last, as long as one of them still reads it, so that many
    /// readers at once cost the daemon's loop one snapshot.
    latest: Mutex<Weak<Snapshot>>,
}

/// The node's name follows.
const CANARY_PATH: &str = "/canary/";

/// So old may a shared snapshot be, in milliseconds.
const SHARED_MILLIS: u128 = 250;

/// The daemon's loop gave no snapshot in time, or too many are being read.
struct NotNow;

impl Router {
    pub(super) fn new(surface: Arc<Surface>, limits: &Limits, reach: Reach) -> Self {
        Self {
            surface,
            reach,
            readers: Arc::new(Semaphore::new(limits.readers)),
            engine_limit: limits.engine,
            latest: Mutex::new(Weak::new()),
        }
    }

    /// Asks the daemon's loop; `None` when it does not answer in time, or has ended.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.surface.questions.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(self.engine_limit, asked).await.ok().flatten()
    }
}

impl Answers for Router {
    async fn answer(&self, request: Request<Incoming>, busy: Busy) -> Answer {
        if self.reach == Reach::Host && request.uri().path() == "/api/v1/bans" {
            return self.bans(request, busy).await;
        }
        let method = request.method();
        if method != Method::GET && method != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n", busy);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return closing(answer);
        }
        if !request.body().is_end_stream() {
            return closing(plain(StatusCode::BAD_REQUEST, "a GET has no body here\n", busy));
        }
        let head_only = method == Method::HEAD;
        match request.uri().path() {
            "/metrics" => self.metrics(head_only, busy).await,
            "/api/v1/status" => self.status(head_only, busy).await,
            "/" => self.page(head_only, busy).await,
            "/style.css" => {
                typed(StatusCode::OK, "text/css; charset=utf-8", page::STYLE.into(), (busy, None))
            }
            "/-/healthy" => self.healthy(busy).await,
            "/-/ready" => self.ready(busy),
            path if path.starts_with(CANARY_PATH) => self.canary(path, busy),
            _ => plain(
                StatusCode::NOT_FOUND,
                "nothing is here; there are /metrics, /api/v1/status, /-/healthy, /-/ready and /\n",
                busy,
            ),
        }
    }
}

impl Router {
    /// Brings up to date what is not pushed to the metrics.
    fn refresh(&self) {
        if let Some(refresh) = &self.surface.before_scrape {
            refresh(&self.surface.metrics);
        }
    }

    async fn metrics(&self, head_only: bool, busy: Busy) -> Answer {
        const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
        if head_only {
            return head_of(TYPE, busy);
        }
        let (snapshot, permit) = match self.snapshot().await {
            Ok(found) => found,
            Err(NotNow) => return not_now(busy),
        };
        self.refresh();
        let offset = self.surface.clock.wall_offset();
        let families = Families::new(snapshot, &self.surface.metrics, offset);
        let content = Content::pieces(Chunks::new(families), (busy, Some(permit)));
        respond(StatusCode::OK, TYPE, content)
    }

    async fn status(&self, head_only: bool, busy: Busy) -> Answer {
        const TYPE: &str = "application/json";
        if head_only {
            return head_of(TYPE, busy);
        }
        match self.snapshot().await {
            Ok((snapshot, permit)) => {
                let offset = self.surface.clock.wall_offset();
                let metrics = &self.surface.metrics;
                self.refresh();
                let (health, subscriptions) = (metrics.health(), metrics.subscriptions());
                let writer = status::Writer::new(snapshot, health, subscriptions, offset);
                let content = Content::pieces(Chunks::new(writer), (busy, Some(permit)));
                respond(StatusCode::OK, TYPE, content)
            }
            Err(NotNow) => not_now(busy),
        }
    }

    async fn page(&self, head_only: bool, busy: Busy) -> Answer {
        const TYPE: &str = "text/html; charset=utf-8";
        if head_only {
            return head_of(TYPE, busy);
        }
        match self.snapshot().await {
            Ok((snapshot, permit)) => {
                let metrics = &self.surface.metrics;
                self.refresh();
                let offset = self.surface.clock.wall_offset();
                let (health, subscriptions) = (metrics.health(), metrics.subscriptions());
                let page = page::render(&snapshot, health, &subscriptions, offset);
                typed(StatusCode::OK, TYPE, page.into(), (busy, Some(permit)))
            }
            Err(NotNow) => not_now(busy),
        }
    }

    /// The object that a node caches, and that is banned there: see [`CanaryBoard`].
    fn canary(&self, path: &str, busy: Busy) -> Answer {
        let segment = path.strip_prefix(CANARY_PATH).unwrap_or_default();
        let name = HeaderValue::from_str(segment);
        let (Some(body), Ok(name)) = (self.surface.canaries.body(segment), name) else {
            return plain(StatusCode::NOT_FOUND, "no canary of this name is served here\n", busy);
        };
        let mut answer = typed(StatusCode::OK, "text/plain; charset=utf-8", body, (busy, None));
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
        headers.insert(HeaderName::from_static(CANARY_HEADER), name);
        answer
    }

    async fn healthy(&self, busy: Busy) -> Answer {
        match self.ask(Question::Alive).await {
            Some(()) => plain(StatusCode::OK, "healthy\n", busy),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the daemon does not answer\n", busy),
        }
    }

    fn ready(&self, busy: Busy) -> Answer {
        match self.surface.readiness.0.load(Ordering::Relaxed) {
            READY => plain(StatusCode::OK, "ready\n", busy),
            DRAINING => plain(StatusCode::SERVICE_UNAVAILABLE, "ending\n", busy),
            _ => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n", busy),
        }
    }

    /// A snapshot, and the leave to hold it while an answer is sent.
    async fn snapshot(&self) -> Result<(Arc<Snapshot>, OwnedSemaphorePermit), NotNow> {
        let permit =
            tokio::time::timeout(self.engine_limit, Arc::clone(&self.readers).acquire_owned());
        let permit = permit.await.map_err(|_| NotNow)?.map_err(|_| NotNow)?;
        let mut latest = self.latest.lock().await;
        if let Some(shared) = latest.upgrade() {
            let age = self.surface.clock.now().since(shared.taken);
            if age.as_millis() <= SHARED_MILLIS {
                return Ok((shared, permit));
            }
        }
        let snapshot = Arc::new(self.ask(Question::Snapshot).await.ok_or(NotNow)?);
        *latest = Arc::downgrade(&snapshot);
        Ok((snapshot, permit))
    }
}

fn not_now(busy: Busy) -> Answer {
    let text = "the daemon gives no snapshot now: it does not answer, or too many are being read\n";
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text, busy);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

/// The head of an answer whose length is not known without writing it.
fn head_of(content_type: &'static str, busy: Busy) -> Answer {
    respond(StatusCode::OK, content_type, Content::pieces(std::iter::empty(), (busy, None)))
}

pub(super) fn plain(status: StatusCode, text: &'static str, busy: Busy) -> Answer {
    typed(status, "text/plain; charset=utf-8", text.into(), (busy, None))
}

/// The same with a text of the moment.
pub(super) fn said(status: StatusCode, text: String, busy: Busy) -> Answer {
    typed(status, "text/plain; charset=utf-8", (text + "\n").into(), (busy, None))
}

/// Ends the connection with the answer: a body may follow, which nobody is going to read.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// How long the body of a request may take.
const BODY: Duration = Duration::from_secs(5);

/// The whole body of a request, of `longest` bytes at most; else the answer.
pub(super) async fn body(body: Incoming, longest: usize) -> Result<Bytes, (StatusCode, String)> {
    let too_large =
        || (StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {longest} bytes"));
    if body.size_hint().lower() > longest as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY, Limited::new(body, longest).collect()).await {
        Err(_) => {
            let text = format!("the body did not come within {} s", BODY.as_secs());
            Err((StatusCode::REQUEST_TIMEOUT, text))
        }
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body broke off".to_owned())),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

pub(super) fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    held: Held,
) -> Answer {
    respond(status, content_type, Content::whole(body, held))
}

fn respond(status: StatusCode, content_type: &'static str, content: Content<Held>) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in SAFETY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

/// What a browser must not do with an answer.
const SAFETY: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];
