//! `purgewatch config`: check a configuration, print an example.

use clap::{Args, Subcommand};

use super::Exit;
use super::output::Output;
use crate::config::EXAMPLE;

/// Check a configuration, or print a commented example.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a complete, commented configuration for one Varnish on this host.
    Example,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    match arguments.action {
        Action::Example => {
            let mut output = Output::stdout();
            output.text(EXAMPLE);
            output.finish(Exit::Done)
        }
    }
}
