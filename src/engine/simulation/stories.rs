//! What happens to endpoints in the course of hours and days.

use super::*;

#[test]
fn the_incident() {
    let mut world = World::new(
        plan(1, 1),
        |t, _| shown(blocked(t)),
        |_, t| shown(if t < 400 { "v1" } else { "v2" }),
    );
    world.run_until(99);
    assert_eq!(world.state(), State::Fresh);
    world.run_until(390);
    assert_eq!(world.state(), State::Stale);
    let lagging = world.reached(State::Lagging).unwrap();
    assert!((100..=131).contains(&lagging), "noticed within one interval: {lagging}");
    let stale = world.reached(State::Stale).unwrap();
    assert!((lagging + 60..=lagging + 75).contains(&stale), "{lagging}, then {stale}");
    let staleness = world.staleness().unwrap();
    assert!((390 - 131..=290).contains(&staleness), "a lower bound: {staleness}");
    world.run_until(440);
    assert_eq!(world.state(), State::Fresh);
    assert_eq!(world.to_fresh.len(), 1);
}

#[test]
fn a_healthy_endpoint_costs_one_conditional_question_a_round() {
    let mut world = World::new(plan(1, 3), |_, _| shown("v"), |_, _| shown("v"));
    world.run_until(3_000);
    assert!((99..=103).contains(&world.origin_questions), "{}", world.origin_questions);
    let unconditional = world.origin_questions - world.conditional;
    assert!((9..=12).contains(&unconditional), "frozen 304s are seen: {unconditional}");
    assert_eq!(world.states.len(), 3);
}

#[test]
fn a_restart_does_not_reset_an_alarm() {
    let node = |_: &str, _| shown("v1");
    let mut world = World::new(plan(1, 1), |t, _| shown(blocked(t)), node);
    world.run_until(400);
    assert_eq!(world.state(), State::Stale);
    let before = world.staleness().unwrap();
    let mut restored = Restored::default();
    for record in std::mem::take(&mut world.records) {
        match record {
            Record::History(record) => restored.histories = vec![record],
            Record::Verdict(record) => restored.verdicts = vec![record],
            Record::Hour(_) => {}
            Record::Forget { .. } | Record::Ledger(_) => panic!("nothing was forgotten"),
        }
    }
    let mut world = World::restored(plan(1, 1), restored, 420, |t, _| shown(blocked(t)), node);
    assert_eq!(world.state(), State::Stale);
    assert_eq!(world.staleness(), Some(before + 20));
    world.run_until(500);
    assert_eq!(world.state(), State::Stale);
    assert_eq!(world.staleness(), Some(before + 100));
    assert!(world.states.is_empty(), "and it says nothing new: {:?}", world.states);
}

#[test]
fn nonces_are_unverifiable() {
    let mut world = World::new(plan(1, 1), |_, n| shown(&n.to_string()), |_, _| shown("x"));
    world.run_until(1_000);
    assert_eq!(world.state(), State::Unverifiable);
    assert_eq!(world.reached(State::Lagging), None);
}

#[test]
fn replicas_out_of_step_raise_no_alarm() {
    // Which replica answers is drawn at random, question by question.
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(
            plan(1, 1),
            move |_, _| shown(if random.bool() { "a" } else { "b" }),
            |_, _| shown("a"),
        );
        world.run_until(50_000);
        assert_eq!(world.reached(State::Stale), None, "seed {seed}");
    }
}

#[test]
fn a_cache_that_expires_in_time_raises_nothing() {
    // The origin changes every 45 s; the node holds what it fetched for 40 s.
    let at = |t: u64| (t / 45).to_string();
    let mut world =
        World::new(plan(1, 1), move |t, _| shown(&at(t)), move |_, t| shown(&at(t / 40 * 40)));
    world.run_until(20_000);
    assert_eq!(world.reached(State::Stale), None);
    assert_eq!(world.reached(State::Unverifiable), None);
    assert!(world.reached(State::Lagging).is_some());
}

