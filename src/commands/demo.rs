//! `purgewatch demo`: the whole story on this machine, with a real varnishd.

mod relay;
mod server;
mod stage;
mod story;

use std::io::IsTerminal as _;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::stage::{Stage, StageError};
use self::story::Teller;
use super::Exit;
use super::output::{complain, stdout_takes_colour};

/// See a purge fail silently, be noticed and be mended, on this machine.
///
/// Starts a real varnishd (from PATH), an origin and the daemon on free loopback ports in a
/// temporary directory, plays the incident in under 30 seconds, and removes everything.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  apt-get install varnish && purgewatch demo")]
pub(super) struct Arguments {
    /// Leave the temporary directory, with the configuration and the logs, for a look at it
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            complain(format_args!("cannot start: {fault}"));
            return Exit::Usage;
        }
    };
    runtime.block_on(perform(arguments))
}

async fn perform(arguments: &Arguments) -> Exit {
    let teller = Teller::new(stdout_takes_colour(), std::io::stdout().is_terminal());
    // Whatever ends the story, the stage is cleared: it stops its processes when it is dropped.
    tokio::select! {
        biased;
        () = interrupted() => {
            complain("interrupted; everything that was started is stopped");
            Exit::Interrupted
        }
        result = play(arguments, teller) => match result {
            Ok(exit) => exit,
            Err(fault) => {
                complain(&fault);
                fault.exit()
            }
        }
    }
}

async fn play(arguments: &Arguments, mut teller: Teller) -> Result<Exit, StageError> {
    let stage = Stage::set(arguments.keep).await?;
    let exit = story::tell(&stage, &mut teller).await;
    stage.clear().await;
    exit
}

/// Ctrl-C, or the end of the terminal or of the session.
async fn interrupted() {
    let listen = |kind| signal(kind).ok();
    let mut signals =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
    let [interrupt, terminate, hangup] = &mut signals;
    let wait = async |signal: &mut Option<tokio::signal::unix::Signal>| match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    };
    tokio::select! {
        () = wait(interrupt) => {}
        () = wait(terminate) => {}
        () = wait(hangup) => {}
    }
}
