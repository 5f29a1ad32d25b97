//! Layer 1: the ban language: parse, print, lint, and match.
//!
//! An [`Expression`] is one or more [`Condition`]s joined by `&&`; a condition is a [`Field`], an
//! [`Operator`] and an argument (vcl(7), section on bans; varnish-cli(7), `ban`).
//!
//! # How a ban is written
//!
//! Either as one text, `obj.http.x-url ~ ^/api/ && obj.status == 200`, or as separate words. In a
//! text the tokens stand between blanks (spaces and tabs). There is no quoting and there are no
//! escapes: what is written is what the cache process gets, so a regex is written once, as
//! `\.php$`, and never as `\\.php$`, which is what varnishadm needs. Nothing is lost by that,
//! because an argument can hold no blank anyway: varnishd strips quotes when it hands the ban on,
//! and splits it again.
//!
//! # Lint
//!
//! [`parse`] refuses what is no ban, and [`lint`](fn@lint) what is a ban but a dangerous one: one
//! that matches everything, one that makes varnishd abort its cache process. Such a crash empties
//! the cache and the ban list together, so from outside it looks like a ban that worked.
//!
//! # Matching
//!
//! [`matching`] tells whether a ban would hit an object, and if not, why.

mod duration;
mod everything;
mod expression;
mod field;
mod lint;
pub mod matching;
mod operator;
mod parse;
mod pattern;
mod refusal;
mod template;
mod url;
mod version;
mod warning;

pub use duration::BanDuration;
pub use expression::{Argument, Condition, Expression};
pub use field::{Field, HeaderName, MAXIMUM_HEADER_NAME};
pub use lint::{Lint, LintOptions, lint};
pub use operator::Operator;
pub use parse::{MAXIMUM_CONDITIONS, parse, parse_words};
pub use pattern::Growth;
pub use refusal::Refusal;
pub use template::{FillError, Template, TemplateError};
pub use url::{BanHeaders, Reach, for_url};
pub use version::ServerVersion;
pub use warning::Warning;
