//! The alerts about invalidation events.

use std::time::Duration;

use super::{Alert, Severity, quoted};
use crate::config::{Config, EventSource};

/// What a counter rose by is looked for within so long.
const WINDOW: &str = "15m";

/// Those that the subscriptions of a configuration need.
pub(super) fn of(config: &Config, least: Duration) -> Vec<Alert> {
    if config.subscriptions.is_empty() {
        return Vec::new();
    }
    vec![down(least), lost(config, least), failed(least)]
}

/// A server that is restarted is back well within the time.
fn down(least: Duration) -> Alert {
    Alert {
        name: "PurgewatchSubscriptionDown",
        expression: "purgewatch_subscription_up == 0".to_owned(),
        wait: least * 2,
        severity: Severity::Critical,
        summary: "No events come from {{ $labels.subscription }}".to_owned(),
        description: "The daemon on {{ $labels.instance }} cannot read the events of \
                      {{ $labels.subscription }}: what they invalidate stays in its caches. The \
                      log names the reason."
            .to_owned(),
        runbook: "runbook-subscription-down",
    }
}

/// Every gap of a stream is a loss. One of a channel is a connection that broke, of which nobody
/// knows whether anything was sent meanwhile; it is answered as configured, and no reason to call
/// somebody.
fn lost(config: &Config, least: Duration) -> Alert {
    let streams =
        config.subscriptions.iter().filter_map(|subscription| match &subscription.source {
            EventSource::Stream(stream) => Some(regex::escape(&stream.key)),
            EventSource::Channel(_) => None,
        });
    let streams = streams.collect::<Vec<_>>().join("|");
    let mut counters = vec![
        "purgewatch_events_lost_total".to_owned(),
        "purgewatch_events_total{result=\"lost\",subscription!=\"http\"}".to_owned(),
    ];
    if !streams.is_empty() {
        let streams = quoted(&streams);
        counters.push(format!("purgewatch_subscription_gaps_total{{subscription=~{streams}}}"));
    }
    let rose: Vec<_> = counters.iter().map(|counter| rose(counter)).collect();
    Alert {
        name: "PurgewatchEventsLost",
        expression: format!("sum without (result) ({})", rose.join(" or ")),
        wait: least,
        severity: Severity::Warning,
        summary: "Events of {{ $labels.subscription }} were lost".to_owned(),
        description: "Events of {{ $labels.subscription }} were gone before the daemon on \
                      {{ $labels.instance }} had read them. It did what on_gap says; what they \
                      were to invalidate besides may still be served."
            .to_owned(),
        runbook: "runbook-events-lost",
    }
}

/// Senders over HTTP are told in the answer.
fn failed(least: Duration) -> Alert {
    let failed =
        "purgewatch_events_total{result=~\"unproven|rejected|refused\",subscription!=\"http\"}";
    Alert {
        name: "PurgewatchEventsFailed",
        expression: format!("sum without (result) ({})", rose(failed)),
        wait: least,
        severity: Severity::Warning,
        summary: "Events of {{ $labels.subscription }} were not carried out".to_owned(),
        description: "Events of {{ $labels.subscription }} could not be carried out on \
                      {{ $labels.instance }}, or did not prove to work. Those of a stream that failed \
                      are kept with the reason in {{ $labels.subscription }}:set-aside."
            .to_owned(),
        runbook: "runbook-events-failed",
    }
}

/// Where a counter rose. One that a daemon shows for the first time may have risen already, which
/// `increase` does not see: what was trimmed while it was down is counted when it starts.
fn rose(counter: &str) -> String {
    format!("increase({counter}[{WINDOW}]) > 0 or ({counter} > 0 unless {counter} offset {WINDOW})")
}
