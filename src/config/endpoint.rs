//! `[[endpoint]]` and the `[defaults]` for it.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use regex::bytes::Regex;
use toml::de::DeValue;

use super::diagnostic::{Finding, Kind};
use super::reader::{Findings, Section, Value};
use super::table::{Names, name, section};
use super::value;
use super::{BanHeaders, Endpoint, OnStale, Variant};
use crate::model::{EndpointName, HttpUrl, NodeName, OriginName, VariantName};
use crate::verdict::Compare;

const INTERVAL: Duration = Duration::from_secs(30);
const INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);
const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);
const MAX_STALE: Duration = Duration::from_secs(60);
const MAX_STALE_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(30 * 24 * 3_600);
const BODY_LIMIT: u64 = 16 << 20;
const BODY_LIMIT_RANGE: RangeInclusive<u64> = 1..=1 << 30;

/// The keys that may stand in `[defaults]` as on an endpoint, as far as they were written.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    max_stale: Option<Duration>,
    body_limit: Option<u64>,
    compare: Option<Compare>,
    ban_headers: Option<BanHeaders>,
    on_stale: Option<OnStale>,
}

impl Defaults {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let read = Self::keys_of(&mut section);
        if let (Some(interval), Some(timeout)) = (read.interval, read.timeout) {
            check_timeout(&section, interval, timeout);
        }
        section.finish();
        read
    }

    fn keys_of(section: &mut Section<'_>) -> Self {
        Self {
            interval: section.optional("interval", value::duration(INTERVAL_RANGE)),
            timeout: section.optional("timeout", value::duration(TIMEOUT_RANGE)),
            max_stale: section.optional("max_stale", value::duration(MAX_STALE_RANGE)),
            body_limit: section.optional("body_limit", value::size(BODY_LIMIT_RANGE)),
            compare: section.optional("compare", value::compare),
            ban_headers: section.optional("ban_headers", ban_headers),
            on_stale: section.optional("on_stale", on_stale),
        }
    }
}

/// The settings that endpoints and pointers share, the defaults filled in.
pub(super) struct Watching {
    pub(super) compare: Compare,
    pub(super) ignore: Vec<Regex>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) max_stale: Duration,
    pub(super) body_limit: u64,
    pub(super) ban_headers: Option<BanHeaders>,
    pub(super) on_stale: OnStale,
}

/// Reads endpoints against what the rest of the file declares.
pub(super) struct Reader<'t> {
    defaults: &'t Defaults,
    nodes: &'t Names<'t>,
    origins: &'t Names<'t>,
    findings: &'t Findings,
    /// Made once each, and shared: thousands of endpoints tend to name the same few.
    node_names: HashMap<&'t str, NodeName>,
    origin_names: HashMap<&'t str, OriginName>,
    patterns: HashMap<&'t str, Result<Regex, String>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(
        defaults: &'t Defaults,
        nodes: &'t Names<'t>,
        origins: &'t Names<'t>,
        findings: &'t Findings,
    ) -> Self {
        let node_names = nodes.all().iter().filter_map(|n| Some((*n, NodeName::new(n).ok()?)));
        let origin_names =
            origins.all().iter().filter_map(|n| Some((*n, OriginName::new(n).ok()?)));
        Self {
            defaults,
            nodes,
            origins,
            findings,
            node_names: node_names.collect(),
            origin_names: origin_names.collect(),
            patterns: HashMap::new(),
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'t>) -> Option<Endpoint> {
        let name = section.required("name", name(EndpointName::new));
        let url = section.required("url", value::parsed::<HttpUrl>);
        let origin = self.origin(&mut section);
        let nodes = self.nodes(&mut section);
        let watching = self.watching(&mut section);
        let headers = section.optional("headers", value::headers).unwrap_or_default();
        let variants = variants(&mut section, &headers);
        section.finish();
        let watching = watching?;
        Some(Endpoint {
            name: name?,
            url: url?,
            origin: origin?,
            nodes: nodes?,
            compare: watching.compare,
            ignore: watching.ignore,
            variants: variants?,
            interval: watching.interval,
            timeout: watching.timeout,
            max_stale: watching.max_stale,
            body_limit: watching.body_limit,
            ban_headers: watching.ban_headers,
            on_stale: watching.on_stale,
        })
    }

    /// How what is watched is compared, how often, and what is done about it.
    pub(super) fn watching(&mut self, section: &mut Section<'t>) -> Option<Watching> {
        let own = Defaults::keys_of(section);
        let compare = own.compare.clone().or_else(|| self.defaults.compare.clone());
        let compare = compare.unwrap_or(Compare::Body);
        let ignore = self.ignore(section, &compare);
        let (interval, timeout) = self.times(section, &own);
        Some(Watching {
            compare,
            ignore: ignore?,
            interval,
            timeout,
            max_stale: own.max_stale.or(self.defaults.max_stale).unwrap_or(MAX_STALE),
            body_limit: own.body_limit.or(self.defaults.body_limit).unwrap_or(BODY_LIMIT),
            ban_headers: own.ban_headers.or_else(|| self.defaults.ban_headers.clone()),
            on_stale: own.on_stale.or(self.defaults.on_stale).unwrap_or_default(),
        })
    }

    pub(super) fn origin(&self, section: &mut Section<'t>) -> Option<OriginName> {
        let origin = section.required("origin", |v, f| self.origins.reference(v, f))?;
        self.origin_names.get(origin).cloned()
    }

    pub(super) fn nodes(&self, section: &mut Section<'t>) -> Option<Vec<NodeName>> {
        let mut written = false;
        let named = section.optional("nodes", |value, findings| {
            written = true;
            if value.get_ref().as_array().is_some_and(|nodes| nodes.is_empty()) {
                let message = "expected at least one node, got none";
                let finding = Finding::error(Kind::Value, value.span(), message);
                findings.add(finding.help("leave `nodes` out for all nodes"));
                return None;
            }
            let mut seen: Vec<&str> = Vec::new();
            value::list(value, findings, |item, findings| {
                let name = self.nodes.reference(item, findings)?;
                if seen.contains(&name) {
                    findings.wrong(item.span(), format!("the node {name:?} stands here twice"));
                }
                seen.push(name);
                Some(name)
            })
        });
        if written {
            named?.into_iter().map(|name| self.node_names.get(name).cloned()).collect()
        } else {
            let all = self.nodes.all().iter();
            Some(all.filter_map(|name| self.node_names.get(name).cloned()).collect())
        }
    }

    fn ignore(&mut self, section: &mut Section<'t>, compare: &Compare) -> Option<Vec<Regex>> {
        let place = section.key_place("ignore");
        let mut written = false;
        let patterns = section.optional("ignore", |value, findings| {
            written = true;
            value::list(value, findings, |item, findings| self.pattern(item, findings))
        });
        if !written {
            return Some(Vec::new());
        }
        if *compare != Compare::Body {
            let message = format!(
                "`ignore` is for compare = \"body\", and this endpoint compares \"{compare}\""
            );
            self.findings.add(Finding::error(Kind::Value, place, message));
        }
        patterns
    }

    fn pattern(&mut self, value: &'t Value<'t>, findings: &Findings) -> Option<Regex> {
        let text = value::text(value, findings)?;
        match self.patterns.entry(text).or_insert_with(|| super::ignore::compile(text)) {
            Ok(regex) => Some(regex.clone()),
            Err(message) => {
                findings.wrong(value.span(), message.clone());
                None
            }
        }
    }

    /// The interval and the timeout. A timeout that nobody wrote is cut to the interval.
    fn times(&self, section: &Section<'_>, own: &Defaults) -> (Duration, Duration) {
        let interval = own.interval.or(self.defaults.interval).unwrap_or(INTERVAL);
        let written = own.timeout.or(self.defaults.timeout);
        if let Some(timeout) = written
            && (own.interval.is_some() || own.timeout.is_some())
        {
            check_timeout(section, interval, timeout);
        }
        (interval, written.unwrap_or(TIMEOUT.min(interval)))
    }
}

