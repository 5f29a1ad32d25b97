//! Bans on their way to the nodes: all nodes at a time, one connection each, within one limit.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::super::Exit;
use super::super::target::ChosenNode;
use super::source::Bans;
use crate::admin::{AdminError, Client, Fault, Kind, Options, Outcome, Retry, Stage};
use crate::ban::{Refusal, ServerVersion};
use crate::clock::random_seed;
use crate::model::{NodeName, format_duration};
use crate::protocol::Command;

/// So many nodes are served at a time.
const NODES_AT_A_TIME: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Fewer bans are over before anybody reads a progress line.
const WORTH_SHOWING: usize = 500;

/// The limits of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For everything, on all nodes.
    pub(super) total: Duration,
    /// How often a node is tried again where that can help.
    pub(super) retries: u32,
}

/// How it went on one node.
#[derive(Debug)]
pub(super) struct NodeReport {
    pub(super) node: NodeName,
    /// Where its admin port is, as text.
    pub(super) place: String,
    /// One for each ban.
    pub(super) states: Vec<State>,
    /// Its connection, once it is this node's turn.
    client: Option<Client>,
    /// So many bans, counted from the first one, have been handed to the client.
    handed: Cell<usize>,
    /// How often it was tried again.
    pub(super) retried: u32,
    /// How long it took, from the start to its last answer.
    pub(super) took: Duration,
}

/// Where a ban is.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Nothing is known of it: not sent, or no answer yet.
    Waiting,
    /// On the node's list.
    Taken,
    /// It failed.
    Failed {
        /// Why, at the last attempt.
        failure: Rc<Failure>,
        /// Whether an attempt before that may have put it on the list all the same.
        perhaps_before: bool,
    },
}

/// Why a ban has no good end.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client says so.
    Admin(AdminError),
    /// Not sent: this server does not know it.
    Unknown(Refusal),
    /// Not sent, because of how another ban went.
    Withheld(AdminError),
    /// The limit on the whole, or Ctrl-C, came before the answer.
    Ended(End),
    /// The same came before it was sent: at this step, or before its turn.
    NotSent { end: End, stage: Option<Stage> },
}

/// What ended everything before its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The limit on the whole was reached.
    Limit(Duration),
    /// Somebody pressed Ctrl-C.
    Interrupt,
}

/// Sends every ban to every node.
///
/// # Errors
/// When the runtime or the signal handler cannot be set up.
pub(super) fn send(
    nodes: &[ChosenNode],
    bans: &Bans,
    limits: Limits,
) -> io::Result<(Vec<NodeReport>, bool)> {
    let commands: Vec<Command> = bans.bans.iter().filter_map(|ban| ban.command.clone()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(send_to_all(nodes, bans, &commands, limits));
    // A name lookup that was given up may hang on in its thread: nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn send_to_all(
    nodes: &[ChosenNode],
    bans: &Bans,
    commands: &[Command],
    limits: Limits,
) -> io::Result<(Vec<NodeReport>, bool)> {
    let start = Instant::now();
    let mut interrupts = Interrupts::listen()?;
    let mut reports: Vec<NodeReport> = nodes
        .iter()
        .map(|node| NodeReport {
            node: node.target.node.clone(),
            place: node.target.place.to_string(),
            states: vec![State::Waiting; commands.len()],
            client: None,
            handed: Cell::new(0),
            retried: 0,
            took: Duration::ZERO,
        })
        .collect();
    let progress = Progress::new(nodes.len() * commands.len());
    let served = stream::iter(nodes.iter().zip(&mut reports).enumerate())
        .map(|(at, (node, report))| {
            let progress = &progress;
            let mut attempt = Attempt { node, bans, commands, limits, start, progress, at };
            async move { attempt.serve(report).await }
        })
        .buffer_unordered(NODES_AT_A_TIME)
        .for_each(|()| std::future::ready(()));
    let mut interrupted = false;
    {
        let mut served = pin!(timeout(limits.total, served));
        let mut ticks = interval_at(start + progress.period(), progress.period());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut served => break,
                () = interrupts.next() => {
                    interrupted = true;
                    break;
                }
                _ = ticks.tick(), if progress.is_shown() => progress.show(),
            }
        }
    }
    progress.clear();
    let end = if interrupted { End::Interrupt } else { End::Limit(limits.total) };
    for report in &mut reports {
        report.end(end);
        if report.took.is_zero() {
            report.took = start.elapsed();
        }
    }
    Ok((reports, interrupted))
}

