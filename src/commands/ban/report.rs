//! What is said of a ban: for people on two streams, for programs as one document.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::Exit;
use super::super::config_file::counted;
use super::super::fleet::End;
use super::super::output::{self, Output, complain, json_line};
use super::super::proof::{self, Plan};
use super::super::target::Chosen;
use super::send::{NodeReport, State};
use super::source::{Ban, Bans};
use super::tested::{Tested, TestedItem};
use super::verify::Unmatched;
use crate::ban::Warning;
use crate::model::format_duration;

/// So many failing bans are named for a node; the rest are counted.
const NAMED: usize = 20;

/// So many stretches of lines that failed alike are named.
const STRETCHES: usize = 5;

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
            output.line(format_args!("  ban {}", ban.shown()));
        }
    }
}

/// The same as lines for programs.
pub(super) fn planned_lines(output: &mut Output, bans: &Bans, chosen: &Chosen) {
    for node in &chosen.nodes {
        output.text(json_line(&NodeLine {
            schema: SCHEMA,
            command: "ban",
            dry_run: true,
            result: "not_sent",
            bans: bans.bans.len(),
            report: NodeItem {
                node: node.target.node.as_str(),
                address: node.target.place.to_string(),
                exit: Exit::Done.code(),
                taken: 0,
                not_taken: 0,
                unknown: 0,
                retried: 0,
                seconds: 0.0,
                failures: Vec::new(),
                proofs: Vec::new(),
                tested: None,
                not_repeated: None,
            },
        }));
    }
}

/// What a node took and what was proven, as lines for people.
pub(super) fn told(bans: &Bans, plan: Option<&Plan>, report: &NodeReport) -> Vec<String> {
    let proofs = plan.into_iter().flat_map(|plan| {
        report.proofs.iter().filter_map(|attested| proof::line(plan, &report.node, attested))
    });
    let tested = report.tested.iter().filter(|tested| tested.exit() == Exit::Done);
    let tested = tested.map(|tested| format!("{}: tested: {tested}\n", report.node));
    taken(bans, report).into_iter().chain(proofs).chain(tested).collect()
}

/// Says why nothing was sent: bans that cannot match what they are to be proven with.
pub(super) fn unmatched(bans: &Bans, unmatched: &[Unmatched]) {
    let subject = match bans.bans.len() {
        1 => "the ban".to_owned(),
        more => format!("none of the {more} bans"),
    };
    let verb = if bans.bans.len() == 1 { "cannot match" } else { "can match" };
    for Unmatched { node, title, reason } in unmatched {
        fail(&format!(
            "{node}: refused (cannot-match): {subject} {verb} {title} as this node serves it: \
             {reason}; --verify-anyway sends it all the same"
        ));
    }
    complain("nothing was sent");
}

/// How many bans a node took, as a line for people.
fn taken(bans: &Bans, report: &NodeReport) -> Option<String> {
    let taken = report.taken();
    match (bans.bans.as_slice(), taken) {
        ([ban], 1) => Some(format!("{}: taken: {}\n", report.node, ban.shown())),
        ([_], _) => None,
        (bans, _) => Some(format!("{}: {taken} of {} bans taken\n", report.node, bans.len())),
    }
}

/// The result of a node as a line for programs.
pub(super) fn line(bans: &Bans, plan: Option<&Plan>, report: &NodeReport) -> String {
    let mut item = node_item(plan, report);
    for failure in &mut item.failures {
        let ban = bans.bans.get(failure.ban);
        failure.line = ban.and_then(|ban| ban.line);
        failure.expression = ban.map(|ban| ban.text.as_str());
    }
    let result = match &item {
        NodeItem { unknown: 1.., .. } => "unknown",
        NodeItem { not_taken: 1.., .. } => "failed",
        NodeItem { .. } => "done",
    };
    let (command, bans) = ("ban", bans.bans.len());
    json_line(&NodeLine { schema: SCHEMA, command, dry_run: false, result, bans, report: item })
}

/// Says what failed, on stderr.
pub(super) fn failed(bans: &Bans, chosen: &Chosen, plan: Option<&Plan>, reports: &[NodeReport]) {
    let mut lost = false;
    for report in reports {
        failures_of(report, bans);
        if let Some(end) = report.not_repeated {
            let why = match end {
                End::Limit(limit) => format!("the limit of {} was reached", format_duration(limit)),
                End::Interrupt => "interrupted".to_owned(),
            };
            fail(&format!(
                "{}: {why} before the bans were sent once more (--repeat-after)",
                report.node
            ));
        }
        if let Some(plan) = plan {
            proof::show(plan, &report.node, &report.proofs, fail, |text| complain(text));
        }
        if let Some(tested) = report.tested.as_ref().filter(|t| t.exit() != Exit::Done) {
            fail(&format!("{}: not proven: {tested}", report.node));
        }
        lost |= matches!(report.exit_of_bans(), Exit::Unreachable | Exit::Secret);
    }
    if let Some(hint) = chosen.hint().filter(|_| lost) {
        complain(hint);
    }
}

