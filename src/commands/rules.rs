//! `purgewatch rules`: Prometheus alerting rules that match a configuration.

mod alerts;
mod yaml;

use std::time::Duration;

use clap::Args;

use super::Exit;
use super::config_file::ConfigFile;
use super::output::{Output, Untrusted};
use crate::config::Config;
use crate::model::parse_duration;

/// Print Prometheus alerting rules for a configuration.
///
/// How long each alert waits follows from the intervals of the configuration, so print them anew
/// after a change of these. `promtool check rules` accepts them as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  purgewatch rules -c purgewatch.toml > /etc/prometheus/rules/purgewatch.yml
  purgewatch rules --job edge-purgewatch --runbook-base https://wiki.example.com/purgewatch
  purgewatch rules -c rehearsal.toml --least-wait 5s")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The job_name under which Prometheus scrapes the daemon
    #[arg(long, value_name = "NAME", default_value = "purgewatch", value_parser = plain)]
    job: String,
    /// What the runbook links of the alerts begin with; `#runbook-...` is added
    #[arg(long, value_name = "URL", default_value = "README.md", value_parser = plain)]
    runbook_base: String,
    /// The shortest time that an alert waits before it fires; the least times of the others are
    /// multiples of it. Shorter than a minute is for a rehearsal: on a busy network it cries wolf
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = wait)]
    least_wait: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let loaded = match arguments.file.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let mut output = Output::stdout();
    output.text(text_of(&loaded.config, loaded.warnings.file(), arguments));
    output.finish(Exit::Done)
}

fn text_of(config: &Config, file: &str, arguments: &Arguments) -> String {
    let alerts = alerts::of(config, &arguments.job, arguments.least_wait);
    let header = format!(
        "Alerting rules for {}, printed by purgewatch {}.",
        Untrusted(file),
        env!("CARGO_PKG_VERSION")
    );
    yaml::document(&header, &alerts, &arguments.runbook_base)
}

/// A time that Prometheus can wait: it counts in whole seconds here.
fn wait(text: &str) -> Result<Duration, String> {
    let wait = parse_duration(text).map_err(|error| error.to_string())?;
    if wait < Duration::from_secs(1) || wait > Duration::from_secs(3_600) {
        return Err("expected a duration from 1s to 1h".to_owned());
    }
    Ok(wait)
}

/// A text that may stand in a label or an annotation: no controls, and no `{{`, which Prometheus
/// would read as a template.
fn plain(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) || text.contains("{{") {
        return Err("expected a text without control characters and `{{`".to_owned());
    }
    Ok(text.to_owned())
}
