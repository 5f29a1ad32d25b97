//! Canaries and remedies, played through the engine in no time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::*;
use super::{START, plan};
use crate::ban;
use crate::model::{Mark, Version};
use crate::verdict::proof::Proof;
use crate::verdict::{
    Answer, CacheSigns, Failure, Observation, Outcome, Phases, State, Validators,
};

/// A node that caches as Varnish does, and an origin.
struct Cluster {
    engine: Engine,
    now: Timestamp,
    /// What is in the cache of each node: the content, and the fetch that made it.
    cached: BTreeMap<NodeName, (String, u64)>,
    fetches: u64,
    /// What the origin serves; `None`: it does not answer.
    origin: Option<String>,
    /// What the daemon serves as a canary.
    canary: Option<String>,
    node_answers: bool,
    caches: bool,
    /// Whether a ban is taken, and has an effect.
    takes_bans: bool,
    bans_work: bool,
    /// Whether the origin serves something else each time.
    flaps: bool,
    /// Whether it goes back and forth between two versions, every so many seconds.
    alternates: Option<u64>,
    bans: Vec<(u64, NodeName)>,
    canaries: Vec<(u64, bool, String)>,
    proofs: Vec<Proof>,
    remedied: Vec<(u64, bool, String)>,
}

impl Cluster {
    fn new(plan: Plan) -> Self {
        let now = Timestamp::from_millis(START);
        Self {
            engine: Engine::new(plan, Restored::default(), &["refused"], 7, now),
            now,
            cached: BTreeMap::new(),
            fetches: 0,
            origin: Some("one".to_owned()),
            canary: None,
            node_answers: true,
            caches: true,
            takes_bans: true,
            bans_work: true,
            flaps: false,
            alternates: None,
            bans: Vec::new(),
            canaries: Vec::new(),
            proofs: Vec::new(),
            remedied: Vec::new(),
        }
    }

    fn seconds(&self) -> u64 {
        self.now.since(Timestamp::from_millis(START)).as_secs()
    }

    /// Plays until `seconds` after the start.
    fn run_until(&mut self, seconds: u64) -> &mut Self {
        let end = Timestamp::from_millis(START + seconds * 1_000);
        let mut under_way: BTreeMap<(Timestamp, u64), Input> = BTreeMap::new();
        let mut number = 0;
        self.engine.handle(Input::Tick, self.now);
        loop {
            while let Some(output) = self.engine.poll_output() {
                number += 1;
                if let Some(input) = self.answer(output) {
                    under_way.insert((self.now + Duration::from_millis(10), number), input);
                }
            }
            let arrival = under_way.keys().next().map(|(at, _)| *at);
            let deadline = self.engine.next_deadline();
            let next = arrival.into_iter().chain(deadline).min().filter(|next| *next <= end);
            let Some(next) = next else {
                // What is under way at the end is made up for later.
                for input in under_way.into_values() {
                    self.engine.handle(input, end);
                }
                self.now = end;
                return self;
            };
            self.now = self.now.max(next);
            let input = match under_way.first_entry() {
                Some(entry) if entry.key().0 <= self.now => entry.remove(),
                _ => Input::Tick,
            };
            self.engine.handle(input, self.now);
        }
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        let seconds = self.seconds();
        match output {
            Output::Fetch { id, side, .. } => {
                let observation = self.fetch(&side);
                Some(Input::Fetched { id, observation })
            }
            Output::CheckAdmin(node) => Some(Input::AdminChecked { node, result: Ok(None) }),
            Output::Errand { id, errand: Errand::Fetch { side, .. } } => {
                let result = ErrandResult::Fetched(self.fetch(&side));
                Some(Input::ErrandDone { id, result })
            }
            Output::Errand { id, errand: Errand::Ban { node, .. } } => {
                self.bans.push((seconds, node.clone()));
                let result = if self.takes_bans {
                    if self.bans_work {
                        self.cached.remove(&node);
                    }
                    Ok(())
                } else {
                    Err(AdminProblem { reason: "refused", text: "it was refused".to_owned() })
                };
                Some(Input::ErrandDone { id, result: ErrandResult::Banned(result) })
            }
            Output::ServeCanary { body, .. } => {
                self.canary = Some(body);
                None
            }
            Output::CanaryChanged { up, problem, .. } => {
                self.canaries.push((seconds, up == Some(true), problem.unwrap_or_default()));
                None
            }
            Output::Remedied { cured, result, .. } => {
                self.remedied.push((seconds, cured, result));
                None
            }
            Output::Proved { proof, .. } => {
                self.proofs.push(proof);
                None
            }
            _ => None,
        }
    }

