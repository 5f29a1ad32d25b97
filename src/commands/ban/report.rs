//! What is said of a ban: for people on two streams, for programs as one document.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::Exit;
use super::super::config_file::counted;
use super::super::output::{Output, complain, complain_verbatim};
use super::super::target::Chosen;
use super::send::{NodeReport, State};
use super::source::{Ban, Bans};
use crate::ban::Warning;

/// So many failing bans are named for a node; the rest are counted.
const NAMED: usize = 20;

/// The number of the JSON document's form: it grows when something is taken out or renamed.
const SCHEMA: u32 = 1;

/// Says why nothing was sent: each refused ban, with its place.
pub(super) fn refused(bans: &Bans) {
    for ban in &bans.bans {
        for refusal in &ban.refusals {
            let text = format!("{}refused ({}): {refusal}", bans.place(ban), refusal.code());
            fail(&text);
        }
    }
    if bans.bans.len() > 1 {
        complain(format_args!(
            "{} of {} bans refused: nothing was sent",
            bans.refused(),
            bans.bans.len()
        ));
    }
}

/// Says each kind of warning once, with its first place.
pub(super) fn warned(bans: &Bans, dry_run: bool) {
    let mut seen: Vec<(&Ban, &Warning, usize)> = Vec::new();
    for ban in &bans.bans {
        let mut codes = Vec::new();
        for warning in &ban.warnings {
            // The server knows best what it knows: its answer comes in a moment.
            let needless = matches!(warning, Warning::NeedsVersion { .. }) && !dry_run;
            if needless || codes.contains(&warning.code()) {
                continue;
            }
            codes.push(warning.code());
            match seen.iter_mut().find(|(_, known, _)| known.code() == warning.code()) {
                Some((_, _, count)) => *count += 1,
                None => seen.push((ban, warning, 1)),
            }
        }
    }
    for (ban, warning, count) in seen {
        let others = match count - 1 {
            0 => String::new(),
            others => format!(" (and {} more like it)", counted(others, "ban")),
        };
        complain(format_args!(
            "{}warning ({}): {warning}{others}",
            bans.place(ban),
            warning.code()
        ));
    }
}

/// Says what would be sent, and where.
pub(super) fn planned(output: &mut Output, bans: &Bans, chosen: &Chosen) {
    for node in &chosen.nodes {
        let target = &node.target;
        let place = target.place.to_string();
        if target.node.as_str() == place {
            output.line(format_args!("would send to {}:", target.node));
        } else {
            output.line(format_args!("would send to {} ({place}):", target.node));
        }
        for ban in &bans.bans {
            output.line(format_args!("  ban {}", ban.text));
        }
    }
}

/// Says how many bans each node took.
pub(super) fn taken(output: &mut Output, bans: &Bans, reports: &[NodeReport]) {
    for report in reports {
        let taken = report.taken();
        if let ([ban], 1) = (bans.bans.as_slice(), taken) {
            output.line(format_args!("{}: taken: {}", report.node, ban.text));
        } else if bans.bans.len() > 1 {
            output.line(format_args!("{}: {taken} of {} bans taken", report.node, bans.bans.len()));
        }
    }
    // Results before diagnostics, where both go to one terminal.
    output.flush();
}

/// Says what failed, on stderr.
pub(super) fn failed(bans: &Bans, chosen: &Chosen, reports: &[NodeReport]) {
    let mut lost = false;
    for report in reports {
        failures_of(report, bans);
        lost |= matches!(report.exit(), Exit::Unreachable | Exit::Secret);
    }
    if let Some(hint) = chosen.hint().filter(|_| lost) {
        complain(hint);
    }
}

