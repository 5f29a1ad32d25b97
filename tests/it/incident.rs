//! The whole incident in a real Prometheus: the purge path is blocked, the origin changes, the
//! alerts fire, the path is free again, a ban is sent, the alerts resolve. The rules are those
//! that `purgewatch rules` prints for the daemon's own configuration.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, purgewatch};
use crate::support::origin::{Origin, Response};
use crate::support::prometheus::{Alert, Labels, Prometheus};
use crate::support::relay::Relay;
use crate::support::varnish::Varnishd;

const PATH: &str = "/api/v1/recommendations/";

const STALE: &str = "PurgewatchEndpointStale";
const PATH_BLOCKED: &str = "PurgewatchPurgePathBlocked";
const DAEMON_DOWN: &str = "PurgewatchDaemonDown";

/// A varnishd with its origin, and a daemon that reaches the admin port over a path that the test
/// can block.
struct Stage {
    origin: Origin,
    varnishd: Varnishd,
    path: Relay,
    daemon: Daemon,
    prometheus: Prometheus,
}

impl Stage {
    fn set() -> Self {
        let origin = Origin::start();
        origin.serve(PATH, cacheable("in stock: 1, 2, 3"));
        let varnishd = Varnishd::in_front_of(origin.address);
        let path = Relay::open(varnishd.admin);
        let peers = peers(&varnishd, origin.address)
            .replace(&varnishd.admin.to_string(), &path.address.to_string());
        let daemon = Daemon::start(&(QUICK.to_owned() + &peers + &endpoint("rec", PATH, "")));
        let config = daemon.config();
        let printed = purgewatch(&["rules", "-c", config.to_str().unwrap(), "--least-wait", "3s"]);
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let rules = String::from_utf8(printed.stdout).unwrap();
        assert!(rules.contains(STALE) && rules.contains(PATH_BLOCKED), "{rules}");
        let prometheus = Prometheus::start(daemon.http, &rules);
        Self { origin, varnishd, path, daemon, prometheus }
    }

