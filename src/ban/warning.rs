//! What a ban that is sent deserves to have said about it.

use super::version::ServerVersion;

/// Something that may not be meant, or that costs. The ban is sent all the same.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Warning {
    /// It looks at the request, so the lurker cannot work it off.
    #[error(
        "{field} belongs to the request: the ban stays on the list until every older object was \
         asked for; a ban on obj.http.* can be worked off in the background"
    )]
    RequestField {
        /// The field.
        field: String,
    },
    /// `.` between letters or digits, which matches any byte.
    #[error("in \"{pattern}\" the dot in \"{around}\" matches any character: write \\. for a dot")]
    UnescapedDot {
        /// The regex.
        pattern: String,
        /// The dot with its neighbours.
        around: String,
    },
    /// `\\.`, as varnishadm needs it: here it means a backslash and any character.
    #[error(
        "{escape} in \"{pattern}\" means a backslash, as no URL holds one: backslashes are doubled \
         for varnishadm only, here the regex is written as it is"
    )]
    DoubledBackslash {
        /// The regex.
        pattern: String,
        /// The doubled backslash and what follows.
        escape: String,
    },
    /// A backslash in a text that is compared as a whole.
    #[error(
        "\"{argument}\" is compared as it is, backslash and all: escapes are for regexes, behind ~ \
         and !~"
    )]
    LiteralBackslash {
        /// The argument.
        argument: String,
    },
    /// Quotes that are part of the value.
    #[error("the quotes in {argument} are part of the value that is compared")]
    LiteralQuotes {
        /// The argument.
        argument: String,
    },
    /// It can never match.
    #[error("this ban matches nothing: {because}")]
    MatchesNothing {
        /// Why not.
        because: String,
    },
    /// `!=`, which holds for objects that lack the header too.
    #[error("{field} != also matches every object or request that has no such header")]
    AbsentHeader {
        /// The field.
        field: String,
    },
    /// `!~` on a header that may be absent differs by version.
    #[error(
        "where there is no such header, {field} !~ matches before version 7.0 and does not match \
         from 7.0 on"
    )]
    AbsentHeaderByVersion {
        /// The field.
        field: String,
    },
    /// It matches all but a few objects.
    #[error("this ban matches everything except what {conditions} names")]
    NearlyEverything {
        /// The negated conditions.
        conditions: String,
    },
    /// A regex that takes long on long values made for it.
    #[error(
        "the regex \"{pattern}\" is slow on some long values: at about {length} bytes PCRE2 gives \
         up, and varnishd's cache process aborts on that (varnish-cache issue 4376); an anchor ^ \
         or [^/]* instead of .* helps"
    )]
    SlowRegex {
        /// The regex.
        pattern: String,
        /// The length of a value that is enough, in bytes.
        length: usize,
    },
    /// The field is not known to every version, and this server's is not known.
    #[error("{field} needs version {since} or later")]
    NeedsVersion {
        /// The field.
        field: String,
        /// The first version that knows it.
        since: ServerVersion,
    },
}

impl Warning {
    /// A stable name for programs: kebab-case, never changed.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::RequestField { .. } => "request-field",
            Self::UnescapedDot { .. } => "unescaped-dot",
            Self::DoubledBackslash { .. } => "doubled-backslash",
            Self::LiteralBackslash { .. } => "literal-backslash",
            Self::LiteralQuotes { .. } => "literal-quotes",
            Self::MatchesNothing { .. } => "matches-nothing",
            Self::AbsentHeader { .. } => "absent-header",
            Self::AbsentHeaderByVersion { .. } => "absent-header-by-version",
            Self::NearlyEverything { .. } => "nearly-everything",
            Self::SlowRegex { .. } => "slow-on-long-values",
            Self::NeedsVersion { .. } => "needs-version",
        }
    }
}
