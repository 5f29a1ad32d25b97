//! The owner of the socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::codec::Decoder as _;

use super::backoff::Backoff;
use super::connection::{Connection, Transport, open, over, received};
use super::{AdminError, Greeting, Kind, Options, Stage, Target};
use crate::protocol::{Command, Event, Phase, Reply};

/// Room that an empty output may keep, in bytes, after a large command.
const KEPT_OUTPUT: usize = 256 * 1024;

/// A connection without a command for that long may have ended meanwhile.
const IDLE: Duration = Duration::from_millis(5);

/// With so many replies still to come, a read that brings few is followed by a short rest: what
/// varnishd says in the meantime comes with the next one. That many keep it busy for longer than
/// the rest, and the processor time saved is its own where both run on one machine.
const REST_ABOVE: usize = 64;

/// The rest.
const REST: Duration = Duration::from_millis(1);

/// As good as never: a timer needs some instant, and so does a limit that is longer.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

fn after(start: Instant, pause: Duration) -> Instant {
    start + pause.min(NEVER)
}

/// What a handle asks of the task.
pub(super) enum Job {
    /// Be connected.
    Connect(oneshot::Sender<Result<Greeting, AdminError>>),
    /// Send a command.
    Command(Command, Asker),
}

/// Who wants a reply.
pub(super) enum Asker {
    /// One caller for one reply.
    One(oneshot::Sender<Result<Reply, AdminError>>),
    /// One caller for one reply, who waits for so long where others wait for `Options::reply`.
    Patient(oneshot::Sender<Result<Reply, AdminError>>, Duration),
    /// A batch.
    Batch(BatchAsker),
    /// The task itself, to see whether the peer is alive.
    KeepAlive,
    /// Nobody any more: the reply is overdue and whoever asked was told so.
    Nobody,
}

/// What a batch is told of one command; `None` when the task ended without an answer.
pub(super) type Answer = Option<Result<Reply, AdminError>>;

/// One command of a batch, which leaves room in its channel for every reply under way. It is told
/// something in any case, or it would wait for ever.
pub(super) struct BatchAsker(Option<mpsc::Sender<Answer>>);

impl BatchAsker {
    pub(super) const fn new(replies: mpsc::Sender<Answer>) -> Self {
        Self(Some(replies))
    }

    fn tell(&mut self, answer: Answer) {
        if let Some(replies) = self.0.take() {
            let _ = replies.try_send(answer);
        }
    }
}

impl Drop for BatchAsker {
    fn drop(&mut self) {
        self.tell(None);
    }
}

impl Asker {
    fn tell(self, result: Result<Reply, AdminError>) {
        // Whoever has gone does not want to know.
        match self {
            Self::One(asker) | Self::Patient(asker, _) => drop(asker.send(result)),
            Self::Batch(mut asker) => asker.tell(Some(result)),
            Self::KeepAlive | Self::Nobody => {}
        }
    }

    fn has_gone(&self) -> bool {
        match self {
            Self::One(asker) | Self::Patient(asker, _) => asker.is_closed(),
            Self::Batch(asker) => asker.0.as_ref().is_none_or(mpsc::Sender::is_closed),
            Self::KeepAlive => false,
            Self::Nobody => true,
        }
    }
}

impl Job {
    fn fail(self, error: AdminError) {
        match self {
            Self::Connect(asker) => drop(asker.send(Err(error))),
            Self::Command(_, asker) => asker.tell(Err(error)),
        }
    }

    fn has_gone(&self) -> bool {
        match self {
            Self::Connect(asker) => asker.is_closed(),
            Self::Command(_, asker) => asker.has_gone(),
        }
    }
}

/// Where connections come from.
pub(super) enum Source {
    /// Each is dialled.
    Dial,
    /// There is this one, and no other after it.
    Given(Option<Box<dyn Transport>>),
}

/// How far the task is on its way to a connection. Shared with the handles, whose deadline errors
/// name it.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Way>>);

#[derive(Default)]
struct Way {
    /// The step; `None` once there is a connection, and while none is wanted.
    stage: Option<Stage>,
    /// Whether there ever was a connection that a command could go out on.
    arrived: bool,
}

