//! What is wrong with an event.

use std::time::Duration;

use crate::model::{DurationError, NameError, UrlError};

use super::{LONGEST_EVENT, PROVE_SECONDS, SCHEMA};

/// Why what came is no event. The sender's fault, each one: it is of no use to try again.
///
/// Texts of the event within are excerpts made safe for a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It is larger than an event may be.
    #[error("an event has at most {LONGEST_EVENT} bytes, this one has {got}")]
    TooLarge {
        /// Its size in bytes.
        got: usize,
    },
    /// It is no JSON.
    #[error("an event is a JSON object: {detail}")]
    Syntax {
        /// What the parser says, with line and column.
        detail: String,
    },
    /// A key that there is not, one that stands there twice, or a value of another type.
    #[error("this is no event: {detail}")]
    Shape {
        /// What was expected, and what was found.
        detail: String,
    },
    /// It is written for another version.
    #[error("expected an event of schema {SCHEMA}, got {got}")]
    Schema {
        /// The number in it.
        got: u64,
    },
    /// A field of a stream's entry that there is not.
    #[error(
        "there is no field \"{got}\" in an event: expected event (JSON), or ban, url, endpoint, \
         verify, node, prove, everything, allow_slow_regex, reason, id or issued"
    )]
    UnknownField {
        /// Its name.
        got: String,
    },
    /// A field that can stand in an entry once stands there again.
    #[error("the field {field} stands in the event twice")]
    Repeated {
        /// Its name.
        field: &'static str,
    },
    /// `event` and other fields in one entry: which would count?
    #[error("the field event holds the whole event: leave out the field {other}")]
    Mixed {
        /// One of the others.
        other: &'static str,
    },
    /// A value that is no UTF-8.
    #[error("the field {field} is no UTF-8")]
    NotText {
        /// Its name.
        field: &'static str,
    },
    /// It invalidates nothing and verifies nothing.
    #[error("the event names nothing: expected a ban, a url, an endpoint or one to verify")]
    Nothing,
    /// `nodes` is there and empty, so that nobody would do anything.
    #[error("the event is meant for no node: leave out nodes for all of them")]
    NoNode,
    /// Too much at once.
    #[error("an event has at most {limit} {what}, this one has {got}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
        /// How many there are.
        got: usize,
    },
    /// A text is too long.
    #[error("the {what} of an event has at most {limit} bytes, this one has {got}")]
    TooLong {
        /// Which.
        what: &'static str,
        /// How long it may be, in bytes.
        limit: usize,
        /// How long it is, in bytes.
        got: usize,
    },
    /// A text is empty.
    #[error("the {what} of an event is empty")]
    Empty {
        /// Which.
        what: &'static str,
    },
    /// A text holds a control character.
    #[error("the {what} of an event holds no control characters, found {found:?}")]
    Control {
        /// Which.
        what: &'static str,
        /// The first one.
        found: char,
    },
    /// A URL is none.
    #[error("\"{got}\" is no URL to ban")]
    Url {
        /// What was written.
        got: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// A name is none.
    #[error("\"{got}\" is no name of {what}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// What was written.
        got: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// `prove` is no duration.
    #[error("prove is how long it may take to be fresh")]
    Duration(#[source] DurationError),
    /// `prove` is out of range.
    #[error(
        "prove is {}s to {}s, this one is {}ms",
        PROVE_SECONDS.start(), PROVE_SECONDS.end(), got.as_millis()
    )]
    Prove {
        /// The duration.
        got: Duration,
    },
    /// A field that says yes or no says something else.
    #[error("{field} is true or false, got \"{got}\"")]
    Flag {
        /// Which.
        field: &'static str,
        /// What was written.
        got: String,
    },
    /// `issued` is no time.
    #[error("issued is in seconds since 1970, up to the year 9999, got \"{got}\"")]
    Issued {
        /// What was written.
        got: String,
    },
}

impl EventError {
    /// The same in a word, for a metric's label: one of a closed set.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooMany { .. } | Self::TooLong { .. } => "too_large",
            Self::Syntax { .. } => "syntax",
            Self::Schema { .. } => "schema",
            Self::Nothing | Self::NoNode => "empty",
            _ => "malformed",
        }
    }
}
