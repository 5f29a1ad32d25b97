//! The traces that a cache leaves in the answers it serves.

use http::HeaderMap;
use http::header::VIA;

/// What Varnish calls its header; Vinyl Cache 9.0 renamed it.
const TRANSACTION_HEADERS: [&str; 2] = ["x-varnish", "x-vinyl"];

/// Which cache an answer came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// Varnish Cache.
    Varnish,
    /// Vinyl Cache, as the project is called from 9.0 on.
    Vinyl,
}

/// The ids of `X-Varnish`, or of `X-Vinyl` as Vinyl Cache calls it: that of the request, and,
/// only on a hit, that of the fetch which made the object (varnishd(1) calls them VXID).
///
/// With several tiers each adds a line of its own, so the last one is the outer tier's, the one
/// that was asked. Ids start over when the cache process restarts, and are handed out in batches:
/// they are not ordered in time.
///
/// A line that does not consist of one or two numbers says nothing, and neither does any before
/// it.
#[must_use]
pub fn transaction(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (_, last) = transaction_lines(headers).last()?;
    ids(last)
}

/// What an answer tells of caches and proxies behind the one that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiers {
    /// How many there are: lines of `X-Varnish` and `X-Vinyl`, or entries of `Via`, without those
    /// of the one that was asked. A proxy that is no cache adds to `Via` as well.
    pub behind: usize,
    /// Whether the tier right behind had the answer in its cache: two ids on the last line but
    /// one. `None` where there is no such line.
    pub hit: Option<bool>,
}

/// The tiers behind the one that was asked, as far as they left traces.
#[must_use]
pub fn tiers(headers: &HeaderMap) -> Tiers {
    let lines: Vec<_> = transaction_lines(headers).collect();
    let entries =
        headers.get_all(VIA).iter().flat_map(|line| line.as_bytes().split(|&b| b == b','));
    let entries = entries.filter(|entry| !entry.trim_ascii().is_empty()).count();
    let hit = match lines.as_slice() {
        [.., (_, inner), _] => ids(inner).map(|(_, fetch)| fetch.is_some()),
        _ => None,
    };
    Tiers { behind: lines.len().max(entries).saturating_sub(1), hit }
}

fn ids(line: &[u8]) -> Option<(u64, Option<u64>)> {
    let mut ids = line.split(u8::is_ascii_whitespace).filter(|id| !id.is_empty());
    let number = |id: &[u8]| -> Option<u64> {
        let digits = id.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(id).ok().filter(|_| digits)?.parse().ok()
    };
    let request = number(ids.next()?)?;
    let fetch = match ids.next() {
        Some(id) => Some(number(id)?),
        None => None,
    };
    ids.next().is_none().then_some((request, fetch))
}

/// Whether the answer came through Varnish or Vinyl Cache, as far as it tells: by the header of
/// [`transaction`], whatever its value, or by a `Via` that names either (RFC 9110 section 7.6.3).
///
/// Where both occur the last line counts, which is the outer tier's. Before Varnish 7.2 each tier
/// adds a `Via` line of its own with the pseudonym `varnish`; from then on all are one list and
/// the pseudonym is the server's identity, with the product in the comment behind it.
#[must_use]
pub fn cache_kind(headers: &HeaderMap) -> Option<CacheKind> {
    if let Some((name, _)) = transaction_lines(headers).last() {
        return Some(if name == "x-vinyl" { CacheKind::Vinyl } else { CacheKind::Varnish });
    }
    headers
        .get_all(VIA)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .filter_map(|entry| {
            if names(entry, b"varnish") {
                Some(CacheKind::Varnish)
            } else if names(entry, b"vinyl") {
                Some(CacheKind::Vinyl)
            } else {
                None
            }
        })
        .next_back()
}

