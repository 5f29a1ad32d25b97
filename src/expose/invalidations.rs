//! Events over HTTP, on a listener of their own.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/v1/invalidations` | hands in an event, and waits for what came of it at the nodes |
//! | `GET /api/v1/invalidations/TICKET` | what came of an event that was handed in |
//!
//! Whoever does not want to wait says `Prefer: respond-async`, or `Prefer: wait=SECONDS`
//! (RFC 7240): the answer is 202 then, with a ticket to ask with. It is given once the event's bans
//! are on the disk, so that they reach the nodes whatever happens to the daemon. Tickets are known
//! for ten minutes after the event has settled, and not over a restart. While half of a listener's
//! connections wait, further requests are answered so as well, so that nodes that are away do not
//! keep senders out.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::Limits;
use super::connection::{Answers, Busy, Listener, serve_on};
use super::preference::{LONGEST_WAIT, Preference};
use super::rate::Rate;
use super::routes::{Answer, body, closing, plain, said, typed};
use super::token::{Denied, Tokens};
use crate::clock::Clock;
use crate::event::{Confirmation, Event};
use crate::model::Timestamp;

const PATH: &str = "/api/v1/invalidations";

/// How long the daemon's loop may take to say that it has an event.
const LOOP: Duration = Duration::from_secs(5);

/// How long the disk may take.
const DISK: Duration = Duration::from_secs(10);

/// The most tickets, and how long one is kept once its event has settled.
const TICKETS: usize = 10_000;
const KEPT: Duration = Duration::from_secs(600);

const SCHEMA: u32 = 1;

/// An event, and where the answer goes.
#[derive(Debug)]
pub struct HandedIn {
    /// The event.
    pub event: Event,
    /// Its ticket: a name that nobody can guess.
    pub ticket: String,
    /// What is done about it.
    pub reply: oneshot::Sender<Result<Taken, Refused>>,
}

/// An event was taken in.
#[derive(Debug)]
pub struct Taken {
    /// Whether its bans are on the disk, once that is known.
    pub stored: oneshot::Receiver<bool>,
    /// What came of it, once every node has settled. Closed without: the daemon has ended.
    pub settled: watch::Receiver<Option<Arc<Confirmation>>>,
}

/// An event was not taken in, and nothing is done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It asks for something that cannot be done here. The sender's to change.
    #[error("{0}")]
    Event(String),
    /// There are too many that have not settled. To be tried again.
    #[error("too many events wait for nodes that have not taken them")]
    Full,
}

/// Takes events on a port, from whoever names one of the tokens, until nobody holds the sender of
/// the tokens any more. There is no port without tokens.
pub async fn serve_invalidations(
    listener: TcpListener,
    desk: Arc<Desk>,
    tokens: watch::Receiver<Tokens>,
) {
    serve_at(listener, Counter::new(desk, tokens)).await;
}

/// Takes events on a Unix socket until nobody holds the sender any more. Where there are no tokens,
/// the socket's permissions say from whom.
pub async fn serve_invalidations_socket(
    listener: UnixListener,
    desk: Arc<Desk>,
    tokens: watch::Receiver<Option<Tokens>>,
) {
    serve_at(listener, Counter::new(desk, tokens)).await;
}

async fn serve_at<L: Listener, A: Admits>(listener: L, counter: Counter<A>) {
    let (clock, closed) = (counter.desk.clock, closed(counter.tokens.clone()));
    serve_on(listener, counter, limits(), clock, closed).await;
}

fn limits() -> Limits {
    Limits { answer: LONGEST_WAIT + Duration::from_secs(30), ..Limits::default() }
}

/// Ready once nobody holds the sender any more.
async fn closed<A>(mut held: watch::Receiver<A>) {
    while held.changed().await.is_ok() {}
}

/// What is known of events that were handed in: one for all listeners, so that a ticket of one of
/// them is known at the others, and all together let in no more than the rate.
pub struct Desk {
    events: mpsc::Sender<HandedIn>,
    rate: Rate,
    longest: AtomicU64,
    tickets: Mutex<HashMap<String, Slot>>,
    clock: Clock,
}

/// What is known behind a ticket.
struct Slot {
    settled: watch::Receiver<Option<Arc<Confirmation>>>,
    /// When it was first seen to have settled.
    since: Option<Timestamp>,
}

/// Answers the requests of one listener.
struct Counter<A> {
    desk: Arc<Desk>,
    /// Who is let in. Once nobody holds the sender any more, nobody is.
    tokens: watch::Receiver<A>,
    /// For those that wait for nodes: half of the connections, so that the others stay free.
    waits: Semaphore,
    /// How long the others wait.
    crowded: Duration,
}

/// Who is let in.
trait Admits: Send + Sync + 'static {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Denied>;
}

impl Admits for Tokens {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        Self::admit(self, headers)
    }
}

