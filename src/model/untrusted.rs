//! Text from outside, shown to people.

use std::fmt;

/// A text from outside (a reply, a header, a file), made safe to show: characters that move the
/// cursor, change colours or reverse the direction of writing are printed as escapes. Line ends
/// are, too: one text stays one line.
#[derive(Debug, Clone, Copy)]
pub struct Untrusted<'a>(pub &'a str);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clean = 0;
        for (at, c) in self.0.char_indices().filter(|&(_, c)| is_unsafe(c)) {
            f.write_str(self.0.get(clean..at).unwrap_or_default())?;
            match c {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
            clean = at + c.len_utf8();
        }
        f.write_str(self.0.get(clean..).unwrap_or_default())
    }
}

/// Controls (C0, DEL, C1), line and paragraph separators, and the marks that change the direction
/// of writing (Unicode Standard Annex 9, section 2).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_cannot_steer_a_terminal() {
        let shown = |text: &str| Untrusted(text).to_string();
        assert_eq!(shown("plain äöü 日本"), "plain äöü 日本");
        assert_eq!(shown("a\x1b[2Jb\x07\u{9b}1m"), "a\\x1b[2Jb\\x07\\u{9b}1m");
        assert_eq!(shown("200 OK\r\n\tspoof"), "200 OK\\r\\n\\tspoof");
        assert_eq!(shown("\u{202e}gnp.exe\u{2028}"), "\\u{202e}gnp.exe\\u{2028}");
    }
}
