//! `purgewatch check`: compare now.

mod report;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use self::report::progress;
pub(super) use self::report::show;
use super::Exit;
use super::output::{Format, Output, complain};
use super::subject::{Subject, Subjects};
use crate::clock::{Clock, random_seed};
use crate::daemon::{Driver, Event, Peers, plan};
use crate::engine::{Engine, Restored, Snapshot};
use crate::model::parse_duration;
use crate::systemd::Credentials;
use crate::verdict::{ProbeResult, State};

/// Compare what nodes serve with what the origin serves, now.
///
/// Each endpoint is fetched from its origin and from each node; where a node differs, the origin
/// is asked again before the difference counts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    subjects: Subjects,

    /// The limit of the whole check
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    timeout: Duration,

    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  purgewatch check
  purgewatch check -c purgewatch.toml recommendations --node cache-01
  purgewatch check --node-http http://127.0.0.1:6081 --origin http://10.0.0.5:8080 \\
      http://rec.example.com/api/v1/recommendations/

Exit status: 0 all fresh; 1 old content was found; 2 usage or configuration; 3 a node or the
origin did not answer, what they serve cannot be compared, or the node is no cache; 130
interrupted.";

pub(super) fn run(arguments: &Arguments) -> Exit {
    let subject = match Subject::of(&arguments.subjects) {
        Ok(subject) => subject,
        Err(exit) => return exit,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            complain(format_args!("cannot start: {fault}"));
            return Exit::Usage;
        }
    };
    let snapshot = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(Exit::Interrupted),
            snapshot = compare(&subject, arguments.timeout) => snapshot,
        }
    });
    match snapshot {
        Ok((snapshot, complete)) => {
            if !complete {
                complain("the limit of --timeout passed before everything was compared");
            }
            let mut output = Output::stdout();
            show(&mut output, arguments.output, &subject, &snapshot);
            let unreached = if complete { Exit::Done } else { Exit::Unreachable };
            output.finish(exit(&snapshot).max(unreached))
        }
        Err(exit) => exit,
    }
}

/// One round of everything. Returns what is known at the end, and whether all was compared.
async fn compare(subject: &Subject, limit: Duration) -> Result<(Snapshot, bool), Exit> {
    let clock = Clock::start();
    let peers =
        Peers::new(&subject.config, &Peers::default(), &Credentials::from_environment(), clock)
            .map_err(|error| {
                complain(&error);
                Exit::Secret
            })?;
    let mut plan = plan(&subject.config);
    plan.once = true;
    let rounds = plan.watches.len();
    let engine = Engine::new(plan, Restored::default(), &[], random_seed(), clock.now());
    let mut driver = Driver::new(engine, Arc::new(peers), clock, None);
    let deadline = Instant::from_std(clock.instant_of(clock.now() + limit));
    let mut progress = progress(rounds);
    loop {
        match timeout_at(deadline, driver.next()).await {
            Ok(Event::Idle) => return Ok((driver.snapshot(), true)),
            Ok(Event::Changed { .. }) => progress.advance(),
            Ok(_) => {}
            Err(_) => return Ok((driver.snapshot(), false)),
        }
    }
}

/// The worst of what was found.
pub(super) fn exit(snapshot: &Snapshot) -> Exit {
    Exit::of_nodes(snapshot.targets.iter().map(|target| match target.state {
        // That two servers agree proves nothing of a cache when neither is one.
        State::Fresh if target.probes_with(ProbeResult::NotACache) > 0 => Exit::Unreachable,
        State::Fresh => Exit::Done,
        State::Lagging | State::Stale => Exit::Stale,
        State::Unknown | State::Unverifiable | State::CacheDown | State::OriginDown => {
            Exit::Unreachable
        }
    }))
}
