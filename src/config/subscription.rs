//! `[[subscription]]`: which events are followed, and what they mean.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::diagnostic::{Finding, Kind};
use super::plausible::Placed;
use super::reader::{Findings, Section, Value};
use super::redis;
use super::table::Names;
use super::value;
use crate::ban::{LintOptions, Refusal, Template, lint};
use crate::event::{Pattern, Placeholder};
use crate::model::{EndpointName, UrlTemplate};

const MAX_ATTEMPTS: usize = 5;
const MAX_ATTEMPTS_RANGE: RangeInclusive<usize> = 1..=1_000;
const DEBOUNCE: Duration = Duration::from_millis(100);
const DEBOUNCE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const PROVE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// The most URLs of a subscription.
const MOST_URLS: usize = 100;

/// One channel, pattern of channels, or stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Where its events come from.
    pub source: EventSource,
    /// On a channel: what each message invalidates; when empty, each message is an event in JSON.
    /// On a stream: what a gap bans; its events say themselves what they invalidate.
    pub scope: Scope,
    /// The endpoints that are verified after each event, beside those of the scope and those that
    /// the event names.
    pub verify: Vec<EndpointName>,
    /// What is done when events may have been missed. Default: [`OnGap::Verify`].
    pub on_gap: OnGap,
    /// Equal invalidations within this time are one ban: 0 to 60 s. Default: 100 ms.
    pub debounce: Duration,
    /// How long the verified endpoints may take to be fresh, where an event counts as done only
    /// then: 1 s to 1 h. None: it counts as done once the ban was taken.
    pub prove: Option<Duration>,
}

/// Where events come from.
#[derive(Debug, Clone, PartialEq)]
pub enum EventSource {
    /// `channel`: Pub/Sub, which forgets what was sent while nobody listened.
    Channel(Pattern),
    /// `stream`: durable.
    Stream(StreamSettings),
}

/// A stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its key.
    pub key: String,
    /// The key of the stream that confirmations go to. Default: the key with `:replies`.
    pub replies: String,
    /// How often an event is tried before it is set aside: 1 to 1,000. Default: 5.
    pub max_attempts: u32,
}

/// What is invalidated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    /// A ban. Its placeholders are [`Placeholder`]s, and the channel's pattern has them.
    pub ban: Option<Template>,
    /// URLs, each banned on its host. The same of their placeholders.
    pub urls: Vec<UrlTemplate>,
    /// Endpoints: their URLs are banned, and they are verified.
    pub endpoints: Vec<EndpointName>,
}

/// What is done when events may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGap {
    /// `"verify"`: the endpoints concerned are probed at once; all of them where none is named.
    #[default]
    Verify,
    /// `"ban"`: whatever the subscription can ban is banned, then verified.
    Ban,
}

impl Subscription {
    /// Whether what comes says by itself what it invalidates ([`Event`](crate::event::Event)).
    #[must_use]
    pub fn carries_events(&self) -> bool {
        matches!(self.source, EventSource::Stream(_)) || self.scope.is_empty()
    }

    /// The endpoints of `endpoints` and `verify`, each once. When there is none, a gap concerns
    /// all endpoints.
    #[must_use]
    pub fn concerned(&self) -> Vec<EndpointName> {
        let mut all = self.scope.endpoints.clone();
        all.extend(self.verify.iter().filter(|name| !self.scope.endpoints.contains(name)).cloned());
        all
    }
}

impl Scope {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ban.is_none() && self.urls.is_empty() && self.endpoints.is_empty()
    }
}

/// Reads one table. `endpoints` and `pointers` are the names that may be referred to: what is
/// verified may be either, what is banned by its URL has one.
pub(super) fn read<'t>(
    mut section: Section<'t>,
    endpoints: &Names<'t>,
    pointers: &Names<'t>,
) -> Option<Subscription> {
    let source = source(&mut section);
    let scope = scope(&mut section, endpoints);
    let either = endpoints.or(pointers);
    let verify = section.optional("verify", |v, f| names(v, f, |v, f| either.reference(v, f)));
    let verify = verify.unwrap_or_default();
    let on_gap = section.optional("on_gap", on_gap).unwrap_or_default();
    let debounce = section.optional("debounce", value::duration(DEBOUNCE_RANGE));
    let prove = section.optional("prove", value::duration(PROVE_RANGE));
    if let Some(source) = &source {
        match source {
            EventSource::Channel(pattern) => check_channel(&section, pattern, &scope),
            EventSource::Stream(_) => check_stream(&section, &scope, on_gap),
        }
        check_gap(&section, &scope, on_gap);
        let proves_nothing = matches!(source, EventSource::Channel(_))
            && section.place("endpoints").is_none()
            && section.place("verify").is_none()
            && SCOPE.iter().any(|key| section.place(key).is_some());
        if prove.is_some() && proves_nothing {
            let message = "`prove` needs endpoints to look at: name them as `verify`";
            let place = section.key_place("prove");
            section.findings().add(Finding::error(Kind::Relation, place, message));
        }
    }
    section.finish();
    Some(Subscription {
        source: source?,
        scope,
        verify,
        on_gap,
        debounce: debounce.unwrap_or(DEBOUNCE),
        prove,
    })
}

