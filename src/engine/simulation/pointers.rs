//! Pointers that move, flap, break and come back.

use super::*;
use crate::verdict::Compare;

const NAME: &str = "current";

/// What a node answers in place of a 404, and what that comes to.
type Case = (fn(u16) -> Reply, PointerState);

fn target(path: &str, compare: Compare) -> Arc<Target> {
    Arc::new(Target {
        url: format!("http://a{path}").parse().unwrap(),
        headers: Vec::new(),
        compare,
        ignore: Vec::new(),
        body_limit: 1,
        timeout: Duration::from_secs(5),
    })
}

/// A pointer to `/v/VALUE/`, which its nodes serve too where `served`.
fn pointer(served: bool, nodes: &[NodeName]) -> PointerPlan {
    PointerPlan {
        name: EndpointName::new(NAME).unwrap(),
        target: target("/current", Compare::Value(None)),
        origin: OriginName::new("o").unwrap(),
        nodes: if served { nodes.to_vec() } else { Vec::new() },
        urls: vec!["http://a/v/{value}/".parse().unwrap()],
        followed: target("/", Compare::Etag),
        followed_origin: OriginName::new("o").unwrap(),
        followed_nodes: nodes.to_vec(),
        interval: Duration::from_secs(30),
        max_stale: Duration::from_secs(60),
        grace: Duration::from_secs(600),
    }
}

fn pointing(served: bool) -> Plan {
    let mut plan = plan(0, 2);
    let nodes: Vec<_> = plan.nodes.iter().map(|node| node.name.clone()).collect();
    plan.pointers = vec![pointer(served, &nodes)];
    plan
}

/// What a healthy world answers, but for the pointer.
fn content(path: &str) -> Reply {
    shown(path)
}

fn world(plan: Plan, urls: impl FnMut(Option<&str>, &str, u64) -> Reply + 'static) -> World {
    restored(plan, Restored::default(), 0, urls)
}

fn restored(
    plan: Plan,
    restored: Restored,
    seconds: u64,
    urls: impl FnMut(Option<&str>, &str, u64) -> Reply + 'static,
) -> World {
    let down = |_: u64, _: u64| Reply::Down;
    let mut world = World::restored(plan, restored, seconds, down, |_, _| Reply::Down);
    world.urls = Some(Box::new(urls));
    world
}

impl World {
    fn pointer(&self) -> PointerSnapshot {
        self.engine.snapshot(self.now).pointers[0].clone()
    }

    /// When the pointer came into this state first.
    fn became(&self, state: PointerState) -> Option<u64> {
        self.news.iter().find_map(|(at, news)| match news {
            PointerNews::Changed { to, .. } if *to == state => Some(*at),
            _ => None,
        })
    }

    fn alarms(&self) -> Vec<(u64, PointerState)> {
        let changed = self.news.iter().filter_map(|(at, news)| match news {
            PointerNews::Changed { to, .. } if to.is_alarm() => Some((*at, *to)),
            _ => None,
        });
        changed.collect()
    }

    fn variants(&self) -> Vec<String> {
        let targets = self.engine.snapshot(self.now).targets;
        let mut names: Vec<_> = targets.iter().map(|t| t.variant.to_string()).collect();
        names.dedup();
        names
    }

    fn first_fetch(&self, url: &str) -> Option<u64> {
        self.fetched.iter().find(|(_, fetched)| fetched == url).map(|(at, _)| *at)
    }

