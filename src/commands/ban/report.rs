//! What became of the bans, for people and for programs.

use serde::Serialize;

use super::super::Exit;
use super::super::output::{Format, Output, Untrusted, complain, complain_verbatim};
use super::super::target::Nodes;
use super::input::{Ban, Bans, Refused};
use super::send::{NodeResult, Sent, is_unknown};

/// The form of the JSON document; raised when a field goes or changes its meaning.
const SCHEMA: u32 = 1;

/// So many failed bans of one node are shown each by itself.
const SHOWN: usize = 20;

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    /// What the process exits with.
    exit_status: u8,
    dry_run: bool,
    interrupted: bool,
    refused: Vec<RefusedLine<'a>>,
    bans: Vec<BanLine<'a>>,
    nodes: Vec<NodeLine<'a>>,
}

#[derive(Debug, Serialize)]
struct RefusedLine<'a> {
    line: Option<usize>,
    text: &'a str,
    code: &'static str,
    message: String,
    overridden_by: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct BanLine<'a> {
    line: Option<usize>,
    expression: String,
    command: std::borrow::Cow<'a, str>,
    warnings: Vec<WarningLine>,
}

#[derive(Debug, Serialize)]
struct WarningLine {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct NodeLine<'a> {
    node: &'a str,
    address: String,
    version: Option<&'a str>,
    exit_status: u8,
    taken: usize,
    failed: usize,
    /// Bans without any answer, when the command was interrupted.
    unanswered: usize,
    errors: Vec<ErrorLine>,
    refused: Vec<RefusedLine<'a>>,
}

#[derive(Debug, Serialize)]
struct ErrorLine {
    /// The index in `bans`, from 0.
    ban: usize,
    line: Option<usize>,
    reason: &'static str,
    /// `not_done`, or `unknown` where the ban may be on the node's list all the same.
    outcome: &'static str,
    message: String,
}

/// The report of one call.
pub(super) struct Report<'a> {
    format: Format,
    bans: &'a Bans,
}

impl<'a> Report<'a> {
    pub(super) fn new(format: Format, bans: &'a Bans) -> Self {
        Self { format, bans }
    }

    /// What would be sent where.
    pub(super) fn dry_run(&mut self, nodes: &Nodes) -> Exit {
        let mut output = Output::stdout();
        match self.format {
            Format::Json => {
                let nodes = nodes.targets.iter().map(|(target, _)| NodeLine {
                    node: target.node.as_str(),
                    address: target.address.to_string(),
                    version: None,
                    exit_status: Exit::Done.code(),
                    taken: 0,
                    failed: 0,
                    unanswered: self.bans.bans.len(),
                    errors: Vec::new(),
                    refused: Vec::new(),
                });
                let nodes = nodes.collect();
                output.json(&self.document(Exit::Done, nodes, true, false));
            }
            Format::Human => {
                for ban in &self.bans.bans {
                    output.line(format_args!("would send: {}", ban.expression));
                    output.line(format_args!("  on the wire: {}", wire(ban)));
                }
                for (target, _) in &nodes.targets {
                    output.line(format_args!("  to {} at {}", target.node, target.address));
                }
            }
        }
        output.finish(Exit::Done)
    }

    /// What became of them.
    pub(super) fn sent(&mut self, sent: &Sent) -> Exit {
        let exit = Exit::of_nodes(sent.nodes.iter().map(NodeResult::exit));
        let exit = if sent.interrupted { Exit::Interrupted } else { exit };
        let mut output = Output::stdout();
        match self.format {
            Format::Json => {
                let nodes = sent.nodes.iter().map(|node| self.node_line(node)).collect();
                output.json(&self.document(exit, nodes, false, sent.interrupted));
            }
            Format::Human => {
                for node in &sent.nodes {
                    self.node(&mut output, node);
                }
                if sent.interrupted {
                    complain("interrupted; a ban that was sent may be on the list all the same");
                }
            }
        }
        if exit != Exit::Done {
            annotate(sent);
        }
        output.finish(exit)
    }

    fn node(&self, output: &mut Output, result: &NodeResult) {
        let node = &result.node;
        refusals(Some(node.as_str()), &result.refused);
        let (taken, all) = (result.taken(), self.bans.bans.len());
        if taken > 0 || result.exit() == Exit::Done {
            let text = match self.bans.bans.as_slice() {
                [only] => format!("{node}: taken: {}", only.expression),
                _ if taken == all => format!("{node}: {all} bans taken"),
                _ => format!("{node}: {taken} of {all} bans taken"),
            };
            output.line(text);
        }
        // The same error again and again (a node that is not there) is said once.
        let mut said: Vec<String> = Vec::new();
        let mut hidden = 0;
        for (at, error) in result.failures() {
            let text = error.to_string();
            let line = self.bans.bans.get(at).and_then(|ban| ban.line);
            let one = matches!(error.kind, crate::admin::Kind::Rejected { .. });
            if !one && said.contains(&text) {
                continue;
            }
            if said.len() == SHOWN {
                hidden += 1;
                continue;
            }
            match line.filter(|_| one) {
                Some(line) => complain(format_args!("line {line}: {text}")),
                None => complain(&text),
            }
            said.push(text);
        }
        if hidden > 0 {
            complain(format_args!("{node}: {hidden} more failed; --output json names them all"));
        }
        let unknown: Vec<String> = result
            .failures()
            .filter(|(_, error)| is_unknown(error))
            .filter_map(|(at, _)| self.bans.bans.get(at)?.line.map(|line| line.to_string()))
            .collect();
        if let (Some(first), Some(last)) = (unknown.first(), unknown.last())
            && self.bans.are_lines
        {
            let count = unknown.len();
            complain(format_args!(
                "{node}: {count} bans may or may not be on its list (lines {first} to {last}): \
                 send them again, which does no harm"
            ));
        }
        let unanswered = result.bans.iter().filter(|ban| ban.is_none()).count();
        if unanswered > 0 && result.refused.is_empty() {
            complain(format_args!("{node}: {unanswered} of {all} bans without an answer"));
        }
    }

