//! What can be said of a regex without running it: what it is made of, and how long it can take.
//!
//! varnishd compiles the regex of a ban with PCRE2 as bytes and without options, and matches it
//! with PCRE2's interpreter and its built-in limit of 10,000,000 internal calls, whatever the
//! parameters `pcre2_match_limit` and `pcre2_jit_compilation` say (tried on 7.1.1). Beyond the
//! limit PCRE2 returns an error, on which the cache process aborts (varnish-cache issue 4376).

mod ambiguity;
mod automaton;
mod bytes;
mod class;
mod growth;
mod opening;
mod plain;
mod shape;
mod syntax;

pub use growth::Growth;

pub(super) use growth::{Verdict, judge};
pub(super) use opening::cannot_match_behind;
pub(super) use plain::is_plain;
pub(super) use syntax::{Hazard, Pattern};

/// The internal calls that PCRE2's interpreter allows one match.
const MATCH_LIMIT: f64 = 10_000_000.0;