#[test]
fn a_cache_that_is_down_is_said_to_be() {
    let node = |_: &str, t: u64| if t < 100 { shown("v") } else { Reply::Status(503) };
    let mut world = World::new(plan(1, 1), |_, _| shown("v"), node);
    world.run_until(150);
    assert_eq!(world.state(), State::CacheDown);
    assert_eq!(world.staleness(), None);
    let origin = |t, _| if t < 100 { shown("v") } else { Reply::Down };
    let mut world = World::new(plan(1, 1), origin, |_, _| shown("v"));
    world.run_until(150);
    assert_eq!(world.state(), State::OriginDown);
}

#[test]
fn an_origin_that_wants_a_pause_gets_it() {
    let mut world = World::new(plan(50, 1), |_, _| Reply::Status(429), |_, _| shown("v"));
    world.run_until(3_000);
    assert!(world.origin_questions < 100, "{} of 5000", world.origin_questions);
    assert_eq!(world.state(), State::OriginDown);
}

#[test]
fn an_origin_is_never_asked_more_often_than_allowed() {
    let mut slow = plan(1_000, 2);
    slow.origins[0].max_rate = 20.0;
    let mut world = World::new(slow, |_, _| shown("b"), |_, _| shown("a"));
    world.run_until(100);
    assert!((1_900..=2_010).contains(&world.origin_questions), "{}", world.origin_questions);
}

#[test]
fn ten_thousand_endpoints_start_in_time() {
    let mut world = World::new(plan(10_000, 1), |_, _| shown("a"), |_, _| shown("a"));
    world.run_until(120);
    assert!(world.latest <= Duration::from_millis(50), "{:?}", world.latest);
    assert!(world.engine.all_probed());
}

#[test]
fn a_blocked_admin_port_shows_within_one_interval() {
    let mut world = World::new(plan(1, 1), |_, _| shown("a"), |_, _| shown("a"));
    world.admin_up = Box::new(|t| !(50..200).contains(&t));
    world.run_until(300);
    let changes: Vec<_> = world.admin.iter().map(|(_, up)| *up).collect();
    assert_eq!(changes, [true, false, true]);
    assert!((50..=66).contains(&world.admin[1].0), "{:?}", world.admin);
    let admin = world.engine.snapshot(world.now).nodes[0].admin.clone().unwrap();
    assert!((9..=11).contains(&admin.failures[0].1), "{:?}", admin.failures);
}

#[test]
fn a_fetch_that_takes_its_whole_timeout_is_progress_and_one_that_is_lost_is_not() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut slow = plan(1, 1);
    let mut target = (*slow.watches[0].target).clone();
    target.timeout = Duration::from_secs(300);
    slow.watches[0].target = Arc::new(target);
    slow.watches[0].interval = Duration::from_secs(600);
    let at = |seconds: u64| Timestamp::from_millis(START + seconds * 1_000);
    let mut engine = Engine::new(slow, Restored::default(), &["refused"], 7, at(0));
    engine.handle(Input::Tick, at(1));
    let fetch = std::iter::from_fn(|| engine.poll_output()).find_map(|output| match output {
        Output::Fetch { id, .. } => Some(id),
        _ => None,
    });
    let fetch = fetch.unwrap();
    for seconds in [2, 100, 300, 359] {
        engine.handle(Input::Tick, at(seconds));
        assert!(engine.is_progressing(PATIENCE, at(seconds)), "{seconds}");
    }
    // It should have ended by now; that admin ports are checked all the same hides nothing.
    let node = NodeName::new("n0").unwrap();
    engine.handle(Input::AdminChecked { node, result: Ok(None) }, at(362));
    assert!(!engine.is_progressing(PATIENCE, at(362)));
    let (outcome, phases) = (Outcome::Failed(Failure::Refused), Phases::default());
    let observation = Observation { started: at(1), finished: at(363), phases, outcome };
    engine.handle(Input::Fetched { id: fetch, observation }, at(363));
    assert!(engine.is_progressing(PATIENCE, at(363)));
    // Whoever drives the engine has stopped doing so.
    assert!(!engine.is_progressing(PATIENCE, at(363 + 700)));
}

