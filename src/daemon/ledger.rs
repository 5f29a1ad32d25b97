//! What the ledger asks of the nodes, and what it is told from outside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use futures_util::stream;
use tokio::net::UnixListener;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::journal::chain;
use super::{AdminPeer, Peers};
use crate::admin::{AdminError, Client, Fault, Outcome};
use crate::ban;
use crate::engine::{
    BanResult, BanText, Entry, Inspection, Issue, Ledger, Miss, Needless, News, Process,
};
use crate::expose::{
    self, BanQuery, IssueError, LedgerState, Limits, Metrics, Submission, SubmittedBan, Surface,
};
use crate::model::{NodeName, Untrusted};
use crate::protocol::Command;
use crate::protocol::answer::{Pids, Storages};

/// After so long, the rest of a delivery is left to the next one.
const DELIVERY: Duration = Duration::from_secs(30);

/// So many nodes that are not known here are named.
const UNKNOWN: usize = 100;

/// So many bytes of the ledger are shown at most.
const SHOWN: usize = 4 * 1024 * 1024;

/// The storages that keep nothing over the end of the cache process (varnishd(1), storage
/// backends). Of others, which may be third parties', that is not known.
const IN_MEMORY: [&str; 4] = ["malloc", "file", "umem", "default"];

/// The socket's name in the directory that systemd made for the service (systemd.exec(5),
/// `RuntimeDirectory=`).
const SOCKET: &str = "purgewatch.sock";
const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

/// Where the socket is to be: as configured, else where systemd made a directory for it.
pub(super) fn socket_path(configured: Option<&Path>) -> Option<PathBuf> {
    let made = || {
        let directories = std::env::var_os(RUNTIME_DIRECTORY)?;
        // Several are separated by colons.
        let first = std::env::split_paths(&directories).next()?;
        first.is_absolute().then(|| first.join(SOCKET))
    };
    configured.map(Path::to_owned).or_else(made)
}

/// Opens the socket. Where that cannot be done the daemon watches all the same, and says so.
pub(super) async fn open_socket(path: PathBuf) -> Option<Socket> {
    match expose::bind_socket(&path).await {
        Ok(listener) => Some(Socket { path, listener }),
        Err(fault) => {
            error!("bans cannot be handed in: {}", chain(&fault));
            None
        }
    }
}

impl Socket {
    /// For another runtime.
    pub(super) fn detach(self) -> io::Result<(PathBuf, std::os::unix::net::UnixListener)> {
        Ok((self.path, self.listener.into_std()?))
    }
}

/// Serves the socket, if there is one, and removes it in the end.
pub(super) async fn serve(
    socket: Option<(PathBuf, std::os::unix::net::UnixListener)>,
    surface: &Arc<Surface>,
    shutdown: impl Future<Output = ()>,
) {
    let Some((path, listener)) = socket else { return };
    match UnixListener::from_std(listener) {
        Ok(listener) => {
            let limits = Limits { connections: 16, ..Limits::default() };
            // Removed while it is still listened on: after that, another daemon may have put its
            // own there.
            let shutdown = async {
                shutdown.await;
                let _ = fs::remove_file(path);
            };
            expose::serve_socket(listener, Arc::clone(surface), limits, shutdown).await;
        }
        Err(fault) => error!("the socket cannot be served: {fault}"),
    }
}

/// Asks for the processes of a node, and whether it keeps objects over their end.
pub(super) async fn inspect(peer: &AdminPeer) -> Result<Inspection, Miss> {
    let client = peer.client();
    client.ping().await.map_err(|error| miss(&error))?;
    let process = client.pids().await.ok();
    let process = process.map(|Pids { master, worker }| Process { manager: master, worker });
    let persistent = match process {
        Some(Process { worker: None, .. }) => true,
        _ => client.storages().await.map_or(true, |storages| may_persist(&storages)),
    };
    Ok(Inspection { process, persistent })
}

fn may_persist(storages: &Storages) -> bool {
    let in_memory = |kind: &str| IN_MEMORY.contains(&kind);
    !storages.complete || !storages.storages.iter().all(|storage| in_memory(&storage.kind))
}

/// Sends bans in order, up to the first that fails, without waiting for each answer: on a
/// connection that stays open, so that the next one does not wait for a handshake.
///
/// What was sent already when one fails is reported as unconfirmed, whatever its answer may be: it
/// is sent again, behind the one that failed.
pub(super) async fn deliver(peer: &AdminPeer, bans: &[BanText]) -> Vec<Result<(), Miss>> {
    let (client, begin) = (peer.open_client(), peer.now());
    let results = send_all(&client, bans).await;
    // Those of a long batch could not be told apart by the time.
    if let ([ban], [Ok(())]) = (bans, &results[..])
        && let Ok(parsed) = ban::parse(ban.as_str().as_bytes())
    {
        peer.note_sent(parsed.to_bytes(), begin);
    }
    // After a failure the next attempt begins with a new connection, at a time that the ledger
    // chooses.
    if results.len() == bans.len() && !results.iter().any(is_failure) {
        peer.keep_client(client);
    }
    results
}

/// Whether the bans after this one wait for it. One that varnishd rejects is settled.
fn is_failure(result: &Result<(), Miss>) -> bool {
    result.as_ref().is_err_and(|miss| miss.result != BanResult::Rejected)
}

