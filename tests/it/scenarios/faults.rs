//! What goes wrong: each row has to be noticed, with the state and the cause that it names.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{HOST, PATH, Scenario, Stage, cacheable, in_front_of, run};
use crate::support::daemon::{PURGEWATCH, QUICK, endpoint, peers};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

#[test]
fn every_fault_is_noticed_with_its_cause() {
    assert!(FAULTS.len() >= 24, "{}", FAULTS.len());
    run(FAULTS);
}

const FAULTS: &[Scenario] = &[
    ("nobody purges", nobody_purges),
    ("a ban before the origin changed", ban_too_early),
    ("a ban of another host", || banned(&["req.http.host", "==", "www.example.com"])),
    ("a ban of another path", || banned(&["req.url", "~", "^/news/"])),
    ("a ban of the path in capitals", || banned(&["req.url", "==", "/API/"])),
    ("a ban of a header that no object has", || banned(&["obj.http.x-url", "==", PATH])),
    ("a ban of another status", || banned(&["obj.status", "==", "404"])),
    ("a ban with one condition too many", || {
        banned(&["req.url", "==", PATH, "&&", "req.http.host", "==", "example.com"]);
    }),
    ("a PURGE that an ACL refuses", purge_refused),
    ("a PURGE of another URL", purge_of_another_url),
    ("a fetch that was under way", raced_fill),
    ("grace while the backend is sick", grace),
    ("one variant was purged, the other not", variant_only),
    ("another tier behind the node", upstream_tier),
    ("a replica that lags behind", lagging_replica),
    ("the product is gone", || changed_to(Response::status(404))),
    ("the product has moved", || changed_to(Response::status(301).header("Location", "/b"))),
    ("the version in a header", || {
        let version = |n| cacheable("the same").header("X-Version", n);
        changed("compare = \"header:X-Version\"", version("1"), version("2"));
    }),
    ("the version in JSON", || {
        let version = |n| cacheable(&format!("{{\"version\": {n}}}"));
        changed("compare = \"json:/version\"", version(1), version(2));
    }),
    ("the ETag", || {
        let tagged = |tag| cacheable("the same").header("ETag", tag);
        changed("compare = \"etag\"", tagged("\"1\""), tagged("\"2\""));
    }),
    ("Last-Modified", || {
        let modified = |day| {
            let date = format!("Mon, {day} Nov 2026 10:00:00 GMT");
            cacheable("the same").header("Last-Modified", &date)
        };
        changed("compare = \"last-modified\"", modified("16"), modified("23"));
    }),
    ("the origin falls silent after the change", silent_after_the_change),
    ("one of two nodes was forgotten", one_node_forgotten),
    ("the admin port is blocked", blocked_admin_port),
    ("the admin port is blocked, and the daemon heard of the ban", || {
        unreached(&|_, blocked, keys| keys.replace(&admin_key(blocked.0), &admin_key(blocked.1)));
    }),
    ("the secret is another one", other_secret),
    ("the secret is another one, and the daemon heard of the ban", || {
        unreached(&|varnishd, _, keys| {
            let other = varnishd.dir().join("other");
            fs::write(&other, "another secret\n").unwrap();
            keys.replace(varnishd.secret_file().to_str().unwrap(), other.to_str().unwrap())
        });
    }),
    ("the node is down", node_down),
    ("the node answers 503", node_503),
    ("the cache process is stopped", child_stopped),
];

fn nobody_purges() {
    let stage = Stage::new().settle();
    stage.change();
    stage.expect("stale", Some("never_purged"));
}

fn ban_too_early() {
    let stage = Stage::new().settle();
    stage.ban(&["req.url", "==", PATH]);
    // Fetched again, before the origin goes over.
    stage.varnishd.get(HOST, PATH);
    // Ages are whole seconds: closer together, the order of ban and change cannot be told.
    thread::sleep(Duration::from_secs(4));
    stage.change();
    stage.expect("stale", Some("never_purged"));
}

fn banned(words: &[&str]) {
    let stage = Stage::new().settle();
    // Ages are whole seconds: a younger object could be from after the ban.
    thread::sleep(Duration::from_millis(1_100));
    stage.change();
    stage.daemon.wait_for_state("rec", "lagging");
    stage.ban(words);
    stage.expect("stale", Some("ban_missed_it"));
}

