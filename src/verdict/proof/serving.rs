//! What a node served, and whether two answers came from one object.

use std::time::Duration;

use super::super::{Fault, Observation, Sight};
use crate::httpcache;
use crate::model::{Timestamp, Version};

/// `Age` counts whole seconds, and the way to the node takes time: two readings are as far apart
/// as their times, give or take so much.
const AGE_ERROR: Duration = Duration::from_millis(1_500);

/// An object that was younger than this, in seconds, cannot be told from its successor by `Age`.
const TELLING_AGE: u64 = 3;

/// An `Age` of so many seconds or more says nothing: it stands for every number that a cache cannot
/// count to (RFC 9111 section 1.2.2), and nothing is 68 years old.
const COUNTLESS_AGE: u64 = 1 << 31;

/// What a node served at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// When the fetch ended.
    pub at: Timestamp,
    /// The version, or why there is none.
    pub sight: Sight,
    /// The status; `None` when there was no answer.
    pub status: Option<u16>,
    /// The ids of `X-Varnish`.
    pub transaction: Option<(u64, Option<u64>)>,
    /// Whether there is a sign of Varnish.
    pub is_varnish: bool,
    /// `Age`, in seconds.
    pub age: Option<u64>,
    /// `Date`, in seconds since the Unix epoch.
    pub date: Option<u64>,
    /// How many tiers of Varnish left their `X-Varnish`.
    pub tiers: usize,
    /// Whether the tier right behind the one that was asked had it in its cache.
    pub hit_behind: bool,
}

/// Who made the answer, as far as `X-Varnish` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A cached object, which this fetch had made.
    Object(u64),
    /// It was fetched for this request: a miss, or a URL that is not cached.
    ThisRequest,
    /// `X-Varnish` is missing, or makes no sense.
    Hidden,
}

/// What was there before the invalidation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// An object in the cache.
    Cached(Serving),
    /// Asked twice, the node fetched twice: it does not cache this.
    Uncached(Serving),
    /// The node answered, and hides whether that was an object in its cache.
    Hidden(Serving),
    /// The node did not answer acceptably.
    Unseen(Fault),
}

/// What tells two objects apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The ids of `X-Varnish`.
    Ids,
    /// `Age` and `Date`, since `X-Varnish` is missing.
    Age,
}

/// Whether two answers came from one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// They did.
    Same(Basis),
    /// The object from before is not what was served.
    Other(Basis),
    /// Neither before nor now was there an object.
    NeverCached,
    /// It cannot be told.
    Unclear,
}

impl Basis {
    /// Its name for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ids => "x-varnish",
            Self::Age => "age",
        }
    }

    pub(super) const fn reserve(self) -> &'static str {
        match self {
            Self::Ids => "",
            Self::Age => ", judged by Age and Date, since the VCL removes X-Varnish",
        }
    }
}

impl Serving {
    /// What this fetch from a node showed. `Date` and the tiers are known only of an observation
    /// that kept its headers.
    #[must_use]
    pub fn of(observation: &Observation) -> Self {
        let sight = Sight::from(observation);
        let Some(answer) = observation.answer() else {
            return Self {
                at: observation.finished,
                sight,
                status: None,
                transaction: None,
                is_varnish: false,
                age: None,
                date: None,
                tiers: 0,
                hit_behind: false,
            };
        };
        let headers = answer.headers.as_deref();
        // A proxy that is no cache adds to `Via` too: only a line of `X-Varnish` counts.
        let behind = headers.and_then(|headers| httpcache::tiers(headers).hit);
        Self {
            at: observation.finished,
            sight,
            status: Some(answer.status),
            transaction: answer.cache.transaction,
            is_varnish: answer.cache.is_varnish,
            age: answer.cache.age,
            date: headers.and_then(httpcache::date),
            tiers: headers.map_or(0, |_| 1 + usize::from(behind.is_some())),
            hit_behind: behind == Some(true),
        }
    }

