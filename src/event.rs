//! Layer 1: invalidation events, as they come from a stream, a channel or over HTTP.
//!
//! An [`Event`] says what is to be banned and what is to be verified afterwards. It is written as
//! JSON, or as the plain fields of a stream's entry, so that one can be sent by hand:
//!
//! ```text
//! redis-cli XADD invalidations '*' ban 'obj.http.x-url == /a' verify home
//! ```
//!
//! A [`Message`] is something else: whatever an application publishes on a channel. What it
//! invalidates stands in the configuration, as templates that [`Placeholder`]s are filled into.
//!
//! A [`Confirmation`] is what a host says about an event that it has dealt with.
//!
//! Everything here comes from whoever can reach the server: sizes are bounded, and texts are for
//! showing through [`Untrusted`](crate::model::Untrusted) alone. Bans are kept as they are written;
//! reading them is for the ban language.

mod confirmation;
mod error;
mod fields;
mod json;
mod message;
mod object;
mod pattern;
mod placeholder;

use std::time::Duration;

use crate::model::{EndpointName, HttpUrl, NodeName, Timestamp};

pub use confirmation::{Confirmation, ConfirmationError, ConfirmedResult, NodeConfirmation};
pub use error::EventError;
pub use message::{LONGEST_VALUE, Message, ValueError};
pub use pattern::{Pattern, PatternError};
pub use placeholder::{MOST_CAPTURES, Placeholder, PlaceholderError};

/// The longest event, in bytes: 256 KiB.
pub const LONGEST_EVENT: usize = 256 * 1_024;

/// The most bans, URLs and endpoints of one event, together.
pub const MOST_SUBJECTS: usize = 1_000;

/// The longest ban of an event, in bytes: 64 KiB.
pub const LONGEST_BAN: usize = 64 * 1_024;

/// The most nodes that an event names, and the most endpoints that it has verified.
const MOST_NAMES: usize = 1_000;

/// The longest `id`, in bytes.
const LONGEST_ID: usize = 128;

/// The longest `reason`, in bytes.
const LONGEST_REASON: usize = 1_024;

/// How long endpoints may take to be fresh, in seconds, as the configuration has it.
const PROVE_SECONDS: std::ops::RangeInclusive<u64> = 1..=3_600;

/// The number of the documents' form: it grows when something is taken out or renamed.
const SCHEMA: u64 = 1;

/// What is to be invalidated, and what is to be verified afterwards.
///
/// What holds of one that was read: something is named in `bans`, `urls`, `endpoints` or `verify`,
/// within the limits above; `nodes`, where given, is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// What the sender calls it: at most 128 bytes, no control characters.
    pub id: Option<String>,
    /// Bans, as written.
    pub bans: Vec<String>,
    /// URLs that are banned, each on its host.
    pub urls: Vec<HttpUrl>,
    /// Endpoints whose URLs are banned, and which are verified.
    pub endpoints: Vec<EndpointName>,
    /// Endpoints that are verified only.
    pub verify: Vec<EndpointName>,
    /// The nodes that it is meant for; none: all.
    pub nodes: Option<Vec<NodeName>>,
    /// How long the verified endpoints may take to be fresh, where the event counts as done only
    /// then: 1 s to 1 h.
    pub prove: Option<Duration>,
    /// Whether a ban that matches everything is meant.
    pub everything: bool,
    /// Whether a regex that can backtrack without end is sent all the same.
    pub allow_slow_regex: bool,
    /// Why, for people: at most 1 KiB.
    pub reason: Option<String>,
    /// When it was sent, by the sender's wall clock.
    pub issued: Option<Timestamp>,
}

impl Event {
    /// The endpoints that are to be verified, those to be banned included, each once.
    #[must_use]
    pub fn concerned(&self) -> Vec<EndpointName> {
        let mut all: Vec<EndpointName> = Vec::new();
        for name in self.endpoints.iter().chain(&self.verify) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    /// What holds of every event that was read.
    fn checked(self) -> Result<Self, EventError> {
        let subjects = self.bans.len() + self.urls.len() + self.endpoints.len();
        if subjects == 0 && self.verify.is_empty() {
            return Err(EventError::Nothing);
        }
        for (what, limit, got) in [
            ("bans, urls and endpoints", MOST_SUBJECTS, subjects),
            ("endpoints to verify", MOST_NAMES, self.verify.len()),
            ("nodes", MOST_NAMES, self.nodes.as_ref().map_or(0, Vec::len)),
        ] {
            if got > limit {
                return Err(EventError::TooMany { what, limit, got });
            }
        }
        if self.nodes.as_ref().is_some_and(Vec::is_empty) {
            return Err(EventError::NoNode);
        }
        for ban in &self.bans {
            check_length("ban", ban, LONGEST_BAN)?;
        }
        if let Some(id) = &self.id {
            check_length("id", id, LONGEST_ID)?;
            if let Some(found) = id.chars().find(|c| c.is_control()) {
                return Err(EventError::Control { what: "id", found });
            }
        }
        if let Some(reason) = &self.reason {
            check_length("reason", reason, LONGEST_REASON)?;
        }
        let seconds = |prove: Duration| PROVE_SECONDS.contains(&prove.as_secs());
        if let Some(prove) = self.prove.filter(|&prove| !seconds(prove) || prove > LONGEST_PROVE) {
            return Err(EventError::Prove { got: prove });
        }
        Ok(self)
    }
}

const LONGEST_PROVE: Duration = Duration::from_secs(*PROVE_SECONDS.end());

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<(), EventError> {
    match text.len() {
        0 => Err(EventError::Empty { what }),
        got if got > limit => Err(EventError::TooLong { what, limit, got }),
        _ => Ok(()),
    }
}

/// The point of time of so many seconds since the Unix epoch, up to the year 9999.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked first"
)]
fn timestamp(seconds: f64) -> Option<Timestamp> {
    const LAST: f64 = 253_402_300_800.0;
    let fits = (0.0..LAST).contains(&seconds);
    fits.then(|| Timestamp::from_millis((seconds * 1_000.0).round() as u64))
}

#[cfg(test)]
mod tests;
