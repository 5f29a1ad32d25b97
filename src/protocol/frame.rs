//! Where one reply ends in a stream of bytes.

use std::fmt;

use super::Status;
use super::reply::Excerpt;

/// The length of a reply's first line, its line end included.
pub const HEADER_LENGTH: usize = 13;

/// As many bytes of a malformed answer are kept, to show what the peer may be.
const KEPT: usize = 80;

/// One complete reply at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The status.
    pub status: Status,
    /// The body, without the line end that closes the frame.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// How many bytes the frame takes up in the stream.
    #[must_use]
    pub const fn length(&self) -> usize {
        HEADER_LENGTH + self.body.len() + 1
    }
}

/// Bytes that are no reply of varnishd. The stream is of no use from there on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first line is none that varnishd writes: the peer is something else.
    #[error("expected a reply of varnishd, got {}{}", Excerpt::new(seen, KEPT), guess(seen))]
    Header {
        /// The first bytes of it, at most 80.
        seen: Vec<u8>,
    },
    /// The reply announces a body over the limit. Raise the limit, or ask for less.
    #[error("a reply of {got} bytes is over the limit of {limit}")]
    TooLong {
        /// The status, which did arrive.
        status: Status,
        /// The length announced, in bytes.
        got: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body does not end where its length says.
    #[error("a reply with status {status} does not end after {length} bytes as it announced")]
    Unterminated {
        /// The status.
        status: Status,
        /// The length announced, in bytes.
        length: usize,
    },
    /// The stream ended within a reply.
    #[error("the connection was closed in the middle of a reply, after {}", cut_after(seen, *got))]
    Cut {
        /// How many bytes of the reply had arrived.
        got: usize,
        /// The first of them, at most 80.
        seen: Vec<u8>,
    },
}

impl FrameError {
    /// What a stream that ended within `rest` suffers from.
    #[must_use]
    pub fn cut(rest: &[u8]) -> Self {
        Self::Cut { got: rest.len(), seen: front(rest) }
    }
}

/// What a peer that is no Varnish may be, by what it says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Impostor {
    /// An HTTP server, such as Varnish's own `-a` port.
    Http,
    /// A TLS server.
    Tls,
    /// An SSH server.
    Ssh,
    /// A mail or FTP server.
    Mail,
    /// A Redis server.
    Redis,
}

impl Impostor {
    /// Guesses from the first bytes of an answer.
    #[must_use]
    pub fn guess(seen: &[u8]) -> Option<Self> {
        let starts = |prefix: &[u8]| seen.starts_with(prefix);
        if starts(b"HTTP/") || starts(b"<!") || starts(b"<html") {
            Some(Self::Http)
        } else if starts(&[0x15, 0x03]) || starts(&[0x16, 0x03]) {
            Some(Self::Tls)
        } else if starts(b"SSH-") {
            Some(Self::Ssh)
        } else if starts(b"220 ") || starts(b"220-") || starts(b"* OK") || starts(b"+OK ") {
            Some(Self::Mail)
        } else if starts(b"-ERR ") || starts(b"-NOAUTH") || starts(b"-DENIED") {
            Some(Self::Redis)
        } else {
            None
        }
    }

    /// The guess in words, with its article.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "an HTTP server",
            Self::Tls => "a TLS server",
            Self::Ssh => "an SSH server",
            Self::Mail => "a mail or FTP server",
            Self::Redis => "a Redis server",
        }
    }
}

/// Reads the reply at the front of `bytes`, whose body may have at most `limit` bytes. `None`: the
/// reply is not complete yet, and nothing speaks against it so far.
///
/// The first line is three digits, a space, the body's length padded with spaces to eight columns,
/// and a line feed; the body follows, then a line feed that its length does not count (the wire
/// protocol in varnish-cli(7)). What cannot become such a line is refused at its first wrong byte,
/// without waiting for a complete line.
///
/// # Errors
/// [`FrameError`]: never `Cut`, which is for whoever sees the stream end.
pub fn parse(bytes: &[u8], limit: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((status, length)) = header(bytes)? else { return Ok(None) };
    if length > limit {
        return Err(FrameError::TooLong { status, got: length, limit });
    }
    let body = bytes.get(HEADER_LENGTH..).and_then(|rest| rest.get(..length));
    match (body, bytes.get(HEADER_LENGTH + length)) {
        (Some(body), Some(b'\n')) => Ok(Some(Frame { status, body })),
        (Some(_), Some(_)) => Err(FrameError::Unterminated { status, length }),
        _ => Ok(None),
    }
}