const SCOPE: [&str; 3] = ["ban", "urls", "endpoints"];

fn source(section: &mut Section<'_>) -> Option<EventSource> {
    let channel = section.optional("channel", value::parsed::<Pattern>);
    let stream = section.optional("stream", redis::key);
    let replies = section.optional("replies", redis::key);
    let attempts = section.optional("max_attempts", value::whole(MAX_ATTEMPTS_RANGE));
    let (has_channel, has_stream) = (section.place("channel"), section.place("stream"));
    let relation =
        |place: Range<usize>, message: String| Finding::error(Kind::Relation, place, message);
    match (&has_channel, &has_stream) {
        (None, None) => {
            let message = "[[subscription]] needs the key `channel` or `stream`".to_owned();
            section.findings().add(relation(section.span.clone(), message));
            return None;
        }
        (Some(other), Some(_)) => {
            let message = "a subscription has a `channel` or a `stream`, not both".to_owned();
            let finding = relation(section.key_place("stream"), message);
            section.findings().add(finding.related(other.clone(), "the other one"));
            return None;
        }
        (Some(_), None) => {
            for key in ["replies", "max_attempts"] {
                if section.place(key).is_some() {
                    let message = format!("`{key}` is for a `stream`: a channel keeps nothing");
                    section.findings().add(relation(section.key_place(key), message));
                }
            }
        }
        (None, Some(_)) => {}
    }
    if let Some(pattern) = channel {
        return Some(EventSource::Channel(pattern));
    }
    let key = stream?;
    Some(EventSource::Stream(StreamSettings {
        replies: replies.unwrap_or_else(|| format!("{key}:replies")),
        max_attempts: u32::try_from(attempts.unwrap_or(MAX_ATTEMPTS)).unwrap_or(u32::MAX),
        key,
    }))
}

fn scope<'t>(section: &mut Section<'t>, endpoints: &Names<'t>) -> Scope {
    let ban = section.optional("ban", ban);
    let urls = section.optional("urls", |value, findings| {
        let urls = value::list(value, findings, value::parsed::<UrlTemplate>)?;
        if urls.is_empty() || urls.len() > MOST_URLS {
            let got = urls.len();
            findings.wrong(value.span(), format!("expected 1 to {MOST_URLS} URLs, got {got}"));
        }
        Some(urls)
    });
    let endpoints =
        section.optional("endpoints", |v, f| names(v, f, |v, f| endpoints.reference(v, f)));
    Scope { ban, urls: urls.unwrap_or_default(), endpoints: endpoints.unwrap_or_default() }
}

/// A ban template, with a lint of what it makes.
fn ban(value: &Value<'_>, findings: &Findings) -> Option<Template> {
    let template = value::named(value, findings, Template::parse)?;
    for refusal in lint(&template.sample(), &LintOptions::default()).refusals {
        findings.wrong(value.span(), said(&refusal));
    }
    Some(template)
}

/// What a refusal says, without the flag of a command line.
fn said(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    let flag = [", or pass --", "; pass --"].iter().find_map(|lead| text.find(lead));
    text.get(..flag.unwrap_or(text.len())).unwrap_or(&text).to_owned()
}

fn names<'t>(
    value: &'t Value<'t>,
    findings: &'t Findings,
    reference: impl Fn(&'t Value<'t>, &'t Findings) -> Option<&'t str>,
) -> Option<Vec<EndpointName>> {
    let mut seen: Vec<&str> = Vec::new();
    let names = value::list(value, findings, |item, findings| {
        let name = reference(item, findings)?;
        if seen.contains(&name) {
            findings.wrong(item.span(), format!("the endpoint {name:?} stands here twice"));
        }
        seen.push(name);
        EndpointName::new(name).ok()
    })?;
    if names.is_empty() {
        let finding = Finding::error(Kind::Value, value.span(), "expected an endpoint, got none");
        findings.add(finding.help("leave the key out"));
    }
    Some(names)
}

fn on_gap(value: &Value<'_>, findings: &Findings) -> Option<OnGap> {
    match value::text(value, findings)? {
        "verify" => Some(OnGap::Verify),
        "ban" => Some(OnGap::Ban),
        other => {
            findings.wrong(value.span(), format!("expected \"verify\" or \"ban\", got {other:?}"));
            None
        }
    }
}

/// Each placeholder is one, and the channel has it.
fn check_channel(section: &Section<'_>, pattern: &Pattern, scope: &Scope) {
    let stars = pattern.capture_count();
    let check = |key: &str, placeholder: &str| {
        let message = match placeholder.parse() {
            Ok(Placeholder::Capture(number)) if usize::from(number) > stars => format!(
                "{{{number}}} is what the {} * of the channel matched, and {:?} has {}",
                ordinal(number),
                pattern.as_str(),
                if stars == 0 { "none".to_owned() } else { stars.to_string() }
            ),
            Ok(_) => return,
            Err(fault) => value::with_sources(&fault),
        };
        let place = section.place(key).unwrap_or_else(|| section.span.clone());
        let finding = Finding::error(Kind::Value, place, message);
        let quantifier = key == "ban" && placeholder.starts_with(|c: char| c.is_ascii_digit());
        section.findings().add(if quantifier {
            finding.help(format!("for a quantifier of a regex write {{{{{placeholder}}}}}"))
        } else {
            finding
        });
    };
    for placeholder in scope.ban.iter().flat_map(Template::placeholders) {
        check("ban", placeholder);
    }
    for placeholder in scope.urls.iter().flat_map(UrlTemplate::placeholders) {
        check("urls", placeholder);
    }
}

