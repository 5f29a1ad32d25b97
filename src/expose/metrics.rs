//! What the process counts of itself, as opposed to what a snapshot says about endpoints.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, TextEncoder,
};

use super::events::{self, SubscriptionState};
use super::process::Process;
use super::text::{Family, Value, end, label};
use crate::engine::{Backlog, BanResult, BanSource};
use crate::model::{NodeName, OriginName, Timestamp};
use crate::verdict::proof::Proof;
use crate::verdict::{Observation, Outcome, Phase, ProbeResult};

/// Counters and histograms of the process. Every label is a name from the configuration or from a
/// closed set; records of names that are not (or no longer) configured are dropped.
pub struct Metrics {
    durations: [[Histogram; PHASES.len()]; Side::ALL.len()],
    duration_family: HistogramVec,
    delay: Histogram,
    time_to_fresh: HistogramVec,
    bans: IntCounterVec,
    ban_proofs: IntCounterVec,
    origin_probes: IntCounterVec,
    names: RwLock<Names>,
    cells: Mutex<Cells>,
    process: Process,
}

/// Which side a fetch was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A node.
    Cache,
    /// An origin.
    Origin,
}

/// How storing goes, as the store tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether the last write worked.
    pub up: bool,
    /// When something was last written, on the program's own line.
    pub last_write: Option<Timestamp>,
    /// Records that are not written yet.
    pub pending: usize,
    /// Faults by reason; every reason is there from the start.
    pub errors: Vec<(&'static str, u64)>,
}

/// How the ledger stands, as the daemon tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// What waits for each node with an admin port.
    pub backlogs: Vec<(NodeName, Backlog)>,
    /// Bans that were dropped before a node had taken them, by reason; every reason is there from
    /// the start.
    pub dropped: Vec<(&'static str, u64)>,
}

/// What came of a fetch from an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OriginResult {
    Ok,
    NotModified,
    Unversioned,
    Status,
    Connect,
    Timeout,
    Protocol,
}

#[derive(Default)]
struct Names {
    nodes: BTreeSet<NodeName>,
    origins: BTreeSet<OriginName>,
}

/// What can be wrong with the daemon itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// The last configuration that was to be read was refused.
    pub(super) reload_failed: bool,
    /// What has to survive a restart cannot be stored.
    pub(super) store_failed: bool,
}

#[derive(Default)]
struct Cells {
    reload: Option<bool>,
    reload_success: Option<Timestamp>,
    store: Option<StoreHealth>,
    ledger: Option<LedgerState>,
    subscriptions: Vec<SubscriptionState>,
}

/// The labels of [`Proof`].
const PROOFS: [&str; 4] = ["proven", "replaced", "survived", "unprovable"];

const PHASES: [Phase; 4] = [Phase::Connect, Phase::Tls, Phase::FirstByte, Phase::Body];

const DURATION_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const DELAY_BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0];
const FRESH_BUCKETS: [f64; 9] = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0];

const RELOAD: Family = Family::gauge(
    "purgewatch_config_last_reload_successful",
    "1 when the configuration was read without a fault the last time.",
);
const RELOAD_SUCCESS: Family = Family::gauge(
    "purgewatch_config_last_reload_success_timestamp_seconds",
    "When the configuration in use was read.",
);
const STORE_UP: Family =
    Family::gauge("purgewatch_store_up", "1 when what must survive a restart can be stored.");
const STORE_LAST_WRITE: Family = Family::gauge(
    "purgewatch_store_last_write_timestamp_seconds",
    "When something was last stored.",
);
const STORE_PENDING: Family = Family::gauge(
    "purgewatch_store_pending_records",
    "Records that are kept in memory until they can be stored.",
);
const STORE_ERRORS: Family =
    Family::counter("purgewatch_store_errors_total", "Faults of the state file, by reason.");
const LEDGER_PENDING: Family =
    Family::gauge("purgewatch_ledger_pending", "Bans that the node has not taken and is to get.");
