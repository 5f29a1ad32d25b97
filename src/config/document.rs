//! The tables of a configuration, from what is written to what is meant.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::canary;
use super::diagnostic::{Finding, Kind};
use super::endpoint::{self, Defaults};
use super::invalidations;
use super::plausible::{self, Placed, Watched};
use super::pointer;
use super::reader::{Findings, Section, TOP, Value};
use super::redis;
use super::subscription;
use super::table::{Names, all, name, section, tables, tables_if_any};
use super::value;
use super::{
    AdminPlace, AdminSettings, Config, Daemon, Endpoint, Node, Origin, Pointer, SecretSettings,
    ServerAddress,
};
use crate::model::{HostPort, NodeName, OriginName, Scheme};

const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 19_131);
const STATE_DIR: &str = "/var/lib/purgewatch";
const REMEDY_MAX_RATE: usize = 6;
const REMEDY_MAX_RATE_RANGE: RangeInclusive<usize> = 1..=600;
const BAN_LIST_LIMIT: usize = 20_000;
const BAN_LIST_LIMIT_RANGE: RangeInclusive<usize> = 0..=10_000_000;
const CONNECTIONS: usize = 16;
const CONNECTIONS_RANGE: RangeInclusive<usize> = 1..=1_024;
const MAX_RATE: f64 = 20.0;
const MAX_RATE_RANGE: RangeInclusive<f64> = 0.01..=100_000.0;
const ADMIN_INTERVAL: Duration = Duration::from_secs(30);
const ADMIN_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
const ADMIN_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);

/// Reads a whole document. `None` when a part of it could not be read, which was noted; a
/// configuration that is returned beside noted errors must not be used.
pub(super) fn resolve<'t>(
    document: &'t Spanned<DeTable<'t>>,
    findings: &'t Findings,
) -> Option<Config> {
    let mut top = Section::new(TOP, document.span(), document.get_ref(), findings);
    let daemon = match top.optional("daemon", |v, f| section("[daemon]", v, f)) {
        Some(section) => daemon(section),
        None => Daemon {
            listen: LISTEN.into(),
            state_dir: STATE_DIR.into(),
            remedy_max_rate: REMEDY_MAX_RATE,
            socket: None,
            ban_list_limit: Some(BAN_LIST_LIMIT),
        },
    };
    let defaults = top.optional("defaults", |v, f| section("[defaults]", v, f));
    let defaults = defaults.map(Defaults::read).unwrap_or_default();
    let nodes = tables(&mut top, "node", "[[node]]", findings);
    let origins = tables(&mut top, "origin", "[[origin]]", findings);
    let endpoints = tables_if_any(&mut top, "endpoint", "[[endpoint]]");
    let pointers = tables_if_any(&mut top, "pointer", "[[pointer]]");
    check_something_is_watched(&top, findings);
    let subscriptions = tables_if_any(&mut top, "subscription", "[[subscription]]");
    redis::check_is_there(
        top.place("redis").is_some(),
        subscriptions.first().map(|section| section.span.clone()),
        findings,
    );
    let redis = top.optional("redis", |v, f| section("[redis]", v, f)).map(redis::read);
    let invalidations = top.optional("invalidations", |v, f| section("[invalidations]", v, f));
    let invalidations = invalidations.map(|section| {
        let place = section.place("listen").or(section.place("socket"));
        let place = place.unwrap_or_else(|| section.span.clone());
        invalidations::read(section).map(|value| Placed { value, place })
    });
    top.finish();

    let node_names = Names::of(&nodes, "node", findings);
    let origin_names = Names::of(&origins, "origin", findings);
    let endpoint_names = Names::of(&endpoints, "endpoint", findings);
    let pointer_names = Names::of(&pointers, "pointer", findings);
    pointer_names.check_apart_from(&endpoint_names, findings);

    let canaries = canary::places(&nodes);
    let nodes = all(nodes, "http", node);
    let origins = all(origins, "max_rate", origin);
    let mut reader = endpoint::Reader::new(&defaults, &node_names, &origin_names, findings);
    let endpoints = all(endpoints, "origin", |section| reader.read(section));
    let pointers = all(pointers, "origin", |section| pointer::read(&mut reader, section));
    let subscriptions = all(subscriptions, "stream", |section| {
        subscription::read(section, &endpoint_names, &pointer_names)
    });
    subscription::check_streams(&subscriptions.read, findings);
    subscription::check_names(&subscriptions.read, findings);
    let of_events = invalidations.as_ref().and_then(Option::as_ref);
    plausible::check_ports_are_free(&daemon, of_events, &nodes.read, findings);
    plausible::check_origins_are_no_nodes(
        &nodes.read,
        &origins.read,
        &watched(&endpoints.read, &pointers.read),
        findings,
    );
    if endpoints.complete && nodes.complete {
        canary::check_hosts(&nodes.read, &endpoints.read, &canaries, findings);
    }
    let watched = watched(&endpoints.read, &pointers.read);
    let complete = endpoints.complete && pointers.complete;
    if !watched.is_empty() && nodes.complete && origins.complete && complete {
        plausible::warn(&nodes.read, &origins.read, &watched, findings);
    }
    let (nodes, origins, endpoints) = (nodes.values()?, origins.values()?, endpoints.values()?);
    Some(Config {
        daemon,
        nodes,
        origins,
        endpoints,
        pointers: pointers.values()?,
        redis: optional(redis)?,
        subscriptions: subscriptions.values()?,
        invalidations: optional(invalidations)?.map(|placed| placed.value),
    })
}