impl NodeReport {
    /// Settles what has no answer yet: what may have been sent, and what cannot have been.
    fn end(&mut self, end: End) {
        let client = self.client.take();
        let connected = client.as_ref().is_some_and(Client::has_connected);
        let stage = client.filter(|_| !connected).and_then(|client| client.stage());
        let sent = if connected { self.handed.get() } else { 0 };
        let [unknown, not_sent] =
            [Failure::Ended(end), Failure::NotSent { end, stage }].map(Rc::new);
        for (place, state) in self.states.iter_mut().enumerate() {
            if matches!(state, State::Waiting) {
                state.fail(if place < sent { &unknown } else { &not_sent });
            }
        }
    }
}

/// The attempts on one node.
struct Attempt<'a> {
    node: &'a ChosenNode,
    bans: &'a Bans,
    commands: &'a [Command],
    limits: Limits,
    start: Instant,
    progress: &'a Progress,
    /// The node's number, so that the pauses of several nodes differ.
    at: usize,
}

impl Attempt<'_> {
    async fn serve(&mut self, report: &mut NodeReport) {
        let client = Client::new(self.node.target.clone(), self.options());
        let mut random = fastrand::Rng::with_seed(random_seed() ^ self.at as u64);
        let mut pause = FIRST_PAUSE;
        report.client = Some(client.clone());
        if self.bans.depend_on_version() {
            self.examine(&client, &mut report.states).await;
        }
        loop {
            self.round(&client, &mut report.states, &report.handed).await;
            report.took = self.start.elapsed();
            let again = report.states.iter().any(State::may_be_retried);
            let left = self.limits.total.saturating_sub(self.start.elapsed());
            if !again || report.retried == self.limits.retries || left <= pause {
                return;
            }
            sleep(pause.mul_f64(0.5 + random.f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            report.retried += 1;
        }
    }

    /// Each step gets a little less than the whole, so that what is reported is the step that
    /// took too long, and not only that time was up.
    fn options(&self) -> Options {
        let usual = Options::default();
        let most = self.limits.total.mul_f64(0.9);
        let step = |limit: Duration| self.node.step_limit.unwrap_or(limit).min(most);
        Options {
            connect: step(usual.connect),
            dial_in: usual.dial_in.min(most),
            authenticate: step(usual.authenticate),
            reply: step(usual.reply),
            keep_alive: None,
            ..usual
        }
    }

    /// Learns the server's version, and keeps back what it does not know: versions before 7.4 take
    /// some unknown fields for others, whose names theirs begin with. When the version cannot be
    /// learnt, the first attempt to send says why.
    async fn examine(&self, client: &Client, states: &mut [State]) {
        let Ok(greeting) = client.connect().await else { return };
        let Some((major, minor, _)) = greeting.version.and_then(|version| version.numbers()) else {
            return;
        };
        for (at, refusal) in self.bans.unknown_to(ServerVersion::new(major, minor)) {
            if let Some(state) = states.get_mut(at) {
                state.fail(&Rc::new(Failure::Unknown(refusal)));
            }
        }
    }

    /// Sends every ban that is not on the list yet, once.
    async fn round(&self, client: &Client, states: &mut [State], handed: &Cell<usize>) {
        let pending: Vec<usize> =
            (0..states.len()).filter(|&at| states.get(at).is_some_and(State::is_open)).collect();
        let hand_over = |&at: &usize| {
            handed.set(handed.get().max(at + 1));
            self.commands.get(at).cloned()
        };
        let commands = pending.iter().filter_map(hand_over);
        let mut batch = client.batch(stream::iter(commands));
        let mut places = pending.iter();
        while let Some(result) = batch.next().await {
            let Some(&place) = places.next() else { return };
            let Some(state) = states.get_mut(place) else { return };
            let Err(error) = result else {
                self.progress.advance();
                *state = State::Taken;
                continue;
            };
            let hopeless = ends_the_round(&error);
            let withheld = Rc::new(Failure::Withheld(error.clone()));
            let failure = Rc::new(Failure::Admin(error));
            state.fail(&failure);
            if hopeless {
                // Those that were handed over already may have gone out with it.
                let sent = handed.get();
                for &rest in places {
                    if let Some(state) = states.get_mut(rest) {
                        state.fail(if rest < sent { &failure } else { &withheld });
                    }
                }
                return;
            }
        }
    }
}

impl State {
    /// Whether it is still to be sent: not taken, and not rejected for good.
    fn is_open(&self) -> bool {
        match self {
            Self::Waiting => true,
            Self::Taken => false,
            Self::Failed { .. } => self.may_be_retried(),
        }
    }

    /// Notes a failure. That an earlier one left open whether the ban is on the list stays true.
    fn fail(&mut self, failure: &Rc<Failure>) {
        let perhaps_before = matches!(self, Self::Failed { .. }) && !self.is_certain();
        *self = Self::Failed { failure: Rc::clone(failure), perhaps_before };
    }

    /// Bans may be repeated: the same ban twice does no harm.
    fn may_be_retried(&self) -> bool {
        match self {
            Self::Failed { failure, .. } => match &**failure {
                Failure::Admin(error) | Failure::Withheld(error) => error.retry() != Retry::Never,
                Failure::Unknown(_) | Failure::Ended(_) | Failure::NotSent { .. } => false,
            },
            Self::Waiting | Self::Taken => false,
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure, .. } => Some(failure),
            Self::Waiting | Self::Taken => None,
        }
    }

    /// Whether it is certain where the ban is: on the list, or not.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::Failed { failure, perhaps_before } => !perhaps_before && failure.is_certain(),
            Self::Taken => true,
            Self::Waiting => false,
        }
    }

    /// What happened to a ban that failed, with the node's name in front.
    pub(super) fn message(&self, node: &NodeName) -> Option<String> {
        let Self::Failed { failure, perhaps_before } = self else { return None };
        let mut message = failure.message(node);
        if *perhaps_before && failure.is_certain() {
            message.push_str("; whether an earlier attempt carried it out is unknown");
        }
        Some(message)
    }
}