fn failures_of(report: &NodeReport, bans: &Bans) {
    // Bans that failed alike, such as all those that a lost connection took along, are one line.
    let mut groups: Vec<(String, Vec<&Ban>)> = Vec::new();
    let mut unnamed = 0;
    for (state, ban) in report.states.iter().zip(&bans.bans) {
        let Some(message) = state.message(&report.node) else { continue };
        if let Some((_, alike)) = groups.iter_mut().find(|(known, _)| *known == message) {
            alike.push(ban);
        } else if groups.len() < NAMED {
            groups.push((message, vec![ban]));
        } else {
            unnamed += 1;
        }
    }
    for (message, alike) in groups {
        let mut text = match alike.as_slice() {
            _ if bans.bans.len() == 1 => message,
            [ban] => format!("{}{message}", bans.place(ban)),
            alike => {
                format!("{}{message} ({})", bans.lines(alike), counted(alike.len(), "ban"))
            }
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

impl Bans {
    /// Where these bans stand, in their order, as a prefix of messages: `bans.txt:4-128,130: `, or
    /// nothing.
    fn lines(&self, bans: &[&Ban]) -> String {
        let Some(file) = &self.file else { return String::new() };
        // A line that holds no ban, between two that do, ends no stretch.
        let mut following = self.bans.iter().filter_map(|ban| ban.line);
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for line in bans.iter().filter_map(|ban| ban.line) {
            let is_next = following.next() == Some(line);
            match stretches.last_mut() {
                Some((_, last)) if is_next => *last = line,
                _ => {
                    if !is_next {
                        following.by_ref().find(|&other| other == line);
                    }
                    stretches.push((line, line));
                }
            }
        }
        let mut text = format!("{file}:");
        for (at, (first, last)) in stretches.iter().take(STRETCHES).enumerate() {
            let between = if at == 0 { "" } else { "," };
            let _ = write!(text, "{between}{first}");
            if last > first {
                let _ = write!(text, "-{last}");
            }
        }
        text.push_str(if stretches.len() > STRETCHES { ",...: " } else { ": " });
        text
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn fail(text: &str) {
    output::fail("ban", text);
}

impl NodeReport {
    fn taken(&self) -> usize {
        self.states.iter().filter(|state| matches!(state, State::Taken)).count()
    }

    /// The exit status that this node alone would give.
    pub(super) fn exit(&self) -> Exit {
        let proofs = self.proofs.iter().map(|attested| proof::exit(&attested.proof));
        let tested = self.tested.iter().map(Tested::exit);
        let repeated = self.not_repeated.map(|end| match end {
            End::Limit(_) => Exit::Unreachable,
            End::Interrupt => Exit::Interrupted,
        });
        proofs.chain(tested).chain(repeated).fold(self.exit_of_bans(), Exit::max)
    }

    fn exit_of_bans(&self) -> Exit {
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
    /// Why nothing was sent: what the bans are to be proven with, and cannot match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unmatched: Vec<UnmatchedItem<'a>>,
    nodes: Vec<NodeItem<'a>>,
}

/// The result of one node as a program reads it.
#[derive(Debug, Serialize)]
struct NodeLine<'a> {
    schema: u32,
    command: &'static str,
    dry_run: bool,
    /// `done`: it took every ban. `unknown`: of some, nobody knows. `failed`: it took some or none,
    /// and the others certainly not. `not_sent`: a dry run.
    result: &'static str,
    /// How many bans were meant for it.
    bans: usize,
    #[serde(flatten)]
    report: NodeItem<'a>,
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
    failures: Vec<FailureItem<'a>>,
    /// What was proven, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proofs: Vec<proof::Item>,
    /// Whether the whole cache was tested, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tested: Option<TestedItem>,
    /// That everything was taken, and was not sent once more as was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_repeated: Option<&'static str>,
}

/// An object that no ban can match, as a program reads it.
#[derive(Debug, Serialize)]
struct UnmatchedItem<'a> {
    node: &'a str,
    url: &'a str,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct FailureItem<'a> {
    /// Which ban, counted from 0: in a document its place in `bans`.
    ban: usize,
    /// Its line, and how it was written: in lines, which have no `bans`.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<&'a str>,
    reason: &'static str,
    outcome: &'static str,
    message: String,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        bans: &'a Bans,
        plan: Option<&Plan>,
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
            unmatched: Vec::new(),
            nodes: reports.iter().map(|report| node_item(plan, report)).collect(),
        }
    }

    /// The same, when nothing was sent because no ban can match these.
    pub(super) fn with_unmatched(mut self, unmatched: &'a [Unmatched]) -> Self {
        let item = |Unmatched { node, title, reason }: &'a Unmatched| UnmatchedItem {
            node: node.as_str(),
            url: title,
            message: reason,
        };
        self.unmatched = unmatched.iter().map(item).collect();
        self
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

fn node_item<'a>(plan: Option<&Plan>, report: &'a NodeReport) -> NodeItem<'a> {
    let failures: Vec<FailureItem<'_>> = report
        .states
        .iter()
        .enumerate()
        .filter_map(|(ban, state)| {
            let failure = state.failure()?;
            Some(FailureItem {
                ban,
                line: None,
                expression: None,
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
        proofs: plan.map(|plan| proof::items(plan, &report.proofs)).unwrap_or_default(),
        tested: report.tested.as_ref().map(Tested::item),
        not_repeated: report.not_repeated.map(|end| match end {
            End::Limit(_) => "deadline",
            End::Interrupt => "interrupted",
        }),
    }
}