fn header(bytes: &[u8]) -> Result<Option<(Status, usize)>, FrameError> {
    let mut status = 0_u16;
    let mut length = 0_usize;
    let mut padding = false;
    for (column, &byte) in bytes.iter().take(HEADER_LENGTH).enumerate() {
        let digit = byte.is_ascii_digit().then(|| byte - b'0');
        let fits = match (column, digit) {
            (0, Some(0)) => false,
            (0..=2, Some(digit)) => {
                status = status * 10 + u16::from(digit);
                true
            }
            (4..=11, Some(digit)) if !padding => {
                length = length * 10 + usize::from(digit);
                true
            }
            (5..=11, None) => {
                padding = true;
                byte == b' '
            }
            (3, None) => byte == b' ',
            (12, None) => byte == b'\n',
            _ => false,
        };
        if !fits {
            return Err(FrameError::Header { seen: front(bytes) });
        }
    }
    if bytes.len() < HEADER_LENGTH {
        return Ok(None);
    }
    // Three digits, the first of them not zero: always a status.
    Ok(Status::new(status).map(|status| (status, length)))
}

fn front(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().take(KEPT).copied().collect()
}

fn guess(seen: &[u8]) -> impl fmt::Display {
    Impostor::guess(seen)
        .map_or_else(String::new, |impostor| format!(": it looks like {}", impostor.name()))
}

fn cut_after(seen: &[u8], got: usize) -> impl fmt::Display {
    format!("{got} bytes ({})", Excerpt::new(seen, KEPT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1_000;

    #[test]
    fn reads_what_varnishd_sent() {
        let challenge =
            include_bytes!("../../fixtures/transcripts/varnish-7.1.1/greeting-challenge.reply");
        let frame = parse(challenge, LIMIT).unwrap().unwrap();
        assert_eq!(frame.status, Status::AUTH);
        assert_eq!(frame.length(), challenge.len());
        let ban = include_bytes!("../../fixtures/transcripts/varnish-7.1.1/ban.reply");
        assert_eq!(parse(ban, LIMIT), Ok(Some(Frame { status: Status::OK, body: b"" })));
        for cut in 0..ban.len() {
            assert_eq!(parse(&ban[..cut], LIMIT), Ok(None), "{cut} bytes");
        }
    }

    #[test]
    fn refuses_at_the_first_wrong_byte() {
        for wrong in [
            "H",
            "0",
            "20 ",
            "200x",
            "200  ",
            "200 x",
            "200 1x",
            "200 1 1",
            "200 1       x",
            "200 123456789",
            "220 mail.example.com ESMTP\r\n",
        ] {
            let Err(FrameError::Header { seen }) = parse(wrong.as_bytes(), LIMIT) else {
                panic!("{wrong:?} was taken");
            };
            assert_eq!(seen, wrong.as_bytes());
        }
    }

    #[test]
    fn says_what_the_peer_looks_like() {
        let message = |bytes: &[u8]| parse(bytes, LIMIT).unwrap_err().to_string();
        assert_eq!(
            message(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
            "expected a reply of varnishd, got \"SSH-2.0-OpenSSH_9.2p1\": it looks like an SSH \
             server"
        );
        assert!(message(b"HTTP/1.1 400 Bad Request\r\n").ends_with("an HTTP server"));
        assert!(message(b"\x15\x03\x03\x00\x02").ends_with("a TLS server"));
        assert!(message(b"-ERR unknown command\r\n").ends_with("a Redis server"));
        assert!(message(b"hello").ends_with("got \"hello\""));
    }

    #[test]
    fn keeps_to_the_limit() {
        let frame = b"201 8       \n12345678\n";
        assert!(parse(frame, 8).unwrap().is_some());
        let wrong = FrameError::TooLong { status: Status::TRUNCATED, got: 8, limit: 7 };
        assert_eq!(parse(&frame[..HEADER_LENGTH], 7), Err(wrong));
        assert_eq!(
            parse(b"200 1       \nab", 8),
            Err(FrameError::Unterminated { status: Status::OK, length: 1 })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>, limit in 0_usize..200) {
            if let Ok(Some(frame)) = parse(&bytes, limit) {
                prop_assert!(frame.length() <= bytes.len());
                prop_assert!(frame.body.len() <= limit);
            }
        }

        #[test]
        fn a_frame_is_read_back(number in 100_u16..=999, body: Vec<u8>) {
            let mut bytes = format!("{number} {:<8}\n", body.len()).into_bytes();
            bytes.extend_from_slice(&body);
            bytes.push(b'\n');
            let frame = Frame { status: Status::new(number).unwrap(), body: &body };
            prop_assert_eq!(parse(&bytes, body.len()), Ok(Some(frame)));
            bytes.pop();
            prop_assert_eq!(parse(&bytes, body.len()), Ok(None));
        }
    }
}