/// The lines of either header, in the order received as far as the map keeps it: a map keeps the
/// order of the names by their first line, and of the lines of each name.
fn transaction_lines(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers
        .iter()
        .filter(|(name, _)| TRANSACTION_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

fn names(entry: &[u8], product: &[u8]) -> bool {
    entry.windows(product.len()).any(|window| window.eq_ignore_ascii_case(product))
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
    fn one_id_is_no_hit_and_two_are_one() {
        let ids = |value| transaction(&headers(&[("x-varnish", value)]));
        assert_eq!(ids("32770"), Some((32_770, None)));
        assert_eq!(ids("32772 3"), Some((32_772, Some(3))));
        assert_eq!(ids("  5   3 "), Some((5, Some(3))));
        for invalid in ["", "x", "1 x", "1 2 3", "-1", "+1", "99999999999999999999"] {
            assert_eq!(ids(invalid), None, "{invalid:?}");
        }
        assert_eq!(transaction(&HeaderMap::new()), None);
    }

    #[test]
    fn the_last_line_is_the_outer_tier() {
        let tiers = headers(&[("x-varnish", "11 3"), ("x-varnish", "7")]);
        assert_eq!(transaction(&tiers), Some((7, None)));
        let mixed = headers(&[("x-varnish", "11"), ("x-vinyl", "7 3")]);
        assert_eq!(transaction(&mixed), Some((7, Some(3))));
        assert_eq!(cache_kind(&mixed), Some(CacheKind::Vinyl));
        let broken = headers(&[("x-varnish", "11 3"), ("x-varnish", "odd")]);
        assert_eq!(transaction(&broken), None, "an inner tier does not speak for the outer one");
    }

    #[test]
    fn tiers_behind_are_counted() {
        let one = headers(&[("x-varnish", "7 3"), ("via", "1.1 varnish (Varnish/7.1)")]);
        assert_eq!(tiers(&one), Tiers { behind: 0, hit: None });
        let two = headers(&[("x-varnish", "11 3"), ("x-varnish", "7 5")]);
        assert_eq!(tiers(&two), Tiers { behind: 1, hit: Some(true) });
        let missed = headers(&[("x-varnish", "11"), ("x-varnish", "7 5")]);
        assert_eq!(tiers(&missed), Tiers { behind: 1, hit: Some(false) });
        let list = headers(&[("x-varnish", "7"), ("via", "1.1 cdn, 1.1 cache-01 (Varnish/9.0)")]);
        assert_eq!(tiers(&list), Tiers { behind: 1, hit: None });
        assert_eq!(tiers(&HeaderMap::new()), Tiers::default());
    }

    #[test]
    fn via_names_the_cache() {
        let kind = |lines: &[&str]| {
            cache_kind(&headers(&lines.iter().map(|&v| ("via", v)).collect::<Vec<_>>()))
        };
        assert_eq!(kind(&["1.1 varnish (Varnish/7.1)"]), Some(CacheKind::Varnish));
        assert_eq!(kind(&["1.1 varnish-v4"]), Some(CacheKind::Varnish));
        assert_eq!(kind(&["1.1 proxy", "1.1 cache-01 (Varnish/9.0)"]), Some(CacheKind::Varnish));
        assert_eq!(kind(&["1.1 cache-01 (Vinyl-Cache/9.0)"]), Some(CacheKind::Vinyl));
        let tiers = "1.1 inner (Varnish/7.7), 1.1 outer (Vinyl-Cache/9.1)";
        assert_eq!(kind(&[tiers]), Some(CacheKind::Vinyl));
        assert_eq!(kind(&["1.1 squid", "HTTP/2 cdn"]), None);
        assert_eq!(kind(&[]), None);
    }

    #[test]
    fn the_header_is_a_sign_whatever_it_holds() {
        assert_eq!(cache_kind(&headers(&[("x-varnish", "odd")])), Some(CacheKind::Varnish));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut map = HeaderMap::new();
                for name in ["x-varnish", "x-vinyl", "via"] {
                    map.append(name, value.clone());
                }
                let _ = (transaction(&map), cache_kind(&map));
            }
        }

        #[test]
        fn ids_of_any_size_are_read(request: u64, fetch: u64) {
            let map = headers(&[("x-varnish", &format!("{request} {fetch}"))]);
            prop_assert_eq!(transaction(&map), Some((request, Some(fetch))));
        }
    }
}
