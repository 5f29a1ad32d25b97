//! `purgewatch config`: check a configuration, print an example.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Exit;
use super::config_file::{ConfigFile, counted};
use super::output::{Format, Output};
use crate::config::{
    CANARY_VCL, Config, Diagnostic, EXAMPLE, LoadError, Loaded, Position, Report, load,
};
use crate::model::HostPort;

/// Check a configuration, or print a commented example.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(Check),
    Example(Example),
}

/// Print a complete, commented configuration for one Varnish on this host.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  purgewatch config example > /etc/purgewatch/purgewatch.toml
  purgewatch config example --vcl > /etc/varnish/purgewatch-canary.vcl
  purgewatch config example --vcl --daemon 10.0.0.9:19131")]
struct Example {
    /// Print the VCL for canary = "self" instead: it leads the canary's path to the daemon
    #[arg(long)]
    vcl: bool,
    /// Where Varnish reaches the daemon: its `listen`
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:19131", requires = "vcl")]
    daemon: HostPort,
}

/// Report every fault of a configuration at once, each with its line; exit 2 if there is any.
///
/// Reads nothing but the file itself: neither secrets nor certificates are opened, and no server
/// is asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  purgewatch config check -c purgewatch.toml
  purgewatch config check -c purgewatch.toml --output json | jq .diagnostics")]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// How the result is written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut output = Output::stdout();
    let exit = match &arguments.action {
        Action::Check(check) => check.run(&mut output),
        Action::Example(example) => {
            output.text(example.text());
            Exit::Done
        }
    };
    output.finish(exit)
}

impl Example {
    fn text(&self) -> String {
        if !self.vcl {
            return EXAMPLE.to_owned();
        }
        let (host, port) = (self.daemon.host(), self.daemon.port().to_string());
        CANARY_VCL.replace("@HOST@", host).replace("@PORT@", &port)
    }
}

impl Check {
    fn run(&self, output: &mut Output) -> Exit {
        match self.output {
            Format::Human => match self.file.load() {
                Ok(loaded) => {
                    output.line(summary(&loaded));
                    Exit::Done
                }
                Err(exit) => exit,
            },
            Format::Json => {
                let loaded = load(self.file.path());
                let file = self.file.path().display().to_string();
                output.json(&Document::of(&file, &loaded));
                if loaded.is_ok() { Exit::Done } else { Exit::Usage }
            }
        }
    }
}

/// What is watched, and how often each origin is asked, on one line.
fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let variants: usize = config.endpoints.iter().map(|e| e.variants.len()).sum();
    let variants = if variants == config.endpoints.len() {
        String::new()
    } else {
        format!(" in {}", counted(variants, "variant"))
    };
    let mut watched = match (config.endpoints.len(), config.pointers.len()) {
        (0, pointers) => counted(pointers, "pointer"),
        (endpoints, 0) => counted(endpoints, "endpoint") + &variants,
        (endpoints, pointers) => {
            format!(
                "{}{variants} and {}",
                counted(endpoints, "endpoint"),
                counted(pointers, "pointer")
            )
        }
    };
    let rates = config.origins.iter().map(|origin| {
        let (rate, most) = (config.scheduled_rate(&origin.name), origin.max_rate);
        format!("{} {rate:.2}/s of {most}/s", origin.name)
    });
    watched.push_str(&format!(" on {}", counted(config.nodes.len(), "node")));
    if !config.subscriptions.is_empty() {
        let subscriptions = counted(config.subscriptions.len(), "subscription");
        watched.push_str(&format!("; {subscriptions}"));
    }
    format!(
        "{}: ok, {watched}; {}: {}",
        loaded.warnings.file(),
        counted(config.origins.len(), "origin"),
        rates.collect::<Vec<_>>().join(", ")
    )
}

/// The result as a program reads it.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    file: &'a str,
    valid: bool,
    /// Why the file could not be read at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watched: Option<Watched<'a>>,
    diagnostics: Vec<Item<'a>>,
}

#[derive(Debug, Serialize)]
struct Watched<'a> {
    endpoints: usize,
    variants: usize,
    pointers: usize,
    subscriptions: usize,
    nodes: usize,
    origins: Vec<OriginRate<'a>>,
}

#[derive(Debug, Serialize)]
struct OriginRate<'a> {
    name: &'a str,
    /// Requests a second.
    scheduled_rate: f64,
    max_rate: f64,
}

#[derive(Debug, Serialize)]
struct Item<'a> {
    severity: &'static str,
    line: usize,
    column: usize,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<Related<'a>>,
}

#[derive(Debug, Serialize)]
struct Related<'a> {
    line: usize,
    column: usize,
    message: &'a str,
}

impl<'a> Document<'a> {
    fn of(file: &'a str, loaded: &'a Result<Loaded, LoadError>) -> Self {
        let mut document = Self {
            schema: 1,
            file,
            valid: loaded.is_ok(),
            error: None,
            watched: None,
            diagnostics: Vec::new(),
        };
        match loaded {
            Ok(loaded) => {
                document.watched = Some(Watched::of(&loaded.config));
                document.diagnostics = items(&loaded.warnings);
            }
            Err(LoadError::Faulty(report)) => document.diagnostics = items(report),
            Err(fault) => document.error = Some(fault.to_string()),
        }
        document
    }
}

impl<'a> Watched<'a> {
    fn of(config: &'a Config) -> Self {
        let origins = config.origins.iter().map(|origin| OriginRate {
            name: origin.name.as_str(),
            scheduled_rate: config.scheduled_rate(&origin.name),
            max_rate: origin.max_rate,
        });
        Self {
            endpoints: config.endpoints.len(),
            variants: config.endpoints.iter().map(|e| e.variants.len()).sum(),
            pointers: config.pointers.len(),
            subscriptions: config.subscriptions.len(),
            nodes: config.nodes.len(),
            origins: origins.collect(),
        }
    }
}

fn items(report: &Report) -> Vec<Item<'_>> {
    report.diagnostics().iter().map(item).collect()
}

fn item(diagnostic: &Diagnostic) -> Item<'_> {
    let Position { line, column } = diagnostic.position;
    let related = diagnostic.related.as_ref();
    Item {
        severity: diagnostic.severity.as_str(),
        line,
        column,
        message: &diagnostic.message,
        help: diagnostic.help.as_deref(),
        related: related.map(|(at, message)| Related { line: at.line, column: at.column, message }),
    }
}
