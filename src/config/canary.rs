//! `canary` and `canary_interval` of a `[[node]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::diagnostic::{Finding, Kind};
use super::plausible::Placed;
use super::reader::{Findings, Section, Value};
use super::value;
use super::{Config, Endpoint, Node};
use crate::model::HttpUrl;

const INTERVAL: Duration = Duration::from_secs(60);
const INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);

/// Under this path a node serves the canary that comes from the daemon; the node's name follows.
pub const SERVED_PATH: &str = "/.well-known/purgewatch-canary/";

/// The canary of a node: a harmless cached object that is banned on a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanarySettings {
    /// Which object.
    pub object: CanaryObject,
    /// From one ban to the next: 1 s to 24 h. Default: 60 s.
    pub interval: Duration,
}

/// The object that is a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryObject {
    /// `"self"`: the daemon serves it, and the VCL leads [`SERVED_PATH`] to the daemon.
    Served,
    /// A path, with the query if there is one, on the host of the node's endpoints.
    Path(String),
    /// A whole URL.
    Url(HttpUrl),
}

impl Config {
    /// The URL of a node's canary, if it has one.
    #[must_use]
    pub fn canary_url(&self, node: &Node) -> Option<HttpUrl> {
        let canary = node.canary.as_ref()?;
        let at_node = self.endpoints.iter().find(|endpoint| endpoint.nodes.contains(&node.name));
        let on_host = |path: &str| {
            let base = match at_node {
                Some(endpoint) => base(endpoint),
                None => node.http.to_string(),
            };
            format!("{base}{path}").parse().ok()
        };
        match &canary.object {
            CanaryObject::Url(url) => Some(url.clone()),
            CanaryObject::Path(path) => on_host(path),
            CanaryObject::Served => on_host(&format!("{SERVED_PATH}{}", node.name.url_segment())),
        }
    }
}

/// The scheme and the host of an endpoint.
fn base(endpoint: &Endpoint) -> String {
    format!("{}://{}", endpoint.url.scheme().as_str(), endpoint.url.authority())
}

pub(super) fn read(section: &mut Section<'_>, had_admin: bool) -> Option<CanarySettings> {
    for (key, needs, met) in [
        ("canary", "bans through the admin port, and this node has no `admin`", had_admin),
        (
            "canary_interval",
            "is for a `canary`, and this node has none",
            section.place("canary").is_some(),
        ),
    ] {
        if section.place(key).is_some() && !met {
            let message = format!("`{key}` {needs}");
            section.findings().add(Finding::error(Kind::Relation, section.key_place(key), message));
        }
    }
    let object = section.optional("canary", object);
    let interval = section.optional("canary_interval", value::duration(INTERVAL_RANGE));
    Some(CanarySettings { object: object?, interval: interval.unwrap_or(INTERVAL) })
}

fn object(value: &Value<'_>, findings: &Findings) -> Option<CanaryObject> {
    let text = value::text(value, findings)?;
    if text == "self" {
        return Some(CanaryObject::Served);
    }
    if text.starts_with('/') {
        // Any host will do to see whether the path can be sent.
        let whole = |path: &str| format!("http://h{path}").parse::<HttpUrl>();
        let path = value::named(value, findings, whole)?;
        return Some(CanaryObject::Path(path.path_and_query().to_owned()));
    }
    if text.contains("://") {
        return value::parsed(value, findings).map(CanaryObject::Url);
    }
    let message = format!("expected a path that begins with /, a URL, or \"self\", got {text:?}");
    findings.wrong(value.span(), message);
    None
}

/// Where each node's canary stands in the file, by the node's name.
pub(super) fn places<'t>(nodes: &[Section<'t>]) -> BTreeMap<&'t str, Range<usize>> {
    let placed = |node: &Section<'t>| Some((node.name()?.0, node.place("canary")?));
    nodes.iter().filter_map(placed).collect()
}

/// Notes each path for which the endpoints of the node do not tell one host.
pub(super) fn check_hosts(
    nodes: &[Placed<Node>],
    endpoints: &[Placed<Endpoint>],
    places: &BTreeMap<&str, Range<usize>>,
    findings: &Findings,
) {
    for Placed { value: node, place } in nodes {
        let Some(CanaryObject::Path(path)) = node.canary.as_ref().map(|canary| &canary.object)
        else {
            continue;
        };
        let at_node = endpoints.iter().filter(|endpoint| endpoint.value.nodes.contains(&node.name));
        let bases: BTreeSet<String> = at_node.map(|endpoint| base(&endpoint.value)).collect();
        let mut bases = bases.into_iter();
        let (message, example) = match (bases.next(), bases.next()) {
            (Some(_), None) => continue,
            (None, _) => (
                "`canary` is a path, and no endpoint of this node says on which host".to_owned(),
                "http://HOST".to_owned(),
            ),
            (Some(one), Some(other)) => (
                format!(
                    "`canary` is a path, and the endpoints of this node are on several hosts: {one}, {other}"
                ),
                one,
            ),
        };
        let place = places.get(node.name.as_str()).unwrap_or(place).clone();
        let finding = Finding::error(Kind::Relation, place, message);
        findings.add(finding.help(format!("write a whole URL: \"{example}{path}\"")));
    }
}