const PURGE: &str = "
    acl purgers { \"192.0.2.1\"; }
    sub vcl_recv {
        if (req.method == \"PURGE\") {
            if (req.http.allowed || client.ip ~ purgers) { return (purge); }
            return (synth(405));
        }
    }";

fn purge(stage: &Stage, path: &str, header: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(stage.varnishd.http).unwrap();
    write!(socket, "PURGE {path} HTTP/1.1\r\nHost: {HOST}\r\n{header}Connection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn purge_refused() {
    let stage = Stage::with(PURGE, "").settle();
    stage.change();
    assert!(purge(&stage, PATH, "").starts_with("HTTP/1.1 405"));
    stage.expect("stale", Some("never_purged"));
}

fn purge_of_another_url() {
    let stage = Stage::with(PURGE, "").settle();
    stage.change();
    assert!(purge(&stage, "/other/", "allowed: 1\r\n").starts_with("HTTP/1.1 200"));
    stage.expect("stale", Some("never_purged"));
}

fn raced_fill() {
    let stage = Stage::new().settle();
    // The next fetch reads the old content, and takes its time.
    stage.origin.serve(PATH, cacheable("one").after(Duration::from_secs(2)));
    stage.ban(&["req.url", "==", PATH]);
    thread::scope(|scope| {
        let fetch = scope.spawn(|| stage.varnishd.get(HOST, PATH));
        thread::sleep(Duration::from_millis(700));
        stage.change();
        thread::sleep(Duration::from_millis(300));
        stage.ban(&["req.url", "==", PATH]);
        fetch.join().unwrap();
    });
    stage.expect("stale", Some("raced_fill"));
}

/// The backend is another address than the origin that the truth comes from.
fn behind(backend: &Origin, vcl: &str) -> (Origin, Varnishd) {
    let truth = Origin::start();
    truth.serve(PATH, cacheable("one"));
    (truth, in_front_of(backend, vcl))
}

fn grace() {
    let backend = Origin::start();
    backend.serve(PATH, Response::ok("one").header("Cache-Control", "max-age=2"));
    let vcl = "sub vcl_backend_response { set beresp.grace = 1h; }";
    let (truth, varnishd) = behind(&backend, vcl);
    let stage = Stage::of(truth, varnishd, "").settle();
    stage.varnishd.adm(&["backend.set_health", "boot.default", "sick"]);
    stage.change();
    stage.expect("stale", Some("grace"));
}

fn variant_only() {
    let origin = Origin::start();
    let serve = |body: &'static str| {
        origin.route(PATH, move |request| {
            let language = request.header("accept-language").unwrap_or("en");
            cacheable(&format!("{body} {language}"))
                .header("Vary", "Accept-Language")
                .header("X-Language", language)
        });
    };
    serve("one");
    let varnishd = in_front_of(&origin, "");
    let variants = "variants = [{ name = \"de\", headers = { Accept-Language = \"de\" } }, \
                    { name = \"fr\", headers = { Accept-Language = \"fr\" } }]";
    let config =
        QUICK.to_owned() + &peers(&varnishd, origin.address) + &endpoint("rec", PATH, variants);
    let stage = Stage::configured(origin, varnishd, &config).settle();
    let serve = |body: &'static str| {
        stage.origin.route(PATH, move |request| {
            let language = request.header("accept-language").unwrap_or("en");
            cacheable(&format!("{body} {language}"))
                .header("Vary", "Accept-Language")
                .header("X-Language", language)
        });
    };
    serve("two");
    stage.ban(&["obj.http.x-language", "==", "de"]);
    stage.daemon.wait("the other variant is stale, and that alone", || {
        let labels = ["variant=\"fr\"", "state=\"stale\""];
        stage.daemon.metric("purgewatch_endpoint_state", &labels) == Some(1.0)
            && stage.cause().as_deref() == Some("variant_only")
    });
}

fn upstream_tier() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let inner = in_front_of(&origin, "");
    let vcl = format!(
        "backend default {{ .host = \"{}\"; .port = \"{}\"; }}",
        inner.http.ip(),
        inner.http.port()
    );
    let outer = Varnishd::start(Options { vcl: Some(vcl), ..Options::default() });
    let stage = Stage::of(origin, outer, "").settle();
    stage.change();
    stage.daemon.wait_for_state("rec", "lagging");
    stage.ban(&["req.url", "==", PATH]);
    stage.expect("stale", Some("upstream"));
    drop(inner);
}

fn lagging_replica() {
    let backend = Origin::start();
    backend.serve(PATH, Response::ok("one").header("Cache-Control", "max-age=2"));
    let (truth, varnishd) = behind(&backend, "sub vcl_backend_response { set beresp.grace = 0s; }");
    let stage = Stage::of(truth, varnishd, "").settle();
    stage.change();
    stage.expect("stale", Some("upstream"));
}

fn changed_to(response: Response) {
    let stage = Stage::new().settle();
    stage.origin.serve(PATH, response);
    stage.expect("stale", Some("never_purged"));
}

fn changed(keys: &str, before: Response, after: Response) {
    let origin = Origin::start();
    origin.serve(PATH, before);
    let varnishd = in_front_of(&origin, "");
    let stage = Stage::of(origin, varnishd, keys).settle();
    stage.origin.serve(PATH, after);
    stage.expect("stale", Some("never_purged"));
}

fn silent_after_the_change() {
    let stage = Stage::new().settle();
    stage.change();
    stage.daemon.wait_for_state("rec", "lagging");
    stage.origin.serve(PATH, Response::status(500));
    stage.expect("stale", Some("never_purged"));
}

