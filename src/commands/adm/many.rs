//! One command on many nodes at a time.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Arguments;
use super::input::{Input, one};
use super::status::Status;
use super::written::Harmless;
use crate::admin::{AdminError, Client, Outcome};
use crate::commands::fleet::{End, Progress, Work, on_each, while_writing};
use crate::commands::output::{NodesFormat, Output, complain, json_line};
use crate::commands::target::Chosen;
use crate::model::{NodeName, format_duration};
use crate::protocol::{self, Command, Reply};

/// Carries out one command on all nodes; each is told of, in the order of the configuration.
pub(super) fn run(
    arguments: &Arguments,
    chosen: &Chosen,
    input: &Input,
    output: &mut Output,
) -> Status {
    let request = match input {
        Input::Words(text) => one(text),
        Input::Stdin => None,
    };
    let Some(request) = request else {
        complain("several nodes, or --output, take one command, given as words");
        return Status::Failed;
    };
    let command = Command::verbatim(request);
    let names: Vec<_> = chosen.nodes.iter().map(|node| node.target.node.clone()).collect();
    let progress = Progress::new(names, "command", "answered", chosen.nodes.len());
    let errands = chosen.nodes.iter().map(|node| Errand {
        node: node.target.node.clone(),
        client: Some(Client::new(node.target.clone(), arguments.options())),
        command: &command,
        answer: None,
    });
    // Connecting, authenticating and the answer have their limits; the work directory has its own.
    let limit = arguments.timeout.saturating_mul(4).min(LONGEST);
    let outcome = while_writing(chosen.nodes.len(), output, &progress, |write| {
        on_each(errands.collect(), limit, &progress, |report: &Report| match arguments.output {
            NodesFormat::Human => write(report.lines()),
            NodesFormat::Jsonl => write(json_line(&report.document())),
            NodesFormat::Json => {}
        })
    });
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(fault) => {
            complain(format_args!("cannot start: {fault}"));
            return Status::NoAnswer;
        }
    };
    if arguments.output == NodesFormat::Json {
        let nodes = outcome.reports.iter().map(Report::document).collect();
        output.json(&All { schema: 1, nodes });
    }
    for error in outcome.reports.iter().filter_map(Report::error) {
        complain(error);
    }
    if outcome.interrupted {
        return Status::Interrupted;
    }
    outcome.reports.iter().map(Report::status).max().unwrap_or(Status::Failed)
}

/// No limit on the whole is longer.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

struct Errand<'a> {
    node: NodeName,
    client: Option<Client>,
    command: &'a Command,
    answer: Option<Result<Reply, AdminError>>,
}

/// What one node said.
#[derive(Debug)]
struct Report {
    node: NodeName,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Reply(Reply),
    None(AdminError),
    Ended { end: End, connected: bool },
}

impl Work for Errand<'_> {
    type Report = Report;

    async fn run(&mut self) {
        let Some(client) = &self.client else { return };
        self.answer = Some(client.request(self.command.clone()).await);
    }

    fn report(&mut self, end: Option<End>) -> Report {
        let connected = self.client.take().is_some_and(|client| client.has_connected());
        let answer = match (self.answer.take(), end) {
            (Some(Ok(reply)), _) => Answer::Reply(reply),
            (Some(Err(error)), _) => Answer::None(error),
            (None, end) => Answer::Ended { end: end.unwrap_or(End::Interrupt), connected },
        };
        Report { node: self.node.clone(), answer }
    }
}

/// All nodes in one document.
#[derive(Serialize)]
struct All<'a> {
    schema: u32,
    nodes: Vec<Document<'a>>,
}

/// One node in JSON.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    node: &'a str,
    /// Whether varnishd carried out the command; null when nobody knows.
    done: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Report {
    fn status(&self) -> Status {
        match &self.answer {
            Answer::Reply(reply) if reply.is_success() => Status::Done,
            Answer::Reply(_) => Status::Failed,
            Answer::None(_) | Answer::Ended { end: End::Limit(_), .. } => Status::NoAnswer,
            Answer::Ended { end: End::Interrupt, .. } => Status::Interrupted,
        }
    }

    /// The answer, with the node's name in front of each line.
    fn lines(&self) -> String {
        let Answer::Reply(reply) = &self.answer else { return String::new() };
        let mut lines = String::new();
        let body = Harmless(reply.body.trim_ascii_end()).to_string();
        for line in body.lines().chain(body.is_empty().then_some("")) {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{}: {line}", self.node);
        }
        if reply.is_success() && reply.status == protocol::Status::TRUNCATED {
            let _ = writeln!(lines, "{}: [response was truncated]", self.node);
        }
        lines
    }

    fn document(&self) -> Document<'_> {
        let error = self.error();
        let mut document = Document {
            schema: 1,
            node: self.node.as_str(),
            done: None,
            status: None,
            body: None,
            truncated: None,
            reason: None,
            error,
        };
        match &self.answer {
            Answer::Reply(reply) => {
                document.done = Some(reply.is_success());
                document.status = Some(reply.status.as_u16());
                document.body = Some(String::from_utf8_lossy(&reply.body).into_owned());
                document.truncated = Some(reply.status == protocol::Status::TRUNCATED);
                document.error = None;
            }
            Answer::None(error) => {
                let not_done = error.outcome() == Outcome::NotDone;
                document.done = not_done.then_some(false);
                document.reason = Some(error.label());
            }
            Answer::Ended { end, connected } => {
                document.done = (!connected).then_some(false);
                document.reason = Some(match end {
                    End::Limit(_) => "deadline",
                    End::Interrupt => "interrupted",
                });
            }
        }
        document
    }

    fn error(&self) -> Option<String> {
        let node = &self.node;
        match &self.answer {
            Answer::Reply(reply) if reply.is_success() => None,
            Answer::Reply(reply) => {
                Some(format!("{node}: Command failed with error code {}", reply.status))
            }
            Answer::None(error) => Some(error.to_string()),
            Answer::Ended { end, connected } => {
                let what = match end {
                    End::Limit(limit) => {
                        format!("the limit of {} was reached", format_duration(*limit))
                    }
                    End::Interrupt => "interrupted".to_owned(),
                };
                let known = if *connected {
                    "whether it was carried out is unknown"
                } else {
                    "nothing was sent"
                };
                Some(format!("{node}: {what}; {known}"))
            }
        }
    }
}