    fn stored(&mut self) -> Restored {
        let (mut histories, mut verdicts) = (BTreeMap::new(), BTreeMap::new());
        let last = self.engine.records(self.now);
        for record in std::mem::take(&mut self.records).into_iter().chain(last) {
            match record {
                Record::History(record) => {
                    histories.insert((record.endpoint.clone(), record.variant.clone()), record);
                }
                Record::Verdict(record) => {
                    let names = (record.endpoint.clone(), record.variant.clone());
                    verdicts.insert((names, record.node.clone()), record);
                }
                Record::Forget { endpoint, variant } => {
                    let names = (endpoint, variant);
                    histories.remove(&names);
                    verdicts.retain(|(of, _), _| *of != names);
                }
                Record::Ledger(_) | Record::Hour(_) => {}
            }
        }
        let (histories, verdicts) =
            (histories.into_values().collect(), verdicts.into_values().collect());
        Restored { histories, verdicts, ..Restored::default() }
    }
}

#[test]
fn a_pointer_that_moves_is_followed_at_once_and_the_old_urls_are_forgotten_later() {
    for served in [false, true] {
        let mut world = world(pointing(served), |_, path, t| match path {
            "/current" => Reply::Value(if t < 300 { "1" } else { "2" }.to_owned()),
            path => content(path),
        });
        world.run_until(290);
        assert_eq!(world.pointer().state, PointerState::Good);
        assert_eq!(world.pointer().value.unwrap().as_str(), "1");
        assert!(world.became(PointerState::Good).unwrap() <= 5);
        world.run_until(340);
        assert_eq!(world.pointer().state, PointerState::Good, "{:?}", world.pointer());
        assert_eq!(world.pointer().value.unwrap().as_str(), "2");
        let own = if served { vec!["pointer"] } else { Vec::new() };
        let seen = |further: &[&'static str]| [own.clone(), further.to_vec()].concat();
        assert_eq!(world.variants(), seen(&["previous-1", "target-1"]));
        let moved = world.news.iter().find(|(_, n)| matches!(n, PointerNews::Moved { .. }));
        let moved = moved.unwrap().0;
        assert!((300..=331).contains(&moved), "{moved}");
        assert_eq!(world.first_fetch("http://a/v/2/"), Some(moved), "at once");
        let changed = world.pointer().last_change.unwrap();
        assert_eq!(changed.since(Timestamp::from_millis(START)).as_secs(), moved);
        world.run_until(moved + 610);
        assert_eq!(world.variants(), seen(&["target-1"]));
        let fetched = world.fetched.len();
        world.run_until(moved + 1_500);
        let later = world.fetched.get(fetched..).unwrap();
        assert!(later.iter().all(|(_, url)| url != "http://a/v/1/"), "forgotten");
        assert_eq!(world.alarms(), []);
    }
}

#[test]
fn a_pointer_that_moves_too_early_gets_patience_and_then_an_alarm() {
    // The URL of version 2 is deployed after so many seconds.
    let play = |deployed: u64| {
        let mut world = world(pointing(true), move |_, path, t| match path {
            "/current" => Reply::Value(if t < 300 { "1" } else { "2" }.to_owned()),
            "/v/2/" if t < deployed => Reply::Missing(404),
            path => content(path),
        });
        world.run_until(2_000);
        world
    };
    let world = play(340);
    assert_eq!(world.alarms(), []);
    assert!(world.became(PointerState::Lagging).is_some());
    let world = play(1_000);
    let [(at, PointerState::Broken)] = world.alarms()[..] else { panic!("{:?}", world.news) };
    assert!((360..=405).contains(&at), "{at}");
    assert_eq!(world.pointer().state, PointerState::Good);
}

#[test]
fn a_url_that_one_node_lacks_or_serves_otherwise_is_an_alarm_of_its_own() {
    let cases: [Case; 3] = [
        (|status| Reply::Missing(status), PointerState::Broken),
        (|_| Reply::Status(503), PointerState::Broken),
        (|_| shown("other"), PointerState::Split),
    ];
    for (reply, state) in cases {
        let mut world = world(pointing(false), move |node, path, _| match (node, path) {
            (_, "/current") => Reply::Value("1".to_owned()),
            (Some("n1"), _) => reply(404),
            (_, path) => content(path),
        });
        world.run_until(600);
        assert_eq!(world.pointer().state, state, "{:?}", world.pointer());
        assert!(world.pointer().findings[0].text.contains("n1"));
        let at = world.alarms()[0].0;
        assert!((60..=100).contains(&at), "{at}");
    }
}

#[test]
fn a_pointer_that_a_node_still_serves_as_it_was_is_split() {
    let mut world = world(pointing(true), |node, path, t| match (node, path) {
        (Some("n0"), "/current") => Reply::Value("1".to_owned()),
        (_, "/current") => Reply::Value(if t < 300 { "1" } else { "2" }.to_owned()),
        (_, path) => content(path),
    });
    world.run_until(600);
    assert_eq!(world.pointer().state, PointerState::Split);
    assert_eq!(world.pointer().findings[0].text, "n0 still names 1");
    let at = world.alarms()[0].0;
    assert!((360..=400).contains(&at), "{at}");
}

#[test]
fn a_pointer_that_flaps_is_unverifiable_and_disturbs_nobody() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = world(pointing(seed % 2 == 0), move |node, path, _| match (node, path) {
            // Two replicas; version 2 is not there yet.
            (None, "/current") => Reply::Value(if random.bool() { "1" } else { "2" }.to_owned()),
            (_, "/current") => Reply::Value("1".to_owned()),
            (_, "/v/2/") => Reply::Missing(404),
            (_, path) => content(path),
        });
        world.run_until(20_000);
        assert_eq!(world.alarms(), [], "seed {seed}");
        assert_eq!(world.pointer().state, PointerState::Unverifiable, "seed {seed}");
        let moved = world.news.iter().filter(|(_, n)| matches!(n, PointerNews::Moved { .. }));
        assert!(moved.clone().count() < 30, "{} moves", moved.count());
        let per_minute = world.fetched.len() / 333;
        assert!(per_minute < 60, "{per_minute}");
        assert!(world.engine.watches.len() <= 6, "{}", world.engine.watches.len());
    }
}