    fn node_line<'n>(&self, result: &'n NodeResult) -> NodeLine<'n> {
        let errors: Vec<_> = result
            .failures()
            .map(|(at, error)| ErrorLine {
                ban: at,
                line: self.bans.bans.get(at).and_then(|ban| ban.line),
                reason: error.label(),
                outcome: if is_unknown(error) { "unknown" } else { "not_done" },
                message: error.to_string(),
            })
            .collect();
        NodeLine {
            node: result.node.as_str(),
            address: result.address.to_string(),
            version: result.version.as_deref(),
            exit_status: result.exit().code(),
            taken: result.taken(),
            failed: errors.len(),
            unanswered: result.bans.iter().filter(|ban| ban.is_none()).count(),
            errors,
            refused: result.refused.iter().map(refused_line).collect(),
        }
    }

    fn document<'d>(
        &'d self,
        exit: Exit,
        nodes: Vec<NodeLine<'d>>,
        dry_run: bool,
        interrupted: bool,
    ) -> Document<'d> {
        let bans = self.bans.bans.iter().map(|ban| BanLine {
            line: ban.line,
            expression: ban.expression.to_string(),
            command: wire(ban),
            warnings: ban
                .warnings
                .iter()
                .map(|warning| WarningLine { code: warning.code(), message: warning.to_string() })
                .collect(),
        });
        Document {
            schema: SCHEMA,
            exit_status: exit.code(),
            dry_run,
            interrupted,
            refused: Vec::new(),
            bans: bans.collect(),
            nodes,
        }
    }
}

/// Says why nothing is sent.
pub(super) fn refused(mut output: Output, format: Format, refused: &[Refused]) -> Exit {
    match format {
        Format::Human => {
            refusals(None, refused);
            if refused.iter().any(|refused| refused.line.is_some()) {
                let lines = refused.len();
                complain(format_args!("{lines} refused: nothing was sent"));
            }
        }
        Format::Json => output.json(&Document {
            schema: SCHEMA,
            exit_status: Exit::Usage.code(),
            dry_run: false,
            interrupted: false,
            refused: refused.iter().map(refused_line).collect(),
            bans: Vec::new(),
            nodes: Vec::new(),
        }),
    }
    output.finish(Exit::Usage)
}

/// Says what should be known of the bans before they are sent.
pub(super) fn warned(bans: &[Ban]) {
    let mut said = 0;
    for ban in bans {
        for warning in &ban.warnings {
            said += 1;
            if said <= SHOWN {
                match ban.line {
                    Some(line) => complain(format_args!("warning: line {line}: {warning}")),
                    None => complain(format_args!("warning: {warning}")),
                }
            }
        }
    }
    if said > SHOWN {
        complain(format_args!("{} more warnings", said - SHOWN));
    }
}

fn refusals(node: Option<&str>, refused: &[Refused]) {
    let node = node.map(|node| format!("{node}: ")).unwrap_or_default();
    for Refused { line, refusal, .. } in refused {
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let flag = match refusal.overridden_by() {
            // Some say so themselves.
            Some(flag) if !refusal.to_string().contains(flag) => format!("; {flag} sends it"),
            _ => String::new(),
        };
        complain(format_args!("refused: {node}{line}{refusal}{flag}"));
    }
}

fn refused_line(refused: &Refused) -> RefusedLine<'_> {
    RefusedLine {
        line: refused.line,
        text: &refused.text,
        code: refused.refusal.code(),
        message: refused.refusal.to_string(),
        overridden_by: refused.refusal.overridden_by(),
    }
}

fn wire(ban: &Ban) -> std::borrow::Cow<'_, str> {
    // Quoted, and so ASCII without controls; the line end is not for show.
    String::from_utf8_lossy(ban.command.as_line().trim_ascii_end())
}

/// On GitHub's runners an error shows beside the job when it is written so (workflow commands).
fn annotate(sent: &Sent) {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return;
    }
    for node in sent.nodes.iter().filter(|node| node.exit() != Exit::Done) {
        let error = node.failures().next().map(|(_, error)| error.to_string());
        let text = error.unwrap_or_else(|| format!("{}: no answer", node.node));
        let text = Untrusted(&text).to_string().replace('%', "%25");
        complain_verbatim(format_args!("::error title=purgewatch ban::{text}\n"));
    }
}