const LEDGER_OLDEST: Family = Family::gauge(
    "purgewatch_ledger_oldest_pending_timestamp_seconds",
    "When the oldest ban that waits for the node was issued; no sample while none waits.",
);
const LEDGER_DROPPED: Family = Family::counter(
    "purgewatch_ledger_dropped_total",
    "Bans that were dropped before the node had taken them, by reason.",
);
const NODE_BANS: Family = Family::gauge(
    "purgewatch_node_bans",
    "Bans on the node's list when they were last counted, as far as its cli_limit shows them; no sample where that is not known.",
);
const NODE_BANS_PACED: Family = Family::gauge(
    "purgewatch_node_bans_paced",
    "1 while the node's ban list is too long, so that bans go there slowly.",
);
const BUILD_INFO: Family =
    Family::gauge("purgewatch_build_info", "Always 1; the labels say what is running.");

impl Metrics {
    /// Nothing counted yet, and no names: see [`watch`](Self::watch).
    #[must_use]
    pub fn new() -> Self {
        let duration_family = histogram(
            "purgewatch_probe_duration_seconds",
            "How long the phases of a fetch took.",
            &DURATION_BUCKETS,
            &["side", "phase"],
        );
        let durations = Side::ALL.map(|side| {
            PHASES.map(|phase| duration_family.with_label_values(&[side.label(), phase.label()]))
        });
        let delay_family = histogram(
            "purgewatch_probe_delay_seconds",
            "How much later than due fetches were started.",
            &DELAY_BUCKETS,
            &[],
        );
        Self {
            durations,
            duration_family,
            delay: delay_family.with_label_values::<&str>(&[]),
            time_to_fresh: histogram(
                "purgewatch_time_to_fresh_seconds",
                "From the origin's change, or the invalidation, until the node was fresh.",
                &FRESH_BUCKETS,
                &["node"],
            ),
            bans: counter(
                "purgewatch_bans_total",
                "Bans sent to the node, by who asked for them and what came of them.",
                &["node", "source", "result"],
            ),
            ban_proofs: counter(
                "purgewatch_ban_proofs_total",
                "Bans of the daemon that the node took, by what is known of their effect.",
                &["node", "result"],
            ),
            origin_probes: counter(
                "purgewatch_origin_probes_total",
                "Fetches from the origin, by what came of them.",
                &["origin", "result"],
            ),
            names: RwLock::default(),
            cells: Mutex::default(),
            process: Process::new(),
        }
    }

    /// Sets the configured names: their series are there from now on, those of others vanish.
    pub fn watch(&self, nodes: &[NodeName], origins: &[OriginName]) {
        let nodes: BTreeSet<_> = nodes.iter().cloned().collect();
        let origins: BTreeSet<_> = origins.iter().cloned().collect();
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let each_ban = |node: &NodeName, act: &dyn Fn(&[&str])| {
            for source in BanSource::ALL {
                for result in BanResult::ALL {
                    act(&[node.as_str(), source.label(), result.label()]);
                }
            }
        };
        // A series that is not there cannot be removed; nor does it have to be.
        for node in names.nodes.difference(&nodes) {
            let _ = self.time_to_fresh.remove_label_values(&[node.as_str()]);
            each_ban(node, &|labels| drop(self.bans.remove_label_values(labels)));
            for result in PROOFS {
                let _ = self.ban_proofs.remove_label_values(&[node.as_str(), result]);
            }
        }
        for origin in names.origins.difference(&origins) {
            for result in OriginResult::ALL {
                let labels = [origin.as_str(), result.label()];
                let _ = self.origin_probes.remove_label_values(&labels);
            }
        }
        for node in &nodes {
            self.time_to_fresh.with_label_values(&[node.as_str()]);
            each_ban(node, &|labels| drop(self.bans.with_label_values(labels)));
            for result in PROOFS {
                self.ban_proofs.with_label_values(&[node.as_str(), result]);
            }
        }
        for origin in &origins {
            for result in OriginResult::ALL {
                self.origin_probes.with_label_values(&[origin.as_str(), result.label()]);
            }
        }
        *names = Names { nodes, origins };
    }

