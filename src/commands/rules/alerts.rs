//! The alerts, with what each waits for.

mod events;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;
use crate::model::EndpointName;

/// One alerting rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) name: &'static str,
    /// PromQL.
    pub(super) expression: String,
    /// How long the expression has to hold before the alert fires.
    pub(super) wait: Duration,
    pub(super) severity: Severity,
    /// A template of Prometheus, on one line.
    pub(super) summary: String,
    pub(super) description: String,
    /// The section of the README that says what to do; without `#`.
    pub(super) runbook: &'static str,
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// Old content is being served, or nobody would notice if it were.
    Critical,
    /// To be looked at in working hours.
    Warning,
}

impl Severity {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// The alerts for a configuration. Those that could never fire with it are left out.
///
/// No alert fires on a single scrape: what one bad probe or check shows is mended or confirmed by
/// the next, so each waits for more than one of them, and for `least` at the least, a minute as a
/// rule. What a cache or an origin does by itself now and then gets a multiple of it.
pub(super) fn of(config: &Config, job: &str, least: Duration) -> Vec<Alert> {
    let slowest = watched(config).map(|(_, interval)| interval).max().unwrap_or_default();
    let mut alerts = vec![stale(least)];
    alerts.extend(purge_path(config, least));
    alerts.extend(canary(config, least));
    alerts.extend(bans_pending(config, least));
    alerts.push(not_probed(config, least));
    alerts.push(nothing_probed(slowest, least));
    alerts.push(unknown(slowest, least));
    alerts.push(unverifiable(slowest, least));
    alerts.push(cache_down(slowest, least));
    alerts.push(origin_down(slowest, least));
    alerts.extend(pointer_broken(config, least));
    alerts.extend(pointer_unverifiable(config, least));
    alerts.extend(events::of(config, least));
    alerts.push(reload_failed(least));
    alerts.push(not_stored(least));
    alerts.push(daemon_down(job, least));
    alerts
}

/// The names of all endpoints and pointers, with how often they are fetched.
fn watched(config: &Config) -> impl Iterator<Item = (&EndpointName, Duration)> {
    let endpoints = config.endpoints.iter().map(|endpoint| (&endpoint.name, endpoint.interval));
    endpoints.chain(config.pointers.iter().map(|pointer| (&pointer.name, pointer.interval)))
}

/// `count` intervals, and `least` at the least.
fn intervals(count: u32, interval: Duration, least: Duration) -> Duration {
    interval.saturating_mul(count).max(least)
}

fn stale(least: Duration) -> Alert {
    Alert {
        name: "PurgewatchEndpointStale",
        // The state and not the bare comparison: an origin that has not held still yet is no
        // alarm, however long the cache has lagged behind it.
        expression:
            "purgewatch_endpoint_staleness_seconds > purgewatch_endpoint_max_stale_seconds \
                     and ignoring (state) purgewatch_endpoint_state{state=\"stale\"} == 1"
                .to_owned(),
        wait: least,
        severity: Severity::Critical,
        summary: "{{ $labels.node }} serves an old version of {{ $labels.endpoint }}".to_owned(),
        description: "The node {{ $labels.node }} has been serving a superseded version of the \
                      endpoint {{ $labels.endpoint }} (variant {{ $labels.variant }}) for at \
                      least {{ $value | humanizeDuration }}, longer than its max_stale."
            .to_owned(),
        runbook: "runbook-endpoint-stale",
    }
}

/// The path that bans take. One failed check may be a varnishd that compiles VCL; two are not. A
/// check that has not succeeded for long counts as well, should checks have stopped.
fn purge_path(config: &Config, least: Duration) -> Option<Alert> {
    let checks = config.nodes.iter().filter_map(|node| node.admin.as_ref());
    let slowest = checks.map(|admin| admin.interval + admin.timeout).max()?;
    let overdue = intervals(5, slowest, least * 5).as_secs();
    Some(Alert {
        name: "PurgewatchPurgePathBlocked",
        expression: format!(
            "purgewatch_node_admin_up == 0 or \
             time() - purgewatch_node_admin_last_success_timestamp_seconds > {overdue}"
        ),
        wait: intervals(2, slowest, least),
        severity: Severity::Critical,
        summary: "Bans do not reach {{ $labels.node }}".to_owned(),
        description: "The admin port of the node {{ $labels.node }} cannot be used: bans sent to \
                      it now do nothing. purgewatch_node_admin_failures_total names the reason."
            .to_owned(),
        runbook: "runbook-purge-path-blocked",
    })
}

/// Bans that do not work, whatever the reason. One failed round may be a restart of the node; two
/// are not. A round that has not succeeded for long counts as well, should rounds have stopped.
fn canary(config: &Config, least: Duration) -> Option<Alert> {
    let canaries = config.nodes.iter().filter_map(|node| node.canary.as_ref());
    let slowest = canaries.map(|canary| canary.interval).max()?;
    let overdue = intervals(5, slowest, least * 5).as_secs();
    Some(Alert {
        name: "PurgewatchCanaryFailed",
        expression: format!(
            "purgewatch_canary_up == 0 or \
             time() - purgewatch_canary_last_proven_timestamp_seconds > {overdue}"
        ),
        wait: intervals(2, slowest, least),
        severity: Severity::Critical,
        summary: "Bans do not work at {{ $labels.node }}".to_owned(),
        description:
            "The canary of the node {{ $labels.node }} was banned, and that did not prove \
                      that a ban takes effect there: bans sent to it now may do nothing. The \
                      status page and the log name the reason."
                .to_owned(),
        runbook: "runbook-canary-failed",
    })
}

/// Bans that nodes have missed for some minutes. A node that is back gets them within moments, so
/// this is one that stays away, refuses the secret, or has no cache process.
fn bans_pending(config: &Config, least: Duration) -> Option<Alert> {
    config.nodes.iter().find(|node| node.admin.is_some())?;
    let overdue = (least * 5).as_secs();
    Some(Alert {
        name: "PurgewatchBansPending",
        expression: format!(
            "time() - purgewatch_ledger_oldest_pending_timestamp_seconds > {overdue}"
        ),
        wait: least,
        severity: Severity::Critical,
        summary: "{{ $labels.node }} has missed bans".to_owned(),
        description: "The node {{ $labels.node }} has not taken bans that were issued up to \
                      {{ $value | humanizeDuration }} ago: it may serve what they were to remove. \
                      They are delivered when it can be reached."
            .to_owned(),
        runbook: "runbook-bans-pending",
    })
}

/// Endpoints of each interval are late after a time of their own.
fn not_probed(config: &Config, least: Duration) -> Alert {
    let mut by_interval: BTreeMap<Duration, Vec<&EndpointName>> = BTreeMap::new();
    for (name, interval) in watched(config) {
        by_interval.entry(interval).or_default().push(name);
    }
    // The most frequent interval is the one that names no endpoint but excludes the others, so
    // that the expression stays short.
    let usual =
        by_interval.iter().max_by_key(|(_, list)| list.len()).map(|(interval, _)| *interval);
    let others = watched(config).filter(|(_, interval)| Some(*interval) != usual);
    let others = alternatives(others.map(|(name, _)| name));
    let late = by_interval.iter().map(|(interval, endpoints)| {
        let selector = match (Some(*interval) == usual, others.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!("{{endpoint!~\"{others}\"}}"),
            (false, _) => format!("{{endpoint=~\"{}\"}}", alternatives(endpoints.iter().copied())),
        };
        let overdue = intervals(5, *interval, least * 2).as_secs();
        format!("time() - purgewatch_endpoint_last_probe_timestamp_seconds{selector} > {overdue}")
    });
    Alert {
        name: "PurgewatchEndpointNotProbed",
        expression: late.collect::<Vec<_>>().join(" or "),
        wait: least,
        severity: Severity::Critical,
        summary: "{{ $labels.endpoint }} is not being watched on {{ $labels.node }}".to_owned(),
        description: "The endpoint {{ $labels.endpoint }} (variant {{ $labels.variant }}) was \
                      last fetched from the node {{ $labels.node }} {{ $value | \
                      humanizeDuration }} ago: what it serves is not known."
            .to_owned(),
        runbook: "runbook-endpoint-not-probed",
    }
}

/// The names as alternatives of a regular expression, within a PromQL string. Of the characters
/// of a name only the point means something else there.
fn alternatives<'a>(names: impl Iterator<Item = &'a EndpointName>) -> String {
    let names = names.map(|name| name.as_str().replace('.', "\\\\."));
    names.collect::<Vec<_>>().join("|")
}

