//! `purgewatch check`: compare now.

mod explain;
mod pointers;
mod report;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

pub(super) use self::explain::{Found, explain};
pub(super) use self::pointers::pointer_exit;
use self::report::progress;
pub(super) use self::report::{Detail, show};
use super::Exit;
use super::output::{Format, Output, complain};
use super::subject::{Subject, Subjects};
use crate::clock::{Clock, random_seed};
use crate::daemon::{Asked, Driver, Event, Peers, plan};
use crate::engine::{Engine, Restored, Snapshot};
use crate::model::parse_duration;
use crate::systemd::Credentials;
use crate::verdict::{ProbeResult, State};

/// Compare what nodes serve with what the origin serves, now.
///
/// Each endpoint is fetched from its origin and from each node; where a node differs, the origin
/// is asked again before the difference counts. A pointer is read, and each URL that it leads to is
/// compared.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    subjects: Subjects,

    /// Say why a node serves old content, with the evidence
    #[arg(long)]
    explain: bool,

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
  purgewatch check --explain recommendations
  purgewatch check recommendations-current        # a pointer, and all that it leads to
  purgewatch check --node-http http://127.0.0.1:6081 --origin http://10.0.0.5:8080 \\
      http://rec.example.com/api/v1/recommendations/

Exit status: 0 all fresh; 1 old content was found, or a pointer leads to what is not there; 2 \
usage or configuration; 3 a node or the origin did not answer, what they serve cannot be \
compared, or the node is no cache; 130 interrupted.";

/// The search for causes gets so long at least, whatever is left of the limit.
const SHORTEST_SEARCH: Duration = Duration::from_secs(3);

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
            snapshot = compare(&subject, arguments) => snapshot,
        }
    });
    match snapshot {
        Ok(Compared { snapshot, complete, found }) => {
            if !complete {
                complain("the limit of --timeout passed before everything was compared");
            }
            let mut output = Output::stdout();
            let detail = Detail::Evidence(&found);
            show(&mut output, arguments.output, &subject, &snapshot, detail);
            let unreached = if complete { Exit::Done } else { Exit::Unreachable };
            output.finish(exit(&snapshot).max(unreached))
        }
        Err(exit) => exit,
    }
}

/// What is known at the end.
struct Compared {
    snapshot: Snapshot,
    /// Whether everything was compared.
    complete: bool,
    found: Vec<Found>,
}

/// One round of everything.
async fn compare(subject: &Subject, arguments: &Arguments) -> Result<Compared, Exit> {
    let clock = Clock::start();
    let peers =
        Peers::new(&subject.config, &Peers::default(), &Credentials::from_environment(), clock)
            .map_err(|error| {
                complain(&error);
                Exit::Secret
            })?;
    let mut plan = plan(&subject.config);
    plan.once = true;
    plan.explain = false;
    let rounds = plan.watches.len();
    let engine = Engine::new(plan, Restored::default(), &[], random_seed(), clock.now());
    let mut driver = Driver::new(engine, Arc::new(peers), clock, None);
    let end = clock.now() + arguments.timeout;
    let deadline = Instant::from_std(clock.instant_of(end));
    let mut progress = progress(rounds);
    let complete = loop {
        match timeout_at(deadline, driver.next()).await {
            Ok(Event::Idle) => break true,
            Ok(Event::Changed { .. }) => progress.advance(),
            Ok(_) => {}
            Err(_) => break false,
        }
    };
    drop(progress);
    let snapshot = driver.snapshot();
    let cases = if arguments.explain { driver.cases() } else { Vec::new() };
    let left = end.since(clock.now()).max(SHORTEST_SEARCH);
    let found = explain(subject, cases, Asked::OriginToo, left, clock).await;
    Ok(Compared { snapshot, complete, found })
}

/// The worst of what was found.
pub(super) fn exit(snapshot: &Snapshot) -> Exit {
    let targets = snapshot.targets.iter().map(|target| match target.state {
        // That two servers agree proves nothing of a cache when neither is one.
        State::Fresh if target.probes_with(ProbeResult::NotACache) > 0 => Exit::Unreachable,
        State::Fresh => Exit::Done,
        State::Lagging | State::Stale => Exit::Stale,
        State::Unknown | State::Unverifiable | State::CacheDown | State::OriginDown => {
            Exit::Unreachable
        }
    });
    let pointers = snapshot.pointers.iter().map(|pointer| pointer_exit(pointer, None));
    Exit::of_nodes(targets.chain(pointers))
}
