//! One answer, and how to show text that a peer wrote.

use std::fmt::{self, Write as _};

use bytes::Bytes;

use super::Status;

/// What varnishd answered to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it went.
    pub status: Status,
    /// The text, as bytes: varnishd hands on what it was given, in whatever encoding.
    pub body: Bytes,
}

impl Reply {
    /// Whether the command was carried out: status 200 or 201.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Whether the body was cut at the server's `cli_limit`, anywhere within a line. Failures are
    /// cut as well, and nothing tells.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.status == Status::TRUNCATED
    }

    /// The body for people: on one line, safe for a terminal, at most `limit` characters of it.
    #[must_use]
    pub fn excerpt(&self, limit: usize) -> Excerpt<'_> {
        Excerpt::new(&self.body, limit)
    }
}

/// Shows bytes that came from outside: in double quotes, on one line, at most `limit` characters
/// of them, with nothing in it that a terminal obeys.
///
/// Escape and control characters, the bidirectional controls of Unicode (which can make a text
/// read as another) and bytes that are no UTF-8 appear as `\xHH` or `\u{...}`; line ends as `\n`.
/// Blanks at the end are left out.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a> {
    bytes: &'a [u8],
    limit: usize,
    lines: bool,
}

impl<'a> Excerpt<'a> {
    /// At most `limit` characters of `bytes`, as one quoted line.
    #[must_use]
    pub const fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self { bytes, limit, lines: false }
    }

    /// The same without quotes, with line feeds and tabs as they are: for a body that is printed
    /// by itself.
    #[must_use]
    pub const fn lines(mut self) -> Self {
        self.lines = true;
        self
    }

    fn write_char(&self, f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
        match c {
            '\n' | '\t' if self.lines => f.write_char(c),
            '\n' => f.write_str("\\n"),
            '\t' => f.write_str("\\t"),
            '\r' => f.write_str("\\r"),
            '"' | '\\' if !self.lines => write!(f, "\\{c}"),
            c if u32::from(c) < 0x20 || c == '\x7f' => write!(f, "\\x{:02x}", u32::from(c)),
            c if c.is_control() || is_invisible(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
            c => f.write_char(c),
        }
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.lines {
            f.write_char('"')?;
        }
        let (mut left, mut cut) = (self.limit, false);
        'text: for chunk in self.bytes.trim_ascii_end().utf8_chunks() {
            let valid = chunk.valid().chars().map(Ok);
            for piece in valid.chain(chunk.invalid().iter().map(Err)) {
                cut = left == 0;
                if cut {
                    break 'text;
                }
                left -= 1;
                match piece {
                    Ok(c) => self.write_char(f, c)?,
                    Err(byte) => write!(f, "\\x{byte:02x}")?,
                }
            }
        }
        if !self.lines {
            f.write_char('"')?;
        }
        if cut { f.write_str("…") } else { Ok(()) }
    }
}

/// Characters that change how the text around them reads, or that cannot be seen.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8], limit: usize) -> String {
        Excerpt::new(bytes, limit).to_string()
    }

    #[test]
    fn nothing_in_it_reaches_the_terminal() {
        assert_eq!(shown(b"\x1b]0;owned\x07\x1b[2J", 99), r#""\x1b]0;owned\x07\x1b[2J""#);
        assert_eq!(shown("a\u{202e}b\u{9b}2J".as_bytes(), 99), r#""a\u{202e}b\u{9b}2J""#);
        assert_eq!(shown(b"\xff\r\nx", 99), r#""\xff\r\nx""#);
        assert_eq!(shown("grün \"x\" \\".as_bytes(), 99), r#""grün \"x\" \\""#);
    }

    #[test]
    fn keeps_to_its_length() {
        assert_eq!(shown(b"Unknown request.\nType\n", 99), r#""Unknown request.\nType""#);
        assert_eq!(shown(b"abcdef", 3), "\"abc\"…");
        assert_eq!(shown(b"abc", 3), "\"abc\"");
        assert_eq!(shown(b"", 3), "\"\"");
        assert_eq!(Excerpt::new(b"a\t\"b\"\n\x1bc\n", 9).lines().to_string(), "a\t\"b\"\n\\x1bc");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_shown(bytes: Vec<u8>, limit in 0_usize..100) {
            let text = shown(&bytes, limit);
            prop_assert!(!text.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert!(text.chars().count() <= limit * 10 + 3);
        }
    }
}
