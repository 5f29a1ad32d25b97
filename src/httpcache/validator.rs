//! Validators: what an answer says about which version it is (RFC 9110 section 8.8).

use std::time::UNIX_EPOCH;

use http::HeaderMap;
use http::header::LAST_MODIFIED;

/// Endings that a server's compression filter adds to the opaque part of a tag, so that the
/// compressed form has a tag of its own: `"abc-gzip"` by Apache's `mod_deflate` (with
/// `DeflateAlterETag AddSuffix`, its default), `"abc-br"` by `mod_brotli`, `"abc--gzip"` by Jetty.
const CODING_ENDINGS: [&str; 3] = ["--gzip", "-gzip", "-br"];

/// An entity tag, borrowed from a header (RFC 9110 section 8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Whether it was marked weak: `W/"..."`. Varnish marks a tag so when it unpacks a body or
    /// works ESI into it.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: &'a str,
}

impl<'a> EntityTag<'a> {
    /// Reads the value of an `ETag`. One without quotes, which no server should send and many do,
    /// is taken as it is; `None` is for one that is empty or not text.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        if text.chars().any(char::is_control) {
            return None;
        }
        let (weak, rest) = match text.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
        match quoted {
            Some(opaque) => Some(Self { weak, opaque }),
            // An unquoted `W/` belongs to nothing but itself.
            None if rest.is_empty() => None,
            None => Some(Self { weak, opaque: rest }),
        }
    }

    /// The opaque part without the ending that a compression filter added: the same for the
    /// plain and the compressed form of one version.
    #[must_use]
    pub fn version(&self) -> &'a str {
        CODING_ENDINGS
            .iter()
            .find_map(|ending| self.opaque.strip_suffix(ending))
            .filter(|rest| !rest.is_empty())
            .unwrap_or(self.opaque)
    }

    /// Whether both name the same version: the weak comparison of RFC 9110 section 8.8.3.2, which
    /// leaves `W/` out of account, and the endings of compression filters as well.
    #[must_use]
    pub fn same_version(&self, other: &EntityTag<'_>) -> bool {
        self.version() == other.version()
    }
}

/// `Last-Modified`, in seconds since the Unix epoch (RFC 9110 section 8.8.2).
#[must_use]
pub fn last_modified(headers: &HeaderMap) -> Option<u64> {
    http_date(headers.get(LAST_MODIFIED)?.as_bytes())
}

/// Reads a date in any of the three forms of RFC 9110 section 5.6.7, in seconds since the Unix
/// epoch. None for a date before that.
#[must_use]
pub fn http_date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(value: &str) -> EntityTag<'_> {
        EntityTag::parse(value.as_bytes()).unwrap()
    }

    #[test]
    fn reads_strong_and_weak_tags() {
        assert_eq!(tag("\"abc\""), EntityTag { weak: false, opaque: "abc" });
        assert_eq!(tag(" W/\"abc\" "), EntityTag { weak: true, opaque: "abc" });
        assert_eq!(tag("\"\""), EntityTag { weak: false, opaque: "" });
        assert_eq!(tag("\"a\"b\"").opaque, "a\"b");
        assert_eq!(tag("abc"), EntityTag { weak: false, opaque: "abc" });
        assert_eq!(tag("W/abc"), EntityTag { weak: true, opaque: "abc" });
        assert_eq!(tag("\"abc"), EntityTag { weak: false, opaque: "\"abc" });
        for nothing in ["", "W/", " "] {
            assert_eq!(EntityTag::parse(nothing.as_bytes()), None, "{nothing:?}");
        }
        assert_eq!(EntityTag::parse(b"\"\xff\""), None);
        assert_eq!(EntityTag::parse(b"\"\x1b[31m\""), None);
    }

    #[test]
    fn weak_and_compressed_forms_are_the_same_version() {
        let same = |a, b| tag(a).same_version(&tag(b));
        assert!(same("\"abc\"", "W/\"abc\""));
        assert!(same("W/\"abc\"", "W/\"abc\""));
        assert!(same("\"abc-gzip\"", "\"abc\""));
        assert!(same("\"abc-br\"", "W/\"abc-gzip\""));
        assert!(same("\"abc--gzip\"", "\"abc\""));
        assert!(!same("\"abc\"", "\"abd\""));
        assert!(!same("\"ABC\"", "\"abc\""));
        assert!(!same("\"-gzip\"", "\"-br\""), "an ending alone is a tag of its own");
    }

    #[test]
    fn reads_every_form_of_a_date() {
        let seconds = Some(784_111_777);
        assert_eq!(http_date(b"Sun, 06 Nov 1994 08:49:37 GMT"), seconds);
        assert_eq!(http_date(b"Sunday, 06-Nov-94 08:49:37 GMT"), seconds);
        assert_eq!(http_date(b"Sun Nov  6 08:49:37 1994"), seconds);
        for wrong in ["", "0", "-1", "yesterday", "Sun, 06 Nov 1994 08:49:37 CET", "1994-11-06"] {
            assert_eq!(http_date(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = http_date(&value);
            if let Some(tag) = EntityTag::parse(&value) {
                prop_assert!(tag.same_version(&tag));
            }
        }

        #[test]
        fn nothing_that_looks_like_a_date_panics(text in "[A-Z][a-z]{2,5},? ?[0-9A-Za-z -]{1,12} [0-9:]{1,9} (GMT|[0-9]{4})") {
            let _ = http_date(text.as_bytes());
        }

        #[test]
        fn weakening_changes_no_version(opaque in "[!#-~]{0,20}") {
            let (strong, weak) = (format!("\"{opaque}\""), format!("W/\"{opaque}\""));
            prop_assert!(tag(&strong).same_version(&tag(&weak)));
        }
    }
}