#[test]
fn another_plan_keeps_what_is_known_and_forgets_what_is_gone() {
    let mut world = World::new(plan(2, 1), |t, _| shown(blocked(t)), |_, _| shown("v1"));
    world.run_until(300);
    let before = world.staleness();
    let now = world.now;
    world.engine.handle(Input::Replan(plan(1, 2)), now);
    let snapshot = world.engine.snapshot(now);
    let states: Vec<_> = snapshot.targets.iter().map(|t| (t.node.as_str(), t.state)).collect();
    assert_eq!(states, [("n0", State::Stale), ("n1", State::Unknown)]);
    assert_eq!(world.staleness(), before);
    world.run_until(310);
    let forgotten = world.records.iter().any(
        |record| matches!(record, Record::Forget { endpoint, .. } if endpoint.as_str() == "e1"),
    );
    assert!(forgotten);
}

#[test]
fn a_single_check_needs_no_history() {
    let mut once = plan(3, 2);
    once.once = true;
    let node = |node: &str, _| shown(if node == "n1" { "old" } else { "new" });
    let mut world = World::new(once, |_, _| shown("new"), node);
    world.run_until(10);
    assert!(world.engine.all_probed() && world.engine.next_deadline().is_none());
    let snapshot = world.engine.snapshot(world.now);
    for target in snapshot.targets {
        let wanted = if target.node.as_str() == "n1" { State::Stale } else { State::Fresh };
        assert_eq!(target.state, wanted);
    }
}

/// Plays until `seconds`: the alarm is on then.
fn stale_at(world: &mut World, seconds: u64) {
    world.run_until(seconds);
    assert_eq!(world.state(), State::Stale, "at {seconds} s: {:?}", world.states);
}

#[test]
fn an_origin_that_moves_on_all_the_time_excuses_no_frozen_cache() {
    for period in [10, 20, 45, 200] {
        let mut world = World::new(
            plan(1, 1),
            move |t, _| shown(&format!("v{}", t.saturating_sub(100) / period)),
            |_, _| shown("v0"),
        );
        stale_at(&mut world, 100 + period + 300);
        // Also when it started with the cache frozen already, and later than versions are kept.
        let mut world = World::new(
            plan(1, 1),
            move |t, _| shown(&format!("v{}", t / period)),
            |_, _| shown("old"),
        );
        stale_at(&mut world, 400);
        stale_at(&mut world, 20_000);
        let lost = world.states.iter().filter(|(_, _, to)| *to != State::Stale).count();
        assert_eq!(lost, 1, "once found it stays: {:?}", world.states);
    }
}

#[test]
fn an_origin_that_goes_back_and_forth_excuses_no_third_version() {
    // Two replicas in turns; the node has what neither has served for long.
    for turn in [70, 130, 200] {
        let origin = move |t: u64, _| match t {
            ..100 => shown("old"),
            _ if (t / turn).is_multiple_of(2) => shown("a"),
            _ => shown("b"),
        };
        let mut world = World::new(plan(1, 1), origin, |_, _| shown("old"));
        // It is too late for an alarm from before the doubt: the daemon forgot its verdicts.
        world.run_until(3_000);
        let mut histories = world.records.drain(..).filter_map(|record| match record {
            Record::History(record) => Some(record),
            _ => None,
        });
        let histories = histories.next_back().into_iter().collect();
        let restored = Restored { histories, ..Restored::default() };
        let node = |_: &str, _| shown("old");
        let mut world = World::restored(plan(1, 1), restored, 3_000, origin, node);
        stale_at(&mut world, 100 + 3_600 + 200);
        stale_at(&mut world, 40_000);
    }
}

#[test]
fn an_order_that_starts_over_hides_no_old_content() {
    // The counter of the origin is reset; a cache that keeps the high number is not ahead.
    let origin = |t: u64, _| Reply::Number(if t < 100 { 500 } else { t / 100 });
    let mut world = World::new(plan(1, 1), origin, |_, _| Reply::Number(500));
    stale_at(&mut world, 700);
    stale_at(&mut world, 20_000);
}

