//! Each cause, made on a real varnishd, as the daemon names it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, purgewatch};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

const PATH: &str = "/api/";
const HOST: &str = "rec.example.com";

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

/// An origin whose `/api/` may be cached for an hour, and a varnishd in front of it.
fn stage() -> (Origin, Varnishd) {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    (origin, varnishd)
}

fn watch(varnishd: &Varnishd, origin: SocketAddr, further: &str) -> Daemon {
    let config = QUICK.to_owned() + &peers(varnishd, origin) + &endpoint("rec", PATH, further);
    Daemon::start(&config)
}

/// Waits until the daemon's API names this cause of the target in this state. Returns what it
/// rests on.
fn explained(daemon: &Daemon, state: &str, variant: &str, cause: &str) -> String {
    let mut found = None;
    daemon.wait(&format!("{variant} is {state} because of {cause}"), || {
        let Some((200, text)) = daemon.get("/api/v1/status") else { return false };
        let document: Value = serde_json::from_str(&text).unwrap();
        let targets = document["targets"].as_array().unwrap();
        let target = targets.iter().find(|t| t["variant"] == variant && t["state"] == state);
        found = target.filter(|target| target["cause"] == cause).map(|target| {
            let findings = target["findings"].as_array().unwrap().iter();
            let findings: Vec<_> = findings.map(|f| f.as_str().unwrap().to_owned()).collect();
            findings.join("\n")
        });
        found.is_some()
    });
    found.unwrap()
}

/// The object has to be older than what `Age` and a fetch leave open.
fn let_it_age() {
    thread::sleep(Duration::from_millis(3_500));
}

