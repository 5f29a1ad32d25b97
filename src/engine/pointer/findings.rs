//! From what is known of a pointer's watches to what keeps it from being good.

use std::fmt::Display;

use super::state::{FindingKind, PointerFinding, PointerState};
use crate::engine::watch::{Place, Reason, Watch};
use crate::model::{Mark, Timestamp, Untrusted, Version};
use crate::verdict::{Comparison, Doubt, Fault, Seen, Sight, State};

/// So many findings are kept: the others are more of the same.
const FINDINGS: usize = 8;

/// What to judge by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Failures in a row of an origin before they count.
    pub(super) failures: u8,
    pub(super) now: Timestamp,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<PointerFinding>,
    /// Whether a node differs beyond doubt and for long enough.
    pub(super) is_certain: bool,
    /// Since when at least a URL is known not to be there.
    pub(super) missing_since: Option<Timestamp>,
}

impl Findings {
    pub(super) fn add(&mut self, kind: FindingKind, text: impl Display) {
        self.list.push(PointerFinding { kind, text: text.to_string() });
    }

    /// The worst, if there is any.
    pub(super) fn worst(&self) -> Option<FindingKind> {
        self.list.iter().map(|finding| finding.kind).max()
    }

    /// The alarm that these come to when they last.
    pub(super) fn alarm(&self) -> Option<PointerState> {
        match self.worst()? {
            FindingKind::Unreadable | FindingKind::Unusable => Some(PointerState::Unreadable),
            FindingKind::Broken => Some(PointerState::Broken),
            FindingKind::Split => Some(PointerState::Split),
            FindingKind::Open | FindingKind::Silent | FindingKind::Doubt => None,
        }
    }

    /// The worst first.
    pub(super) fn into_list(mut self) -> Vec<PointerFinding> {
        self.list.sort_by_key(|finding| std::cmp::Reverse(finding.kind));
        self.list.truncate(FINDINGS);
        self.list
    }

    /// Looks at the pointer itself. `is_open`: no round has ended since its value changed.
    pub(super) fn of_pointer(&mut self, watch: &Watch, is_open: bool, limits: Limits) {
        match watch.origin_trouble(limits.failures) {
            Some(Sight::Failed(fault)) => {
                self.add(FindingKind::Unreadable, format_args!("the pointer's origin: {fault}"));
            }
            Some(Sight::Unversioned(why)) => {
                self.add(FindingKind::Unusable, format_args!("the pointer's origin: {why}"));
            }
            Some(Sight::Version(_)) | None => {}
        }
        match watch.history.current() {
            Some(Seen { version: Version { status, mark }, .. })
                if !matches!(mark, Mark::Value(_)) =>
            {
                let text = format_args!("the pointer's origin answered with status {status}");
                self.add(FindingKind::Unreadable, text);
            }
            None if self.list.is_empty() => {
                self.add(FindingKind::Open, "the pointer was not read yet");
            }
            _ => {}
        }
        if watch.history.is_in_doubt(limits.now) {
            self.add(FindingKind::Doubt, "the pointer goes back and forth between values");
        }
        for place in &watch.places {
            self.of_pointer_at(place, is_open);
        }
    }

    fn of_pointer_at(&mut self, place: &Place, is_open: bool) {
        let node = &place.node;
        match place.verdict.state {
            State::Fresh if !is_open => {}
            State::Unknown | State::Fresh => self.open(node, "the pointer"),
            state @ (State::Lagging | State::Stale) => {
                self.is_certain |= state == State::Stale;
                let text = match &place.version {
                    Some(Version { mark: Mark::Value(value), .. }) => {
                        format!("{node} still names {value}")
                    }
                    Some(version) => {
                        format!("{node} answers the pointer with status {}", version.status)
                    }
                    None => format!("{node} still names another value"),
                };
                self.add(FindingKind::Split, text);
            }
            State::Unverifiable => match doubt(place) {
                Some(Doubt::NodeUnversioned(why)) => self
                    .add(FindingKind::Unusable, format_args!("the pointer through {node}: {why}")),
                _ => self.add(
                    FindingKind::Doubt,
                    format_args!("the pointer cannot be compared at {node}"),
                ),
            },
            State::CacheDown => match fault(place) {
                Some(fault @ Fault::Status(_)) => self.add(
                    FindingKind::Unreadable,
                    format_args!("the pointer through {node}: {fault}"),
                ),
                fault => self.silent(node, fault),
            },
            // Said of the origin already, once it lasts.
            State::OriginDown => {}
        }
    }