impl Progress {
    fn set(&self, stage: Option<Stage>) {
        self.way().stage = stage;
    }

    fn arrived(&self) {
        self.way().arrived = true;
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        self.way().stage.clone()
    }

    pub(super) fn has_arrived(&self) -> bool {
        self.way().arrived
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task: connects when there is something to do, and serves until the connection ends.
pub(super) struct Task {
    source: Source,
    target: Target,
    options: Options,
    jobs: mpsc::Receiver<Job>,
    /// Jobs that wait for an overdue reply, or for the next connection, with the time at which
    /// they are given up.
    parked: VecDeque<(Instant, Job)>,
    backoff: Backoff,
    not_before: Option<Instant>,
    progress: Progress,
}

impl Task {
    pub(super) fn new(
        source: Source,
        target: Target,
        options: Options,
        jobs: mpsc::Receiver<Job>,
        progress: Progress,
    ) -> Self {
        let backoff = Backoff::new(&options);
        let parked = VecDeque::new();
        Self { source, target, options, jobs, parked, backoff, not_before: None, progress }
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            let job = match self.parked.pop_front() {
                Some((_, job)) => job,
                None => match self.jobs.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            if job.has_gone() {
                continue;
            }
            let connected = self.connect().await;
            self.progress.set(None);
            match connected {
                Ok(connection) => {
                    self.progress.arrived();
                    let mut service = Service::new(&mut self, connection);
                    service.take(job);
                    let useful = service.run().await;
                    if !useful {
                        self.not_before = Some(after(Instant::now(), self.backoff.failed()));
                    }
                }
                Err(error) => {
                    self.not_before = Some(after(Instant::now(), self.backoff.failed()));
                    self.fail_all(job, &error);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Connection<Asker>, AdminError> {
        if let Some(at) = self.not_before.take()
            && at > Instant::now()
        {
            self.progress.set(Some(Stage::Pause));
            sleep_until(at).await;
        }
        let step = |stage| self.progress.set(Some(stage));
        match &mut self.source {
            Source::Dial => open(&self.target, &self.options, step).await,
            Source::Given(stream) => match stream.take() {
                Some(stream) => {
                    let Target { node, secret, .. } = &self.target;
                    over(stream, node, secret, &self.options, step).await
                }
                None => Err(AdminError {
                    node: self.target.node.clone(),
                    stage: Stage::Connect,
                    kind: Kind::Closed,
                }),
            },
        }
    }

    /// Fails `job` and everything that is queued by now, in order.
    fn fail_all(&mut self, job: Job, error: &AdminError) {
        job.fail(error.clone());
        for (_, job) in self.parked.drain(..) {
            job.fail(error.clone());
        }
        while let Ok(job) = self.jobs.try_recv() {
            job.fail(error.clone());
        }
    }
}

/// One connection being served.
struct Service<'a> {
    task: &'a mut Task,
    connection: Connection<Asker>,
    /// When the reply clock began to run: at the last reply, or at the first command after an idle
    /// time.
    since: Instant,
    /// When the connection will be dropped, while a reply is overdue.
    drop_at: Option<Instant>,
    /// Whether any command has been answered on this connection.
    answered: bool,
    /// Whether the socket still takes what is written.
    writable: bool,
}

/// Why the service of a connection ends.
enum End {
    /// The connection is no good any more; the kind is the oldest command's.
    Lost(Kind),
    /// Nobody is left to serve.
    Unwanted,
}

impl<'a> Service<'a> {
    fn new(task: &'a mut Task, connection: Connection<Asker>) -> Self {
        let since = Instant::now();
        Self { task, connection, since, drop_at: None, answered: false, writable: true }
    }

    /// Serves until the connection ends; whether it was of any use.
    async fn run(&mut self) -> bool {
        let mut timer = std::pin::pin!(sleep_until(self.wake_at()));
        let mut rest = std::pin::pin!(sleep_until(self.since));
        let mut resting = false;
        let end = loop {
            self.unpark();
            self.rearm(timer.as_mut());
            let takes = self.takes();
            let in_flight = self.connection.session.in_flight();
            let Connection { reader, writer, output, awaits_more, .. } = &mut self.connection;
            awaits_more.set(in_flight > 1 && output.is_empty() && self.task.jobs.is_empty());
            tokio::select! {
                biased;
                item = reader.next(), if !resting => match self.hear(received(item)) {
                    Ok(heard) => {
                        let left = self.connection.session.in_flight();
                        resting = left >= REST_ABOVE && heard < REST_ABOVE / 4;
                        if resting {
                            rest.as_mut().reset(self.since + REST);
                        }
                    }
                    Err(kind) => break End::Lost(kind),
                },
                written = writer.write_buf(output), if self.writable && !output.is_empty() => {
                    // A peer that closed may still have said why: what it said is read first.
                    self.writable = matches!(written, Ok(1..));
                    if output.is_empty() && output.capacity() > KEPT_OUTPUT {
                        *output = BytesMut::new();
                    }
                }
                job = self.task.jobs.recv(), if takes => match job {
                    Some(job) => match self.look_before_use().await {
                        Ok(()) => self.take_all(job),
                        Err(kind) => {
                            self.park(job);
                            break End::Lost(kind);
                        }
                    },
                    None => break End::Unwanted,
                },
                () = rest.as_mut(), if resting => resting = false,
                () = timer.as_mut() => {
                    if let Some(end) = self.ring() {
                        break end;
                    }
                }
            }
        };
        if let End::Lost(kind) = end {
            self.lose(kind);
        }
        self.answered
    }

    /// Looks once whether an idle connection has ended, so that a command goes to a new one
    /// instead of into the void: the runtime may not have had the time to notice.
    async fn look_before_use(&mut self) -> Result<(), Kind> {
        if self.connection.session.in_flight() > 0 || self.since.elapsed() < IDLE {
            return Ok(());
        }
        yield_now().await;
        match self.connection.reader.next().now_or_never() {
            Some(item) => self.hear(received(item)).map(drop),
            None => Ok(()),
        }
    }

    /// Whether another job may be taken from the queue now.
    fn takes(&self) -> bool {
        if self.drop_at.is_some() {
            self.task.parked.len() < self.task.options.window
        } else {
            self.has_room()
        }
    }

    /// Room is used as soon as there is any, not by the half window: varnishd writes each reply by
    /// itself, and its TCP holds a small segment back until the one before is acknowledged. The
    /// next command carries that acknowledgement; without one it would wait for a timer (40 ms).
    fn has_room(&self) -> bool {
        self.drop_at.is_none() && self.connection.session.in_flight() < self.task.options.window
    }

    /// Sends what was parked while a reply was overdue.
    fn unpark(&mut self) {
        while self.has_room() && self.connection.session.phase() == Phase::Ready {
            match self.task.parked.pop_front() {
                Some((_, job)) => self.take(job),
                None => return,
            }
        }
    }

    fn take_all(&mut self, first: Job) {
        self.take(first);
        while self.takes() {
            match self.task.jobs.try_recv() {
                Ok(job) => self.take(job),
                Err(_) => return,
            }
        }
    }

    /// Puts one job on its way, or aside while a reply is overdue.
    fn take(&mut self, job: Job) {
        let (command, asker) = match job {
            Job::Connect(asker) => {
                let _ = asker.send(Ok(self.connection.greeting.clone()));
                return;
            }
            Job::Command(_, asker) if asker.has_gone() => return,
            Job::Command(command, asker) => (command, asker),
        };
        if self.drop_at.is_some() {
            self.park(Job::Command(command, asker));
        } else {
            self.send(command, asker);
        }
    }

    fn park(&mut self, job: Job) {
        let give_up_at = after(Instant::now(), self.task.options.reply);
        self.task.parked.push_back((give_up_at, job));
    }

    fn send(&mut self, command: Command, asker: Asker) {
        if self.connection.session.in_flight() == 0 {
            self.since = Instant::now();
        }
        match self.connection.session.send(&command, asker) {
            Ok(()) => self.connection.output.put_slice(command.as_line()),
            // After `quit` nothing more goes out here: the next connection takes it.
            Err(asker) => self.park(Job::Command(command, asker)),
        }
    }

    /// Hands out a reply and all others that came with it; how many they were.
    fn hear(&mut self, first: Result<Reply, Kind>) -> Result<usize, Kind> {
        let (mut next, mut heard) = (first, 0);
        loop {
            match self.connection.session.handle(next?)? {
                Event::Reply { token, reply } => token.tell(Ok(reply)),
                Event::Challenged | Event::Ready(_) => return Err(Kind::Dropped),
            }
            self.answered = true;
            heard += 1;
            if self.connection.session.phase() == Phase::Closed {
                return Err(Kind::Closed);
            }
            let reader = &mut self.connection.reader;
            let mut codec = *reader.decoder();
            match codec.decode(reader.read_buffer_mut()).transpose() {
                Some(item) => next = received(Some(item)),
                None => break,
            }
        }
        self.since = Instant::now();
        self.drop_at = None;
        self.task.backoff.succeeded();
        Ok(heard)
    }

    /// When something is due.
    fn wake_at(&self) -> Instant {
        let options = &self.task.options;
        match self.drop_at {
            Some(at) => self.task.parked.front().map_or(at, |&(give_up_at, _)| at.min(give_up_at)),
            None if self.connection.session.in_flight() > 0 => {
                after(self.since, self.reply_limit())
            }
            None => after(self.since, options.keep_alive.unwrap_or(NEVER)),
        }
    }

    /// How long the oldest command in flight may take. While it does, those behind it wait too.
    fn reply_limit(&self) -> Duration {
        match self.connection.session.oldest() {
            Some(Asker::Patient(_, limit)) => *limit,
            _ => self.task.options.reply,
        }
    }

    /// Sets the timer. One that rings too early is cheaper than one that is set at every reply.
    fn rearm(&self, timer: std::pin::Pin<&mut Sleep>) {
        let at = self.wake_at();
        if at < timer.deadline() || timer.is_elapsed() {
            timer.reset(at);
        }
    }

    /// Does what is due.
    fn ring(&mut self) -> Option<End> {
        let now = Instant::now();
        if now < self.wake_at() {
            return None;
        }
        if let Some(drop_at) = self.drop_at {
            self.give_up_parked(now);
            return (now >= drop_at).then_some(End::Lost(Kind::Closed));
        }
        if self.connection.session.in_flight() > 0 {
            self.mark_overdue(now)
        } else {
            self.send(Command::ping(), Asker::KeepAlive);
            None
        }
    }

    fn give_up_parked(&mut self, now: Instant) {
        let limit = self.task.options.reply;
        while self.task.parked.front().is_some_and(|&(give_up_at, _)| give_up_at <= now) {
            if let Some((_, Job::Command(command, asker))) = self.task.parked.pop_front() {
                let stage = Stage::Command(command.verb().clone());
                let node = self.task.target.node.clone();
                asker.tell(Err(AdminError { node, stage, kind: Kind::Waiting { limit } }));
            }
        }
    }

    /// The oldest reply is overdue: everybody who waits is told. Their replies are still theirs:
    /// they are awaited for a while, and thrown away.
    fn mark_overdue(&mut self, now: Instant) -> Option<End> {
        let limit = self.reply_limit();
        let mut only_keep_alive = true;
        for (verb, asker) in self.connection.session.waiting_mut() {
            let asker = std::mem::replace(asker, Asker::Nobody);
            only_keep_alive &= matches!(asker, Asker::KeepAlive);
            let stage = Stage::Command(verb.clone());
            let node = self.task.target.node.clone();
            asker.tell(Err(AdminError { node, stage, kind: Kind::ReplyTimedOut { limit } }));
        }
        if only_keep_alive {
            return Some(End::Lost(Kind::Closed));
        }
        self.drop_at = Some(after(now, self.task.options.overdue));
        None
    }

    /// Tells everybody who waits that no reply will come.
    fn lose(&mut self, kind: Kind) {
        let about_one_reply =
            matches!(kind, Kind::ForeignReply { .. } | Kind::UnaskedReply { .. } | Kind::Frame(_));
        let mut kind = kind;
        for (verb, asker) in self.connection.session.close() {
            let node = self.task.target.node.clone();
            asker.tell(Err(AdminError { node, stage: Stage::Command(verb), kind: kind.clone() }));
            if about_one_reply {
                kind = Kind::Dropped;
            }
        }
    }
}
