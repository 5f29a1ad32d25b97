//! Stories about why a node serves old content.

use super::*;

fn explaining(endpoints: usize, nodes: usize) -> Plan {
    Plan { explain: true, ..plan(endpoints, nodes) }
}

fn found(cause: Cause) -> Explanation {
    Explanation { cause, findings: Vec::new() }
}

#[test]
fn a_cause_is_sought_at_each_transition_then_ever_less_often_and_goes_with_the_old_content() {
    let mut world = World::new(
        explaining(1, 1),
        |t, _| shown(blocked(t)),
        |_, t| shown(if t < 900 { "v1" } else { "v2" }),
    );
    world.run_until(890);
    let lagging = world.reached(State::Lagging).unwrap();
    let stale = world.reached(State::Stale).unwrap();
    let asked: Vec<_> = world.cases.iter().map(|(at, _)| *at).collect();
    assert_eq!(asked[..2], [lagging, stale]);
    // 60 s later, then 120, then 240: each time in the first round from then on.
    let pauses: Vec<_> = asked[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), 3, "{asked:?}");
    for (pause, least) in pauses.iter().zip([60, 120, 240]) {
        assert!((least..least + 40).contains(pause), "{asked:?}");
    }
    assert_eq!(world.explained.len(), 1, "the same cause is told once");
    let cause = world.engine.snapshot(world.now).targets[0].cause.clone();
    assert_eq!(cause.unwrap().cause, Cause::NeverPurged);
    let (_, case) = &world.cases[0];
    let since = |at: Option<Timestamp>| at.unwrap().since(Timestamp::from_millis(START)).as_secs();
    let (after, before) = (since(case.change.after), since(case.change.before));
    assert!(after < 100 && (100..=131).contains(&before), "{after} {before}");
    world.run_until(990);
    assert_eq!(world.state(), State::Fresh);
    assert_eq!(world.engine.snapshot(world.now).targets[0].cause, None);
}

#[test]
fn a_stale_node_that_comes_with_another_old_version_is_looked_at_again() {
    // The origin changes every 100 s until 300; the node follows once, too late and half way.
    let origin = |t: u64| {
        if t < 100 {
            "v1"
        } else if t < 200 {
            "v2"
        } else {
            "v3"
        }
    };
    let node = |t: u64| if t < 600 { "v1" } else { "v2" };
    let mut world =
        World::new(explaining(1, 1), move |t, _| shown(origin(t)), move |_, t| shown(node(t)));
    world.run_until(590);
    world.run_until(650);
    assert_eq!(world.state(), State::Stale);
    let (at, case) = world.cases.last().unwrap();
    assert!((600..640).contains(at), "{at}");
    assert!(format!("{:?}", case.served).contains("v2"), "{:?}", case.served);
}

#[test]
fn what_was_found_is_not_lost_to_evidence_that_is_gone() {
    let mut first = true;
    let mut world = World::new(explaining(1, 1), |t, _| shown(blocked(t)), |_, _| shown("v1"));
    world.cause = Box::new(move |_| {
        let early = std::mem::replace(&mut first, false);
        found(if early { Cause::RacedFill } else { Cause::Undetermined })
    });
    world.run_until(500);
    assert!(world.cases.len() > 2);
    let cause = world.engine.snapshot(world.now).targets[0].cause.clone();
    assert_eq!(cause.unwrap().cause, Cause::RacedFill);
}

/// Somebody bans what is stale, and that hits nothing: what was true before is not any more.
#[test]
fn a_ban_that_came_later_changes_the_cause() {
    for later in [Cause::BanMissedIt, Cause::Undetermined] {
        let mut world = World::new(explaining(1, 1), |t, _| shown(blocked(t)), |_, _| shown("v1"));
        let mut asked = 0;
        world.cause = Box::new(move |_| {
            asked += 1;
            found(if asked <= 2 { Cause::NeverPurged } else { later })
        });
        world.run_until(400);
        let cause = world.engine.snapshot(world.now).targets[0].cause.clone();
        assert_eq!(cause.unwrap().cause, later);
        assert_eq!(world.explained.len(), 2, "each is told once");
    }
}

#[test]
fn an_outage_gathers_no_more_than_a_few_at_a_time() {
    let mut world = World::new(explaining(200, 1), |t, _| shown(blocked(t)), |_, _| shown("v1"));
    world.run_until(500);
    assert_eq!(world.most_gathering, 4);
    assert!(world.cases.len() >= 400, "all of them in the end, when lagging and when stale");
    assert!(world.engine.snapshot(world.now).targets.iter().all(|target| target.cause.is_some()));
}

#[test]
fn a_new_plan_asks_again_for_what_was_under_way() {
    let mut world = World::new(explaining(1, 1), |t, _| shown(blocked(t)), |_, _| shown("v1"));
    // Longer than the story: no answer comes.
    world.gather_takes = Duration::from_secs(10_000);
    world.run_until(390);
    assert_eq!((world.cases.len(), world.gathering), (2, 2));
    world.engine.handle(Input::Replan(explaining(1, 1)), world.now);
    world.gathering = 0;
    world.gather_takes = Duration::from_secs(1);
    world.run_until(450);
    assert_eq!((world.cases.len(), world.gathering), (3, 0));
    assert!(world.engine.snapshot(world.now).targets[0].cause.is_some());
}

#[test]
fn a_variant_that_did_not_change_proves_nothing() {
    let variant = |name: &str| VariantName::new(name).unwrap();
    let mut plan = explaining(2, 1);
    for (watch, name) in plan.watches.iter_mut().zip(["de", "fr"]) {
        watch.endpoint = EndpointName::new("e").unwrap();
        watch.variant = variant(name);
    }
    let mut engine = Engine::new(plan, Restored::default(), &[], 7, Timestamp::from_millis(START));
    let at = |seconds: u64| Timestamp::from_millis(START + seconds * 1_000);
    let version = |tag: &str| Version { status: 200, mark: Mark::Etag(tag.into()) };
    for watch in &mut engine.watches {
        watch.history.observe(&version("v1"), at(0));
        watch.places[0].verdict.state = State::Fresh;
        watch.places[0].verdict.last_fresh = Some(at(50));
    }
    engine.watches[0].history.observe(&version("v2"), at(100));
    engine.watches[0].places[0].verdict.state = State::Lagging;
    engine.watches[0].places[0].version = Some(version("v1"));
    let siblings = |engine: &Engine| engine.cases()[0].variants.clone();
    assert_eq!(siblings(&engine)[0].variant, variant("fr"));
    assert_eq!(siblings(&engine)[0].changed, Some(false), "it was not asked to change");
    engine.watches[1].history.observe(&version("v2"), at(110));
    assert_eq!(siblings(&engine)[0].changed, Some(false), "the node was not looked at since");
    engine.watches[1].places[0].verdict.last_fresh = Some(at(110));
    assert_eq!(siblings(&engine)[0].changed, Some(true));
}
