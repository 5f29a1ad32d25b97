//! Arguments as bytes, spelt so that every version reads them back the same.

/// An argument that the protocol cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// varnishd ends an argument at a zero byte, whether written or escaped.
    #[error("an argument cannot hold a zero byte")]
    Zero,
}

/// A line that varnishd answers with status 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A backslash with something behind it that is no escape.
    #[error("invalid backslash sequence at byte {at}")]
    Backslash {
        /// Where, counted from 0.
        at: usize,
    },
    /// A quoted word without its end.
    #[error("a quotation mark at byte {at} is never closed")]
    Unclosed {
        /// Where, counted from 0.
        at: usize,
    },
    /// A quotation mark within a word, or something glued to the end of a quoted one.
    #[error("a quotation mark within a word, at byte {at}")]
    Glued {
        /// Where, counted from 0.
        at: usize,
    },
    /// More than one line, or a zero byte, which would end it early.
    #[error("a line end or a zero byte within the line, at byte {at}")]
    Break {
        /// Where, counted from 0.
        at: usize,
    },
}

/// Appends `argument` to `line`, spelt so that varnishd 6.0 to 9.0 reads back these bytes.
///
/// No quotation marks, because varnishd 7.0 to 7.4 refuses two quoted arguments in a row; escapes
/// are valid outside quotes too, and `\xHH` with two digits is read alike by all versions. Only the
/// empty argument needs quotes. Printable ASCII stays as it is, so a line remains readable.
///
/// A line written so holds one word more, and never a second line.
///
/// # Errors
/// [`QuoteError::Zero`], with nothing appended.
pub fn quote(argument: &[u8], line: &mut Vec<u8>) -> Result<(), QuoteError> {
    if argument.contains(&0) {
        return Err(QuoteError::Zero);
    }
    if argument.is_empty() {
        line.extend_from_slice(b"\"\"");
        return Ok(());
    }
    for &byte in argument {
        match byte {
            b'"' => line.extend_from_slice(b"\\\""),
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x21..=0x7e => line.push(byte),
            _ => {
                line.extend_from_slice(b"\\x");
                let mut digits = [0; 2];
                // Two digits always fit.
                if hex::encode_to_slice([byte], &mut digits).is_ok() {
                    line.extend_from_slice(&digits);
                }
            }
        }
    }
    Ok(())
}

/// Splits a line into its words as varnishd 7.5 and later does (varnish-cli(7), "Syntax").
///
/// Words are separated by white space. One that begins with `"` runs to the next `"`; inside and
/// outside quotes `\n \r \t \" \\`, `\` with one to three octal digits, and `\xHH` are escapes.
///
/// # Errors
/// [`SplitError`] where varnishd would answer with status 100, and for an escaped zero byte, at
/// which it would silently drop the rest of the word.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&b| is_blank(b)) {
            at += 1;
        }
        let Some(&first) = line.get(at) else { return Ok(words) };
        let opened = (first == b'"').then_some(at);
        if opened.is_some() {
            at += 1;
        }
        let mut word = Vec::new();
        loop {
            match (line.get(at).copied(), opened) {
                (None, Some(at)) => return Err(SplitError::Unclosed { at }),
                (None, None) => break,
                (Some(b'\n' | b'\r' | 0), _) => return Err(SplitError::Break { at }),
                (Some(b'"'), Some(_)) => {
                    at += 1;
                    if line.get(at).is_some_and(|&b| !is_blank(b)) {
                        return Err(SplitError::Glued { at });
                    }
                    break;
                }
                (Some(b'"'), None) => return Err(SplitError::Glued { at }),
                (Some(b'\\'), _) => {
                    let rest = line.get(at + 1..).unwrap_or_default();
                    let (byte, length) = escape(rest).ok_or(SplitError::Backslash { at })?;
                    if byte == 0 {
                        return Err(SplitError::Break { at });
                    }
                    word.push(byte);
                    at += 1 + length;
                }
                (Some(byte), None) if is_blank(byte) => break,
                (Some(byte), _) => {
                    word.push(byte);
                    at += 1;
                }
            }
        }
        words.push(word);
    }
}

/// The byte that an escape stands for, and how many bytes follow its backslash.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    let byte = match rest.first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'"' => b'"',
        b'\\' => b'\\',
        b'x' => {
            let mut byte = [0];
            hex::decode_to_slice(rest.get(1..3)?, &mut byte).ok()?;
            let [byte] = byte;
            return Some((byte, 3));
        }
        b'0'..=b'7' => {
            let digits = rest.iter().take(3).take_while(|b| (b'0'..=b'7').contains(b));
            let (mut value, mut length) = (0_u16, 0);
            for digit in digits {
                value = value * 8 + u16::from(digit - b'0');
                length += 1;
            }
            return u8::try_from(value).ok().map(|byte| (byte, length));
        }
        _ => return None,
    };
    Some((byte, 1))
}

/// What C's `isspace` takes for white space, without the line ends, which end a command.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(argument: &[u8]) -> String {
        let mut line = Vec::new();
        quote(argument, &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn leaves_alone_what_may_stand() {
        assert_eq!(quoted(b"^/a'b/#x;y$&&"), "^/a'b/#x;y$&&");
        assert_eq!(quoted(br"\.php$"), r"\\.php$");
        assert_eq!(quoted(b"say \"x\"\r\nstop"), r#"say\x20\"x\"\r\nstop"#);
        assert_eq!(quoted("ü\x0b".as_bytes()), r"\xc3\xbc\x0b");
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quote(b"a\0b", &mut Vec::new()), Err(QuoteError::Zero));
    }

    #[test]
    fn splits_as_varnishd_does() {
        let words = |line: &[u8]| {
            split(line).map(|words| {
                words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>()
            })
        };
        assert_eq!(
            words(b"  ban\treq.url ~ x "),
            Ok(["ban", "req.url", "~", "x"].map(String::from).into())
        );
        assert_eq!(
            words(br#""a b" "" \x41\1012"#),
            Ok(["a b", "", "AA2"].map(String::from).into())
        );
        assert_eq!(words(br"a\.b"), Err(SplitError::Backslash { at: 1 }));
        assert_eq!(words(br"\x4"), Err(SplitError::Backslash { at: 0 }));
        assert_eq!(words(br"a\"), Err(SplitError::Backslash { at: 1 }));
        assert_eq!(words(br"\777"), Err(SplitError::Backslash { at: 0 }));
        assert_eq!(words(br#"a "b"#), Err(SplitError::Unclosed { at: 2 }));
        assert_eq!(words(br#"a"b"#), Err(SplitError::Glued { at: 1 }));
        assert_eq!(words(br#""a""b""#), Err(SplitError::Glued { at: 3 }));
        assert_eq!(words(b"a\nb"), Err(SplitError::Break { at: 1 }));
        assert_eq!(words(br"a\x00b"), Err(SplitError::Break { at: 1 }));
    }

    proptest! {
        #[test]
        fn quote_and_split_are_inverse(
            words in proptest::collection::vec(proptest::collection::vec(1_u8.., 0..20), 0..5),
        ) {
            let mut line = Vec::new();
            for word in &words {
                quote(word, &mut line).unwrap();
                line.push(b' ');
            }
            prop_assert!(line.iter().all(|b| (0x20..0x7f).contains(b)), "one line of ASCII");
            prop_assert_eq!(split(&line), Ok(words));
        }

        #[test]
        fn any_line_is_split_or_refused(line: Vec<u8>) {
            let _ = split(&line);
        }
    }
}
