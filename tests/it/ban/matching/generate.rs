//! Made-up objects, requests and bans.

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::origin::gzip;

/// An object: what the origin answers, and what is then in the cache.
pub(super) struct Made {
    pub(super) url: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) status: u16,
    pub(super) stored: HeaderMap,
    /// In seconds, when it has just been fetched.
    pub(super) age: f64,
    pub(super) ttl: f64,
    pub(super) grace: f64,
    pub(super) keep: f64,
}

const STATUS: [u16; 5] = [200, 200, 203, 404, 410];
const PATHS: [&[u8]; 8] = [
    b"/index.html",
    b"/a.b/c+d",
    b"/A.B?x=1&y=2",
    b"/(a)[b]{c}",
    b"/caf\xc3\xa9",
    b"/\xff\xfe",
    b"/%C3%A9;v=1,2",
    b"/\"q\"'s'\\z",
];
const VALUES: [&[u8]; 17] = [
    b"",
    b"a",
    b"A",
    b"ab",
    b"a.b",
    b"axb",
    b"a+b",
    b"a b",
    b"a, b",
    b"(x)[y]{z}",
    b"\\d^$|",
    b"\"quoted\"",
    b"caf\xc3\xa9",
    b"\xff",
    b"x\xff\xfey",
    b"1",
    b"a rather long value, with many-many words; and=some punctuation / 0123456789 (repeated) a rather \
      long value",
];
const HOSTS: [&[u8]; 4] =
    [b"example.com", b"www.example.com", b"WWW.Example.com:80", b"examplexcom"];
const TAGS: [&[u8]; 4] = [b"\"abc\"", b"W/\"abc\"", b"\"\"", b"abc"];
const OBJECT_HEADERS: [&str; 4] = ["X-A", "x-b", "X-Strip", "Content-Type"];
const REQUEST_HEADERS: [&str; 4] = ["x-a", "X-B", "Cookie", "Accept-Language"];
const ENCODINGS: [&[u8]; 5] = [b"gzip", b"gzip", b"br", b"gzip;q=0", b"*"];
const AGES: [f64; 3] = [0.0, 5_000.0, 100_000.0];
const TTLS: [f64; 3] = [2_000.0, 90_000.0, 1_000_000.0];
const GIVEN: [(&str, f64); 5] =
    [("0s", 0.0), ("10s", 10.0), ("0.1s", 0.1), ("5400s", 5_400.0), ("604800s", 604_800.0)];
const DURATIONS: [&str; 14] = [
    "-1s", "0s", "100ms", "0.1s", "10s", "10.0s", "9999ms", "1h", "1.5h", "90m", "1d", "1w", "7d",
    "1y",
];
const REGEXES: [&[u8]; 36] = [
    b".",
    b"^a",
    b"a$",
    b"^$",
    b"^.{2}$",
    b"a.b",
    b"a\\.b",
    b"a\\+b",
    b"[[:upper:]]",
    b"(?i)^A",
    b"(?i)\xc3\x89",
    b"a|b",
    b"^(?!a)",
    b"(?<!a)b",
    b"(a)(?=\\.)",
    b"\\Qa.b\\E",
    b"\\Q(x)[y]\\E",
    b"\\xff",
    b"\xff",
    b"\\\xff",
    b"\\Qx\xff\\E.",
    b"[\xf0-\xff]",
    b"[^\\x00-\\x7f]",
    b"caf\xc3\xa9",
    b"caf.$",
    b"\\s",
    b"\\x20b",
    b"^\\d+$",
    b"\\w+\\z",
    b"\\bb",
    b"x*",
    b"([ab])\\1",
    b"\\\\d\\^",
    b"^/[^?]*$",
    b"\\?x=\\d",
    b"^2|^4.4$",
];