    /// Looks at a URL that the pointer leads to. `is_open`: no round has ended since it does.
    pub(super) fn of_target(&mut self, watch: &Watch, is_open: bool, limits: Limits) {
        let url = watch.plan.target.url.to_string();
        let url = Untrusted(&url);
        if is_open {
            return self.open(url, "it");
        }
        match watch.origin_trouble(limits.failures) {
            // A pause is asked of whoever asks often; it says nothing of the URL.
            Some(Sight::Failed(Fault::Status(429) | Fault::Paused | Fault::Failure(_))) => {
                self.add(FindingKind::Silent, format_args!("{url}: its origin does not answer"));
            }
            Some(Sight::Failed(Fault::Status(status))) => {
                let text = format_args!("{url}: the origin answers with status {status}");
                self.add(FindingKind::Broken, text);
            }
            Some(Sight::Unversioned(why)) => {
                self.add(FindingKind::Doubt, format_args!("{url}: {why}"));
            }
            Some(Sight::Version(_)) | None => {}
        }
        match watch.history.current() {
            Some(seen) if !is_success(&seen.version) => {
                let status = seen.version.status;
                let text = format_args!("{url}: the origin answers with status {status}");
                self.add(FindingKind::Broken, text);
                self.missing_since =
                    self.missing_since.min(Some(seen.first_seen)).or(Some(seen.first_seen));
                return;
            }
            Some(_) => {}
            None if watch.origin_trouble(limits.failures).is_none() => self.open(url, "it"),
            None => {}
        }
        for place in &watch.places {
            self.of_target_at(place, url);
        }
        self.of_nodes_without_origin(watch, url);
    }

    fn of_target_at(&mut self, place: &Place, url: Untrusted<'_>) {
        let node = &place.node;
        match place.verdict.state {
            State::Fresh | State::OriginDown => {}
            State::Unknown => self.open(node, url),
            state @ (State::Lagging | State::Stale) => match &place.version {
                Some(version) if !is_success(version) => self.add(
                    FindingKind::Broken,
                    format_args!("{url}: {node} answers with status {}", version.status),
                ),
                _ => {
                    self.is_certain |= state == State::Stale;
                    let text = format_args!("{url}: {node} serves other content than the origin");
                    self.add(FindingKind::Split, text);
                }
            },
            State::Unverifiable => {
                let text = format_args!("{url}: it cannot be compared at {node}");
                self.add(FindingKind::Doubt, text);
            }
            State::CacheDown => match fault(place) {
                Some(Fault::Status(status)) => self.add(
                    FindingKind::Broken,
                    format_args!("{url}: {node} answers with status {status}"),
                ),
                fault => self.silent(node, fault),
            },
        }
    }

    /// While the origin is silent, two nodes that differ from each other are known to differ.
    fn of_nodes_without_origin(&mut self, watch: &Watch, url: Untrusted<'_>) {
        let without = watch.places.iter().filter(|p| p.verdict.state == State::OriginDown);
        let mut seen = without.filter_map(|place| Some((&place.node, place.version.as_ref()?)));
        let Some((first, version)) = seen.next() else { return };
        if let Some((other, _)) = seen.find(|(_, other)| *other != version) {
            let text = format_args!("{url}: {first} and {other} serve different content");
            self.add(FindingKind::Split, text);
        }
    }

    fn open(&mut self, who: impl Display, what: impl Display) {
        self.add(FindingKind::Open, format_args!("{who}: {what} was not compared yet"));
    }

    fn silent(&mut self, node: impl Display, fault: Option<Fault>) {
        let fault = fault.map_or_else(|| "no answer".to_owned(), |fault| fault.to_string());
        self.add(FindingKind::Silent, format_args!("{node} does not answer: {fault}"));
    }
}

fn is_success(version: &Version) -> bool {
    (200..=299).contains(&version.status)
}

fn fault(place: &Place) -> Option<Fault> {
    match &place.reason {
        Some(Reason::Comparison(Comparison::NodeFailed(fault))) => Some(*fault),
        _ => None,
    }
}

fn doubt(place: &Place) -> Option<Doubt> {
    match &place.reason {
        Some(Reason::Comparison(Comparison::Unverifiable(doubt))) => Some(*doubt),
        _ => None,
    }
}
