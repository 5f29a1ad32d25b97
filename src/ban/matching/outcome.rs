//! What testing a ban comes to, and how it is told.

use std::fmt;

use super::seconds::Seconds;
use crate::ban::expression::{Condition, excerpt};
use crate::ban::field::Field;
use crate::ban::operator::Operator;
use crate::model::Untrusted;

/// Whether a ban invalidates an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// Every condition holds.
    Matches,
    /// It certainly does not, whatever else holds.
    Misses {
        /// The first condition that certainly fails.
        condition: Miss,
    },
    /// It depends on what cannot be seen.
    Unknown {
        /// The first condition that cannot be judged.
        why: Doubt,
    },
}

/// A condition that fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    /// Which one, counted from 0.
    pub index: usize,
    /// What it wants.
    pub condition: Condition,
    /// What was found instead.
    pub seen: Seen,
}

/// What a field was found to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// There is no such header.
    Absent,
    /// This value; the likeliest, where it may be one of several of which none will do.
    Text(Vec<u8>),
    /// This time.
    Time(Seconds),
    /// A time that runs, compared with `==`: it is never exactly what is written.
    Running,
}

/// A condition that cannot be judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// Which one, counted from 0.
    pub index: usize,
    /// What it looks at.
    pub field: Field,
    /// Why that is not known.
    pub reason: Reason,
}

/// Why a condition cannot be judged.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Nothing is known of the field, such as `obj.ttl` of an object seen from outside.
    NotVisible,
    /// The time is known, but not closely enough for this comparison.
    TooClose {
        /// Within these bounds.
        seen: Seconds,
    },
    /// The response has no such header: either the object does not have it, or the VCL removes it
    /// on delivery.
    HeaderNotSeen,
    /// Varnish makes or changes the header, or the status, when it delivers, and with what the
    /// object may hold the condition may hold or fail.
    ChangedOnDelivery,
    /// Varnish or its VCL changes the request's header before the lookup, and with what it may
    /// become the condition may hold or fail.
    ChangedOnArrival,
    /// The header is missing and the operator is `!~`: that fails from 7.0 on and holds before,
    /// and the server's version is not known.
    DiffersByVersion,
    /// The regex cannot be compiled here. varnishd may take it: its PCRE2 may know Unicode
    /// properties, which this one does not.
    Regex {
        /// What PCRE2 says.
        fault: String,
    },
    /// The regex runs into a limit of PCRE2 on this value, on which varnishd ends its cache process
    /// (varnish-cache issue 4376): nothing is invalidated by the ban, and everything by the crash.
    RegexLimit {
        /// What PCRE2 says.
        fault: String,
    },
}

impl Reason {
    /// Its name for programs, of a closed set.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotVisible => "not_visible",
            Self::TooClose { .. } => "too_close",
            Self::HeaderNotSeen => "header_not_seen",
            Self::ChangedOnDelivery => "changed_on_delivery",
            Self::ChangedOnArrival => "changed_on_arrival",
            Self::DiffersByVersion => "differs_by_version",
            Self::Regex { .. } => "regex",
            Self::RegexLimit { .. } => "regex_limit",
        }
    }
}

/// One line, safe on a terminal, long values cut.
impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Condition { field, operator, argument } = &self.condition;
        let wanted = excerpt(argument.bytes());
        let text = match &self.seen {
            Seen::Absent => {
                let whose = if field.is_request() { "request" } else { "object" };
                let name = field.header().map_or("", |name| name.as_str());
                write!(f, "the {whose} has no header {name}")?;
                if *operator == Operator::NotMatch {
                    f.write_str(", and then !~ does not hold")?;
                }
                return Ok(());
            }
            Seen::Time(time) => return write!(f, "{field} is {time} and not {operator} {wanted}"),
            Seen::Running => {
                return write!(f, "{field} runs on and is never exactly {wanted}: use < or >");
            }
            Seen::Text(text) => excerpt(text),
        };
        match operator {
            Operator::Match => {
                write!(f, "{field} is {}, which does not match {wanted}", Quoted(&text))
            }
            Operator::NotMatch => {
                write!(
                    f,
                    "{field} is {}, which matches {wanted}, and the ban is for others",
                    Quoted(&text)
                )
            }
            Operator::NotEqual => {
                write!(f, "{field} is {}, and the ban is for others", Quoted(&text))
            }
            _ => write!(f, "{field} is {} and not {}", Quoted(&text), Quoted(&wanted)),
        }
    }
}

/// One line, safe on a terminal.
impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        let name = field.header().map_or("", |name| name.as_str());
        match &self.reason {
            Reason::NotVisible => write!(f, "{field} cannot be seen from outside"),
            Reason::TooClose { seen } => {
                write!(f, "{field} is {seen}, which is too close to what the ban wants")
            }
            Reason::HeaderNotSeen => write!(
                f,
                "the response has no header {name}: either the object does not have it, or the \
                 VCL removes it on delivery"
            ),
            Reason::ChangedOnDelivery => write!(
                f,
                "{field} cannot be seen from outside: Varnish makes or changes it on delivery"
            ),
            Reason::ChangedOnArrival => write!(
                f,
                "{field} cannot be seen from outside: Varnish makes or changes it before the lookup"
            ),
            Reason::DiffersByVersion => write!(
                f,
                "there is no header {name}, on which !~ holds in Varnish 6 and fails from 7.0 on, \
                 and the server's version is not known"
            ),
            Reason::Regex { fault } => {
                write!(f, "the regex on {field} cannot be judged here: {}", Untrusted(fault))
            }
            Reason::RegexLimit { fault } => write!(
                f,
                "the regex on {field} backtracks too much, on which varnishd ends its cache \
                 process: {}",
                Untrusted(fault)
            ),
        }
    }
}

/// A text that is safe already, between quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}