#[test]
fn a_version_that_was_taken_back_is_old_however_high_its_number() {
    let origin = |t: u64, _| Reply::Number(if (100..300).contains(&t) { 6 } else { 5 });
    let node = |_: &str, t: u64| Reply::Number(if t < 100 { 5 } else { 6 });
    let mut world = World::new(plan(1, 1), origin, node);
    world.run_until(290);
    assert_eq!(world.state(), State::Fresh);
    stale_at(&mut world, 900);
}

#[test]
fn a_replica_that_is_ahead_makes_no_cache_old() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        // One replica lags behind the other by a number; the node has the newest.
        let origin = move |t: u64, _| Reply::Number(10 + t / 1_000 - u64::from(random.bool()));
        let mut world = World::new(plan(1, 1), origin, |_, t| Reply::Number(10 + t / 1_000));
        world.run_until(20_000);
        assert_eq!(world.reached(State::Stale), None, "seed {seed}");
    }
}

#[test]
fn a_deployment_that_takes_its_time_raises_no_lasting_alarm() {
    // Replica by replica goes over to the new version within ten minutes; the node asks one of
    // them whenever its object expires, after 30 s.
    for seed in 0..50 {
        let replica = move |t: u64, draw: u64| {
            let mut random = fastrand::Rng::with_seed(draw.wrapping_mul(0x9e37_79b9) ^ seed);
            let deployed = t.saturating_sub(500) * 10 / 600;
            shown(if random.u64(..10) < deployed { "new" } else { "old" })
        };
        let mut world = World::new(
            plan(1, 1),
            move |t, question| replica(t, question + 1_000_000),
            move |_, t| replica(t / 30 * 30, t / 30),
        );
        world.run_until(3_000);
        assert_ne!(world.state(), State::Stale, "seed {seed}: {:?}", world.states);
        // A replica that is left over may feed the node for one object's life.
        let mut alarms = world.states.windows(2).filter(|pair| pair[0].2 == State::Stale);
        assert!(alarms.all(|pair| pair[1].0 - pair[0].0 <= 61), "seed {seed}: {:?}", world.states);
        assert!(world.states.len() > 1);
        world.run_until(9_000);
        assert_eq!(world.state(), State::Fresh);
    }
}

#[test]
fn an_origin_that_answers_304_for_ever_is_seen_through_at_any_interval() {
    // Its validator does not change with its content, and neither does the node's content.
    let mut slow = plan(1, 1);
    slow.watches[0].interval = Duration::from_secs(24 * 3_600);
    let mut world = World::new(slow, |_, _| shown("v"), |_, _| shown("v"));
    world.run_until(10 * 24 * 3_600);
    assert_eq!(world.conditional, 0, "a day between two rounds saves no origin any work");
}

#[test]
fn a_day_between_rounds_and_a_limit_of_seconds_still_find_it() {
    let mut slow = plan(1, 2);
    slow.watches[0].interval = Duration::from_secs(24 * 3_600);
    slow.watches[0].max_stale = Duration::from_secs(3);
    let node = |node: &str, _| shown(if node == "n0" { "v1" } else { "v2" });
    let mut world = World::new(slow, |t, _| shown(blocked(t)), node);
    stale_at(&mut world, 3 * 24 * 3_600);
}

#[test]
fn a_reload_storm_keeps_alarms_and_ends() {
    let mut world = World::new(plan(3, 1), |t, _| shown(blocked(t)), |_, _| shown("v1"));
    world.run_until(300);
    for step in 0..500 {
        let now = world.now;
        let next = if step % 2 == 0 { plan(2, 2) } else { plan(3, 1) };
        world.engine.handle(Input::Replan(next), now);
        world.run_until(300 + step);
        assert_eq!(world.state(), State::Stale, "{step}");
    }
    stale_at(&mut world, 1_000);
    assert!(world.engine.snapshot(world.now).targets.iter().all(|t| t.state == State::Stale));
}