#[test]
fn a_pointer_that_names_something_else_each_time_stays_within_bounds() {
    let mut n = 0;
    let mut world = world(pointing(false), move |_, path, _| match path {
        "/current" => {
            n += 1;
            Reply::Value(n.to_string())
        }
        path => content(path),
    });
    world.run_until(20_000);
    assert!(world.engine.watches.len() <= 5, "{}", world.engine.watches.len());
    assert_eq!(world.engine.names.len(), world.engine.pointers_watched());
    assert_eq!(world.alarms(), []);
}

#[test]
fn a_value_that_cannot_be_used_is_unreadable() {
    for value in ["../admin", "\" && obj.status == 200", "a\r\nb", "", "100%"] {
        let mut world = world(pointing(false), move |_, path, t| match path {
            "/current" if t < 300 => Reply::Value("1".to_owned()),
            "/current" => Reply::Value(value.to_owned()),
            path => content(path),
        });
        world.run_until(600);
        assert_eq!(world.pointer().state, PointerState::Unreadable, "{value:?}");
        let finding = &world.pointer().findings[0];
        assert_eq!(finding.kind, FindingKind::Unusable);
        assert!(finding.text.contains("cannot be used"), "{finding:?}");
        assert_eq!(world.pointer().value.unwrap().as_str(), "1", "the last one is still watched");
        assert!((360..=400).contains(&world.alarms()[0].0), "{:?}", world.alarms());
        let hosts = world.fetched.iter().filter(|(_, url)| !url.starts_with("http://a/v/1/"));
        assert!(hosts.clone().all(|(_, url)| url == "http://a/current"));
    }
}

#[test]
fn a_short_failure_of_the_store_is_no_alarm_and_a_long_one_is() {
    let play = |length: u64| {
        let mut world = world(pointing(false), move |_, path, t| match path {
            "/current" if (300..300 + length).contains(&t) => Reply::Down,
            "/current" => Reply::Value("1".to_owned()),
            path => content(path),
        });
        world.run_until(290 + length);
        let during = world.pointer().state;
        world.run_until(2_000);
        (during, world.alarms(), world.pointer().state)
    };
    assert_eq!(play(45), (PointerState::Lagging, vec![], PointerState::Good));
    let (during, alarms, after) = play(600);
    assert_eq!((during, alarms.len(), after), (PointerState::Unreadable, 1, PointerState::Good));
}