fn failures_of(report: &NodeReport, bans: &Bans) {
    // Bans that failed alike, such as all those that a lost connection took along, are one line.
    let mut groups: Vec<(String, &Ban, usize)> = Vec::new();
    let mut unnamed = 0;
    for (state, ban) in report.states.iter().zip(&bans.bans) {
        let Some(message) = state.message(&report.node) else { continue };
        if let Some((_, _, count)) = groups.iter_mut().find(|(known, _, _)| *known == message) {
            *count += 1;
        } else if groups.len() < NAMED {
            groups.push((message, ban, 1));
        } else {
            unnamed += 1;
        }
    }
    for (message, ban, count) in groups {
        let mut text = match (bans.bans.len(), count) {
            (1, _) => message,
            (_, 1) => format!("{}{message}", bans.place(ban)),
            _ => format!("{message} ({})", counted(count, "ban")),
        };
        if report.retried > 0 {
            let _ = write!(text, " (tried again {})", times(report.retried));
        }
        fail(&text);
    }
    if unnamed > 0 {
        complain(format_args!("{}: {} more failed", report.node, counted(unnamed, "ban")));
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A diagnostic that fails the command; on GitHub also one that shows at the top of the run.
fn fail(text: &str) {
    complain(text);
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
        let data = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        complain_verbatim(format_args!("::error title=purgewatch ban::{data}\n"));
    }
}

impl NodeReport {
    fn taken(&self) -> usize {
        self.states.iter().filter(|state| matches!(state, State::Taken)).count()
    }

    /// The exit status that this node alone would give.
    pub(super) fn exit(&self) -> Exit {
        Exit::of_nodes(
            self.states.iter().map(|state| state.failure().map_or(Exit::Done, |f| f.exit())),
        )
    }
}

/// The whole result as a program reads it.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    command: &'static str,
    /// The exit status of the process.
    exit: u8,
    dry_run: bool,
    interrupted: bool,
    bans: Vec<BanItem<'a>>,
    nodes: Vec<NodeItem<'a>>,
}

#[derive(Debug, Serialize)]
struct BanItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    expression: &'a str,
    refusals: Vec<Remark>,
    warnings: Vec<Remark>,
}

#[derive(Debug, Serialize)]
struct Remark {
    code: &'static str,
    message: String,
    /// The flag that sends the ban all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    overridden_by: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct NodeItem<'a> {
    node: &'a str,
    address: String,
    exit: u8,
    taken: usize,
    /// Failed and certainly not on the node's list.
    not_taken: usize,
    /// Failed, and nobody knows whether it is on the list.
    unknown: usize,
    retried: u32,
    seconds: f64,
    failures: Vec<FailureItem>,
}

#[derive(Debug, Serialize)]
struct FailureItem {
    /// Which ban: its place in `bans`, counted from 0.
    ban: usize,
    reason: &'static str,
    outcome: &'static str,
    message: String,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        bans: &'a Bans,
        reports: &'a [NodeReport],
        exit: Exit,
        dry_run: bool,
    ) -> Self {
        Self {
            schema: SCHEMA,
            command: "ban",
            exit: exit.code(),
            dry_run,
            interrupted: exit == Exit::Interrupted,
            bans: bans.bans.iter().map(ban_item).collect(),
            nodes: reports.iter().map(node_item).collect(),
        }
    }
}

fn ban_item(ban: &Ban) -> BanItem<'_> {
    let refusals = ban.refusals.iter().map(|refusal| Remark {
        code: refusal.code(),
        message: refusal.to_string(),
        overridden_by: refusal.overridden_by(),
    });
    let warnings = ban.warnings.iter().map(|warning| Remark {
        code: warning.code(),
        message: warning.to_string(),
        overridden_by: None,
    });
    BanItem {
        line: ban.line,
        expression: &ban.text,
        refusals: refusals.collect(),
        warnings: warnings.collect(),
    }
}

fn node_item(report: &NodeReport) -> NodeItem<'_> {
    let failures: Vec<FailureItem> = report
        .states
        .iter()
        .enumerate()
        .filter_map(|(ban, state)| {
            let failure = state.failure()?;
            Some(FailureItem {
                ban,
                reason: failure.reason(),
                outcome: if state.is_certain() { "not_taken" } else { "unknown" },
                message: state.message(&report.node)?,
            })
        })
        .collect();
    let unknown = failures.iter().filter(|failure| failure.outcome == "unknown").count();
    NodeItem {
        node: report.node.as_str(),
        address: report.place.clone(),
        exit: report.exit().code(),
        taken: report.taken(),
        not_taken: failures.len() - unknown,
        unknown,
        retried: report.retried,
        seconds: report.took.as_secs_f64(),
        failures,
    }
}