fn one_node_forgotten() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let (first, second) = (in_front_of(&origin, ""), in_front_of(&origin, ""));
    let second_node = peers(&second, origin.address).replace("cache-01", "cache-02");
    let second_node = second_node.split("[[origin]]").next().unwrap().to_owned();
    let config = QUICK.to_owned()
        + &peers(&first, origin.address)
        + &second_node
        + &endpoint("rec", PATH, "");
    second.get(HOST, PATH);
    let stage = Stage::configured(origin, first, &config).settle();
    stage.change();
    stage.ban(&["req.url", "==", PATH]);
    stage.daemon.wait("the forgotten node is stale", || {
        let labels = ["endpoint=\"rec\"", "node=\"cache-02\"", "state=\"stale\""];
        stage.daemon.metric("purgewatch_endpoint_state", &labels) == Some(1.0)
    });
    stage.daemon.wait("for the reason that nobody purged there", || {
        let labels = ["endpoint=\"rec\"", "node=\"cache-02\"", "cause=\"never_purged\""];
        stage.daemon.metric("purgewatch_endpoint_cause", &labels) == Some(1.0)
    });
    assert_eq!(stage.daemon.state("rec"), "fresh");
}

/// What a deployment does: its ban, by way of this program.
fn deployment_bans(admin: &str, secret: &std::path::Path) -> Option<i32> {
    let output = Command::new(PURGEWATCH)
        .args(["ban", "--timeout", "2s", "--retries", "0", "-T", admin, "-S"])
        .arg(secret)
        .arg(format!("req.url == {PATH}"))
        .output()
        .unwrap();
    output.status.code()
}

fn blocked_admin_port() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let blocked = silent.local_addr().unwrap().to_string();
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let varnishd = in_front_of(&origin, "");
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address).replace(&varnishd.admin.to_string(), &blocked)
        + &endpoint("rec", PATH, "");
    let stage = Stage::configured(origin, varnishd, &config).settle();
    stage.change();
    assert_eq!(deployment_bans(&blocked, stage.varnishd.secret_file()), Some(3));
    stage.expect("stale", Some("undetermined"));
    assert_eq!(stage.daemon.metric("purgewatch_node_admin_up", &["cache-01"]), Some(0.0));
}

fn other_secret() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let varnishd = in_front_of(&origin, "");
    let other = varnishd.dir().join("other");
    fs::write(&other, "another secret\n").unwrap();
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
            .replace(varnishd.secret_file().to_str().unwrap(), other.to_str().unwrap())
        + &endpoint("rec", PATH, "");
    let stage = Stage::configured(origin, varnishd, &config).settle();
    stage.change();
    assert_eq!(deployment_bans(&stage.varnishd.admin.to_string(), &other), Some(4));
    stage.expect("stale", Some("undetermined"));
    assert!(stage.counts("purgewatch_node_admin_failures_total", "reason=\"secret_refused\""));
}

fn admin_key(address: SocketAddr) -> String {
    format!("admin = \"{address}\"")
}

/// Changes the keys of a node so that bans do not get there. Is also given the right address of the
/// admin port and one that says nothing.
type Spoil = dyn Fn(&Varnishd, (SocketAddr, SocketAddr), String) -> String;

/// A deployment's ban does not get through, and the daemon is told of it.
fn unreached(spoil: &Spoil) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let varnishd = in_front_of(&origin, "");
    let socket = format!("socket = \"{}\"\n", varnishd.dir().join("s.sock").display());
    let addresses = (varnishd.admin, silent.local_addr().unwrap());
    let keys = spoil(&varnishd, addresses, peers(&varnishd, origin.address));
    let config = socket + QUICK + &keys + &endpoint("rec", PATH, "");
    let stage = Stage::configured(origin, varnishd, &config).settle();
    stage.change();
    let file = stage.daemon.config();
    let ban = Command::new(PURGEWATCH)
        .args(["ban", "--timeout", "2s", "--retries", "0", "-c", file.to_str().unwrap()])
        .arg(format!("req.url == {PATH}"))
        .output()
        .unwrap();
    assert!(matches!(ban.status.code(), Some(3 | 4)), "{ban:?}");
    stage.expect("stale", Some("purge_undelivered"));
}

fn node_down() {
    let mut stage = Stage::new().settle();
    stage.varnishd.stop();
    stage.expect("cache_down", None);
    let up = || stage.daemon.metric("purgewatch_node_admin_up", &["cache-01"]);
    stage.daemon.wait("the admin port is down, too", || up() == Some(0.0));
}

fn node_503() {
    let vcl = "sub vcl_recv { if (req.url == \"/api/\") { return (synth(503)); } }";
    Stage::with(vcl, "").expect("cache_down", None);
}

fn child_stopped() {
    let stage = Stage::new().settle();
    stage.varnishd.adm(&["stop"]);
    stage.expect("cache_down", None);
    // The admin port answers, and takes no ban.
    let (metric, label) = ("purgewatch_node_admin_failures_total", "reason=\"child_not_running\"");
    stage.daemon.wait("that is seen", || stage.counts(metric, label));
    assert_eq!(stage.daemon.metric("purgewatch_node_admin_up", &["cache-01"]), Some(0.0));
    stage.varnishd.adm(&["start"]);
    stage.daemon.wait("it is up again", || {
        stage.daemon.metric("purgewatch_node_admin_up", &["cache-01"]) == Some(1.0)
    });
}