fn nothing_probed(slowest: Duration, least: Duration) -> Alert {
    Alert {
        name: "PurgewatchNothingProbed",
        expression: "absent(purgewatch_endpoint_last_probe_timestamp_seconds) \
                     unless on() absent(purgewatch_build_info)"
            .to_owned(),
        wait: intervals(2, slowest, least * 5),
        severity: Severity::Critical,
        summary: "purgewatch runs and has probed nothing".to_owned(),
        description: "The daemon answers, but no endpoint was fetched from any node since it \
                      started."
            .to_owned(),
        runbook: "runbook-endpoint-not-probed",
    }
}

fn unknown(slowest: Duration, least: Duration) -> Alert {
    Alert {
        name: "PurgewatchEndpointUnknown",
        expression: "purgewatch_endpoint_state{state=\"unknown\"} == 1".to_owned(),
        wait: intervals(5, slowest, least * 10),
        severity: Severity::Warning,
        summary: "Nothing is known of {{ $labels.endpoint }} on {{ $labels.node }}".to_owned(),
        description: "Whether the node {{ $labels.node }} serves the current version of the \
                      endpoint {{ $labels.endpoint }} (variant {{ $labels.variant }}) has not \
                      been learned since the daemon started."
            .to_owned(),
        runbook: "runbook-endpoint-unknown",
    }
}

