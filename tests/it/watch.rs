//! The daemon against real varnishd processes.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, sample};
use crate::support::origin::{Origin, Response, Step};
use crate::support::varnish::{Options, Varnishd};

const PATH: &str = "/api/";

/// An origin whose `/api/` may be cached for an hour, and a varnishd in front of it.
fn stage(body: &str) -> (Origin, Varnishd) {
    let origin = Origin::start();
    origin.serve(PATH, cacheable(body));
    let varnishd = Varnishd::in_front_of(origin.address);
    (origin, varnishd)
}

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

fn watch(origin: &Origin, varnishd: &Varnishd, further: &str) -> Daemon {
    let peers = peers(varnishd, origin.address);
    Daemon::start(&(QUICK.to_owned() + &peers + &endpoint("rec", PATH, further)))
}

/// No alarm for so long, with a look every 100 ms.
fn no_alarm_for(daemon: &Daemon, span: Duration) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert_ne!(daemon.state("rec"), "stale", "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_silent_purge_failure_is_noticed_and_a_ban_ends_it() {
    let (origin, varnishd) = stage("one");
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    assert_eq!(daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"]), Some(0.0));

    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "lagging");
    daemon.wait_for_state("rec", "stale");
    let staleness =
        || daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"]).unwrap_or(0.0);
    let first = staleness();
    assert!(first >= 3.0, "{first}");
    daemon.wait("staleness grows between probes", || staleness() > first);
    assert!(daemon.log().contains("rec at cache-01 is stale"), "{}", daemon.log());

    varnishd.adm(&["ban", "req.url", "~", "."]);
    daemon.wait_for_state("rec", "fresh");
    let metrics = daemon.metrics();
    let count = sample(&metrics, "purgewatch_time_to_fresh_seconds_count", &["cache-01"]);
    assert_eq!(count, Some(1.0));
}

#[test]
fn a_restart_does_not_reset_an_alarm() {
    let (origin, varnishd) = stage("one");
    let mut daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
    let staleness = |daemon: &Daemon| {
        daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"]).unwrap_or(-1.0)
    };
    let before = staleness(&daemon);
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale", "from the first scrape on");
    assert!(staleness(&daemon) >= before);
    // What was written a moment before a kill is kept as well.
    std::thread::sleep(Duration::from_millis(500));
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.state("rec"), "stale");
    assert!(staleness(&daemon) >= before);
}

#[test]
fn a_known_old_version_is_stale_while_the_origin_is_down() {
    let (origin, varnishd) = stage("one");
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "lagging");
    origin.serve(PATH, Response::status(500));
    daemon.wait_for_state("rec", "stale");
}

#[test]
fn a_blocked_admin_port_shows_without_any_content_changing() {
    let (origin, varnishd) = stage("one");
    // A listener that takes connections and says nothing, as behind some packet filters.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
            .replace(&varnishd.admin.to_string(), &silent.local_addr().unwrap().to_string())
        + &endpoint("rec", PATH, "");
    let daemon = Daemon::start(&config);
    let up = || daemon.metric("purgewatch_node_admin_up", &["cache-01"]);
    daemon.wait("the admin port is known to be down", || up() == Some(0.0));
    daemon.wait_for_state("rec", "fresh");
    assert!(daemon.log().contains("bans cannot reach cache-01"), "{}", daemon.log());
    // The way is free again.
    let good = QUICK.to_owned() + &peers(&varnishd, origin.address) + &endpoint("rec", PATH, "");
    daemon.reload(&good);
    daemon.wait("the admin port is up", || up() == Some(1.0));
}

#[test]
fn a_wrong_secret_shows_with_its_reason() {
    let (origin, varnishd) = stage("one");
    let daemon = watch(&origin, &varnishd, "");
    let up = || daemon.metric("purgewatch_node_admin_up", &["cache-01"]);
    daemon.wait("up", || up() == Some(1.0));
    let secret = fs::read(varnishd.secret_file()).unwrap();
    // The daemon reads the file again for each connection; varnishd does so, too. So the daemon
    // gets a file of its own that differs.
    let other = varnishd.dir().join("other");
    fs::write(&other, secret.strip_suffix(b"\n").unwrap()).unwrap();
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
            .replace(varnishd.secret_file().to_str().unwrap(), other.to_str().unwrap())
        + &endpoint("rec", PATH, "");
    daemon.reload(&config);
    daemon.wait("down", || up() == Some(0.0));
    let failures = || {
        let metrics = daemon.metrics();
        sample(&metrics, "purgewatch_node_admin_failures_total", &["secret_refused"])
    };
    daemon.wait("counted with its reason", || failures().is_some_and(|count| count >= 1.0));
    assert!(!daemon.log().contains("a secret of the tests"));
}

