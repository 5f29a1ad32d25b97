//! Regexes so simple that nothing about them needs checking.

/// Whether the regex is a text, perhaps with `^`, `$`, `.` and escaped punctuation: it compiles,
/// takes no more than one pass for each start, and holds at least one literal other than `/`, so
/// it does not match every URL. Most bans of a batch are of this kind.
pub(in crate::ban) fn is_plain(pattern: &[u8]) -> bool {
    // PCRE2 links its compiled code with two bytes: beyond 64 KiB it has to be asked.
    if pattern.len() > 8_000 {
        return false;
    }
    let mut literal = false;
    let mut bytes = pattern.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(
                    b'.' | b'?' | b'+' | b'*' | b'-' | b'(' | b')' | b'[' | b']' | b'$' | b'^'
                    | b'|',
                ) => literal = true,
                Some(b'/') => {}
                _ => return false,
            },
            b'^' | b'$' | b'.' | b'/' => {}
            b'*' | b'+' | b'?' | b'{' | b'(' | b')' | b'[' | b'|' => return false,
            0x21..=0x7e => literal = true,
            _ => return false,
        }
    }
    literal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_the_usual_batch() {
        for plain in ["^/product/12$", "^/a\\.html$", "tag-17", "^/x\\?id=1&y=%20", "a.b"] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for other in ["/", "^/", ".", "^.$", "a*", "a\\d", "(a)", "a\\", "[a]", "\\/", ""] {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_regex_compiles(pattern in "[/a-z0-9.^$\\\\?*+()|\\[\\]{}_,%&=\"-]{1,12}") {
            if is_plain(pattern.as_bytes()) {
                let regex = pcre2::bytes::Regex::new(&pattern);
                prop_assert!(regex.is_ok(), "{pattern}");
                prop_assert_eq!(regex.unwrap().is_match(b"/").unwrap(), false, "{}", pattern);
            }
        }
    }
}
