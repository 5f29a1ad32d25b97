//! `purgewatch wait`: until all nodes serve what the origin serves, or a limit has passed.

mod pointer;

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::Exit;
use super::check::{Detail, Found, exit, explain, show};
use super::output::{Format, Output, Untrusted, complain};
use super::subject::{Subject, Subjects};
use crate::clock::{Clock, random_seed};
use crate::daemon::{Asked, Driver, Event, Peers, plan};
use crate::engine::{Engine, PointerState, Restored, Snapshot};
use crate::model::{format_duration, parse_duration};
use crate::systemd::Credentials;
use crate::verdict::{ProbeResult, State};

/// Wait until every node serves what the origin serves: a deployment gate.
///
/// Called after the origin went over to the new content and the caches were invalidated. The
/// endpoints are compared at once and then every second, until all of them are fresh at all nodes.
/// What a comparison is, and which endpoints and URLs can be named, is as for `check`.
///
/// With --pointer: until the pointer names --value, at its origin and through every node that
/// serves it, and each URL that it leads to answers, and equals the origin, through every node.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    subjects: Subjects,

    /// Wait for this pointer of the configuration to lead to --value
    #[arg(long, value_name = "NAME", requires = "value", conflicts_with_all = ["subjects", "node_http"])]
    pointer: Option<String>,

    /// What the pointer is to name
    #[arg(long, value_name = "VALUE", requires = "pointer")]
    value: Option<String>,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    within: Duration,

    /// The pause between two comparisons of an endpoint
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    every: Duration,

    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  purgewatch wait recommendations --within 30s
  purgewatch wait -c purgewatch.toml --node cache-01 --node cache-02
  purgewatch wait --pointer recommendations-current --value 2024-11-24 --within 5m
  purgewatch wait --node-http http://127.0.0.1:6081 --origin http://10.0.0.5:8080 \\
      http://rec.example.com/api/v1/recommendations/

Exit status: 0 all fresh; 1 a node still served old content at the end, or the pointer did not \
lead to the value everywhere; 2 usage or configuration; 3 a node or the origin did not answer, \
what they serve cannot be compared, or the node is no cache; 130 interrupted.";

/// So long the end is put off at most to find out why some nodes are not fresh.
const SEARCH: Duration = Duration::from_secs(4);

/// No pause is shorter: the origin serves users too.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(arguments: &Arguments) -> Exit {
    if let Some(name) = &arguments.pointer {
        return pointer::run(arguments, name);
    }
    let subject = match Subject::of(&arguments.subjects) {
        Ok(subject) => subject,
        Err(exit) => return exit,
    };
    let waited = block_on(wait(&subject, arguments));
    match waited {
        Ok(Waited { snapshot, took, fresh, found }) => {
            let mut output = Output::stdout();
            let detail = Detail::Findings(&found);
            show(&mut output, arguments.output, &subject, &snapshot, detail);
            let took = format_duration(Duration::from_millis(
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ));
            if !fresh {
                complain(format_args!("not all was fresh within {took}"));
            } else if arguments.output == Format::Human {
                output.line(format_args!("all fresh after {took}"));
            }
            output.finish(exit(&snapshot))
        }
        Err(exit) => exit,
    }
}

/// Runs it to its end, or until it is interrupted.
fn block_on<T>(waiting: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            complain(format_args!("cannot start: {fault}"));
            return Err(Exit::Usage);
        }
    };
    let waited = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(Exit::Interrupted),
            waited = waiting => waited,
        }
    });
    // A name lookup that was given up may hang on in its thread: nobody waits for it.
    runtime.shutdown_background();
    waited
}

/// How it ended.
struct Waited {
    snapshot: Snapshot,
    took: Duration,
    fresh: bool,
    /// Why the others are not.
    found: Vec<Found>,
}

async fn wait(subject: &Subject, arguments: &Arguments) -> Result<Waited, Exit> {
    let clock = Clock::start();
    let peers =
        Peers::new(&subject.config, &Peers::default(), &Credentials::from_environment(), clock)
            .map_err(|error| {
                complain(&error);
                Exit::Secret
            })?;
    let mut plan = plan(&subject.config);
    plan.explain = false;
    for watch in &mut plan.watches {
        watch.interval = arguments.every.max(SHORTEST_PAUSE);
    }
    for pointer in &mut plan.pointers {
        pointer.interval = arguments.every.max(SHORTEST_PAUSE);
    }
    let start = clock.now();
    let engine = Engine::new(plan, Restored::default(), &[], random_seed(), start);
    let mut driver = Driver::new(engine, Arc::new(peers), clock, None);
    let deadline = Instant::from_std(clock.instant_of(start + arguments.within));
    let mut progress = Progress::new();
    loop {
        let event = timeout_at(deadline, driver.next()).await;
        let is_over = event.is_err();
        if !is_over && !matches!(event, Ok(Event::Changed { .. } | Event::Pointer(_))) {
            continue;
        }
        let snapshot = driver.snapshot();
        let good = snapshot.pointers.iter().all(|p| p.state == PointerState::Good);
        let fresh = good && snapshot.targets.iter().all(|target| target.state == State::Fresh);
        // A server that is no cache will not become one.
        let hopeless = snapshot.targets.iter().any(|t| t.probes_with(ProbeResult::NotACache) > 0);
        if fresh || is_over || hopeless && all_seen(&snapshot) {
            progress.clear();
            let took = clock.now().since(start);
            let cases = driver.cases();
            let found = explain(subject, cases, Asked::NodeOnly, SEARCH, clock).await;
            return Ok(Waited { fresh: fresh && !hopeless, snapshot, took, found });
        }
        progress.show(subject, &snapshot);
    }
}

fn all_seen(snapshot: &Snapshot) -> bool {
    snapshot.targets.iter().all(|target| target.state != State::Unknown)
}

/// A line on stderr that says who is waited for, on a terminal and nowhere else.
struct Progress {
    shown: bool,
    stands: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), stands: false }
    }

    fn show(&mut self, subject: &Subject, snapshot: &Snapshot) {
        if !self.shown {
            return;
        }
        let all = snapshot.targets.len();
        let waiting = || snapshot.targets.iter().filter(|t| t.state != State::Fresh);
        let Some(first) = waiting().next() else { return };
        let title = subject.title(&first.endpoint);
        let others = match waiting().count() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.stands = true;
        // There is nobody to tell when the terminal is gone.
        let _ = write!(
            std::io::stderr(),
            "\r\u{1b}[K{} of {all} fresh, waiting for {} at {} ({}){others}",
            all - waiting().count(),
            Untrusted(&title),
            first.node,
            first.state.label()
        );
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.stands) {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
