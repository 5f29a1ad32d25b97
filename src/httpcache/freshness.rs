//! How old an answer is, and when to ask again.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, DATE, RETRY_AFTER};

use super::http_date;

/// The longest time that [`retry_after`] tells to wait: an hour. A peer that asks for more, by
/// mistake or not, must not end the watch.
pub const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(3_600);

/// `Age`: for how many seconds the answer has been in caches (RFC 9111 section 5.1).
///
/// As that section has it: of several values the first counts, and a value that is no
/// non-negative integer counts as none. One too large for 64 bits is the largest.
///
/// An age that the origin or a cache behind it sent is part of it, so it is no sign of a hit.
#[must_use]
pub fn age(headers: &HeaderMap) -> Option<u64> {
    let line = headers.get(AGE)?.as_bytes();
    delta_seconds(line.split(|&b| b == b',').next()?)
}

/// `Date`: when the answer was made, in seconds since the Unix epoch (RFC 9110 section 6.6.1).
#[must_use]
pub fn date(headers: &HeaderMap) -> Option<u64> {
    http_date(headers.get(DATE)?.as_bytes())
}

/// `Retry-After`: how long to leave the sender alone, at most [`RETRY_AFTER_LIMIT`] (RFC 9110
/// section 10.2.3).
///
/// A date is taken relative to the answer's own `Date`, so that the two clocks need not agree; it
/// says nothing without one. A date in the past is no wait at all.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(RETRY_AFTER)?.as_bytes();
    let seconds = match delta_seconds(line) {
        Some(seconds) => seconds,
        None => http_date(line)?.saturating_sub(date(headers)?),
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_LIMIT))
}

/// Digits and nothing else, blanks around them aside (RFC 9111 section 1.2.2).
fn delta_seconds(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn reads_the_first_age() {
        let age_of =
            |lines: &[&str]| age(&headers(&lines.iter().map(|&v| ("age", v)).collect::<Vec<_>>()));
        assert_eq!(age_of(&["0"]), Some(0));
        assert_eq!(age_of(&[" 31536000 "]), Some(31_536_000));
        assert_eq!(age_of(&["7, 9"]), Some(7));
        assert_eq!(age_of(&["7", "9"]), Some(7));
        assert_eq!(age_of(&["99999999999999999999999"]), Some(u64::MAX));
        for invalid in ["", "-1", "+1", "1.5", "1s", "0x10", "one", ", 5"] {
            assert_eq!(age_of(&[invalid]), None, "{invalid:?}");
        }
        assert_eq!(age_of(&[]), None);
        assert_eq!(age_of(&["x", "9"]), None, "only the first value counts, even an invalid one");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |lines: &[(&'static str, &str)]| retry_after(&headers(lines));
        assert_eq!(wait(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        assert_eq!(wait(&[("retry-after", "0")]), Some(Duration::ZERO));
        let now = ("date", "Tue, 15 Nov 1994 08:12:31 GMT");
        let soon = ("retry-after", "Tue, 15 Nov 1994 08:13:01 GMT");
        assert_eq!(wait(&[now, soon]), Some(Duration::from_secs(30)));
        let past = ("retry-after", "Tue, 15 Nov 1994 08:00:00 GMT");
        assert_eq!(wait(&[now, past]), Some(Duration::ZERO));
        assert_eq!(wait(&[soon]), None, "a date says nothing without the sender's own");
        assert_eq!(wait(&[("retry-after", "soon")]), None);
    }

    #[test]
    fn retry_after_is_capped() {
        for long in ["86400", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            let lines = [("date", "Tue, 15 Nov 1994 08:12:31 GMT"), ("retry-after", long)];
            assert_eq!(retry_after(&headers(&lines)), Some(RETRY_AFTER_LIMIT), "{long}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut map = HeaderMap::new();
                for name in [AGE, DATE, RETRY_AFTER] {
                    map.insert(name, value.clone());
                }
                let _ = (age(&map), date(&map), retry_after(&map));
            }
        }

        #[test]
        fn every_number_of_seconds_is_read(seconds: u64) {
            prop_assert_eq!(delta_seconds(seconds.to_string().as_bytes()), Some(seconds));
        }
    }
}
