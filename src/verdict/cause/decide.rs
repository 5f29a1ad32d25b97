//! From the evidence to the cause: the table in the module's documentation, row by row.

use std::fmt::Display;
use std::time::Duration;

use super::evidence::{Aim, BanEvidence, BanListEvidence, Evidence, Judged, Served, Span};
use super::facts::{Facts, Fetched};
use super::{Cause, Explanation, FEW_BANS};
use crate::httpcache;
use crate::model::{HttpUrl, Timestamp, Untrusted, format_duration};
use crate::verdict::State;

/// So many bans are shown at most.
const BANS_SHOWN: usize = 3;

/// Names the cause. See the table in the module's documentation.
#[must_use]
pub fn explain(evidence: &Evidence) -> Explanation {
    let object = match &evidence.served {
        Served::Old(object) => object,
        Served::Other(_) => {
            return Explanation::undetermined(
                "the node served another version when the evidence was gathered: it was refreshed \
                 meanwhile, and what it had before cannot be looked at any more",
            );
        }
        Served::Nothing { why } => {
            return Explanation::undetermined(format_args!(
                "the node gave no answer that could be looked at: {}",
                Untrusted(why)
            ));
        }
    };
    if evidence.worker.is_some_and(|(before, after)| before != after) {
        return Explanation::undetermined(
            "the node's cache process restarted while the evidence was gathered",
        );
    }
    let facts = Facts::of(evidence, object);
    let rows =
        [undelivered, grace, not_cached, unread, matched, doubtful, variant, fetched_after, missed];
    let found = rows.into_iter().find_map(|row| row(&facts));
    let (cause, mut findings) = found.unwrap_or_else(|| never_purged(&facts));
    add_surroundings(&facts, cause, &mut findings);
    findings.push(advice(&facts, cause));
    Explanation { cause, findings }
}

type Found = (Cause, Vec<String>);

fn undelivered(facts: &Facts<'_>) -> Option<Found> {
    if facts.matching().is_some() {
        return None;
    }
    let ledger = facts.evidence.ledger.iter();
    let lost = |entry: &&super::LedgerEvidence| {
        entry.matches && entry.taken.is_none() && entry.issued >= facts.since
    };
    let entry = ledger.filter(lost).max_by_key(|entry| entry.issued)?;
    let issued = facts.ago(entry.issued);
    let first = format!("this node never took the ban \"{}\", issued {issued}", entry.ban);
    Some((Cause::PurgeUndelivered, vec![first]))
}

fn grace(facts: &Facts<'_>) -> Option<Found> {
    let (over, sick) = (facts.expired_for()?, facts.sick());
    if facts.hit == Some(false) || sick.is_empty() {
        return None;
    }
    let names = list(&sick);
    if facts.all_sick() {
        let first = format!("the object expired {} ago, and the node serves it on", short(over));
        return Some((
            Cause::Grace,
            vec![first, format!("the node takes its backend for sick: {names}")],
        ));
    }
    // Which backend it comes from cannot be seen, nor whether the VCL gives it a longer TTL.
    let over = short(over);
    let findings = vec![
        format!(
            "by its header fields it expired {over} ago, and one of the node's backends is sick: \
             {names}"
        ),
        "if it is fetched from that one, it is served from grace; if not, the VCL gives it a \
         longer TTL, and why it is old does not show"
            .to_owned(),
    ];
    Some((Cause::Undetermined, findings))
}

fn not_cached(facts: &Facts<'_>) -> Option<Found> {
    if facts.hit != Some(false) {
        return None;
    }
    let mut findings = vec![
        "the node does not serve it from its cache: X-Varnish has one number, so the answer was \
         fetched just now, and it is old"
            .to_owned(),
    ];
    findings.extend(facts.tier_behind());
    Some((Cause::Upstream, findings))
}

/// Without the ban list.
fn unread(facts: &Facts<'_>) -> Option<Found> {
    let BanListEvidence::Unread { why } = &facts.evidence.bans else { return None };
    if facts.fetched == Fetched::Before
        && let Some(found) = variant(facts)
    {
        return Some(found);
    }
    let mut findings = vec![format!("the node's ban list is missing: {}", Untrusted(why))];
    findings.push(facts.fetched_when());
    Some((Cause::Undetermined, findings))
}

