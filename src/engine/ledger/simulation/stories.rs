//! What happens to single bans.

use super::*;

fn world() -> World {
    World::new(Limits::default(), false)
}

fn labels(world: &World, at: usize) -> Vec<&'static str> {
    let name = node(at);
    world.ledger.entries().map(|entry| entry.nodes[&name].label()).collect()
}

fn texts(world: &World, at: usize) -> Vec<String> {
    world.nodes[at].took.iter().map(ToString::to_string).collect()
}

#[test]
fn a_node_that_was_out_of_reach_gets_what_it_missed_in_order() {
    let mut world = world();
    world.act(&Action::Check(0));
    world.act(&Action::Path(0, 2));
    for at in [2, 0, 0, 1, 0] {
        world.act(&Action::Command(at));
    }
    assert_eq!(texts(&world, 0), [""; 0]);
    world.act(&Action::Path(0, 0));
    world.advance(2);
    let expected = ["2", "0", "1", "0"].map(|x| format!("obj.http.x == {x}"));
    assert_eq!(texts(&world, 0), expected, "equal ones in a row are one");
    assert_eq!(labels(&world, 0), ["taken"; 5]);
    assert!(world.news.contains(&News::Delivered { node: node(0), bans: 5 }));
}

#[test]
fn a_cache_that_was_started_after_the_ban_does_not_need_it() {
    for (stop, expected) in [
        (Action::StopWorker(0), "void"),
        // Behind a filter a restart may have been before the ban as well.
        (Action::Path(0, 2), "taken"),
        (Action::Path(0, 3), "taken"),
        // A filter that rejects looks like this from outside.
        (Action::StopManager(0), "taken"),
    ] {
        let mut world = world();
        world.act(&Action::Check(0));
        world.act(&stop);
        world.act(&Action::Command(1));
        world.act(&Action::RestartWorker(0));
        world.act(&Action::Start(0));
        world.act(&Action::Path(0, 0));
        world.act(&Action::Wait(5));
        assert_eq!(labels(&world, 0), [expected], "{stop:?}");
        assert_eq!(texts(&world, 0).len(), usize::from(expected == "taken"));
    }
}

#[test]
fn a_restart_behind_a_path_that_refuses_may_have_been_before_the_ban() {
    let mut world = world();
    world.act(&Action::Check(0));
    world.act(&Action::Path(0, 3));
    world.act(&Action::StopManager(0));
    world.act(&Action::Start(0));
    // By now there may be old content in the new cache.
    world.act(&Action::Command(1));
    world.act(&Action::Check(0));
    world.act(&Action::Path(0, 0));
    world.act(&Action::Wait(5));
    assert_eq!(labels(&world, 0), ["taken"]);
    assert_eq!(texts(&world, 0).len(), 1);
}

#[test]
fn a_restart_after_a_sight_of_the_process_is_certain() {
    let mut world = world();
    // The connection broke after the ban was sent; the daemon still reaches the node afterwards.
    world.act(&Action::LoseAnswer(0, 0));
    world.act(&Action::Command(1));
    world.act(&Action::Check(0));
    world.kill();
    world.act(&Action::RestartWorker(0));
    world.act(&Action::Wait(1));
    assert_eq!(labels(&world, 0), ["void"]);
    assert_eq!(texts(&world, 0), [""; 0]);
}

#[test]
fn storage_that_persists_needs_its_bans_after_a_restart() {
    let mut world = World::new(Limits::default(), true);
    world.act(&Action::Check(1));
    world.act(&Action::StopManager(1));
    world.act(&Action::Command(1));
    world.act(&Action::Start(1));
    world.act(&Action::Wait(5));
    assert_eq!(labels(&world, 1), ["taken"]);
}

#[test]
fn the_same_ban_taken_later_makes_an_earlier_one_needless() {
    let mut world = world();
    world.act(&Action::Path(0, 2));
    world.act(&Action::Command(1));
    world.act(&Action::Path(0, 0));
    world.act(&Action::Command(1));
    assert_eq!(labels(&world, 0), ["void", "taken"]);
    world.act(&Action::Wait(60));
    assert_eq!(texts(&world, 0).len(), 1);
}

