//! Invalidation events from outside: read, understood, handed to the engine, and answered.
//!
//! An entry of a stream is acknowledged when every node of this host took its bans (and, where
//! asked, is proven fresh), never before. What cannot be carried out, today or tomorrow, is set
//! aside with the reason, so that nothing behind it waits. What failed for now is handed in again,
//! later and later.

mod answer;
mod followed;
mod instance;
mod meaning;
mod quiet;
mod reading;
mod sources;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use self::answer::{Ending, confirmation, ending, refusal};
use self::meaning::{Meaning, Reader};
use self::quiet::Quiet;
pub(super) use self::sources::read_secret;
use self::sources::{Arrival, Sources};
pub use self::sources::{SourceError, redis_options};
use super::Driver;
use super::journal::chain;
use crate::clock::{Clock, random_seed};
use crate::config::{Config, EventSource, Subscription};
use crate::engine::{Invalidation, Settled};
use crate::event::Confirmation;
use crate::expose::{EventResult, HandedIn, SubscriptionState};
use crate::ingest::{self, RedisOptions, StreamHandle, StreamId};
use crate::model::{HostName, NodeName, Secret, Timestamp, Untrusted};
use crate::store::Store;
use crate::systemd::Credentials;

/// The pause before something is handed in again; it doubles, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Events over HTTP that wait for the loop at most.
const WAITING: usize = 64;

/// What events over HTTP are counted as.
const HTTP: &str = "http";

/// An equal event over HTTP within so long is one with the ban before it.
const HTTP_DEBOUNCE: Duration = Duration::from_millis(100);

/// Everything that is known of events.
pub(super) struct Events {
    sources: Sources,
    /// Whether the sources are not those that the daemon began with.
    was_replaced: bool,
    /// The one that the sources use.
    password: Option<Secret>,
    subscribed: Vec<Arc<Subscribed>>,
    reader: Reader,
    door: mpsc::Receiver<HandedIn>,
    knocks: mpsc::Sender<HandedIn>,
    /// What the engine has, by key.
    open: HashMap<u64, Work>,
    /// What is to be handed in, by when.
    later: BTreeMap<(Timestamp, u64), Work>,
    last_key: u64,
    tallies: BTreeMap<String, SubscriptionState>,
    quiet: Quiet,
    random: fastrand::Rng,
    host: HostName,
    instance: String,
    clock: Clock,
}

/// What events need of another configuration: all that can fail is behind it.
#[derive(Debug)]
pub(super) struct Prepared {
    redis: Option<RedisOptions>,
}

/// A subscription that is being read.
#[derive(Debug)]
struct Subscribed {
    name: String,
    settings: Subscription,
    handle: Option<StreamHandle>,
}

/// Something that came by, or is due.
#[derive(Debug)]
pub(super) enum Incoming {
    /// From Redis.
    Arrival(Arrival),
    /// Over HTTP.
    HandedIn(Box<HandedIn>),
    /// What failed before is to be handed in again.
    Due,
}

/// One thing to be done at the nodes.
#[derive(Debug)]
struct Work {
    origin: Origin,
    /// The event's name, where it has one.
    event: String,
    meaning: Meaning,
    debounce: Duration,
    received: Timestamp,
    /// How often it was tried and not proven.
    failures: u32,
    /// How often there was no room for it.
    put_off: u32,
}

/// Who is told what came of it.
#[derive(Debug, Clone)]
enum Origin {
    Stream(Arc<Subscribed>, StreamId),
    Channel(Arc<Subscribed>),
    /// Events may have been lost there.
    Gap(Arc<Subscribed>),
    Http(watch::Sender<Option<Arc<Confirmation>>>),
}

impl Events {
    /// Begins to read what `config` subscribes to.
    ///
    /// # Errors
    /// [`SourceError`] when the password of Redis cannot be had.
    pub(super) fn start(
        config: &Config,
        credentials: &Credentials,
        clock: Clock,
    ) -> Result<Self, SourceError> {
        let Prepared { redis } = Self::prepare(config, credentials)?;
        let password = redis.as_ref().and_then(|redis| redis.password.clone());
        let host = host_name(config);
        // Only who reads a stream needs one; a daemon without events leaves no file behind.
        let instance = match config.subscriptions.is_empty() {
            true => String::new(),
            false => instance::id(&config.daemon.state_dir),
        };
        let sources = Sources::start(config, redis, &host, &instance, clock);
        let (knocks, door) = mpsc::channel(WAITING);
        let mut events = Self {
            subscribed: Vec::new(),
            sources,
            was_replaced: false,
            password,
            reader: Reader::new(config),
            door,
            knocks,
            open: HashMap::new(),
            later: BTreeMap::new(),
            last_key: 0,
            tallies: BTreeMap::new(),
            quiet: Quiet::default(),
            random: fastrand::Rng::with_seed(random_seed()),
            host,
            instance,
            clock,
        };
        events.subscribe(config);
        Ok(events)
    }

