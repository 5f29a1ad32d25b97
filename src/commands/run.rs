//! `purgewatch run`: the daemon.

use std::error::Error;

use clap::Args;

use super::Exit;
use super::config_file::ConfigFile;
use super::log::Log;
use super::output::complain;
use crate::clock::Clock;
use crate::daemon;

/// Watch: compare caches with their origins on a schedule, check admin ports, export metrics.
///
/// Runs in the foreground, under systemd as Type=notify. SIGHUP reads the configuration again
/// and keeps the one in force when the new one has faults; SIGTERM ends it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  purgewatch run -c purgewatch.toml")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    #[command(flatten)]
    log: Log,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let loaded = match arguments.file.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if let Err(fault) = arguments.log.start() {
        complain(fault);
        return Exit::Usage;
    }
    // One thread: with two, nearly every answer wakes the other one, which costs more than it
    // saves. The listener, whose scrapes may be large, has a thread of its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            complain(format_args!("cannot start: {fault}"));
            return Exit::Usage;
        }
    };
    let daemon = daemon::run(arguments.file.path(), loaded, Clock::start());
    match runtime.block_on(daemon) {
        Ok(()) => Exit::Done,
        Err(fault) => {
            complain(&fault);
            if let Some(cause) = fault.source() {
                complain(cause);
            }
            Exit::Usage
        }
    }
}
