//! `panic.show`: why the cache process died last.

use std::time::{Duration, UNIX_EPOCH};

use super::envelope::Envelope;
use super::{Answer, AnswerError, success, text};
use crate::protocol::{Command, Reply};

/// The last panic of the cache process, from `panic.show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic {
    /// When it happened, since 1970, to the second; `None` where the first line has no such date.
    pub time: Option<Duration>,
    /// All of what varnishd says, many lines. It comes from a process that had lost its footing:
    /// show it with [`Excerpt`](crate::protocol::Excerpt).
    pub text: String,
    /// Whether that is all. If not, the reply was cut at the server's `cli_limit`.
    pub complete: bool,
}

impl Answer for Panic {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        let (words, complete) = if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let words = envelope.only()?.as_text().map(text);
            let malformed = || AnswerError::malformed("a text", &reply.body, 0);
            (words.ok_or_else(malformed)?, envelope.complete)
        } else {
            (text(success(reply)?), !reply.is_truncated())
        };
        // "Panic at: ...", since 7.7 "Child (4711) Panic at: ...".
        let date = words.lines().next().and_then(|line| line.split_once("Panic at: "));
        let Some((_, date)) = date else {
            return Err(AnswerError::malformed("Panic at:", &reply.body, 0));
        };
        let time = httpdate::parse_http_date(date.trim()).ok();
        let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self { time, text: words, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, reply};
    use super::*;

    #[test]
    fn the_first_line_tells_when() {
        let read = |body| Panic::read(&reply(200, body), &asked("panic.show"));
        let panic = read("Panic at: Mon, 23 Nov 2026 23:37:20 GMT\nAssert error in x()\n").unwrap();
        assert_eq!(panic.time, Some(Duration::from_secs(1_795_477_040)));
        assert!(panic.complete && panic.text.ends_with("Assert error in x()\n"));
        let newer = read("Child (4711) Panic at: Mon, 23 Nov 2026 23:37:20 GMT\n").unwrap();
        assert_eq!(newer.time, panic.time);
        assert_eq!(read("Panic at: noon\n").unwrap().time, None);
        assert!(read("PONG 1 1.0").is_err());
        let cut = Panic::read(&reply(201, "Panic at: no"), &asked("panic.show")).unwrap();
        assert!(!cut.complete);
    }
}
