//! What the evidence says before anything is decided: when the object was fetched, and which bans
//! count.

use std::time::Duration;

use super::LONGEST_FETCH;
use super::evidence::{
    Aim, BanEvidence, BanListEvidence, Evidence, Judged, ObjectEvidence, Span, VariantEvidence,
};
use crate::httpcache::{self, Tiers};
use crate::model::Timestamp;
use crate::verdict::State;

/// When the object was fetched, compared with the origin's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    Before,
    After,
    Unclear,
}

/// What follows from the evidence about one object, for [`explain`](super::explain).
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) object: &'a ObjectEvidence,
    /// Whether the answer was a hit, where the headers tell.
    pub(super) hit: Option<bool>,
    pub(super) tiers: Tiers,
    /// Whether there may be time in `Age` that was spent in a cache behind the node.
    pub(super) inherits: bool,
    /// When what is served was made, by `Age`.
    pub(super) made: Option<Span>,
    /// When the node fetched it.
    pub(super) node_fetched: Option<Span>,
    pub(super) fetched: Fetched,
    /// From when on bans count: the change, or the fetch where nobody saw the change.
    pub(super) since: Timestamp,
}

/// When what an answer holds was made, by its `Age`: that is rounded down to whole seconds. `None`
/// without `Age`.
pub(super) fn age_bounds(object: &ObjectEvidence) -> Option<Span> {
    let age = Duration::from_secs(httpcache::age(&object.headers)?);
    Some(object.asked.earlier_by(age, age.saturating_add(Duration::from_secs(1))))
}

impl<'a> Facts<'a> {
    pub(super) fn of(evidence: &'a Evidence, object: &'a ObjectEvidence) -> Self {
        let headers = &object.headers;
        let hit = httpcache::transaction(headers).map(|(_, fetch)| fetch.is_some());
        let tiers = httpcache::tiers(headers);
        let inherits = tiers.behind > 0;
        let made = age_bounds(object);
        let node_fetched = match made {
            _ if hit == Some(false) => Some(object.asked),
            Some(made) if inherits => Some(Span { latest: object.asked.latest, ..made }),
            made => made,
        };
        let change = evidence.change;
        let fetched = match (node_fetched, change.after, change.before) {
            _ if hit == Some(false) => Fetched::After,
            (Some(fetched), _, Some(before)) if fetched.earliest >= before => Fetched::After,
            (Some(fetched), Some(after), _) if fetched.latest < after => Fetched::Before,
            _ => Fetched::Unclear,
        };
        let since = change.after.or(node_fetched.map(|fetched| fetched.earliest));
        let since = since.unwrap_or(Timestamp::EPOCH);
        Self { evidence, object, hit, tiers, inherits, made, node_fetched, fetched, since }
    }

