//! `/api/v1/status`: what is known, as one JSON document.
//!
//! The fields below are all there are; the document's `schema` grows when one changes its meaning
//! or goes, not when one is added. Points of time are seconds since the Unix epoch, of the wall
//! clock; `null` where nothing is known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::content::Steps;
use super::events::{EventResult, SubscriptionState};
use super::metrics::Health;
use crate::engine::{
    AdminState, CanaryState, NodeSnapshot, PointerSnapshot, STEPS, Snapshot, TargetSnapshot, Window,
};
use crate::model::Timestamp;
use crate::verdict::ProbeResult;

pub use super::level::{DAY, WEEK, seconds};

/// The number of this layout.
pub const SCHEMA: u32 = 1;

/// The whole document, as a reader gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The release that is running.
    pub version: String,
    /// When this was taken.
    pub taken: f64,
    /// How many endpoints are watched.
    pub endpoints: u64,
    /// Whether the last configuration that was to be read was refused.
    #[serde(default)]
    pub reload_failed: bool,
    /// Whether what has to survive a restart cannot be stored.
    #[serde(default)]
    pub store_failed: bool,
    /// One for each node, by name.
    pub nodes: Vec<Node<'static>>,
    /// One for each pointer, by name.
    #[serde(default)]
    pub pointers: Vec<Pointer<'static>>,
    /// One for each subscription, and one for events over HTTP where these are taken.
    #[serde(default)]
    pub subscriptions: Vec<Subscription<'static>>,
    /// One for each endpoint, variant and node, by these names.
    pub targets: Vec<Target<'static>>,
}

/// What is known of one endpoint and variant at one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target<'a> {
    /// The endpoint.
    pub endpoint: Cow<'a, str>,
    /// Its variant.
    pub variant: Cow<'a, str>,
    /// The node.
    pub node: Cow<'a, str>,
    /// The state: `unknown`, `fresh`, `lagging`, `stale`, `unverifiable`, `cache_down`,
    /// `origin_down`.
    pub state: Cow<'a, str>,
    /// Since when.
    pub since: f64,
    /// 0 when fresh, a lower bound while lagging or stale.
    pub staleness_seconds: Option<f64>,
    /// How long the node may lag behind.
    pub max_stale_seconds: f64,
    /// The `Age` last seen at the node.
    pub age_seconds: Option<u64>,
    /// When the node was last probed.
    pub last_probe: Option<f64>,
    /// When it was last seen to be fresh.
    pub last_fresh: Option<f64>,
    /// Probes of the node, by result.
    pub probes: BTreeMap<Cow<'a, str>, u64>,
    /// The version that the node served last.
    pub node_version: Option<String>,
    /// The version that the origin served last.
    pub origin_version: Option<String>,
    /// Why the state is what it is, where there is more to say.
    pub reason: Option<Cow<'a, str>>,
    /// The last ban that was to cure it, if there was one since the daemon started; the same for
    /// all variants.
    pub remedy: Option<Remedy<'a>>,
    /// While lagging or stale: when the origin was last seen to serve what the node serves.
    #[serde(default)]
    pub origin_changed_after: Option<f64>,
    /// While lagging or stale: when it was first seen not to.
    #[serde(default)]
    pub origin_changed_before: Option<f64>,
    /// While lagging or stale: why the node serves old content; `null` as long as nobody knows.
    /// `never_purged`, `purge_undelivered`, `ban_missed_it`, `raced_fill`, `grace`, `variant_only`,
    /// `upstream`, `undetermined`.
    #[serde(default)]
    pub cause: Option<Cow<'a, str>>,
    /// What the cause rests on, the strongest first, and last what to do: sentences for people.
    #[serde(default)]
    pub findings: Vec<Cow<'a, str>>,
}

