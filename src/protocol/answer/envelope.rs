//! What is around the data of a reply in JSON.

use std::time::Duration;

use super::json::{Json, JsonError, Reader};
use super::{Answer, AnswerError, success};
use crate::protocol::{Command, Reply, split};

/// A reply in JSON: an array of the format's version, the command repeated, the time, and data.
///
/// It was checked that the command repeated is the one that was sent. That is the only sign by
/// which a client can tell when manager and cache process of a node are out of step, so that each
/// reply belongs to an earlier command (varnish-cache issues 2010 and 2103).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The version of the format: 1, 2 or 3, by command.
    pub version: u64,
    /// The server's time when it answered, since 1970; in steps of a millisecond.
    pub time: Duration,
    /// The data.
    pub data: Vec<Json>,
    /// Whether that is all the data. If not, the reply was cut at the server's `cli_limit`.
    pub complete: bool,
    /// The members that were whole of an object that the cut went through.
    pub partial: Option<Json>,
}

impl Answer for Envelope {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        let body = success(reply)?;
        let mut reader = Reader::new(body);
        let (version, echo, time) = head(&mut reader).map_err(|error| match error {
            JsonError::Cut if reply.is_truncated() => {
                AnswerError::Cut { expected: "the command and the time" }
            }
            JsonError::Cut => AnswerError::malformed("more JSON", body, body.len()),
            JsonError::Wrong { at } => AnswerError::malformed("JSON", body, at),
        })?;
        check(&echo, asked)?;
        let mut data = Vec::new();
        loop {
            reader.skip(b',');
            if reader.skip(b']') {
                reader.blanks();
                let at = reader.at();
                return match reader.peek() {
                    None => Ok(Self { version, time, data, complete: true, partial: None }),
                    Some(_) => Err(AnswerError::malformed("the end", body, at)),
                };
            }
            match reader.value() {
                Ok(value) => data.push(value),
                Err(JsonError::Wrong { at }) if body.get(at..) != Some(MARK) => {
                    return Err(AnswerError::malformed("JSON", body, at));
                }
                Err(_) => {
                    let partial = reader.into_unfinished();
                    return Ok(Self { version, time, data, complete: false, partial });
                }
            }
        }
    }
}

/// What versions before 6.4 put in place of the end of a reply that they cut.
const MARK: &[u8] = b"!\n[response was truncated]\n";

impl Envelope {
    /// Whether `reply` is in JSON, or was meant to be.
    pub(super) fn is_one(reply: &Reply) -> bool {
        reply.body.starts_with(b"[ ") || reply.body.starts_with(b"[\n")
    }

    /// The first of the data, for commands whose reply has one.
    pub(super) fn only(&self) -> Result<&Json, AnswerError> {
        match self.data.first() {
            Some(value) => Ok(value),
            None if self.complete => Err(AnswerError::malformed("data", b"", 0)),
            None => Err(AnswerError::Cut { expected: "the data" }),
        }
    }
}

fn head(reader: &mut Reader<'_>) -> Result<(u64, Vec<Vec<u8>>, Duration), JsonError> {
    reader.need(b'[')?;
    reader.blanks();
    let wrong = |at: usize| JsonError::Wrong { at };
    let at = reader.at();
    let version = reader.value()?.as_u64().ok_or(wrong(at))?;
    reader.need(b',')?;
    reader.blanks();
    let at = reader.at();
    let Json::List(words) = reader.value()? else { return Err(wrong(at)) };
    let echo = words.into_iter().map(|word| match word {
        Json::Text(word) => Ok(word),
        _ => Err(wrong(at)),
    });
    let echo = echo.collect::<Result<_, _>>()?;
    reader.need(b',')?;
    reader.blanks();
    let at = reader.at();
    let Json::Number(time) = reader.value()? else { return Err(wrong(at)) };
    Ok((version, echo, seconds(&time).ok_or(wrong(at))?))
}

/// Whether the command repeated is the one that was sent. `param.set` leaves the value out.
fn check(echo: &[Vec<u8>], asked: &Command) -> Result<(), AnswerError> {
    let line = asked.as_line().trim_ascii_end();
    let asked_words = split(line.strip_prefix(b"-").unwrap_or(line)).unwrap_or_default();
    let without_value = asked.verb().as_str() == "param.set" && echo.len() == 3;
    if echo == asked_words || (without_value && asked_words.starts_with(echo)) {
        Ok(())
    } else {
        Err(AnswerError::Foreign { got: echo.join(&b' ') })
    }
}