/// Notes that there is neither an endpoint nor a pointer.
fn check_something_is_watched(top: &Section<'_>, findings: &Findings) {
    let message = "expected at least one [[endpoint]] or [[pointer]], got none";
    if let [None, None] = ["endpoint", "pointer"].map(|key| top.place(key)) {
        findings.add(Finding::missing(message));
    } else if ["endpoint", "pointer"].into_iter().all(|key| top.is_absent_or_empty(key)) {
        let place = top.place("endpoint").or_else(|| top.place("pointer"));
        findings.wrong(place.unwrap_or_default(), message);
    }
}

/// What was written has to have been read.
fn optional<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

/// Endpoints and pointers alike.
fn watched<'c>(
    endpoints: &'c [Placed<Endpoint>],
    pointers: &'c [Placed<Pointer>],
) -> Vec<Watched<'c>> {
    let endpoints = endpoints.iter().map(Watched::endpoint);
    endpoints.chain(pointers.iter().map(Watched::pointer)).collect()
}

fn daemon(mut section: Section<'_>) -> Daemon {
    let listen = section.optional("listen", |value, findings| {
        let expected = "an IP address with a port";
        value::socket_address(value, findings, expected, "\"127.0.0.1:19131\" or \"[::]:19131\"")
    });
    let state_dir = section.optional("state_dir", value::absolute_path);
    let rate = section.optional("remedy_max_rate", value::whole(REMEDY_MAX_RATE_RANGE));
    let socket = section.optional("socket", value::absolute_path);
    let limit = section.optional("ban_list_limit", value::whole(BAN_LIST_LIMIT_RANGE));
    section.finish();
    Daemon {
        listen: listen.unwrap_or_else(|| LISTEN.into()),
        state_dir: state_dir.unwrap_or_else(|| STATE_DIR.into()),
        remedy_max_rate: rate.unwrap_or(REMEDY_MAX_RATE),
        socket,
        ban_list_limit: Some(limit.unwrap_or(BAN_LIST_LIMIT)).filter(|limit| *limit > 0),
    }
}