    /// Waits until it is scraped and nothing is pending, and sees that it stays so.
    fn is_quiet_for(&self, span: Duration) {
        let prometheus = &self.prometheus;
        prometheus.wait("a scrape", || up(prometheus) == Some(1.0));
        prometheus.wait("no alert", || prometheus.alerts().is_empty());
        let end = Instant::now() + span;
        while Instant::now() < end {
            assert_eq!(prometheus.alerts(), []);
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Waits until this alert fires, and returns it.
    fn fires(&self, name: &str) -> Alert {
        let prometheus = &self.prometheus;
        prometheus.wait(&format!("{name} fires"), || prometheus.firing(name).is_some());
        prometheus.firing(name).unwrap()
    }

    /// Waits until no alert of that name is pending or firing.
    fn resolves(&self, name: &str) {
        let prometheus = &self.prometheus;
        let gone = || prometheus.alerts().iter().all(|alert| alert.name != name);
        prometheus.wait(&format!("{name} resolves"), gone);
    }

    /// The names of all alerts that ever fired.
    fn fired(&self) -> Vec<String> {
        let ever = "count by (alertname) (max_over_time(ALERTS{alertstate=\"firing\"}[10m]))";
        let mut names: Vec<_> =
            self.prometheus.query(ever).iter().map(|s| s.labels["alertname"].clone()).collect();
        names.sort();
        names
    }
}

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

fn up(prometheus: &Prometheus) -> Option<f64> {
    prometheus.query("up{job=\"purgewatch\"}").first().map(|sample| sample.value)
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_incident_is_noticed_and_its_end_as_well() {
    let stage = Stage::set();
    let prometheus = &stage.prometheus;
    stage.is_quiet_for(Duration::from_secs(4));

    stage.path.set_blocked(true);
    let blocked = stage.fires(PATH_BLOCKED);
    assert_eq!(blocked.labels["node"], "cache-01");
    assert_eq!(blocked.labels["severity"], "critical");
    assert!(prometheus.firing(STALE).is_none(), "no content has changed so far");

    // The deployment: new content, and a purge that nobody receives.
    stage.origin.serve(PATH, cacheable("in stock: 2, 3"));
    let stale = stage.fires(STALE);
    let instance = stage.daemon.http.to_string();
    let wanted = labels([
        ("endpoint", "rec"),
        ("variant", "default"),
        ("node", "cache-01"),
        ("severity", "critical"),
        ("instance", &instance),
        ("job", "purgewatch"),
    ]);
    assert_eq!(stale.labels, wanted);
    assert_eq!(stale.annotations["summary"], "cache-01 serves an old version of rec");
    assert!(stale.annotations["runbook_url"].ends_with("#runbook-endpoint-stale"));
    assert!(prometheus.firing(PATH_BLOCKED).is_some(), "both at a time: cause and effect");
    let staleness = prometheus.query("purgewatch_endpoint_staleness_seconds{endpoint=\"rec\"}");
    assert!(staleness.len() == 1 && staleness[0].value >= 3.0, "{staleness:?}");
    assert!(stage.varnishd.get("rec.example.com", PATH).contains("in stock: 1, 2, 3"));

    stage.path.set_blocked(false);
    stage.resolves(PATH_BLOCKED);
    assert!(prometheus.firing(STALE).is_some(), "a free path alone makes nothing fresh");
    stage.varnishd.adm(&["ban", "req.url", "~", "^/api/"]);
    stage.resolves(STALE);

    stage.is_quiet_for(Duration::from_secs(2));
    assert_eq!(stage.fired(), [STALE, PATH_BLOCKED], "and no other");
    let always_up = prometheus.query("min_over_time(up{job=\"purgewatch\"}[10m])");
    assert_eq!(always_up[0].value, 1.0, "scraped without a gap");
}

#[test]
fn a_dead_daemon_is_noticed_and_its_alarms_come_back_with_it() {
    let mut stage = Stage::set();
    stage.is_quiet_for(Duration::ZERO);
    stage.origin.serve(PATH, cacheable("in stock: 2, 3"));
    stage.fires(STALE);
    let staleness = "purgewatch_endpoint_staleness_seconds{endpoint=\"rec\"}";
    let before = stage.prometheus.query(staleness)[0].value;

    stage.daemon.kill();
    let down = stage.fires(DAEMON_DOWN);
    assert_eq!(down.labels["job"], "purgewatch");
    assert_eq!(down.labels["severity"], "critical");
    assert!(stage.prometheus.firing(STALE).is_none(), "nobody watches, so nobody knows");

    stage.daemon.start_again();
    stage.resolves(DAEMON_DOWN);
    stage.fires(STALE);
    let after = stage.prometheus.query(staleness)[0].value;
    assert!(after > before, "it goes on from where it was: {after} after {before}");
    assert_eq!(stage.fired(), [DAEMON_DOWN, STALE]);
}

#[test]
fn promtool_finds_no_fault_in_the_metrics_of_a_running_daemon() {
    let origin = Origin::start();
    origin.serve(PATH, cacheable("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let second = "[[node]]\nname = \"cache-02\"\nhttp = \"http://127.0.0.1:1\"\n";
    let config = QUICK.to_owned()
        + &peers(&varnishd, origin.address)
        + second
        + &endpoint("rec", PATH, "")
        + &endpoint("späte.liste:1", "/404/", "variants = [{ name = \"a.b-c\" }]");
    let daemon = Daemon::start(&config);
    daemon.wait_for_state("rec", "fresh");
    let up = || daemon.metric("purgewatch_node_admin_up", &["cache-01"]);
    daemon.wait("the admin port is up", || up() == Some(1.0));
    let metrics = daemon.metrics();
    assert_eq!(said_of(&metrics), "");
    // The check finds faults.
    let counter = "purgewatch_bans_total";
    assert!(metrics.contains(counter));
    assert!(said_of(&metrics.replace(counter, "purgewatch_bans")).contains("purgewatch_bans"));
}

/// What `promtool check metrics` says of a scrape: nothing when all is well.
fn said_of(metrics: &str) -> String {
    let mut process = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: apt-get install prometheus");
    process.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}