/// A ban since the change matches, and the object is there all the same.
fn matched(facts: &Facts<'_>) -> Option<Found> {
    let ban = facts.matching()?;
    let taken = facts.ago_span(ban.taken);
    let first = format!("the node took a ban {taken} that matches it: {}", ban.expression);
    let Some(fetched) = facts.node_fetched else {
        let mut findings = vec![first];
        findings.push(
            "the answer has no Age, so it cannot be told how long after the ban the object was \
             fetched"
                .to_owned(),
        );
        return Some((Cause::Undetermined, findings));
    };
    let from_before = facts.made.is_some_and(|made| made.latest < ban.taken.earliest);
    if facts.inherits && (from_before || facts.tiers.hit == Some(true)) {
        let mut findings = vec![first];
        findings.push(
            "the node then fetched it again, and got the old version out of a cache behind it"
                .to_owned(),
        );
        findings.extend(facts.tier_behind());
        return Some((Cause::Upstream, findings));
    }
    if facts.outlived(ban) {
        let second = format!(
            "but the object is older than that ban ({}) and still there: the VCL sees another \
             URL, host or header than was sent or received",
            facts.fetched_when()
        );
        return Some((Cause::BanMissedIt, vec![first, second]));
    }
    if facts.may_have_raced(ban) {
        let second = format!(
            "the object is younger than that ban ({}) and old all the same: a fetch was under way \
             when the ban came, or the origin still gave out the old version right after it",
            facts.fetched_when()
        );
        if facts.evidence.change.after.is_none() && facts.fetched != Fetched::After {
            let third = "or the origin changed after that, and nobody banned it since: when it \
                         changed is not known here, and `purgewatch status` tells where a daemon \
                         watches";
            return Some((Cause::Undetermined, vec![first, second, third.to_owned()]));
        }
        return Some((Cause::RacedFill, vec![first, second]));
    }
    let later = short(fetched.earliest.since(ban.taken.latest));
    let second = format!("it was fetched again {later} after that ban, and was old then");
    let mut findings = vec![first, second];
    findings.extend(facts.tier_behind());
    Some((Cause::Upstream, findings))
}

fn doubtful(facts: &Facts<'_>) -> Option<Found> {
    let ban = facts.doubtful()?;
    let taken = facts.ago_span(ban.taken);
    let what = match &ban.judged {
        Judged::Unknown { why } | Judged::Unread { why } => format!(
            "it cannot be told whether the ban that the node took {taken} matches it ({}): {}",
            ban.expression,
            Untrusted(why)
        ),
        _ => format!(
            "the node took a ban {taken} and has worked it off: varnishd does not tell any more \
             what it said"
        ),
    };
    let second = format!("the object may be younger than that ban ({})", facts.fetched_when());
    Some((Cause::Undetermined, vec![what, second]))
}

fn variant(facts: &Facts<'_>) -> Option<Found> {
    let fresh = facts.fresh_variants();
    if fresh.is_empty() || facts.fetched == Fetched::After {
        return None;
    }
    let names: Vec<_> = fresh.iter().map(|variant| variant.variant.as_str()).collect();
    let first = match fresh.iter().any(|variant| variant.changed.is_none()) {
        true => format!("other variants of it are fresh at this node: {}", list(&names)),
        false => format!(
            "other variants of it changed at the origin, too, and this node followed: {}",
            list(&names)
        ),
    };
    let mut findings = vec![first];
    findings.extend(facts.bans_that_missed(true));
    Some((Cause::VariantOnly, findings))
}

fn fetched_after(facts: &Facts<'_>) -> Option<Found> {
    if facts.fetched != Fetched::After {
        return None;
    }
    let first = format!("the object is from after the origin's change ({})", facts.fetched_when());
    if !facts.reaches_back() {
        let second = "the node's ban list does not reach back that far: whether a ban raced with \
                      the fetch, or something behind the node serves the old version, cannot be \
                      told";
        return Some((Cause::Undetermined, vec![first, second.to_owned()]));
    }
    let mut findings = vec![first, "no ban had anything to do with it".to_owned()];
    findings.extend(facts.tier_behind());
    Some((Cause::Upstream, findings))
}