impl Admits for Option<Tokens> {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        self.as_ref().map_or(Ok(()), |tokens| tokens.admit(headers))
    }
}

impl<A: Admits> Answers for Counter<A> {
    async fn answer(&self, request: Request<Incoming>, busy: Busy) -> Answer {
        let path = request.uri().path();
        let ticket = path.strip_prefix(PATH).map(|rest| rest.strip_prefix('/'));
        if ticket.is_none_or(|ticket| ticket.is_none() && path != PATH) {
            let text = "nothing is here but /api/v1/invalidations\n";
            return closing(plain(StatusCode::NOT_FOUND, text, busy));
        }
        if self.tokens.has_changed().is_err() {
            return closing(busy_now("events are not taken here any more\n", busy));
        }
        // Borrowed for a moment, and not while anything is awaited.
        let admitted = self.tokens.borrow().admit(request.headers());
        if let Err(denied) = admitted {
            return deny(denied, busy);
        }
        if let Err(wait) = self.desk.rate.take(self.desk.clock.now()) {
            let text = "too many requests; see max_rate in the daemon's configuration\n";
            let mut answer = closing(plain(StatusCode::TOO_MANY_REQUESTS, text, busy));
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            return answer;
        }
        match (ticket.flatten().map(str::to_owned), request.method()) {
            (None, &Method::POST) => self.hand_in(request, busy).await,
            (Some(ticket), &Method::GET) if request.body().is_end_stream() => {
                self.desk.look_up(&ticket, busy)
            }
            (ticket, _) => {
                let allowed = if ticket.is_some() { "GET" } else { "POST" };
                let text = "POST an event, or GET what became of a ticket\n";
                let mut answer = closing(plain(StatusCode::METHOD_NOT_ALLOWED, text, busy));
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                answer
            }
        }
    }
}

impl<A: Admits> Counter<A> {
    fn new(desk: Arc<Desk>, tokens: watch::Receiver<A>) -> Self {
        let Limits { connections, crowded, .. } = limits();
        Self { desk, tokens, waits: Semaphore::new(connections / 2), crowded }
    }

    async fn hand_in(&self, request: Request<Incoming>, busy: Busy) -> Answer {
        let preference = match Preference::read(request.headers()) {
            Ok(preference) => preference,
            Err(fault) => return closing(plain(StatusCode::BAD_REQUEST, fault, busy)),
        };
        if !is_json(request.headers()) {
            let text = "an event is JSON: expected Content-Type: application/json\n";
            return closing(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text, busy));
        }
        let longest = self.desk.longest.load(Ordering::Relaxed);
        let longest = usize::try_from(longest).unwrap_or(usize::MAX);
        let bytes = match body(request.into_body(), longest).await {
            Ok(bytes) => bytes,
            // More of it may follow, which nobody is going to read.
            Err((status, text)) => return closing(said(status, text, busy)),
        };
        let event = match Event::from_json(&bytes) {
            Ok(event) => event,
            Err(fault) => return said(StatusCode::UNPROCESSABLE_ENTITY, fault.to_string(), busy),
        };
        let Some(ticket) = self.desk.room() else {
            return busy_now("too many events have not settled yet\n", busy);
        };
        let (reply, answer) = oneshot::channel();
        let handed_in = HandedIn { event, ticket: ticket.clone(), reply };
        let asked = async {
            self.desk.events.send(handed_in).await.ok()?;
            answer.await.ok()
        };
        match timeout(LOOP, asked).await.ok().flatten() {
            None => busy_now(
                "the daemon does not answer; whether it has the event is not known\n",
                busy,
            ),
            Some(Err(Refused::Full)) => busy_now("too many events have not settled yet\n", busy),
            Some(Err(Refused::Event(fault))) => said(StatusCode::UNPROCESSABLE_ENTITY, fault, busy),
            Some(Ok(taken)) => self.wait(ticket, taken, preference, busy).await,
        }
    }

    /// Waits for the nodes, for as long as the request wants; for a moment only where so many wait
    /// already that they would keep others out, and no longer than the listener is there.
    async fn wait(
        &self,
        ticket: String,
        taken: Taken,
        preference: Preference,
        busy: Busy,
    ) -> Answer {
        let Taken { stored, mut settled } = taken;
        self.desk.remember(&ticket, &settled);
        let place = self.waits.try_acquire().ok();
        let longest = if place.is_some() { LONGEST_WAIT } else { self.crowded };
        let wait = preference.wait.min(longest);
        let found = tokio::select! {
            biased;
            settled = settled.wait_for(Option::is_some) => match settled {
                Ok(found) => Some(found.clone()),
                Err(_) => return busy_now("the daemon ends\n", busy),
            },
            () = sleep(wait) => None,
            () = closed(self.tokens.clone()) => None,
        };
        drop(place);
        let mut answer = match found {
            Some(found) => outcome(&ticket, found.as_deref(), None, busy),
            None => {
                let stored = matches!(timeout(DISK, stored).await, Ok(Ok(true)));
                outcome(&ticket, None, Some(stored), busy)
            }
        };
        let applied = preference.applied().filter(|_| wait == preference.wait);
        if let Some(Ok(applied)) = applied.map(HeaderValue::try_from) {
            answer.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
        }
        answer
    }
}

