//! Tells the daemon of this host which nodes took a ban and which did not, so that it delivers the
//! rest.
//!
//! With plain blocking calls: where no daemon runs, all it costs is one `connect`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::config_file::counted;
use super::super::output::{Untrusted, complain};
use super::super::target::Chosen;
use super::send::{NodeReport, State};
use super::source::{Ban, Bans};
use crate::admin;
use crate::ban;
use crate::clock::Clock;
use crate::expose::{BanResult, MOST_BANS};
use crate::protocol::Command;

/// Where the unit has the daemon listen.
const USUAL_SOCKET: &str = "/run/purgewatch/purgewatch.sock";

/// How long all of it may take: a ban is not held up for the sake of the daemon.
const LIMIT: Duration = Duration::from_secs(2);

/// The most bytes of one request's body, some way below what the daemon takes.
const BODY: usize = 768 * 1024;

/// So many bans that every node took are told, for whoever looks for a cause later. Of more, only
/// those are told that a node missed.
const TAKEN: usize = 1_000;

/// The longest answer that is read.
const ANSWER: u64 = 64 * 1024;

/// Tells the daemon, if one listens. What goes wrong is said, and changes nothing.
pub(super) fn tell_daemon(bans: &Bans, chosen: &Chosen, reports: &[NodeReport]) {
    let configured = chosen.config.as_ref().and_then(|config| config.daemon.socket.as_deref());
    let path = configured.unwrap_or(Path::new(USUAL_SOCKET));
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            let state = chosen.config.as_ref().map(|config| &config.daemon.state_dir);
            if configured.is_some() || state.is_some_and(|directory| directory.is_dir()) {
                nobody_delivers(path, reports);
            }
            return;
        }
        Err(fault) => return warn(path, &Fault::NotTold(fault.to_string()), missed(bans, reports)),
    };
    let missed = missed(bans, reports);
    match tell(path, stream, bans, reports) {
        Ok(unknown) => say_who_delivers(reports, &unknown),
        Err(fault) => warn(path, &fault, missed),
    }
}

/// Why the daemon will not do its part.
enum Fault {
    /// It has heard nothing, or not all.
    NotTold(String),
    /// It knows of the bans, and could not write them to its disk.
    NotStored,
}

/// Nodes that are to get what they missed: neither did they take it, nor would they never.
fn behind(reports: &[NodeReport]) -> impl Iterator<Item = &str> {
    let waits = |state: &State| match result(state) {
        BanResult::Accepted | BanResult::Rejected => false,
        BanResult::Unconfirmed
        | BanResult::Unauthenticated
        | BanResult::CacheStopped
        | BanResult::Unreachable => true,
    };
    let behind = move |report: &&NodeReport| report.states.iter().any(waits);
    reports.iter().filter(behind).map(|report| report.node.as_str())
}

/// Whoever reads that a node failed should know whether the ban is lost.
fn say_who_delivers(reports: &[NodeReport], unknown: &BTreeSet<String>) {
    let (unwatched, kept): (Vec<_>, Vec<_>) =
        behind(reports).partition(|node| unknown.contains(*node));
    if !kept.is_empty() {
        complain(format_args!(
            "the daemon keeps what {} missed, and delivers it when it can; `purgewatch status` \
             shows what waits",
            few(&kept)
        ));
    }
    for node in unwatched {
        complain(format_args!(
            "warning: the daemon does not watch {node}, and will not deliver there what it missed"
        ));
    }
}

/// Where a daemon belongs, somebody may count on it. On a host that only sends bans, nobody does.
fn nobody_delivers(path: &Path, reports: &[NodeReport]) {
    let behind: Vec<_> = behind(reports).collect();
    if !behind.is_empty() {
        let path = path.display().to_string();
        complain(format_args!(
            "no daemon listens at {}, so nobody delivers what {} missed: send it again",
            Untrusted(&path),
            few(&behind)
        ));
    }
}

/// Some names; of many, how many more there are.
fn few(nodes: &[&str]) -> String {
    let named = nodes.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(5) {
        0 => named,
        more => format!("{named} and {}", counted(more, "more node")),
    }
}

/// How many bans some node has certainly or perhaps not taken.
fn missed(bans: &Bans, reports: &[NodeReport]) -> usize {
    (0..bans.bans.len()).filter(|&at| !is_taken_by_all(at, reports)).count()
}

fn is_taken_by_all(at: usize, reports: &[NodeReport]) -> bool {
    reports.iter().all(|report| matches!(report.states.get(at), Some(State::Taken)))
}

/// Where every node took the ban, only somebody who looks on wants to know that the daemon has
/// not heard of it.
fn warn(path: &Path, fault: &Fault, missed: usize) {
    let path = path.display().to_string();
    let fault = match fault {
        Fault::NotTold(fault) => fault,
        Fault::NotStored if missed == 0 => return,
        Fault::NotStored => {
            return complain(format_args!(
                "warning: the daemon ({}) delivers {} to the nodes that missed it, but could not \
                 store it: a restart before that forgets it",
                Untrusted(&path),
                counted(missed, "ban")
            ));
        }
    };
    if missed == 0 && (!io::stderr().is_terminal() || fault.starts_with("422")) {
        return;
    }
    let consequence = match missed {
        0 => "it does not know of this ban".to_owned(),
        missed => {
            format!("it will not deliver {} to the nodes that missed it", counted(missed, "ban"))
        }
    };
    complain(format_args!(
        "warning: the daemon cannot be told ({}: {}): {consequence}",
        Untrusted(&path),
        Untrusted(fault)
    ));
}