    /// Takes note of a fetch from a node. Its result is counted by the engine, per endpoint.
    pub fn record_cache_probe(&self, observation: &Observation) {
        self.record_durations(Side::Cache, observation);
    }

    /// Takes note of a fetch from an origin.
    pub fn record_origin_probe(&self, origin: &OriginName, observation: &Observation) {
        self.record_durations(Side::Origin, observation);
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if names.origins.contains(origin) {
            let result = OriginResult::of(observation);
            self.origin_probes.with_label_values(&[origin.as_str(), result.label()]).inc();
        }
    }

    /// Takes note of how much later than due a fetch was started.
    pub fn record_probe_delay(&self, late: Duration) {
        self.delay.observe(late.as_secs_f64());
    }

    /// Takes note that a node is fresh again, `after` the origin's change or the invalidation.
    pub fn record_time_to_fresh(&self, node: &NodeName, after: Duration) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if names.nodes.contains(node) {
            self.time_to_fresh.with_label_values(&[node.as_str()]).observe(after.as_secs_f64());
        }
    }

    /// Counts a ban.
    pub fn record_ban(&self, node: &NodeName, source: BanSource, result: BanResult) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if names.nodes.contains(node) {
            let labels = [node.as_str(), source.label(), result.label()];
            self.bans.with_label_values(&labels).inc();
        }
    }

    /// Counts what is known of the effect of a ban.
    pub fn record_proof(&self, node: &NodeName, proof: &Proof) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if names.nodes.contains(node) {
            self.ban_proofs.with_label_values(&[node.as_str(), proof.label()]).inc();
        }
    }

    /// Takes note that the configuration was read, at the start or again; `at` is on the program's
    /// own line.
    pub fn record_reload(&self, successful: bool, at: Timestamp) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.reload = Some(successful);
        if successful {
            cells.reload_success = Some(at);
        }
    }

    /// Takes over how storing goes.
    pub fn set_store(&self, health: StoreHealth) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).store = Some(health);
    }

    /// Takes over how the ledger stands.
    pub fn set_ledger(&self, state: LedgerState) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).ledger = Some(state);
    }

    /// What is wrong with the daemon itself.
    pub(super) fn health(&self) -> Health {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Health {
            reload_failed: cells.reload == Some(false),
            store_failed: cells.store.as_ref().is_some_and(|store| !store.up),
        }
    }

    /// How subscriptions stood when that was last taken over.
    pub(super) fn subscriptions(&self) -> Vec<SubscriptionState> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).subscriptions.clone()
    }

    /// Takes over how subscriptions stand.
    pub fn set_subscriptions(&self, states: Vec<SubscriptionState>) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).subscriptions = states;
    }

    /// Writes every family of these; the wall clock is `offset` milliseconds ahead of the line.
    pub(super) fn write(&self, out: &mut Vec<u8>, offset: i64) {
        BUILD_INFO.open(out);
        out.extend_from_slice(BUILD_INFO.name.as_bytes());
        out.push(b'{');
        label(out, "version", env!("CARGO_PKG_VERSION"));
        out.push(b',');
        label(out, "os", std::env::consts::OS);
        out.push(b',');
        label(out, "arch", std::env::consts::ARCH);
        out.push(b'}');
        end(out, Value::Number(1));
        self.write_cells(out, offset);
        let collectors: [&dyn Collector; 6] = [
            &self.duration_family,
            &self.delay,
            &self.time_to_fresh,
            &self.bans,
            &self.ban_proofs,
            &self.origin_probes,
        ];
        for collector in collectors {
            let families = collector.collect();
            // The encoder refuses a family without series, which is one without configured names.
            let filled: Vec<_> =
                families.into_iter().filter(|f| !f.get_metric().is_empty()).collect();
            let _ = TextEncoder::new().encode(&filled, out);
        }
        self.process.write(out);
    }

    fn write_cells(&self, out: &mut Vec<u8>, offset: i64) {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        RELOAD.single(out, cells.reload.map(Value::flag));
        let time = |at| Value::time(at, offset);
        RELOAD_SUCCESS.single(out, cells.reload_success.map(time));
        events::write(out, &cells.subscriptions, offset);
        if let Some(ledger) = &cells.ledger {
            write_ledger(out, ledger, offset);
        }
        let Some(store) = &cells.store else { return };
        STORE_UP.single(out, Some(Value::flag(store.up)));
        STORE_LAST_WRITE.single(out, store.last_write.map(time));
        STORE_PENDING.single(out, u64::try_from(store.pending).ok().map(Value::Number));
        STORE_ERRORS.open(out);
        for (reason, count) in &store.errors {
            out.extend_from_slice(STORE_ERRORS.name.as_bytes());
            out.push(b'{');
            label(out, "reason", reason);
            out.push(b'}');
            end(out, Value::Number(*count));
        }
    }

    fn record_durations(&self, side: Side, observation: &Observation) {
        let phases = &observation.phases;
        let times = [phases.connect, phases.tls, phases.first_byte, phases.body];
        let Some(histograms) = self.durations.get(side as usize) else { return };
        for (histogram, time) in histograms.iter().zip(times) {
            if let Some(time) = time {
                histogram.observe(time.as_secs_f64());
            }
        }
    }
}