fn ordinal(number: u8) -> &'static str {
    const WORDS: [&str; 9] =
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"];
    usize::from(number).checked_sub(1).and_then(|at| WORDS.get(at)).copied().unwrap_or("next")
}

/// The events of a stream say themselves what they invalidate: what stands here is for gaps.
fn check_stream(section: &Section<'_>, scope: &Scope, on_gap: OnGap) {
    for key in SCOPE.into_iter().filter(|key| section.place(key).is_some()) {
        if on_gap == OnGap::Verify {
            let message = format!(
                "the events of a stream say themselves what to ban: `{key}` here is for on_gap = \
                 \"ban\""
            );
            let finding = Finding::error(Kind::Relation, section.key_place(key), message);
            section.findings().add(finding.help("to have endpoints verified, use `verify`"));
        }
    }
    let in_ban = scope.ban.iter().flat_map(Template::placeholders).map(|name| ("ban", name));
    let in_urls = scope.urls.iter().flat_map(UrlTemplate::placeholders).map(|name| ("urls", name));
    for (key, placeholder) in in_ban.chain(in_urls) {
        let message = format!(
            "nothing is filled in on a stream, got {{{placeholder}}}: its events say themselves \
             what to ban, and `{key}` here is what a gap bans"
        );
        let place = section.place(key).unwrap_or_else(|| section.span.clone());
        section.findings().add(Finding::error(Kind::Value, place, message));
    }
}

/// What a gap bans is known, and not everything.
fn check_gap(section: &Section<'_>, scope: &Scope, on_gap: OnGap) {
    if on_gap == OnGap::Verify {
        return;
    }
    let place = section.place("on_gap").unwrap_or_else(|| section.span.clone());
    let add = |message: String| {
        section.findings().add(Finding::error(Kind::Relation, place.clone(), message));
    };
    if SCOPE.iter().all(|key| section.place(key).is_none()) {
        add("on_gap = \"ban\" bans what `ban`, `urls` and `endpoints` name, and none of them \
             stands here"
            .to_owned());
    }
    let Some(template) = &scope.ban else { return };
    match template.scope() {
        None => add(format!(
            "on_gap = \"ban\" would ban everything: \"{template}\" may hold for any object"
        )),
        Some(ban) => {
            let refusals = lint(&ban, &LintOptions::default()).refusals;
            if let Some(refusal) = refusals.first() {
                add(format!("on_gap = \"ban\" would ban \"{ban}\": {}", said(refusal)));
            }
        }
    }
}

/// Notes each stream that has two readers here, or is written to as well.
pub(super) fn check_streams(read: &[Placed<Subscription>], findings: &Findings) {
    let mut keys: BTreeMap<String, (&str, &Range<usize>)> = BTreeMap::new();
    for Placed { value: subscription, place } in read {
        let add = |message: String| Finding::error(Kind::Relation, place.clone(), message);
        let EventSource::Stream(stream) = &subscription.source else { continue };
        for key in [&stream.key, &stream.replies] {
            if key.starts_with("purgewatch:") && key.ends_with(":instance") {
                let message = format!("{key:?} is where a daemon notes that it has its name");
                findings.add(add(message).help("name another stream"));
            }
        }
        let is_twice = keys.contains_key(&stream.key);
        let beside = |what: &str| format!("{}:{what}", stream.key);
        for (key, role) in [
            (stream.key.clone(), "is the stream"),
            (beside("set-aside"), "holds what was set aside"),
            (beside("followers"), "holds the followers"),
            (stream.replies.clone(), "holds the replies"),
        ] {
            match keys.get(&key) {
                None => drop(keys.insert(key, (role, place))),
                // Said of the stream itself.
                Some(_) if is_twice && key != stream.key && key != stream.replies => {}
                Some((other, first)) => {
                    let finding = add(format!("{key:?} {other} of a subscription already"));
                    findings.add(if *first == place {
                        finding.help("the replies need a stream of their own")
                    } else {
                        finding.related((*first).clone(), "first given here")
                    });
                }
            }
        }
    }
}

/// Notes each subscription that would be counted as something else.
pub(super) fn check_names(read: &[Placed<Subscription>], findings: &Findings) {
    for Placed { value: subscription, place } in read {
        let name = match &subscription.source {
            EventSource::Channel(pattern) => pattern.as_str(),
            EventSource::Stream(stream) => &stream.key,
        };
        if name == "http" {
            let message = "events over HTTP are counted as \"http\": a subscription needs another \
                           name";
            findings.add(Finding::error(Kind::Relation, place.clone(), message));
        }
    }
}
