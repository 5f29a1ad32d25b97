//! Content codings: what a body has to go through before it can be compared.

use std::io;

use async_compression::tokio::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::zstd::DParameter;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

/// A body may be coded several times over; nobody means more than this.
const MOST_CODINGS: usize = 4;

/// The largest window of zstd that a decoder has to support and that an encoder may use for HTTP,
/// as a power of two: 8 MiB (RFC 9659). Without a limit a peer could ask for 128 MiB.
const ZSTD_WINDOW: u32 = 23;

/// A content coding that can be undone (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// `gzip`, also called `x-gzip`.
    Gzip,
    /// `deflate`: the zlib format, but some servers send it without its header.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// A coding that cannot be undone, or too many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// A stage of decoding; the first one reads what came over the connection.
pub(super) type Stage<'a> = Box<dyn AsyncBufRead + Send + Unpin + 'a>;

/// The codings of a body in the order in which they were applied; empty for a plain one.
pub(super) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, UnknownCoding> {
    let mut codings = Vec::new();
    for line in headers.get_all(CONTENT_ENCODING) {
        for name in line.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is("gzip") || is("x-gzip") {
                codings.push(Coding::Gzip);
            } else if is("deflate") {
                codings.push(Coding::Deflate);
            } else if is("br") {
                codings.push(Coding::Brotli);
            } else if is("zstd") {
                codings.push(Coding::Zstd);
            } else if !is("identity") && !is("") {
                return Err(UnknownCoding);
            }
        }
    }
    if codings.len() > MOST_CODINGS { Err(UnknownCoding) } else { Ok(codings) }
}

/// Undoes one coding. Concatenated members of gzip and frames of zstd are one body, as their
/// formats have it; an empty body is empty under each coding.
///
/// # Errors
/// What reading from `stage` brings; faults of the coding show when the result is read.
pub(super) async fn undo<'a>(coding: Coding, mut stage: Stage<'a>) -> io::Result<Stage<'a>> {
    let Some(&first) = stage.fill_buf().await?.first() else {
        return Ok(stage);
    };
    Ok(match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(stage);
            decoder.multiple_members(true);
            Box::new(BufReader::new(decoder))
        }
        // The low half of zlib's first byte says "deflate", its high half a window of at most
        // 32 KiB (RFC 1950 section 2.2). A bare stream would start with a stored block whose
        // padding is not zero, which no encoder writes.
        Coding::Deflate if first & 0x8f == 0x08 => {
            Box::new(BufReader::new(ZlibDecoder::new(stage)))
        }
        Coding::Deflate => Box::new(BufReader::new(DeflateDecoder::new(stage))),
        Coding::Brotli => Box::new(BufReader::new(BrotliDecoder::new(stage))),
        Coding::Zstd => {
            let limit = [DParameter::window_log_max(ZSTD_WINDOW)];
            let mut decoder = ZstdDecoder::with_params(stage, &limit);
            decoder.multiple_members(true);
            Box::new(BufReader::new(decoder))
        }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[&str]) -> Result<Vec<Coding>, UnknownCoding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        codings(&headers)
    }

    #[test]
    fn reads_the_list_of_codings() {
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(of(&["identity"]), Ok(vec![]));
        assert_eq!(of(&[""]), Ok(vec![]));
        assert_eq!(of(&["GZIP"]), Ok(vec![Coding::Gzip]));
        assert_eq!(of(&["x-gzip"]), Ok(vec![Coding::Gzip]));
        assert_eq!(of(&["deflate, gzip"]), Ok(vec![Coding::Deflate, Coding::Gzip]));
        assert_eq!(of(&["br", "zstd"]), Ok(vec![Coding::Brotli, Coding::Zstd]));
    }

    #[test]
    fn refuses_what_it_cannot_undo() {
        assert_eq!(of(&["compress"]), Err(UnknownCoding));
        assert_eq!(of(&["gzip, rot13"]), Err(UnknownCoding));
        assert_eq!(of(&["gzip,gzip,gzip,gzip,gzip"]), Err(UnknownCoding));
    }
}
