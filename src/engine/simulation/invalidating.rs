//! Invalidations, played through the engine in no time.

use std::collections::BTreeMap;

use super::super::*;
use super::{START, plan};
use crate::model::{Mark, Version};
use crate::verdict::{Answer, CacheSigns, Failure, Outcome, Phases, State, Validators};
use crate::verdict::{Observation, Unversioned};

/// A cache.
struct Cache {
    serves: String,
    is_up: bool,
    /// Whether its bans take what it serves away.
    obeys: bool,
    listed: usize,
    took: Vec<(u64, BanText)>,
}

/// Caches of one origin.
struct Site {
    engine: Engine,
    now: Timestamp,
    origin: String,
    caches: BTreeMap<NodeName, Cache>,
    /// What is under way, by when it arrives.
    under_way: BTreeMap<(Timestamp, u64), Output>,
    number: u64,
    settled: BTreeMap<u64, (u64, BTreeMap<NodeName, Settled>)>,
    requests: Vec<Request>,
    origin_asked: Vec<u64>,
    to_fresh: Vec<Duration>,
    states: Vec<State>,
}

fn name(at: usize) -> NodeName {
    NodeName::new(&format!("n{at}")).unwrap()
}

fn endpoint() -> EndpointName {
    EndpointName::new("e0").unwrap()
}

fn ban(at: usize) -> BanText {
    BanText::new(&format!("obj.http.x == {at}")).unwrap()
}

impl Site {
    fn new(nodes: usize) -> Self {
        Self::with(plan(1, nodes), nodes)
    }

