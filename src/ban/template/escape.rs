//! Texts within a regex that match exactly themselves.

/// Adds a value, so that it matches itself at any place a [`Walker`](super::place::Walker) has
/// nothing against, and so that the argument stays one word that nobody takes for another: blanks,
/// control characters, quotes and `&` are written by their numbers.
pub(super) fn escape_value(value: &[u8], into: &mut Vec<u8>) {
    for &byte in value {
        match byte {
            0..=b' ' | 0x7f | b'&' | b'"' | b'\'' => {
                into.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
            }
            // `#` starts a comment under `(?x)`.
            b'\\' | b'^' | b'$' | b'.' | b'[' | b']' | b'|' | b'(' | b')' | b'?' | b'*' | b'+'
            | b'{' | b'}' | b'#' => into.extend_from_slice(&[b'\\', byte]),
            _ => into.push(byte),
        }
    }
}

/// Adds a text of the template's own that stood behind `==`.
pub(super) fn escape_literal(text: &[u8], into: &mut Vec<u8>) {
    escape_value(text, into);
}
