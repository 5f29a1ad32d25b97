//! JSON, indented, with its numbers and texts as the server wrote them.

use serde_json::value::RawValue;

/// What is no longer than this stays on one line, in bytes.
const SHORT: usize = 72;

/// The document indented; `None` for a text that is no JSON, or was cut.
pub(super) fn indented(body: &[u8]) -> Option<String> {
    let starts_so = matches!(body.trim_ascii_start().first(), Some(b'[' | b'{'));
    // That also says that brackets are in pairs, and not nested too deeply.
    let document: &RawValue = starts_so.then(|| serde_json::from_slice(body).ok())??;
    let text = document.get();
    let mut written = String::with_capacity(text.len());
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let token = token(rest);
        at += token.len();
        match token {
            "[" | "{" => match on_one_line(rest) {
                Some((line, length)) => {
                    written.push_str(&line);
                    at += length - 1;
                }
                None => {
                    depth += 1;
                    written.push_str(token);
                    begin_line(&mut written, depth);
                }
            },
            "]" | "}" => {
                depth = depth.saturating_sub(1);
                begin_line(&mut written, depth);
                written.push_str(token);
            }
            "," => {
                written.push_str(token);
                begin_line(&mut written, depth);
            }
            ":" => written.push_str(": "),
            blank if blank.trim().is_empty() => {}
            value => written.push_str(value),
        }
    }
    Some(written)
}

fn begin_line(written: &mut String, depth: usize) {
    written.push('\n');
    written.push_str(&"  ".repeat(depth));
}

/// The first token of a text that is not empty: one punctuation mark, a string, a run of white
/// space, or a run of anything else.
fn token(text: &str) -> &str {
    let bytes = text.as_bytes();
    let run = |is_in: fn(&u8) -> bool| bytes.iter().take_while(|byte| is_in(byte)).count();
    let length = match bytes.first() {
        Some(b'"') => string(bytes),
        Some(byte) if is_punctuation(byte) => 1,
        Some(byte) if byte.is_ascii_whitespace() => run(u8::is_ascii_whitespace),
        _ => run(|byte| !is_punctuation(byte) && !byte.is_ascii_whitespace() && *byte != b'"'),
    };
    text.get(..length).unwrap_or(text)
}

fn is_punctuation(byte: &u8) -> bool {
    matches!(byte, b'[' | b']' | b'{' | b'}' | b',' | b':')
}

/// The length of the string at the beginning, with its quotation marks.
fn string(bytes: &[u8]) -> usize {
    let mut escaped = false;
    let end = bytes.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(bytes.len(), |end| end + 2)
}

/// The array or object at the beginning on one line, and its length in `text`, when it is short
/// and holds no other.
fn on_one_line(text: &str) -> Option<(String, usize)> {
    let mut line = String::new();
    let mut at = 0;
    while line.len() <= SHORT {
        let token = token(text.get(at..).filter(|rest| !rest.is_empty())?);
        at += token.len();
        match token {
            "[" | "{" if !line.is_empty() => return None,
            "]" | "}" => {
                line.push_str(token);
                return (line.len() <= SHORT).then_some((line, at));
            }
            "," => line.push_str(", "),
            ":" => line.push_str(": "),
            blank if blank.trim().is_empty() => {}
            value => line.push_str(value),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_parts_stay_on_a_line() {
        let body = br#"[ 2, ["ping", "-j"], 1795478140.000, "PONG, [\"x\\" ]"#;
        let expected =
            "[\n  2,\n  [\"ping\", \"-j\"],\n  1795478140.000,\n  \"PONG, [\\\"x\\\\\"\n]";
        assert_eq!(indented(body).as_deref(), Some(expected));
        assert_eq!(indented(b"[]").as_deref(), Some("[]"));
        assert_eq!(indented(b"{\"a\":{}}").as_deref(), Some("{\n  \"a\": {}\n}"));
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        for body in [&b"PONG 1 1.0"[..], b"[ 2, [\"ban.list\"", b"", b"12", b"[1] 2", b"[\xff]"] {
            assert_eq!(indented(body), None);
        }
        assert_eq!(indented("[".repeat(100_000).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_changes(text in r#"[\[\]{},:"a1\\ ]{0,40}"#) {
            let list = format!("[{}]", serde_json::to_string(&[&text, &text]).unwrap());
            for body in [text, list] {
                if let Some(shown) = indented(body.as_bytes()) {
                    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
                    prop_assert_eq!(value(&shown), value(&body));
                }
            }
        }
    }
}
