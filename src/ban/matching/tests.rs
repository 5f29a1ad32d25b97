use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::ban::parse;

/// What a ban is tested against, with only what a test is about filled in.
#[derive(Clone)]
struct Case {
    url: &'static [u8],
    sent: http::HeaderMap,
    status: u16,
    got: http::HeaderMap,
    times: Times,
    vantage: Vantage,
    version: Option<ServerVersion>,
}

fn headers(lines: &[(&str, &[u8])]) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    map
}

/// As varnishd 7.1 sees it.
fn inside() -> Case {
    Case {
        url: b"/a.html?x=1",
        sent: headers(&[]),
        status: 200,
        got: headers(&[]),
        times: Times::default(),
        vantage: Vantage::Varnish,
        version: Some(ServerVersion::new(7, 1)),
    }
}

/// As a client of a 7.1 sees it.
fn outside() -> Case {
    Case { vantage: Vantage::Client, ..inside() }
}

impl Case {
    fn judge(&self, ban: impl AsRef<[u8]>) -> Judgement {
        let ban = parse(ban.as_ref()).unwrap();
        let request = Request { url: self.url, headers: &self.sent, vantage: self.vantage };
        let object = Object {
            status: self.status,
            headers: &self.got,
            vantage: self.vantage,
            times: self.times,
        };
        Matcher::new(&ban, self.version).judge(&request, &object)
    }

    #[track_caller]
    fn check(&self, table: &[(&str, &str)]) {
        for (ban, expected) in table {
            let got = match self.judge(ban) {
                Judgement::Matches => "matches",
                Judgement::Misses { .. } => "misses",
                Judgement::Unknown { why } => why.reason.label(),
            };
            assert_eq!(got, *expected, "{ban}");
        }
    }

    #[track_caller]
    fn says(&self, ban: impl AsRef<[u8]>, expected: &str) {
        let said = match self.judge(ban) {
            Judgement::Matches => String::new(),
            Judgement::Misses { condition } => condition.to_string(),
            Judgement::Unknown { why } => why.to_string(),
        };
        assert_eq!(said, expected);
    }
}

#[test]
fn urls() {
    inside().check(&[
        ("req.url == /a.html?x=1", "matches"),
        ("req.url == /a.html", "misses"),
        ("req.url == /A.html?x=1", "misses"),
        ("req.url != /a.html", "matches"),
        ("req.url != /a.html?x=1", "misses"),
        ("req.url ~ html", "matches"),
        ("req.url ~ ^html", "misses"),
        ("req.url ~ HTML", "misses"),
        ("req.url ~ (?i)HTML", "matches"),
        ("req.url !~ html", "misses"),
        ("req.url !~ ^html", "matches"),
    ]);
    Case { url: b"/\xff", ..inside() }.check(&[(r"req.url ~ ^/\xff$", "matches")]);
}

#[test]
fn headers_of_requests_and_objects() {
    let lines = headers(&[("X-A", b"1"), ("x-a", b"2"), ("x-empty", b""), ("x-raw", b"a\xffb")]);
    let case = Case { sent: lines.clone(), got: lines, ..inside() };
    for whose in ["req", "obj"] {
        for (rest, expected) in [
            ("X-a == 1", "matches"),
            ("x-A == 2", "misses"),
            ("x-a ~ 2", "misses"),
            ("x-a != 2", "matches"),
            ("x-a !~ 2", "matches"),
            ("x-empty ~ ^$", "matches"),
            ("x-empty ~ .", "misses"),
            ("x-empty !~ .", "matches"),
            ("x-raw ~ ^a.b$", "matches"),
            ("x-none == 1", "misses"),
            ("x-none ~ ^$", "misses"),
            ("x-none != 1", "matches"),
            ("x-none !~ 1", "misses"),
        ] {
            case.check(&[(&format!("{whose}.http.{rest}"), expected)]);
        }
        let ban = [whose.as_bytes(), b".http.x-raw == a\xffb"].concat();
        assert_eq!(case.judge(ban), Judgement::Matches);
    }
}

#[test]
fn a_missing_header_depends_on_the_version() {
    let at = |version| Case { version, ..inside() };
    let ban = "req.http.x !~ 1";
    at(Some(ServerVersion::new(6, 6))).check(&[(ban, "matches")]);
    at(Some(ServerVersion::new(7, 0))).check(&[(ban, "misses")]);
    at(None).check(&[(ban, "differs_by_version"), ("req.http.x != 1", "matches")]);
}