    fn fetch(&mut self, side: &Side) -> Observation {
        self.fetches += 1;
        let fetches = self.fetches;
        let current = self.canary.clone().or_else(|| self.origin.clone());
        let current =
            current.map(|text| if self.flaps { format!("{text} {fetches}") } else { text });
        let turn = self.alternates.map(|every| self.seconds() / every % 2);
        let current = turn.map_or(current, |turn| Some(format!("turn {turn}")));
        let failed = Outcome::Failed(Failure::Timeout(crate::verdict::Phase::FirstByte));
        let outcome = match side {
            Side::Origin(_) => current.map_or(failed, |text| answer(&text, None)),
            Side::Cache(_) if !self.node_answers => failed,
            Side::Cache(node) => match (self.cached.get(node), current) {
                (Some((text, made_by)), _) => answer(text, Some((fetches, Some(*made_by)))),
                (None, None) => failed,
                (None, Some(text)) => {
                    if self.caches {
                        self.cached.insert(node.clone(), (text.clone(), fetches));
                    }
                    answer(&text, Some((fetches, None)))
                }
            },
        };
        Observation { started: self.now, finished: self.now, phases: Phases::default(), outcome }
    }

    fn canary(&self) -> CanaryState {
        self.engine.snapshot(self.now).nodes[0].canary.clone().unwrap()
    }

    fn states(&self) -> Vec<State> {
        self.engine.snapshot(self.now).targets.iter().map(|target| target.state).collect()
    }
}

fn answer(text: &str, transaction: Option<(u64, Option<u64>)>) -> Outcome {
    let mark = Mark::Body(Sha256::digest(text.as_bytes()).into());
    Outcome::Answer(Box::new(Answer {
        status: 200,
        version: Ok(Version { status: 200, mark }),
        validators: Validators::default(),
        cache: CacheSigns { transaction, is_varnish: transaction.is_some(), age: Some(3) },
        retry_after: None,
        body_bytes: 0,
        headers: None,
    }))
}

fn with_canary(interval: u64, is_served: bool) -> Plan {
    let mut plan = plan(1, 1);
    let target = plan.watches.remove(0).target;
    plan.nodes[0].canary = Some(CanaryPlan {
        target,
        ban: ban::parse(b"obj.http.x-purgewatch-canary == n0").unwrap(),
        interval: Duration::from_secs(interval),
        is_served,
    });
    plan
}

fn with_remedies(endpoints: usize) -> Plan {
    let mut plan = plan(endpoints, 1);
    let ban = Arc::new(ban::parse(b"req.url == /").unwrap());
    for watch in &mut plan.watches {
        watch.remedy = Some(Arc::clone(&ban));
    }
    plan
}

#[test]
fn a_canary_is_banned_once_an_interval_and_proven() {
    for (is_served, proof) in [(false, "replaced"), (true, "proven")] {
        let mut cluster = Cluster::new(with_canary(60, is_served));
        cluster.run_until(600);
        assert!((10..=11).contains(&cluster.bans.len()), "{:?}", cluster.bans);
        assert!(cluster.proofs.iter().all(|p| p.label() == proof), "{:?}", cluster.proofs);
        assert_eq!(cluster.canaries, [(0, true, String::new())], "told once");
        assert!(cluster.now.since(cluster.canary().last_proven.unwrap()).as_secs() <= 61);
    }
}

#[test]
fn each_failure_shows_within_one_interval_and_goes_with_its_cause() {
    type Fault = fn(&mut Cluster, bool);
    let faults: [(Fault, &str); 5] = [
        (|c, broken| c.takes_bans = !broken, "it was refused"),
        (|c, broken| c.node_answers = !broken, "the node: timed out (first_byte)"),
        (|c, broken| c.bans_work = !broken, "the ban was taken and had no effect"),
        (
            |c, broken| {
                c.caches = !broken;
                c.cached.clear();
            },
            "answered with status 200 and never a hit",
        ),
        // The VCL leads the canary somewhere else.
        (
            |c, broken| {
                c.flaps = broken;
                c.cached.clear();
            },
            "the object was fetched again, and is not what this daemon serves",
        ),
    ];
    for (set, expected) in faults {
        let mut cluster = Cluster::new(with_canary(60, true));
        cluster.run_until(100);
        let proven = cluster.canary().last_proven;
        set(&mut cluster, true);
        cluster.run_until(175);
        let state = cluster.canary();
        assert_eq!(state.up, Some(false), "{expected}");
        assert!(state.problem.as_ref().unwrap().starts_with(expected), "{:?}", state.problem);
        assert_eq!(state.last_proven, proven);
        set(&mut cluster, false);
        cluster.run_until(250);
        let state = cluster.canary();
        assert_eq!((state.up, state.problem), (Some(true), None), "{expected}");
        assert!(state.last_proven > proven);
        let told: Vec<bool> = cluster.canaries.iter().map(|(_, up, _)| *up).collect();
        assert_eq!(told, [true, false, true]);
    }
}

#[test]
fn another_plan_keeps_a_canary_that_did_not_change() {
    let mut cluster = Cluster::new(with_canary(3_600, true));
    cluster.run_until(10);
    let before = cluster.canary();
    assert_eq!(before.up, Some(true));
    cluster.node_answers = false;
    cluster.engine.handle(Input::Replan(with_canary(3_600, true)), cluster.now);
    assert_eq!(cluster.canary(), before);
    cluster.engine.handle(Input::Replan(with_canary(1_800, true)), cluster.now);
    assert_eq!(cluster.canary(), CanaryState::default());
    cluster.engine.handle(Input::Replan(plan(1, 1)), cluster.now);
    assert!(cluster.engine.snapshot(cluster.now).nodes[0].canary.is_none());
}

