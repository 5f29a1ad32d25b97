//! One HTTP/1.1 connection, driven by whoever uses it.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::stream::{Stream, Transport};
use crate::verdict::Failure;

/// A request as this program makes them: without a body.
pub(super) type Message = Request<Empty<Bytes>>;

/// An open connection with nothing, or one exchange, under way.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: http1::Connection<TokioIo<Stream>, Empty<Bytes>>,
    /// The driver has finished: hyper forbids to poll it again.
    ended: bool,
    received: Arc<AtomicU64>,
}

/// An exchange that brought no head of an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The peer hung up before the first byte of an answer. On a connection that was kept open
    /// this is how a peer's idle limit looks, and the request may be repeated on another.
    pub(super) hung_up: bool,
}

impl Connection {
    /// Speaks HTTP over `transport`. A head longer than `head_limit` bytes is refused; as much is
    /// read at a time.
    pub(super) async fn over(transport: Transport, head_limit: usize) -> Result<Self, Failure> {
        let (stream, received) = Stream::new(transport);
        let (sender, driver) = http1::Builder::new()
            .read_buf_exact_size(Some(head_limit))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure_of(&error))?;
        Ok(Self { sender, driver, ended: false, received })
    }

    /// Sends a request and waits for the head of the answer. The body has to be read to its end,
    /// by [`poll_body`](Self::poll_body), before the connection can carry another.
    pub(super) async fn send(
        &mut self,
        request: Message,
    ) -> Result<Response<Incoming>, Unanswered> {
        let received_before = self.received.load(Ordering::Relaxed);
        let mut answer = pin!(self.sender.send_request(request));
        let answer = poll_fn(|cx| {
            if !self.ended && Pin::new(&mut self.driver).poll(cx).is_ready() {
                self.ended = true;
            }
            answer.as_mut().poll(cx)
        });
        answer.await.map_err(|error| {
            let failure = failure_of(&error);
            let silent = self.received.load(Ordering::Relaxed) == received_before;
            Unanswered { failure, hung_up: silent && failure == Failure::Closed }
        })
    }

    /// The next piece of the body of the answer that [`send`](Self::send) brought.
    pub(super) fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            self.drive(cx);
            let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(failure_of(&error)))),
                None => return Poll::Ready(None),
            };
            // Trailers say nothing that is looked for.
            if let Ok(data) = frame.into_data() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }

    /// Whether the connection can carry another request: nothing is under way, and the peer has
    /// neither closed it nor sent anything that was not asked for.
    pub(super) async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(!self.ended && self.sender.is_ready())
        })
        .await
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // An error goes to whoever waits for the answer or its body; there is nobody else.
        if !self.ended && Pin::new(&mut self.driver).poll(cx).is_ready() {
            self.ended = true;
        }
    }
}

/// What an error of hyper's means. Its kinds are told by methods and by what caused it.
fn failure_of(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        return Failure::NotHttp;
    }
    if error.is_incomplete_message() || error.is_closed() {
        return Failure::Closed;
    }
    let Some(cause) = error.source() else {
        // Canceled: the connection ended before the request was sent. Without a cause, all else
        // is bytes that no request asked for.
        return if error.is_canceled() { Failure::Closed } else { Failure::NotHttp };
    };
    if let Some(inner) = cause.downcast_ref::<hyper::Error>() {
        return failure_of(inner);
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        // Sizes of chunks that are no numbers, or too large.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Failure::NotHttp,
        _ => Failure::Closed,
    }
}