fn tell(
    path: &Path,
    stream: UnixStream,
    bans: &Bans,
    reports: &[NodeReport],
) -> Result<BTreeSet<String>, Fault> {
    let (clock, mut stream) = (Clock::start(), Some(stream));
    let begin = clock.instant();
    let few = bans.bans.len() <= TAKEN;
    let told = bans.bans.iter().enumerate().filter(|(at, _)| few || !is_taken_by_all(*at, reports));
    let mut unsayable = 0;
    let mut items = Vec::new();
    for (at, ban) in told {
        if is_sayable(ban) {
            items.push(item(at, ban, reports));
        } else {
            unsayable += 1;
        }
    }
    let mut rest = items.as_slice();
    let mut unknown = BTreeSet::new();
    while !rest.is_empty() {
        let mut body = String::from("{\"source\":\"command\",\"bans\":[");
        let mut count = 0;
        for item in rest.iter().take(MOST_BANS) {
            if count > 0 && body.len() + item.len() > BODY {
                break;
            }
            body.push_str(if count > 0 { "," } else { "" });
            body.push_str(item);
            count += 1;
        }
        body.push_str("]}");
        rest = rest.get(count..).unwrap_or_default();
        let connected = match stream.take() {
            Some(stream) => Ok(stream),
            None => UnixStream::connect(path),
        };
        let answer = connected.and_then(|stream| post(stream, &body, begin, &clock));
        let answer = answer.map_err(|fault| Fault::NotTold(fault.to_string()))?;
        unknown.extend(judge(&answer)?);
    }
    match unsayable {
        0 => Ok(unknown),
        count => {
            Err(Fault::NotTold(format!("{} cannot be written as text", counted(count, "ban"))))
        }
    }
}

/// Sends one request and reads the whole answer, within what is left of the limit.
fn post(mut stream: UnixStream, body: &str, begin: Instant, clock: &Clock) -> io::Result<String> {
    let left = || {
        let left = LIMIT.saturating_sub(clock.instant().saturating_duration_since(begin));
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    stream.set_write_timeout(Some(left()?))?;
    let head = format!(
        "POST /api/v1/bans HTTP/1.1\r\nHost: purgewatch\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    for part in body.as_bytes().chunks(64 * 1024) {
        stream.set_write_timeout(Some(left()?))?;
        stream.write_all(part)?;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => answer.extend_from_slice(buffer.get(..size).unwrap_or_default()),
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            // The time-out of a socket (socket(7), SO_RCVTIMEO).
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(fault) => return Err(fault),
        }
        if answer.len() as u64 > ANSWER {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What an answer says: only 202 says that the daemon has it for good. Returns the nodes that it
/// does not know.
fn judge(answer: &str) -> Result<Vec<String>, Fault> {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    match status {
        Some("202") => {
            let accepted = serde_json::from_str::<Accepted>(text);
            let unknown = accepted.map(|accepted| accepted.unknown_nodes);
            unknown.map_err(|fault| Fault::NotTold(fault.to_string()))
        }
        Some("507") => Err(Fault::NotStored),
        Some(status) => {
            let text = text.chars().take(300).collect::<String>();
            Err(Fault::NotTold(format!("{status}, {text}")))
        }
        None => Err(Fault::NotTold("what listens there is no purgewatch".to_owned())),
    }
}

/// Whether the text of a ban, which is made safe for terminals, is the ban byte for byte.
fn is_sayable(ban: &Ban) -> bool {
    let read = ban::parse(ban.text.as_bytes()).ok();
    let command = read.and_then(|expression| Command::ban(expression.arguments()).ok());
    command.is_some() && command == ban.command
}

#[derive(Deserialize)]
struct Accepted {
    unknown_nodes: Vec<String>,
}

#[derive(Serialize)]
struct BanItem<'a> {
    expression: &'a str,
    nodes: Vec<NodeItem<'a>>,
}

#[derive(Serialize)]
struct NodeItem<'a> {
    node: &'a str,
    address: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

fn item(at: usize, ban: &Ban, reports: &[NodeReport]) -> String {
    let node = |report: &'_ NodeReport| {
        let state = report.states.get(at)?;
        Some((result(state), state.failure().map(|failure| failure.reason())))
    };
    let nodes = reports.iter().filter_map(|report| {
        let (result, reason) = node(report)?;
        let (node, address) = (report.node.as_str(), report.place.as_str());
        Some(NodeItem { node, address, result: result.label(), reason })
    });
    let item = BanItem { expression: &ban.text, nodes: nodes.collect() };
    // Strings only: there is nothing that could fail.
    serde_json::to_string(&item).unwrap_or_default()
}

fn result(state: &State) -> BanResult {
    let Some(failure) = state.failure() else { return BanResult::Accepted };
    if !state.is_certain() {
        return BanResult::Unconfirmed;
    }
    match failure.error().map(admin::AdminError::fault) {
        Some(admin::Fault::Rejected { .. }) => BanResult::Rejected,
        Some(admin::Fault::Secret) => BanResult::Unauthenticated,
        Some(admin::Fault::ChildNotRunning) => BanResult::CacheStopped,
        Some(admin::Fault::Unreachable | admin::Fault::Unreliable) | None => {
            match failure.is_refusal() {
                // Not sent, and never will be.
                true => BanResult::Rejected,
                false => BanResult::Unreachable,
            }
        }
    }
}
