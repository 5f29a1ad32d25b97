//! What an application publishes on a channel, and the values in it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::model::JsonPointer;

use super::json::excerpt;
use super::{LONGEST_EVENT, Pattern, Placeholder, PlaceholderError};

/// The longest value that is filled into a template, in bytes: 1 KiB.
pub const LONGEST_VALUE: usize = 1_024;

/// A message that came on a channel.
#[derive(Debug)]
pub struct Message<'m> {
    channel: &'m [u8],
    captures: Vec<&'m [u8]>,
    payload: &'m [u8],
    /// The payload, once it is known to be JSON from beginning to end.
    json: OnceCell<Option<&'m RawValue>>,
}

/// Why a message has no value for a placeholder. The fault of whoever published it, or of the
/// template that expects what such messages do not have.
///
/// Texts of the message within are excerpts made safe for a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// There is no such placeholder.
    #[error("no value can be filled in")]
    Placeholder(#[source] PlaceholderError),
    /// The pattern has fewer `*`.
    #[error("the channel's pattern has {got} *, none for {{{number}}}")]
    NoCapture {
        /// The number of the placeholder.
        number: u8,
        /// How many the pattern has.
        got: usize,
    },
    /// The message is larger than one that is read as JSON.
    #[error(
        "a message that values are taken from has at most {LONGEST_EVENT} bytes, this one has {got}"
    )]
    TooLarge {
        /// Its size in bytes.
        got: usize,
    },
    /// The message is no JSON.
    #[error("the message is no JSON, and {pointer} is a place in JSON")]
    NotJson {
        /// The place.
        pointer: JsonPointer,
    },
    /// There is nothing at that place.
    #[error("the message has no value at {pointer}")]
    Absent {
        /// The place.
        pointer: JsonPointer,
    },
    /// There is an object, an array or `null`.
    #[error("expected a text, a number or a truth value at {pointer}, got {got}")]
    Kind {
        /// The place.
        pointer: JsonPointer,
        /// What is there.
        got: &'static str,
    },
    /// The value is no UTF-8.
    #[error("the value is no UTF-8")]
    NotText,
    /// The value is empty.
    #[error("the value is empty")]
    Empty,
    /// The value is too long.
    #[error("a value has at most {LONGEST_VALUE} bytes, this one has {got}")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// The value holds a control character, such as a line end.
    #[error("a value holds no control characters, found {found:?} in \"{within}\"")]
    Control {
        /// The first one.
        found: char,
        /// The value.
        within: String,
    },
}

impl<'m> Message<'m> {
    /// A message on a channel that a subscription has; `None` when its pattern does not match.
    #[must_use]
    pub fn new(pattern: &Pattern, channel: &'m [u8], payload: &'m [u8]) -> Option<Self> {
        let captures = pattern.captures(channel)?;
        Some(Self { channel, captures, payload, json: OnceCell::new() })
    }

    /// The whole message.
    #[must_use]
    pub fn payload(&self) -> &'m [u8] {
        self.payload
    }

    /// The value for a placeholder: 1 to [`LONGEST_VALUE`] bytes of UTF-8 without control
    /// characters. A number is as it is written, so that no digit is lost.
    ///
    /// # Errors
    /// [`ValueError`] says why there is none.
    pub fn value(&self, placeholder: &Placeholder) -> Result<Cow<'m, str>, ValueError> {
        let bytes = match placeholder {
            Placeholder::Channel => self.channel,
            Placeholder::Payload => self.payload,
            Placeholder::Capture(number) => {
                let captured = usize::from(*number).checked_sub(1);
                let captured = captured.and_then(|at| self.captures.get(at));
                let got = self.captures.len();
                captured.ok_or(ValueError::NoCapture { number: *number, got })?
            }
            Placeholder::Json(pointer) => return self.at(pointer).and_then(checked),
        };
        // Before looking through it all.
        if bytes.len() > LONGEST_VALUE {
            return Err(ValueError::TooLong { got: bytes.len() });
        }
        std::str::from_utf8(bytes)
            .map_err(|_| ValueError::NotText)
            .map(Cow::Borrowed)
            .and_then(checked)
    }

    /// The same for the name of a placeholder, as templates ask for it.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn named(&self, name: &str) -> Result<String, ValueError> {
        let placeholder = name.parse().map_err(ValueError::Placeholder)?;
        self.value(&placeholder).map(Cow::into_owned)
    }

    fn at(&self, pointer: &JsonPointer) -> Result<Cow<'m, str>, ValueError> {
        if self.payload.len() > LONGEST_EVENT {
            return Err(ValueError::TooLarge { got: self.payload.len() });
        }
        let absent = || ValueError::Absent { pointer: pointer.clone() };
        let document = *self.json.get_or_init(|| serde_json::from_slice(self.payload).ok());
        let mut value = document.ok_or_else(|| ValueError::NotJson { pointer: pointer.clone() })?;
        for step in pointer.steps() {
            value = member(value, &step).ok_or_else(absent)?;
        }
        let kind = |got| Err(ValueError::Kind { pointer: pointer.clone(), got });
        let written = value.get();
        match written.as_bytes().first() {
            Some(b'{') => kind("an object"),
            Some(b'[') => kind("an array"),
            Some(b'n') => kind("null"),
            Some(b'"') => match serde_json::from_str::<String>(written) {
                Ok(text) => Ok(Cow::Owned(text)),
                // A surrogate that stands alone.
                Err(_) => Err(ValueError::NotText),
            },
            _ => Ok(Cow::Borrowed(written)),
        }
    }
}

