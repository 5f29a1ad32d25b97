//! Asking for the cause where a node serves old content: when it begins to lag, when that becomes
//! an alarm, when a stale node comes with another version, and now and then while it lasts: somebody
//! may have sent a ban meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, Output};
use crate::model::{EndpointName, NodeName, OriginName, Timestamp, VariantName, Version};
use crate::verdict::cause::{OriginChange, VariantEvidence};
use crate::verdict::{Cause, Explanation, State, Target};

/// So many gatherings are under way at most; the others wait for their turn. Each is a fetch and
/// a few commands, and an outage may make thousands of endpoints stale at a time.
const AT_ONCE: usize = 4;

/// While nothing changes, it is asked again after so long, and then less and less often.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Names one gathering of evidence that is under way. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EvidenceId(u64);

/// What is known of an endpoint and variant that a node serves an old version of: where to look,
/// and the part of the evidence that is there already.
#[derive(Debug, Clone)]
pub struct Case {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Its variant.
    pub variant: VariantName,
    /// The node.
    pub node: NodeName,
    /// The origin.
    pub origin: OriginName,
    /// What is fetched.
    pub target: Arc<Target>,
    /// The old version, as the node served it last.
    pub served: Version,
    /// When the origin went over to another one.
    pub change: OriginChange,
    /// The other variants at this node.
    pub variants: Vec<VariantEvidence>,
    /// The same variant at other nodes.
    pub nodes: Vec<(NodeName, State)>,
}

/// What is asked and known about the cause at one place.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// What evidence was last asked for: the state, and when stale the version.
    asked: Option<(State, Option<Version>)>,
    /// When it is to be asked for again though nothing changed, and after which pause.
    again: Option<(Timestamp, Duration)>,
    waiting: bool,
    under_way: bool,
    /// With the version that it explains.
    found: Option<(Version, Arc<Explanation>)>,
}

/// The gatherings that are under way or wait.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    enabled: bool,
    last: u64,
    /// Watch, place, and the version that is to be explained.
    under_way: HashMap<EvidenceId, (usize, usize, Version)>,
    /// Watch and place, each once: [`Inquiry::waiting`].
    waiting: VecDeque<(usize, usize)>,
}

impl Inquiry {
    /// The cause, where the state is one that has one.
    pub(super) fn found(&self, state: State) -> Option<Arc<Explanation>> {
        let (_, found) = self.found.as_ref().filter(|_| is_old(state))?;
        Some(found.clone())
    }

    /// What was asked and not answered will not be answered any more.
    pub(super) fn interrupt(&mut self) {
        if self.waiting || self.under_way {
            self.asked = None;
        }
        (self.waiting, self.under_way) = (false, false);
    }
}

impl Inquiries {
    /// Lets go of all that is under way: there is another plan, and places may have moved.
    pub(super) fn start_over(&mut self, enabled: bool) {
        self.enabled = enabled;
        self.under_way.clear();
        self.waiting.clear();
    }

    /// Lets go of what is asked about one watch: it is gone.
    pub(super) fn forget(&mut self, at: usize) {
        self.under_way.retain(|_, (watch, ..)| *watch != at);
        self.waiting.retain(|(watch, _)| *watch != at);
    }
}

pub(super) const fn is_old(state: State) -> bool {
    matches!(state, State::Lagging | State::Stale)
}