#[test]
fn never_purged() {
    let (origin, varnishd) = stage();
    let daemon = watch(&varnishd, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    for state in ["lagging", "stale"] {
        let findings = explained(&daemon, state, "default", "never_purged");
        assert!(findings.contains("the node took no ban since the origin changed"), "{findings}");
        assert!(
            findings.contains("purgewatch ban --url http://rec.example.com/api/"),
            "{findings}"
        );
    }
    // As a metric, all of the closed set, and one of them is it.
    let metrics = daemon.metrics();
    let causes = metrics.lines().filter(|line| line.starts_with("purgewatch_endpoint_cause{"));
    let causes: Vec<_> = causes.collect();
    assert_eq!(causes.len(), 8, "{causes:?}");
    let value = |cause: &str| daemon.metric("purgewatch_endpoint_cause", &[cause]);
    assert_eq!(value("cause=\"never_purged\""), Some(1.0));
    assert_eq!(causes.iter().filter(|line| line.ends_with(" 1")).count(), 1, "{causes:?}");
    // In the log, once.
    let log = daemon.log();
    let lines: Vec<_> = log.lines().filter(|l| l.contains("cause: never_purged: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(log.contains(" at least (cause found so far: never_purged): the node serves"), "{log}");
    // On the page.
    let (_, page) = daemon.get("/").unwrap();
    assert!(page.contains("<span class=\"state\">never_purged</span>"), "{page}");
    // A ban ends it, and the series with it.
    varnishd.adm(&["ban", "req.url", "==", PATH]);
    daemon.wait_for_state("rec", "fresh");
    assert!(!daemon.metrics().contains("purgewatch_endpoint_cause{"));
}

#[test]
fn a_purge_that_came_too_early_is_none() {
    let (origin, varnishd) = stage();
    let daemon = watch(&varnishd, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    varnishd.adm(&["ban", "req.url", "==", PATH]);
    let_it_age();
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    let findings = explained(&daemon, "stale", "default", "never_purged");
    assert!(findings.contains("came before the origin changed"), "{findings}");
}

#[test]
fn ban_missed_it() {
    let (origin, varnishd) = stage();
    let daemon = watch(&varnishd, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    varnishd.adm(&["ban", "req.http.host == www.example.com && req.url == /api/"]);
    let findings = explained(&daemon, "stale", "default", "ban_missed_it");
    assert!(
        findings.contains("req.http.host is \"rec.example.com\" and not \"www.example.com\""),
        "{findings}"
    );
}

#[test]
fn bans_of_the_daemons_own_canary_are_no_attempts() {
    let (origin, varnishd) = stage();
    origin.serve("/favicon.ico", cacheable("icon"));
    let keys = "canary = \"/favicon.ico\"\ncanary_interval = \"1s\"\nadmin_timeout";
    let peers = peers(&varnishd, origin.address).replace("admin_timeout", keys);
    let daemon = Daemon::start(&(QUICK.to_owned() + &peers + &endpoint("rec", PATH, "")));
    daemon.wait_for_state("rec", "fresh");
    daemon.wait("the canary is proven", || {
        daemon.metric("purgewatch_canary_up", &["cache-01"]) == Some(1.0)
    });
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    let findings = explained(&daemon, "stale", "default", "never_purged");
    assert!(findings.contains("meant for something else"), "{findings}");
    assert!(!daemon.log().contains("ban_missed_it"), "{}", daemon.log());
    // An attempt is seen among them all the same.
    varnishd.adm(&["ban", "req.http.host == www.example.com && req.url == /api/"]);
    let config = daemon.config();
    let (_, out, _) = run(&["check", "-c", config.to_str().unwrap(), "--explain"]);
    assert!(out.contains("www.example.com"), "{out}");
}

#[test]
fn bans_of_other_endpoints_are_no_attempts() {
    let (origin, varnishd) = stage();
    origin.serve("/news/", cacheable("news"));
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
        + &endpoint("rec", PATH, "")
        + &endpoint("news", "/news/", "");
    let daemon = Daemon::start(&config);
    daemon.wait_for_state("rec", "fresh");
    daemon.wait_for_state("news", "fresh");
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "lagging");
    let config = daemon.config();
    let config = config.to_str().unwrap();
    let (code, out, err) =
        run(&["ban", "-c", config, "--no-ledger", "--url", "http://rec.example.com/news/"]);
    assert_eq!(code, 0, "{out}{err}");
    let findings = explained(&daemon, "stale", "default", "never_purged");
    assert!(findings.contains("a ban that was meant for something else"), "{findings}");
}

/// varnishd forgets what a ban said when it is through with it. The daemon has read it before.
#[test]
fn bans_that_varnishd_has_forgotten_are_remembered() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let (ip, port) = (origin.address.ip(), origin.address.port());
    let vcl = format!(
        "backend default {{ .host = \"{ip}\"; .port = \"{port}\"; }}
         sub vcl_backend_response {{ set beresp.http.x-url = bereq.url; }}"
    );
    let arguments = ["-p", "ban_lurker_age=2"].map(str::to_owned).to_vec();
    let varnishd = Varnishd::start(Options { vcl: Some(vcl), arguments, ..Options::default() });
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
        + &endpoint("rec", PATH, "max_stale = \"9s\"")
        + &endpoint("news", "/news/", "");
    let daemon = Daemon::start(&config);
    daemon.wait_for_state("rec", "fresh");
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    varnishd.adm(&["ban", "obj.http.x-url == /news/"]);
    explained(&daemon, "lagging", "default", "never_purged");
    daemon.wait("the ban is worked off", || varnishd.bans().is_empty());
    let findings = explained(&daemon, "stale", "default", "never_purged");
    assert!(findings.contains("a ban that was meant for something else"), "{findings}");
}

#[test]
fn bans_on_headers_that_the_vcl_takes_away_are_judged_by_the_configuration() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let vcl = format!(
        "backend default {{ .host = \"{}\"; .port = \"{}\"; }}\n\
         sub vcl_backend_response {{ set beresp.http.x-url = bereq.url; \
         set beresp.http.x-host = bereq.http.host; }}\n\
         sub vcl_deliver {{ unset resp.http.x-url; unset resp.http.x-host; }}\n",
        origin.address.ip(),
        origin.address.port()
    );
    let varnishd = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    let headers = "ban_headers = { url = \"x-url\", host = \"x-host\" }";
    let daemon = watch(&varnishd, origin.address, headers);
    daemon.wait_for_state("rec", "fresh");
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    varnishd.adm(&["ban", "obj.http.x-url ~ ^/wrong/api/"]);
    let findings = explained(&daemon, "stale", "default", "ban_missed_it");
    assert!(findings.contains("obj.http.x-url is \"/api/\", which does not match"), "{findings}");
}

#[test]
fn raced_fill() {
    let (origin, varnishd) = stage();
    let daemon = watch(&varnishd, origin.address, "interval = \"5s\"");
    daemon.wait_for_state("rec", "fresh");
    // A slow fetch of the old version is under way, for a client, when the origin changes and the
    // ban comes.
    origin.serve(PATH, cacheable("one").after(Duration::from_secs(2)));
    varnishd.adm(&["ban", "req.url", "==", PATH]);
    thread::scope(|scope| {
        scope.spawn(|| varnishd.get(HOST, PATH));
        thread::sleep(Duration::from_secs(1));
        origin.serve(PATH, cacheable("two"));
        varnishd.adm(&["ban", "req.url", "~", "^/api"]);
    });
    assert!(varnishd.get(HOST, PATH).ends_with("one"), "the race was not won");
    let findings = explained(&daemon, "stale", "default", "raced_fill");
    assert!(findings.contains("that matches it: req.url ~ ^/api"), "{findings}");
}

#[test]
fn grace() {
    let backend = Origin::start();
    let old = Response::ok("one").header("Cache-Control", "max-age=2");
    backend.serve(PATH, old);
    let vcl = format!(
        "backend default {{ .host = \"{}\"; .port = \"{}\"; }}\n\
         sub vcl_backend_response {{ set beresp.grace = 1h; }}\n",
        backend.address.ip(),
        backend.address.port()
    );
    let varnishd = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    // The truth is at another address.
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let daemon = watch(&varnishd, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    varnishd.adm(&["backend.set_health", "boot.default", "sick"]);
    origin.serve(PATH, cacheable("two"));
    let findings = explained(&daemon, "stale", "default", "grace");
    assert!(findings.contains("boot.default"), "{findings}");
}

#[test]
fn variant_only() {
    let origin = Origin::start();
    let serve = |version: &'static str| {
        origin.route(PATH, move |request| {
            let language = request.header("accept-language").unwrap_or("en");
            cacheable(&format!("{version} {language}")).header("Vary", "Accept-Language")
        });
    };
    serve("one");
    let vcl = format!(
        "backend default {{ .host = \"{}\"; .port = \"{}\"; }}\n\
         sub vcl_recv {{ if (req.http.x-refresh) {{ set req.hash_always_miss = true; }} }}\n",
        origin.address.ip(),
        origin.address.port()
    );
    let varnishd = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    let variants = "variants = [{ name = \"de\", headers = { Accept-Language = \"de\" } }, \
                    { name = \"fr\", headers = { Accept-Language = \"fr\" } }]";
    let daemon = watch(&varnishd, origin.address, variants);
    daemon.wait("both are fresh", || {
        let fresh = |variant: &str| {
            let labels = [variant, "state=\"fresh\""];
            daemon.metric("purgewatch_endpoint_state", &labels) == Some(1.0)
        };
        fresh("variant=\"de\"") && fresh("variant=\"fr\"")
    });
    let_it_age();
    serve("two");
    explained(&daemon, "lagging", "de", "never_purged");
    refresh_variant(&varnishd, "fr");
    let findings = explained(&daemon, "stale", "de", "variant_only");
    assert!(findings.contains("this node followed: fr"), "{findings}");
}

/// Puts the new version of one variant into the cache, as a VCL does that refreshes on request.
fn refresh_variant(varnishd: &Varnishd, language: &str) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(varnishd.http).unwrap();
    write!(
        stream,
        "GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Language: {language}\r\n\
         Accept-Encoding: gzip\r\nX-Refresh: 1\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn upstream_by_a_backend_that_serves_old_content() {
    // The cache's backend is a replica that lags behind; the object expires and is fetched again.
    let replica = Origin::start();
    replica.serve(PATH, Response::ok("one").header("Cache-Control", "max-age=4"));
    let varnishd = Varnishd::in_front_of(replica.address);
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let daemon = watch(&varnishd, origin.address, "max_stale = \"9s\"");
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    explained(&daemon, "stale", "default", "upstream");
}

#[test]
fn upstream_by_a_cache_behind_that_was_not_purged() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let inner = Varnishd::in_front_of(origin.address);
    let outer = Varnishd::in_front_of(inner.http);
    let daemon = watch(&outer, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    let_it_age();
    origin.serve(PATH, cacheable("two"));
    outer.adm(&["ban", "req.url", "==", PATH]);
    let findings = explained(&daemon, "stale", "default", "upstream");
    assert!(findings.contains("another cache or proxy behind the node"), "{findings}");
}

#[test]
fn undetermined_without_an_admin_port() {
    let (origin, varnishd) = stage();
    let peers: String = peers(&varnishd, origin.address)
        .lines()
        .filter(|line| !line.starts_with("admin") && !line.starts_with("secret"))
        .map(|line| format!("{line}\n"))
        .collect();
    let daemon = Daemon::start(&(QUICK.to_owned() + &peers + &endpoint("rec", PATH, "")));
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    let findings = explained(&daemon, "stale", "default", "undetermined");
    assert!(findings.contains("no admin port of the node is configured"), "{findings}");
}

/// Runs the program: exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = purgewatch(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_check_shows_the_evidence() {
    let (origin, varnishd) = stage();
    let config = varnishd.dir().join("purgewatch.toml");
    let text = peers(&varnishd, origin.address) + &endpoint("rec", PATH, "");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let (code, out, err) = run(&["check", "-c", config, "--explain"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(!out.contains("cause"), "there is nothing to explain: {out}");

    origin.serve(PATH, cacheable("two").header("X-Only-New", "yes"));
    varnishd.adm(&["ban", "req.http.host == www.example.com && req.url == /api/"]);
    let (code, out, err) = run(&["check", "-c", config, "--explain"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("rec at cache-01: cause: ban_missed_it\n"), "{out}");
    for said in ["  - to do: ", "x-only-new", "x-varnish", "req.http.host == www.example.com"] {
        assert!(out.contains(said), "{said:?} is not in\n{out}");
    }
    let row = |name: &str| out.lines().find(|line| line.trim().starts_with(name)).unwrap();
    assert!(row("x-only-new").split_whitespace().eq(["x-only-new", "-", "yes"]), "{out}");

    let (code, out, _) = run(&["check", "-c", config, "--explain", "--output", "json"]);
    assert_eq!(code, 1);
    let document: Value = serde_json::from_str(&out).unwrap();
    let result = &document["results"][0];
    assert_eq!(result["cause"], "ban_missed_it");
    assert!(!result["findings"].as_array().unwrap().is_empty());
    let evidence = &result["evidence"];
    assert_eq!(evidence["origin_headers"]["x-only-new"][0], "yes");
    assert!(evidence["node_headers"]["x-only-new"].is_null());
    assert_eq!(evidence["bans"][0]["judged"], "misses");
    assert_eq!(evidence["bans_complete"], true);
    // Nobody asked for it.
    let (_, out, _) = run(&["check", "-c", config, "--output", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert!(document["results"][0]["cause"].is_null());
}

#[test]
fn a_check_whose_admin_port_is_closed_says_so() {
    let (origin, varnishd) = stage();
    let config = varnishd.dir().join("purgewatch.toml");
    let closed = crate::support::varnish::free_port("127.0.0.1");
    let text = peers(&varnishd, origin.address)
        .replace(&varnishd.admin.to_string(), &closed.to_string())
        + &endpoint("rec", PATH, "");
    std::fs::write(&config, text).unwrap();
    varnishd.get(HOST, PATH);
    let arguments = ["check", "-c", config.to_str().unwrap(), "--explain"];
    // The object is warm for the probe, too.
    assert_eq!(run(&arguments).0, 0);
    origin.serve(PATH, cacheable("two"));
    let (code, out, _) = run(&arguments);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("cause: undetermined") && out.contains("refused"), "{out}");
}

/// Who looks once does not see when the origin changed. A daemon does, and is asked.
#[test]
fn a_check_asks_the_daemon_when_the_origin_changed() {
    let (origin, varnishd) = stage();
    let text = QUICK.to_owned() + &peers(&varnishd, origin.address) + &endpoint("rec", PATH, "");
    let daemon = Daemon::start(&text);
    daemon.wait_for_state("rec", "fresh");
    let place = varnishd.dir().join("purgewatch.toml");
    let head = format!("[daemon]\nlisten = \"{}\"\nstate_dir = \"/nonexistent\"\n", daemon.http);
    std::fs::write(&place, head + &text).unwrap();
    let explained = || run(&["check", "-c", place.to_str().unwrap(), "--explain"]).1;

    // A ban that did its work, and a change much later that nobody banned.
    varnishd.adm(&["ban", &format!("req.url == {PATH}")]);
    assert!(varnishd.get(HOST, PATH).ends_with("one"));
    thread::sleep(Duration::from_secs(4));
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    let out = explained();
    assert!(out.contains("rec at cache-01: cause: never_purged"), "{out}");
    assert!(out.contains("the last ban that matches it came before the origin changed"), "{out}");

    drop(daemon);
    let out = explained();
    assert!(out.contains("rec at cache-01: cause: undetermined"), "{out}");
    assert!(out.contains("when it changed is not known here"), "{out}");
}

#[test]
fn a_wait_names_the_causes_of_the_laggards() {
    let (origin, varnishd) = stage();
    let config = varnishd.dir().join("purgewatch.toml");
    let text = peers(&varnishd, origin.address) + &endpoint("rec", PATH, "");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(run(&["wait", "-c", config]).0, 0);
    origin.serve(PATH, cacheable("two"));
    let (code, out, err) = run(&["wait", "-c", config, "--within", "2s"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("rec at cache-01: cause: never_purged"), "{out}");
    assert!(out.contains("  - the node took no ban since"), "{out}");
    assert!(!out.contains("HEADER"), "the evidence is for `check`: {out}");
    let (_, out, _) = run(&["wait", "-c", config, "--within", "2s", "--output", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["results"][0]["cause"], "never_purged");
}

#[test]
fn status_tells_what_the_daemon_knows() {
    let (origin, varnishd) = stage();
    let mut daemon = watch(&varnishd, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    let config = daemon.config();
    let by_config = ["status", "-c", config.to_str().unwrap()];
    let (code, out, err) = run(&by_config);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("rec") && out.contains("cache-01") && out.contains("1 fresh"), "{out}");

    let_it_age();
    origin.serve(PATH, cacheable("two"));
    explained(&daemon, "stale", "default", "never_purged");
    let (code, out, _) = run(&by_config);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("rec at cache-01: stale, cause: never_purged\n  - the node"), "{out}");
    // The change that has not shown is named.
    assert!(out.contains("none yet; 1 not visible for"), "{out}");
    let url = format!("http://{}", daemon.http);
    let (code, out, _) = run(&["status", "--url", &url, "--output", "json"]);
    assert_eq!(code, 1);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["targets"][0]["cause"], "never_purged");

    assert!(daemon.stop().success());
    let (code, out, err) = run(&by_config);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("refused") && err.contains("systemctl status purgewatch"), "{err}");
}

/// How soon changes showed is known over a restart.
#[test]
fn the_service_level_survives_a_restart() {
    let (origin, varnishd) = stage();
    let mut daemon = watch(&varnishd, origin.address, "");
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "lagging");
    varnishd.adm(&["ban", "req.url", "==", PATH]);
    daemon.wait_for_state("rec", "fresh");
    let config = daemon.config();
    let level = || run(&["status", "-c", config.to_str().unwrap()]).1;
    assert!(level().contains("all 1 within"), "{}", level());
    assert!(daemon.stop().success());
    daemon.start_again();
    daemon.wait_for_state("rec", "fresh");
    assert!(level().contains("all 1 within"), "{}", level());
}

#[test]
fn status_is_not_taken_in_by_other_servers() {
    let origin = Origin::start();
    let url = origin.address.to_string();
    let status = |further: &[&str]| run(&[&["status", "--url", &url], further].concat());
    let (code, _, err) = status(&[]);
    assert!(code == 3 && err.contains("status 404"), "{err}");
    origin.serve("/api/v1/status", Response::ok("<html>"));
    let (code, _, err) = status(&[]);
    assert!(code == 3 && err.contains("no purgewatch"), "{err}");
    let other = r#"{"schema":2,"version":"9","taken":0,"endpoints":0,"nodes":[],"targets":[]}"#;
    origin.serve("/api/v1/status", Response::ok(other));
    let (code, _, err) = status(&[]);
    assert!(code == 3 && err.contains("schema 2"), "{err}");
    origin.serve("/api/v1/status", Response::raw("SSH-2.0\r\n"));
    let (code, _, err) = status(&[]);
    assert!(code == 3 && err.contains("speaks no HTTP"), "{err}");
    origin.serve("/api/v1/status", Response::ok("x").after(Duration::from_secs(20)));
    let begin = std::time::Instant::now();
    let (code, _, err) = status(&["--timeout", "500ms"]);
    assert!(code == 3 && err.contains("no whole answer within 500ms"), "{err}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    for wrong in ["https://a/", "http://a b/", "ftp://a/"] {
        assert_eq!(run(&["status", "--url", wrong]).0, 2, "{wrong}");
    }
}
