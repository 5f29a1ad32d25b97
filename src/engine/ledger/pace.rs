//! How long the ban list of a node is, and holding back while it is too long.
//!
//! Every lookup of an object that has not been tested yet goes through all newer bans, and bans on
//! `req.*` stay until each older object was looked up: a list that grows without end costs the node
//! its speed. It is counted rarely, since asking for it costs the node time as well.

use std::time::Duration;

use super::{Ledger, LedgerOutput, Miss, Request};
use crate::model::{NodeName, Timestamp};

/// The list is counted after so many bans, and after so long while there are any.
const COUNTED_AFTER: usize = 1_000;
const COUNTED_EVERY: Duration = Duration::from_secs(30);

/// How often it is counted while it is too long.
const COUNTED_WHEN_PACED: Duration = Duration::from_secs(10);

/// While it is too long, one ban is handed over in so long: 50 a second.
const PACE: Duration = Duration::from_millis(20);

/// So many are then handed over at a time.
pub(super) const PACED_AT_A_TIME: usize = 10;

/// What is known of the ban list of a node.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bans that were answered since the list was last counted.
    since: usize,
    counting: bool,
    counted: Option<Timestamp>,
    /// How many bans were on it then.
    pub(super) length: Option<usize>,
    /// Whether that was too many.
    pub(super) is_paced: bool,
    /// Nothing is handed over before.
    pub(super) not_before: Timestamp,
}

impl Pace {
    pub(super) fn forget_request(&mut self) {
        self.counting = false;
    }

    /// Bans are handed over.
    pub(super) fn handed_over(&mut self, bans: usize, now: Timestamp) {
        if self.is_paced {
            self.not_before = now + PACE * u32::try_from(bans).unwrap_or(u32::MAX);
        }
    }

    /// Bans that were handed over have been answered.
    pub(super) fn answered(&mut self, bans: usize) {
        self.since = self.since.saturating_add(bans);
    }

    /// When the list is to be counted next.
    fn due(&self) -> Option<Timestamp> {
        let after = |pause| self.counted.map_or(Timestamp::EPOCH, |at| at + pause);
        match self.since {
            _ if self.counting => None,
            COUNTED_AFTER.. => Some(Timestamp::EPOCH),
            _ if self.is_paced => Some(after(COUNTED_WHEN_PACED)),
            0 => None,
            _ => Some(after(COUNTED_EVERY)),
        }
    }
}

impl Ledger {
    /// Goes over to another limit for the length of a node's ban list; zero is none.
    pub fn limit_ban_lists(&mut self, limit: usize) {
        self.ban_list_limit = limit;
        if limit == 0 {
            for node in self.nodes.values_mut() {
                node.pace = Pace::default();
            }
        }
    }

    /// A node answers [`Request::CountBans`]: how many bans are on its list, as far as it shows
    /// them.
    pub fn counted(&mut self, name: &NodeName, result: Result<usize, Miss>, now: Timestamp) {
        let limit = self.ban_list_limit;
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.pace.counting) else { return };
        let pace = &mut node.pace;
        pace.counting = false;
        pace.counted = Some(now);
        pace.since = 0;
        match result {
            Ok(length) => {
                pace.length = Some(length);
                pace.is_paced = limit > 0 && length > limit;
                if !pace.is_paced {
                    pace.not_before = Timestamp::EPOCH;
                }
            }
            Err(_) => pace.length = None,
        }
        self.wake(name, now);
    }

    /// Has the lists counted that are due.
    pub(super) fn count_due(&mut self, now: Timestamp) {
        if self.ban_list_limit == 0 {
            return;
        }
        for (name, node) in &mut self.nodes {
            if node.configured && node.is_reached() && node.pace.due().is_some_and(|at| at <= now) {
                node.pace.counting = true;
                let (node, request) = (name.clone(), Request::CountBans);
                self.outputs.push_back(LedgerOutput::Request { node, request });
            }
        }
    }

    /// When a list is to be counted next.
    pub(super) fn next_count(&self) -> Option<Timestamp> {
        let counted = |node: &&super::delivery::Node| node.configured && node.is_reached();
        let nodes = self.nodes.values().filter(|_| self.ban_list_limit > 0).filter(counted);
        nodes.filter_map(|node| node.pace.due()).min()
    }
}
