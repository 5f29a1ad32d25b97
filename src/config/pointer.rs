//! `[[pointer]]`: a URL that names the current version of other URLs.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use regex::bytes::Regex;

use super::diagnostic::{Finding, Kind};
use super::endpoint::Reader;
use super::reader::{Findings, Section, Value};
use super::table::name;
use super::value;
use super::{BanHeaders, OnStale};
use crate::model::{EndpointName, HttpUrl, JsonPointer, NodeName, OriginName, UrlTemplate};
use crate::verdict::Compare;

const GRACE: Duration = Duration::from_secs(600);
const GRACE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 24 * 3_600);
/// The most URLs that a pointer leads to.
const MOST_ENDPOINTS: usize = 100;
/// The one placeholder of its templates.
const VALUE: &str = "value";

/// A pointer and the URLs that it leads to.
#[derive(Debug, Clone)]
pub struct Pointer {
    /// Its name; the `endpoint` label. No endpoint has the same.
    pub name: EndpointName,
    /// What yields the current version, fetched as written.
    pub url: HttpUrl,
    /// Where the version stands in a JSON body; none: the whole body, trimmed.
    pub json: Option<JsonPointer>,
    /// The URLs of a version, at least one; each has `{value}` in it and nothing else to fill in.
    pub endpoints: Vec<UrlTemplate>,
    /// Where the truth about them is fetched from.
    pub origin: OriginName,
    /// The nodes that serve them, at least one, each once; all nodes when the file names none.
    pub nodes: Vec<NodeName>,
    /// Request headers, as an endpoint without variants has them: in the order of their names.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What tells the version of an answer of one of the URLs. Default: the body.
    pub compare: Compare,
    /// What is blanked out of a body before it is compared. Only with [`Compare::Body`].
    pub ignore: Vec<Regex>,
    /// How often the pointer and the URLs are fetched: 1 s to 24 h. Default: 30 s.
    pub interval: Duration,
    /// The limit of one fetch: 100 ms to 5 min. Default: 5 s.
    pub timeout: Duration,
    /// How long a cache may lag behind before that is an alarm: 0 to 30 days. Default: 60 s.
    pub max_stale: Duration,
    /// The most bytes of a decoded body that are read: 1 to 1 GiB. Default: 16 MiB.
    pub body_limit: u64,
    /// The response headers that bans on URLs can go by, if the VCL sets such.
    pub ban_headers: Option<BanHeaders>,
    /// What is done at a node where one of the URLs is stale. Default: nothing but the alarm.
    pub on_stale: OnStale,
    /// How long the URLs of an earlier version are still watched: 0 to 7 days. Default: 10 min.
    pub grace: Duration,
}

impl Pointer {
    /// The requests a second that its schedule alone makes at its origin: for the pointer and for
    /// each URL of one version.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let urls = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        f64::from(urls.saturating_add(1)) / self.interval.as_secs_f64()
    }
}

pub(super) fn read<'t>(reader: &mut Reader<'t>, mut section: Section<'t>) -> Option<Pointer> {
    let name = section.required("name", name(EndpointName::new));
    let url = section.required("url", value::parsed::<HttpUrl>);
    let json = section.optional("json", value::parsed::<JsonPointer>);
    let endpoints = section.required("endpoints", endpoints);
    let origin = reader.origin(&mut section);
    let nodes = reader.nodes(&mut section);
    let watching = reader.watching(&mut section);
    let headers = section.optional("headers", value::headers).unwrap_or_default();
    let grace = section.optional("grace", value::duration(GRACE_RANGE));
    section.finish();
    let watching = watching?;
    Some(Pointer {
        name: name?,
        url: url?,
        json,
        endpoints: endpoints?,
        origin: origin?,
        nodes: nodes?,
        headers: super::endpoint::merged(&headers, &[]),
        compare: watching.compare,
        ignore: watching.ignore,
        interval: watching.interval,
        timeout: watching.timeout,
        max_stale: watching.max_stale,
        body_limit: watching.body_limit,
        ban_headers: watching.ban_headers,
        on_stale: watching.on_stale,
        grace: grace.unwrap_or(GRACE),
    })
}

fn endpoints<'t>(value: &'t Value<'t>, findings: &'t Findings) -> Option<Vec<UrlTemplate>> {
    let mut seen: Vec<UrlTemplate> = Vec::new();
    let read = value::list(value, findings, |item, findings| {
        let template = value::parsed::<UrlTemplate>(item, findings)?;
        if let Some(other) = template.placeholders().find(|name| *name != VALUE) {
            let message = format!("there is no placeholder {{{other}}}: expected {{{VALUE}}}");
            findings.wrong(item.span(), message);
        }
        if template.placeholders().next().is_none() {
            let message = "expected {value} in the URL, where the version stands";
            let finding = Finding::error(Kind::Value, item.span(), message);
            findings.add(finding.help("a URL that is always the same is an [[endpoint]]"));
        }
        if seen.contains(&template) {
            findings.wrong(item.span(), format!("the URL {template} stands here twice"));
        }
        seen.push(template.clone());
        Some(template)
    })?;
    if read.is_empty() || read.len() > MOST_ENDPOINTS {
        let got = read.len();
        findings.wrong(value.span(), format!("expected 1 to {MOST_ENDPOINTS} URLs, got {got}"));
        return None;
    }
    Some(read)
}