    /// Who made it.
    #[must_use]
    pub fn maker(&self) -> Maker {
        match self.transaction {
            Some((_, Some(fetch))) => Maker::Object(fetch),
            Some((_, None)) => Maker::ThisRequest,
            None => Maker::Hidden,
        }
    }

    /// Whether this is one and the same answer: each request has an id of its own, so that only a
    /// cache in front of the node can give one twice.
    #[must_use]
    pub fn is_replay_of(&self, earlier: &Self) -> bool {
        self.transaction.is_some() && self.transaction == earlier.transaction
    }

    /// The version, if there is one.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        match &self.sight {
            Sight::Version(version) => Some(version),
            Sight::Unversioned(_) | Sight::Failed(_) => None,
        }
    }
}

impl Before {
    /// Whether a second fetch tells more: the first was no hit, so that there may now be an object
    /// whose maker is not known yet, or none.
    #[must_use]
    pub fn wants_another(first: &Serving) -> bool {
        first.is_varnish && first.maker() == Maker::ThisRequest
    }

    /// How long to wait before another fetch tells more: the object hides who made it, and is too
    /// young to be told from its successor by its age.
    #[must_use]
    pub fn wants_older(seen: &Serving) -> Option<Duration> {
        let age = seen.age.filter(|_| seen.is_varnish && seen.maker() == Maker::Hidden)?;
        let missing = TELLING_AGE.checked_sub(age).filter(|missing| *missing > 0)?;
        // An age is rounded down, and so is what is missing rounded up.
        Some(Duration::from_secs(missing) + Duration::from_millis(100))
    }

    /// What the last fetch before the invalidation says.
    #[must_use]
    pub fn of(last: Serving) -> Self {
        match (&last.sight, last.maker()) {
            (Sight::Failed(fault), _) => Self::Unseen(*fault),
            (_, Maker::Object(_)) => Self::Cached(last),
            (_, Maker::ThisRequest) => Self::Uncached(last),
            (_, Maker::Hidden) => Self::Hidden(last),
        }
    }

    /// What was served, if anything acceptable was.
    #[must_use]
    pub fn serving(&self) -> Option<&Serving> {
        match self {
            Self::Cached(serving) | Self::Uncached(serving) | Self::Hidden(serving) => {
                Some(serving)
            }
            Self::Unseen(_) => None,
        }
    }

    /// Whether what is served `now` is what was there before.
    #[must_use]
    pub fn sameness(&self, now: &Serving) -> Sameness {
        match (self, now.maker()) {
            (Self::Cached(before), Maker::Object(fetch)) => {
                if before.maker() == Maker::Object(fetch) {
                    Sameness::Same(Basis::Ids)
                } else {
                    Sameness::Other(Basis::Ids)
                }
            }
            (Self::Cached(_), Maker::ThisRequest) => Sameness::Other(Basis::Ids),
            (Self::Uncached(_), Maker::ThisRequest) => Sameness::NeverCached,
            (Self::Cached(before) | Self::Hidden(before), Maker::Hidden) => by_age(before, now),
            (Self::Uncached(_) | Self::Hidden(_) | Self::Unseen(_), _) => Sameness::Unclear,
        }
    }
}

fn by_age(before: &Serving, now: &Serving) -> Sameness {
    let countable = |age: Option<u64>| age.filter(|age| *age < COUNTLESS_AGE);
    let (Some(old), Some(new)) = (countable(before.age), countable(now.age)) else {
        return Sameness::Unclear;
    };
    let would_be = Duration::from_secs(old).saturating_add(now.at.since(before.at));
    let goes_on = Duration::from_secs(new).saturating_add(AGE_ERROR) >= would_be;
    match goes_on {
        false => Sameness::Other(Basis::Age),
        true if old >= TELLING_AGE && before.date == now.date => Sameness::Same(Basis::Age),
        true => Sameness::Unclear,
    }
}