/// Notes a fetch that may take longer than the time to the next one.
fn check_timeout(section: &Section<'_>, interval: Duration, timeout: Duration) {
    if timeout > interval {
        let place = section.place("timeout").or_else(|| section.place("interval"));
        let message = format!(
            "the timeout of {} is longer than the interval of {}",
            value::written(timeout),
            value::written(interval)
        );
        let span = place.unwrap_or_else(|| section.span.clone());
        section.findings().add(Finding::error(Kind::Relation, span, message));
    }
}

fn ban_headers<'t>(value: &'t Value<'t>, findings: &'t Findings) -> Option<BanHeaders> {
    let mut section = section("ban_headers", value, findings)?;
    let url = section.required("url", value::header_name);
    let host = section.required("host", value::header_name);
    section.finish();
    Some(BanHeaders { url: url?, host: host? })
}

fn on_stale(value: &Value<'_>, findings: &Findings) -> Option<OnStale> {
    match value::text(value, findings)? {
        "alarm" => Some(OnStale::Alarm),
        "ban" => Some(OnStale::Ban),
        other => {
            let message = format!("expected \"alarm\" or \"ban\", got {other:?}");
            findings.wrong(value.span(), message);
            None
        }
    }
}

/// The variants: those written, or else the one called `default`.
fn variants(
    section: &mut Section<'_>,
    common: &[(HeaderName, HeaderValue)],
) -> Option<Vec<Variant>> {
    let mut written = false;
    let variants = section.optional("variants", |value, findings| {
        written = true;
        if let DeValue::Array(items) = value.get_ref()
            && items.is_empty()
        {
            let message = "expected at least one variant, got none";
            let finding = Finding::error(Kind::Value, value.span(), message);
            findings.add(finding.help("leave `variants` out for the plain request alone"));
            return None;
        }
        let mut seen: Vec<VariantName> = Vec::new();
        value::list(value, findings, |item, findings| {
            let variant = variant(item, findings, common)?;
            if seen.contains(&variant.name) {
                let message = format!("the variant {:?} stands here twice", variant.name);
                findings.wrong(item.span(), message);
            }
            seen.push(variant.name.clone());
            Some(variant)
        })
    });
    if written {
        return variants;
    }
    Some(vec![Variant { name: VariantName::default(), headers: merged(common, &[]) }])
}

fn variant<'t>(
    value: &'t Value<'t>,
    findings: &'t Findings,
    common: &[(HeaderName, HeaderValue)],
) -> Option<Variant> {
    let mut section = section("a variant", value, findings)?;
    let name = section.required("name", name(VariantName::new));
    let mut written = false;
    let own = section.optional("headers", |value, findings| {
        written = true;
        value::headers(value, findings)
    });
    section.finish();
    let own = if written { own? } else { Vec::new() };
    Some(Variant { name: name?, headers: merged(common, &own) })
}

pub(super) fn merged(
    common: &[(HeaderName, HeaderValue)],
    own: &[(HeaderName, HeaderValue)],
) -> Vec<(HeaderName, HeaderValue)> {
    let kept = common.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
    let mut all: Vec<_> = kept.cloned().chain(own.iter().cloned()).collect();
    all.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    all
}
