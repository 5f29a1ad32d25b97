//! For how long a cache may keep an answer.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES};

use super::{date, http_date};

/// For how long a shared cache may serve the answer: `s-maxage`, else `max-age`, else the time from
/// `Date` to `Expires` (RFC 9111 section 4.2.1). `None` where none of them is there: Varnish then
/// takes its parameter `default_ttl`.
///
/// Varnish takes its TTL from the same fields (vcl(7), `beresp.ttl`), unless the VCL sets another.
/// As in Varnish, an `Expires` that is no date has passed.
#[must_use]
pub fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let directives: Vec<_> = lines.flat_map(|line| line.as_bytes().split(|&b| b == b',')).collect();
    let seconds = |name: &[u8]| {
        directives.iter().find_map(|directive| {
            let (found, value) = directive.split_at_checked(name.len() + leading(directive))?;
            let is_it = found.trim_ascii_start().eq_ignore_ascii_case(name);
            let value = value.strip_prefix(b"=").filter(|_| is_it)?;
            number(value)
        })
    };
    if let Some(seconds) = seconds(b"s-maxage").or_else(|| seconds(b"max-age")) {
        return Some(Duration::from_secs(seconds));
    }
    let expires = headers.get(EXPIRES)?.as_bytes();
    let from = date(headers)?;
    Some(Duration::from_secs(http_date(expires).map_or(0, |until| until.saturating_sub(from))))
}

fn leading(text: &[u8]) -> usize {
    text.len() - text.trim_ascii_start().len()
}

/// A number, in quotes or not; one too large for 64 bits is the largest.
fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[(&'static str, &str)]) -> Option<u64> {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        lifetime(&map).map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn what_is_said_to_shared_caches_goes_first() {
        assert_eq!(of(&[("cache-control", "max-age=60")]), Some(60));
        assert_eq!(of(&[("cache-control", "public, Max-Age=\"60\" , s-maxage=5")]), Some(5));
        assert_eq!(of(&[("cache-control", "public"), ("cache-control", "max-age=7")]), Some(7));
        for nothing in ["no-cache", "max-age", "max-age=", "max-age=x", "xmax-age=5"] {
            assert_eq!(of(&[("cache-control", nothing)]), None, "{nothing}");
        }
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn expires_counts_from_the_answers_own_date() {
        let date = ("date", "Tue, 15 Nov 1994 08:12:31 GMT");
        let expires = ("expires", "Tue, 15 Nov 1994 08:13:01 GMT");
        assert_eq!(of(&[date, expires]), Some(30));
        assert_eq!(of(&[expires]), None);
        assert_eq!(of(&[date, ("expires", "0")]), Some(0));
        assert_eq!(of(&[date, expires, ("cache-control", "max-age=9")]), Some(9));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut map = HeaderMap::new();
                map.insert(CACHE_CONTROL, value.clone());
                map.insert(EXPIRES, value);
                let _ = lifetime(&map);
            }
        }
    }
}
