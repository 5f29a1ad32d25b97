//! Layer 5: arguments, one module a command, exit codes, output.
//!
//! A command is a module with an `Arguments` struct (clap derive) and `run(&Arguments) -> Exit`.
//! It is made known in `GROUPS`. It builds the runtime it needs, if any: a start has to stay cheap.

mod adm;
mod ban;
mod check;
mod config;
pub mod config_file;
mod demo;
mod exit;
mod fleet;
pub mod log;
pub mod output;
mod proof;
mod publish;
mod purge;
mod rules;
mod run;
mod status;
mod subject;
mod target;
mod wait;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Args as _, FromArgMatches as _};

pub use exit::Exit;

/// Help is no wider, in columns.
const WIDTH: usize = 100;

/// A command of the program.
struct Command {
    name: &'static str,
    /// Adds what it is for and what its arguments are.
    describe: fn(clap::Command) -> clap::Command,
    run: fn(&ArgMatches) -> Result<ExitCode, clap::Error>,
}

/// The command in the module of that name.
macro_rules! command {
    ($module:ident) => {
        Command {
            name: stringify!($module),
            describe: $module::Arguments::augment_args,
            run: |matches| Ok($module::run(&$module::Arguments::from_arg_matches(matches)?).into()),
        }
    };
}

/// The commands, by what people want.
const GROUPS: &[(&str, &[Command])] = &[
    ("Invalidate", &[command!(ban), command!(purge), command!(publish)]),
    ("Find out", &[command!(check), command!(wait), command!(status), command!(demo)]),
    ("Watch", &[command!(run), command!(config), command!(rules)]),
    ("Administer", &[command!(adm)]),
];

/// Called by one of these names, the program is `adm`.
const DROP_IN_NAMES: &[&str] = &["varnishadm", "vinyladm"];

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
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name);
    let drop_in = DROP_IN_NAMES.iter().find(|name| called == Some(OsStr::new(name)));
    let carried_out = match drop_in {
        Some(name) => carry_out_as(name, &arguments),
        None => carry_out(&arguments),
    };
    carried_out.unwrap_or_else(|fault| {
        // Help and version are asked for and go to stdout; the rest is wrong usage. When neither
        // can be written, there is nobody left to tell.
        let _ = fault.print();
        let is_adm = drop_in.is_some() || arguments.get(1).is_some_and(|first| first == "adm");
        match fault.use_stderr() {
            true if is_adm => adm::WRONG_USAGE.into(),
            true => Exit::Usage.into(),
            false => ExitCode::SUCCESS,
        }
    })
}

fn carry_out_as(name: &'static str, arguments: &[OsString]) -> Result<ExitCode, clap::Error> {
    let line = adm::Arguments::augment_args(clap::Command::new(name)).max_term_width(WIDTH);
    let matches = line.try_get_matches_from(arguments)?;
    Ok(adm::run(&adm::Arguments::from_arg_matches(&matches)?).into())
}

fn carry_out(arguments: &[OsString]) -> Result<ExitCode, clap::Error> {
    // To describe all commands takes as long as a ban on the wire: where the first argument names
    // one, that one will do.
    let named = arguments.get(1).and_then(|first| commands().find(|known| first == known.name));
    let line = named.map_or_else(whole_line, |command| line().subcommand(command.describe()));
    let matches = line.try_get_matches_from(arguments)?;
    let found = matches.subcommand().and_then(|(name, matches)| {
        commands().find(|command| command.name == name).map(|command| (command, matches))
    });
    // clap takes no line without a command.
    found.map_or(Ok(Exit::Usage.into()), |(command, matches)| (command.run)(matches))
}

fn commands() -> impl Iterator<Item = &'static Command> {
    GROUPS.iter().flat_map(|(_, commands)| *commands)
}

impl Command {
    fn describe(&self) -> clap::Command {
        (self.describe)(clap::Command::new(self.name))
    }
}

/// The command line as clap knows it, as yet without any commands.
fn line() -> clap::Command {
    clap::Command::new("purgewatch")
        .about("Bans and purges on Varnish that cannot fail silently")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(WIDTH)
        .subcommand_required(true)
        .after_help(EXAMPLES)
}

/// The command line with all commands, grouped in its help.
fn whole_line() -> clap::Command {
    let mut line = line();
    let mut groups = String::new();
    for (heading, commands) in GROUPS {
        // Writing to a string cannot fail.
        let _ = writeln!(groups, "{heading}:");
        for command in *commands {
            let described = command.describe();
            let about = described.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(groups, "  {:<8} {about}", command.name);
            line = line.subcommand(described);
        }
        groups.push('\n');
    }
    line.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        whole_line().debug_assert();
        for command in commands() {
            line().subcommand(command.describe()).debug_assert();
        }
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        for command in commands() {
            assert!(command.describe().get_about().is_some(), "{}", command.name);
        }
    }

    #[test]
    fn a_command_is_read_alike_with_and_without_the_others() {
        let usage = |line: clap::Command, name: &str| {
            line.try_get_matches_from(["purgewatch", name, "--no-such-argument"])
                .unwrap_err()
                .to_string()
        };
        for command in commands() {
            let alone = usage(line().subcommand(command.describe()), command.name);
            assert_eq!(alone, usage(whole_line(), command.name));
            assert!(alone.contains(&format!("Usage: purgewatch {}", command.name)), "{alone}");
        }
    }
}