async fn send_all(client: &Client, bans: &[BanText]) -> Vec<Result<(), Miss>> {
    let begin = Instant::now();
    let mut results = Vec::with_capacity(bans.len());
    let mut commands = VecDeque::with_capacity(bans.len());
    let mut sendable = Vec::with_capacity(bans.len());
    for text in bans {
        let command = command(text);
        sendable.push(command.is_some());
        commands.extend(command);
    }
    let mut batch = client.batch(stream::iter(commands));
    for is_sendable in sendable {
        let result = match is_sendable {
            false => Err(Miss { result: BanResult::Rejected, reason: "unsendable".to_owned() }),
            true => match batch.next().await {
                Some(result) => result.map(drop).map_err(|error| miss(&error)),
                None => break,
            },
        };
        let ends = is_failure(&result) || begin.elapsed() > DELIVERY;
        let was_sent = !result.as_ref().is_err_and(|miss| miss.result.is_unsent());
        results.push(result);
        if ends {
            let rest = if was_sent { batch.in_flight() } else { 0 };
            let reason = "not_awaited".to_owned();
            let unknown = Err(Miss { result: BanResult::Unconfirmed, reason });
            results.extend(std::iter::repeat_n(unknown, rest));
            break;
        }
    }
    results
}

/// Counts the bans on a node's list, as far as it shows them: it cuts answers at its `cli_limit`
/// (varnishd(1)). `None` when it does not answer.
pub(super) async fn count(peer: &AdminPeer) -> Option<usize> {
    let reply = peer.client().run(Command::ban_list()).await.ok()?;
    Some(listed(&reply.body))
}

/// The entries of a `ban.list` as text: each has a line that begins with its time.
fn listed(body: &[u8]) -> usize {
    body.split(|byte| *byte == b'\n')
        .filter(|line| line.first().is_some_and(u8::is_ascii_digit))
        .count()
}

fn command(text: &BanText) -> Option<Command> {
    let expression = ban::parse(text.as_str().as_bytes()).ok()?;
    Command::ban(expression.arguments()).ok()
}

/// What an error says of a ban.
pub(super) fn miss(error: &AdminError) -> Miss {
    let result = match (error.fault(), error.outcome()) {
        (Fault::Rejected { .. }, _) => BanResult::Rejected,
        (_, Outcome::Unknown) => BanResult::Unconfirmed,
        (Fault::Secret, _) => BanResult::Unauthenticated,
        (Fault::ChildNotRunning, _) => BanResult::CacheStopped,
        (Fault::Unreachable | Fault::Unreliable, _) => BanResult::Unreachable,
    };
    Miss { result, reason: error.label().to_owned() }
}

/// What was handed in, for the nodes that are known here, and the names of some that are not.
pub(super) fn issues(
    submission: Submission,
    peers: &Peers,
) -> Result<(Vec<Issue>, BTreeSet<String>), IssueError> {
    let mut unknown = BTreeSet::new();
    let source = submission.source;
    let mut issues = Vec::with_capacity(submission.bans.len());
    for SubmittedBan { ban, nodes } in submission.bans {
        let nodes: BTreeMap<NodeName, _> = match nodes {
            None => peers.with_admin().map(|name| (name.clone(), None)).collect(),
            Some(nodes) => nodes
                .into_iter()
                .filter_map(|node| match peers.meant(&node.name, node.address.as_deref()) {
                    Some(name) => Some((name.clone(), node.outcome)),
                    None => {
                        if unknown.len() < UNKNOWN {
                            unknown.insert(node.name);
                        }
                        None
                    }
                })
                .collect(),
        };
        if nodes.is_empty() {
            return Err(IssueError::NoNode);
        }
        issues.push(Issue { ban, source, nodes });
    }
    Ok((issues, unknown))
}

/// The answer to whoever wants to see the ledger.
pub(super) fn shown(ledger: &Ledger, query: BanQuery) -> Vec<Entry> {
    let all = ledger.entries().rev().filter(|entry| !query.pending || !entry.is_settled());
    let mut bytes = 0_usize;
    let fits = |entry: &&Entry| {
        bytes = bytes.saturating_add(entry.weight());
        bytes <= SHOWN
    };
    all.take(query.most).take_while(fits).cloned().collect()
}

/// How the ledger stands, for metrics.
pub(super) fn state(ledger: &Ledger) -> LedgerState {
    LedgerState {
        backlogs: ledger.backlogs().map(|(node, backlog)| (node.clone(), backlog)).collect(),
        dropped: ledger.dropped().map(|(reason, count)| (reason.label(), count)).collect(),
    }
}

/// Counts it, and says it where somebody should know.
pub(super) fn tell(news: News, metrics: &Metrics) {
    match news {
        News::Sent { node, source, result } => metrics.record_ban(&node, source, result),
        News::Delivered { node, bans } => {
            let name = node.as_str();
            info!(node = name, "{node} has taken {} that it had missed", counted(bans));
        }
        News::Void { node, bans, because: Needless::Restarted } => {
            info!(
                node = node.as_str(),
                "{node} does not need {} that it had missed: its cache was started later",
                counted(bans)
            );
        }
        News::Void { node, bans, because: Needless::Repeated } => {
            info!(
                node = node.as_str(),
                "{node} does not need {} that it had missed: it took the same one later",
                counted(bans)
            );
        }
        News::Rejected { node, ban, reason } => {
            let shown = excerpt(&ban);
            error!(node = node.as_str(), "{node} does not take a ban ({reason}): {shown}");
        }
        News::Dropped { node, ban, because } => {
            let (reason, shown) = (because.label(), excerpt(&ban));
            warn!(node = node.as_str(), reason, "{node} will never get a ban ({reason}): {shown}");
        }
    }
}

fn counted(bans: usize) -> String {
    if bans == 1 { "a ban".to_owned() } else { format!("{bans} bans") }
}

/// The beginning of a ban, safe for a log.
fn excerpt(ban: &BanText) -> String {
    let shown: String = ban.as_str().chars().take(200).collect();
    Untrusted(&shown).to_string()
}