#[test]
fn varnishd_may_be_restarted() {
    let (origin, mut varnishd) = stage("one");
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    varnishd.stop();
    daemon.wait_for_state("rec", "cache_down");
    let up = || daemon.metric("purgewatch_node_admin_up", &["cache-01"]);
    daemon.wait("the admin port is down", || up() == Some(0.0));
    assert_eq!(daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"]), None);
    varnishd.start_again();
    daemon.wait_for_state("rec", "fresh");
    daemon.wait("the admin port is up", || up() == Some(1.0));
}

#[test]
fn an_origin_in_trouble_is_no_staleness() {
    let endless = || {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
        let more = vec![b'x'; 64 * 1024];
        Response::script([Step::Send(head.into()), Step::Endless(more)])
    };
    let troubles: [(&str, Response); 4] = [
        ("500", Response::status(500)),
        ("503", Response::status(503)),
        ("slow", cacheable("one").after(Duration::from_secs(5))),
        ("endless", endless()),
    ];
    for (name, trouble) in troubles {
        let (origin, varnishd) = stage("one");
        varnishd.get("rec.example.com", PATH);
        let daemon = watch(&origin, &varnishd, "body_limit = 1000000");
        daemon.wait_for_state("rec", "fresh");
        origin.serve(PATH, trouble);
        daemon.wait_for_state("rec", "origin_down");
        no_alarm_for(&daemon, Duration::from_millis(500));
        origin.serve(PATH, cacheable("one"));
        daemon.wait_for_state("rec", "fresh");
        assert!(daemon.log().contains("origin_down"), "{name}: {}", daemon.log());
    }
}

#[test]
fn redirects_are_compared() {
    let (origin, varnishd) = stage("one");
    let to = |place: &str| {
        Response::status(301).header("Location", place).header("Cache-Control", "max-age=3600")
    };
    origin.serve(PATH, to("/a"));
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    assert_eq!(origin.hits("/a"), 0, "not followed");
    origin.serve(PATH, to("/b"));
    daemon.wait_for_state("rec", "stale");
}

#[test]
fn a_product_that_is_gone_at_the_origin_is_stale_in_the_cache() {
    let (origin, varnishd) = stage("one");
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, Response::status(404));
    daemon.wait_for_state("rec", "stale");
}

#[test]
fn a_node_that_answers_503_is_down() {
    let (origin, _) = stage("one");
    let vcl = "backend default none;\nsub vcl_recv { return (synth(503)); }\n";
    let options = Options { vcl: Some(vcl.to_owned()), ..Options::default() };
    let varnishd = Varnishd::start(options);
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "cache_down");
    assert_eq!(daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"]), None);
}

#[test]
fn another_encoding_is_no_other_body() {
    let (origin, varnishd) = stage("the same body, long enough to be worth packing");
    origin.route(PATH, |request| {
        let response = cacheable("the same body, long enough to be worth packing");
        // The origin packs for Varnish alone.
        if request.header("x-varnish").is_some() { response.gzip() } else { response }
    });
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    no_alarm_for(&daemon, Duration::from_secs(5));
    assert_eq!(daemon.state("rec"), "fresh");
}

#[test]
fn an_origin_that_never_says_the_same_twice_is_unverifiable() {
    let (origin, varnishd) = stage("one");
    let count = std::sync::atomic::AtomicU32::new(0);
    origin.route(PATH, move |_| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        cacheable(&format!("request {n}"))
    });
    let daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "unverifiable");
    assert_eq!(daemon.metric("purgewatch_endpoint_staleness_seconds", &["rec"]), None);
    // With what varies blanked out, it is verifiable.
    let peers = peers(&varnishd, origin.address);
    let config = QUICK.to_owned() + &peers + &endpoint("rec", PATH, "ignore = ['request \\d+']");
    daemon.reload(&config);
    daemon.wait_for_state("rec", "fresh");
}

#[test]
fn an_origin_that_flaps_raises_no_alarm() {
    let (origin, varnishd) = stage("one");
    varnishd.get("rec.example.com", PATH);
    origin.flap(PATH, vec![cacheable("one"), cacheable("two"), cacheable("two")]);
    let daemon = watch(&origin, &varnishd, "");
    no_alarm_for(&daemon, Duration::from_secs(12));
    assert_eq!(daemon.state("rec"), "unverifiable");
}

#[test]
fn an_origin_that_changes_all_the_time_and_a_cache_that_follows_raise_no_alarm() {
    let (origin, varnishd) = stage("one");
    let began = Instant::now();
    origin.route(PATH, move |_| {
        let body = format!("{}", began.elapsed().as_millis() / 1_300);
        Response::ok(body).header("Cache-Control", "max-age=1")
    });
    let daemon = watch(&origin, &varnishd, "");
    no_alarm_for(&daemon, Duration::from_secs(10));
}

