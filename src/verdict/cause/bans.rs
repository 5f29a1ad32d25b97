//! Bans of a node's list, judged against a request and the object that it was answered with.

use http::HeaderMap;

use super::elsewhere::{Elsewhere, NamedPath};
use super::evidence::{Aim, BanEvidence, Judged, ObjectEvidence, Span};
use super::facts::age_bounds;
use crate::ban::matching::{Judgement, Matcher, Object, Request, Seconds, Times, Vantage};
use crate::ban::{ServerVersion, parse};
use crate::model::{HttpUrl, Timestamp, Untrusted};

/// The longest text of a ban that is shown, in characters.
const LONGEST_SHOWN: usize = 200;

/// A ban of a node's list, parsed, with its regexes compiled: to be judged against any number of
/// objects.
#[derive(Debug, Clone)]
pub struct PreparedBan {
    taken: Span,
    expression: String,
    /// What its arguments say, in lower case and without backslashes.
    arguments: String,
    /// The paths that it wants.
    named: Vec<NamedPath>,
    /// The ban itself, its words between single blanks; empty where varnishd has forgotten it.
    spec: Vec<u8>,
    matcher: Option<Result<Matcher, String>>,
    is_start: bool,
}

/// What was sent to get the object.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The URL.
    pub url: &'a HttpUrl,
    /// All header fields of the request, `Host` included.
    pub headers: &'a HeaderMap,
}

/// Judges bans against one object.
#[derive(Debug)]
pub struct BanJudge<'a> {
    sent: Sent<'a>,
    object: &'a ObjectEvidence,
    elsewhere: &'a Elsewhere,
    host: String,
    /// The path and query, in lower case.
    path: String,
    words: Vec<String>,
}

impl PreparedBan {
    /// A ban that a node of this version took at `taken`, as its list has it; `spec` is empty for
    /// one that is completed.
    #[must_use]
    pub fn new(spec: &[u8], completed: bool, taken: Span, version: Option<ServerVersion>) -> Self {
        let mut ban = Self {
            taken,
            expression: shown(spec),
            arguments: String::new(),
            named: Vec::new(),
            spec: Vec::new(),
            matcher: None,
            is_start: false,
        };
        if completed || spec.is_empty() {
            return ban;
        }
        ban.matcher = Some(match parse(spec) {
            Ok(parsed) => {
                ban.expression = cut(parsed.to_string());
                for condition in parsed.conditions() {
                    ban.arguments.push_str(&plain(condition.argument.bytes()));
                    ban.arguments.push('\n');
                }
                ban.named = NamedPath::all_of(&parsed);
                ban.spec = parsed.to_bytes();
                Ok(Matcher::new(&parsed, version))
            }
            Err(refusal) => {
                ban.arguments = plain(spec);
                Err(refusal.to_string())
            }
        });
        ban
    }

    /// The entry that varnishd makes when its cache process starts.
    #[must_use]
    pub fn start(taken: Span) -> Self {
        Self { is_start: true, ..Self::new(b"", true, taken, None) }
    }

    /// When it was taken.
    pub(super) const fn taken(&self) -> Span {
        self.taken
    }

    /// Whether varnishd does not tell any more what it said.
    pub(super) const fn is_forgotten(&self) -> bool {
        self.matcher.is_none() && !self.is_start
    }

    /// Whether it is this ban, its words between single blanks.
    pub(super) fn says(&self, spec: &[u8]) -> bool {
        self.spec == spec
    }
}

impl<'a> BanJudge<'a> {
    /// Judges against `object`, which came in answer to `sent`. What else the bans may have been
    /// meant for is `elsewhere`.
    #[must_use]
    pub fn new(sent: Sent<'a>, object: &'a ObjectEvidence, elsewhere: &'a Elsewhere) -> Self {
        let host = sent.url.address().host().to_lowercase();
        let path = sent.url.path_and_query().to_lowercase();
        let words = words(&path);
        Self { sent, object, elsewhere, host, path, words }
    }

    /// Judges one ban.
    ///
    /// May take some tenths of a second for a regex that backtracks without end.
    #[must_use]
    pub fn judge(&self, ban: &PreparedBan) -> BanEvidence {
        let judged = match &ban.matcher {
            None if ban.is_start => Judged::Start,
            None => Judged::Completed,
            Some(Err(why)) => Judged::Unread { why: why.clone() },
            Some(Ok(matcher)) => self.evaluate(matcher, ban.taken),
        };
        BanEvidence {
            expression: ban.expression.clone(),
            taken: ban.taken,
            judged,
            aim: self.aim(ban),
        }
    }

    fn evaluate(&self, matcher: &Matcher, taken: Span) -> Judged {
        let request = Request {
            url: self.sent.url.path_and_query().as_bytes(),
            headers: self.sent.headers,
            vantage: Vantage::Client,
        };
        // As it was when the ban came.
        let age = age_bounds(self.object).map(|made| {
            Seconds::between(
                seconds_between(made.latest, taken.earliest),
                seconds_between(made.earliest, taken.latest),
            )
        });
        let object = Object {
            status: self.object.status,
            headers: &self.object.headers,
            vantage: Vantage::Client,
            times: Times { age, ..Times::default() },
        };
        match matcher.judge(&request, &object) {
            Judgement::Matches => Judged::Matches,
            Judgement::Misses { condition } => Judged::Misses { why: condition.to_string() },
            Judgement::Unknown { why } => Judged::Unknown { why: why.to_string() },
        }
    }

    fn aim(&self, ban: &PreparedBan) -> Aim {
        if self.elsewhere.is_canarys(&ban.spec, self.sent.url) {
            return Aim::Elsewhere;
        }
        let mut named = ban.named.iter();
        if named.clone().any(|named| named.covers(&self.path)) {
            return Aim::Here;
        }
        if named.clone().any(|named| self.elsewhere.has(named)) {
            return Aim::Elsewhere;
        }
        if self.words.iter().any(|word| ban.arguments.contains(word.as_str())) {
            return Aim::Here;
        }
        if named.any(|named| self.elsewhere.has_below(named)) {
            return Aim::Elsewhere;
        }
        // Nearly every ban names the host.
        if ban.named.is_empty() && ban.arguments.contains(&self.host) {
            return Aim::Here;
        }
        Aim::Unclear
    }
}

/// Below zero when `to` is the earlier one.
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64() - from.since(to).as_secs_f64()
}

/// The parts of a path and query that are long enough to be no chance in a ban.
fn words(path: &str) -> Vec<String> {
    let parts = path.split(['/', '?', '&', '=']);
    parts.filter(|part| part.len() >= 3).map(|part| part.replace('\\', "")).collect()
}

/// What an argument says, for comparisons with words: a regex without its escapes.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_lowercase().replace('\\', "")
}

fn shown(spec: &[u8]) -> String {
    let text = String::from_utf8_lossy(spec);
    cut(Untrusted(&text).to_string())
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or(&text)),
        None => text,
    }
}