/// The member of that name, or of that number in an array. Of several members with the same name
/// the last one counts, as in most readers (RFC 8259 section 4).
fn member<'m>(value: &'m RawValue, step: &str) -> Option<&'m RawValue> {
    match value.get().as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<Cow<'m, str>, &'m RawValue> =
                serde_json::from_str(value.get()).ok()?;
            members.get(step).copied()
        }
        b'[' => {
            // No sign and no leading zero (RFC 6901 section 4).
            let digits = step.bytes().all(|b| b.is_ascii_digit());
            let canonical = digits && (step == "0" || !step.starts_with('0'));
            let number: usize = step.parse().ok().filter(|_| canonical)?;
            let elements: Vec<&'m RawValue> = serde_json::from_str(value.get()).ok()?;
            elements.get(number).copied()
        }
        _ => None,
    }
}

fn checked(value: Cow<'_, str>) -> Result<Cow<'_, str>, ValueError> {
    if value.is_empty() {
        return Err(ValueError::Empty);
    }
    if value.len() > LONGEST_VALUE {
        return Err(ValueError::TooLong { got: value.len() });
    }
    match value.chars().find(|c| c.is_control()) {
        Some(found) => Err(ValueError::Control { found, within: excerpt(&value) }),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(placeholder: &str, channel: &str, payload: &[u8]) -> Result<String, ValueError> {
        let pattern: Pattern = "invalidate:*:*".parse().unwrap();
        Message::new(&pattern, channel.as_bytes(), payload).unwrap().named(placeholder)
    }

    fn json(pointer: &str, payload: &str) -> Result<String, ValueError> {
        value(&format!("json:{pointer}"), "invalidate:a:b", payload.as_bytes())
    }

    #[test]
    fn every_placeholder_has_its_value() {
        let of = |placeholder: &str| value(placeholder, "invalidate:model:a7", b"\xc3\xbc x");
        assert_eq!(of("1").as_deref(), Ok("model"));
        assert_eq!(of("2").as_deref(), Ok("a7"));
        assert_eq!(of("channel").as_deref(), Ok("invalidate:model:a7"));
        assert_eq!(of("payload").as_deref(), Ok("\u{fc} x"));
        assert_eq!(of("3"), Err(ValueError::NoCapture { number: 3, got: 2 }));
        assert!(matches!(of("x"), Err(ValueError::Placeholder(_))));
        let pattern: Pattern = "a*".parse().unwrap();
        assert!(Message::new(&pattern, b"b", b"").is_none());
    }

    #[test]
    fn values_stand_within_json() {
        let text = r#"{"model": {"id": "a7", "n": [1, 2.50]}, "big": 12345678901234567890123,
            "yes": true, "none": null, "a/b": "s", "twice": 1, "twice": 2}"#;
        assert_eq!(json("/model/id", text).as_deref(), Ok("a7"));
        assert_eq!(json("/model/n/1", text).as_deref(), Ok("2.50"));
        assert_eq!(json("/big", text).as_deref(), Ok("12345678901234567890123"));
        assert_eq!(json("/yes", text).as_deref(), Ok("true"));
        assert_eq!(json("/a~1b", text).as_deref(), Ok("s"));
        assert_eq!(json("/twice", text).as_deref(), Ok("2"));
        let pointer = |text: &str| text.parse::<JsonPointer>().unwrap();
        for (at, got) in [("/model", "an object"), ("/model/n", "an array"), ("/none", "null")] {
            let expected = ValueError::Kind { pointer: pointer(at), got };
            assert_eq!(json(at, text), Err(expected));
        }
        for at in ["/x", "/model/n/2", "/model/n/01", "/model/n/-1", "/yes/x"] {
            assert_eq!(json(at, text), Err(ValueError::Absent { pointer: pointer(at) }), "{at}");
        }
        for text in ["", "a7", "{\"v\": 1", "{\"v\": 1} x"] {
            assert_eq!(json("/v", text), Err(ValueError::NotJson { pointer: pointer("/v") }));
        }
        assert_eq!(json("/v", r#"{"v": "\ud800"}"#), Err(ValueError::NotText));
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = json("/0/0/0", &deep);
    }

    #[test]
    fn a_value_is_bounded_and_plain() {
        let payload = |bytes: &[u8]| value("payload", "invalidate:a:b", bytes);
        assert_eq!(payload(b""), Err(ValueError::Empty));
        assert_eq!(payload(&[b'a'; 1_025]), Err(ValueError::TooLong { got: 1_025 }));
        assert_eq!(payload(b"\xff"), Err(ValueError::NotText));
        let within = "a\\r\\nquit".to_owned();
        assert_eq!(payload(b"a\r\nquit"), Err(ValueError::Control { found: '\r', within }));
        assert_eq!(json("/v", r#"{"v": ""}"#), Err(ValueError::Empty));
        assert!(matches!(json("/v", r#"{"v": "a\nb"}"#), Err(ValueError::Control { .. })));
        let large = format!("{{\"v\": 1, \"w\": \"{}\"}}", "x".repeat(LONGEST_EVENT));
        assert!(matches!(json("/v", &large), Err(ValueError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn what_comes_out_can_be_filled_in(payload in prop::collection::vec(any::<u8>(), 0..60), at in "(/[a-z0-9~]{0,2}){1,3}") {
            for placeholder in ["payload".to_owned(), format!("json:{at}")] {
                if let Ok(found) = value(&placeholder, "invalidate:a:b", &payload) {
                    prop_assert!(!found.is_empty() && !found.contains(char::is_control));
                }
            }
        }
    }
}
