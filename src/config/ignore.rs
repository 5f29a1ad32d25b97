//! What is blanked out of a body before it is compared.

use regex::bytes::{Regex, RegexBuilder};

/// Compiles one pattern of `ignore`.
///
/// A body is bytes in any encoding, so the pattern is one over bytes: `.` is any byte but a line
/// end, `\w` and `(?i)` know the letters of ASCII, and a letter beyond ASCII stands for the bytes
/// of its UTF-8.
///
/// # Errors
///
/// The text says what is wrong with the pattern: its syntax, its size once it is compiled, or
/// that it would leave nothing of any body.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(pattern).unicode(false).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            "this regular expression is too large once it is compiled".to_owned()
        }
        error => {
            // The parser draws the pattern over several lines; what is wrong stands on the last.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("expected a regular expression: {}", last.trim_start_matches("error: "))
        }
    })?;
    // Letters, digits and marks that have nothing to do with each other: only a pattern that
    // blanks out any body leaves nothing of them.
    let sample = &b"{\"name\": \"Zebra 42\", \"price\": 9.5}<p>&amp; more; yet others</p>"[..];
    if regex.replace_all(sample, &b""[..]).is_empty() {
        return Err(
            "this regular expression blanks out any body: nothing is left to compare".into()
        );
    }
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::compile;

    fn left(pattern: &str, body: &[u8]) -> Vec<u8> {
        compile(pattern).unwrap().replace_all(body, &b""[..]).into_owned()
    }

    #[test]
    fn a_pattern_is_over_bytes() {
        assert_eq!(left("(?i)NONCE=\\w+", b"a nonce=x1 b"), b"a  b");
        assert_eq!(left("t=.;", b"a t=\xff; b"), b"a  b");
        assert_eq!(left("größe=[0-9]+", "die größe=42!".as_bytes()), b"die !");
        assert_eq!(left("(?s)<!--.*?-->", b"a<!--\n\xfe-->b"), b"ab");
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (pattern, text) in [
            ("(", "unclosed group"),
            ("(?s).*", "nothing is left to compare"),
            ("(?:a{1000}){1000}", "too large"),
            (r"\p{Greek}", "Unicode"),
        ] {
            let fault = compile(pattern).unwrap_err();
            assert!(fault.contains(text), "{pattern}: {fault}");
        }
    }
}