#[test]
fn a_damaged_state_file_does_not_stop_the_start() {
    let (origin, varnishd) = stage("one");
    let mut daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    daemon.kill();
    for entry in fs::read_dir(daemon.state_dir()).unwrap() {
        fs::write(entry.unwrap().path(), b"this is no database").unwrap();
    }
    daemon.start_again();
    daemon.wait_for_state("rec", "fresh");
    assert!(daemon.log().contains("corrupt"), "it is said: {}", daemon.log());
}

#[test]
fn a_state_directory_that_cannot_be_written_does_not_stop_the_start() {
    let (origin, varnishd) = stage("one");
    let mut daemon = watch(&origin, &varnishd, "");
    daemon.stop();
    fs::remove_dir_all(daemon.state_dir()).unwrap();
    fs::write(daemon.state_dir(), b"a file where the directory belongs").unwrap();
    daemon.start_again();
    daemon.wait_for_state("rec", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");
}

#[test]
fn a_reload_forgets_what_is_gone_and_keeps_what_is_known() {
    let (origin, varnishd) = stage("one");
    origin.serve("/other/", cacheable("other"));
    let head = QUICK.to_owned() + &peers(&varnishd, origin.address);
    let both = head.clone() + &endpoint("rec", PATH, "") + &endpoint("other", "/other/", "");
    let daemon = Daemon::start(&both);
    daemon.wait_for_state("rec", "fresh");
    daemon.wait_for_state("other", "fresh");
    origin.serve(PATH, cacheable("two"));
    daemon.wait_for_state("rec", "stale");

    // A configuration with a fault changes nothing, and shows.
    daemon.reload(&(both + "[[endpoint]]\nname = \"broken\"\n"));
    let successful = || daemon.metric("purgewatch_config_last_reload_successful", &[]);
    daemon.wait("the failed reload shows", || successful() == Some(0.0));
    assert_eq!(daemon.state("other"), "fresh");
    assert!(daemon.log().contains("purgewatch.toml:"), "with its place: {}", daemon.log());
    let (_, page) = daemon.get("/").unwrap();
    assert!(page.contains("The last new configuration was refused."), "{page}");
    assert!(page.contains("<title>(1) purgewatch</title>"), "one is stale: {page}");
    let (_, document) = daemon.get("/api/v1/status").unwrap();
    assert!(document.contains("\"reload_failed\":true,\"store_failed\":false"), "{document}");

    daemon.reload(&(head + &endpoint("rec", PATH, "")));
    daemon.wait("the reload shows", || successful() == Some(1.0));
    assert_eq!(daemon.state("rec"), "stale", "it does not start over");
    assert!(!daemon.metrics().contains("endpoint=\"other\""), "its series are gone");
    assert_eq!(daemon.metric("purgewatch_endpoints", &[]), Some(1.0));
}

#[test]
fn sigterm_ends_it_within_its_deadline() {
    let (origin, varnishd) = stage("one");
    let mut daemon = watch(&origin, &varnishd, "");
    daemon.wait_for_state("rec", "fresh");
    // A fetch that hangs does not hold it up.
    origin.serve(PATH, cacheable("one").after(Duration::from_secs(60)));
    std::thread::sleep(Duration::from_millis(1_200));
    let began = Instant::now();
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn variants_are_watched_each_for_itself() {
    let (origin, varnishd) = stage("one");
    origin.route(PATH, |request| {
        let language = request.header("accept-language").unwrap_or("en").to_owned();
        cacheable(&language).header("Vary", "Accept-Language")
    });
    let variants = "variants = [{ name = \"de\", headers = { Accept-Language = \"de\" } }, \
                    { name = \"fr\", headers = { Accept-Language = \"fr\" } }]";
    let daemon = watch(&origin, &varnishd, variants);
    let state = |variant: &str, state: &str| {
        let (variant, state) = (format!("variant=\"{variant}\""), format!("state=\"{state}\""));
        daemon.metric("purgewatch_endpoint_state", &[&variant, &state]) == Some(1.0)
    };
    daemon.wait("both are fresh", || state("de", "fresh") && state("fr", "fresh"));
    origin.route(PATH, |request| {
        let language = request.header("accept-language").unwrap_or("en").to_owned();
        let body = if language == "de" { "neu" } else { &language };
        cacheable(body).header("Vary", "Accept-Language")
    });
    daemon.wait("one is stale", || state("de", "stale"));
    assert!(state("fr", "fresh"), "the other is not");
}

#[test]
fn a_server_that_is_no_cache_is_flagged() {
    let (origin, varnishd) = stage("one");
    let plain = Origin::start();
    plain.serve(PATH, cacheable("one"));
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
            .replace(&format!("http://{}", varnishd.http), &format!("http://{}", plain.address))
        + &endpoint("rec", PATH, "");
    let daemon = Daemon::start(&config);
    let flagged = || daemon.metric("purgewatch_probes_total", &["result=\"not_a_cache\""]);
    daemon.wait("it is flagged", || flagged().is_some_and(|count| count >= 1.0));
}
