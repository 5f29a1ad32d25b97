//! A value within a JSON body, found without building the rest of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::verdict::Unversioned;

/// The value at `pointer` (RFC 6901) in a JSON text: a string's content, and a number, `true`,
/// `false` and `null` as they are written, so that no digit is lost to rounding.
///
/// Of several members with the same name the last one counts, as in most readers (RFC 8259
/// section 4). A byte order mark is ignored (section 8.1).
///
/// # Errors
/// [`Unversioned::NotJson`] when the text is not one JSON value from beginning to end;
/// [`Unversioned::NoJsonValue`] when the pointer leads to nothing, to an object or to an array,
/// or is none.
pub(super) fn value_at(text: &[u8], pointer: &str) -> Result<String, Unversioned> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let path = parse_pointer(pointer).ok_or(Unversioned::NoJsonValue)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found = Walk { path: &path }.deserialize(&mut reader);
    let found = found.map_err(|_| Unversioned::NotJson)?;
    reader.end().map_err(|_| Unversioned::NotJson)?;

    let written = found.ok_or(Unversioned::NoJsonValue)?.get();
    match written.as_bytes().first() {
        Some(b'{' | b'[') | None => Err(Unversioned::NoJsonValue),
        Some(b'"') => serde_json::from_str(written).map_err(|_| Unversioned::NotJson),
        Some(_) => Ok(written.to_owned()),
    }
}

fn parse_pointer(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let steps = pointer.strip_prefix('/')?.split('/');
    // In this order: `~01` is `~1` (section 4).
    Some(steps.map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// The number of an array's element: no sign, no leading zero (section 4).
fn parse_index(step: &str) -> Option<usize> {
    let digits = step.bytes().all(|b| b.is_ascii_digit());
    let canonical = step == "0" || !step.starts_with('0');
    if digits && canonical { step.parse().ok() } else { None }
}

/// Goes down one path and skips everything beside it.
struct Walk<'p> {
    path: &'p [String],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        match self.path.split_first() {
            None => serde::Deserialize::deserialize(reader).map(Some),
            Some((step, rest)) => reader.deserialize_any(Step { step, rest }),
        }
    }
}

struct Step<'p> {
    step: &'p str,
    rest: &'p [String],
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            if name == self.step {
                found = members.next_value_seed(Walk { path: self.rest })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let wanted = parse_index(self.step);
        let mut found = None;
        for at in 0_usize.. {
            let more = if wanted == Some(at) {
                match elements.next_element_seed(Walk { path: self.rest })? {
                    Some(value) => {
                        found = value;
                        true
                    }
                    None => false,
                }
            } else {
                elements.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(pointer: &str, text: &str) -> Result<String, Unversioned> {
        value_at(text.as_bytes(), pointer)
    }

    fn is(value: &str) -> Result<String, Unversioned> {
        Ok(value.to_owned())
    }

    const NOTHING: Result<String, Unversioned> = Err(Unversioned::NoJsonValue);
    const NOT_JSON: Result<String, Unversioned> = Err(Unversioned::NotJson);

    #[test]
    fn follows_the_examples_of_the_rfc() {
        let text = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4,
            "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}"#;
        for (pointer, value) in [
            ("/foo/0", "bar"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(at(pointer, text), is(value), "{pointer}");
        }
        for pointer in ["", "/foo", "/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/x", "/a", "foo"] {
            assert_eq!(at(pointer, text), NOTHING, "{pointer}");
        }
    }

    #[test]
    fn numbers_keep_every_digit() {
        for number in ["12345678901234567890123", "0.1000000000000000055511151231257827", "1E400"] {
            assert_eq!(at("/v", &format!("{{\"v\": {number} }}")), is(number));
        }
        assert_eq!(at("", " 7 "), is("7"));
        assert_eq!(at("/v", r#"{"v":-0.0}"#), is("-0.0"));
    }

    #[test]
    fn takes_scalars_and_nothing_else() {
        assert_eq!(at("/v", r#"{"v":true}"#), is("true"));
        assert_eq!(at("/v", r#"{"v":null}"#), is("null"));
        assert_eq!(at("/v", r#"{"v":"a\u00e9\"\n"}"#), is("aé\"\n"));
        assert_eq!(at("/v", r#"{"v":{}}"#), NOTHING);
        assert_eq!(at("/v", r#"{"v":[1]}"#), NOTHING);
        for scalar in ["1", "-1", "1.5", "\"v\"", "true", "null"] {
            assert_eq!(at("/v", scalar), NOTHING, "{scalar}");
        }
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        assert_eq!(at("/v", r#"{"v":1,"v":2}"#), is("2"));
        assert_eq!(at("/v/w", r#"{"v":{"w":1},"v":2}"#), NOTHING);
    }

    #[test]
    fn the_whole_text_has_to_be_json() {
        for text in ["", "{", r#"{"v":1"#, r#"{"v":1} x"#, r#"{"v":1}{"v":2}"#, "<html>", "{'v':1}"]
        {
            assert_eq!(at("/v", text), NOT_JSON, "{text}");
        }
        assert_eq!(value_at(b"{\"v\":\"\xff\"}", "/v"), NOT_JSON);
        assert_eq!(at("/v", "\u{feff}{\"v\":1}"), is("1"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = at("/0/0/0", &deep);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..80), pointer in "(/[a-z0-9~]{0,2}){0,4}") {
            let _ = value_at(&text, &pointer);
        }

        #[test]
        fn finds_what_was_put_there(name in "[^\\x00]{0,8}", value in ".{0,12}") {
            let text = serde_json::json!({ "x": [1, {"y": 2}], &name: [null, value] }).to_string();
            let pointer = format!("/{}/1", name.replace('~', "~0").replace('/', "~1"));
            prop_assert_eq!(value_at(text.as_bytes(), &pointer), Ok(value));
        }
    }
}
