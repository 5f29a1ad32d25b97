//! What a field of text can hold, as far as that is known.

use std::borrow::Cow;

use http::HeaderMap;

use super::outcome::Reason;
use super::subject::{Object, Request, Vantage};
use crate::ban::version::ServerVersion;

/// A header's value, `None` where there is no such header.
type Value<'a> = Option<Cow<'a, [u8]>>;

/// The values that a field can have.
pub(super) struct Values<'a> {
    /// Each of them, the likeliest first; none where it can be anything.
    pub(super) possible: Vec<Value<'a>>,
    /// Why it is not certain which.
    pub(super) otherwise: Reason,
}

/// Headers that varnishd drops from every response that it stores: marked so in its table of
/// headers (include/tbl/http_headers.h) since 4.0, and tried on 7.1.1.
const NEVER_STORED: [&str; 9] = [
    "accept-ranges",
    "age",
    "connection",
    "content-range",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that many a VCL sets on delivery, for the sake of clients: what a response has of them
/// need not be the object's.
const OFTEN_SET_ON_DELIVERY: [&str; 5] =
    ["cache-control", "expires", "pragma", "server", "surrogate-control"];

pub(super) fn is_often_set_on_delivery(name: &str) -> bool {
    OFTEN_SET_ON_DELIVERY.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// From this release on `Via` is one list, to which Varnish adds.
const VIA_IS_A_LIST: ServerVersion = ServerVersion::new(7, 2);

pub(super) fn request_url<'a>(request: &Request<'a>) -> Values<'a> {
    Values::certain(Some(Cow::Borrowed(request.url)))
}

pub(super) fn request_header<'a>(request: &Request<'a>, name: &str) -> Values<'a> {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let sent = if is("cache-control") || is("x-forwarded-for") {
        joined(request.headers, name)
    } else {
        first(request.headers, name)
    };
    if request.vantage == Vantage::Varnish {
        return Values::certain(sent);
    }
    let possible = if is("x-forwarded-for") || is("expect") || is("via") {
        Vec::new()
    } else if is("accept-encoding") {
        let accepted = sent.as_deref().is_some_and(accepts_gzip);
        vec![accepted.then_some(Cow::Borrowed(b"gzip".as_slice())), sent]
    } else if is("host") {
        let lower = sent.as_deref().map(|host| Cow::Owned(host.to_ascii_lowercase()));
        vec![sent, lower]
    } else {
        vec![sent]
    };
    Values { possible, otherwise: Reason::ChangedOnArrival }
}

pub(super) fn object_status(object: &Object<'_>) -> Values<'static> {
    let text = |status: u16| Some(Cow::Owned(format!("{status:03}").into_bytes()));
    let possible = match (object.vantage, object.status) {
        (Vantage::Client, part @ (206 | 304)) => vec![text(200), text(part)],
        (_, status) => vec![text(status)],
    };
    Values { possible, otherwise: Reason::ChangedOnDelivery }
}

pub(super) fn object_header<'a>(
    object: &Object<'a>,
    name: &str,
    version: Option<ServerVersion>,
) -> Values<'a> {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let seen = if is("cache-control") || is("vary") {
        joined(object.headers, name)
    } else {
        first(object.headers, name)
    };
    if object.vantage == Vantage::Varnish {
        return Values::certain(seen);
    }
    if NEVER_STORED.iter().any(|never| is(never)) {
        return Values::certain(None);
    }
    let with_own_line =
        is("x-varnish") || is("x-vinyl") || is("via") && version.is_some_and(|v| v < VIA_IS_A_LIST);
    let changed = |possible| Values { possible, otherwise: Reason::ChangedOnDelivery };
    if with_own_line {
        let lines = object.headers.get_all(name).iter().count();
        // Where Varnish stands in front of Vinyl Cache, or the other way round, the one line may
        // be either's.
        let both = ["x-varnish", "x-vinyl"].iter().all(|name| object.headers.contains_key(*name));
        return changed(match lines {
            // Removed on delivery, and the object's with it.
            0 => Vec::new(),
            _ if both && !is("via") => Vec::new(),
            1 => vec![None],
            _ => vec![seen],
        });
    }
    if is("content-length") || is("keep-alive") || is("via") {
        return changed(Vec::new());
    }
    let Some(seen) = seen else {
        return Values { possible: Vec::new(), otherwise: Reason::HeaderNotSeen };
    };
    if is("etag")
        && let Some(strong) = strong_form(&seen)
    {
        return changed(vec![Some(seen), Some(strong)]);
    }
    Values::certain(Some(seen))
}

impl Values<'_> {
    fn certain(value: Value<'_>) -> Values<'_> {
        Values { possible: vec![value], otherwise: Reason::NotVisible }
    }
}

/// The first line of that name.
fn first<'a>(headers: &'a HeaderMap, name: &str) -> Value<'a> {
    headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
}

/// All lines of that name as one.
fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Value<'a> {
    let mut lines = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    let one = lines.next()?;
    let rest: Vec<&[u8]> = lines.collect();
    if rest.is_empty() {
        return Some(Cow::Borrowed(one));
    }
    Some(Cow::Owned([&[one], rest.as_slice()].concat().join(b", ".as_slice())))
}

/// Whether varnishd takes this `Accept-Encoding` to accept gzip: `gzip` or `x-gzip`, named, with
/// a weight above 0. `*` does not count.
fn accepts_gzip(value: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|entry| {
        let mut parts = entry.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let named = coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip");
        // Zero however it is written: `q=0`, `q=0.000`.
        let is_zero = |part: &[u8]| {
            let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|w| !w.is_empty() && w.iter().all(|b| matches!(b, b'0' | b'.')))
        };
        named && !parts.any(is_zero)
    })
}

/// The strong tag of which this is the weak form (RFC 9110 section 8.8.3).
fn strong_form<'a>(tag: &Cow<'a, [u8]>) -> Option<Cow<'a, [u8]>> {
    match tag {
        Cow::Borrowed(tag) => tag.strip_prefix(b"W/").map(Cow::Borrowed),
        Cow::Owned(tag) => tag.strip_prefix(b"W/").map(|tag| Cow::Owned(tag.to_vec())),
    }
}
