//! What no single table shows: settings that are well-formed each and do not go together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::diagnostic::{Finding, Kind};
use super::reader::Findings;
use super::{AdminPlace, Daemon, Endpoint, Node, OnStale, Origin};
use crate::model::NodeName;

/// A value with the place that findings about it point at.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Range<usize>,
}

/// Notes each endpoint whose origin is one of its nodes: a cache is always as fresh as itself.
pub(super) fn check_origins_are_no_nodes(
    nodes: &[Placed<Node>],
    origins: &[Placed<Origin>],
    endpoints: &[Placed<Endpoint>],
    findings: &Findings,
) {
    for origin in origins.iter().map(|origin| &origin.value) {
        let same: BTreeSet<&NodeName> = nodes
            .iter()
            .filter(|node| node.value.http == origin.address)
            .map(|node| &node.value.name)
            .collect();
        if same.is_empty() {
            continue;
        }
        for Placed { value: endpoint, place } in endpoints {
            let hit = endpoint.nodes.iter().find(|node| same.contains(node));
            if let Some(node) = hit.filter(|_| endpoint.origin == origin.name) {
                let message = format!(
                    "the origin {:?} is the node {node:?} itself ({}): it would be compared with \
                     itself",
                    origin.name, origin.address
                );
                findings.add(Finding::error(Kind::Relation, place.clone(), message));
            }
        }
    }
}

/// Notes each `admin_listen` that something else of this configuration listens on already.
pub(super) fn check_ports_are_free(daemon: &Daemon, nodes: &[Placed<Node>], findings: &Findings) {
    let mut taken: Vec<(SocketAddr, Option<&Placed<Node>>)> = vec![(daemon.listen, None)];
    for node in nodes {
        let Some(AdminPlace::Listen(address)) = node.value.admin.as_ref().map(|a| &a.place) else {
            continue;
        };
        let holder = taken.iter().find(|(other, _)| overlap(*other, *address));
        if let Some((_, holder)) = holder {
            let by = match holder {
                Some(other) => format!("the node {:?}", other.value.name),
                None => "the daemon's own `listen`".to_owned(),
            };
            let message = format!("the `admin_listen` of this node, {address}, is taken by {by}");
            let finding = Finding::error(Kind::Relation, node.place.clone(), message);
            findings.add(match holder {
                Some(other) => finding.related(other.place.clone(), "the other node"),
                None => finding,
            });
        }
        taken.push((*address, Some(node)));
    }
}

/// Whether two addresses cannot be listened on at once.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` takes in IPv4 as well, as Linux has it unless told otherwise (ipv6(7), bindv6only).
    let covers = |one: IpAddr, other: IpAddr| {
        one == other || (one.is_unspecified() && (one.is_ipv6() || other.is_ipv4()))
    };
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port() && (covers(a, b) || covers(b, a))
}

/// Warns of what is allowed but hardly meant. For a configuration without faults.
pub(super) fn warn(
    nodes: &[Placed<Node>],
    origins: &[Placed<Origin>],
    endpoints: &[Placed<Endpoint>],
    findings: &Findings,
) {
    warn_of_twins(nodes, "address", |node| Some(&node.http), findings);
    warn_of_twins(nodes, "admin port", |n| n.admin.as_ref().map(|a| &a.place), findings);
    warn_of_remedies(nodes, endpoints, findings);
    for Placed { value: origin, place } in origins {
        let (mut rate, mut used) = (0.0, false);
        for endpoint in endpoints.iter().filter(|e| e.value.origin == origin.name) {
            used = true;
            rate += endpoint.value.rate();
        }
        if !used {
            let message = format!("no endpoint uses the origin {:?}", origin.name);
            findings.add(Finding::warning(place.clone(), message));
        }
        if rate > origin.max_rate {
            let message = format!(
                "{rate:.2} requests a second are scheduled for the origin {:?}, more than its \
                 max_rate of {}: endpoints will be fetched late",
                origin.name, origin.max_rate
            );
            let finding = Finding::warning(place.clone(), message);
            findings.add(finding.help("raise `max_rate`, or the `interval` of its endpoints"));
        }
    }
}

/// Warns of nodes at which a stale endpoint cannot be banned, once for each.
fn warn_of_remedies(nodes: &[Placed<Node>], endpoints: &[Placed<Endpoint>], findings: &Findings) {
    for Placed { value: node, place } in nodes.iter().filter(|node| node.value.admin.is_none()) {
        let wants = |endpoint: &Endpoint| {
            endpoint.on_stale == OnStale::Ban && endpoint.nodes.contains(&node.name)
        };
        if let Some(endpoint) = endpoints.iter().map(|e| &e.value).find(|e| wants(e)) {
            let message = format!(
                "this node has no `admin`: `on_stale = \"ban\"` of {:?} cannot ban there",
                endpoint.name
            );
            findings.add(Finding::warning(place.clone(), message));
        }
    }
}

/// Warns of nodes that are one: copied, as a rule, and then not changed.
fn warn_of_twins<'n, K: Ord>(
    nodes: &'n [Placed<Node>],
    what: &str,
    key: impl Fn(&'n Node) -> Option<K>,
    findings: &Findings,
) {
    let mut seen: BTreeMap<K, &Placed<Node>> = BTreeMap::new();
    for node in nodes {
        let Some(key) = key(&node.value) else { continue };
        if let Some(first) = seen.get(&key) {
            let message = format!("this node has the same {what} as {:?}", first.value.name);
            let finding = Finding::warning(node.place.clone(), message);
            findings.add(finding.related(first.place.clone(), "the other node"));
        } else {
            seen.insert(key, node);
        }
    }
}
