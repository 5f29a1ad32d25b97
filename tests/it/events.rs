//! Events from a real Redis and over HTTP, to a real varnishd, by the built daemon.

mod channel;
mod door;
mod flood;
mod hosts;
mod reload;
mod stream;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, QUICK, endpoint, peers};
use crate::support::origin::{Origin, Response};
use crate::support::redis::{PASSWORD, Redis};
use crate::support::relay::Relay;
use crate::support::varnish::{Options, Varnishd};

const HOST: &str = "rec.example.com";
const PATH: &str = "/api/";
const STREAM: &str = "[[subscription]]\nstream = \"inv\"\n";

/// An origin, a varnishd behind a path that can be blocked, a Redis, and a daemon.
struct Stage {
    origin: Origin,
    varnishd: Varnishd,
    path: Relay,
    redis: Redis,
    daemon: Daemon,
    place: tempfile::TempDir,
}

fn cacheable(body: &str) -> Response {
    Response::ok(body).header("Cache-Control", "max-age=3600").header("X-Model", body)
}

impl Stage {
    /// With these subscriptions, and further configuration.
    fn set(further: &str) -> Self {
        Self::set_in(tempfile::tempdir().unwrap(), further)
    }

    /// The same with its files in a directory where there are some already.
    fn set_in(place: tempfile::TempDir, further: &str) -> Self {
        let origin = Origin::start();
        origin.serve(PATH, cacheable("one"));
        origin.serve("/pin", cacheable("pin"));
        let arguments =
            ["-p", "ban_lurker_sleep=0", "-p", "cli_limit=10m"].map(str::to_owned).into();
        let backend = Some(origin.address);
        let varnishd = Varnishd::start(Options { backend, arguments, ..Options::default() });
        let path = Relay::open(varnishd.admin);
        let redis = Redis::start();
        let config = config(&varnishd, &origin, &path, &redis, &place, further);
        varnishd.get(HOST, PATH);
        // Bans that come later stay on the list.
        varnishd.get("pin.example.com", "/pin");
        let daemon = Daemon::start(&config);
        let stage = Self { origin, varnishd, path, redis, daemon, place };
        stage.daemon.wait_for_state("rec", "fresh");
        stage
    }

    /// With a stream that is being followed.
    fn of_stream(further: &str) -> Self {
        let stage = Self::set(&format!("{STREAM}{further}"));
        stage.wait_for_up("inv");
        stage
    }

    /// Goes over to this further configuration by SIGHUP, and waits for what comes of it.
    fn reload(&self, further: &str) -> bool {
        let Self { origin, varnishd, path, redis, daemon, place } = self;
        let text = config(varnishd, origin, path, redis, place, further);
        let before = self.reloads();
        daemon.reload(&text);
        daemon.wait("it was read again", || self.reloads() != before);
        self.is_reloaded()
    }

    /// SIGHUP with the same configuration.
    fn reload_same(&self) -> bool {
        let before = self.reloads();
        self.daemon.signal("HUP");
        self.daemon.wait("it was read again", || self.reloads() != before);
        self.is_reloaded()
    }

    /// How many went well, and how many did not.
    fn reloads(&self) -> (usize, usize) {
        let log = self.daemon.log();
        (log.matches("was read again").count(), log.matches("is not taken over").count())
    }

    fn is_reloaded(&self) -> bool {
        let name = "purgewatch_config_last_reload_successful";
        self.daemon.metric(name, &[]) == Some(1.0)
    }

    fn wait_for_up(&self, name: &str) {
        let label = format!("subscription=\"{name}\"");
        self.daemon.wait(&format!("{name} is followed"), || {
            self.daemon.metric("purgewatch_subscription_up", &[&label]) == Some(1.0)
        });
    }

    /// XADD; returns the id.
    fn add(&self, fields: &[&str]) -> String {
        self.redis.cli(&[&["XADD", "inv", "*"], fields].concat())
    }

    /// Entries of the stream that are not acknowledged.
    fn pending(&self) -> usize {
        let groups = self.redis.cli(&["XINFO", "GROUPS", "inv"]);
        let mut lines = groups.lines();
        let pending = lines.find(|line| *line == "pending").and_then(|_| lines.next());
        pending.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
    }

    fn confirmations(&self) -> String {
        self.redis.cli(&["XRANGE", "inv:replies", "-", "+"])
    }

    fn wait_for_confirmation(&self, id: &str, result: &str) {
        self.daemon.wait(&format!("{id} is confirmed as {result}"), || {
            let all = self.confirmations();
            let of_it = all.lines().filter(|line| line.contains(&format!("\"event\":\"{id}\"")));
            of_it
                .collect::<Vec<_>>()
                .last()
                .is_some_and(|line| line.contains(&format!("\"result\":\"{result}\"")))
        });
    }

    /// What the node serves now.
    fn body(&self) -> String {
        let answer = self.varnishd.get(HOST, PATH);
        answer.rsplit("\r\n\r\n").next().unwrap().to_owned()
    }

    /// The bans on the node's list that begin so, oldest first.
    fn bans(&self, begin: &str) -> Vec<String> {
        let mut bans = self.varnishd.bans();
        bans.reverse();
        bans.into_iter().filter(|ban| ban.starts_with(begin)).collect()
    }

    /// How many bans of events the node took.
    fn taken(&self) -> f64 {
        let labels = ["source=\"event\"", "result=\"accepted\""];
        self.daemon.metric("purgewatch_bans_total", &labels).unwrap()
    }

    fn results(&self, name: &str, result: &str) -> Option<f64> {
        let labels = [format!("subscription=\"{name}\""), format!("result=\"{result}\"")];
        self.daemon.metric("purgewatch_events_total", &[&labels[0], &labels[1]])
    }
}

fn config(
    varnishd: &Varnishd,
    origin: &Origin,
    path: &Relay,
    redis: &Redis,
    place: &tempfile::TempDir,
    further: &str,
) -> String {
    let password = place.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let nodes = peers(varnishd, origin.address)
        .replace(&varnishd.admin.to_string(), &path.address.to_string());
    format!(
        "{QUICK}{nodes}{}[redis]\nurl = \"redis://127.0.0.1:{}\"\npassword_file = \"{}\"\n\
         name = \"host-1\"\n{further}",
        endpoint("rec", PATH, ""),
        redis.port,
        password.display(),
    )
}

/// How long something takes to hold, at most 20 s.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begin.elapsed()
}

fn token_file(place: &tempfile::TempDir) -> PathBuf {
    let file = place.path().join("tokens");
    fs::write(&file, "# deploy\n0123456789abcdef\nfedcba9876543210\n").unwrap();
    file
}
