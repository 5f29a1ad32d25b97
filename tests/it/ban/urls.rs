//! `--url` hits that URL, on that host, and nothing that only looks like it.

use super::{ban, check_code, configuration, purgewatch, text};
use crate::support::varnish::{Options, Varnishd};

/// Answers every URL by itself, and keeps URL and host where a ban can look for them.
fn varnishd() -> Varnishd {
    let vcl = "backend none none;
        sub vcl_recv { return (hash); }
        sub vcl_backend_error {
            set beresp.status = 200; set beresp.ttl = 1h;
            set beresp.http.x-url = bereq.url; set beresp.http.x-host = bereq.http.host;
            return (deliver);
        }
        sub vcl_deliver { set resp.http.x-hits = obj.hits; }";
    Varnishd::start(Options { vcl: Some(vcl.to_owned()), ..Options::default() })
}

fn is_hit(varnishd: &Varnishd, host: &str, path: &str) -> bool {
    let answer = varnishd.get(host, path).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    !answer.contains("x-hits: 0\r\n")
}

const HOSTS: &[&str] = &[
    "www.example.com",
    "WWW.Example.COM",
    "www.example.com:80",
    "wwwxexample.com",
    "www.example.com:81",
];

const PATHS: &[&str] = &[
    "/a.b",
    "/axb",
    "/a.b/",
    "/a.b?",
    "/a.b?x=1",
    "/a.b?x=1&&y=2",
    "/a.b?x=1&y=2",
    "/A.b",
    "/%61.b",
    "/a+b",
    "/aab",
    "/a[1]b(2)*{3}",
    "/a1b2*3",
    "/\"quoted\"",
    "/'quoted'",
    "//a.b",
    "/x/../a.b",
    "/%C3%BC;p=1,2@z:~!",
];

/// Caches every path of every host, bans, and says which have to be fetched again.
fn fetched_again(varnishd: &Varnishd, arguments: &[&str]) -> Vec<(String, String)> {
    let all = || HOSTS.iter().flat_map(|host| PATHS.iter().map(move |path| (*host, *path)));
    for (host, path) in all() {
        varnishd.get(host, path);
        assert!(is_hit(varnishd, host, path), "{host}{path} is cached");
    }
    let output = ban(varnishd, arguments, "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    all()
        .filter(|(host, path)| !is_hit(varnishd, host, path))
        .map(|(host, path)| (host.to_owned(), path.to_owned()))
        .collect()
}

fn expected(paths: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let same_host = &HOSTS[..3];
    same_host
        .iter()
        .flat_map(|host| {
            let paths = PATHS.iter().filter(|path| paths(path));
            paths.map(move |path| ((*host).to_owned(), (*path).to_owned()))
        })
        .collect()
}

#[test]
fn exactly_that_url_is_fetched_again() {
    let varnishd = varnishd();
    let by_object = ["--url-header", "x-url", "--host-header", "x-host"];
    for path in
        ["/a.b", "/a.b?x=1&&y=2", "/a.b?", "/a[1]b(2)*{3}", "/\"quoted\"", "/%C3%BC;p=1,2@z:~!"]
    {
        assert!(PATHS.contains(&path));
        let url = format!("http://www.example.com{path}");
        for headers in [&[][..], &by_object] {
            let arguments = [&["--url", &url], headers].concat();
            assert_eq!(fetched_again(&varnishd, &arguments), expected(|p| p == path), "{url}");
        }
    }
}

#[test]
fn exactly_that_prefix_is_fetched_again() {
    let varnishd = varnishd();
    for prefix in ["/a.b", "/a.b?x=1&&", "/a[1]", "/"] {
        let url = format!("http://www.example.com{prefix}");
        let again = fetched_again(&varnishd, &["--prefix", "--url", &url]);
        assert_eq!(again, expected(|p| p.starts_with(prefix)), "{url}");
    }
}

#[test]
fn the_configuration_says_which_headers() {
    let varnishd = varnishd();
    let admin = varnishd.admin.to_string();
    let config = configuration(varnishd.dir(), &[("cache-01", &admin, varnishd.secret_file())]);
    let url = "http://www.example.com/news/1";
    let output = purgewatch(&["ban", "-c", &config, "--url", url], &[], "");
    check_code(&output, 0, "");
    assert_eq!(text(&output.stderr), "", "no field of the request, no warning");
    assert_eq!(
        varnishd.bans(),
        [r"obj.http.x-host ~ (?i)^www\.example\.com(:80)?\z && obj.http.x-url == /news/1"]
    );
    check_code(
        &purgewatch(&["ban", "-c", &config, "--url", "www.example.com/"], &[], ""),
        2,
        "http://",
    );
}
