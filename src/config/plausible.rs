//! What no single table shows: settings that are well-formed each and do not go together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::diagnostic::{Finding, Kind};
use super::reader::Findings;
use super::{AdminPlace, Daemon, Endpoint, Invalidations, Node, OnStale, Origin, Pointer};
use crate::model::{EndpointName, NodeName, OriginName};

/// A value with the place that findings about it point at.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Range<usize>,
}

/// An endpoint or a pointer, as far as what follows looks at it.
#[derive(Debug)]
pub(super) struct Watched<'c> {
    name: &'c EndpointName,
    origin: &'c OriginName,
    nodes: &'c [NodeName],
    on_stale: OnStale,
    rate: f64,
    place: Range<usize>,
}

impl<'c> Watched<'c> {
    pub(super) fn endpoint(Placed { value, place }: &'c Placed<Endpoint>) -> Self {
        Self {
            name: &value.name,
            origin: &value.origin,
            nodes: &value.nodes,
            on_stale: value.on_stale,
            rate: value.rate(),
            place: place.clone(),
        }
    }

    pub(super) fn pointer(Placed { value, place }: &'c Placed<Pointer>) -> Self {
        Self {
            name: &value.name,
            origin: &value.origin,
            nodes: &value.nodes,
            on_stale: value.on_stale,
            rate: value.rate(),
            place: place.clone(),
        }
    }
}

/// Notes each endpoint whose origin is one of its nodes: a cache is always as fresh as itself.
pub(super) fn check_origins_are_no_nodes(
    nodes: &[Placed<Node>],
    origins: &[Placed<Origin>],
    watched: &[Watched<'_>],
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
        for Watched { nodes, origin: own, place, .. } in watched {
            let hit = nodes.iter().find(|node| same.contains(node));
            if let Some(node) = hit.filter(|_| **own == origin.name) {
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

/// Notes each address and socket that something else of this configuration listens on already.
pub(super) fn check_ports_are_free(
    daemon: &Daemon,
    invalidations: Option<&Placed<Invalidations>>,
    nodes: &[Placed<Node>],
    findings: &Findings,
) {
    if let Some(Placed { value, place }) = invalidations {
        if value.listen.is_some_and(|listen| overlap(listen, daemon.listen)) {
            let message = "the `listen` of [invalidations] is taken by that of [daemon]";
            let finding = Finding::error(Kind::Relation, place.clone(), message);
            findings.add(finding.help("who may invalidate is not who may look: use another port"));
        }
        if value.socket.is_some() && value.socket == daemon.socket {
            let message = "the `socket` of [invalidations] is taken by that of [daemon]";
            findings.add(Finding::error(Kind::Relation, place.clone(), message));
        }
    }
    let of_events = invalidations.and_then(|placed| placed.value.listen);
    let mut taken: Vec<(SocketAddr, Option<&Placed<Node>>)> = vec![(daemon.listen, None)];
    for node in nodes {
        let Some(AdminPlace::Listen(address)) = node.value.admin.as_ref().map(|a| &a.place) else {
            continue;
        };
        if of_events.is_some_and(|other| overlap(other, *address)) {
            let message = format!(
                "the `admin_listen` of this node, {address}, is taken by the `listen` of \
                 [invalidations]"
            );
            findings.add(Finding::error(Kind::Relation, node.place.clone(), message));
        }
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
    watched: &[Watched<'_>],
    findings: &Findings,
) {
    warn_of_twins(nodes, "address", |node| Some(&node.http), findings);
    warn_of_twins(nodes, "admin port", |n| n.admin.as_ref().map(|a| &a.place), findings);
    warn_of_remedies(nodes, watched, findings);
    for Placed { value: origin, place } in origins {
        let (mut rate, mut used) = (0.0, false);
        for watched in watched.iter().filter(|watched| *watched.origin == origin.name) {
            used = true;
            rate += watched.rate;
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
fn warn_of_remedies(nodes: &[Placed<Node>], watched: &[Watched<'_>], findings: &Findings) {
    for Placed { value: node, place } in nodes.iter().filter(|node| node.value.admin.is_none()) {
        let wants = |watched: &&Watched<'_>| {
            watched.on_stale == OnStale::Ban && watched.nodes.contains(&node.name)
        };
        if let Some(endpoint) = watched.iter().find(wants) {
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