fn unverifiable(slowest: Duration, least: Duration) -> Alert {
    Alert {
        name: "PurgewatchEndpointUnverifiable",
        expression: "purgewatch_endpoint_state{state=\"unverifiable\"} == 1".to_owned(),
        wait: intervals(5, slowest, least * 15),
        severity: Severity::Warning,
        summary: "{{ $labels.endpoint }} cannot be verified on {{ $labels.node }}".to_owned(),
        description: "What the origin serves for the endpoint {{ $labels.endpoint }} (variant \
                      {{ $labels.variant }}) cannot be compared: it differs each time, or lacks \
                      what is compared. Old content on the node {{ $labels.node }} would not be \
                      noticed."
            .to_owned(),
        runbook: "runbook-endpoint-unverifiable",
    }
}

/// One for each node, however many endpoints it serves.
fn cache_down(slowest: Duration, least: Duration) -> Alert {
    Alert {
        name: "PurgewatchCacheDown",
        expression: "count without (endpoint, variant, state) \
                     (purgewatch_endpoint_state{state=\"cache_down\"} == 1) > 0"
            .to_owned(),
        wait: intervals(2, slowest, least * 2),
        severity: Severity::Warning,
        summary: "{{ $labels.node }} does not answer".to_owned(),
        description: "The node {{ $labels.node }} does not answer {{ $value }} of its watched \
                      endpoints and variants, or with an error."
            .to_owned(),
        runbook: "runbook-cache-down",
    }
}

/// One for each endpoint, however many nodes serve it.
fn origin_down(slowest: Duration, least: Duration) -> Alert {
    Alert {
        name: "PurgewatchOriginDown",
        expression: "count without (node, variant, state) \
                     (purgewatch_endpoint_state{state=\"origin_down\"} == 1) > 0"
            .to_owned(),
        wait: intervals(2, slowest, least * 5),
        severity: Severity::Warning,
        summary: "The origin of {{ $labels.endpoint }} does not answer".to_owned(),
        description: "The origin does not answer the endpoint {{ $labels.endpoint }}, or with an \
                      error, so changes of it are not noticed."
            .to_owned(),
        runbook: "runbook-origin-down",
    }
}

/// What a pointer leads to is not there, or not the same everywhere, or it leads nowhere. It had
/// its `max_stale` of patience already.
fn pointer_broken(config: &Config, least: Duration) -> Option<Alert> {
    config.pointers.first()?;
    Some(Alert {
        name: "PurgewatchPointerBroken",
        expression: "purgewatch_pointer_state{state=~\"broken|split|unreadable\"} == 1".to_owned(),
        wait: least,
        severity: Severity::Critical,
        summary: "The pointer {{ $labels.pointer }} is {{ $labels.state }}".to_owned(),
        description: "What the pointer {{ $labels.pointer }} leads to does not answer everywhere \
                      (broken), or is not the same at all nodes (split), or the pointer itself \
                      cannot be read or used (unreadable), for longer than its max_stale. The \
                      status page and the log say where."
            .to_owned(),
        runbook: "runbook-pointer-broken",
    })
}

/// One for each pointer of which nothing is known.
fn pointer_unverifiable(config: &Config, least: Duration) -> Option<Alert> {
    let slowest = config.pointers.iter().map(|pointer| pointer.interval).max()?;
    Some(Alert {
        name: "PurgewatchPointerUnverifiable",
        expression: "purgewatch_pointer_state{state=~\"unverifiable|unknown\"} == 1".to_owned(),
        wait: intervals(5, slowest, least * 15),
        severity: Severity::Warning,
        summary: "The pointer {{ $labels.pointer }} cannot be verified".to_owned(),
        description: "Whether the pointer {{ $labels.pointer }} leads everywhere to what is there \
                      cannot be told: it goes back and forth, what it leads to differs each time, \
                      or a server does not answer."
            .to_owned(),
        runbook: "runbook-pointer-unverifiable",
    })
}

