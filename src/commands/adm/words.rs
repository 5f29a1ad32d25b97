//! What is said on stderr when there is no answer: varnishadm's words, then what to do.

use std::io;

use super::input::Sent;
use crate::admin::{AdminError, Kind, WorkdirError};
use crate::commands::output::{complain, complain_verbatim};
use crate::net::DialErrorKind;
use crate::protocol::{Excerpt, Status};

/// As much of a peer's text is shown, in characters.
const SHOWN: usize = 400;

/// Says why there is no answer. The first line is the one that varnishadm prints, which scripts
/// look for; what it leaves open follows.
pub(super) fn no_answer(error: &AdminError) {
    if let Some(line) = of_varnishadm(error) {
        complain_verbatim(format_args!("{line}\n"));
    }
    complain(error);
}

fn of_varnishadm(error: &AdminError) -> Option<String> {
    match &error.kind {
        Kind::Dial(dial) => {
            let reason = match dial.kind {
                DialErrorKind::Resolve => dial.lookup.clone(),
                _ => dial.tried.last().map(|attempt| attempt.reason.clone()),
            };
            let reason = reason.unwrap_or_else(|| "Connection timed out".to_owned());
            Some(format!("Connection failed ({}): {}", dial.address, in_short(&reason)))
        }
        Kind::SecretRequired => Some("Authentication required".to_owned()),
        Kind::SecretUnreadable { path, reason } => {
            let path = path.display().to_string();
            Some(format!("Cannot open {path:?}: {}", in_short(reason)))
        }
        Kind::SecretRefused { status, body, .. } => {
            Some(format!("Rejected {status}\n{}", Excerpt::new(body, SHOWN).lines()))
        }
        Kind::Frame(_) | Kind::Greeting { .. } | Kind::Silent { .. } => {
            Some("Rejected 400\nCLI communication error (hdr)".to_owned())
        }
        _ => None,
    }
}

/// The reason without the error number that Rust puts behind it.
fn in_short(reason: &str) -> &str {
    reason.split_once(" (os error ").map_or(reason, |(words, _)| words)
}

/// Says that a work directory leads to no varnishd.
pub(super) fn not_found(fault: &WorkdirError) {
    complain_verbatim("Could not get hold of varnishd, is it running?\n");
    complain(fault);
}

/// The line that varnishadm prints when a command was refused, with the command where there are
/// several.
pub(super) fn failed(status: Status, sent: Option<&Sent>) {
    let place = sent.map(|sent| format!(" ({sent})")).unwrap_or_default();
    complain_verbatim(format_args!("Command failed with error code {status}{place}\n"));
}

/// Says that standard input cannot be read.
pub(super) fn unreadable(fault: &io::Error) {
    complain(format_args!("standard input cannot be read: {fault}"));
}