impl Engine {
    /// Every case there is now, for a command that gathers the evidence itself.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let watches = self.names.values().filter_map(|at| Some((*at, self.watches.get(*at)?)));
        let places = watches.flat_map(|(at, watch)| {
            let old = watch.places.iter().enumerate();
            old.filter(|(_, place)| is_old(place.verdict.state)).map(move |(place, _)| (at, place))
        });
        places.filter_map(|(at, place)| self.case(at, place)).collect()
    }

    /// Asks for evidence where a round of this watch calls for it.
    pub(super) fn inquire(&mut self, at: usize, now: Timestamp) {
        let Some(watch) = self.watches.get_mut(at) else { return };
        for (number, place) in watch.places.iter_mut().enumerate() {
            let state = place.verdict.state;
            let inquiry = &mut place.inquiry;
            if !is_old(state) {
                // What is under way is answered, and the answer thrown away.
                (inquiry.asked, inquiry.found) = (None, None);
                continue;
            }
            let version = place.version.clone().filter(|_| state == State::Stale);
            // A node that does not answer in this round has not changed what it serves.
            let unchanged = inquiry.asked.as_ref().is_some_and(|(asked, of)| {
                *asked == state && (version.is_none() || *of == version)
            });
            // What the last round did not see cannot be asked about.
            let seen = place.version.is_some() && place.verdict.last_probe == Some(now);
            let is_due = inquiry.again.is_none_or(|(due, _)| due <= now);
            if unchanged && (!is_due || inquiry.under_way) || !seen || !self.inquiries.enabled {
                continue;
            }
            let pause = match inquiry.again {
                Some((_, pause)) if unchanged => pause.saturating_mul(2).min(LONGEST_PAUSE),
                _ => FIRST_PAUSE,
            };
            inquiry.again = Some((now + pause, pause));
            inquiry.asked = Some((state, version));
            if !std::mem::replace(&mut inquiry.waiting, true) {
                self.inquiries.waiting.push_back((at, number));
            }
        }
        self.begin_inquiries();
    }

    /// Takes in what a gathering came to.
    pub(super) fn evidence(&mut self, id: EvidenceId, explanation: Explanation) {
        let Some((at, number, version)) = self.inquiries.under_way.remove(&id) else { return };
        self.begin_inquiries();
        let Some(watch) = self.watches.get_mut(at) else { return };
        let Some(place) = watch.places.get_mut(number) else { return };
        let state = place.verdict.state;
        place.inquiry.under_way = false;
        if !is_old(state) || place.inquiry.asked.is_none() {
            return;
        }
        let before = place.inquiry.found.as_ref();
        let cause_before = before.map(|(_, found)| found.cause);
        // Evidence goes: a node forgets its bans. What was found once stays true of that version,
        // but for this: that there was no ban, when there may be one now.
        let is_lasting = |cause| !matches!(cause, Cause::Undetermined | Cause::NeverPurged);
        let is_known = before.is_some_and(|(of, found)| *of == version && is_lasting(found.cause));
        if is_known && explanation.cause == Cause::Undetermined {
            return;
        }
        let explanation = Arc::new(explanation);
        place.inquiry.found = Some((version, explanation.clone()));
        if cause_before != Some(explanation.cause) {
            self.outputs.push_back(Output::Explained {
                endpoint: watch.plan.endpoint.clone(),
                variant: watch.plan.variant.clone(),
                node: place.node.clone(),
                state,
                explanation,
            });
        }
    }

    fn begin_inquiries(&mut self) {
        while self.inquiries.under_way.len() < AT_ONCE {
            let Some((at, place)) = self.inquiries.waiting.pop_front() else { return };
            let case = self.case(at, place);
            let watch = self.watches.get_mut(at);
            let Some(inquiry) =
                watch.and_then(|watch| watch.places.get_mut(place)).map(|place| &mut place.inquiry)
            else {
                continue;
            };
            inquiry.waiting = false;
            // It may be fresh by now.
            let Some(case) = case else { continue };
            inquiry.under_way = true;
            self.inquiries.last += 1;
            let id = EvidenceId(self.inquiries.last);
            self.inquiries.under_way.insert(id, (at, place, case.served.clone()));
            self.outputs.push_back(Output::GatherEvidence { id, case: Box::new(case) });
        }
    }

    fn case(&self, at: usize, place: usize) -> Option<Case> {
        let watch = self.watches.get(at)?;
        let place = watch.places.get(place).filter(|place| is_old(place.verdict.state))?;
        let served = place.version.clone()?;
        let others = watch.places.iter().filter(|other| other.node != place.node);
        let change = watch.change_from(&served, place);
        Some(Case {
            endpoint: watch.plan.endpoint.clone(),
            variant: watch.plan.variant.clone(),
            node: place.node.clone(),
            origin: watch.plan.origin.clone(),
            target: watch.plan.target.clone(),
            variants: self.siblings(at, &place.node, change),
            nodes: others.map(|other| (other.node.clone(), other.verdict.state)).collect(),
            served,
            change,
        })
    }

    /// The other variants of the endpoint, at the same node.
    fn siblings(&self, at: usize, node: &NodeName, change: OriginChange) -> Vec<VariantEvidence> {
        let Some(watch) = self.watches.get(at) else { return Vec::new() };
        let endpoint = &watch.plan.endpoint;
        // What a pointer leads to are other URLs, not variants of one.
        if self.pointers.has(endpoint) {
            return Vec::new();
        }
        let own = (endpoint.clone(), watch.plan.variant.clone());
        let before = self.names.range(..&own).rev().take_while(|((name, _), _)| name == endpoint);
        let after = self.names.range(&own..).take_while(|((name, _), _)| name == endpoint);
        let others = before.chain(after).filter(|(_, other)| **other != at);
        others
            .filter_map(|((_, variant), other)| {
                let watch = self.watches.get(*other)?;
                let place = watch.places.iter().find(|place| place.node == *node)?;
                let state = place.verdict.state;
                // It went along only if there was a change to go along with, and the node was
                // looked at since.
                let changed = change.after.map(|after| {
                    let current = watch.history.current().filter(|_| watch.history.has_changed());
                    current.is_some_and(|current| {
                        current.first_seen >= after
                            && place.verdict.last_fresh >= Some(current.first_seen)
                    })
                });
                Some(VariantEvidence { variant: variant.clone(), state, changed })
            })
            .collect()
    }
}
