//! Answers: whole ones, and large ones that are written piece by piece while they are sent.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The size of a piece, about. Small enough to be cheap to allocate, large enough that the cost of
/// sending it is that of its bytes.
pub(super) const PIECE: usize = 64 * 1024;

/// Something that can be written in steps, each well below [`PIECE`].
pub(super) trait Steps {
    /// Appends the next step; `false` when there is none left.
    fn step(&mut self, out: &mut Vec<u8>) -> bool;
}

/// The pieces of something that is written in steps.
pub(super) struct Chunks<S> {
    steps: S,
    done: bool,
}

impl<S: Steps> Chunks<S> {
    pub(super) fn new(steps: S) -> Self {
        Self { steps, done: false }
    }
}

impl<S: Steps> Iterator for Chunks<S> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        // Room for the step that goes past the mark.
        let mut piece = Vec::with_capacity(PIECE + PIECE / 8);
        while piece.len() < PIECE {
            if !self.steps.step(&mut piece) {
                self.done = true;
                break;
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

/// The body of an answer. `guard` is dropped when the answer has been handed over in full, or
/// given up.
pub(super) struct Content<G> {
    source: Source,
    _guard: G,
}

enum Source {
    Whole(Option<Bytes>),
    Pieces(Box<dyn Iterator<Item = Bytes> + Send>),
}

impl<G> Content<G> {
    pub(super) fn whole(bytes: Bytes, guard: G) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { source: Source::Whole(bytes), _guard: guard }
    }

    pub(super) fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static, guard: G) -> Self {
        Self { source: Source::Pieces(Box::new(pieces)), _guard: guard }
    }
}

impl<G: Unpin> Body for Content<G> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.get_mut().source {
            Source::Whole(bytes) => bytes.take(),
            Source::Pieces(pieces) => pieces.next(),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Source::Pieces(_) => SizeHint::default(),
        }
    }
}

impl<G> fmt::Debug for Content<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content")
    }
}
