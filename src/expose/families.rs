//! The families of `/metrics`, one after the other, straight from a snapshot.

use std::sync::Arc;

use super::content::Steps;
use super::metrics::Metrics;
use super::text::{Family, Value, end, label};
use crate::engine::{
    AdminState, CanaryState, NodeSnapshot, PointerSnapshot, PointerState, Snapshot, TargetSnapshot,
};
use crate::verdict::{Cause, ProbeResult, State};

const ENDPOINTS: Family = Family::gauge("purgewatch_endpoints", "How many endpoints are watched.");

/// Families with one sample, or some, for each endpoint, variant and node.
const TARGETS: [(Family, Samples); 8] = [
    (
        Family::gauge(
            "purgewatch_endpoint_staleness_seconds",
            "How long the node has served superseded content at least; 0 when fresh, no sample where it is not known.",
        ),
        Samples::One(|target, _| target.staleness.map(Value::seconds)),
    ),
    (
        Family::gauge(
            "purgewatch_endpoint_max_stale_seconds",
            "How long the node may lag behind its origin, as configured.",
        ),
        Samples::One(|target, _| Some(Value::seconds(target.max_stale))),
    ),
    (
        Family::gauge(
            "purgewatch_endpoint_state",
            "1 for the state that the endpoint is in at the node, 0 for the others.",
        ),
        Samples::States,
    ),
    (
        Family::gauge(
            "purgewatch_endpoint_cause",
            "While the endpoint is lagging or stale at the node: 1 for the cause that was found, 0 for the others.",
        ),
        Samples::Causes,
    ),
    (
        Family::gauge(
            "purgewatch_endpoint_object_age_seconds",
            "The Age header that the node sent last.",
        ),
        Samples::One(|target, _| target.age.map(Value::Number)),
    ),
    (
        Family::gauge(
            "purgewatch_endpoint_last_probe_timestamp_seconds",
            "When the endpoint was last probed at the node, whatever came of it.",
        ),
        Samples::One(|target, offset| target.last_probe.map(|at| Value::time(at, offset))),
    ),
    (
        Family::gauge(
            "purgewatch_endpoint_last_fresh_timestamp_seconds",
            "When the endpoint was last seen to be fresh at the node.",
        ),
        Samples::One(|target, offset| target.last_fresh.map(|at| Value::time(at, offset))),
    ),
    (
        Family::counter(
            "purgewatch_probes_total",
            "Fetches of the endpoint from the node, by what came of them.",
        ),
        Samples::Results,
    ),
];

/// How the samples of one target are made.
#[derive(Clone, Copy)]
enum Samples {
    One(fn(&TargetSnapshot, i64) -> Option<Value>),
    States,
    Causes,
    Results,
}

const ADMIN_UP: Family = Family::gauge(
    "purgewatch_node_admin_up",
    "1 when the last check of the node's admin port passed: connect, authenticate, ping.",
);
const ADMIN_LAST_SUCCESS: Family = Family::gauge(
    "purgewatch_node_admin_last_success_timestamp_seconds",
    "When a check of the node's admin port last passed.",
);
const ADMIN_FAILURES: Family = Family::counter(
    "purgewatch_node_admin_failures_total",
    "Checks of the node's admin port that failed, by reason.",
);

const CANARY_UP: Family = Family::gauge(
    "purgewatch_canary_up",
    "1 when the last ban of the node's canary was proven to work; no sample where that cannot be told.",
);
const CANARY_LAST_PROVEN: Family = Family::gauge(
    "purgewatch_canary_last_proven_timestamp_seconds",
    "When a ban of the node's canary was last proven to work.",
);

const POINTER_STATE: Family = Family::gauge(
    "purgewatch_pointer_state",
    "1 for the state that the pointer and what it leads to are in, 0 for the others.",
);
const POINTER_LAST_CHANGE: Family = Family::gauge(
    "purgewatch_pointer_last_change_timestamp_seconds",
    "When the pointer was last seen to change at its origin, or first seen.",
);

/// All families, as steps.
pub(super) struct Families {
    snapshot: Arc<Snapshot>,
    offset: i64,
    /// What the process counts of itself: written when the scrape began, a few kilobytes.
    own: Vec<u8>,
    family: usize,
    target: usize,
    done: bool,
    /// The beginning of the sample lines of one target: name and shared labels.
    line: Vec<u8>,
}

/// So many targets to a step.
const AT_ONCE: usize = 8;

impl Families {
    pub(super) fn new(snapshot: Arc<Snapshot>, metrics: &Metrics, offset: i64) -> Self {
        let mut own = Vec::with_capacity(16 * 1024);
        metrics.write(&mut own, offset);
        ENDPOINTS.single(&mut own, u64::try_from(snapshot.endpoints).ok().map(Value::Number));
        write_nodes(&mut own, &snapshot.nodes, offset);
        write_canaries(&mut own, &snapshot.nodes, offset);
        write_pointers(&mut own, &snapshot.pointers, offset);
        let line = Vec::with_capacity(256);
        Self { snapshot, offset, own, family: 0, target: 0, done: false, line }
    }
}

