//! From the configuration of a canary to what the engine does with it.

use std::sync::Arc;
use std::time::Duration;

use super::errands::ban_headers;
use crate::ban::{self, Expression, Reach};
use crate::config::{CanaryObject, CanarySettings, Config, Node};
use crate::engine::CanaryPlan;
use crate::expose::CANARY_HEADER;
use crate::model::HttpUrl;
use crate::verdict::{Compare, Target};

/// The longest that one fetch of a canary may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A canary is a small object.
const BODY_LIMIT: u64 = 16 << 20;

/// The canary of a node, if it has one.
pub(super) fn plan(config: &Config, node: &Node) -> Option<CanaryPlan> {
    let CanarySettings { object, interval } = node.canary.as_ref()?;
    let url = config.canary_url(node)?;
    let is_served = *object == CanaryObject::Served;
    let ban = if is_served {
        let text = format!("obj.http.{CANARY_HEADER} == {}", node.name.url_segment());
        ban::parse(text.as_bytes()).ok()?
    } else {
        ban_of(config, node, &url)?
    };
    let target = Target {
        url,
        headers: Vec::new(),
        compare: Compare::Body,
        ignore: Vec::new(),
        body_limit: BODY_LIMIT,
        timeout: TIMEOUT.min(*interval),
    };
    Some(CanaryPlan { target: Arc::new(target), ban, interval: *interval, is_served })
}

/// The ban on a URL at a node, as bans on the node's endpoints are made: those on the same host
/// first, since the VCL may set the headers for some hosts only.
fn ban_of(config: &Config, node: &Node, url: &HttpUrl) -> Option<Expression> {
    let at_node = || config.endpoints.iter().filter(|endpoint| endpoint.nodes.contains(&node.name));
    let same_host = at_node().find(|endpoint| endpoint.url.authority() == url.authority());
    let endpoint = same_host.or_else(|| at_node().next());
    let headers = endpoint.and_then(|endpoint| ban_headers(endpoint.ban_headers.as_ref()?));
    ban::for_url(url, Reach::Exact, headers.as_ref()).ok()
}