/// Whether the other bans would fare alike: there is no connection, or it cannot be relied on.
fn ends_the_round(error: &AdminError) -> bool {
    let not_connected = !matches!(error.stage, Stage::Command(_));
    not_connected || matches!(error.kind, Kind::ForeignReply { .. } | Kind::UnaskedReply { .. })
}

impl Failure {
    /// A stable name for programs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Admin(error) | Self::Withheld(error) => error.label(),
            Self::Unknown(refusal) => refusal.code(),
            Self::Ended(end) | Self::NotSent { end, .. } => match end {
                End::Limit(_) => "deadline",
                End::Interrupt => "interrupted",
            },
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Admin(error) | Self::Withheld(error) => match error.fault() {
                Fault::Unreachable | Fault::Unreliable => Exit::Unreachable,
                Fault::Secret => Exit::Secret,
                Fault::Rejected { .. } => Exit::Rejected,
                Fault::ChildNotRunning => Exit::CacheDown,
            },
            Self::Unknown(_) => Exit::Usage,
            Self::Ended(end) | Self::NotSent { end, .. } => match end {
                End::Limit(_) => Exit::Unreachable,
                End::Interrupt => Exit::Interrupted,
            },
        }
    }

    /// Whether this attempt certainly did not put the ban on the list.
    fn is_certain(&self) -> bool {
        match self {
            Self::Admin(error) => error.outcome() == Outcome::NotDone,
            Self::Unknown(_) | Self::Withheld(_) | Self::NotSent { .. } => true,
            Self::Ended(_) => false,
        }
    }

    fn message(&self, node: &NodeName) -> String {
        match self {
            Self::Admin(error) => error.to_string(),
            Self::Unknown(refusal) => format!("{node}: not sent: {refusal}"),
            // Without a connection all fare alike, sent or not: they are one line.
            Self::Withheld(error) if error.outcome() == Outcome::NotDone => error.to_string(),
            Self::Withheld(_) => {
                format!("{node}: not sent, because the replies of this node cannot be relied on")
            }
            Self::Ended(End::Limit(limit)) => format!(
                "{node}: no answer when the limit of {} was reached; whether it was carried out \
                 is unknown",
                format_duration(*limit)
            ),
            Self::Ended(End::Interrupt) => {
                format!("{node}: interrupted; whether it was carried out is unknown")
            }
            Self::NotSent { end, stage } => {
                let step = stage.as_ref().map(|stage| format!("{stage}: ")).unwrap_or_default();
                match end {
                    End::Limit(limit) => {
                        let limit = format_duration(*limit);
                        format!("{node}: {step}the limit of {limit} was reached; nothing was sent")
                    }
                    End::Interrupt => format!("{node}: {step}interrupted; nothing was sent"),
                }
            }
        }
    }
}

/// Ctrl-C, and the signal by which CI systems end a job.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How many bans were taken, shown on a terminal while it goes on.
struct Progress {
    taken: Cell<usize>,
    total: usize,
    shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        let shown = total >= WORTH_SHOWING && io::stderr().is_terminal();
        Self { taken: Cell::new(0), total, shown }
    }

    fn period(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn is_shown(&self) -> bool {
        self.shown
    }

    fn advance(&self) {
        self.taken.set(self.taken.get() + 1);
    }

    fn show(&self) {
        let _ = write!(io::stderr().lock(), "\r{} of {} bans taken", self.taken.get(), self.total);
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
