//! A stream of replies, whole and byte by byte, has to come to the same.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use purgewatch::protocol::{Codec, Reply};
use tokio_util::codec::Decoder as _;

const LIMIT: usize = 1_000;

fn read(chunks: &mut dyn Iterator<Item = &[u8]>) -> (Vec<Reply>, bool) {
    let (mut codec, mut buffer, mut replies) = (Codec::new(LIMIT), BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(_) => return (replies, false),
            }
        }
        assert!(buffer.len() <= LIMIT + 14 + chunk.len(), "more is held than one reply");
    }
    (replies, codec.decode_eof(&mut buffer).is_ok())
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(&mut std::iter::once(bytes));
    let drops = read(&mut bytes.chunks(1));
    assert_eq!(whole, drops);
    for reply in whole.0 {
        let shown = reply.excerpt(100).to_string();
        assert!(!shown.chars().any(char::is_control));
    }
});
