//! A table of what goes wrong, and a table of what only looks like it: each scenario on a varnishd,
//! an origin and a daemon of its own. What goes wrong has to be noticed with its state and cause;
//! the rest has to raise nothing.

mod awkward;
mod faults;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, sample};
use crate::support::origin::{Origin, Response};
use crate::support::varnish::{Options, Varnishd};

/// The host of every URL here.
const HOST: &str = "rec.example.com";

/// The path that is watched.
const PATH: &str = "/api/";

/// So many scenarios run at a time: each waits most of its time.
const AT_A_TIME: usize = 6;

/// The alarm of an endpoint after so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// An origin, a varnishd in front of it, and what watches them.
struct Stage {
    origin: Origin,
    varnishd: Varnishd,
    daemon: Daemon,
}

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600")
}

impl Stage {
    /// The watched path says "one" and is cached.
    fn new() -> Self {
        Self::with("", "")
    }

    /// The same with VCL after the backend's, and further keys of the endpoint.
    fn with(vcl: &str, keys: &str) -> Self {
        let origin = Origin::start();
        origin.serve(PATH, cacheable("one"));
        let varnishd = in_front_of(&origin, vcl);
        Self::of(origin, varnishd, keys)
    }

    fn of(origin: Origin, varnishd: Varnishd, keys: &str) -> Self {
        let config =
            QUICK.to_owned() + &peers(&varnishd, origin.address) + &endpoint("rec", PATH, keys);
        Self::configured(origin, varnishd, &config)
    }

    fn configured(origin: Origin, varnishd: Varnishd, config: &str) -> Self {
        varnishd.get(HOST, PATH);
        let daemon = Daemon::start(config);
        Self { origin, varnishd, daemon }
    }

    /// Waits until it is known that all is well.
    fn settle(self) -> Self {
        self.daemon.wait_for_state("rec", "fresh");
        // The ban list holds what is younger than the object: a moment apart is enough.
        thread::sleep(Duration::from_millis(50));
        self
    }

    /// The origin goes over to other content.
    fn change(&self) {
        self.origin.serve(PATH, cacheable("two"));
    }

    fn ban(&self, words: &[&str]) {
        self.varnishd.adm(&[&["ban"], words].concat());
    }

    fn cause(&self) -> Option<String> {
        let metrics = self.daemon.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with("purgewatch_endpoint_cause{"));
        let line =
            lines.filter(|line| line.contains("endpoint=\"rec\"")).find(|l| l.ends_with(" 1"))?;
        Some(line.split_once("cause=\"")?.1.split_once('"')?.0.to_owned())
    }

    /// Waits for the state and the cause; the cause may come a moment later.
    fn expect(&self, state: &str, cause: Option<&str>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = (self.daemon.state("rec"), self.cause());
            if (found.0.as_str(), found.1.as_deref()) == (state, cause) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "expected {state} with {cause:?}, found {found:?}\n{}",
                self.daemon.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// No alarm for so long, with a look every 100 ms.
    fn raises_nothing_for(&self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            assert_ne!(self.daemon.state("rec"), "stale", "{}", self.daemon.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn counts(&self, metric: &str, label: &str) -> bool {
        sample(&self.daemon.metrics(), metric, &[label]).is_some_and(|count| count >= 1.0)
    }
}

/// A varnishd that fetches from `origin`, with more VCL.
fn in_front_of(origin: &Origin, vcl: &str) -> Varnishd {
    let (host, port) = (origin.address.ip(), origin.address.port());
    let backend = format!("backend default {{ .host = \"{host}\"; .port = \"{port}\"; }}\n");
    Varnishd::start(Options { vcl: Some(backend + vcl), ..Options::default() })
}

/// One row of a table.
type Scenario = (&'static str, fn());

/// Runs every row, several at a time, and fails with all that failed.
fn run(table: &[Scenario]) {
    let (rest, failed) = (Mutex::new(table.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some((name, scenario)) = rest.lock().unwrap().next() else { return };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(scenario)) {
                        failed.lock().unwrap().push(format!("{name}: {}", words(panic.as_ref())));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), table.len(), failed.join("\n"));
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
