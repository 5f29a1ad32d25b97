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
use super::plausible;
use super::reader::{Findings, Section, TOP, Value};
use super::table::{Names, all, name, section, tables};
use super::value;
use super::{
    AdminPlace, AdminSettings, Config, Daemon, Node, Origin, SecretSettings, ServerAddress,
};
use crate::model::{HostPort, NodeName, OriginName, Scheme};

const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 19_131);
const STATE_DIR: &str = "/var/lib/purgewatch";
const REMEDY_MAX_RATE: usize = 6;
const REMEDY_MAX_RATE_RANGE: RangeInclusive<usize> = 1..=600;
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
        },
    };
    let defaults = top.optional("defaults", |v, f| section("[defaults]", v, f));
    let defaults = defaults.map(Defaults::read).unwrap_or_default();
    let nodes = tables(&mut top, "node", "[[node]]", findings);
    let origins = tables(&mut top, "origin", "[[origin]]", findings);
    let endpoints = tables(&mut top, "endpoint", "[[endpoint]]", findings);
    top.not_yet("redis", "invalidation events come with a later version; leave the table out");
    top.not_yet("subscription", "invalidation events come with a later version; leave it out");
    top.not_yet("pointer", "URL versions come with a later version; leave the table out");
    top.finish();

    let node_names = Names::of(&nodes, "node", findings);
    let origin_names = Names::of(&origins, "origin", findings);
    Names::of(&endpoints, "endpoint", findings);

    let canaries = canary::places(&nodes);
    let nodes = all(nodes, "http", node);
    let origins = all(origins, "max_rate", origin);
    let mut reader = endpoint::Reader::new(&defaults, &node_names, &origin_names, findings);
    let endpoints = all(endpoints, "origin", |section| reader.read(section));
    plausible::check_ports_are_free(&daemon, &nodes.read, findings);
    plausible::check_origins_are_no_nodes(&nodes.read, &origins.read, &endpoints.read, findings);
    if endpoints.complete && nodes.complete {
        canary::check_hosts(&nodes.read, &endpoints.read, &canaries, findings);
    }
    let any = !endpoints.read.is_empty();
    if any && nodes.complete && origins.complete && endpoints.complete {
        plausible::warn(&nodes.read, &origins.read, &endpoints.read, findings);
    }
    let (nodes, origins, endpoints) = (nodes.values()?, origins.values()?, endpoints.values()?);
    Some(Config { daemon, nodes, origins, endpoints })
}

fn daemon(mut section: Section<'_>) -> Daemon {
    let listen = section.optional("listen", |value, findings| {
        let expected = "an IP address with a port";
        value::socket_address(value, findings, expected, "\"127.0.0.1:19131\" or \"[::]:19131\"")
    });
    let state_dir = section.optional("state_dir", value::absolute_path);
    let rate = section.optional("remedy_max_rate", value::whole(REMEDY_MAX_RATE_RANGE));
    let socket = section.optional("socket", value::absolute_path);
    section.finish();
    Daemon {
        listen: listen.unwrap_or_else(|| LISTEN.into()),
        state_dir: state_dir.unwrap_or_else(|| STATE_DIR.into()),
        remedy_max_rate: rate.unwrap_or(REMEDY_MAX_RATE),
        socket,
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
    match (file, credential) {
        (file, Some(name)) => SecretSettings::Credential { name, file },
        (Some(path), None) => SecretSettings::File(path),
        (None, None) => SecretSettings::None,
    }
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