impl Steps for Families {
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        let Some((family, samples)) = TARGETS.get(self.family) else {
            out.append(&mut self.own);
            return !std::mem::replace(&mut self.done, true);
        };
        if self.target == 0 {
            family.open(out);
        }
        let targets = self.snapshot.targets.iter().skip(self.target).take(AT_ONCE);
        let mut written = 0;
        for target in targets {
            written += 1;
            write_target(out, &mut self.line, family, *samples, target, self.offset);
        }
        self.target += written;
        if written < AT_ONCE {
            self.family += 1;
            self.target = 0;
        }
        true
    }
}

fn write_target(
    out: &mut Vec<u8>,
    line: &mut Vec<u8>,
    family: &Family,
    samples: Samples,
    target: &TargetSnapshot,
    offset: i64,
) {
    let begin = |line: &mut Vec<u8>| {
        line.clear();
        line.extend_from_slice(family.name.as_bytes());
        line.push(b'{');
        label(line, "endpoint", target.endpoint.as_str());
        line.push(b',');
        label(line, "variant", target.variant.as_str());
        line.push(b',');
        label(line, "node", target.node.as_str());
    };
    match samples {
        Samples::One(value) => {
            if let Some(value) = value(target, offset) {
                begin(line);
                out.extend_from_slice(line);
                out.push(b'}');
                end(out, value);
            }
        }
        Samples::States => {
            begin(line);
            for state in State::ALL {
                out.extend_from_slice(line);
                out.push(b',');
                label(out, "state", state.label());
                out.push(b'}');
                end(out, Value::flag(state == target.state));
            }
        }
        // A fresh endpoint has no cause, and its series would be many.
        Samples::Causes if !matches!(target.state, State::Lagging | State::Stale) => {}
        Samples::Causes => {
            begin(line);
            let found = target.cause.as_ref().map(|explanation| explanation.cause);
            for cause in Cause::ALL {
                out.extend_from_slice(line);
                out.push(b',');
                label(out, "cause", cause.label());
                out.push(b'}');
                end(out, Value::flag(found == Some(cause)));
            }
        }
        Samples::Results => {
            begin(line);
            for (result, count) in ProbeResult::ALL.into_iter().zip(target.probes) {
                out.extend_from_slice(line);
                out.push(b',');
                label(out, "result", result.label());
                out.push(b'}');
                end(out, Value::Number(count));
            }
        }
    }
}

fn write_nodes(out: &mut Vec<u8>, nodes: &[NodeSnapshot], offset: i64) {
    let with_admin =
        || nodes.iter().filter_map(|node| node.admin.as_ref().map(|a| (node.node.as_str(), a)));
    let one = |out: &mut Vec<u8>, family: Family, value: &dyn Fn(&AdminState) -> Option<Value>| {
        family.open(out);
        for (node, admin) in with_admin() {
            if let Some(value) = value(admin) {
                out.extend_from_slice(family.name.as_bytes());
                out.push(b'{');
                label(out, "node", node);
                out.push(b'}');
                end(out, value);
            }
        }
    };
    one(out, ADMIN_UP, &|admin| admin.up.map(Value::flag));
    let time = |at| Value::time(at, offset);
    one(out, ADMIN_LAST_SUCCESS, &|admin| admin.last_success.map(time));
    ADMIN_FAILURES.open(out);
    for (node, admin) in with_admin() {
        for (reason, count) in &admin.failures {
            out.extend_from_slice(ADMIN_FAILURES.name.as_bytes());
            out.push(b'{');
            label(out, "node", node);
            out.push(b',');
            label(out, "reason", reason);
            out.push(b'}');
            end(out, Value::Number(*count));
        }
    }
}

fn write_canaries(out: &mut Vec<u8>, nodes: &[NodeSnapshot], offset: i64) {
    let one = |out: &mut Vec<u8>, family: Family, value: &dyn Fn(&CanaryState) -> Option<Value>| {
        family.open(out);
        for node in nodes {
            if let Some(value) = node.canary.as_ref().and_then(value) {
                out.extend_from_slice(family.name.as_bytes());
                out.push(b'{');
                label(out, "node", node.node.as_str());
                out.push(b'}');
                end(out, value);
            }
        }
    };
    one(out, CANARY_UP, &|canary| canary.up.map(Value::flag));
    one(out, CANARY_LAST_PROVEN, &|canary| canary.last_proven.map(|at| Value::time(at, offset)));
}

fn write_pointers(out: &mut Vec<u8>, pointers: &[PointerSnapshot], offset: i64) {
    let begin = |out: &mut Vec<u8>, family: &Family, pointer: &PointerSnapshot| {
        out.extend_from_slice(family.name.as_bytes());
        out.push(b'{');
        label(out, "pointer", pointer.pointer.as_str());
    };
    POINTER_STATE.open(out);
    for pointer in pointers {
        for state in PointerState::ALL {
            begin(out, &POINTER_STATE, pointer);
            out.push(b',');
            label(out, "state", state.label());
            out.push(b'}');
            end(out, Value::flag(state == pointer.state));
        }
    }
    POINTER_LAST_CHANGE.open(out);
    for pointer in pointers {
        if let Some(at) = pointer.last_change {
            begin(out, &POINTER_LAST_CHANGE, pointer);
            out.push(b'}');
            end(out, Value::time(at, offset));
        }
    }
}