fn write_ledger(out: &mut Vec<u8>, ledger: &LedgerState, offset: i64) {
    let sample = |out: &mut Vec<u8>, family: &Family, name, text: &str, value| {
        out.extend_from_slice(family.name.as_bytes());
        out.push(b'{');
        label(out, name, text);
        out.push(b'}');
        end(out, value);
    };
    LEDGER_PENDING.open(out);
    for (node, Backlog { pending, .. }) in &ledger.backlogs {
        let pending = Value::Number(u64::try_from(*pending).unwrap_or(u64::MAX));
        sample(out, &LEDGER_PENDING, "node", node.as_str(), pending);
    }
    LEDGER_OLDEST.open(out);
    for (node, Backlog { oldest, .. }) in &ledger.backlogs {
        if let Some(oldest) = oldest {
            sample(out, &LEDGER_OLDEST, "node", node.as_str(), Value::time(*oldest, offset));
        }
    }
    NODE_BANS.open(out);
    for (node, Backlog { listed, .. }) in &ledger.backlogs {
        if let Some(listed) = listed {
            let listed = Value::Number(u64::try_from(*listed).unwrap_or(u64::MAX));
            sample(out, &NODE_BANS, "node", node.as_str(), listed);
        }
    }
    NODE_BANS_PACED.open(out);
    for (node, Backlog { paced, .. }) in &ledger.backlogs {
        sample(out, &NODE_BANS_PACED, "node", node.as_str(), Value::flag(*paced));
    }
    LEDGER_DROPPED.open(out);
    for (reason, count) in &ledger.dropped {
        sample(out, &LEDGER_DROPPED, "reason", reason, Value::Number(*count));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Side {
    const ALL: [Self; 2] = [Self::Cache, Self::Origin];

    /// The `side` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Origin => "origin",
        }
    }
}

impl OriginResult {
    const ALL: [Self; 7] = [
        Self::Ok,
        Self::NotModified,
        Self::Unversioned,
        Self::Status,
        Self::Connect,
        Self::Timeout,
        Self::Protocol,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotModified => "not_modified",
            Self::Unversioned => "unversioned",
            Self::Status => "status",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }

