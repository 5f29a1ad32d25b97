//! The tables of a configuration, from what is written to what is meant.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Finding, Kind};
use super::endpoint::{self, Defaults};
use super::plausible::{self, Placed};
use super::reader::{Findings, Section, TOP, Value, nearest};
use super::value;
use super::{AdminSettings, Config, Daemon, Node, Origin, SecretSettings, ServerAddress};
use crate::model::{HostPort, NameError, NodeName, OriginName, Scheme};

const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 19_131);
const STATE_DIR: &str = "/var/lib/purgewatch";
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
        None => Daemon { listen: LISTEN.into(), state_dir: STATE_DIR.into() },
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

    let nodes = all(nodes, "http", node);
    let origins = all(origins, "max_rate", origin);
    let mut reader = endpoint::Reader::new(&defaults, &node_names, &origin_names, findings);
    let endpoints = all(endpoints, "origin", |section| reader.read(section));
    plausible::check_origins_are_no_nodes(&nodes.read, &origins.read, &endpoints.read, findings);
    let any = !endpoints.read.is_empty();
    if any && nodes.complete && origins.complete && endpoints.complete {
        plausible::warn(&nodes.read, &origins.read, &endpoints.read, findings);
    }
    let (nodes, origins, endpoints) = (nodes.values()?, origins.values()?, endpoints.values()?);
    Some(Config { daemon, nodes, origins, endpoints })
}

/// The names of one kind of table, as they are written: a table with another fault is still one
/// that others may point at.
pub(super) struct Names<'t> {
    kind: &'static str,
    places: BTreeMap<&'t str, Range<usize>>,
    /// In the order of the file.
    order: Vec<&'t str>,
}

impl<'t> Names<'t> {
    fn of(sections: &[Section<'t>], kind: &'static str, findings: &Findings) -> Self {
        let mut names = Self { kind, places: BTreeMap::new(), order: Vec::new() };
        for section in sections {
            let Some((name, place)) = section.name() else { continue };
            if let Some(first) = names.places.get(name) {
                let message = format!("the name {name:?} is taken by another {kind}");
                let finding = Finding::error(Kind::Value, place, message);
                findings.add(finding.related(first.clone(), "first given here"));
            } else {
                names.places.insert(name, place);
                names.order.push(name);
            }
        }
        names
    }

    /// All of them, in the order of the file.
    pub(super) fn all(&self) -> &[&'t str] {
        &self.order
    }

    /// Reads a name that has to be one of these.
    pub(super) fn reference(&self, value: &'t Value<'t>, findings: &Findings) -> Option<&'t str> {
        let text = value::text(value, findings)?;
        if self.places.contains_key(text) {
            return Some(text);
        }
        if self.order.is_empty() {
            // That there is none at all was noted, and is what has to be mended.
            return None;
        }
        let message = format!("there is no {} named {text:?}", self.kind);
        let finding = Finding::error(Kind::Relation, value.span(), message);
        findings.add(match nearest(text, self.order.iter().copied()) {
            Some(near) => finding.help(format!("did you mean {near:?}?")),
            None => finding.help(format!("name one of the [[{}]] tables", self.kind)),
        });
        None
    }
}

/// Opens a value as a table to be read key by key.
pub(super) fn section<'t>(
    what: &'static str,
    value: &'t Value<'t>,
    findings: &'t Findings,
) -> Option<Section<'t>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(Section::new(what, value.span(), table, findings)),
        DeValue::Array(array) if array.iter().all(|item| item.get_ref().is_table()) => {
            let message = format!("{what} stands in a file once, with single brackets");
            findings.wrong(value.span(), message);
            None
        }
        _ => {
            value::mistyped(value, findings, "a table");
            None
        }
    }
}

/// Opens each of the `[[KEY]]` tables, of which there must be one.
fn tables<'t>(
    top: &mut Section<'t>,
    key: &'static str,
    what: &'static str,
    findings: &'t Findings,
) -> Vec<Section<'t>> {
    let missing = || format!("expected at least one {what}, got none");
    let mut absent = true;
    let sections = top.optional(key, |value, findings| {
        absent = false;
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                findings.wrong(value.span(), missing());
                None
            }
            DeValue::Array(_) => value::list(value, findings, |v, f| section(what, v, f)),
            DeValue::Table(_) => {
                let message = format!("expected {what} with double brackets, got [{key}]");
                findings.wrong(value.span(), message);
                None
            }
            _ => {
                value::mistyped(value, findings, what);
                None
            }
        }
    });
    if absent {
        findings.add(Finding::missing(missing()));
    }
    sections.unwrap_or_default()
}

