//! What follows from which observations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Mark, Timestamp, Version};
use crate::verdict::{Sight, Unversioned};

const LIMITS: ProofLimits = ProofLimits { within: Duration::from_secs(9), rounds: 3, grace: false };

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn version(token: &str) -> Sight {
    Sight::Version(Version { status: 200, mark: Mark::Token(token.into()) })
}

fn failed(status: u16) -> Sight {
    Sight::Failed(Fault::Status(status))
}

/// What a node served: by this object, or fetched for the request. Each has another id.
fn served(token: &str, object: Option<u64>) -> Serving {
    static REQUESTS: AtomicU64 = AtomicU64::new(100);
    Serving {
        at: at(0),
        sight: version(token),
        status: Some(200),
        transaction: Some((REQUESTS.fetch_add(1, Ordering::Relaxed), object)),
        is_varnish: true,
        age: Some(7),
        date: Some(90),
        tiers: 1,
        hit_behind: false,
    }
}

/// The same without `X-Varnish`.
fn hidden(token: &str, millis: u64, age: u64, date: u64) -> Serving {
    let (age, date) = (Some(age), Some(date));
    Serving { at: at(millis), transaction: None, age, date, ..served(token, None) }
}

/// `a` by object 3, cached.
fn cached() -> Before {
    Before::of(served("a", Some(3)))
}

fn begin(before: Before, has_origin: bool) -> (Prover, Step) {
    Prover::begin(before, has_origin, LIMITS, at(0))
}

fn done(proof: Proof) -> Step {
    Step::Done(proof)
}

/// One look without an origin.
fn alone(before: Before, after: Serving) -> Step {
    let (mut prover, step) = begin(before, false);
    assert_eq!(step, Step::AskNode);
    prover.node(after, at(1))
}

const SAME: Step = Step::Done(Proof::Survived(Survival::SameObject { basis: Basis::Ids }));

fn replaced(basis: Basis) -> Step {
    done(Proof::Replaced { basis, why: Uncompared::NoOrigin })
}

fn unprovable(obstacle: Obstacle) -> Step {
    done(Proof::Unprovable(obstacle))
}

#[test]
fn objects_are_told_apart_by_their_ids() {
    assert_eq!(alone(cached(), served("a", Some(3))), SAME);
    assert_eq!(alone(cached(), served("a", Some(4))), replaced(Basis::Ids));
    assert_eq!(alone(cached(), served("a", None)), replaced(Basis::Ids));
    let uncached = || Before::of(served("a", None));
    let not_cached = unprovable(Obstacle::NotCached { status: 200 });
    assert_eq!(alone(uncached(), served("b", None)), not_cached);
    assert_eq!(alone(uncached(), served("b", Some(3))), unprovable(Obstacle::NoIdentity));
    let unseen = Before::Unseen(Fault::Status(503));
    assert_eq!(alone(unseen, served("b", Some(3))), unprovable(Obstacle::NotSeenBefore));
    let foreign = Serving { is_varnish: false, ..served("b", None) };
    assert_eq!(alone(cached(), foreign), unprovable(Obstacle::NotACache));
}

#[test]
fn age_tells_old_objects_apart_where_there_are_no_ids() {
    let before = |age| Before::of(hidden("a", 0, age, 90));
    let same = done(Proof::Survived(Survival::SameObject { basis: Basis::Age }));
    assert_eq!(alone(before(60), hidden("a", 4_000, 64, 90)), same);
    assert_eq!(alone(before(60), hidden("a", 4_000, 4, 150)), replaced(Basis::Age));
    assert_eq!(alone(before(60), hidden("a", 4_000, 0, 90)), replaced(Basis::Age));
    // Too young to tell, a Date of each answer's own, no Age at all.
    let unclear = unprovable(Obstacle::NoIdentity);
    assert_eq!(alone(before(1), hidden("a", 100, 0, 91)), unclear);
    assert_eq!(alone(before(60), hidden("a", 4_000, 64, 150)), unclear);
    let silent = Serving { age: None, ..hidden("a", 4_000, 0, 90) };
    assert_eq!(alone(before(60), silent), unclear);
}

#[test]
fn an_age_that_no_cache_can_count_says_nothing() {
    let unclear = unprovable(Obstacle::NoIdentity);
    for giant in [1 << 31, u64::MAX / 2, u64::MAX] {
        for (old, new) in [(giant, giant), (giant, 4), (60, giant)] {
            let before = Before::of(hidden("a", 0, old, 90));
            assert_eq!(alone(before, hidden("a", 4_000, new, 90)), unclear, "{old} {new}");
        }
    }
}

#[test]
fn content_that_the_origin_serves_is_proof_unless_the_object_is_the_old_one() {
    let (mut prover, step) = begin(cached(), true);
    assert_eq!(step, Step::AskOrigin { since: at(0), confirms: false });
    assert_eq!(prover.origin(version("b"), at(1)), Step::AskNode);
    assert_eq!(prover.node(served("b", None), at(2)), done(Proof::Proven));
    let (mut prover, _) = begin(cached(), true);
    prover.origin(version("a"), at(1));
    assert_eq!(prover.node(served("a", Some(3)), at(2)), SAME);
    let (mut prover, _) = begin(Before::of(served("a", None)), true);
    prover.origin(version("a"), at(1));
    assert_eq!(
        prover.node(served("a", None), at(2)),
        done(Proof::Proven),
        "never cached, and right"
    );
}

