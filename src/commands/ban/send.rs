//! Bans on their way to the nodes: one connection to each, within one limit.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream;
use tokio::time::{Instant, sleep};

use super::super::Exit;
use super::super::fleet::{End, Outcome as FleetOutcome, Progress, Work, on_each};
use super::super::proof::{Attested, Peers};
use super::super::target::ChosenNode;
use super::source::Bans;
use super::tested::{Tested, TestedEnd, Wait};
use super::verify::{NodeProofs, Verification};
use crate::admin::{AdminError, Client, Fault, Kind, Options, Outcome, Retry, Stage};
use crate::ban::{Refusal, ServerVersion};
use crate::clock::random_seed;
use crate::model::{NodeName, format_duration};
use crate::protocol::Command;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The limits of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For everything, on all nodes.
    pub(super) total: Duration,
    /// How long after they were taken the bans are sent once more.
    pub(super) repeat_after: Option<Duration>,
    /// How long to wait until the whole cache was tested, if that is asked for.
    pub(super) until_tested: Option<Duration>,
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
    /// How often it was tried again.
    pub(super) retried: u32,
    /// How long it took, from its turn to its last answer.
    pub(super) took: Duration,
    /// What was found out afterwards, where every ban was taken and proof was asked for.
    pub(super) proofs: Vec<Attested>,
    /// Whether the whole cache was tested, where every ban was taken and that was asked for.
    pub(super) tested: Option<Tested>,
    /// What kept the bans, all of them taken, from being sent once more as was asked for.
    pub(super) not_repeated: Option<End>,
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

/// Sends every ban to every node. `on_done` is told of each node, as [`on_each`] has it.
///
/// # Errors
/// When the runtime or the signal handler cannot be set up.
pub(super) fn send(
    nodes: &[ChosenNode],
    bans: &Bans,
    verification: Option<&Verification>,
    limits: Limits,
    progress: &Progress,
    on_done: impl FnMut(&NodeReport),
) -> io::Result<FleetOutcome<NodeReport>> {
    let commands: Vec<Command> = bans.bans.iter().filter_map(|ban| ban.command.clone()).collect();
    let begin = Instant::now();
    let last = bans.bans.last().and_then(|ban| ban.expression.as_ref());
    let peers = verification.map(|verification| Peers::new(&verification.plan));
    let errand = |(at, node)| Errand {
        node,
        bans,
        commands: &commands,
        limits,
        progress,
        begin,
        at,
        start: None,
        client: None,
        handed: 0,
        states: vec![State::Waiting; commands.len()],
        retried: 0,
        took: None,
        proofs: verification.zip(peers.as_ref()).map(|(v, peers)| v.of_node(peers, at)),
        wait: limits.until_tested.map(|within| Wait { last, within }),
        tested: None,
        restarted: false,
        is_repeat_due: false,
    };
    on_each(nodes.iter().enumerate().map(errand).collect(), limits.total, progress, on_done)
}

/// The bans on their way to one node.
struct Errand<'a> {
    node: &'a ChosenNode,
    bans: &'a Bans,
    commands: &'a [Command],
    limits: Limits,
    progress: &'a Progress,
    /// When the first node's turn came: the limit on everything counts from here.
    begin: Instant,
    /// The node's number, so that the pauses of several nodes differ.
    at: usize,
    /// When its turn came.
    start: Option<Instant>,
    /// Its connection, while it is this node's turn.
    client: Option<Client>,
    /// So many bans, counted from the first one, have been handed to the client.
    handed: usize,
    states: Vec<State>,
    retried: u32,
    took: Option<Duration>,
    proofs: Option<NodeProofs<'a>>,
    wait: Option<Wait<'a>>,
    tested: Option<Tested>,
    /// Whether the cache process is another one than before the first ban.
    restarted: bool,
    /// Whether all was taken and has still to be sent once more.
    is_repeat_due: bool,
}