#[test]
fn what_is_stale_is_banned_once_more_and_becomes_fresh() {
    let mut cluster = Cluster::new(with_remedies(1));
    cluster.run_until(200);
    cluster.origin = Some("two".to_owned());
    cluster.run_until(400);
    assert_eq!(cluster.states(), [State::Fresh]);
    assert_eq!(cluster.bans.len(), 1, "{:?}", cluster.bans);
    assert!(cluster.remedied[0].1, "{:?}", cluster.remedied);
    assert_eq!(cluster.proofs, [Proof::Proven]);
    let snapshot = cluster.engine.snapshot(cluster.now);
    assert_eq!(snapshot.targets[0].remedy.as_ref().unwrap().count, 1);
}

#[test]
fn nothing_is_banned_unless_the_endpoint_asks_for_it() {
    let mut cluster = Cluster::new(plan(1, 1));
    cluster.run_until(200);
    cluster.origin = Some("two".to_owned());
    cluster.run_until(1_000);
    assert_eq!(cluster.states(), [State::Stale]);
    assert!(cluster.bans.is_empty());
}

#[test]
fn nothing_is_banned_while_the_origin_is_down_or_does_not_hold_still() {
    // It goes down when the change was seen: what the node has is known to be old, and stale.
    let mut cluster = Cluster::new(with_remedies(1));
    cluster.run_until(200);
    cluster.origin = Some("two".to_owned());
    cluster.run_until(231);
    cluster.origin = None;
    cluster.run_until(1_000);
    assert_eq!(cluster.states(), [State::Stale]);
    assert!(cluster.bans.is_empty(), "{:?}", cluster.bans);
    // It is back: now it is cured.
    cluster.origin = Some("two".to_owned());
    cluster.run_until(1_300);
    assert_eq!((cluster.states(), cluster.bans.len()), (vec![State::Fresh], 1));

    let mut cluster = Cluster::new(with_remedies(1));
    cluster.run_until(200);
    cluster.flaps = true;
    cluster.run_until(2_000);
    assert!(cluster.bans.is_empty(), "{:?}", cluster.bans);
}

/// What was stale stays stale when the origin starts to go back and forth. But a ban would fetch
/// whatever it serves at that moment.
#[test]
fn nothing_is_banned_while_the_origin_goes_back_and_forth() {
    let mut cluster = Cluster::new(with_remedies(1));
    cluster.run_until(200);
    cluster.takes_bans = false;
    cluster.origin = Some("two".to_owned());
    cluster.run_until(320);
    assert_eq!(cluster.states(), [State::Stale]);
    cluster.alternates = Some(30);
    cluster.takes_bans = true;
    cluster.run_until(420);
    let before = cluster.bans.len();
    cluster.run_until(1_500);
    assert_eq!(cluster.states(), [State::Stale]);
    assert_eq!(cluster.bans.len(), before, "{:?}", cluster.bans);
    cluster.alternates = None;
    cluster.run_until(3_000);
    assert_eq!(cluster.states(), [State::Fresh]);
}

#[test]
fn a_remedy_that_does_not_help_is_tried_ever_less_often() {
    let mut cluster = Cluster::new(with_remedies(1));
    cluster.run_until(200);
    cluster.bans_work = false;
    cluster.origin = Some("two".to_owned());
    cluster.run_until(200 + 2 * 3_600);
    let gaps: Vec<u64> = cluster.bans.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // 30 s, 60 s, 120 s and so on, to the next round after that.
    assert!((6..=9).contains(&gaps.len()), "{gaps:?}");
    assert!(gaps.is_sorted() && gaps[0] >= 30 && gaps[5] >= 900, "{gaps:?}");
    assert!(cluster.remedied.iter().all(|(_, cured, text)| !cured && text.starts_with("survived")));
}

#[test]
fn the_budget_is_kept_with_fifty_stale_endpoints() {
    let mut cluster = Cluster::new(with_remedies(50));
    cluster.run_until(200);
    cluster.bans_work = false;
    cluster.origin = Some("two".to_owned());
    cluster.run_until(200 + 1_800);
    let times: Vec<u64> = cluster.bans.iter().map(|(at, _)| *at).collect();
    assert!(times.len() > 100, "{} bans in half an hour: the budget is used", times.len());
    for (first, seventh) in times.iter().zip(times.iter().skip(6)) {
        assert!(seventh - first >= 59, "seven within a minute: {times:?}");
    }
    // A reload is no way around it.
    let count = cluster.bans.len();
    for _ in 0..10 {
        cluster.engine.handle(Input::Replan(with_remedies(50)), cluster.now);
        let next = cluster.seconds() + 3;
        cluster.run_until(next);
    }
    assert!(cluster.bans.len() <= count + 6, "{:?}", &cluster.bans[count..]);
}