/// A ban of the daemon on what was stale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remedy<'a> {
    /// How many there were.
    pub count: u64,
    /// When the last one ended.
    pub last: f64,
    /// Whether the node served what the origin served after it.
    pub cured: bool,
    /// What came of it, in words.
    pub result: Cow<'a, str>,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node<'a> {
    /// The node.
    pub node: Cow<'a, str>,
    /// Its admin port; `null` when none is configured.
    pub admin: Option<Admin<'a>>,
    /// Its canary; `null` when none is configured.
    pub canary: Option<Canary<'a>>,
    /// How many bans it missed and is to get.
    #[serde(default)]
    pub pending_bans: u64,
    /// How soon changes of the origins showed here in the last 24 hours.
    pub day: Changes,
    /// The same for the last seven days.
    pub week: Changes,
}

/// What is known of a pointer and of what it leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pointer<'a> {
    /// The pointer.
    pub pointer: Cow<'a, str>,
    /// The state: `unknown`, `good`, `lagging`, `broken`, `split`, `unverifiable`, `unreadable`.
    pub state: Cow<'a, str>,
    /// Since when.
    pub since: f64,
    /// What it names, as its origin said last.
    pub value: Option<Cow<'a, str>>,
    /// What it named before, while that is still watched.
    pub previous: Option<Cow<'a, str>>,
    /// When it was seen to change, or first seen.
    pub last_change: Option<f64>,
    /// How long all may be out of step.
    pub max_stale_seconds: f64,
    /// What the nodes that serve the pointer itself answered last: a version.
    pub nodes: BTreeMap<Cow<'a, str>, Option<String>>,
    /// The URLs that it leads to, by the variant that each appears as among the targets.
    pub targets: BTreeMap<Cow<'a, str>, String>,
    /// What keeps it from being good, the worst first: sentences for people.
    pub findings: Vec<Cow<'a, str>>,
}

/// What is known of a source of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription<'a> {
    /// The stream or channel as it is configured; `http` for events over HTTP.
    pub subscription: Cow<'a, str>,
    /// Whether it can be read; `null` for events over HTTP.
    pub up: Option<bool>,
    /// Why not, in words.
    pub problem: Option<Cow<'a, str>>,
    /// When an event last came.
    pub last_event: Option<f64>,
    /// Events that some node has not settled.
    pub open: u64,
    /// What came of events since the daemon started: `taken`, `proven`, `unproven`, `rejected`,
    /// `refused`, `elsewhere`, `lost`.
    pub events: BTreeMap<Cow<'a, str>, u64>,
    /// How often events may have been lost before they were read.
    pub gaps: u64,
    /// How many certainly were, as far as that is known.
    pub lost: u64,
    /// Entries that were set aside.
    pub set_aside: u64,
}

/// How soon changes of the origins showed at a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// From when on they were counted.
    pub since: f64,
    /// How many there were, of each variant; those included that have not shown for a second.
    pub changes: u64,
    /// How many of them showed within so many seconds.
    pub within_seconds: BTreeMap<u64, u64>,
    /// How many of them do not show yet, for longer than so many seconds.
    #[serde(default)]
    pub missing_seconds: BTreeMap<u64, u64>,
    /// For how long the oldest of those has not shown.
    #[serde(default)]
    pub oldest_missing_seconds: Option<f64>,
}

/// What the checks of an admin port showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admin<'a> {
    /// Whether the last check passed; `null` before the first one ended.
    pub up: Option<bool>,
    /// When a check last passed.
    pub last_success: Option<f64>,
    /// Checks that failed, by reason.
    pub failures: BTreeMap<Cow<'a, str>, u64>,
    /// The last failure in words, while it lasts.
    pub problem: Option<Cow<'a, str>>,
}

/// What the canary of a node showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary<'a> {
    /// Whether the last round proved that bans work; `null` before the first one ended.
    pub up: Option<bool>,
    /// When a round last proved it.
    pub last_proven: Option<f64>,
    /// What the last round showed instead, in words.
    pub problem: Option<Cow<'a, str>>,
}