#[test]
fn a_node_that_is_away_is_no_fault_of_the_pointer() {
    let mut world = world(pointing(true), |node, path, t| match (node, path) {
        (Some("n1"), _) if (300..900).contains(&t) => Reply::Down,
        (_, "/current") => Reply::Value("1".to_owned()),
        (_, path) => content(path),
    });
    world.run_until(800);
    assert_eq!(world.pointer().state, PointerState::Unverifiable);
    world.run_until(1_200);
    assert_eq!(world.pointer().state, PointerState::Good);
    assert_eq!(world.alarms(), []);
}

#[test]
fn an_old_url_that_is_taken_away_is_forgotten_and_one_that_comes_back_is_known() {
    let mut world = world(pointing(false), |node, path, t| match (node, path) {
        (_, "/current") => Reply::Value(if (300..600).contains(&t) { "2" } else { "1" }.to_owned()),
        // It is gone at the origin for a while; the caches have it.
        (None, "/v/1/") if (340..500).contains(&t) => Reply::Missing(404),
        (_, path) => content(path),
    });
    world.run_until(450);
    assert_eq!(world.variants(), ["target-1"]);
    assert_eq!(world.reached(State::Stale), None);
    world.run_until(900);
    assert_eq!(world.pointer().state, PointerState::Good);
    assert_eq!(world.pointer().value.unwrap().as_str(), "1");
    assert_eq!(world.alarms(), []);
    world.run_until(3_000);
    assert_eq!(world.variants(), ["target-1"]);
}

#[test]
fn a_restart_knows_where_the_pointer_led_and_raises_nothing_false() {
    fn healthy(_: Option<&str>, path: &str, t: u64) -> Reply {
        match path {
            "/current" => Reply::Value(if t < 430 { "1" } else { "2" }.to_owned()),
            path => content(path),
        }
    }
    let mut before = world(pointing(true), healthy);
    before.run_until(400);
    let mut after = restored(pointing(true), before.stored(), 420, healthy);
    assert_eq!(after.pointer().value.unwrap().as_str(), "1", "before anything was fetched");
    assert!(after.variants().contains(&"target-1".to_owned()));
    after.run_until(425);
    assert_eq!(after.pointer().state, PointerState::Good);
    // It moves while nobody looks.
    let mut later = restored(pointing(true), after.stored(), 600, healthy);
    later.run_until(1_000);
    assert_eq!(later.pointer().value.unwrap().as_str(), "2");
    assert_eq!((later.pointer().state, later.alarms()), (PointerState::Good, vec![]));
}

#[test]
fn a_restart_does_not_reset_an_alarm_of_what_is_missing_or_differs() {
    let cases: [Case; 2] = [
        (|status| Reply::Missing(status), PointerState::Broken),
        (|_| shown("other"), PointerState::Split),
    ];
    for (reply, state) in cases {
        let answer = move |node: Option<&str>, path: &str, _: u64| match (node, path) {
            (_, "/current") => Reply::Value("1".to_owned()),
            (None, path) if state == PointerState::Split => content(path),
            (Some("n0"), path) if state == PointerState::Split => content(path),
            _ => reply(404),
        };
        let mut before = world(pointing(false), answer);
        before.run_until(400);
        assert_eq!(before.pointer().state, state);
        let mut after = restored(pointing(false), before.stored(), 420, answer);
        after.run_until(475);
        assert_eq!(after.pointer().state, state, "{:?}", after.news);
    }
}

