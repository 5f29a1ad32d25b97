//! `[invalidations]`: events over HTTP.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::SecretSettings;
use super::diagnostic::{Finding, Kind};
use super::reader::Section;
use super::value;

const MAX_RATE: f64 = 50.0;
const MAX_RATE_RANGE: RangeInclusive<f64> = 0.01..=100_000.0;
const MAX_BODY: u64 = 256 << 10;
const MAX_BODY_RANGE: RangeInclusive<u64> = 1_024..=256 << 10;

/// Where events are taken over HTTP: on an address, on a Unix socket, or on both.
#[derive(Debug, Clone, PartialEq)]
pub struct Invalidations {
    /// The address to listen on, never that of the status page.
    pub listen: Option<SocketAddr>,
    /// The path of a Unix socket, never that of `[daemon]`.
    pub socket: Option<PathBuf>,
    /// Where the bearer tokens come from, one a line. There are some where `listen` is given; on
    /// the socket alone, its permissions may do.
    pub tokens: SecretSettings,
    /// The most requests a second: 0.01 to 100,000. Default: 50.
    pub max_rate: f64,
    /// The most bytes of a request's body: 1 KiB to 256 KiB. Default: 256 KiB.
    pub max_body: u64,
}

pub(super) fn read(mut section: Section<'_>) -> Option<Invalidations> {
    let listen = section.optional("listen", |value, findings| {
        let expected = "an IP address with a port";
        value::socket_address(value, findings, expected, "\"10.0.0.9:19132\" or \"[::]:19132\"")
    });
    let socket = section.optional("socket", value::absolute_path);
    let file = section.optional("token_file", value::absolute_path);
    let credential =
        section.optional("token_credential", |v, f| value::credential_or(v, f, "token_file"));
    let max_rate = section.optional("max_rate", value::number(MAX_RATE_RANGE));
    let max_body = section.optional("max_body", value::size(MAX_BODY_RANGE));
    let missing = |key: &str| section.place(key).is_none();
    if missing("listen") && missing("socket") {
        let message = "[invalidations] needs the key `listen` or `socket`";
        section.findings().add(Finding::error(Kind::Relation, section.span.clone(), message));
    }
    if !missing("listen") && missing("token_file") && missing("token_credential") {
        let message = "`listen` needs a `token_file`: whoever reaches the port could ban anything";
        let place = section.key_place("listen");
        let finding = Finding::error(Kind::Relation, place, message);
        section.findings().add(finding.help("or `token_credential`, or a `socket` alone"));
    }
    section.finish();
    Some(Invalidations {
        listen,
        socket,
        tokens: SecretSettings::of(file, credential),
        max_rate: max_rate.unwrap_or(MAX_RATE),
        max_body: max_body.unwrap_or(MAX_BODY),
    })
}