    fn with(plan: Plan, nodes: usize) -> Self {
        let now = Timestamp::from_millis(START);
        let cache = || Cache {
            serves: "v1".to_owned(),
            is_up: true,
            obeys: true,
            listed: 1,
            took: Vec::new(),
        };
        Self {
            engine: Engine::new(plan, Restored::default(), &["refused"], 7, now),
            now,
            origin: "v1".to_owned(),
            caches: (0..nodes).map(|at| (name(at), cache())).collect(),
            under_way: BTreeMap::new(),
            number: 0,
            settled: BTreeMap::new(),
            requests: Vec::new(),
            origin_asked: Vec::new(),
            to_fresh: Vec::new(),
            states: Vec::new(),
        }
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.now.since(Timestamp::from_millis(START)).as_millis()).unwrap()
    }

    /// One with these bans for all nodes.
    fn event(&self, key: u64, bans: &[usize]) -> Invalidation {
        Invalidation {
            key,
            bans: bans.iter().map(|at| ban(*at)).collect(),
            nodes: self.caches.keys().cloned().collect(),
            verify: Vec::new(),
            prove: None,
            debounce: Duration::ZERO,
            received: self.now,
        }
    }

    fn invalidate(&mut self, event: Invalidation) -> Result<(), InvalidationError> {
        self.engine.invalidate(event, self.now)
    }

    /// Plays for so many milliseconds.
    fn play(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.put_out();
            let arrival = self.under_way.keys().next().map(|(at, _)| *at);
            let next = arrival.into_iter().chain(self.engine.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let input = match self.under_way.first_entry() {
                Some(entry) if entry.key().0 <= self.now => {
                    let output = entry.remove();
                    self.answer(output)
                }
                _ => Input::Tick,
            };
            self.engine.handle(input, self.now);
        }
        self.now = end;
    }

    fn put_out(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.number += 1;
            let soon = (self.now + Duration::from_millis(20), self.number);
            match output {
                Output::InvalidationSettled { key, nodes } => {
                    let before = self.settled.insert(key, (self.ms(), nodes));
                    assert!(before.is_none(), "{key} was settled twice");
                }
                Output::BecameFresh { after, .. } => self.to_fresh.push(after),
                Output::Changed { transition, .. } => self.states.push(transition.to),
                Output::Request { node, request } => {
                    self.requests.push(request.clone());
                    // Bans are taken when they are sent; the answers come later.
                    let soon = (self.now + Duration::from_millis(1), self.number);
                    let cache = self.caches.get_mut(&node).unwrap();
                    if let Request::Deliver(bans) = &request
                        && cache.is_up
                    {
                        let ms = self.now.since(Timestamp::from_millis(START)).as_millis();
                        let ms = u64::try_from(ms).unwrap();
                        cache.took.extend(bans.iter().map(|ban| (ms, ban.clone())));
                        if cache.obeys {
                            cache.serves.clone_from(&self.origin);
                        }
                    }
                    self.under_way.insert(soon, Output::Request { node, request });
                }
                Output::Fetch { .. } | Output::CheckAdmin(_) => {
                    if let Output::Fetch { side: Side::Origin(_), .. } = &output {
                        self.origin_asked.push(self.ms());
                    }
                    self.under_way.insert(soon, output);
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, output: Output) -> Input {
        let lost = || Miss { result: BanResult::Unreachable, reason: "connect_timeout".into() };
        match output {
            Output::Fetch { id, side, .. } => {
                let serves = match &side {
                    Side::Origin(_) => Some(&self.origin),
                    Side::Cache(node) => {
                        Some(&self.caches[node]).filter(|cache| cache.is_up).map(|c| &c.serves)
                    }
                };
                Input::Fetched { id, observation: observation(serves, self.now) }
            }
            Output::CheckAdmin(node) => {
                let problem = AdminProblem { reason: "refused", text: "refused".into() };
                let result = if self.caches[&node].is_up { Ok(None) } else { Err(problem) };
                Input::AdminChecked { node, result }
            }
            Output::Request { node, request } => {
                let cache = &self.caches[&node];
                match request {
                    Request::Inspect => {
                        let seen = Inspection { process: None, persistent: true };
                        let result = if cache.is_up { Ok(seen) } else { Err(lost()) };
                        Input::Inspected { node, result }
                    }
                    Request::Deliver(bans) => {
                        let results = match cache.is_up {
                            true => vec![Ok(()); bans.len()],
                            false => vec![Err(lost())],
                        };
                        Input::Delivered { node, results }
                    }
                    Request::CountBans => {
                        let length = Some(cache.listed);
                        Input::CountedBans { node, length }
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn outcome(&self, key: u64) -> &Settled {
        let (_, nodes) = &self.settled[&key];
        nodes.values().next().unwrap()
    }

    fn state(&self) -> State {
        self.engine.snapshot(self.now).targets[0].state
    }
}

fn observation(serves: Option<&String>, at: Timestamp) -> Observation {
    let outcome = match serves {
        None => Outcome::Failed(Failure::Refused),
        Some(tag) => Outcome::Answer(Box::new(Answer {
            status: 200,
            version: Ok::<_, Unversioned>(Version {
                status: 200,
                mark: Mark::Etag(tag.as_str().into()),
            }),
            validators: Validators::default(),
            cache: CacheSigns { transaction: None, is_varnish: true, age: Some(3) },
            retry_after: None,
            body_bytes: 0,
            headers: None,
        })),
    };
    Observation { started: at, finished: at, phases: Phases::default(), outcome }
}

#[test]
fn a_ban_is_handed_over_at_once_and_settled_when_it_was_taken() {
    let mut site = Site::new(2);
    site.play(5_000);
    site.invalidate(site.event(1, &[1, 2])).unwrap();
    let deliveries = std::iter::from_fn(|| site.engine.poll_output())
        .filter(|output| matches!(output, Output::Request { request: Request::Deliver(bans), .. } if bans.len() == 2));
    assert_eq!(deliveries.count(), 2, "no look, no timer: the next outputs");
    let mut site = Site::new(2);
    site.play(5_000);
    site.invalidate(site.event(1, &[1, 2])).unwrap();
    assert_eq!(site.engine.open_invalidations(), 1);
    site.play(10);
    let at = Timestamp::from_millis(START + 5_001);
    let taken = Settled::Taken { at };
    let expected = [(name(0), taken.clone()), (name(1), taken)].into();
    assert_eq!(site.settled[&1], (5_001, expected));
    assert_eq!(site.engine.open_invalidations(), 0);
    assert!(!site.requests.contains(&Request::Inspect));
    assert_eq!(site.caches[&name(0)].took.len(), 2, "in order");
}

#[test]
fn a_node_that_is_away_gets_all_of_them_in_order_when_it_is_back() {
    let mut site = Site::new(1);
    site.play(1_000);
    site.caches.get_mut(&name(0)).unwrap().is_up = false;
    let mut taken_in = 0;
    for key in 0..10_050 {
        let event = site.event(key, &[usize::try_from(key).unwrap()]);
        match site.invalidate(event) {
            Ok(()) => taken_in += 1,
            Err(fault) => assert_eq!(fault, InvalidationError::NoRoom { bans: 1 }),
        }
    }
    assert_eq!(taken_in, 10_000, "what has no room is the caller's to keep");
    site.play(60_000);
    assert!(site.settled.is_empty());
    site.caches.get_mut(&name(0)).unwrap().is_up = true;
    site.play(120_000);
    assert_eq!(site.settled.len(), 10_000);
    let took: Vec<_> = site.caches[&name(0)].took.iter().map(|(_, ban)| ban.clone()).collect();
    assert_eq!(took, (0..10_000).map(ban).collect::<Vec<_>>());
    let largest = site.requests.iter().filter_map(|request| match request {
        Request::Deliver(bans) => Some(bans.len()),
        _ => None,
    });
    assert_eq!(largest.max(), Some(256));
}

#[test]
fn a_burst_of_equal_ones_is_one_ban_a_window_and_settles_them_all() {
    let mut site = Site::new(1);
    site.play(1_000);
    for key in 0..1_000 {
        let debounce = Duration::from_millis(100);
        site.invalidate(Invalidation { debounce, ..site.event(key, &[7]) }).unwrap();
        site.play(1);
    }
    site.play(200);
    assert_eq!(site.settled.len(), 1_000);
    let took: Vec<_> = site.caches[&name(0)].took.iter().map(|(at, _)| *at).collect();
    assert!((10..=11).contains(&took.len()), "{took:?}");
    assert_eq!(took[0], 1_000, "the first one at once");
    assert!(took.windows(2).all(|two| two[1] - two[0] >= 100), "{took:?}");
    // The last one is covered by a ban that was sent after it came.
    assert!(*took.last().unwrap() >= 1_999, "{took:?}");
    for (key, (at, _)) in &site.settled {
        assert!(took.iter().any(|sent| *sent >= 1_000 + key && sent < at), "{key} at {at}");
    }
}

#[test]
fn others_do_not_wait_for_one_that_is_held_back() {
    let mut site = Site::new(1);
    let debounce = Duration::from_secs(10);
    for (key, at) in [(1, 7), (2, 7), (3, 8)] {
        site.invalidate(Invalidation { debounce, ..site.event(key, &[at]) }).unwrap();
        site.play(5);
    }
    assert_eq!(site.settled.keys().copied().collect::<Vec<_>>(), [1, 3]);
    site.play(10_000);
    assert_eq!(site.settled.len(), 3);
}

#[test]
fn what_can_not_be_delivered_any_more_is_said_to_be_dropped() {
    let mut site = Site::new(1);
    let nodes = vec![name(0), name(7)];
    site.invalidate(Invalidation { nodes, ..site.event(1, &[1]) }).unwrap();
    site.play(10);
    let why = Dropped::NotConfigured;
    assert_eq!(site.settled[&1].1[&name(7)], Settled::Dropped { why });
    assert!(matches!(site.settled[&1].1[&name(0)], Settled::Taken { .. }));

    site.caches.get_mut(&name(0)).unwrap().is_up = false;
    site.invalidate(site.event(2, &[2])).unwrap();
    site.play(1_000);
    // Others fill the ledger.
    let issue =
        || Issue { ban: ban(0), source: BanSource::Command, nodes: [(name(0), None)].into() };
    site.engine.issue((0..10_000).map(|_| issue()).collect(), site.now);
    site.play(1);
    assert_eq!(site.outcome(2), &Settled::Dropped { why: Dropped::Full });

    let mut site = Site::new(2);
    site.caches.get_mut(&name(1)).unwrap().is_up = false;
    site.invalidate(site.event(3, &[2])).unwrap();
    site.play(100);
    assert!(site.settled.is_empty());
    site.engine.handle(Input::Replan(plan(1, 1)), site.now);
    site.play(1);
    assert_eq!(site.settled[&3].1[&name(1)], Settled::Dropped { why });
    assert!(matches!(site.settled[&3].1[&name(0)], Settled::Taken { .. }));
}

#[test]
fn no_more_are_open_than_fit() {
    let mut site = Site::new(1);
    site.caches.get_mut(&name(0)).unwrap().is_up = false;
    let limit = MOST_OPEN_INVALIDATIONS;
    for key in 0..u64::try_from(limit).unwrap() {
        site.invalidate(site.event(key, &[1])).unwrap();
    }
    let open = limit;
    assert_eq!(
        site.invalidate(site.event(99_999, &[1])),
        Err(InvalidationError::TooMany { open, limit })
    );
    site.caches.get_mut(&name(0)).unwrap().is_up = true;
    site.play(10_000);
    assert_eq!((site.settled.len(), site.caches[&name(0)].took.len()), (limit, 2));
    let nobody = Invalidation { nodes: Vec::new(), ..site.event(1, &[1]) };
    assert_eq!(site.invalidate(nobody), Err(InvalidationError::NoNode));
    site.invalidate(site.event(1, &[1])).unwrap();
    assert_eq!(site.invalidate(site.event(1, &[1])), Err(InvalidationError::KeyInUse { key: 1 }));
    let many: Vec<usize> = (0..1_000).collect();
    let mut many_at = |nodes: usize| {
        let nodes: Vec<_> = (0..nodes).map(name).collect();
        let fault = site.invalidate(Invalidation { nodes, ..site.event(2, &many) }).unwrap_err();
        (fault.is_final(), fault)
    };
    let limit = 200_000;
    assert_eq!(many_at(200), (false, InvalidationError::TooLarge { got: 200_001, limit }));
    // By itself: it does not fit once the other is settled either.
    assert_eq!(many_at(201), (true, InvalidationError::NeverNamed { got: 201_000, limit }));
    let long = |n| BanText::new(&format!("obj.http.x == {}{n}", "a".repeat(60_000))).unwrap();
    let event = Invalidation { bans: (0..600).map(long).collect(), ..site.event(2, &[1]) };
    let never = InvalidationError::NeverFits { bans: 600, nodes: 1 };
    assert_eq!(site.invalidate(event), Err(never));
}

#[test]
fn a_node_is_proven_fresh_by_a_round_that_began_after_its_ban() {
    let mut site = Site::new(2);
    site.play(40_000);
    assert_eq!(site.state(), State::Fresh);
    site.origin = "v2".to_owned();
    let event = |site: &Site, key| Invalidation {
        verify: vec![endpoint()],
        prove: Some(Duration::from_secs(20)),
        ..site.event(key, &[1])
    };
    site.invalidate(event(&site, 1)).unwrap();
    site.play(1_500);
    let (at, nodes) = &site.settled[&1];
    assert!((40_021..=40_060).contains(at), "{at}");
    assert!(nodes.values().all(|settled| matches!(settled, Settled::Proven { .. })), "{nodes:?}");
    assert_eq!(site.to_fresh.len(), 2, "{:?}", site.to_fresh);
    assert!(site.to_fresh.iter().all(|after| *after <= Duration::from_millis(60)));

    // A ban that has no effect.
    site.origin = "v3".to_owned();
    for cache in site.caches.values_mut() {
        cache.obeys = false;
    }
    let begin = site.ms();
    site.invalidate(event(&site, 2)).unwrap();
    site.play(19_000);
    assert!(!site.settled.contains_key(&2));
    assert_eq!(site.states.last(), Some(&State::Lagging), "and that shows within seconds");
    site.play(1_100);
    let (at, nodes) = &site.settled[&2];
    assert_eq!(*at, begin + 20_001);
    let unproven = Settled::Unproven { state: State::Lagging, cause: None };
    assert!(nodes.values().all(|settled| *settled == unproven), "{nodes:?}");

    let nothing = Invalidation { verify: Vec::new(), ..event(&site, 3) };
    site.invalidate(nothing).unwrap();
    site.play(10);
    let why = Unprovable::NothingWatched;
    assert_eq!(site.outcome(3), &Settled::Unprovable { why });
}

#[test]
fn the_time_to_fresh_counts_from_when_the_event_came() {
    let mut site = Site::new(1);
    site.play(40_000);
    site.origin = "v2".to_owned();
    site.caches.get_mut(&name(0)).unwrap().is_up = false;
    let verify = vec![endpoint()];
    site.invalidate(Invalidation { verify, ..site.event(1, &[1]) }).unwrap();
    site.play(8_000);
    assert!(site.to_fresh.is_empty());
    site.caches.get_mut(&name(0)).unwrap().is_up = true;
    site.play(20_000);
    assert_eq!(site.to_fresh.len(), 1);
    let after = site.to_fresh[0];
    assert!((8..=16).contains(&after.as_secs()), "{after:?}");
}

#[test]
fn an_endpoint_is_looked_at_until_it_is_fresh_and_no_longer() {
    let mut calm = plan(1, 1);
    calm.watches[0].interval = Duration::from_secs(600);
    calm.watches[0].max_stale = Duration::from_secs(600);
    let mut site = Site::with(calm, 1);
    site.play(10_000);
    let event = |site: &Site, key| {
        let verify = vec![endpoint()];
        Invalidation { verify, ..site.event(key, &[usize::try_from(key).unwrap()]) }
    };
    site.origin_asked.clear();
    site.invalidate(event(&site, 1)).unwrap();
    site.play(100_000);
    assert_eq!(site.origin_asked, [10_001], "fresh at the first look");

    site.origin = "v2".to_owned();
    site.caches.get_mut(&name(0)).unwrap().obeys = false;
    site.origin_asked.clear();
    let begin = site.ms();
    site.invalidate(event(&site, 2)).unwrap();
    site.play(70_000);
    // Each look is one question, and one more that confirms.
    let looks: Vec<_> =
        site.origin_asked.iter().step_by(2).map(|at| (at - begin) / 1_000).collect();
    assert_eq!(looks, [0, 1, 5, 15, 60]);
}

#[test]
fn a_stream_of_events_makes_no_more_than_a_round_a_second() {
    let mut site = Site::new(1);
    site.play(40_000);
    site.origin_asked.clear();
    for key in 0..1_000 {
        let verify = vec![endpoint()];
        let at = usize::try_from(key).unwrap();
        site.invalidate(Invalidation { verify, ..site.event(key, &[at]) }).unwrap();
        site.play(10);
    }
    assert_eq!(site.settled.len(), 1_000);
    assert!((9..=12).contains(&site.origin_asked.len()), "{:?}", site.origin_asked);
}

#[test]
fn an_origin_is_not_asked_more_often_for_events() {
    let mut slow = plan(200, 1);
    slow.origins[0].max_rate = 10.0;
    let mut site = Site::with(slow, 1);
    site.play(30_000);
    site.origin_asked.clear();
    let verify: Vec<_> = (0..200).map(|at| EndpointName::new(&format!("e{at}")).unwrap()).collect();
    for key in 0..20 {
        let verify = verify.clone();
        site.invalidate(Invalidation { verify, ..site.event(key, &[1]) }).unwrap();
        site.play(500);
    }
    assert!((90..=105).contains(&site.origin_asked.len()), "{}", site.origin_asked.len());
}

#[test]
fn a_cache_that_is_away_for_a_moment_is_not_said_to_be_down() {
    let mut site = Site::new(1);
    site.play(40_000);
    site.states.clear();
    let verify = vec![endpoint()];
    site.invalidate(Invalidation { verify, ..site.event(1, &[1]) }).unwrap();
    site.engine.handle(Input::Tick, site.now);
    site.play(2);
    site.caches.get_mut(&name(0)).unwrap().is_up = false;
    site.play(6_000);
    site.caches.get_mut(&name(0)).unwrap().is_up = true;
    site.play(60_000);
    assert_eq!(site.states, [], "looks at 0, 1 and 5 s found it away");
}

#[test]
fn a_frozen_cache_is_an_alarm_under_a_stream_of_events() {
    let mut site = Site::new(1);
    site.play(40_000);
    site.origin = "v2".to_owned();
    site.caches.get_mut(&name(0)).unwrap().obeys = false;
    for key in 0..400 {
        let verify = vec![endpoint()];
        let at = usize::try_from(key).unwrap();
        site.invalidate(Invalidation { verify, ..site.event(key, &[at]) }).unwrap();
        site.play(250);
    }
    assert_eq!(site.state(), State::Stale);
    let lagging = site.states.iter().filter(|state| **state == State::Lagging).count();
    assert_eq!(lagging, 1, "{:?}", site.states);
}

#[test]
fn bans_go_slowly_where_the_list_is_too_long() {
    let mut limited = plan(1, 1);
    limited.ban_list_limit = 500;
    let mut site = Site::with(limited, 1);
    site.play(1_000);
    let counts = |site: &Site| site.requests.iter().filter(|r| **r == Request::CountBans).count();
    site.invalidate(site.event(0, &[0])).unwrap();
    site.play(10);
    assert_eq!(counts(&site), 1, "after the first ban, not before");
    site.caches.get_mut(&name(0)).unwrap().listed = 501;
    site.play(3_000);
    for key in 1..=3_000 {
        site.invalidate(site.event(key, &[usize::try_from(key).unwrap()])).unwrap();
    }
    site.play(100);
    let at_once = site.caches[&name(0)].took.len();
    assert!((1_000..=1_600).contains(&at_once), "counted after a thousand: {at_once}");
    let paced = |site: &Site| site.engine.ledger().backlogs().next().unwrap().1;
    assert!(paced(&site).paced && paced(&site).listed == Some(501));
    site.play(9_000);
    let then = site.caches[&name(0)].took.len() - at_once;
    assert!((440..=470).contains(&then), "{then} in nine seconds");
    site.caches.get_mut(&name(0)).unwrap().listed = 20;
    site.play(12_000);
    assert!(!paced(&site).paced);
    assert_eq!(site.settled.len(), 3_001);
    let before = counts(&site);
    site.play(600_000);
    assert!(counts(&site) <= before + 1, "it is not counted while nothing is sent");
}

#[test]
fn a_round_that_was_under_way_proves_nothing() {
    let mut site = Site::new(1);
    site.play(40_000);
    site.engine.handle(Input::ProbeNow, site.now);
    site.engine.handle(Input::Tick, site.now);
    site.play(5);
    let event = Invalidation {
        verify: vec![endpoint()],
        prove: Some(Duration::from_secs(20)),
        ..site.event(1, &[1])
    };
    site.invalidate(event).unwrap();
    site.play(100);
    assert!(site.settled.is_empty(), "it found the node fresh, and began before the ban");
    site.play(2_000);
    assert!(matches!(site.outcome(1), Settled::Proven { .. }), "{:?}", site.settled);
}
