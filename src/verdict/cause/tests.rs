use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::model::{NodeName, Timestamp, VariantName};
use crate::verdict::State;

/// The evidence was taken at second 1000. The origin served the old version until second 900, and
/// another from second 910 on.
const NOW: u64 = 1_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn span(seconds: u64) -> Span {
    Span { earliest: at(seconds), latest: at(seconds) }
}

fn headers(lines: &[(&'static str, &str)]) -> Arc<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    Arc::new(map)
}

fn hit(age: u64) -> Vec<(&'static str, String)> {
    vec![
        ("x-varnish", "7 3".to_owned()),
        ("age", age.to_string()),
        ("via", "1.1 varnish (Varnish/7.1)".to_owned()),
        ("cache-control", "max-age=3600".to_owned()),
    ]
}

fn object(lines: &[(&'static str, String)]) -> Served {
    let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Served::Old(ObjectEvidence { status: 200, headers: headers(&lines), asked: span(NOW) })
}

fn ban(taken: u64, judged: Judged) -> BanEvidence {
    let expression = "req.url ~ ^/api/".to_owned();
    BanEvidence { expression, taken: span(taken), judged, aim: Aim::Here }
}

fn misses() -> Judged {
    Judged::Misses { why: "req.url is another".to_owned() }
}

fn unknown() -> Judged {
    Judged::Unknown { why: "obj.http.x cannot be seen".to_owned() }
}

fn read(bans: Vec<BanEvidence>) -> BanListEvidence {
    let mut bans = bans;
    bans.push(ban(100, Judged::Start));
    BanListEvidence::Read { bans, complete: true }
}

/// A hit from long before the change, on a node that took no ban.
fn evidence() -> Evidence {
    Evidence {
        url: "http://rec.example.com/api/x?a=1&b=2".parse().unwrap(),
        taken: at(NOW),
        served: object(&hit(500)),
        origin: None,
        change: OriginChange { after: Some(at(900)), before: Some(at(910)) },
        bans: read(Vec::new()),
        backends: Ok(Vec::new()),
        worker: Some((5, 5)),
        ledger: Vec::new(),
        variants: Vec::new(),
        nodes: Vec::new(),
    }
}

#[track_caller]
fn check(evidence: &Evidence, cause: Cause, finding: &str) {
    let explanation = explain(evidence);
    let all = explanation.findings.join("\n");
    assert_eq!(explanation.cause, cause, "{all}");
    assert!(all.contains(finding), "{finding:?} is not in\n{all}");
    let last = explanation.findings.last().unwrap();
    assert!(all.lines().count() == 1 || last.starts_with("to do: "), "{all}");
}

fn variant(state: State, changed: Option<bool>) -> VariantEvidence {
    VariantEvidence { variant: VariantName::new("fr").unwrap(), state, changed }
}

fn backend(healthy: Option<bool>) -> BackendEvidence {
    BackendEvidence { name: "boot.default".to_owned(), healthy }
}

fn ledger(issued: u64, taken: Option<u64>, matches: bool) -> LedgerEvidence {
    let ban = "req.url == /api/x".to_owned();
    LedgerEvidence { ban, issued: at(issued), taken: taken.map(at), matches }
}

#[test]
fn nobody_banned_it() {
    check(&evidence(), Cause::NeverPurged, "took no ban since the origin changed");
    check(&evidence(), Cause::NeverPurged, "ban --url 'http://rec.example.com/api/x?a=1&b=2'");
}

#[test]
fn a_ban_from_before_the_change_is_none() {
    let mut evidence = evidence();
    evidence.served = object(&hit(150));
    evidence.bans = read(vec![ban(849, Judged::Matches)]);
    check(&evidence, Cause::NeverPurged, "came before the origin changed");
    // One that the object outlived did not match it, and did not come too early either.
    evidence.bans = read(vec![ban(880, Judged::Matches)]);
    assert!(!explain(&evidence).findings.join("\n").contains("came before"));
}

#[test]
fn many_bans_for_other_urls_are_no_ban_for_this_one() {
    let mut evidence = evidence();
    let other = |taken| BanEvidence { aim: Aim::Unclear, ..ban(taken, misses()) };
    evidence.bans = read((940..950).rev().map(other).collect());
    check(&evidence, Cause::NeverPurged, "took 10 bans since the origin changed, none of which");
    evidence.bans = read((940..943).rev().map(other).collect());
    check(&evidence, Cause::BanMissedIt, "took 3 bans");
}

#[test]
fn a_ban_missed_it() {
    let mut evidence = evidence();
    evidence.bans = read(vec![ban(950, misses())]);
    check(&evidence, Cause::BanMissedIt, "misses it: req.url is another");
    // Among many others, the one about this URL is named.
    let other = |taken| BanEvidence { aim: Aim::Unclear, ..ban(taken, misses()) };
    let mut bans: Vec<_> = (951..999).rev().map(other).collect();
    bans.push(ban(950, misses()));
    evidence.bans = read(bans);
    check(&evidence, Cause::BanMissedIt, "req.url ~ ^/api/");
}

#[test]
fn a_ban_that_cannot_be_judged_missed_what_outlived_it() {
    let mut evidence = evidence();
    evidence.bans = read(vec![ban(950, unknown())]);
    check(&evidence, Cause::BanMissedIt, "did not hit it, or it would be gone");
    evidence.bans = read(vec![ban(950, Judged::Completed)]);
    check(&evidence, Cause::BanMissedIt, "has worked it off");
    // By all that can be seen it matches, and yet the object is older.
    evidence.bans = read(vec![ban(950, Judged::Matches)]);
    check(&evidence, Cause::BanMissedIt, "the VCL sees another URL");
}

#[test]
fn the_ledger_knows_of_a_ban_that_never_arrived() {
    let mut evidence = evidence();
    evidence.ledger = vec![ledger(920, None, true)];
    check(&evidence, Cause::PurgeUndelivered, "never took the ban \"req.url == /api/x\"");
    evidence.bans = BanListEvidence::Unread { why: "refused".to_owned() };
    check(&evidence, Cause::PurgeUndelivered, "issued 1m 20s ago");
    for other in [ledger(800, None, true), ledger(920, Some(921), true), ledger(920, None, false)] {
        evidence.ledger = vec![other];
        assert_ne!(explain(&evidence).cause, Cause::PurgeUndelivered);
    }
    // A later one arrived: what is wrong now is something else.
    evidence.ledger = vec![ledger(920, None, true)];
    evidence.served = object(&hit(48));
    evidence.bans = read(vec![ban(950, Judged::Matches)]);
    check(&evidence, Cause::RacedFill, "");
}

#[test]
fn a_fetch_under_way_put_it_back() {
    let mut evidence = evidence();
    evidence.served = object(&hit(48));
    evidence.bans = read(vec![ban(950, Judged::Matches)]);
    check(&evidence, Cause::RacedFill, "younger than that ban (by its Age it was fetched 48s ago)");
    // Long after the ban, no fetch from before it was under way any more.
    evidence.served = object(&hit(5));
    evidence.bans = read(vec![ban(912, Judged::Matches)]);
    check(&evidence, Cause::Upstream, "fetched again 1m 22s after that ban");
    // Where nobody saw the change, it may have come after the fetch, and no ban after it.
    let changed = std::mem::take(&mut evidence.change);
    evidence.served = object(&hit(48));
    evidence.bans = read(vec![ban(950, Judged::Matches)]);
    check(&evidence, Cause::Undetermined, "when it changed is not known here");
    // But not where the origin served the new version already when the object was fetched.
    evidence.change.before = changed.before;
    check(&evidence, Cause::RacedFill, "");
}

#[test]
fn an_expired_object_of_a_sick_backend_is_served_from_grace() {
    let mut evidence = evidence();
    evidence.served = object(&hit(4_000));
    evidence.backends = Ok(vec![backend(Some(false)), backend(Some(false))]);
    check(&evidence, Cause::Grace, "expired 6m 40s ago");
    // Where only some are, it may come from another one, and the VCL may give it a longer TTL.
    for other in [None, Some(true)] {
        evidence.backends = Ok(vec![backend(other), backend(Some(false))]);
        check(&evidence, Cause::Undetermined, "if it is fetched from that one");
    }
    evidence.backends = Ok(vec![backend(None)]);
    check(&evidence, Cause::NeverPurged, "the VCL gives it a longer TTL, or fetches");
    evidence.backends = Err("refused".to_owned());
    check(&evidence, Cause::NeverPurged, "");
    // Sick, and its time is not over: that is not why it is old, but worth to be known.
    evidence.served = object(&hit(500));
    evidence.backends = Ok(vec![backend(Some(false))]);
    check(&evidence, Cause::NeverPurged, "mend the backend before you ban");
}

#[test]
fn one_variant_only() {
    let mut evidence = evidence();
    evidence.variants = vec![variant(State::Fresh, Some(true))];
    check(&evidence, Cause::VariantOnly, "this node followed: fr");
    evidence.bans = read(vec![ban(950, misses())]);
    check(&evidence, Cause::VariantOnly, "misses it");
    evidence.bans = BanListEvidence::Unread { why: "refused".to_owned() };
    check(&evidence, Cause::VariantOnly, "fr");
    for other in [variant(State::Fresh, Some(false)), variant(State::Stale, Some(true))] {
        evidence.variants = vec![other];
        evidence.bans = read(Vec::new());
        check(&evidence, Cause::NeverPurged, "");
    }
}

#[test]
fn what_came_after_the_change_came_from_behind() {
    let mut evidence = evidence();
    evidence.served = object(&hit(30));
    check(&evidence, Cause::Upstream, "no ban had anything to do with it");
    // No hit at all.
    let passed = [("x-varnish", "7".to_owned()), ("age", "0".to_owned())];
    evidence.served = object(&passed);
    check(&evidence, Cause::Upstream, "X-Varnish has one number");
    evidence.bans = BanListEvidence::Unread { why: "refused".to_owned() };
    check(&evidence, Cause::Upstream, "");
}

#[test]
fn a_tier_behind_hands_on_the_age() {
    let mut evidence = evidence();
    let mut lines = hit(500);
    lines.insert(0, ("x-varnish", "11 3".to_owned()));
    evidence.served = object(&lines);
    evidence.bans = read(vec![ban(950, Judged::Matches)]);
    check(&evidence, Cause::Upstream, "got the old version out of a cache behind it");
    evidence.bans = read(Vec::new());
    check(&evidence, Cause::NeverPurged, "is not certain");
}

#[test]
fn what_is_missing_is_said() {
    let mut evidence = evidence();
    evidence.bans = BanListEvidence::Unread { why: "no admin port\u{1b}[2J".to_owned() };
    check(&evidence, Cause::Undetermined, "ban list is missing: no admin port\\x1b[2J");
    let mut evidence = self::evidence();
    evidence.served = Served::Nothing { why: "timed out".to_owned() };
    check(&evidence, Cause::Undetermined, "timed out");
    let Served::Old(fresh) = object(&hit(1)) else { panic!() };
    evidence.served = Served::Other(fresh);
    check(&evidence, Cause::Undetermined, "refreshed meanwhile");
    let mut evidence = self::evidence();
    evidence.worker = Some((5, 6));
    check(&evidence, Cause::Undetermined, "restarted");
}

#[test]
fn bans_that_cannot_be_judged_leave_it_open() {
    let mut evidence = evidence();
    evidence.served = object(&hit(48));
    evidence.bans = read(vec![ban(950, unknown())]);
    check(&evidence, Cause::Undetermined, "obj.http.x cannot be seen");
    evidence.bans = read(vec![ban(950, Judged::Unread { why: "odd".to_owned() })]);
    check(&evidence, Cause::Undetermined, "odd");
    evidence.bans = read(vec![ban(950, Judged::Completed)]);
    check(&evidence, Cause::Undetermined, "does not tell any more");
    // Long before the fetch they do not matter.
    evidence.served = object(&hit(5));
    evidence.bans = read(vec![ban(915, unknown())]);
    check(&evidence, Cause::Upstream, "");
}

#[test]
fn a_list_that_does_not_reach_back_leaves_it_open() {
    let mut evidence = evidence();
    evidence.served = object(&hit(30));
    let bans = vec![BanEvidence { aim: Aim::Unclear, ..ban(980, misses()) }];
    evidence.bans = BanListEvidence::Read { bans: bans.clone(), complete: true };
    check(&evidence, Cause::Undetermined, "does not reach back that far");
    // The process is younger than that: its list has them all.
    let mut since_start = bans.clone();
    since_start.push(ban(940, Judged::Start));
    evidence.bans = BanListEvidence::Read { bans: since_start, complete: true };
    check(&evidence, Cause::Upstream, "no ban had anything to do with it");
    // Nor does one that was cut.
    evidence.bans = BanListEvidence::Read { bans, complete: false };
    check(&evidence, Cause::Undetermined, "does not reach back that far");
}

#[test]
fn without_age_nothing_is_said_about_time() {
    let mut evidence = evidence();
    evidence.served = object(&[("via", "1.1 varnish".to_owned())]);
    check(&evidence, Cause::NeverPurged, "has no Age");
    evidence.bans = read(vec![ban(950, Judged::Matches)]);
    check(&evidence, Cause::Undetermined, "has no Age");
    evidence.bans = read(vec![ban(950, unknown())]);
    check(&evidence, Cause::Undetermined, "cannot be told");
}

#[test]
fn a_change_that_nobody_saw_is_said() {
    let mut evidence = evidence();
    evidence.change = OriginChange::default();
    check(&evidence, Cause::NeverPurged, "when the origin changed is not known here");
    check(&evidence, Cause::NeverPurged, "took no ban since it was fetched");
}

#[test]
fn other_nodes_are_named() {
    let mut evidence = evidence();
    let node = |name: &str| NodeName::new(name).unwrap();
    evidence.nodes = vec![(node("b"), State::Fresh), (node("c"), State::Stale)];
    check(&evidence, Cause::NeverPurged, "fresh at other nodes: b");
    check(&evidence, Cause::NeverPurged, "old at other nodes, too: c");
}

/// Other URLs that are watched, and a canary.
fn elsewhere() -> Elsewhere {
    let urls = ["http://rec.example.com/news/", "http://rec.example.com/api/other"];
    let ban = crate::ban::parse(b"req.http.host == rec.example.com && obj.http.x-c == 1").unwrap();
    Elsewhere::new(&urls.map(|url| url.parse().unwrap()))
        .with_canary(&"http://rec.example.com/canary".parse().unwrap(), &ban)
}

#[test]
fn bans_that_were_meant_for_something_else_are_no_attempts() {
    let mut evidence = evidence();
    let other = |taken| BanEvidence { aim: Aim::Elsewhere, ..ban(taken, misses()) };
    evidence.bans = read(vec![other(950)]);
    check(&evidence, Cause::NeverPurged, "but a ban that was meant for something else");
    evidence.bans = read(vec![other(960), other(950)]);
    check(&evidence, Cause::NeverPurged, "but 2 that were meant for something else");
    evidence.bans = read(vec![other(960), ban(955, misses()), other(950)]);
    check(&evidence, Cause::BanMissedIt, "took a ban since");
    // Nor do they leave anything open, where they cannot be judged.
    evidence.served = object(&hit(48));
    evidence.bans = read(vec![BanEvidence { aim: Aim::Elsewhere, ..ban(950, unknown()) }]);
    check(&evidence, Cause::Upstream, "no ban had anything to do with it");
    // What matches counts, whatever it was meant for.
    evidence.bans = read(vec![BanEvidence { aim: Aim::Elsewhere, ..ban(950, Judged::Matches) }]);
    check(&evidence, Cause::RacedFill, "");
}

#[test]
fn the_ban_of_a_canary_that_is_the_url_itself_is_an_attempt() {
    let sent = headers(&[("host", "rec.example.com")]);
    let url = "http://rec.example.com/canary".parse().unwrap();
    let Served::Old(object) = object(&hit(500)) else { panic!() };
    let elsewhere = elsewhere();
    let judge = BanJudge::new(Sent { url: &url, headers: &sent }, &object, &elsewhere);
    let spec = b"req.http.host == rec.example.com && obj.http.x-c == 1";
    assert_eq!(judge.judge(&PreparedBan::new(spec, false, span(950), None)).aim, Aim::Here);
}

#[test]
fn bans_are_judged_as_the_node_would() {
    let sent = headers(&[("host", "rec.example.com")]);
    let url = "http://rec.example.com/api/things?id=7".parse().unwrap();
    let Served::Old(object) = object(&hit(500)) else { panic!() };
    let elsewhere = elsewhere();
    let judge = BanJudge::new(Sent { url: &url, headers: &sent }, &object, &elsewhere);
    let judged = |spec: &[u8]| judge.judge(&PreparedBan::new(spec, false, span(950), None));
    assert_eq!(judged(b"req.url ~ ^/api/things").judged, Judged::Matches);
    let Judged::Misses { why } = judged(b"req.http.host == www.example.com").judged else {
        panic!()
    };
    assert!(why.contains("rec.example.com"), "{why}");
    assert!(matches!(judged(b"obj.http.x-tag == 5").judged, Judged::Unknown { .. }));
    assert!(matches!(judged(b"obj.hits > 5").judged, Judged::Unread { .. }));
    // At second 950 it was 450 s old, or nearly 451.
    assert_eq!(judged(b"obj.age > 449s").judged, Judged::Matches);
    assert!(matches!(judged(b"obj.age > 452s").judged, Judged::Misses { .. }));
    let completed = judge.judge(&PreparedBan::new(b"", true, span(950), None));
    assert_eq!((completed.judged, completed.aim), (Judged::Completed, Aim::Unclear));
    for (spec, aim) in [
        (&b"req.url == /wrong/things"[..], Aim::Here),
        (b"req.http.host == rec\\.example\\.com", Aim::Here),
        (b"req.http.host == www.example.com && req.url ~ ^/api", Aim::Here),
        (b"req.url ~ ^/a", Aim::Here),
        (b"req.http.host == rec\\.example\\.com && req.url ~ ^/x", Aim::Unclear),
        (b"req.url == /new", Aim::Unclear),
        (b"req.url != /news/", Aim::Unclear),
        (b"obj.http.x-tag == 5", Aim::Unclear),
        // Watched elsewhere, though a part of the path is the same.
        (b"req.url == /news/", Aim::Elsewhere),
        (b"req.url ~ ^/new", Aim::Elsewhere),
        (b"req.url == /api/other", Aim::Elsewhere),
        (b"req.http.host  ==  rec.example.com && obj.http.x-c == 1", Aim::Elsewhere),
    ] {
        assert_eq!(judged(spec).aim, aim, "{}", String::from_utf8_lossy(spec));
    }
    assert_eq!(judged(b"req.url ~ \x1b[2J").expression, "req.url ~ \\x1b[2J");
}

#[test]
fn every_cause_has_its_label() {
    let mut labels: Vec<_> = Cause::ALL.iter().map(|cause| cause.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), 8);
    let explanation = explain(&evidence());
    let text = explanation.to_string();
    assert!(text.starts_with("never_purged: the node took no ban"), "{text}");
    assert_eq!(Explanation::undetermined("x").to_string(), "undetermined: x");
    assert!(LONGEST_FETCH > Duration::from_secs(1));
}
