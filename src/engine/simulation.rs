//! Whole stories, played through the engine in no time.

mod causes;
mod invalidating;
mod pointers;
mod proving;
mod stories;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{Mark, Version};
use crate::verdict::{
    Answer, CacheSigns, Cause, Compare, Explanation, Failure, FetchRequest, Observation, Outcome,
    Phases, State, Target, Unversioned, Validators,
};

/// What a server answers to one fetch.
enum Reply {
    Version(String),
    /// What a pointer names.
    Value(String),
    /// A status that can be compared.
    Missing(u16),
    /// A version that is ordered.
    Number(u64),
    Status(u16),
    Down,
}

fn shown(version: &str) -> Reply {
    Reply::Version(version.to_owned())
}

/// An origin's answer to the n-th question, asked at a second.
type OriginAnswers = Box<dyn FnMut(u64, u64) -> Reply>;
/// A node's answer, asked at a second.
type NodeAnswers = Box<dyn FnMut(&str, u64) -> Reply>;
/// The answer of a node, or of the origin where none is named, to a path, asked at a second.
type UrlAnswers = Box<dyn FnMut(Option<&str>, &str, u64) -> Reply>;

/// A world of origins and nodes whose answers are functions of time and of the number of the
/// question.
struct World {
    engine: Engine,
    now: Timestamp,
    origin: OriginAnswers,
    node: NodeAnswers,
    /// In place of both, where it depends on the URL.
    urls: Option<UrlAnswers>,
    news: Vec<(u64, PointerNews)>,
    fetched: Vec<(u64, String)>,
    admin_up: Box<dyn FnMut(u64) -> bool>,
    takes: Duration,
    origin_questions: u64,
    conditional: u64,
    states: Vec<(u64, String, State)>,
    to_fresh: Vec<Duration>,
    records: Vec<Record>,
    admin: Vec<(u64, bool)>,
    cause: Box<dyn FnMut(&Case) -> Explanation>,
    cases: Vec<(u64, Case)>,
    gathering: usize,
    most_gathering: usize,
    gather_takes: Duration,
    explained: Vec<(u64, String, Cause)>,
    latest: Duration,
}

const START: u64 = 1_700_000_000_000;

fn plan(endpoints: usize, nodes: usize) -> Plan {
    let node_names: Vec<_> = (0..nodes).map(|n| NodeName::new(&format!("n{n}")).unwrap()).collect();
    let target = Arc::new(Target {
        url: "http://a/".parse().unwrap(),
        headers: Vec::new(),
        compare: Compare::Etag,
        ignore: Vec::new(),
        body_limit: 1,
        timeout: Duration::from_secs(5),
    });
    let watch = |e: usize| WatchPlan {
        endpoint: EndpointName::new(&format!("e{e}")).unwrap(),
        variant: VariantName::default(),
        target: target.clone(),
        origin: OriginName::new("o").unwrap(),
        nodes: node_names.clone(),
        interval: Duration::from_secs(30),
        max_stale: Duration::from_secs(60),
        remedy: None,
    };
    let admin_interval = Some(Duration::from_secs(15));
    Plan {
        origins: vec![OriginPlan { name: OriginName::new("o").unwrap(), max_rate: 1e6 }],
        nodes: node_names
            .iter()
            .map(|name| NodePlan { name: name.clone(), admin_interval, canary: None })
            .collect(),
        watches: (0..endpoints).map(watch).collect(),
        pointers: Vec::new(),
        remedy_max_rate: 6,
        ban_list_limit: 0,
        once: false,
        explain: false,
    }
}

impl World {
    fn new(
        plan: Plan,
        origin: impl FnMut(u64, u64) -> Reply + 'static,
        node: impl FnMut(&str, u64) -> Reply + 'static,
    ) -> Self {
        Self::restored(plan, Restored::default(), 0, origin, node)
    }

