//! Why a ban is not sent.

use super::expression::excerpt;
use super::field::MAXIMUM_HEADER_NAME;
use super::parse::MAXIMUM_CONDITIONS;
use super::pattern::Growth;
use super::version::ServerVersion;

/// Why a ban is not sent. Nothing was asked of any node when one of these comes up.
///
/// Texts of the ban are excerpts made safe for a terminal.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing in it.
    #[error("the ban is empty: expected FIELD OPERATOR ARGUMENT, such as: req.url ~ ^/news/")]
    Empty,
    /// A line end, which would end the command and start another.
    #[error(
        "a ban must not hold a line end (found in \"{token}\"): varnishd would take what follows \
         as another command"
    )]
    LineEnd {
        /// The token that holds it.
        token: String,
    },
    /// A NUL byte, which varnishd takes as the end of the argument.
    #[error(
        "a ban must not hold a NUL byte (found in \"{token}\"): varnishd would cut the ban there"
    )]
    Nul {
        /// The token that holds it.
        token: String,
    },
    /// A blank within an argument, which varnishd cannot carry.
    #[error(
        "an argument of a ban must not hold a blank (found in \"{token}\"): varnishd splits it \
         there, quoted or not; in a regex write \\x20 or \\s for it, and use ~ instead of =="
    )]
    Blank {
        /// The token that holds it.
        token: String,
    },
    /// `&&` within an argument: most likely blanks were forgotten around it.
    #[error(
        "\"{token}\" holds &&: write blanks around && to join two conditions; where && is part of \
         the value, use ~ and write &[&] for it"
    )]
    AndInArgument {
        /// The token that holds it.
        token: String,
    },
    /// An argument without a character, which varnishd cannot carry.
    #[error(
        "the argument of {field} {operator} is empty, which varnishd cannot take: to match an \
         empty value write ~ ^$"
    )]
    EmptyArgument {
        /// The field before it.
        field: String,
        /// The operator before it.
        operator: String,
    },
    /// The condition ends too early.
    #[error("expected {expected} after \"{after}\", found the end of the ban")]
    Incomplete {
        /// What has to come.
        expected: &'static str,
        /// The last token there is.
        after: String,
    },
    /// Two conditions are not joined by `&&`.
    #[error("expected && between two conditions, got \"{got}\"{}", joint_hint(got))]
    Joint {
        /// What stands there.
        got: String,
    },
    /// No such field.
    #[error("there is no field \"{got}\"{hint}")]
    UnknownField {
        /// What was written.
        got: String,
        /// What may be meant, with its own punctuation; or nothing.
        hint: String,
    },
    /// No such operator, or not for this field.
    #[error("{field} cannot be compared with \"{got}\": expected {expected}{}", tilde_hint(got))]
    UnknownOperator {
        /// The field before it.
        field: String,
        /// What was written.
        got: String,
        /// The operators that fit.
        expected: &'static str,
    },
    /// The operator `<<` is varnishd's mark of a here-document: the session would hang.
    #[error(
        "\"<<\" as the last but one word starts a here-document in varnishd: it would wait for \
         the word \"{terminator}\" and take everything until then as the argument"
    )]
    Heredoc {
        /// The word behind it.
        terminator: String,
    },
    /// A header name with no character: varnishd up to 7.3 aborts its cache process.
    #[error(
        "\"{field}\" names no header: write the name behind it (varnishd before 7.4 accepts this \
         and its cache process aborts at the next lookup)"
    )]
    EmptyHeaderName {
        /// The field.
        field: String,
    },
    /// A header name that varnishd does not survive.
    #[error(
        "a header name of {length} bytes makes varnishd's cache process abort: the longest it \
         survives has {MAXIMUM_HEADER_NAME}"
    )]
    LongHeaderName {
        /// Its length in bytes.
        length: usize,
    },
    /// A character that no header name has: the condition could never match.
    #[error("\"{name}\" is no header name: {found:?} cannot stand in one")]
    HeaderNameCharacter {
        /// The name.
        name: String,
        /// The first character that does not fit.
        found: char,
    },
    /// No duration behind a field that needs one.
    #[error(
        "expected a duration such as 90s, 1.5h or 7d (units ms, s, m, h, d, w, y) for {field}, \
         got \"{got}\""
    )]
    Duration {
        /// The field.
        field: String,
        /// What was written.
        got: String,
    },
    /// Quotes around an argument, which would become part of it.
    #[error(
        "{token} stands in quotes, which would become part of the value: leave them out, nothing \
         needs quoting here; for a quote that is meant, write \\x22 in a regex"
    )]
    Quoted {
        /// The token with its quotes.
        token: String,
    },
    /// More conditions than varnishd takes.
    #[error("a ban takes at most {MAXIMUM_CONDITIONS} conditions, this one has {count}")]
    TooManyConditions {
        /// How many there are.
        count: usize,
    },
    /// The server is too old for the field.
    #[error("{field} needs version {since}, the server has {version}")]
    FieldTooNew {
        /// The field.
        field: String,
        /// The first version that knows it.
        since: ServerVersion,
        /// The server's.
        version: ServerVersion,
    },
    /// PCRE2 does not compile it, at an offset in bytes where it says so.
    #[error("\"{pattern}\" is no regex that Varnish can use: {reason}{}", at_offset(*offset))]
    Regex {
        /// The regex.
        pattern: String,
        /// What PCRE2 says.
        reason: String,
        /// Where, in bytes from its start.
        offset: Option<usize>,
    },
    /// A regex that can take more steps than PCRE2 allows, on a value that a client can send.
    #[error(
        "the regex \"{pattern}\" can backtrack without end: {growth}. From 7.0 on varnishd's cache \
         process aborts when PCRE2 gives up (varnish-cache issue 4376), which empties the cache \
         and loses the ban. Let no two repetitions match the same text ([^/]* instead of .*, an \
         anchor ^), or pass --allow-slow-regex"
    )]
    SlowRegex {
        /// The regex.
        pattern: String,
        /// How its cost grows, and what length is enough.
        growth: Growth,
    },
    /// `(*UTF)`, `(*LIMIT_MATCH=...)` and their like: they make matching fail with an error, on
    /// which varnishd aborts.
    #[error(
        "{option} at the start of the regex \"{pattern}\" makes PCRE2 fail on some values, and \
         varnishd's cache process aborts on that: leave it out"
    )]
    RegexOption {
        /// The regex.
        pattern: String,
        /// The option.
        option: String,
    },
    /// `(?R)`, `(?1)`, `\g<name>`: a regex that calls itself can fail with an error, on which
    /// varnishd aborts.
    #[error(
        "the regex \"{pattern}\" calls itself or one of its groups ({construct}), which PCRE2 can \
         give up on, and varnishd's cache process aborts on that: write it without, or pass \
         --allow-slow-regex"
    )]
    RecursiveRegex {
        /// The regex.
        pattern: String,
        /// The call.
        construct: String,
    },
    /// The admin protocol cannot carry it.
    #[error("this ban cannot be sent: {reason}")]
    Unsendable {
        /// Why not.
        reason: String,
    },
    /// It matches every object.
    #[error(
        "this ban matches everything ({because}): the whole cache would be fetched again; pass \
         --everything if that is meant"
    )]
    Everything {
        /// Why it does.
        because: String,
    },
}