fn missed(facts: &Facts<'_>) -> Option<Found> {
    let missed = facts.missed();
    let related = missed.iter().any(|ban| ban.aim == Aim::Here);
    if missed.is_empty() || !related && missed.len() > FEW_BANS {
        return None;
    }
    let first = match missed.len() {
        1 => format!("the node took a ban {}, and that did not hit it", facts.since_when()),
        count => format!("the node took {count} bans {}, and none hit it", facts.since_when()),
    };
    let mut findings = vec![first];
    findings.extend(facts.bans_that_missed(related));
    findings.extend(facts.caveat());
    Some((Cause::BanMissedIt, findings))
}

fn never_purged(facts: &Facts<'_>) -> Found {
    const MEANT: &str = "meant for something else (the canary, or another URL that is watched)";
    let since = facts.since_when();
    let first = match (facts.missed().len(), facts.elsewhere()) {
        (0, 0) => format!("the node took no ban {since}"),
        (0, 1) => format!("the node took no ban {since} but a ban that was {MEANT}"),
        (0, count) => format!("the node took no ban {since} but {count} that were {MEANT}"),
        (count, others) => format!(
            "the node took {} bans {since}, none of which matches it or has anything to do with \
             its URL",
            count + others
        ),
    };
    let mut findings = vec![first];
    let early = facts.listed().unwrap_or_default().iter();
    let early = early.filter(|ban| ban.judged == Judged::Matches && !facts.outlived(ban));
    if let Some(ban) = early.max_by_key(|ban| ban.taken.latest) {
        findings.push(format!(
            "the last ban that matches it came before the origin changed, {}: {}",
            facts.ago_span(ban.taken),
            ban.expression
        ));
    }
    findings.push(facts.fetched_when());
    findings.extend(facts.caveat());
    (Cause::NeverPurged, findings)
}

/// What else is to be known, whatever the cause.
fn add_surroundings(facts: &Facts<'_>, cause: Cause, findings: &mut Vec<String>) {
    let sick = facts.sick();
    if !sick.is_empty() && cause != Cause::Grace {
        let names = list(&sick);
        findings.push(if facts.all_sick() {
            format!(
                "the node takes its backend for sick: {names}; a banned object is never served \
                 from grace, so mend the backend before you ban"
            )
        } else {
            format!(
                "one of the node's backends is sick: {names}; a banned object is never served from \
                 grace, so if this is fetched from there, mend the backend before you ban"
            )
        });
    }
    if let Some(over) = facts.expired_for().filter(|_| sick.is_empty() && facts.hit != Some(false))
    {
        findings.push(format!(
            "by its header fields it expired {} ago: the VCL gives it a longer TTL, or fetches \
             from the backend fail and it is served from grace",
            short(over)
        ));
    }
    let in_state = |wanted: fn(State) -> bool| -> Vec<&str> {
        let nodes = facts.evidence.nodes.iter().filter(|(_, state)| wanted(*state));
        nodes.map(|(node, _)| node.as_str()).collect()
    };
    let fresh = in_state(|state| state == State::Fresh);
    if !fresh.is_empty() {
        findings.push(format!("fresh at other nodes: {}", list(&fresh)));
    }
    let old = in_state(|state| matches!(state, State::Lagging | State::Stale));
    if !old.is_empty() {
        findings.push(format!("old at other nodes, too: {}", list(&old)));
    }
}

fn advice(facts: &Facts<'_>, cause: Cause) -> String {
    let url = &facts.evidence.url;
    let ban = format!("purgewatch ban --url {}", Quoted(url));
    match cause {
        Cause::NeverPurged => {
            format!("to do: ban it ({ban}), and see why nobody did, or why it was done too early")
        }
        Cause::PurgeUndelivered => {
            format!(
                "to do: see to the node's admin port; the daemon delivers that ban as soon as it \
                 can, and nobody has to send it again unless it is still old then ({ban})"
            )
        }
        Cause::BanMissedIt => {
            format!(
                "to do: compare these bans with the URL, its host and its headers, and ban it ({ban})"
            )
        }
        Cause::RacedFill => {
            format!("to do: ban it once more, now that no old fetch is under way ({ban})")
        }
        Cause::Grace => "to do: mend the backend; do not ban before, since a banned object is not \
                         served from grace and errors would be instead"
            .to_owned(),
        Cause::VariantOnly => {
            format!("to do: ban by the URL, which hits all its variants ({ban})")
        }
        Cause::Upstream => format!(
            "to do: purge what is behind the node first, or wait until all replicas of the origin \
             are new; then ban it here ({ban})"
        ),
        Cause::Undetermined if facts.listed().is_none() => format!(
            "to do: see to the node's admin port, which no ban reaches either; then ban it ({ban})"
        ),
        Cause::Undetermined => format!("to do: ban it, and see whether that helps ({ban})"),
    }
}