#[test]
fn what_vcls_often_set_on_delivery_need_not_be_the_objects() {
    for (name, expected) in [("cache-control", "changed_on_delivery"), ("x-kind", "misses")] {
        let seen = Case { got: headers(&[(name, b"no-store")]), ..outside() };
        seen.check(&[(&format!("obj.http.{name} ~ max-age"), expected)]);
        seen.check(&[(&format!("obj.http.{name} == no-store"), "matches")]);
    }
}

#[test]
fn lines_that_varnish_joins() {
    let twice = |name| headers(&[(name, b"a"), (name, b"b")]);
    let sent = |name| Case { sent: twice(name), ..inside() };
    let got = |name| Case { got: twice(name), ..inside() };
    sent("cache-control").check(&[(r"req.http.cache-control ~ ^a,\sb$", "matches")]);
    sent("x-forwarded-for").check(&[(r"req.http.x-forwarded-for ~ ^a,\sb$", "matches")]);
    sent("cookie").check(&[("req.http.cookie == a", "matches")]);
    got("cache-control").check(&[(r"obj.http.cache-control ~ ^a,\sb$", "matches")]);
    got("vary").check(&[(r"obj.http.vary ~ ^a,\sb$", "matches")]);
    got("set-cookie").check(&[("obj.http.set-cookie == a", "matches")]);
}

#[test]
fn the_status_is_text() {
    Case { status: 404, ..outside() }.check(&[
        ("obj.status == 404", "matches"),
        ("obj.status != 404", "misses"),
        ("obj.status ~ ^4", "matches"),
        ("obj.status !~ ^4", "misses"),
        ("obj.status == 4", "misses"),
    ]);
    // What a client gets of an object that is 200.
    for status in [206, 304] {
        Case { status, ..outside() }.check(&[
            ("obj.status == 200", "changed_on_delivery"),
            ("obj.status ~ ^[23]0", "matches"),
            ("obj.status == 404", "misses"),
        ]);
        Case { status, ..inside() }.check(&[("obj.status == 200", "misses")]);
    }
}

#[test]
fn durations() {
    let times = Times {
        age: Some(Seconds::between(50.0, 60.0)),
        ttl: Some(Seconds::between(-5.0, -1.0)),
        grace: Some(Seconds::exactly(10.0)),
        keep: Some(Seconds::exactly(0.1)),
        last_hit: None,
    };
    Case { times, ..outside() }.check(&[
        ("obj.age > 49s", "matches"),
        ("obj.age > 1m", "misses"),
        ("obj.age >= 1m", "too_close"),
        ("obj.age < 1.5m", "matches"),
        ("obj.age <= 50s", "too_close"),
        ("obj.age <= 49999ms", "misses"),
        ("obj.ttl < 0s", "matches"),
        ("obj.ttl > -10s", "matches"),
        ("obj.ttl >= 0s", "misses"),
        ("obj.grace == 10s", "matches"),
        ("obj.grace == 10000ms", "matches"),
        ("obj.grace != 10s", "misses"),
        ("obj.grace >= 10s", "matches"),
        ("obj.grace > 10s", "misses"),
        // Single precision.
        ("obj.keep == 100ms", "misses"),
        ("obj.keep > 0.1s", "matches"),
        ("obj.last_hit > 1s", "not_visible"),
        ("obj.hfm == 1", "not_visible"),
        ("obj.uncacheable == 1", "not_visible"),
        // What runs is never exactly anything, known or not.
        ("obj.age == 55s", "misses"),
        ("obj.ttl != 1s", "matches"),
        ("obj.last_hit == 1s", "misses"),
    ]);
    outside().check(&[
        ("obj.age > 1s", "not_visible"),
        ("obj.ttl > 1s", "not_visible"),
        ("obj.grace > 1s", "not_visible"),
        ("obj.keep == 1s", "not_visible"),
        ("obj.age == 1s", "misses"),
    ]);
}

#[test]
fn a_certain_miss_goes_before_a_doubt() {
    let miss = |judgement| match judgement {
        Judgement::Misses { condition } => Some(condition.index),
        _ => None,
    };
    let case = outside();
    assert_eq!(miss(case.judge("obj.ttl > 1s && obj.status == 404 && req.url == /b")), Some(1));
    let Judgement::Unknown { why } = case.judge("req.url ~ . && obj.ttl > 1s && obj.http.x == 1")
    else {
        panic!();
    };
    assert_eq!((why.index, why.field), (1, Field::ObjectTtl));
}