fn node(mut section: Section<'_>) -> Option<Node> {
    let name = section.required("name", name(NodeName::new));
    let http = section.required("http", server);
    let (admin_place, had_admin) = (section.key_place("admin"), has_admin(&section));
    let address = section.optional("admin", value::parsed::<HostPort>);
    let workdir = section.optional("workdir", value::instance);
    let listen = section.optional("admin_listen", |value, findings| {
        let expected = "an IP address with the port that varnishd's -M has";
        value::socket_address(value, findings, expected, "\"10.0.0.1:6083\" or \"[::]:6083\"")
            .filter(|address| {
                let found = address.port() != 0;
                if !found {
                    findings.wrong(value.span(), format!("expected {expected}, got port 0"));
                }
                found
            })
    });
    let secret = secret(&mut section, had_admin);
    let interval = admin_key(&mut section, "admin_interval", had_admin, ADMIN_INTERVAL_RANGE);
    let timeout = admin_key(&mut section, "admin_timeout", had_admin, ADMIN_TIMEOUT_RANGE);
    let connections = section.optional("connections", value::whole(CONNECTIONS_RANGE));
    let ca_file = ca_file(&mut section, http.as_ref());
    let canary = canary::read(&mut section, had_admin);
    if let (Some(http), Some(address)) = (&http, &address)
        && http.address == *address
    {
        let message = "`admin` and `http` are the same address: the admin port is another one";
        section.findings().wrong(admin_place, message);
    }
    if listen.is_some() && matches!(secret, SecretSettings::None) {
        let place = section.key_place("admin_listen");
        let message = "this node has no secret: whoever dials in is taken for its varnishd";
        let finding = Finding::warning(place, message);
        section.findings().add(finding.help("give it a `secret_file` or `secret_credential`"));
    }
    section.finish();
    let place = address.map(AdminPlace::Address).or(workdir.map(AdminPlace::Workdir));
    let place = place.or(listen.map(AdminPlace::Listen));
    let admin = place.map(|place| AdminSettings {
        place,
        secret,
        interval: interval.unwrap_or(ADMIN_INTERVAL),
        timeout: timeout.unwrap_or(ADMIN_TIMEOUT),
    });
    let connections = connections.unwrap_or(CONNECTIONS);
    Some(Node { name: name?, http: http?, ca_file, admin, connections, canary })
}

/// Whether the node has an admin port, right or wrong; notes it when it is given twice.
fn has_admin(section: &Section<'_>) -> bool {
    let given = |key: &&str| section.place(key).is_some();
    let mut keys = ["admin", "workdir", "admin_listen"].into_iter().filter(given);
    let first = keys.next();
    if let Some(first) = first {
        for other in keys {
            let message = format!("a node has one admin port: `{first}` or `{other}`, not both");
            let finding = Finding::error(Kind::Relation, section.key_place(other), message);
            let place = section.key_place(first);
            section.findings().add(finding.related(place, "the other one"));
        }
    }
    first.is_some()
}

fn secret(section: &mut Section<'_>, had_admin: bool) -> SecretSettings {
    let file = section.optional("secret_file", value::absolute_path);
    let credential = section.optional("secret_credential", value::credential);
    let places = (section.place("secret_file"), section.place("secret_credential"));
    if !had_admin {
        for (key, place) in [("secret_file", places.0), ("secret_credential", places.1)] {
            if place.is_some() {
                let message = format!("`{key}` is for an admin port, and this node has no `admin`");
                let place = section.key_place(key);
                section.findings().add(Finding::error(Kind::Relation, place, message));
            }
        }
    }
    SecretSettings::of(file, credential)
}

fn admin_key(
    section: &mut Section<'_>,
    key: &'static str,
    had_admin: bool,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    if section.place(key).is_some() && !had_admin {
        let message = format!("`{key}` is for an admin port, and this node has no `admin`");
        section.findings().add(Finding::error(Kind::Relation, section.key_place(key), message));
    }
    section.optional(key, value::duration(range))
}

fn origin(mut section: Section<'_>) -> Option<Origin> {
    let name = section.required("name", name(OriginName::new));
    let address = section.required("address", server);
    let max_rate = section.optional("max_rate", value::number(MAX_RATE_RANGE)).unwrap_or(MAX_RATE);
    let connections = section.optional("connections", value::whole(CONNECTIONS_RANGE));
    let ca_file = ca_file(&mut section, address.as_ref());
    section.finish();
    let connections = connections.unwrap_or(CONNECTIONS);
    Some(Origin { name: name?, address: address?, ca_file, max_rate, connections })
}

fn server(value: &Value<'_>, findings: &Findings) -> Option<ServerAddress> {
    let text = value::text(value, findings)?;
    if !text.contains("://") && HostPort::from_str(text).is_ok() {
        let message = format!("expected an address with its scheme, got {text:?}");
        let finding = Finding::error(Kind::Value, value.span(), message);
        findings.add(finding.help(format!("write \"http://{text}\"")));
        return None;
    }
    value::parsed(value, findings)
}

fn ca_file(section: &mut Section<'_>, address: Option<&ServerAddress>) -> Option<PathBuf> {
    let path = section.optional("ca_file", value::absolute_path)?;
    if address.is_some_and(|address| address.scheme == Scheme::Http) {
        let place = section.key_place("ca_file");
        let message =
            "`ca_file` is for https, and this address is http: no certificate is asked for";
        section.findings().add(Finding::warning(place, message));
    }
    Some(path)
}