    fn of(observation: &Observation) -> Self {
        let not_modified = matches!(&observation.outcome, Outcome::Answer(a) if a.status == 304);
        match observation.result() {
            ProbeResult::Ok | ProbeResult::NotACache if not_modified => Self::NotModified,
            // An origin need not be a cache.
            ProbeResult::Ok | ProbeResult::NotACache => Self::Ok,
            ProbeResult::Unversioned => Self::Unversioned,
            ProbeResult::Status => Self::Status,
            ProbeResult::Connect => Self::Connect,
            ProbeResult::Timeout => Self::Timeout,
            ProbeResult::Protocol => Self::Protocol,
        }
    }
}

#[expect(clippy::expect_used, reason = "names and labels are constants, valid in every test")]
fn histogram(name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, labels).expect("the names are valid")
}

#[expect(clippy::expect_used, reason = "names and labels are constants, valid in every test")]
fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("the names are valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Failure, Phases};

    fn text(metrics: &Metrics) -> String {
        let mut out = Vec::new();
        metrics.write(&mut out, 0);
        String::from_utf8(out).unwrap()
    }

    fn failed() -> Observation {
        Observation {
            started: Timestamp::EPOCH,
            finished: Timestamp::EPOCH,
            phases: Phases { connect: Some(Duration::from_millis(3)), ..Phases::default() },
            outcome: Outcome::Failed(Failure::Timeout(Phase::FirstByte)),
        }
    }

    #[test]
    fn series_come_and_go_with_the_configured_names() {
        let metrics = Metrics::new();
        let node = |name: &str| NodeName::new(name).unwrap();
        let origin = |name: &str| OriginName::new(name).unwrap();
        metrics.watch(&[node("a"), node("b")], &[origin("o")]);
        metrics.record_ban(&node("a"), BanSource::Event, BanResult::Accepted);
        metrics.record_origin_probe(&origin("o"), &failed());
        let before = text(&metrics);
        let line = "purgewatch_bans_total{node=\"a\",result=\"accepted\",source=\"event\"} 1\n";
        assert!(before.contains(line), "{before}");
        let line = "purgewatch_origin_probes_total{origin=\"o\",result=\"timeout\"} 1\n";
        assert!(before.contains(line), "{before}");
        assert!(before.contains("purgewatch_time_to_fresh_seconds_count{node=\"b\"} 0\n"));

        metrics.watch(&[node("a")], &[origin("p")]);
        let after = text(&metrics);
        assert!(!after.contains("node=\"b\"") && !after.contains("origin=\"o\""), "{after}");
        assert!(after.contains("result=\"accepted\",source=\"event\"} 1\n"), "a's count is kept");
        // What is still under way for a name that is gone does not bring it back.
        metrics.record_time_to_fresh(&node("b"), Duration::from_secs(1));
        metrics.record_ban(&node("b"), BanSource::Remedy, BanResult::Rejected);
        metrics.record_origin_probe(&origin("o"), &failed());
        let later = text(&metrics);
        assert!(!later.contains("node=\"b\"") && !later.contains("origin=\"o\""));
    }

    #[test]
    fn phases_that_were_not_reached_are_not_counted() {
        let metrics = Metrics::new();
        metrics.record_cache_probe(&failed());
        let text = text(&metrics);
        let count = |side, phase| {
            let line = format!(
                "purgewatch_probe_duration_seconds_count{{phase=\"{phase}\",side=\"{side}\"}} "
            );
            text.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((count("cache", "connect"), count("cache", "body")), (1, 0));
        assert_eq!(count("origin", "connect"), 0);
    }

    #[test]
    fn a_failed_reload_keeps_the_time_of_the_good_one() {
        let metrics = Metrics::new();
        let name = "purgewatch_config_last_reload_successful";
        assert!(!text(&metrics).contains(&format!("\n{name} ")), "nothing known, no sample");
        metrics.record_reload(true, Timestamp::from_millis(5_000));
        metrics.record_reload(false, Timestamp::from_millis(9_000));
        let text = text(&metrics);
        assert!(text.contains(&format!("\n{name} 0\n")));
        assert!(text.contains("\npurgewatch_config_last_reload_success_timestamp_seconds 5\n"));
    }
}
