//! Bans of a node's list, judged against a request and the object that it was answered with.

use http::HeaderMap;

use super::evidence::{BanEvidence, Judged, ObjectEvidence, Span};
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
    words: Vec<String>,
}

impl PreparedBan {
    /// A ban that a node of this version took at `taken`, as its list has it; `spec` is empty for
    /// one that is completed.
    #[must_use]
    pub fn new(spec: &[u8], completed: bool, taken: Span, version: Option<ServerVersion>) -> Self {
        if completed || spec.is_empty() {
            let (expression, arguments) = (shown(spec), String::new());
            return Self { taken, expression, arguments, matcher: None, is_start: false };
        }
        let (mut expression, mut arguments) = (shown(spec), String::new());
        let matcher = match parse(spec) {
            Ok(parsed) => {
                expression = cut(parsed.to_string());
                for condition in parsed.conditions() {
                    arguments.push_str(&plain(condition.argument.bytes()));
                    arguments.push('\n');
                }
                Ok(Matcher::new(&parsed, version))
            }
            Err(refusal) => {
                arguments = plain(spec);
                Err(refusal.to_string())
            }
        };
        Self { taken, expression, arguments, matcher: Some(matcher), is_start: false }
    }

    /// The entry that varnishd makes when its cache process starts.
    #[must_use]
    pub fn start(taken: Span) -> Self {
        Self { is_start: true, ..Self::new(b"", true, taken, None) }
    }
}

impl<'a> BanJudge<'a> {
    /// Judges against `object`, which came in answer to `sent`.
    #[must_use]
    pub fn new(sent: Sent<'a>, object: &'a ObjectEvidence) -> Self {
        Self { sent, object, words: words(sent.url) }
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
            related: self.is_about(&ban.arguments),
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

    /// Whether a ban with these arguments was meant for the URL, or for something like it.
    fn is_about(&self, arguments: &str) -> bool {
        let path = self.sent.url.path_and_query().to_lowercase();
        self.words.iter().any(|word| arguments.contains(word.as_str()))
            || arguments
                .lines()
                .any(|argument| argument.trim_start_matches('^').trim_end_matches('$') == path)
    }
}

/// Below zero when `to` is the earlier one.
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64() - from.since(to).as_secs_f64()
}

/// What of a URL tells that a ban is about it: its host, and the parts of its path and query that
/// are long enough to be no chance.
fn words(url: &HttpUrl) -> Vec<String> {
    let path = url.path_and_query().to_lowercase();
    let parts = path.split(['/', '?', '&', '=']);
    let mut words: Vec<_> =
        parts.filter(|part| part.len() >= 3).map(|part| part.replace('\\', "")).collect();
    words.push(url.address().host().to_lowercase());
    words
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