pub(super) fn object(rng: &mut Rng, number: usize) -> Made {
    let url =
        [PATHS[number % PATHS.len()], format!("#{number}").replace('#', "!").as_bytes()].concat();
    let status = pick(rng, &STATUS);
    let (age, left) = (pick(rng, &AGES), pick(rng, &TTLS));
    let ((grace_text, grace), (keep_text, keep)) = (pick(rng, &GIVEN), pick(rng, &GIVEN));
    let packed = rng.u8(..4) == 0;
    let body = if packed { gzip(b"some body") } else { b"some body".to_vec() };

    let mut stored: Vec<(&str, Vec<u8>)> = Vec::new();
    for name in OBJECT_HEADERS {
        for _ in 0..pick(rng, &[0, 1, 1, 2]) {
            stored.push((name, pick(rng, &VALUES).to_vec()));
        }
    }
    if rng.bool() {
        stored.push(("ETag", pick(rng, &TAGS).to_vec()));
    }
    if rng.u8(..4) == 0 {
        stored.push(("Via", b"1.1 inner".to_vec()));
        stored.push(("X-Varnish", b"77 66".to_vec()));
    }
    if packed {
        stored.push(("Content-Encoding", b"gzip".to_vec()));
    } else {
        for other in ["X-V1", "x-v2"].iter().take(rng.usize(..3)) {
            stored.push(("Vary", other.as_bytes().to_vec()));
        }
    }
    stored.push(("Cache-Control", format!("max-age={}", age + left).into_bytes()));
    if rng.bool() {
        stored.push(("Cache-Control", b"public".to_vec()));
    }
    stored.push(("Date", httpdate::fmt_http_date(std::time::SystemTime::now()).into_bytes()));
    stored.push(("X-Grace", grace_text.as_bytes().to_vec()));
    stored.push(("X-Keep", keep_text.as_bytes().to_vec()));
    stored.push(("Content-Length", body.len().to_string().into_bytes()));

    // What varnishd does not store.
    let mut sent = stored.clone();
    for (name, value) in [
        ("Accept-Ranges", "bytes"),
        ("Upgrade", "h2c"),
        ("Trailer", "x"),
        ("Proxy-Authenticate", "Basic"),
        ("Connection", "keep-alive"),
    ] {
        if rng.u8(..4) == 0 {
            sent.push((name, value.into()));
        }
    }
    if age > 0.0 {
        sent.push(("Age", age.to_string().into_bytes()));
    }
    if packed {
        // varnishd adds it to what it can unpack.
        stored.push(("Vary", b"Accept-Encoding".to_vec()));
    }
    let mut response = format!("HTTP/1.1 {status} Status\r\n").into_bytes();
    for (name, value) in &sent {
        response.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    response.extend([b"\r\n", body.as_slice()].concat());
    Made { url, response, status, stored: map(stored), age, ttl: left, grace, keep }
}

/// The headers of a request.
pub(super) fn request(rng: &mut Rng) -> HeaderMap {
    let mut headers = vec![("Host", pick(rng, &HOSTS).to_vec())];
    for name in REQUEST_HEADERS {
        for _ in 0..pick(rng, &[0, 1, 1, 2]) {
            headers.push((name, pick(rng, &VALUES).to_vec()));
        }
    }
    for _ in 0..pick(rng, &[0, 0, 1, 2]) {
        headers.push(("Cache-Control", pick(rng, &[&b"a"[..], b"no-cache"]).to_vec()));
    }
    for _ in 0..pick(rng, &[0, 0, 1, 2]) {
        headers.push(("X-Forwarded-For", pick(rng, &[&b"1"[..], b"192.0.2.1"]).to_vec()));
    }
    if rng.bool() {
        headers.push(("Accept-Encoding", pick(rng, &ENCODINGS).to_vec()));
    }
    map(headers)
}

/// The text of a ban of one to three conditions.
pub(super) fn expression(rng: &mut Rng, objects: &[Made]) -> Vec<u8> {
    let count = pick(rng, &[1, 1, 2, 3]);
    let conditions: Vec<Vec<u8>> = (0..count).map(|_| condition(rng, objects)).collect();
    conditions.join(&b" && "[..])
}

fn condition(rng: &mut Rng, objects: &[Made]) -> Vec<u8> {
    let made = &objects[rng.usize(..objects.len())];
    match rng.u8(..10) {
        0 | 1 => text(rng, "req.url", Some(&made.url)),
        2..=4 => {
            let sent = request(rng);
            let names = [
                &REQUEST_HEADERS[..],
                &["host", "X-Forwarded-For", "accept-encoding", "cache-control"],
            ];
            let name = pick(rng, &names.concat());
            text(rng, &format!("req.http.{name}"), sent.get(name).map(HeaderValue::as_bytes))
        }
        5 => text(rng, "obj.status", Some(made.status.to_string().as_bytes())),
        6..=8 => {
            let further = [
                "etag",
                "cache-control",
                "vary",
                "content-encoding",
                "content-length",
                "date",
                "via",
                "x-varnish",
                "age",
                "accept-ranges",
                "upgrade",
                "connection",
                "transfer-encoding",
                "x-none",
            ];
            let name = if rng.bool() { pick(rng, &OBJECT_HEADERS) } else { pick(rng, &further) };
            text(rng, &format!("obj.http.{name}"), made.stored.get(name).map(HeaderValue::as_bytes))
        }
        _ => {
            let field = pick(rng, &["obj.age", "obj.ttl", "obj.grace", "obj.keep"]);
            let operator = pick(rng, &["==", "!=", "<", "<=", ">", ">="]);
            format!("{field} {operator} {}", pick(rng, &DURATIONS)).into_bytes()
        }
    }
}

/// A condition on a text, with an argument that is often near to what the field holds.
fn text(rng: &mut Rng, field: &str, near: Option<&[u8]>) -> Vec<u8> {
    let operator = pick(rng, &["==", "!=", "~", "~", "!~"]);
    let value = match near {
        Some(near) if rng.u8(..3) > 0 => near,
        _ => pick(rng, &VALUES),
    };
    let argument = if operator.ends_with('~') {
        match rng.u8(..4) {
            0 if rng.bool() && !value.contains(&b' ') => [b"\\Q", value, b"\\E"].concat(),
            0 => escaped(value),
            1 => {
                let end = rng.usize(..=value.len());
                let begin = if rng.bool() { &b"^"[..] } else { b"" };
                [begin, &escaped(&value[..end])].concat()
            }
            _ => pick(rng, &REGEXES).to_vec(),
        }
    } else {
        value.to_vec()
    };
    [field.as_bytes(), operator.as_bytes(), &argument].join(&b' ')
}

/// A regex for these bytes, in which blanks are escapes.
fn escaped(value: &[u8]) -> Vec<u8> {
    let mut regex = Vec::new();
    for byte in value {
        match byte {
            b' ' => regex.extend(b"\\x20"),
            b if b.is_ascii_punctuation() => regex.extend([b'\\', *b]),
            b => regex.push(*b),
        }
    }
    regex
}

fn pick<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

fn map(headers: Vec<(&str, Vec<u8>)>) -> HeaderMap {
    let parsed = headers.into_iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_bytes(&value).unwrap())
    });
    let mut map = HeaderMap::new();
    for (name, value) in parsed {
        map.append(name, value);
    }
    map
}