fn reload_failed(least: Duration) -> Alert {
    Alert {
        name: "PurgewatchReloadFailed",
        expression: "purgewatch_config_last_reload_successful == 0".to_owned(),
        wait: least,
        severity: Severity::Warning,
        summary: "purgewatch refused its new configuration".to_owned(),
        description: "The daemon on {{ $labels.instance }} keeps working with the configuration \
                      before. `purgewatch config check` lists the faults of the new one."
            .to_owned(),
        runbook: "runbook-reload-failed",
    }
}

/// One attempt that fails is repeated within moments; some minutes of them are a full disk.
fn not_stored(least: Duration) -> Alert {
    Alert {
        name: "PurgewatchNotStored",
        expression: "purgewatch_store_up == 0".to_owned(),
        wait: least * 5,
        severity: Severity::Warning,
        summary: "purgewatch cannot store what must survive a restart".to_owned(),
        description: "The daemon on {{ $labels.instance }} cannot write to its state directory: \
                      after a restart it would have forgotten which bans are still to be \
                      delivered, and since when a cache is stale."
            .to_owned(),
        runbook: "runbook-not-stored",
    }
}

/// `up` sees one of several daemons vanish; `absent` sees the last one do so, and a target that
/// answers but is no purgewatch.
fn daemon_down(job: &str, least: Duration) -> Alert {
    let job = quoted(job);
    Alert {
        name: "PurgewatchDaemonDown",
        expression: format!(
            "up{{job={job}}} == 0 or on(job) absent(purgewatch_build_info{{job={job}}})"
        ),
        wait: least * 2,
        severity: Severity::Critical,
        summary: "purgewatch does not run".to_owned(),
        description: "Prometheus gets no metrics from the job {{ $labels.job }}{{ if \
                      $labels.instance }} at {{ $labels.instance }}{{ end }}: nobody watches the \
                      caches."
            .to_owned(),
        runbook: "runbook-daemon-down",
    }
}

/// A string of PromQL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const MINUTE: Duration = Duration::from_secs(60);

    fn config(endpoints: &[(&str, &str)]) -> Config {
        let mut text = String::from(
            "[[node]]\nname = \"n\"\nhttp = \"http://127.0.0.1:1\"\n\
             [[origin]]\nname = \"o\"\naddress = \"http://127.0.0.1:2\"\n",
        );
        for (name, interval) in endpoints {
            text.push_str(&format!(
                "[[endpoint]]\nname = \"{name}\"\nurl = \"http://a/\"\norigin = \"o\"\n\
                 interval = \"{interval}\"\n"
            ));
        }
        parse("f", &text).unwrap().config
    }

    #[test]
    fn each_interval_is_late_after_its_own_time() {
        const SERIES: &str = "time() - purgewatch_endpoint_last_probe_timestamp_seconds";
        let late = |endpoints: &[_]| not_probed(&config(endpoints), MINUTE).expression;
        assert_eq!(late(&[("a", "30s"), ("b", "30s")]), format!("{SERIES} > 150"));
        assert_eq!(
            late(&[("a", "30s"), ("b", "30s"), ("c.d", "1h"), ("e", "1s")]),
            format!(
                "{SERIES}{{endpoint=~\"e\"}} > 120 or \
                 {SERIES}{{endpoint!~\"c\\\\.d|e\"}} > 150 or \
                 {SERIES}{{endpoint=~\"c\\\\.d\"}} > 18000"
            )
        );
    }

    #[test]
    fn nodes_without_an_admin_port_have_no_purge_path() {
        assert_eq!(purge_path(&config(&[("a", "30s")]), MINUTE), None);
    }

    #[test]
    fn the_least_wait_makes_no_alert_quicker_than_its_probes() {
        let waits = |least: u64| {
            let alerts = of(&config(&[("a", "30s")]), "job", Duration::from_secs(least));
            alerts.into_iter().map(|a| (a.name, a.wait.as_secs())).collect::<BTreeMap<_, _>>()
        };
        let (usual, short) = (waits(60), waits(2));
        assert_eq!(usual["PurgewatchEndpointStale"], 60);
        assert_eq!(short["PurgewatchEndpointStale"], 2);
        assert_eq!((usual["PurgewatchCacheDown"], short["PurgewatchCacheDown"]), (120, 60));
        assert_eq!((usual["PurgewatchDaemonDown"], short["PurgewatchDaemonDown"]), (120, 4));
    }

    #[test]
    fn a_job_is_quoted() {
        assert_eq!(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
    }
}