#[test]
fn a_regex_beyond_its_limit_is_a_crash_unless_it_is_never_reached() {
    let endless =
        "/abababababababababababababababababababababababababababababababababababababababcx";
    let case = Case { url: endless.as_bytes(), ..outside() };
    case.check(&[
        ("req.url ~ ^/(a|b|ab)*c$ && obj.status == 404", "regex_limit"),
        ("obj.status == 404 && req.url ~ ^/(a|b|ab)*c$", "misses"),
        ("req.url ~ (", "regex"),
        ("req.url ~ ( && obj.status == 404", "misses"),
    ]);
}

#[test]
fn what_a_client_does_not_see_may_be_there() {
    let got = headers(&[("x-seen", b"1")]);
    let case = Case { got, ..outside() };
    case.check(&[
        ("obj.http.x-seen == 1", "matches"),
        ("obj.http.x-seen == 2", "misses"),
        ("obj.http.x-url == /a", "header_not_seen"),
        ("obj.http.x-url ~ .", "header_not_seen"),
        ("obj.http.x-url != /a", "header_not_seen"),
        ("obj.http.x-url !~ /a", "header_not_seen"),
        ("obj.http.x-url ~ . && obj.http.x-seen == 2", "misses"),
    ]);
    Case { vantage: Vantage::Varnish, ..case }.check(&[("obj.http.x-url == /a", "misses")]);
}

#[test]
fn headers_that_varnish_makes_on_delivery() {
    let got = headers(&[
        ("Age", b"5"),
        ("Accept-Ranges", b"bytes"),
        ("Connection", b"keep-alive"),
        ("Transfer-Encoding", b"chunked"),
        ("Content-Length", b"3"),
        ("Keep-Alive", b"5"),
        ("X-Varnish", b"7 6"),
        ("Via", b"1.1 varnish (Varnish/7.1)"),
    ]);
    let case = Case { got, ..outside() };
    for name in
        ["Age", "accept-ranges", "connection", "transfer-encoding", "upgrade", "x-varnish", "via"]
    {
        case.check(&[
            (&format!("obj.http.{name} ~ ."), "misses"),
            (&format!("obj.http.{name} != 1"), "matches"),
        ]);
    }
    for name in ["content-length", "keep-alive"] {
        case.check(&[(&format!("obj.http.{name} ~ ."), "changed_on_delivery")]);
    }
    for version in [None, Some(ServerVersion::new(7, 2))] {
        Case { version, ..case.clone() }.check(&[("obj.http.via ~ .", "changed_on_delivery")]);
    }
    // Behind another Varnish the first line is the object's.
    let got = headers(&[("X-Varnish", b"77 66"), ("X-Varnish", b"7 6")]);
    let two_tiers = Case { got, ..outside() };
    two_tiers
        .check(&[("obj.http.x-varnish ~ 77", "matches"), ("obj.http.x-varnish ~ ^7", "matches")]);
    two_tiers.check(&[("obj.http.x-varnish ~ ^6", "misses")]);
    outside().check(&[("obj.http.x-varnish ~ 7", "changed_on_delivery")]);
    let got = headers(&[("X-Varnish", b"77 66"), ("X-Vinyl", b"7 6")]);
    let mixed = Case { got, ..outside() };
    mixed.check(&[("obj.http.x-varnish ~ 77", "changed_on_delivery")]);
}

#[test]
fn packing_changes_tag_and_encoding() {
    let weak = Case { got: headers(&[("ETag", b"W/\"abc\"")]), ..outside() };
    weak.check(&[
        ("obj.http.etag == \"abc\"", "changed_on_delivery"),
        ("obj.http.etag == W/\"abc\"", "changed_on_delivery"),
        ("obj.http.etag ~ abc", "matches"),
        ("obj.http.etag == \"abcd\"", "misses"),
        ("obj.http.content-encoding == gzip", "header_not_seen"),
    ]);
    let got = headers(&[("ETag", b"\"abc\""), ("Content-Encoding", b"gzip")]);
    Case { got, ..outside() }.check(&[
        ("obj.http.etag == W/\"abc\"", "misses"),
        ("obj.http.etag == \"abc\"", "matches"),
        ("obj.http.content-encoding == gzip", "matches"),
    ]);
}