/// What was read of the tables of one kind.
struct All<T> {
    read: Vec<Placed<T>>,
    /// Whether that is all of them.
    complete: bool,
}

impl<T> All<T> {
    fn values(self) -> Option<Vec<T>> {
        self.complete.then(|| self.read.into_iter().map(|placed| placed.value).collect())
    }
}

/// Reads every table, also after one that is faulty. Findings about the whole of one point at the
/// value of `key`.
fn all<'t, T>(
    sections: Vec<Section<'t>>,
    key: &str,
    mut read: impl FnMut(Section<'t>) -> Option<T>,
) -> All<T> {
    let mut all = All { read: Vec::with_capacity(sections.len()), complete: true };
    for section in sections {
        let place = section.place(key).unwrap_or_else(|| section.span.clone());
        match read(section) {
            Some(value) => all.read.push(Placed { value, place }),
            None => all.complete = false,
        }
    }
    all
}

fn daemon(mut section: Section<'_>) -> Daemon {
    let listen = section.optional("listen", |value, findings| {
        let text = value::text(value, findings)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let message = format!("expected an IP address with a port, got {text:?}");
            let finding = Finding::error(Kind::Value, value.span(), message);
            findings.add(finding.help("for example \"127.0.0.1:19131\" or \"[::]:19131\""));
        }
        parsed
    });
    let state_dir = section.optional("state_dir", value::absolute_path);
    section.finish();
    Daemon {
        listen: listen.unwrap_or_else(|| LISTEN.into()),
        state_dir: state_dir.unwrap_or_else(|| STATE_DIR.into()),
    }
}

fn node(mut section: Section<'_>) -> Option<Node> {
    let name = section.required("name", name(NodeName::new));
    let http = section.required("http", server);
    let (admin_place, had_admin) = (section.key_place("admin"), section.place("admin").is_some());
    let address = section.optional("admin", value::parsed::<HostPort>);
    let secret = secret(&mut section, had_admin);
    let interval = admin_key(&mut section, "admin_interval", had_admin, ADMIN_INTERVAL_RANGE);
    let timeout = admin_key(&mut section, "admin_timeout", had_admin, ADMIN_TIMEOUT_RANGE);
    let connections = section.optional("connections", value::whole(CONNECTIONS_RANGE));
    let ca_file = ca_file(&mut section, http.as_ref());
    section.not_yet("workdir", "give the admin port as `admin` and its secret as `secret_file`");
    section.not_yet("canary", "canaries come with a later version; leave the key out");
    section.not_yet("admin_listen", "reverse connections come with a later version; use `admin`");
    if let (Some(http), Some(address)) = (&http, &address)
        && http.address == *address
    {
        let message = "`admin` and `http` are the same address: the admin port is another one";
        section.findings().wrong(admin_place, message);
    }
    section.finish();
    let admin = address.map(|address| AdminSettings {
        address,
        secret,
        interval: interval.unwrap_or(ADMIN_INTERVAL),
        timeout: timeout.unwrap_or(ADMIN_TIMEOUT),
    });
    let connections = connections.unwrap_or(CONNECTIONS);
    Some(Node { name: name?, http: http?, ca_file, admin, connections })
}

fn secret(section: &mut Section<'_>, had_admin: bool) -> SecretSettings {
    let file = section.optional("secret_file", value::absolute_path);
    let credential = section.optional("secret_credential", value::credential);
    let places = (section.place("secret_file"), section.place("secret_credential"));
    if let (Some(_), Some(_)) = places {
        let message = "the secret is given twice, as `secret_file` and as `secret_credential`";
        section.findings().wrong(section.key_place("secret_credential"), message);
    }
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
        (Some(path), _) => SecretSettings::File(path),
        (None, Some(name)) => SecretSettings::Credential(name),
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

/// Reads the name of a table's own.
pub(super) fn name<T>(
    new: impl FnOnce(&str) -> Result<T, NameError>,
) -> impl FnOnce(&Value<'_>, &Findings) -> Option<T> {
    move |value, findings| value::named(value, findings, new)
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