    /// Reads what events need that is not in the configuration itself. Nothing is changed by it.
    ///
    /// # Errors
    /// [`SourceError`] when the password of Redis cannot be had.
    pub(super) fn prepare(
        config: &Config,
        credentials: &Credentials,
    ) -> Result<Prepared, SourceError> {
        let settings = config.redis.as_ref();
        let redis = settings.map(|settings| redis_options(settings, credentials)).transpose()?;
        Ok(Prepared { redis })
    }

    /// Goes over to another configuration. Events that the nodes have go on; those of a stream that
    /// is read anew come again.
    pub(super) fn replan(&mut self, old: &Config, config: &Config, prepared: Prepared) {
        let with_admin = |config: &Config| -> Vec<NodeName> {
            let nodes = config.nodes.iter().filter(|node| node.admin.is_some());
            nodes.map(|node| node.name.clone()).collect()
        };
        let Prepared { redis } = prepared;
        let password = redis.as_ref().and_then(|redis| redis.password.clone());
        let is_same = old.redis == config.redis
            && self.password == password
            && old.subscriptions == config.subscriptions
            && with_admin(old) == with_admin(config);
        if !is_same {
            if self.instance.is_empty() && !config.subscriptions.is_empty() {
                self.instance = instance::id(&config.daemon.state_dir);
            }
            self.host = host_name(config);
            self.password = password;
            self.sources = Sources::start(config, redis, &self.host, &self.instance, self.clock);
            self.was_replaced = true;
        }
        self.subscribe(config);
        self.reader = Reader::new(config);
    }

    /// Where events over HTTP are handed in.
    pub(super) fn door(&self) -> mpsc::Sender<HandedIn> {
        self.knocks.clone()
    }

