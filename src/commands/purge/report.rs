//! What is said of purges: for people on two streams, for programs as one document or as lines.

use serde::Serialize;

use super::super::Exit;
use super::super::output::{complain, fail, json_line};
use super::super::proof::{self, Plan, Watch};
use super::send::{NodeReport, Purge, Said};

/// The number of the JSON document's form: it grows when something is taken out or renamed.
const SCHEMA: u32 = 1;

const COMMAND: &str = "purge";

/// What was done, as lines for people.
pub(super) fn told(plan: &Plan, report: &NodeReport) -> Vec<String> {
    let mut lines = Vec::new();
    for purge in &report.purges {
        if let Said::Accepted(_) = purge.answer {
            let title = title(plan, purge);
            lines.push(format!("{}: purge of {title} {}\n", report.node, purge.answer));
        }
        let attested = purge.proof.as_ref();
        lines.extend(attested.and_then(|attested| proof::line(plan, &report.node, attested)));
    }
    lines
}

/// Says what failed, on stderr.
pub(super) fn failed(plan: &Plan, report: &NodeReport) {
    let node = &report.node;
    for purge in &report.purges {
        let Some(attested) = &purge.proof else {
            fail(COMMAND, &format!("{node}: {}: {}", title(plan, purge), purge.answer));
            continue;
        };
        let attested = std::slice::from_ref(attested);
        proof::show(plan, node, attested, |text| fail(COMMAND, text), |text| complain(text));
        if let Some(suspicion) = purge.suspicion() {
            complain(format_args!("{node}: {}: {suspicion}", title(plan, purge)));
        }
    }
}

/// The result of a node as a line for programs.
pub(super) fn line(plan: &Plan, report: &NodeReport) -> String {
    json_line(&NodeLine { schema: SCHEMA, command: COMMAND, report: node_item(plan, report) })
}

fn title(plan: &Plan, purge: &Purge) -> String {
    plan.watches.get(purge.watch).map(Watch::title).unwrap_or_default()
}

/// The whole result as a program reads it.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    command: &'static str,
    /// The exit status of the process.
    exit: u8,
    interrupted: bool,
    nodes: Vec<NodeItem<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeLine<'a> {
    schema: u32,
    command: &'static str,
    #[serde(flatten)]
    report: NodeItem<'a>,
}

#[derive(Debug, Serialize)]
struct NodeItem<'a> {
    node: &'a str,
    address: &'a str,
    exit: u8,
    purges: Vec<PurgeItem<'a>>,
}

#[derive(Debug, Serialize)]
struct PurgeItem<'a> {
    url: String,
    /// `accepted`, `refused`, `unreachable`, `deadline` or `interrupted`.
    result: &'static str,
    status: Option<u16>,
    phrase: Option<&'a str>,
    message: String,
    /// What the answer lets suspect, where the proof is no good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspicion: Option<String>,
    /// `null` where nothing was purged.
    proof: Option<proof::Item>,
}

impl<'a> Document<'a> {
    pub(super) fn new(plan: &Plan, reports: &'a [NodeReport], exit: Exit) -> Self {
        Self {
            schema: SCHEMA,
            command: COMMAND,
            exit: exit.code(),
            interrupted: exit == Exit::Interrupted,
            nodes: reports.iter().map(|report| node_item(plan, report)).collect(),
        }
    }
}

fn node_item<'a>(plan: &Plan, report: &'a NodeReport) -> NodeItem<'a> {
    let purges = report.purges.iter().map(|purge| {
        let watch = plan.watches.get(purge.watch);
        let reply = purge.answer.reply();
        let proofs = purge.proof.as_slice();
        PurgeItem {
            url: watch.map(|watch| watch.target.url.to_string()).unwrap_or_default(),
            result: purge.answer.label(),
            status: reply.map(|reply| reply.status),
            phrase: reply.and_then(|reply| reply.phrase.as_deref()),
            message: purge.answer.to_string(),
            suspicion: purge.suspicion(),
            proof: proof::items(plan, proofs).pop(),
        }
    });
    NodeItem {
        node: report.node.as_str(),
        address: &report.address,
        exit: report.exit().code(),
        purges: purges.collect(),
    }
}
