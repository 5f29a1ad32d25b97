//! The parser as a `tokio_util` codec.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::frame::{Frame, FrameError, HEADER_LENGTH, parse};
use super::{Command, Reply};

/// What ends a stream of replies.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer sent what is no reply.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Turns bytes into replies and commands into bytes.
///
/// It reserves no memory for what a reply announces, only keeps what has arrived, and never more
/// than one reply of the limit beside what one read brought.
#[derive(Debug, Clone, Copy)]
pub struct Codec {
    limit: usize,
}

impl Codec {
    /// A codec for replies whose bodies have at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// Changes the limit, in bytes, for the replies to come.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }
}

impl Decoder for Codec {
    type Item = Reply;
    type Error = CodecError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Reply>, CodecError> {
        let Some(Frame { status, body }) = parse(source, self.limit)? else { return Ok(None) };
        let length = body.len();
        if length == 0 {
            source.advance(HEADER_LENGTH + 1);
            return Ok(Some(Reply { status, body: Bytes::new() }));
        }
        source.advance(HEADER_LENGTH);
        let body = source.split_to(length).freeze();
        source.advance(1);
        Ok(Some(Reply { status, body }))
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Reply>, CodecError> {
        match self.decode(source)? {
            Some(reply) => Ok(Some(reply)),
            None if source.is_empty() => Ok(None),
            None => Err(FrameError::cut(source).into()),
        }
    }
}

impl Encoder<&Command> for Codec {
    type Error = CodecError;

    fn encode(&mut self, command: &Command, target: &mut BytesMut) -> Result<(), CodecError> {
        target.extend_from_slice(command.as_line());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Status;

    fn decode_all(chunks: &[&[u8]], limit: usize) -> Result<Vec<Reply>, String> {
        let mut codec = Codec::new(limit);
        let mut buffer = BytesMut::new();
        let mut replies = Vec::new();
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(reply) = codec.decode(&mut buffer).map_err(|e| e.to_string())? {
                replies.push(reply);
            }
        }
        while let Some(reply) = codec.decode_eof(&mut buffer).map_err(|e| e.to_string())? {
            replies.push(reply);
        }
        Ok(replies)
    }

    fn chunks<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut chunks = Vec::new();
        for &size in sizes {
            let (chunk, rest) = bytes.split_at(size.min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks.push(bytes);
        chunks
    }

    #[test]
    fn a_stream_that_ends_within_a_reply_is_cut() {
        let half: &[u8] = b"107 59      \nixslvvx";
        assert_eq!(
            decode_all(&[half], 1_000).unwrap_err(),
            "the connection was closed in the middle of a reply, after 20 bytes (\"107 59      \
             \\nixslvvx\")"
        );
        assert_eq!(decode_all(&[b"200 0       \n\n"], 0).unwrap().len(), 1);
    }

    /// What a stream may hold: replies, some with a byte changed, and rubbish.
    fn nearly_replies() -> impl Strategy<Value = Vec<u8>> {
        let reply =
            (100_u16..=999, "[a-z\n]{0,60}", proptest::option::of((0_usize..20, any::<u8>())))
                .prop_map(|(status, body, change)| {
                    let mut bytes = format!("{status} {:<8}\n{body}\n", body.len()).into_bytes();
                    if let Some((at, byte)) = change
                        && let Some(place) = bytes.get_mut(at)
                    {
                        *place = byte;
                    }
                    bytes
                });
        let piece = prop_oneof![9 => reply, 1 => any::<Vec<u8>>()];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_replies(
            replies in proptest::collection::vec((100_u16..=999, any::<Vec<u8>>()), 0..8),
            sizes in proptest::collection::vec(0_usize..40, 0..40),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (number, body) in replies {
                bytes.extend_from_slice(format!("{number} {:<8}\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
                bytes.push(b'\n');
                let status = Status::new(number).unwrap();
                expected.push(Reply { status, body: body.into() });
            }
            prop_assert_eq!(decode_all(&chunks(&bytes, &sizes), 1_000), Ok(expected));
        }

        #[test]
        fn any_bytes_end_alike_however_chunked(
            bytes in nearly_replies(),
            sizes in proptest::collection::vec(0_usize..40, 0..20),
        ) {
            let whole = decode_all(&[&bytes], 50).ok();
            prop_assert_eq!(decode_all(&chunks(&bytes, &sizes), 50).ok(), whole);
        }

        #[test]
        fn an_announced_length_reserves_nothing(length in 0_usize..=99_999_999) {
            let mut buffer = BytesMut::from(format!("200 {length:<8}\n").as_bytes());
            let before = buffer.capacity();
            let _ = Codec::new(usize::MAX).decode(&mut buffer);
            prop_assert!(buffer.capacity() <= before);
        }
    }
}