impl<'a> Target<'a> {
    fn of(target: &'a TargetSnapshot, offset: i64) -> Self {
        let time = |at: Timestamp| at.shifted(offset).as_seconds();
        let results = ProbeResult::ALL.into_iter().map(|result| result.label().into());
        Self {
            endpoint: target.endpoint.as_str().into(),
            variant: target.variant.as_str().into(),
            node: target.node.as_str().into(),
            state: target.state.label().into(),
            since: time(target.since),
            staleness_seconds: target.staleness.map(|staleness| staleness.as_secs_f64()),
            max_stale_seconds: target.max_stale.as_secs_f64(),
            age_seconds: target.age,
            last_probe: target.last_probe.map(time),
            last_fresh: target.last_fresh.map(time),
            probes: results.zip(target.probes).collect(),
            node_version: target.node_version.as_ref().map(ToString::to_string),
            origin_version: target.origin_version.as_ref().map(ToString::to_string),
            reason: target.reason.as_deref().map(Into::into),
            remedy: target.remedy.as_ref().map(|remedy| Remedy {
                count: remedy.count,
                last: time(remedy.last),
                cured: remedy.cured,
                result: remedy.result.as_str().into(),
            }),
            origin_changed_after: target.change.after.map(time),
            origin_changed_before: target.change.before.map(time),
            cause: target.cause.as_ref().map(|explanation| explanation.cause.label().into()),
            findings: target.cause.as_ref().map_or_else(Vec::new, |explanation| {
                explanation.findings.iter().map(|finding| finding.as_str().into()).collect()
            }),
        }
    }
}

impl<'a> Node<'a> {
    fn of(node: &'a NodeSnapshot, offset: i64) -> Self {
        let admin = |admin: &'a AdminState| Admin {
            up: admin.up,
            last_success: admin.last_success.map(|at| at.shifted(offset).as_seconds()),
            failures: admin.failures.iter().map(|(why, count)| ((*why).into(), *count)).collect(),
            problem: admin.problem.as_deref().map(Into::into),
        };
        let canary = |canary: &'a CanaryState| Canary {
            up: canary.up,
            last_proven: canary.last_proven.map(|at| at.shifted(offset).as_seconds()),
            problem: canary.problem.as_deref().map(Into::into),
        };
        Self {
            node: node.node.as_str().into(),
            admin: node.admin.as_ref().map(admin),
            canary: node.canary.as_ref().map(canary),
            pending_bans: u64::try_from(node.pending_bans).unwrap_or(u64::MAX),
            day: Changes::of(&node.level.day, offset),
            week: Changes::of(&node.level.week, offset),
        }
    }
}

impl<'a> Pointer<'a> {
    fn of(pointer: &'a PointerSnapshot, offset: i64) -> Self {
        let time = |at: Timestamp| at.shifted(offset).as_seconds();
        let nodes = pointer.nodes.iter();
        let targets = pointer.targets.iter();
        Self {
            pointer: pointer.pointer.as_str().into(),
            state: pointer.state.label().into(),
            since: time(pointer.since),
            value: pointer.value.as_ref().map(|value| value.as_str().into()),
            previous: pointer.previous.as_ref().map(|value| value.as_str().into()),
            last_change: pointer.last_change.map(time),
            max_stale_seconds: pointer.max_stale.as_secs_f64(),
            nodes: nodes
                .map(|(node, version)| {
                    (node.as_str().into(), version.as_ref().map(ToString::to_string))
                })
                .collect(),
            targets: targets
                .map(|(variant, url)| (variant.as_str().into(), url.to_string()))
                .collect(),
            findings: pointer.findings.iter().map(|finding| finding.text.as_str().into()).collect(),
        }
    }
}

impl<'a> Subscription<'a> {
    fn of(state: &'a SubscriptionState, offset: i64) -> Self {
        let results = EventResult::ALL.into_iter().map(|result| result.label().into());
        Self {
            subscription: state.name.as_str().into(),
            up: state.up,
            problem: state.problem.as_deref().map(Into::into),
            last_event: state.last_event.map(|at| at.shifted(offset).as_seconds()),
            open: u64::try_from(state.open).unwrap_or(u64::MAX),
            events: results.zip(state.results).collect(),
            gaps: state.gaps,
            lost: state.lost,
            set_aside: state.set_aside,
        }
    }
}