    /// What comes by next.
    ///
    /// Cancellation safe: nothing is lost.
    pub(super) async fn next(&mut self) -> Incoming {
        let due = self.later.keys().next().map(|(at, _)| *at);
        let due = due.map(|at| Instant::from_std(self.clock.instant_of(at)));
        let is_due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            arrival = self.sources.next() => Incoming::Arrival(arrival),
            Some(handed_in) = self.door.recv() => Incoming::HandedIn(Box::new(handed_in)),
            () = is_due => Incoming::Due,
        }
    }

    /// Deals with what came by.
    pub(super) fn take_in(&mut self, incoming: Incoming, driver: &mut Driver, store: &Store) {
        match incoming {
            Incoming::Arrival(Arrival::Stream(place, news)) => {
                let Some(subscribed) = self.subscribed.get(place).cloned() else { return };
                let work: Vec<_> =
                    news.into_iter().filter_map(|news| self.of_stream(&subscribed, news)).collect();
                self.hand_over(work, driver);
            }
            Incoming::Arrival(Arrival::Channel(news)) => {
                let work = self.of_channel(news);
                self.hand_over(work, driver);
            }
            Incoming::HandedIn(handed_in) => self.of_http(*handed_in, driver, store),
            Incoming::Due => {
                let now = self.clock.now();
                let not_due = self.later.split_off(&(now + Duration::from_millis(1), 0));
                let due = std::mem::replace(&mut self.later, not_due);
                self.hand_over(due.into_values().collect(), driver);
            }
        }
    }

    /// It is known what came of something at every node.
    pub(super) fn settled(&mut self, key: u64, nodes: BTreeMap<NodeName, Settled>) {
        let Some(work) = self.open.remove(&key) else { return };
        let ending = ending(&nodes);
        let attempts = match &work.origin {
            Origin::Stream(subscribed, _) => subscribed.max_attempts(),
            _ => 1,
        };
        let tries = work.failures.saturating_add(1);
        match ending {
            // It is as if it had not been handed in: nothing may be lost by that.
            Ending::Dropped => return self.put_off(work, "its bans did not reach every node"),
            Ending::Unproven if tries < attempts => {
                return self.again(Work { failures: tries, ..work });
            }
            _ => {}
        }
        let (now, offset) = (self.clock.now(), self.clock.wall_offset());
        let mut said = confirmation(work.event.clone(), self.host.clone(), nodes, now, offset);
        let result = match ending {
            Ending::Taken => EventResult::Taken,
            Ending::Proven => EventResult::Proven,
            Ending::Rejected => EventResult::Rejected,
            Ending::Unprovable | Ending::Unproven | Ending::Dropped => EventResult::Unproven,
        };
        self.count(&work.origin, result);
        let why = (ending == Ending::Rejected || ending == Ending::Unproven)
            .then(|| answer::words(&said, tries));
        if let Some(why) = &why {
            self.complain(&work.origin, &work.event, why);
        }
        match &work.origin {
            Origin::Stream(subscribed, id) => {
                let Some(handle) = &subscribed.handle else { return };
                if let Some(why) = &why {
                    said.detail = Some(format!("set aside: {why}"));
                }
                self.confirm(subscribed, handle, &said);
                match &why {
                    Some(why) => self.set_aside(subscribed, handle, *id, why),
                    None => handle.finish([*id]),
                }
            }
            Origin::Http(settled) => drop(settled.send_replace(Some(Arc::new(said)))),
            Origin::Channel(_) | Origin::Gap(_) => {}
        }
    }

    /// How each subscription stands.
    pub(super) fn states(&self) -> Vec<SubscriptionState> {
        let mut states = self.tallies.clone();
        for state in states.values_mut() {
            state.open = 0;
        }
        for work in self.open.values().chain(self.later.values()) {
            if let Some(state) = states.get_mut(work.origin.name()) {
                state.open += 1;
            }
        }
        states.into_values().collect()
    }

    /// Lets the readers write what was finished, and end.
    pub(super) async fn stop(self) {
        self.sources.stop().await;
    }

    fn subscribe(&mut self, config: &Config) {
        let handles = self.sources.handles.iter().cloned().chain(std::iter::repeat(None));
        let subscribed = config.subscriptions.iter().zip(handles).map(|(settings, handle)| {
            let name = match &settings.source {
                EventSource::Channel(pattern) => pattern.as_str().to_owned(),
                EventSource::Stream(stream) => stream.key.clone(),
            };
            Arc::new(Subscribed { name, settings: settings.clone(), handle })
        });
        self.subscribed = subscribed.collect();
        let mut names: Vec<_> = self.subscribed.iter().map(|it| it.name.clone()).collect();
        let mut old = std::mem::take(&mut self.tallies);
        names.extend(config.invalidations.as_ref().map(|_| HTTP.to_owned()));
        for name in names {
            let state = old.remove(&name).unwrap_or_else(|| SubscriptionState {
                up: (name != HTTP).then_some(false),
                ..SubscriptionState::new(name.clone())
            });
            self.tallies.insert(name, state);
        }
    }

    /// Hands work to the engine. What it has no room for now is handed in again; a message of a
    /// channel cannot wait for ever, and counts as a gap.
    fn hand_over(&mut self, work: Vec<Work>, driver: &mut Driver) {
        if work.is_empty() {
            return;
        }
        let work: Vec<(u64, Work)> = work.into_iter().map(|work| (self.key(), work)).collect();
        let wanted = work.iter().map(|(key, work)| work.invalidation(*key)).collect();
        let results = driver.invalidate(wanted);
        for ((key, work), result) in work.into_iter().zip(results) {
            match (result, &work.origin) {
                (Ok(()), _) => drop(self.open.insert(key, work)),
                (Err(fault), _) if fault.is_final() => self.give_up(&work, &chain(&fault)),
                (Err(fault), Origin::Channel(subscribed)) => {
                    let subscribed = subscribed.clone();
                    self.count(&work.origin, EventResult::Lost);
                    self.complain(&work.origin, &work.event, &chain(&fault));
                    let is_due = |work: &Work| matches!(&work.origin, Origin::Gap(it) if it.name == subscribed.name);
                    if !self.later.values().any(is_due) {
                        self.tally(&subscribed.name, |state| state.gaps += 1);
                        if let Some(work) = self.gap(&subscribed) {
                            self.again(work);
                        }
                    }
                }
                (Err(fault), _) => self.put_off(work, &chain(&fault)),
            }
        }
    }

    /// Has something handed in again that there was no room for. That is said when it begins.
    fn put_off(&mut self, mut work: Work, why: &str) {
        let is_put_off = |work: &Work| work.put_off > 0;
        if !is_put_off(&work) && !self.later.values().any(is_put_off) {
            self.complain(&work.origin, &work.event, &format!("put off: {why}"));
        }
        work.put_off = work.put_off.saturating_add(1);
        self.again(work);
    }

    /// Nothing is done about something, now or later.
    fn give_up(&mut self, work: &Work, why: &str) {
        self.refused(&work.origin, &work.event, why);
        if let Origin::Stream(subscribed, id) = &work.origin
            && let Some(handle) = &subscribed.handle
        {
            self.set_aside(subscribed, handle, *id, why);
        }
    }

    /// Has something handed in again, later and later.
    fn again(&mut self, mut work: Work) {
        work.meaning.nodes.retain(|node| self.reader.nodes().contains(node));
        if work.meaning.nodes.is_empty() {
            return self.give_up(&work, "its nodes are not configured here any more");
        }
        let before = work.failures.saturating_add(work.put_off).saturating_sub(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << before.min(10)).min(LAST_PAUSE);
        let jitter = 0.5 + self.random.f64() / 2.0;
        let key = self.key();
        self.later.insert((self.clock.now() + doubled.mul_f64(jitter), key), work);
    }

    /// Nothing is done about an event, and whoever sent it is told.
    fn refused(&mut self, origin: &Origin, event: &str, why: &str) {
        self.count(origin, EventResult::Refused);
        self.complain(origin, event, why);
        let said = refusal(
            event.to_owned(),
            self.host.clone(),
            self.reader.nodes(),
            why,
            self.clock.now().shifted(self.clock.wall_offset()),
        );
        match origin {
            Origin::Stream(subscribed, _) => {
                if let Some(handle) = &subscribed.handle {
                    self.confirm(subscribed, handle, &said);
                }
            }
            Origin::Http(settled) => drop(settled.send_replace(Some(Arc::new(said)))),
            Origin::Channel(_) | Origin::Gap(_) => {}
        }
    }

    fn confirm(&mut self, subscribed: &Subscribed, handle: &StreamHandle, said: &Confirmation) {
        if let Err(fault) = handle.confirm(said.to_json().into_bytes())
            && self.quiet.may_speak(self.clock.now())
        {
            warn!("{}: {}", subscribed.name, chain(&fault));
        }
    }

    fn set_aside(
        &mut self,
        subscribed: &Subscribed,
        handle: &StreamHandle,
        id: StreamId,
        why: &str,
    ) {
        handle.set_aside(id, why);
        self.tally(&subscribed.name, |state| state.set_aside += 1);
    }

    fn complain(&mut self, origin: &Origin, event: &str, why: &str) {
        if self.quiet.may_speak(self.clock.now()) {
            let (name, event, why) = (origin.name(), Untrusted(event), Untrusted(why));
            warn!(subscription = name, "{name}: event {event}: {why}");
        }
    }

    fn down(&mut self, name: &str, fault: &ingest::IngestError) {
        let problem = chain(fault);
        if self.set_up(name, false) || self.quiet.may_speak(self.clock.now()) {
            error!(subscription = name, "{name}: no events come: {problem}");
        }
        self.tally(name, |state| state.problem = Some(problem));
    }

    /// Returns whether that is a change.
    fn set_up(&mut self, name: &str, up: bool) -> bool {
        let mut changed = false;
        self.tally(name, |state| {
            changed = state.up.replace(up) != Some(up);
            if up {
                state.problem = None;
            }
        });
        changed
    }

    /// An event came.
    fn came(&mut self, name: &str) -> Timestamp {
        let now = self.clock.now();
        self.tally(name, |state| state.last_event = Some(now));
        now
    }

    fn count(&mut self, origin: &Origin, result: EventResult) {
        if !matches!(origin, Origin::Gap(_)) {
            self.tally(origin.name(), |state| state.count(result));
        }
    }

    fn tally(&mut self, name: &str, change: impl FnOnce(&mut SubscriptionState)) {
        if let Some(state) = self.tallies.get_mut(name) {
            change(state);
        }
    }

    fn key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}

impl Work {
    fn invalidation(&self, key: u64) -> Invalidation {
        Invalidation {
            key,
            bans: self.meaning.bans.clone(),
            nodes: self.meaning.nodes.clone(),
            verify: self.meaning.verify.clone(),
            prove: self.meaning.prove,
            debounce: self.debounce,
            received: self.received,
        }
    }
}

impl Origin {
    /// What it is counted as.
    fn name(&self) -> &str {
        match self {
            Self::Stream(subscribed, _) | Self::Channel(subscribed) | Self::Gap(subscribed) => {
                &subscribed.name
            }
            Self::Http(_) => HTTP,
        }
    }
}

impl Subscribed {
    fn max_attempts(&self) -> u32 {
        match &self.settings.source {
            EventSource::Stream(stream) => stream.max_attempts,
            EventSource::Channel(_) => 1,
        }
    }
}

/// What this host is called at a stream: as configured, else as the system calls it.
fn host_name(config: &Config) -> HostName {
    let configured = config.redis.as_ref().and_then(|redis| redis.name.clone());
    configured.unwrap_or_else(|| {
        let system = rustix::system::uname().nodename().to_string_lossy().into_owned();
        HostName::of_system(&system)
    })
}
