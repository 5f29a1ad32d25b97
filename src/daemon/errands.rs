//! The fetches and bans of canaries and remedies.

use std::sync::Arc;

use super::Peers;
use super::journal::chain;
use super::ledger::miss;
use crate::ban::{self, Expression, HeaderName};
use crate::config;
use crate::engine::{AdminProblem, BanResult, BanSource, Errand, ErrandResult, Side};
use crate::expose::Metrics;
use crate::model::NodeName;
use crate::protocol::Command;
use crate::verdict::Observation;

/// Carries out an errand; `None` for a fetch from a peer that is gone. Dropping it lets a fetch go;
/// a ban that was sent may have been taken nevertheless.
pub(super) async fn carry_out(
    errand: Errand,
    source: BanSource,
    peers: &Peers,
    metrics: Option<&Arc<Metrics>>,
) -> Option<ErrandResult> {
    match errand {
        Errand::Fetch { side, request } => {
            let destination = match &side {
                Side::Cache(node) => peers.node(node),
                Side::Origin(origin) => peers.origin(origin),
            };
            let seen: Observation = destination?.fetch(&request).await;
            if let Some(metrics) = metrics {
                match &side {
                    Side::Cache(_) => metrics.record_cache_probe(&seen),
                    Side::Origin(origin) => metrics.record_origin_probe(origin, &seen),
                }
            }
            Some(ErrandResult::Fetched(seen))
        }
        Errand::Ban { node, ban } => {
            let (result, counted) = send(&node, &ban, peers).await;
            if let Some(metrics) = metrics {
                metrics.record_ban(&node, source, counted);
            }
            Some(ErrandResult::Banned(result))
        }
    }
}

async fn send(
    node: &NodeName,
    ban: &Expression,
    peers: &Peers,
) -> (Result<(), AdminProblem>, BanResult) {
    let problem = |reason, text: String| Err(AdminProblem { reason, text });
    let Some(peer) = peers.admin(node) else {
        let text = "this node has no admin port".to_owned();
        return (problem("unreachable", text), BanResult::Unreachable);
    };
    let command = match Command::ban(ban.arguments()) {
        Ok(command) => command,
        Err(fault) => return (problem("unsendable", chain(&fault)), BanResult::Rejected),
    };
    let begin = peer.now();
    match peer.ban(command).await {
        Ok(()) => {
            peer.note_sent(ban.to_bytes(), begin);
            (Ok(()), BanResult::Accepted)
        }
        Err(error) => (problem(error.label(), chain(&error)), miss(&error).result),
    }
}

/// The headers that bans on URLs go by.
pub(super) fn ban_headers(headers: &config::BanHeaders) -> Option<ban::BanHeaders> {
    let name = |text: &str| HeaderName::new(text);
    Some(ban::BanHeaders { url: name(&headers.url)?, host: Some(name(&headers.host)?) })
}