    fn restored(
        plan: Plan,
        restored: Restored,
        seconds: u64,
        origin: impl FnMut(u64, u64) -> Reply + 'static,
        node: impl FnMut(&str, u64) -> Reply + 'static,
    ) -> Self {
        let now = Timestamp::from_millis(START + seconds * 1_000);
        Self {
            engine: Engine::new(plan, restored, &["refused"], 7, now),
            now,
            origin: Box::new(origin),
            node: Box::new(node),
            urls: None,
            news: Vec::new(),
            fetched: Vec::new(),
            admin_up: Box::new(|_| true),
            takes: Duration::from_millis(20),
            origin_questions: 0,
            conditional: 0,
            states: Vec::new(),
            to_fresh: Vec::new(),
            records: Vec::new(),
            admin: Vec::new(),
            cause: Box::new(|_| Explanation { cause: Cause::NeverPurged, findings: Vec::new() }),
            cases: Vec::new(),
            gathering: 0,
            most_gathering: 0,
            gather_takes: Duration::from_millis(500),
            explained: Vec::new(),
            latest: Duration::ZERO,
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
                let done_at = self.now + self.takes;
                match output {
                    Output::Fetch { id, side, request, due } => {
                        self.latest = self.latest.max(self.now.since(due));
                        let observation = self.answer(&side, &request, done_at);
                        under_way.insert((done_at, number), Input::Fetched { id, observation });
                    }
                    Output::CheckAdmin(node) => {
                        let problem = AdminProblem { reason: "refused", text: "refused".into() };
                        let seconds = self.seconds();
                        let up = (self.admin_up)(seconds);
                        let result = if up { Ok(None) } else { Err(problem) };
                        let input = Input::AdminChecked { node, result };
                        under_way.insert((done_at, number), input);
                    }
                    Output::Changed { node, transition, .. } => {
                        self.states.push((self.seconds(), node.to_string(), transition.to));
                    }
                    Output::Pointer(news) => self.news.push((self.seconds(), news)),
                    Output::BecameFresh { after, .. } => self.to_fresh.push(after),
                    Output::Errand { .. }
                    | Output::ServeCanary { .. }
                    | Output::CanaryChanged { .. }
                    | Output::Remedied { .. }
                    | Output::Proved { .. } => panic!("nothing of the kind is planned"),
                    Output::GatherEvidence { id, case } => {
                        let explanation = (self.cause)(&case);
                        self.cases.push((self.seconds(), *case));
                        self.gathering += 1;
                        self.most_gathering = self.most_gathering.max(self.gathering);
                        let done_at = self.now + self.gather_takes;
                        under_way.insert((done_at, number), Input::Evidence { id, explanation });
                    }
                    Output::Explained { node, explanation, .. } => {
                        self.explained.push((self.seconds(), node.to_string(), explanation.cause));
                    }
                    Output::Record(record) => self.records.push(record),
                    Output::Request { .. }
                    | Output::News(_)
                    | Output::InvalidationSettled { .. } => {}
                    Output::AdminChanged { up, .. } => self.admin.push((self.seconds(), up)),
                }
            }
            let arrival = under_way.keys().next().map(|(at, _)| *at);
            let deadline = self.engine.next_deadline();
            let Some(next) = arrival.into_iter().chain(deadline).min() else { return self };
            if next > end {
                self.now = end;
                return self;
            }
            self.now = self.now.max(next);
            let input = match under_way.first_entry() {
                Some(entry) if entry.key().0 <= self.now => entry.remove(),
                _ => Input::Tick,
            };
            self.gathering -= usize::from(matches!(input, Input::Evidence { .. }));
            self.engine.handle(input, self.now);
        }
    }

    fn answer(&mut self, side: &Side, request: &FetchRequest, at: Timestamp) -> Observation {
        let seconds = self.seconds();
        if self.urls.is_some() {
            self.fetched.push((seconds, request.target.url.to_string()));
        }
        let reply = match (&mut self.urls, side) {
            (Some(urls), Side::Origin(_)) => {
                self.origin_questions += 1;
                urls(None, request.target.url.path_and_query(), seconds)
            }
            (Some(urls), Side::Cache(node)) => {
                urls(Some(node.as_str()), request.target.url.path_and_query(), seconds)
            }
            (None, side) => match side {
                Side::Origin(_) => {
                    self.origin_questions += 1;
                    self.conditional += u64::from(request.condition.is_some());
                    (self.origin)(seconds, self.origin_questions)
                }
                Side::Cache(node) => (self.node)(node.as_str(), seconds),
            },
        };
        let is_varnish = matches!(side, Side::Cache(_));
        let answer = |status, version: Result<Version, Unversioned>, tag: Option<Arc<str>>| {
            Outcome::Answer(Box::new(Answer {
                status,
                version,
                validators: Validators { etag: tag, last_modified: None },
                cache: CacheSigns { transaction: None, is_varnish, age: Some(3) },
                retry_after: None,
                body_bytes: 0,
                headers: None,
            }))
        };
        let outcome = match reply {
            Reply::Down => Outcome::Failed(Failure::Refused),
            Reply::Value(text) => {
                let value = crate::model::PointerValue::new(&text);
                let version = value.map(|value| Version { status: 200, mark: Mark::Value(value) });
                answer(200, version.map_err(Unversioned::Value), None)
            }
            Reply::Missing(status) => {
                answer(status, Ok(Version { status, mark: Mark::Status }), None)
            }
            Reply::Status(status) => answer(status, Err(Unversioned::Status), None),
            Reply::Number(number) => {
                let mark = Mark::Token(number.to_string().into());
                answer(200, Ok(Version { status: 200, mark }), None)
            }
            Reply::Version(tag) => {
                let version = Version { status: 200, mark: Mark::Etag(tag.as_str().into()) };
                answer(200, Ok(version), Some(tag.into()))
            }
        };
        Observation { started: self.now, finished: at, phases: Phases::default(), outcome }
    }

    fn reached(&self, state: State) -> Option<u64> {
        self.states.iter().find(|(_, _, to)| *to == state).map(|(at, ..)| *at)
    }

    fn state(&self) -> State {
        self.engine.snapshot(self.now).targets[0].state
    }

    fn staleness(&self) -> Option<u64> {
        self.engine.snapshot(self.now).targets[0].staleness.map(|d| d.as_secs())
    }
}

/// The origin changes at 100 s and the node keeps what it has.
fn blocked(seconds: u64) -> &'static str {
    if seconds < 100 { "v1" } else { "v2" }
}
