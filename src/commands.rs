//! Layer 5: arguments, one module a command, exit codes, output.
//!
//! A command is a module with an `Arguments` struct (clap derive) and `run(&Arguments) -> Exit`.
//! It is made known in two places: a variant of `Command` with its arm in [`main`], and its
//! name in `GROUPS`. It builds the runtime it needs, if any: a start has to stay cheap.

mod ban;
mod check;
mod config;
pub mod config_file;
mod demo;
mod exit;
pub mod log;
pub mod output;
mod rules;
mod run;
mod target;

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use exit::Exit;

/// Bans and purges on Varnish that cannot fail silently.
#[derive(Debug, Parser)]
#[command(name = "purgewatch", version, max_term_width = 100)]
#[command(subcommand_required = true)]
#[command(after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands, in the order of [`GROUPS`].
#[derive(Debug, Subcommand)]
enum Command {
    Ban(ban::Arguments),
    Check(check::Arguments),
    Demo(demo::Arguments),
    Run(run::Arguments),
    Config(config::Arguments),
    Rules(rules::Arguments),
}

/// The commands by what people want; one that is not in [`Command`] is left out.
const GROUPS: &[(&str, &[&str])] = &[
    ("Invalidate", &["ban"]),
    ("Find out", &["check", "demo"]),
    ("Watch", &["run", "config", "rules"]),
];

const EXAMPLES: &str = "\
Examples:
  purgewatch ban --url http://rec.example.com/api/v1/recommendations/
  purgewatch check
  purgewatch config example > purgewatch.toml
  purgewatch config check -c purgewatch.toml

Exit status: 0 done, 1 stale, 2 usage or configuration, 3 a node cannot be reached,
4 secret refused, 5 rejected by varnishd, 6 cache process not running, 130 interrupted.
`purgewatch COMMAND --help` says more about a command.";

/// Runs the program with these arguments, the first of which is the program's own name.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let parsed = command().try_get_matches_from(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(fault) => {
            // Help and version are asked for and go to stdout; the rest is wrong usage. When
            // neither can be written, there is nobody left to tell.
            let _ = fault.print();
            return if fault.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    match cli.command {
        Command::Ban(arguments) => ban::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Rules(arguments) => rules::run(&arguments),
    }
}

/// The command line as clap knows it, with the commands grouped in its help.
fn command() -> clap::Command {
    let command = Cli::command();
    let groups = grouped(&command);
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}"
    ))
}

fn grouped(command: &clap::Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let mut lines = String::new();
        for found in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = found.get_about().map(ToString::to_string).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "  {:<8} {about}", found.get_name());
        }
        if !lines.is_empty() {
            let _ = writeln!(text, "{heading}:\n{lines}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group() {
        for found in Cli::command().get_subcommands() {
            let name = found.get_name();
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name)).count();
            assert_eq!(groups, 1, "{name} belongs into GROUPS once");
            assert!(found.get_about().is_some(), "{name} says nothing about itself");
        }
    }
}