#[test]
fn a_ban_that_is_rejected_is_not_sent_again_and_holds_up_no_other() {
    let mut world = world();
    world.nodes[0].rejects = Some(1);
    for at in [0, 1, 2] {
        world.act(&Action::Handed(at));
    }
    world.nodes[1].rejects = Some(9);
    world.act(&Action::Wait(1));
    assert_eq!(labels(&world, 0), ["taken", "rejected", "taken"]);
    assert_eq!(world.ledger.undelivered(&node(0)).count(), 1);
    assert_eq!(world.ledger.taken(&node(0)).count(), 2);
}

#[test]
fn a_ban_that_costs_the_cache_process_is_given_up() {
    let mut ledger = Ledger::new(Limits::default(), Vec::new(), 1, Timestamp::EPOCH);
    ledger.watch(&[node(0)], Timestamp::EPOCH);
    let nodes = [(node(0), None)].into();
    ledger.issue(Issue { ban: ban(1), source: BanSource::Event, nodes }, Timestamp::EPOCH);
    let mut now = Timestamp::EPOCH;
    let mut sent = 0;
    while !ledger.entries().all(Entry::is_settled) && sent < 10 {
        while let Some(output) = ledger.poll_output() {
            match output {
                LedgerOutput::Request { request: Request::Inspect, .. } => {
                    let inspection = Inspection { process: None, persistent: true };
                    ledger.inspected(&node(0), Ok(inspection), now);
                }
                LedgerOutput::Request { request: Request::Deliver(_), .. } => {
                    sent += 1;
                    let lost = miss(BanResult::Unconfirmed, "child_lost");
                    ledger.delivered(&node(0), vec![Err(lost)], now);
                }
                LedgerOutput::Request { .. }
                | LedgerOutput::Record(_)
                | LedgerOutput::News(_)
                | LedgerOutput::Ended { .. } => {}
            }
        }
        let due = ledger.next_deadline().unwrap();
        if due.since(now) < Duration::from_secs(3_600) {
            now = now.max(due);
            ledger.tick(now);
        }
    }
    assert_eq!(sent, 3);
    assert_eq!(ledger.undelivered(&node(0)).count(), 1);
}

#[test]
fn settled_bans_go_first_and_what_is_dropped_undelivered_is_said() {
    let mut world = World::new(Limits { entries: 3, ..Limits::default() }, false);
    world.act(&Action::Path(0, 2));
    world.act(&Action::Command(0));
    world.act(&Action::Path(0, 0));
    world.act(&Action::Command(1));
    world.act(&Action::Path(0, 2));
    world.act(&Action::Command(2));
    world.act(&Action::Command(0));
    assert_eq!(labels(&world, 0), ["pending"; 3], "the delivered one made room");
    assert_eq!(world.ledger.dropped().map(|(_, n)| n).sum::<u64>(), 0);
    world.act(&Action::Command(1));
    assert_eq!(world.ledger.dropped().collect::<Vec<_>>()[0], (DropReason::Full, 1));
    let because = DropReason::Full;
    assert!(world.news.contains(&News::Dropped { node: node(0), ban: ban(0), because }));
    world.act(&Action::Wait(8 * 24 * 60 * 60));
    assert_eq!(world.ledger.dropped().collect::<Vec<_>>()[1], (DropReason::Expired, 3));
    assert!(world.disk.is_empty());
}

#[test]
fn what_all_bans_take_is_bounded() {
    let mut world = World::new(Limits { bytes: 1_000, ..Limits::default() }, false);
    for at in 0..50 {
        world.act(&Action::Handed(at));
    }
    let bytes: usize = world.ledger.entries().map(Entry::weight).sum();
    assert!(bytes <= 1_000 && world.ledger.entries().len() > 2, "{bytes}");
}

#[test]
fn a_node_that_stays_away_is_asked_less_and_less_often() {
    let mut world = world();
    world.act(&Action::Path(0, 2));
    world.act(&Action::Command(1));
    world.answer_all();
    let mut asked = 0;
    let start = world.now;
    while world.now.since(start) < Duration::from_secs(600) {
        let due = world.ledger.next_deadline().unwrap();
        world.now = world.now.max(due);
        world.ledger.tick(world.now);
        world.drain();
        asked += world.under_way.len();
        world.answer_all();
    }
    assert!((10..=30).contains(&asked), "{asked}");
}