#[test]
fn headers_that_varnish_changes_on_arrival() {
    let host = Case { sent: headers(&[("Host", b"WWW.a.b")]), ..outside() };
    host.check(&[
        ("req.http.host == WWW.a.b", "changed_on_arrival"),
        ("req.http.host == www.a.b", "changed_on_arrival"),
        ("req.http.host ~ (?i)^www", "matches"),
        ("req.http.host == a.b", "misses"),
        ("req.http.x-forwarded-for ~ .", "changed_on_arrival"),
    ]);
    for (sent, is_gzip) in [
        ("gzip", true),
        ("br, x-gzip", true),
        ("identity, GZIP;q=0.001", true),
        ("deflate", false),
        ("gzip;q=0", false),
        ("gzip ; q=0.000", false),
        ("*", false),
    ] {
        let case = Case { sent: headers(&[("accept-encoding", sent.as_bytes())]), ..outside() };
        let gzip = match (is_gzip, sent) {
            (true, "gzip") => "matches",
            (true, _) => "changed_on_arrival",
            (false, _) => "misses",
        };
        case.check(&[("req.http.accept-encoding == gzip", gzip)]);
        let any = if is_gzip { "matches" } else { "changed_on_arrival" };
        case.check(&[("req.http.accept-encoding ~ .", any)]);
    }
}

#[test]
fn says_what_was_seen_and_what_was_wanted() {
    let sent = headers(&[("host", b"www.example.com")]);
    let times =
        Times { age: Some(Seconds::from_age(5, std::time::Duration::ZERO)), ..Times::default() };
    let case = Case { sent, times, ..outside() };
    for (ban, said) in [
        (
            "req.http.host == example.com",
            r#"req.http.host is "www.example.com" and not "example.com""#,
        ),
        (r"req.url ~ ^/b", r#"req.url is "/a.html?x=1", which does not match ^/b"#),
        (
            r"req.url !~ ^/a",
            r#"req.url is "/a.html?x=1", which matches ^/a, and the ban is for others"#,
        ),
        ("obj.status != 200", r#"obj.status is "200", and the ban is for others"#),
        ("req.http.x-no ~ .", "the request has no header x-no"),
        ("req.http.x-no !~ 1", "the request has no header x-no, and then !~ does not hold"),
        ("obj.http.age == 5", "the object has no header age"),
        ("obj.age > 1h", "obj.age is between 5 s and 6 s and not > 1h"),
        ("obj.age == 5s", "obj.age runs on and is never exactly 5s: use < or >"),
        (
            "obj.http.x-url == /a",
            "the response has no header x-url: either the object does not have it, or the VCL \
             removes it on delivery",
        ),
        ("obj.ttl > 1s", "obj.ttl cannot be seen from outside"),
    ] {
        case.says(ban, said);
    }
    let hostile = Case { sent: headers(&[("host", b"a\t\xff")]), ..inside() };
    hostile.says("req.http.host == b", r#"req.http.host is "a\t\xff" and not "b""#);
}

proptest! {
    #[test]
    fn no_ban_and_no_value_panics(
        field in prop::sample::select(vec!["req.url", "req.http.x", "obj.http.x", "obj.http.etag"]),
        operator in prop::sample::select(vec!["==", "!=", "~", "!~"]),
        argument in prop::collection::vec(0x21_u8..=0xff, 1..12),
        value in prop::collection::vec(0x20_u8..=0xff, 0..12),
    ) {
        let ban = [field.as_bytes(), operator.as_bytes(), &argument].join(&b' ');
        if let (Ok(ban), Ok(value)) = (parse(&ban), HeaderValue::from_bytes(&value)) {
            let mut map = http::HeaderMap::new();
            map.insert("x", value.clone());
            map.insert("etag", value.clone());
            for vantage in [Vantage::Client, Vantage::Varnish] {
                let request = Request { url: value.as_bytes(), headers: &map, vantage };
                let object = Object { status: 200, headers: &map, vantage, times: Times::default() };
                match Matcher::new(&ban, None).judge(&request, &object) {
                    Judgement::Matches => {}
                    Judgement::Misses { condition } => drop(condition.to_string()),
                    Judgement::Unknown { why } => drop(why.to_string()),
                }
            }
        }
    }
}