/// Brings the prover to the point where the node was shown to serve old content.
fn old(prover: &mut Prover, now: u64) -> Step {
    assert_eq!(prover.origin(version("b"), at(now)), Step::AskNode);
    let confirm = prover.node(served("a", Some(4)), at(now));
    assert_eq!(confirm, Step::AskOrigin { since: at(now), confirms: true });
    prover.origin(version("b"), at(now))
}

#[test]
fn old_content_that_was_fetched_anew_is_invalidated_again_a_few_times() {
    let (mut prover, _) = begin(cached(), true);
    assert_eq!(old(&mut prover, 1), Step::Repeat, "at once");
    let step = prover.repeated(true, at(2));
    assert_eq!(step, Step::AskOrigin { since: at(2), confirms: false });
    assert_eq!(old(&mut prover, 3), Step::Pause { until: at(3_000) });
    assert_eq!(prover.waited(), Step::Repeat);
    prover.repeated(true, at(3_001));
    assert_eq!(old(&mut prover, 3_002), done(Proof::Survived(Survival::OldAgain)));
    assert_eq!(prover.rounds(), 3);

    let (mut prover, _) = begin(cached(), true);
    old(&mut prover, 1);
    assert_eq!(prover.repeated(false, at(2)), done(Proof::Survived(Survival::OldAgain)));
}

#[test]
fn an_origin_that_changed_meanwhile_is_no_old_content() {
    let (mut prover, _) = begin(cached(), true);
    prover.origin(version("a"), at(1));
    prover.node(served("b", None), at(2));
    assert_eq!(prover.origin(version("b"), at(3)), done(Proof::Proven));
    // One that never agrees with itself.
    let (mut prover, _) = begin(cached(), true);
    prover.origin(version("n0"), at(1));
    for attempt in 1..=3 {
        prover.node(served("x", Some(9)), at(2));
        let step = prover.origin(version(&format!("n{attempt}")), at(3));
        let doubt = Uncompared::Doubtful(Doubt::OriginDisagrees);
        let last = done(Proof::Replaced { basis: Basis::Ids, why: doubt });
        assert_eq!(step, if attempt < 3 { Step::AskNode } else { last });
    }
}

#[test]
fn the_version_from_before_is_no_newer_one_whatever_its_number() {
    // The origin went back from 7 to 6.
    let (mut prover, _) = begin(Before::of(served("7", Some(3))), true);
    prover.origin(version("6"), at(1));
    let step = prover.node(served("7", Some(4)), at(2));
    assert_eq!(step, Step::AskOrigin { since: at(2), confirms: true });
    assert_eq!(prover.origin(version("6"), at(3)), Step::Repeat);
}

#[test]
fn what_is_not_cached_and_not_the_origins_is_neither_proof_nor_old() {
    let (mut prover, _) = begin(Before::of(served("404", None)), true);
    prover.origin(version("b"), at(1));
    prover.node(served("404", None), at(2));
    assert_eq!(prover.origin(version("b"), at(3)), unprovable(Obstacle::NotTheOrigins));
}

#[test]
fn a_node_that_fails_is_asked_until_there_is_no_more_time() {
    let (mut prover, _) = begin(cached(), false);
    let broken = || Serving { sight: failed(503), status: Some(503), ..served("", None) };
    assert_eq!(prover.node(broken(), at(0)), Step::Pause { until: at(100) });
    assert_eq!(prover.cut(), Proof::Unprovable(Obstacle::NodeFailed(Fault::Status(503))));
    assert_eq!(prover.waited(), Step::AskNode);
    assert_eq!(prover.node(broken(), at(100)), Step::Pause { until: at(300) });
    let fault = Obstacle::NodeFailed(Fault::Status(503));
    assert_eq!(prover.node(broken(), at(8_900)), unprovable(fault));
}

#[test]
fn an_origin_that_fails_is_asked_again_and_then_done_without() {
    let (mut prover, _) = begin(cached(), true);
    for attempt in 1..=3 {
        assert_eq!(prover.origin(failed(500), at(1)), Step::AskNode);
        let step = prover.node(served("b", Some(9)), at(2));
        if attempt < 3 {
            assert!(matches!(step, Step::Pause { .. }), "{step:?}");
            prover.waited();
        } else {
            let why = Uncompared::OriginFailed(Fault::Status(500));
            assert_eq!(step, done(Proof::Replaced { basis: Basis::Ids, why }));
        }
    }
}

#[test]
fn a_soft_purge_may_serve_the_old_object_once_more() {
    let limits = ProofLimits { grace: true, ..LIMITS };
    let (mut prover, _) = Prover::begin(cached(), false, limits, at(0));
    assert_eq!(prover.node(served("a", Some(3)), at(1)), Step::Pause { until: at(101) });
    assert_eq!(prover.waited(), Step::AskNode);
    assert_eq!(prover.node(served("b", Some(4)), at(101)), replaced(Basis::Ids));
    assert_eq!(prover.node(served("a", Some(3)), at(8_990)), SAME);
}

