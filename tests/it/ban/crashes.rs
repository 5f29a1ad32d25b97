//! What ends the cache process of a real varnishd is refused: each entry is banned here all the
//! same, and a request with a value made for it is seen to end the process.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{ban, check_code, text};
use crate::support::varnish::{Options, Varnishd};

/// A regex, and a value on which PCRE2 gives up: a start, a word so often, an end.
type Hostile = (&'static str, &'static str, &'static str, usize, &'static str);

const SLOW: &[Hostile] = &[
    (r"^/(a+)+$", "/", "a", 30, "!"),
    (r"^/(a|b|ab)*c$", "/", "ab", 24, "!c"),
    (r"^/(a*)*$", "/", "a", 30, "!"),
    (r"^/(a|a)*$", "/", "a", 30, "!"),
    (r"^/(a|aa)+$", "/", "a", 48, "!"),
    (r"^/(.*)*x$", "/", "x", 30, "!"),
    (r"^/(.*/)*x$", "/", "/", 30, "!x"),
    (r"(.*/)*x", "/", "/", 30, "!x"),
    (r"^/([a-z]+/?)*$", "/", "a", 30, "!"),
    (r"^/([a-z0-9]+-?)+\.html$", "/", "a", 30, "!.html/"),
    (r"^/(\w+\s?)*$", "/", "a", 30, "!"),
    (r"^/(\d+,?)*x$", "/", "1", 30, "!x"),
    (r"^/([^/]+/?)+\.php$", "/", "a", 30, "!$.php!"),
    (r"^(/?[a-z]+)*\.html$", "/", "a", 30, "!.html/"),
    (r"^([a-z0-9]+\.?)+$", "", "a", 30, "!"),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "", "a", 48, ""),
    (r"^/(?:a?){30}a{30}$", "/", "a", 30, ""),
    (r"^/(a|b|ab){1,40}c$", "/", "ab", 24, "!c"),
    (r"^/([a-z]{1,8}-?){1,30}!$", "/", "a", 30, "!c"),
    (r"^/(x+x+)+y$", "/", "x", 30, "!yx"),
    (r"^/(?:(?:a|b)+c?)*d$", "/", "a", 30, "!d"),
    (r"^/((ab)*)*c$", "/", "ab", 24, "!c"),
    (r"^/(?=(a+)+$)b?", "/", "a", 30, "!"),
    (r"^/(?!(a+)+b)", "/", "a", 30, ""),
    (r"^/.*.*.*x$", "/", "x", 480, "!"),
    (r".*.*.*xy", "/", "a", 480, "!y"),
    (r"^/.*/.*/.*/.*\.html$", "/", "/", 120, "!.html/"),
    (r"^/.*a.*a.*a.*b$", "/", "a", 240, "b-"),
    (r"^/\w+\d+\w+\d+\w+!$", "/", "1", 240, "!c"),
    (r"^/(\w*)-?(\w*)-?(\w*)-?(\w*)!$", "/", "a", 480, "!c"),
    (r"(a+)+b|x", "/", "a", 30, ""),
    (r"(?i)^/(A+)+$", "/", "a", 30, "!"),
    (r"^/(?:\w|[a-f]|\d)+$", "/", "a", 30, "!"),
    (r"^/(a+)+b++$", "/", "a", 30, "!b"),
    (r"^/(\Xa?)+!c$", "/", "a", 48, "!-c"),
];

/// Regexes on which PCRE2 returns an error for another reason.
const FAILING: &[Hostile] = &[
    (r"(*UTF)a", "/", "\u{e9}", 1, ""),
    (r"(*LIMIT_MATCH=1)^/aaab", "/", "aaab", 1, ""),
    (r"(*LIMIT_DEPTH=1)(a|b)*c", "/", "aaac", 1, ""),
    (r"(*LIMIT_HEAP=0)(a|b)*c", "/", "ab", 2_000, ""),
    (r"(?R)?a", "/", "a", 3, ""),
    (r"((?1)|a)", "/", "a", 3, ""),
];