/// `1795466153.544762` as a duration since 1970, to the microsecond.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{asked, reply, transcript};
    use super::*;

    fn envelope(body: &'static str, line: &str) -> Result<Envelope, AnswerError> {
        Envelope::read(&reply(200, body), &asked(line))
    }

    #[test]
    fn reads_what_varnishd_sent() {
        let ping = transcript("ping-json-argument");
        let envelope = Envelope::read(&ping, &asked("ping -j nonce-1")).unwrap();
        assert_eq!((envelope.version, envelope.complete), (2, true));
        assert_eq!(envelope.time.as_millis(), 1_795_477_037_683);
        assert_eq!(envelope.data, [Json::Text(b"PONG".to_vec())]);
        let set =
            Envelope::read(&transcript("param-set-json"), &asked("param.set -j default_grace 12"));
        assert_eq!(set.unwrap().data.len(), 1);
    }

    #[test]
    fn the_command_repeated_has_to_be_the_one_that_was_sent() {
        let ping = transcript("ping-json-argument");
        let error = Envelope::read(&ping, &asked("ping -j nonce-2")).unwrap_err();
        assert_eq!(error, AnswerError::Foreign { got: b"ping -j nonce-1".to_vec() });
        assert_eq!(error.to_string(), "the reply is to another command, \"ping -j nonce-1\"");
        Envelope::read(&ping, &asked(r"-ping -j nonce\x2d1")).unwrap();
        let set = transcript("param-set-json");
        Envelope::read(&set, &asked("param.set -j default_ttl 12")).unwrap_err();
    }

    #[test]
    fn an_empty_list_is_one() {
        let none = transcript("param-show-none-json");
        let envelope = Envelope::read(&none, &asked("param.show -j changed")).unwrap();
        assert_eq!((envelope.data.len(), envelope.complete), (0, true));
    }

    #[test]
    fn what_is_cut_is_not_whole() {
        let cut =
            envelope("[ 2, [\"a\", \"-j\"], 1.5,\n{\"x\": 1},\n{\"y\": 2, \"z", "a -j").unwrap();
        assert_eq!((cut.data.len(), cut.complete), (1, false));
        assert_eq!(cut.partial.unwrap().get("y").unwrap().as_u64(), Some(2));
        let marked = "[ 2, [\"a\", \"-j\"], 1.5,\n{\"x\": 1}, !\n[response was truncated]\n";
        assert!(!envelope(marked, "a -j").unwrap().complete);
        let early = Envelope::read(&reply(201, "[ 2, [\"a\""), &asked("a -j")).unwrap_err();
        assert_eq!(early, AnswerError::Cut { expected: "the command and the time" });
        for wrong in ["", "[", "[ 2, [\"a\", \"-j\"], 1.5, 1 ] x", "[ 2, [\"a\", \"-j\"], \"x\" ]"]
        {
            let error = envelope(wrong, "a -j").unwrap_err();
            assert!(matches!(error, AnswerError::Malformed { .. }), "{wrong}: {error:?}");
        }
    }

    #[test]
    fn seconds_keep_their_digits() {
        assert_eq!(
            seconds("1795477040.410622"),
            Some(Duration::from_micros(1_795_477_040_410_622))
        );
        assert_eq!(seconds("7"), Some(Duration::from_secs(7)));
        for wrong in ["", "-1", "1.", ".5", "1e3", "99999999999999999999", "1.0000000001"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_is_taken_for_the_whole(end in 0_usize..1_006) {
            let whole = transcript("ban-list-mixed-json");
            let cut = Reply { status: whole.status, body: whole.body.slice(..end.min(whole.body.len() - 2)) };
            if let Ok(envelope) = Envelope::read(&cut, &asked("ban.list -j")) {
                prop_assert!(!envelope.complete);
            }
        }

        #[test]
        fn no_input_panics(body: Vec<u8>) {
            let mut reply = reply(200, "");
            reply.body = [b"[ 2, [\"a\", \"-j\"], 1.5,".to_vec(), body].concat().into();
            let _ = Envelope::read(&reply, &asked("a -j"));
        }
    }
}