#[test]
fn another_tier_behind_the_node_is_named() {
    let (mut prover, _) = Prover::begin(cached(), true, ProofLimits { rounds: 1, ..LIMITS }, at(0));
    prover.origin(version("b"), at(1));
    prover.node(Serving { tiers: 2, ..served("a", None) }, at(2));
    assert_eq!(prover.origin(version("b"), at(3)), done(Proof::Survived(Survival::OldUpstream)));
}

#[test]
fn a_cache_in_front_that_answers_again_is_seen_by_the_id_of_the_request() {
    let replayed = done(Proof::Survived(Survival::Replayed));
    for object in [None, Some(3)] {
        let first = served("a", object);
        assert_eq!(alone(Before::of(first.clone()), first), replayed);
    }
}

#[test]
fn what_came_out_of_a_cache_behind_may_be_old() {
    let behind = |token| Serving { tiers: 2, hit_behind: true, ..served(token, None) };
    assert_eq!(alone(Before::of(behind("a")), behind("a")), unprovable(Obstacle::CachedBehind));
    let limits = ProofLimits { rounds: 1, ..LIMITS };
    let (mut prover, _) = Prover::begin(Before::of(behind("a")), true, limits, at(0));
    prover.origin(version("b"), at(1));
    prover.node(behind("a"), at(2));
    assert_eq!(prover.origin(version("b"), at(3)), done(Proof::Survived(Survival::OldUpstream)));
}

#[test]
fn what_was_shown_counts_when_time_is_up() {
    let (mut prover, _) = begin(cached(), true);
    assert_eq!(prover.cut(), Proof::Unprovable(Obstacle::TimeUp));
    old(&mut prover, 1);
    assert_eq!(prover.cut(), Proof::Survived(Survival::OldAgain));
}

/// Anything that a node or an origin may say.
fn any_sight() -> impl Strategy<Value = Sight> {
    prop_oneof![
        4 => "[ab1-3]".prop_map(|token| version(&token)),
        1 => Just(failed(503)),
        1 => Just(Sight::Unversioned(Unversioned::NoEtag)),
    ]
}

fn any_serving() -> impl Strategy<Value = Serving> {
    let object = proptest::option::of((5_u64..9, proptest::option::of(1_u64..4)));
    let age = proptest::option::of(prop_oneof![9 => 0_u64..9, 1 => any::<u64>()]);
    (any_sight(), object, any::<bool>(), age, 0_u64..9_000).prop_map(
        |(sight, transaction, is_varnish, age, millis)| Serving {
            at: at(millis),
            sight,
            transaction,
            is_varnish,
            age,
            ..served("", None)
        },
    )
}

proptest! {
    /// Whatever is seen: it ends, and "proven" is never said of the old object, nor of content that
    /// the origin did not serve, nor without an origin.
    #[test]
    fn no_proof_is_stronger_than_its_evidence(
        before in any_serving(),
        has_origin: bool,
        origins in proptest::collection::vec(any_sight(), 1..6),
        nodes in proptest::collection::vec(any_serving(), 1..6),
        taken: bool,
    ) {
        let before = Before::of(before);
        let (mut prover, mut step) = Prover::begin(before.clone(), has_origin, LIMITS, at(0));
        let (mut now, mut asked) = (at(0), 0);
        let proof = loop {
            asked += 1;
            prop_assert!(asked < 500, "it does not end");
            step = match step {
                Step::Done(proof) => break proof,
                Step::AskOrigin { .. } => {
                    prop_assert!(has_origin);
                    prover.origin(origins[asked % origins.len()].clone(), now)
                }
                Step::AskNode => prover.node(nodes[asked % nodes.len()].clone(), now),
                Step::Repeat => prover.repeated(taken, now),
                Step::Pause { until } => {
                    prop_assert!(until > now && until <= at(9_000));
                    now = until;
                    prover.waited()
                }
            };
        };
        prop_assert!(prover.rounds() <= LIMITS.rounds);
        let last = prover.last().cloned();
        match proof {
            Proof::Proven => {
                let last = last.unwrap();
                prop_assert!(has_origin && last.is_varnish);
                prop_assert!(!matches!(before.sameness(&last), Sameness::Same(_)));
            }
            Proof::Replaced { basis, .. } => {
                prop_assert_eq!(before.sameness(&last.unwrap()), Sameness::Other(basis));
            }
            Proof::Survived(Survival::SameObject { basis }) => {
                prop_assert_eq!(before.sameness(&last.unwrap()), Sameness::Same(basis));
            }
            Proof::Survived(Survival::Replayed) => {
                prop_assert!(last.unwrap().is_replay_of(before.serving().unwrap()));
            }
            Proof::Survived(_) => prop_assert!(has_origin),
            Proof::Unprovable(_) => {}
        }
    }
}
