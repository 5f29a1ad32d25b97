//! The daemon from its start to its end: bind, ready, run, reload, drain.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::entrance::{self, Entrance, EntranceError};
use super::events::{self, Events, SourceError};
use super::{Driver, Event, PeerError, Peers, journal, ledger, plan, pointer};
use crate::admin::LABELS;
use crate::clock::{Clock, random_seed};
use crate::config::{Config, Loaded, load};
use crate::engine::Engine;
use crate::expose::{
    self, Accepted, BindError, CanaryBoard, Desk, IssueReply, Limits, Metrics, Question, Readiness,
    StoreHealth, Submission, Surface,
};
use crate::store::{Fault, Store};
use crate::systemd::{Credentials, Notifier, Watchdog};

/// How long the end may take, for the last records and the last scrapes each.
const DRAIN: Duration = Duration::from_secs(2);

/// When something is late by so much, the daemon counts as stuck and the service manager is told
/// nothing more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Questions of the listener that may wait for the loop.
const QUESTIONS: usize = 16;

/// Why the daemon cannot start. Each is the operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A secret is missing.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Events cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Events over HTTP cannot be taken.
    #[error(transparent)]
    Entrance(#[from] EntranceError),
    /// The listener's thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

/// Runs the daemon on the configuration in `path`, which was `loaded` before, until SIGTERM or
/// SIGINT. SIGHUP reads the file again; a configuration with faults changes nothing.
///
/// # Errors
/// [`RunError`] when it cannot start. Once it runs, it does not fail.
pub async fn run(path: &Path, loaded: Loaded, clock: Clock) -> Result<(), RunError> {
    let config = loaded.config;
    let credentials = Credentials::from_environment();
    let peers = Arc::new(Peers::new(&config, &Peers::default(), &credentials, clock)?);
    let signals = Signals::new().map_err(RunError::Signals)?;
    let listener = expose::bind(config.daemon.listen).await?;
    let (store, restored, problems) = Store::open(&config.daemon.state_dir, clock);
    for problem in &problems {
        warn!("{}", journal::chain(problem));
    }
    let store = Arc::new(store);
    let metrics = Arc::new(Metrics::new());
    watch_names(&metrics, &config);
    metrics.record_reload(true, clock.now());
    let engine = Engine::new(plan(&config), restored, LABELS, random_seed(), clock.now());
    let driver = Driver::new(engine, Arc::clone(&peers), clock, Some(Arc::clone(&metrics)));

    let (asker, questions) = mpsc::channel(QUESTIONS);
    let readiness = Readiness::starting();
    let canaries = CanaryBoard::default();
    let surface = surface(&metrics, &store, asker, readiness.clone(), canaries.clone(), clock);
    let socket = match ledger::socket_path(config.daemon.socket.as_deref()) {
        Some(path) => ledger::open_socket(path).await,
        None => None,
    };
    let events = Events::start(&config, &credentials, clock)?;
    let door = config.invalidations.as_ref();
    let door = entrance::Prepared::new(door, None, &credentials).await?;
    let listener = Listener::start(listener, socket, surface)?;
    let mut entrance = Entrance::new(Desk::new(events.door(), clock), listener.runtime.clone());
    entrance.replan(door);

    let mut daemon = Daemon {
        path: path.to_owned(),
        config,
        credentials,
        peers,
        clock,
        store,
        metrics,
        canaries,
        driver,
        events,
        entrance,
        notifier: notifier(),
    };
    for target in &daemon.driver.snapshot().targets {
        journal::carried_over(target);
    }
    readiness.set_ready();
    let status = daemon.status();
    info!("watching {status} on http://{}/", daemon.config.daemon.listen);
    daemon.notify(|notifier| notifier.ready(&status));

    daemon.until_stopped(signals, questions).await;

    readiness.set_draining();
    daemon.notify(|notifier| notifier.stopping("ending"));
    info!("ending");
    let entrance = daemon.drain().await;
    // It may have ended with the listener's thread, or not in time.
    let _ = timeout(DRAIN, entrance.stop()).await;
    listener.stop().await;
    Ok(())
}

struct Daemon {
    path: PathBuf,
    config: Config,
    credentials: Credentials,
    peers: Arc<Peers>,
    clock: Clock,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    canaries: CanaryBoard,
    driver: Driver,
    events: Events,
    entrance: Entrance,
    notifier: Notifier,
}

/// What another configuration needs: all that can fail is behind it.
struct Prepared {
    peers: Peers,
    events: events::Prepared,
    door: entrance::Prepared,
}

impl Daemon {
    async fn until_stopped(
        &mut self,
        mut signals: Signals,
        mut questions: mpsc::Receiver<Question>,
    ) {
        let mut watchdog = Watchdog::from_environment().map(|watchdog| ticks(watchdog.interval));
        let mut housekeeping = ticks(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                wanted = signals.next() => match wanted {
                    Wanted::Reload => self.reload().await,
                    Wanted::Stop => return,
                },
                () = tick(&mut watchdog) => {
                    if self.driver.is_progressing(PATIENCE) {
                        self.notify(Notifier::alive);
                    }
                }
                Some(question) = questions.recv() => self.answer(question),
                _ = housekeeping.tick() => {
                    self.tell_problems();
                    self.metrics.set_ledger(ledger::state(self.driver.ledger()));
                    self.metrics.set_subscriptions(self.events.states());
                }
                event = self.driver.next() => self.take_in(event),
                incoming = self.events.next() => {
                    self.events.take_in(incoming, &mut self.driver, &self.store);
                }
            }
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Record(record) => self.store.save(vec![record]),
            Event::Changed { endpoint, variant, node, transition, reason, cause } => {
                let subject = journal::Subject::new(&endpoint, &variant, &node);
                journal::changed(&subject, &transition, reason.as_deref(), cause);
            }
            Event::Explained { endpoint, variant, node, state, explanation } => {
                let subject = journal::Subject::new(&endpoint, &variant, &node);
                journal::explained(&subject, state, &explanation);
            }
            Event::AdminChanged { node, up, problem } => {
                journal::admin_changed(&node, up, problem.as_deref());
            }
            Event::BecameFresh { node, after } => self.metrics.record_time_to_fresh(&node, after),
            Event::Remedied { endpoint, node, cured, result } => {
                journal::remedied(&endpoint, &node, cured, &result);
            }
            Event::ServeCanary { node, body } => self.canaries.serve(&node, body),
            Event::CanaryChanged { node, up, problem } => {
                journal::canary_changed(&node, up, problem.as_deref());
            }
            Event::Pointer(news) => journal::pointer(&news),
            Event::News(news) => ledger::tell(news, &self.metrics),
            Event::InvalidationSettled { key, nodes } => self.events.settled(key, nodes),
            Event::Idle => {}
        }
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may have gone meanwhile.
        match question {
            Question::Snapshot(reply) => drop(reply.send(self.driver.snapshot())),
            Question::Alive(reply) => drop(reply.send(())),
            Question::Issue(submission, reply) => self.issue(submission, reply),
            Question::Bans(query, reply) => {
                drop(reply.send(ledger::shown(self.driver.ledger(), query)));
            }
        }
    }

    /// Takes bans into the ledger. Whoever handed them in is told once they are on the disk.
    fn issue(&mut self, submission: Submission, reply: IssueReply) {
        let (issues, unknown) = match ledger::issues(submission, &self.peers) {
            Ok(known) => known,
            Err(fault) => return drop(reply.send(Err(fault))),
        };
        let (ids, records) = self.driver.issue(issues);
        self.store.save_durably(records, move |stored| {
            let _ = reply.send(Ok(Accepted { ids, stored, unknown }));
        });
        self.metrics.set_ledger(ledger::state(self.driver.ledger()));
    }

    async fn reload(&mut self) {
        self.notify(Notifier::reloading);
        let loaded = load(&self.path);
        let successful = match loaded {
            Ok(loaded) => self.take_over(loaded).await,
            Err(fault) => {
                journal::not_loaded(&fault);
                false
            }
        };
        self.metrics.record_reload(successful, self.clock.now());
        if successful {
            info!("the configuration was read again: watching {}", self.status());
        } else {
            error!("the configuration is not taken over; the one before stays in force");
        }
        let status = self.status();
        self.notify(|notifier| notifier.ready(&status));
    }

    /// Goes over to another configuration as a whole, or not at all: then everything, and what the
    /// next one is compared with, is as before. Whether it was taken over.
    async fn take_over(&mut self, loaded: Loaded) -> bool {
        journal::report(&loaded.warnings);
        let is_changed = loaded.config.daemon != self.config.daemon;
        let config = Config { daemon: self.config.daemon.clone(), ..loaded.config };
        let Prepared { peers, events, door } = match self.prepare(&config).await {
            Ok(prepared) => prepared,
            Err(fault) => {
                error!("{}", journal::chain(&fault));
                return false;
            }
        };
        if is_changed {
            warn!("[daemon] has changed: that needs a restart, and is left as it was");
        }
        watch_names(&self.metrics, &config);
        self.peers = Arc::new(peers);
        self.events.replan(&self.config, &config, events);
        self.entrance.replan(door);
        self.canaries.retain(config.nodes.iter().filter(|n| n.canary.is_some()).map(|n| &n.name));
        self.driver.replan(plan(&config), Arc::clone(&self.peers));
        self.config = config;
        true
    }

    /// Does all that can fail, and changes nothing.
    async fn prepare(&self, config: &Config) -> Result<Prepared, RunError> {
        let peers = Peers::new(config, &self.peers, &self.credentials, self.clock)?;
        let events = Events::prepare(config, &self.credentials)?;
        // The last: it opens what has to be closed again.
        let (door, now) = (config.invalidations.as_ref(), Some(&self.entrance));
        let door = entrance::Prepared::new(door, now, &self.credentials).await?;
        Ok(Prepared { peers, events, door })
    }

    fn tell_problems(&self) {
        for problem in self.store.problems() {
            warn!("{}", journal::chain(&problem));
        }
    }

    /// Ends all but the listeners: who waits there is told.
    async fn drain(self) -> Entrance {
        self.events.stop().await;
        self.store.save(self.driver.records());
        if let Err(fault) = self.store.flush(DRAIN).await {
            error!("{}", journal::chain(&fault));
        }
        self.entrance
    }

    /// One line on what is watched.
    fn status(&self) -> String {
        let count = |number: usize, what: &str| match number {
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        let config = &self.config;
        let endpoints = count(config.endpoints.len(), "endpoint");
        let nodes = count(config.nodes.len(), "node");
        match config.pointers.len() {
            0 => format!("{endpoints} at {nodes}"),
            pointers => format!("{endpoints} and {} at {nodes}", count(pointers, "pointer")),
        }
    }

    fn notify(&self, tell: impl FnOnce(&Notifier) -> io::Result<()>) {
        if let Err(fault) = tell(&self.notifier) {
            warn!("the service manager cannot be told: {fault}");
        }
    }
}

fn notifier() -> Notifier {
    Notifier::from_environment().unwrap_or_else(|fault| {
        warn!("the service manager cannot be told how this goes: {fault}");
        Notifier::default()
    })
}

fn watch_names(metrics: &Metrics, config: &Config) {
    let nodes: Vec<_> = config.nodes.iter().map(|node| node.name.clone()).collect();
    let stores = pointer::stores(config).map(|store| store.name);
    let origins = config.origins.iter().map(|origin| origin.name.clone());
    let origins: Vec<_> = origins.chain(stores).collect();
    metrics.watch(&nodes, &origins);
}

fn surface(
    metrics: &Arc<Metrics>,
    store: &Arc<Store>,
    questions: mpsc::Sender<Question>,
    readiness: Readiness,
    canaries: CanaryBoard,
    clock: Clock,
) -> Arc<Surface> {
    let store = Arc::clone(store);
    let before_scrape = move |metrics: &Metrics| {
        let health = store.health();
        let reasons = Fault::ALL.iter().map(|fault| fault.label());
        metrics.set_store(StoreHealth {
            up: health.up,
            last_write: health.last_write,
            pending: health.pending,
            errors: reasons.zip(health.errors).collect(),
        });
    };
    Arc::new(Surface {
        metrics: Arc::clone(metrics),
        questions,
        readiness,
        canaries,
        clock,
        before_scrape: Some(Box::new(before_scrape)),
    })
}

/// The HTTP listener, on a thread of its own: writing a large scrape must not hold up a probe.
struct Listener {
    stop: watch::Sender<()>,
    ended: oneshot::Receiver<()>,
    /// The thread's.
    runtime: Handle,
}

impl Listener {
    fn start(
        listener: TcpListener,
        socket: Option<ledger::Socket>,
        surface: Arc<Surface>,
    ) -> Result<Self, RunError> {
        let listener = listener.into_std().map_err(RunError::Thread)?;
        let socket = socket.map(ledger::Socket::detach).transpose().map_err(RunError::Thread)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RunError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = watch::channel(());
        let (end, ended) = oneshot::channel::<()>();
        let serve = async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(fault) => return error!("the listener cannot be served: {fault}"),
            };
            let shutdown = async |mut stopped: watch::Receiver<()>| {
                let _ = stopped.changed().await;
            };
            let on_socket = ledger::serve(socket, &surface, shutdown(stopped.clone()));
            let limits = Limits::default();
            let on_port = expose::serve(listener, Arc::clone(&surface), limits, shutdown(stopped));
            tokio::join!(on_port, on_socket);
            let _ = end.send(());
        };
        std::thread::Builder::new()
            .name("listener".to_owned())
            .spawn(move || runtime.block_on(serve))
            .map_err(RunError::Thread)?;
        Ok(Self { stop, ended, runtime: handle })
    }

    /// Lets answers under way end, within the deadline.
    async fn stop(self) {
        // It may have ended already.
        let _ = self.stop.send(());
        let _ = timeout(DRAIN, self.ended).await;
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

enum Wanted {
    Reload,
    Stop,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    /// Sent when a file would outgrow RLIMIT_FSIZE. Nobody waits for it: where it is handled, the
    /// write fails as on a full disk; where it is not, it ends the process (setrlimit(2)).
    _file_size: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.terminate.recv() => Wanted::Stop,
        }
    }
}