impl Desk {
    /// For events that go into this channel, a bounded one. No body is let in before
    /// [`allow`](Self::allow) says how much is.
    #[must_use]
    pub fn new(events: mpsc::Sender<HandedIn>, clock: Clock) -> Self {
        let rate = Rate::new(1.0, clock.now());
        Self { events, rate, longest: AtomicU64::new(0), tickets: Mutex::default(), clock }
    }

    /// Lets in `max_rate` requests a second from now on, with bodies of `max_body` bytes at most.
    pub fn allow(&self, max_rate: f64, max_body: u64) {
        self.rate.set(max_rate, self.clock.now());
        self.longest.store(max_body, Ordering::Relaxed);
    }

    fn remember(&self, ticket: &str, settled: &watch::Receiver<Option<Arc<Confirmation>>>) {
        let slot = Slot { settled: settled.clone(), since: None };
        self.tickets().insert(ticket.to_owned(), slot);
    }

    fn look_up(&self, ticket: &str, busy: Busy) -> Answer {
        let found = self.tickets().get(ticket).map(|slot| {
            let state = slot.settled.borrow().clone();
            (state, slot.settled.has_changed().is_err())
        });
        match found {
            None => {
                plain(StatusCode::NOT_FOUND, "no event has this ticket, or not any more\n", busy)
            }
            Some((None, true)) => busy_now("the daemon ends\n", busy),
            Some((state, _)) => outcome(ticket, state.as_deref(), None, busy),
        }
    }

    /// A new ticket, if there is room for one.
    fn room(&self) -> Option<String> {
        let now = self.clock.now();
        let mut tickets = self.tickets();
        tickets.retain(|_, slot| match slot.since {
            Some(since) => now.since(since) < KEPT,
            None => {
                let is_settled = slot.settled.borrow().is_some();
                slot.since = is_settled.then_some(now);
                true
            }
        });
        if tickets.len() >= TICKETS {
            let settled = tickets.iter().filter_map(|(name, slot)| Some((slot.since?, name)));
            let oldest = settled.min().map(|(_, name)| name.clone())?;
            tickets.remove(&oldest);
        }
        // 128 bits of the system's own source: whoever is to ask with it was told it.
        let mut name = [0_u8; 16];
        rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty()).ok()?;
        Some(hex::encode(name))
    }

    fn tickets(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// The document about an event that was handed in.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    ticket: &'a str,
    /// `settled` or `pending`.
    state: &'static str,
    /// Whether its bans survive a restart of the daemon, while it is pending and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<&'a Confirmation>,
}

fn outcome(
    ticket: &str,
    confirmation: Option<&Confirmation>,
    stored: Option<bool>,
    busy: Busy,
) -> Answer {
    let (status, state) = match confirmation {
        Some(confirmation) if confirmation.is_success() => (StatusCode::OK, "settled"),
        // Somebody behind us did not do it.
        Some(_) => (StatusCode::BAD_GATEWAY, "settled"),
        // It is in memory and may be lost: whoever handed it in has to know.
        None if stored == Some(false) => (StatusCode::INSUFFICIENT_STORAGE, "pending"),
        None => (StatusCode::ACCEPTED, "pending"),
    };
    let document = Document { schema: SCHEMA, ticket, state, stored, confirmation };
    let text = serde_json::to_string(&document).unwrap_or_default() + "\n";
    let mut answer = typed(status, "application/json", text.into(), (busy, None));
    if confirmation.is_none() {
        if let Ok(place) = HeaderValue::from_str(&format!("{PATH}/{ticket}")) {
            answer.headers_mut().insert(LOCATION, place);
        }
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn deny(denied: Denied, busy: Busy) -> Answer {
    let (text, challenge) = match denied {
        Denied::NoToken => ("expected Authorization: Bearer TOKEN\n", "Bearer"),
        Denied::Wrong => ("this token is not known here\n", "Bearer error=\"invalid_token\""),
    };
    let mut answer = closing(plain(StatusCode::UNAUTHORIZED, text, busy));
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

fn busy_now(text: &'static str, busy: Busy) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text, busy);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json() {
        let kind =
            |kind: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]));
        assert!(is_json(&HeaderMap::new()));
        assert!(kind("application/json") && kind("Application/JSON; charset=utf-8"));
        // What a form of any page can send without asking.
        assert!(!kind("application/x-www-form-urlencoded") && !kind("text/plain") && !kind(""));
    }
}