/// Every object has one name, so that any request looks up the one there is.
fn varnishd() -> Varnishd {
    let vcl = "backend none none;
        sub vcl_recv { return (hash); }
        sub vcl_hash { hash_data(\"one\"); return (lookup); }
        sub vcl_backend_error {
            set beresp.status = 200; set beresp.ttl = 1h; set beresp.http.x = \"y\";
            return (deliver);
        }";
    Varnishd::start(Options { vcl: Some(vcl.to_owned()), ..Options::default() })
}

/// One GET of `path`, with `value` as a header; what came back, nothing when the process ended.
fn get(varnishd: &Varnishd, path: &[u8], value: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // The port is closed for a moment while the cache process is started again.
    let mut stream = loop {
        match TcpStream::connect(varnishd.http) {
            Ok(stream) => break stream,
            Err(fault) => assert!(Instant::now() < deadline, "{fault}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let request = [
        b"GET ",
        path,
        b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Value: ",
        value,
        b"\r\n\r\n",
    ];
    stream.write_all(&request.concat()).unwrap();
    let mut answer = Vec::new();
    // A reset is what the end of the process looks like.
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn cache_one_object(varnishd: &Varnishd) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let running = varnishd.adm(&["status"]).contains("running");
        if running && get(varnishd, b"/warm", b"w").starts_with(b"HTTP/1.1 200") {
            return;
        }
        assert!(Instant::now() < deadline, "the cache process does not come back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends the ban by `send`, then the request that it is bad for; the panic's text.
fn crash(varnishd: &Varnishd, hostile: &Hostile, send: impl Fn(&str)) -> String {
    let (pattern, start, word, count, end) = hostile;
    let value: Vec<u8> = format!("{start}{}{end}", word.repeat(*count))
        .chars()
        .map(|c| u8::try_from(c).unwrap())
        .collect();
    let on_url = start.starts_with('/');
    let (field, path, header) = if on_url {
        ("req.url", value.as_slice(), &b"v"[..])
    } else {
        ("req.http.x-value", &b"/"[..], value.as_slice())
    };
    cache_one_object(varnishd);
    send(&format!("{field} ~ {pattern}"));
    let answer = get(varnishd, path, header);
    assert!(answer.is_empty(), "{pattern} did nothing: {}", text(&answer));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = varnishd.varnishadm(&["panic.show"]);
        if shown.status.success() {
            varnishd.adm(&["panic.clear"]);
            return text(&shown.stdout);
        }
        assert!(Instant::now() < deadline, "{pattern}: no panic");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn slow_regexes_end_the_cache_process_and_are_refused() {
    assert!(SLOW.len() >= 25);
    let varnishd = varnishd();
    for hostile in SLOW {
        let panic = crash(&varnishd, hostile, |expression| {
            check_code(&ban(&varnishd, &[expression], ""), 2, "refused (slow-regex)");
            let meant = ["--allow-slow-regex", "--everything", expression];
            check_code(&ban(&varnishd, &meant, ""), 0, "");
        });
        assert!(panic.contains("ban_evaluate"), "{panic}");
    }
}

#[test]
fn regexes_that_pcre_fails_on_end_the_cache_process_and_are_refused() {
    let varnishd = varnishd();
    for hostile in FAILING {
        let panic = crash(&varnishd, hostile, |expression| {
            let refused = ban(&varnishd, &[expression], "");
            check_code(&refused, 2, "regex");
            let words: Vec<&str> = expression.split(' ').collect();
            varnishd.adm(&[&["ban"], &words[..]].concat());
        });
        assert!(panic.contains("ban_evaluate"), "{panic}");
    }
}

#[test]
fn header_names_that_end_the_cache_process_are_refused() {
    let varnishd = varnishd();
    cache_one_object(&varnishd);
    let longest = format!("obj.http.{} == x", "a".repeat(126));
    check_code(&ban(&varnishd, &[&longest], ""), 0, "");
    assert!(!get(&varnishd, b"/", b"v").is_empty());

    let too_long = format!("obj.http.{}", "a".repeat(127));
    let refused = ban(&varnishd, &[&format!("{too_long} == x")], "");
    check_code(&refused, 2, "refused (long-header-name)");
    let by_varnishadm = varnishd.varnishadm(&["ban", &too_long, "==", "x"]);
    assert!(!by_varnishadm.status.success());
    cache_one_object(&varnishd);
    let panic = varnishd.adm(&["panic.show"]);
    assert!(panic.contains("Assert"), "{panic}");
    varnishd.adm(&["panic.clear"]);

    let refused = ban(&varnishd, &["obj.http. ~ x"], "");
    check_code(&refused, 2, "refused (empty-header-name)");
    varnishd.adm(&["ban", "obj.http.", "~", "x"]);
    assert!(get(&varnishd, b"/", b"v").is_empty(), "a lookup ends the process");
}
