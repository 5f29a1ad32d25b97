//! Reading the body of an answer: to its end, within a limit, for what the rule needs of it.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body as _, Incoming};
use regex::bytes::{NoExpand, Regex};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio_util::io::StreamReader;

use super::coding::{self, Coding, Stage};
use super::connection::Connection;
use crate::verdict::Failure;

/// What is wanted of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Only that it is complete.
    End,
    /// Its SHA-256.
    Digest,
    /// All its bytes.
    Bytes,
}

/// A body that was read to its end.
#[derive(Debug)]
pub(super) struct Body {
    /// Its size, decoded if it was.
    pub(super) size: u64,
    pub(super) content: Content,
}

/// What was kept of a body, by what was needed of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    Digest([u8; 32]),
    Bytes(Vec<u8>),
}

/// The answer's body on its connection.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) body: Incoming,
    /// Bytes as they came over the connection.
    encoded_left: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(connection: &'a mut Connection, body: Incoming) -> Self {
        Self { connection, body, encoded_left: u64::MAX }
    }

    /// Reads the whole body and undoes `codings`. Neither form of it may be longer than `limit`
    /// bytes; the coded one has some more for what coding adds to a body that cannot be packed.
    pub(super) async fn read(
        mut self,
        codings: &[Coding],
        limit: u64,
        need: Need,
    ) -> Result<Body, Failure> {
        let mut intake = Intake::new(need, limit);
        if codings.is_empty() {
            if self.body.size_hint().lower() > limit {
                return Err(Failure::BodyTooLarge);
            }
            while let Some(chunk) = std::future::poll_fn(|cx| self.poll_chunk(cx)).await {
                intake.take(&chunk?)?;
            }
            return Ok(intake.finish());
        }

        self.encoded_left = limit.saturating_add(limit / 16).saturating_add(1_024);
        let mut reader = StreamReader::new(self);
        let mut stage: Stage<'_> = Box::new(&mut reader);
        for &coding in codings.iter().rev() {
            stage = coding::undo(coding, stage).await.map_err(failure_of)?;
        }
        take_all(&mut stage, &mut intake).await?;
        drop(stage);
        // What follows the end of the coded form belongs to no body, and an end that never comes
        // is a body cut short.
        if !reader.fill_buf().await.map_err(failure_of)?.is_empty() {
            return Err(Failure::Encoding);
        }
        Ok(intake.finish())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.connection.poll_body(&mut self.body, cx)
    }
}

impl Stream for Source<'_> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx).map(|chunk| {
            let chunk = chunk?.map_err(io::Error::other);
            Some(chunk.and_then(|bytes| {
                let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.encoded_left = self
                    .encoded_left
                    .checked_sub(size)
                    .ok_or_else(|| io::Error::other(Failure::BodyTooLarge))?;
                Ok(bytes)
            }))
        })
    }
}

/// SHA-256 of what is left of a body when all that the patterns match, one after the other, is
/// taken out.
pub(super) fn digest_without(body: &[u8], ignore: &[Regex]) -> [u8; 32] {
    let mut rest = Cow::Borrowed(body);
    for pattern in ignore {
        // `replace_all` borrows when nothing matches.
        if let Cow::Owned(shorter) = pattern.replace_all(&rest, NoExpand(b"")) {
            rest = Cow::Owned(shorter);
        }
    }
    Sha256::digest(&rest).into()
}

/// What is made of the bytes of a body as they come.
struct Intake {
    keeping: Keeping,
    size: u64,
    limit: u64,
}

enum Keeping {
    Nothing,
    Digest(Sha256),
    Bytes(Vec<u8>),
}

impl Intake {
    fn new(need: Need, limit: u64) -> Self {
        let keeping = match need {
            Need::End => Keeping::Nothing,
            Need::Digest => Keeping::Digest(Sha256::new()),
            Need::Bytes => Keeping::Bytes(Vec::new()),
        };
        Self { keeping, size: 0, limit }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.size = self.size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.size > self.limit {
            return Err(Failure::BodyTooLarge);
        }
        match &mut self.keeping {
            Keeping::Nothing => {}
            Keeping::Digest(digest) => digest.update(bytes),
            Keeping::Bytes(kept) => kept.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finish(self) -> Body {
        let content = match self.keeping {
            Keeping::Nothing => Content::Nothing,
            Keeping::Digest(digest) => Content::Digest(digest.finalize().into()),
            Keeping::Bytes(bytes) => Content::Bytes(bytes),
        };
        Body { size: self.size, content }
    }
}

async fn take_all(
    reader: &mut (impl AsyncBufRead + Unpin),
    intake: &mut Intake,
) -> Result<(), Failure> {
    loop {
        let bytes = reader.fill_buf().await.map_err(failure_of)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let size = bytes.len();
        intake.take(bytes)?;
        reader.consume(size);
        // Packed bodies bring much for one read: others have to get their turn.
        tokio::task::coop::consume_budget().await;
    }
}

/// Failures of the connection travel through the decoders as they are; all else is theirs.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn failure_of(error: io::Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>());
    inner.copied().unwrap_or(Failure::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Regex> {
        texts.iter().map(|text| Regex::new(text).unwrap()).collect()
    }

    #[test]
    fn the_digest_is_that_of_the_rest() {
        let digest = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
        let without =
            |body: &str, texts: &[&str]| digest_without(body.as_bytes(), &patterns(texts));
        assert_eq!(without("abc", &[]), digest("abc"));
        assert_eq!(without("abc", &["x"]), digest("abc"));
        assert_eq!(without("a1b22c", &["[0-9]"]), digest("abc"));
        assert_eq!(without("a1b22c", &["[0-9]+", "b"]), digest("ac"));
        assert_eq!(without("a1b", &["1", "ab"]), digest(""), "each sees what the last one left");
        assert_eq!(without("a$1b", &[r"\$1"]), digest("ab"));
        assert_eq!(without("abc", &["x*"]), digest("abc"), "an empty match takes nothing out");
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit() {
        let mut intake = Intake::new(Need::Bytes, 4);
        assert_eq!(intake.take(b"ab"), Ok(()));
        assert_eq!(intake.take(b"cd"), Ok(()));
        assert_eq!(intake.take(b"e"), Err(Failure::BodyTooLarge));
    }
}