#[test]
fn another_plan_keeps_what_is_known_and_forgets_the_rest() {
    let answer = |_: Option<&str>, path: &str, t: u64| match path {
        "/current" => Reply::Value(if t < 300 { "1" } else { "2" }.to_owned()),
        path => content(path),
    };
    let mut world = world(pointing(true), answer);
    world.run_until(400);
    world.engine.handle(Input::Replan(pointing(true)), world.now);
    assert_eq!(world.variants(), ["pointer", "previous-1", "target-1"]);
    assert_eq!(world.pointer().state, PointerState::Good);
    world.run_until(500);
    assert_eq!(world.pointer().state, PointerState::Good);
    world.engine.handle(Input::Replan(plan(1, 2)), world.now);
    world.run_until(501);
    assert!(world.engine.snapshot(world.now).pointers.is_empty());
    assert_eq!(world.variants(), ["default"]);
    assert!(world.stored().histories.iter().all(|record| record.endpoint.as_str() == "e0"));
}

#[test]
fn pointers_obey_the_budget_and_leave_the_others_alone() {
    let mut plan = pointing(false);
    plan.origins[0].max_rate = 2.0;
    plan.watches = super::plan(20, 2).watches;
    let mut world = world(plan, |_, path, t| match path {
        "/current" => Reply::Value((t / 60).to_string()),
        path => content(path),
    });
    world.run_until(3_000);
    let rate = f64::from(u32::try_from(world.origin_questions).unwrap()) / 3_000.0;
    assert!(rate < 2.1, "{rate}");
    let snapshot = world.engine.snapshot(world.now);
    for target in snapshot.targets.iter().filter(|t| t.endpoint.as_str() != NAME) {
        assert_eq!(target.state, State::Fresh);
        let probes: u64 = target.probes.iter().sum();
        assert!((95..=105).contains(&probes), "{probes}");
    }
}

#[test]
fn urls_of_one_pointer_are_no_variants_of_each_other() {
    let mut plan = pointing(false);
    plan.explain = true;
    plan.pointers[0].urls.push("http://a/w/{value}/".parse().unwrap());
    let mut world = world(plan, |node, path, t| match (node, path) {
        (_, "/current") => Reply::Value("1".to_owned()),
        (Some("n0"), "/v/1/") => shown("old"),
        (_, "/v/1/") => shown(if t < 100 { "old" } else { "new" }),
        (_, path) => content(path),
    });
    world.run_until(400);
    assert_eq!(world.pointer().state, PointerState::Split);
    assert_eq!(world.variants(), ["target-1", "target-2"]);
    let cases = world.cases.iter().map(|(_, case)| case.variants.len());
    assert!(cases.clone().count() > 0 && cases.sum::<usize>() == 0);
}

#[test]
fn a_move_while_answers_are_under_way_is_taken_in_without_a_mix_up() {
    // Answers take so long that moves fall into rounds.
    for (grace, end) in
        [0, 10, 600].into_iter().flat_map(|g| (100..1_300).step_by(50).map(move |e| (g, e)))
    {
        let mut plan = pointing(true);
        plan.pointers[0].grace = Duration::from_secs(grace);
        let mut world = world(plan, |_, path, t| match path {
            "/current" => Reply::Value((t / 65).to_string()),
            path => content(path),
        });
        world.takes = Duration::from_secs(13);
        world.run_until(end);
        for watch in world.engine.watches.iter().filter(|watch| !watch.retired) {
            // A watch that got the answer to another one's question would know its content.
            let url = watch.plan.target.url.path_and_query();
            let own = |seen: &crate::verdict::Seen| match &seen.version.mark {
                Mark::Etag(tag) => **tag == *url,
                _ => url == "/current",
            };
            assert!(watch.history.parts().seen.iter().all(own), "{url}: {:?}", watch.history);
        }
        assert_eq!(world.reached(State::Stale), None, "grace {grace}");
        assert!(world.engine.watches.len() <= 6, "{}", world.engine.watches.len());
    }
}