    /// The bans on the node's list, newest first; `None` where the list was not read.
    pub(super) fn listed(&self) -> Option<&'a [BanEvidence]> {
        match &self.evidence.bans {
            BanListEvidence::Read { bans, .. } => Some(bans),
            BanListEvidence::Unread { .. } => None,
        }
    }

    /// The bans that were taken since the change. Where nobody saw the change, those count too
    /// that came while the object may have been fetched.
    pub(super) fn bans_since(&self) -> impl Iterator<Item = &'a BanEvidence> {
        let from = match self.evidence.change.after {
            Some(after) => after,
            None => self.since.earlier_by(LONGEST_FETCH),
        };
        self.listed().unwrap_or_default().iter().filter(move |ban| ban.taken.latest >= from)
    }

    /// The newest ban since the change that matches the object.
    pub(super) fn matching(&self) -> Option<&'a BanEvidence> {
        self.bans_since().find(|ban| ban.judged == Judged::Matches)
    }

    /// The bans since the change, or the fetch, that could have hit the object and did not, without
    /// those that were meant for something else.
    pub(super) fn missed(&self) -> Vec<&'a BanEvidence> {
        self.not_matching().filter(|ban| ban.aim != Aim::Elsewhere).collect()
    }

    /// How many bans since the change, or the fetch, were meant for something else.
    pub(super) fn elsewhere(&self) -> usize {
        self.not_matching().filter(|ban| ban.aim == Aim::Elsewhere).count()
    }

    fn not_matching(&self) -> impl Iterator<Item = &'a BanEvidence> {
        let since = self.since;
        let listed = self.listed().unwrap_or_default().iter();
        listed.filter(move |ban| {
            ban.taken.latest >= since && !matches!(ban.judged, Judged::Matches | Judged::Start)
        })
    }

    /// Whether the object is certainly older than the ban: then the ban did not hit it.
    pub(super) fn outlived(&self, ban: &BanEvidence) -> bool {
        self.node_fetched.is_some_and(|fetched| fetched.latest < ban.taken.earliest)
    }

    /// A ban since the change that cannot be judged, while the object may be younger than it and
    /// may have been hit.
    pub(super) fn doubtful(&self) -> Option<&'a BanEvidence> {
        self.bans_since().find(|ban| {
            let unjudged = matches!(ban.judged, Judged::Unknown { .. } | Judged::Unread { .. });
            // What is completed was tested against every object older than it.
            let forgotten = ban.judged == Judged::Completed && self.fetched != Fetched::Before;
            (unjudged || forgotten) && ban.aim != Aim::Elsewhere && self.may_have_raced(ban)
        })
    }

    /// Whether a fetch that brought the object may have been under way when the ban came.
    pub(super) fn may_have_raced(&self, ban: &BanEvidence) -> bool {
        self.node_fetched.is_none_or(|fetched| {
            fetched.latest >= ban.taken.earliest
                && fetched.earliest.since(ban.taken.latest) <= LONGEST_FETCH
        })
    }

    /// Whether any ban that could have raced with the fetch of the object is on the list: it is
    /// whole, and its oldest entry is old enough. varnishd drops bans that are older than every
    /// object.
    pub(super) fn reaches_back(&self) -> bool {
        let BanListEvidence::Read { bans, .. } = &self.evidence.bans else { return false };
        let oldest = match bans.last() {
            // Before that there was nothing.
            Some(BanEvidence { judged: Judged::Start, .. }) => return true,
            Some(ban) => ban.taken.earliest,
            None => return false,
        };
        let raced_from = self.node_fetched.map(|f| f.earliest.earlier_by(LONGEST_FETCH));
        let needed = raced_from.into_iter().chain(self.evidence.change.after).max();
        needed.is_some_and(|needed| oldest <= needed)
    }

    /// Other variants that followed the origin's change.
    pub(super) fn fresh_variants(&self) -> Vec<&'a VariantEvidence> {
        let followed = |variant: &&VariantEvidence| {
            variant.state == State::Fresh && variant.changed != Some(false)
        };
        self.evidence.variants.iter().filter(followed).collect()
    }

    /// How long the object is beyond its lifetime, where it is.
    pub(super) fn expired_for(&self) -> Option<Duration> {
        let lifetime = httpcache::lifetime(&self.object.headers)?;
        let age = Duration::from_secs(httpcache::age(&self.object.headers)?);
        // At its very end it may be fresh still.
        (age > lifetime).then(|| age - lifetime)
    }

    /// Whether there is no backend that the node would fetch from.
    pub(super) fn all_sick(&self) -> bool {
        let backends = self.evidence.backends.as_deref().unwrap_or_default();
        !backends.is_empty() && backends.iter().all(|backend| backend.healthy == Some(false))
    }

    /// Backends that the node takes for sick.
    pub(super) fn sick(&self) -> Vec<&'a str> {
        let backends = self.evidence.backends.as_deref().unwrap_or_default();
        let sick = backends.iter().filter(|backend| backend.healthy == Some(false));
        sick.map(|backend| backend.name.as_str()).collect()
    }
}