impl Work for Errand<'_> {
    type Report = NodeReport;

    async fn run(&mut self) {
        let start = *self.start.insert(Instant::now());
        let client = Client::new(self.node.target.clone(), self.options());
        self.client = Some(client.clone());
        if self.bans.depend_on_version() {
            self.examine(&client).await;
        }
        let worker = self.worker(&client).await;
        self.deliver(&client, start).await;
        if let Some(pause) = self.limits.repeat_after
            && self.are_all_taken()
        {
            self.is_repeat_due = true;
            sleep(pause).await;
            self.is_repeat_due = false;
            self.states.fill(State::Waiting);
            self.deliver(&client, start).await;
        }
        if !self.are_all_taken() {
            return;
        }
        let commands = self.commands;
        if let Some(proofs) = &mut self.proofs {
            let again = async |bans: &[usize]| {
                let commands = bans.iter().filter_map(|&at| commands.get(at).cloned());
                let mut batch = client.batch(stream::iter(commands));
                let mut all = true;
                while let Some(result) = batch.next().await {
                    all &= result.is_ok();
                }
                all
            };
            proofs.prove(again).await;
        }
        if let Some(wait) = &self.wait {
            self.tested = Some(wait.run(&client, self.progress).await);
        }
        if worker.is_some() && self.worker(&client).await != worker {
            self.restarted = true;
            if let Some(tested) = &mut self.tested {
                tested.end = TestedEnd::Restarted;
            }
        }
    }

    fn report(&mut self, end: Option<End>) -> NodeReport {
        let client = self.client.take();
        if let Some(end) = end {
            self.settle(client.as_ref(), end);
        }
        let cut_short = || self.wait.as_ref().map(|wait| Tested::cut_short(wait.within));
        let tested = self.tested.take().or_else(cut_short).filter(|_| self.are_all_taken());
        let proofs = self.proofs.take().filter(|_| self.are_all_taken());
        let waited = self.start.map_or(Duration::ZERO, |start| start.elapsed());
        NodeReport {
            node: self.node.target.node.clone(),
            place: self.node.target.place.to_string(),
            states: std::mem::take(&mut self.states),
            retried: self.retried,
            took: self.took.unwrap_or(waited),
            proofs: proofs.map(|proofs| proofs.attest(self.restarted)).unwrap_or_default(),
            tested,
            not_repeated: end.filter(|_| self.is_repeat_due),
        }
    }
}

impl Errand<'_> {
    /// Sends what is not on the list yet, as often as that may help.
    async fn deliver(&mut self, client: &Client, start: Instant) {
        let mut random = fastrand::Rng::with_seed(random_seed() ^ self.at as u64);
        let mut pause = FIRST_PAUSE;
        loop {
            self.round(client).await;
            self.took = Some(start.elapsed());
            let again = self.states.iter().any(State::may_be_retried);
            let left = self.limits.total.saturating_sub(self.begin.elapsed());
            if !again || self.retried == self.limits.retries || left <= pause {
                return;
            }
            sleep(pause.mul_f64(0.5 + random.f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.retried += 1;
        }
    }

    /// The process id of the cache process, where something is to be proven.
    async fn worker(&self, client: &Client) -> Option<u32> {
        if self.proofs.is_none() && self.wait.is_none() {
            return None;
        }
        client.pids().await.ok().and_then(|pids| pids.worker)
    }

    fn are_all_taken(&self) -> bool {
        self.states.iter().all(|state| matches!(state, State::Taken))
    }

    /// Settles what has no answer yet: what may have been sent, and what cannot have been.
    fn settle(&mut self, client: Option<&Client>, end: End) {
        let connected = client.is_some_and(Client::has_connected);
        let stage = client.filter(|_| !connected).and_then(Client::stage);
        let sent = if connected { self.handed } else { 0 };
        let [unknown, not_sent] =
            [Failure::Ended(end), Failure::NotSent { end, stage }].map(Rc::new);
        for (place, state) in self.states.iter_mut().enumerate() {
            if matches!(state, State::Waiting) {
                state.fail(if place < sent { &unknown } else { &not_sent });
            }
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
    async fn examine(&mut self, client: &Client) {
        let Ok(greeting) = client.connect().await else { return };
        let Some((major, minor, _)) = greeting.version.and_then(|version| version.numbers()) else {
            return;
        };
        for (at, refusal) in self.bans.unknown_to(ServerVersion::new(major, minor)) {
            if let Some(state) = self.states.get_mut(at) {
                state.fail(&Rc::new(Failure::Unknown(refusal)));
            }
        }
    }

    /// Sends every ban that is not on the list yet, once.
    async fn round(&mut self, client: &Client) {
        let Self { states, handed, commands, progress, .. } = self;
        let pending: Vec<usize> =
            (0..states.len()).filter(|&at| states.get(at).is_some_and(State::is_open)).collect();
        let handed = Cell::from_mut(handed);
        let hand_over = |&at: &usize| {
            handed.set(handed.get().max(at + 1));
            commands.get(at).cloned()
        };
        let commands = pending.iter().filter_map(hand_over);
        let mut batch = client.batch(stream::iter(commands));
        let mut places = pending.iter();
        while let Some(result) = batch.next().await {
            let Some(&place) = places.next() else { return };
            let Some(state) = states.get_mut(place) else { return };
            let Err(error) = result else {
                progress.advance();
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

    /// The admin client's error, where it is one.
    pub(super) const fn error(&self) -> Option<&AdminError> {
        match self {
            Self::Admin(error) | Self::Withheld(error) => Some(error),
            Self::Unknown(_) | Self::Ended(_) | Self::NotSent { .. } => None,
        }
    }

    /// Whether the node's varnishd does not know such a ban.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Unknown(_))
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
