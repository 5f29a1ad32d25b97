//! `purgewatch publish` and the daemons of two hosts that follow the stream.

use std::process::Output;

use super::{PATH, Stage, cacheable, config, until};
use crate::ban::{check_code, purgewatch, text};
use crate::support::daemon::Daemon;
use crate::support::redis::PASSWORD;
use crate::support::relay::Relay;
use crate::support::varnish::{Options, Varnishd};

/// A second host, with a node of the same name as the first one's.
struct Second {
    varnishd: Varnishd,
    path: Relay,
    daemon: Daemon,
}

impl Second {
    fn of(first: &Stage) -> Self {
        let backend = Some(first.origin.address);
        let varnishd = Varnishd::start(Options { backend, ..Options::default() });
        let path = Relay::open(varnishd.admin);
        varnishd.get(super::HOST, PATH);
        let text =
            config(&varnishd, &first.origin, &path, &first.redis, &first.place, super::STREAM);
        let daemon = Daemon::start(&text.replace("host-1", "host-2"));
        let second = Self { varnishd, path, daemon };
        second.daemon.wait("the stream is followed", || {
            second.daemon.metric("purgewatch_subscription_up", &[]) == Some(1.0)
        });
        second.daemon.wait_for_state("rec", "fresh");
        second
    }

    fn bans(&self) -> Vec<String> {
        let bans = self.varnishd.bans();
        bans.into_iter().filter(|ban| ban.starts_with("obj.http.x-model")).collect()
    }
}

fn publish(stage: &Stage, arguments: &[&str]) -> Output {
    let url = format!("redis://127.0.0.1:{}", stage.redis.port);
    let all = ["publish", "--redis", &url, "--stream", "inv", "--password-env", "REDIS_PASSWORD"];
    purgewatch(&[&all[..], arguments].concat(), &[("REDIS_PASSWORD", PASSWORD)], "")
}

/// On standard output.
fn says(output: &Output, code: i32, words: &str) {
    check_code(output, code, "");
    assert!(text(&output.stdout).contains(words), "{words:?} is not in: {}", text(&output.stdout));
}

#[test]
fn every_host_confirms_what_its_node_took() {
    let first = Stage::of_stream("");
    let second = Second::of(&first);
    first.origin.serve(PATH, cacheable("two"));
    let output = publish(&first, &["--ban", "obj.http.x-model == one"]);
    says(&output, 0, "cache-01 (host-1): taken");
    says(&output, 0, "cache-01 (host-2): taken");
    assert_eq!(first.bans("obj.http.x-model").len(), 1);
    assert_eq!(second.bans().len(), 1);
    assert_eq!(first.body(), "two");

    // Proven is what was fetched again, at each.
    first.origin.serve(PATH, cacheable("three"));
    let output = publish(&first, &["--endpoint", "rec", "--prove", "20s"]);
    says(&output, 0, "cache-01 (host-1): proven");
    says(&output, 0, "cache-01 (host-2): proven");

    // A ban that hits nothing is taken, and proves nothing.
    first.origin.serve(PATH, cacheable("four"));
    let arguments = ["--ban", "obj.http.x-model == nope", "--verify", "rec", "--prove", "2s"];
    let output = publish(&first, &[&arguments[..], &["--within", "5s"]].concat());
    assert!(!output.status.success(), "{}", text(&output.stdout));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!said.contains("proven, after"), "{said}");

    // What names no endpoint has nothing to be proven by.
    let output = publish(&first, &["--ban", "obj.http.x-model == z", "--prove", "5s"]);
    check_code(&output, 3, "it names no endpoint that is watched at this node");
    first.daemon.wait("it does not count as proven", || {
        first.results("inv", "unproven") == Some(1.0) && first.results("inv", "proven") == Some(1.0)
    });
}

#[test]
fn a_host_whose_node_cannot_be_reached_is_named_and_catches_up() {
    let first = Stage::of_stream("");
    let second = Second::of(&first);
    second.path.set_blocked(true);
    let output = publish(&first, &["--ban", "obj.http.x-model == one", "--within", "3s"]);
    says(&output, 3, "cache-01 (host-1): taken");
    check_code(&output, 3, "cache-01 (host-2): no confirmation within 3s");
    assert!(second.bans().is_empty());
    second.path.set_blocked(false);
    until("it is taken", || second.bans().len() == 1);
    until("it is confirmed", || first.confirmations().matches("\"host\":\"host-2\"").count() == 1);

    // One that is gone is waited for until somebody says that it is.
    drop(second);
    let output = publish(&first, &["--ban", "obj.http.x-model == two", "--within", "2s"]);
    check_code(&output, 3, "cache-01 (host-2): no confirmation within 2s");
    says(&publish(&first, &["--forget", "host-2"]), 0, "host-2");
    let output = publish(&first, &["--ban", "obj.http.x-model == three"]);
    says(&output, 0, "cache-01 (host-1): taken");
    assert!(!text(&output.stdout).contains("host-2"));
}