impl Facts<'_> {
    fn ago(&self, at: Timestamp) -> String {
        format!("{} ago", short(self.evidence.taken.since(at)))
    }

    fn ago_span(&self, span: Span) -> String {
        self.ago(span.latest)
    }

    fn since_when(&self) -> String {
        match self.evidence.change.after {
            Some(_) => "since the origin changed".to_owned(),
            None => "since it was fetched".to_owned(),
        }
    }

    /// When the object was fetched, and what that is known by.
    fn fetched_when(&self) -> String {
        match (self.made, httpcache::age(&self.object.headers)) {
            (Some(_), Some(age)) if self.inherits => format!(
                "what it serves is {} old by its Age, which counts the time in caches behind it",
                short(Duration::from_secs(age))
            ),
            (Some(_), Some(age)) => {
                format!("by its Age it was fetched {} ago", short(Duration::from_secs(age)))
            }
            _ => "the answer has no Age, so when it was fetched is not known".to_owned(),
        }
    }

    /// The bans that could have hit it and did not, and why; those about its URL first.
    fn bans_that_missed(&self, related_only: bool) -> Vec<String> {
        let mut missed = self.missed();
        missed.retain(|ban| ban.aim == Aim::Here || !related_only);
        missed.sort_by_key(|ban| ban.aim != Aim::Here);
        let more = missed.len().saturating_sub(BANS_SHOWN);
        let mut findings: Vec<_> =
            missed.into_iter().take(BANS_SHOWN).map(|ban| self.miss(ban)).collect();
        if more > 0 {
            findings.push(format!("and {more} more"));
        }
        findings
    }

    fn miss(&self, ban: &BanEvidence) -> String {
        let (taken, expression) = (self.ago_span(ban.taken), &ban.expression);
        match &ban.judged {
            Judged::Misses { why } => {
                format!("the ban \"{expression}\", taken {taken}, misses it: {}", Untrusted(why))
            }
            Judged::Unknown { why } | Judged::Unread { why } => format!(
                "the ban \"{expression}\", taken {taken}, did not hit it, or it would be gone; \
                 why not cannot be seen from here: {}",
                Untrusted(why)
            ),
            Judged::Completed | Judged::Start => format!(
                "a ban taken {taken} did not hit it; varnishd has worked it off and does not tell \
                 any more what it said"
            ),
            Judged::Matches => format!("the ban \"{expression}\", taken {taken}, matches it"),
        }
    }

    /// What is assumed where nobody saw whether the object is from before the change.
    fn caveat(&self) -> Option<String> {
        match (self.fetched, self.evidence.change.after) {
            (Fetched::Unclear, None) => Some(
                "when the origin changed is not known here: if that was before the object was \
                 fetched, something behind the node serves the old version"
                    .to_owned(),
            ),
            (Fetched::Unclear, Some(_)) => Some(
                "whether the object is from before the origin's change or from after it is not \
                 certain"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn tier_behind(&self) -> Option<String> {
        let hit = match self.tiers.hit {
            Some(true) => ", which had it in its cache",
            _ => "",
        };
        (self.tiers.behind > 0).then(|| {
            format!("there is another cache or proxy behind the node (X-Varnish, Via){hit}")
        })
    }
}

fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return "less than 1s".to_owned();
    }
    format_duration(Duration::from_secs(duration.as_secs()))
}

/// The first few of several names.
fn list(names: &[&str]) -> String {
    let more = names.len().saturating_sub(5);
    let mut text =
        names.iter().take(5).map(|name| Untrusted(name).to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// A URL as one word of a shell.
struct Quoted<'a>(&'a HttpUrl);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:%,+@".contains(c);
        if text.chars().all(plain) {
            return f.write_str(&text);
        }
        write!(f, "'{}'", text.replace('\'', "'\\''"))
    }
}