impl Refusal {
    /// A stable name for programs: kebab-case, never changed.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty-ban",
            Self::LineEnd { .. } => "line-end",
            Self::Nul { .. } => "nul",
            Self::Blank { .. } => "blank-in-argument",
            Self::AndInArgument { .. } => "and-in-argument",
            Self::EmptyArgument { .. } => "empty-argument",
            Self::Incomplete { .. } => "incomplete",
            Self::Joint { .. } => "expected-and",
            Self::UnknownField { .. } => "unknown-field",
            Self::UnknownOperator { .. } => "unknown-operator",
            Self::Heredoc { .. } => "heredoc",
            Self::EmptyHeaderName { .. } => "empty-header-name",
            Self::LongHeaderName { .. } => "long-header-name",
            Self::HeaderNameCharacter { .. } => "header-name-character",
            Self::Duration { .. } => "duration",
            Self::Quoted { .. } => "quoted-argument",
            Self::TooManyConditions { .. } => "too-many-conditions",
            Self::FieldTooNew { .. } => "field-too-new",
            Self::Regex { .. } => "regex",
            Self::SlowRegex { .. } => "slow-regex",
            Self::RegexOption { .. } => "regex-option",
            Self::RecursiveRegex { .. } => "recursive-regex",
            Self::Unsendable { .. } => "unsendable",
            Self::Everything { .. } => "everything",
        }
    }

    /// The flag of `purgewatch ban` that sends the ban all the same.
    #[must_use]
    pub const fn overridden_by(&self) -> Option<&'static str> {
        match self {
            Self::SlowRegex { .. } | Self::RecursiveRegex { .. } => Some("--allow-slow-regex"),
            Self::Everything { .. } => Some("--everything"),
            _ => None,
        }
    }

    pub(super) fn token(token: &[u8]) -> String {
        excerpt(token)
    }
}

fn joint_hint(got: &str) -> &'static str {
    match got {
        "||" | "or" | "OR" => {
            ": there is no \"or\" in a ban; send two bans, or write a|b within one regex"
        }
        "and" | "AND" | "&" => ": write && for it",
        _ => "; an argument cannot hold a blank, in a regex write \\x20 for it",
    }
}

fn at_offset(offset: Option<usize>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at offset {offset}"))
}

/// An absolute path where an operator belongs is what shells make of a bare `~`.
fn tilde_hint(got: &str) -> &'static str {
    if got.starts_with('/') { " (a shell turns a bare ~ into a path: write it as '~')" } else { "" }
}