impl Changes {
    pub(super) fn of(window: &Window, offset: i64) -> Self {
        Self {
            since: window.since.shifted(offset).as_seconds(),
            changes: window.changes,
            within_seconds: STEPS.iter().map(Duration::as_secs).zip(window.within).collect(),
            missing_seconds: STEPS.iter().map(Duration::as_secs).zip(window.missing).collect(),
            oldest_missing_seconds: window.oldest_missing.map(|age| age.as_secs_f64()),
        }
    }
}

/// The document, written in steps.
pub(super) struct Writer {
    snapshot: Arc<Snapshot>,
    health: Health,
    subscriptions: Vec<SubscriptionState>,
    offset: i64,
    next: Step,
}

enum Step {
    Head,
    Node(usize),
    Pointers,
    Pointer(usize),
    Subscriptions,
    Subscription(usize),
    Between,
    Target(usize),
    Done,
}

impl Writer {
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        health: Health,
        subscriptions: Vec<SubscriptionState>,
        offset: i64,
    ) -> Self {
        Self { snapshot, health, subscriptions, offset, next: Step::Head }
    }

    fn head(&self, out: &mut Vec<u8>) {
        let taken = self.snapshot.taken.shifted(self.offset).as_seconds();
        let version = env!("CARGO_PKG_VERSION");
        let endpoints = self.snapshot.endpoints;
        let Health { reload_failed, store_failed } = self.health;
        let head = format!(
            "{{\"schema\":{SCHEMA},\"version\":\"{version}\",\"taken\":{taken},\
             \"endpoints\":{endpoints},\"reload_failed\":{reload_failed},\
             \"store_failed\":{store_failed},\"nodes\":[\n"
        );
        out.extend_from_slice(head.as_bytes());
    }
}

impl Steps for Writer {
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        self.next = match self.next {
            Step::Head => {
                self.head(out);
                Step::Node(0)
            }
            Step::Node(place) => match self.snapshot.nodes.get(place) {
                Some(node) => {
                    item(out, place, &Node::of(node, self.offset));
                    Step::Node(place + 1)
                }
                None => Step::Pointers,
            },
            Step::Pointers => {
                out.extend_from_slice(b"\n],\"pointers\":[\n");
                Step::Pointer(0)
            }
            Step::Pointer(place) => match self.snapshot.pointers.get(place) {
                Some(pointer) => {
                    item(out, place, &Pointer::of(pointer, self.offset));
                    Step::Pointer(place + 1)
                }
                None => Step::Subscriptions,
            },
            Step::Subscriptions => {
                out.extend_from_slice(b"\n],\"subscriptions\":[\n");
                Step::Subscription(0)
            }
            Step::Subscription(place) => match self.subscriptions.get(place) {
                Some(state) => {
                    item(out, place, &Subscription::of(state, self.offset));
                    Step::Subscription(place + 1)
                }
                None => Step::Between,
            },
            Step::Between => {
                out.extend_from_slice(b"\n],\"targets\":[\n");
                Step::Target(0)
            }
            Step::Target(place) => match self.snapshot.targets.get(place) {
                Some(target) => {
                    item(out, place, &Target::of(target, self.offset));
                    Step::Target(place + 1)
                }
                None => {
                    out.extend_from_slice(b"\n]}\n");
                    Step::Done
                }
            },
            Step::Done => return false,
        };
        true
    }
}

/// Writes one item of a list. Strings and numbers only: there is nothing that could fail.
fn item(out: &mut Vec<u8>, place: usize, value: &impl Serialize) {
    if place > 0 {
        out.extend_from_slice(b",\n");
    }
    let _ = serde_json::to_writer(out, value);
}
