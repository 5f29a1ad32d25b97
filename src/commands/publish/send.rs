//! Adding the event to the stream, and waiting for what the hosts say.

use std::collections::BTreeSet;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::super::config_file::counted;
use super::super::fleet::{Interrupts, Progress};
use super::super::output::{Untrusted, complain};
use super::awaited::{Awaited, Key};
use super::place::{Place, limited};
use super::report::long_unseen;
use crate::clock::Clock;
use crate::event::{Confirmation, Event};
use crate::ingest::{Follower, IngestError, Kind, Publisher, Stage, StreamId};
use crate::model::NodeName;

/// How long it may take to ask at the end who is still there.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// How much longer than allowed the last read may take: it is the server that ends it.
const OVERTIME: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    pub(super) place: &'a Place,
    pub(super) event: &'a Event,
    /// The nodes to wait for; none: all.
    pub(super) scope: Option<BTreeSet<NodeName>>,
    pub(super) wait: bool,
    /// How long, from the moment that the event is in the stream.
    pub(super) within: Duration,
    /// The stream is kept to about so many entries.
    pub(super) most: u64,
    pub(super) clock: Clock,
}

/// How far it came.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) published: Published,
    pub(super) awaited: Awaited,
    /// Who follows the stream, as it was known last.
    pub(super) followers: Vec<Follower>,
    pub(super) trouble: Option<Trouble>,
    pub(super) interrupted: bool,
    progress: Option<Progress>,
}

/// Whether the event is in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Published {
    #[default]
    No,
    /// It was sent, and no answer came.
    Unknown,
    As(StreamId),
}

/// What went wrong on the way.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is nobody to wait for, and nothing was published.
    Nobody,
    /// Redis did not do its part.
    Redis(IngestError),
}

/// Publishes and waits. `told` hears at once that the event is in the stream.
///
/// # Errors
/// When the runtime or the signal handlers cannot be set up. Nothing was published then.
pub(super) fn deliver(errand: &Errand<'_>, told: &mut dyn FnMut(StreamId)) -> io::Result<Delivery> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let delivery = runtime.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let mut delivery = Delivery::default();
        let ended = tokio::select! {
            biased;
            () = interrupts.next() => None,
            ended = delivery.run(errand, told) => Some(ended),
        };
        match ended {
            None => delivery.interrupted = true,
            Some(Err(trouble)) => delivery.trouble = Some(trouble),
            Some(Ok(())) => {}
        }
        if let Some(progress) = &delivery.progress {
            progress.clear();
        }
        io::Result::Ok(delivery)
    });
    // A name lookup that was given up may hang on in its thread: nobody waits for it.
    runtime.shutdown_background();
    delivery
}

/// Takes a host off the list of those who follow the stream: whether it was on it, and who is.
///
/// # Errors
/// When the runtime cannot be set up, or Redis does not do it.
pub(super) fn forget(
    place: &Place,
    host: &str,
    within: Duration,
) -> io::Result<Result<(bool, Vec<Follower>), IngestError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut publisher = Publisher::connect(limited(place.redis.clone(), within)).await?;
        let was_there = publisher.forget(&place.stream, host).await?;
        Ok((was_there, publisher.followers(&place.stream).await?))
    });
    runtime.shutdown_background();
    Ok(done)
}

impl Delivery {
    async fn run(
        &mut self,
        errand: &Errand<'_>,
        told: &mut dyn FnMut(StreamId),
    ) -> Result<(), Trouble> {
        let Place { redis, stream, replies } = errand.place;
        let mut publisher = Publisher::connect(limited(redis.clone(), errand.within)).await?;
        if errand.wait {
            self.followers = publisher.followers(stream).await?;
            let proof = errand.event.prove.is_some();
            self.awaited = Awaited::new(&self.followers, errand.scope.clone(), proof);
            if self.awaited.is_empty() {
                return Err(Trouble::Nobody);
            }
            // One that is just being started may follow in a moment; a name that was typed wrong
            // never will.
            for node in self.awaited.unknown() {
                complain(format_args!(
                    "no host that follows {stream} is known to have a node {node}: waiting for it \
                     all the same"
                ));
            }
        }
        // Before the event is there, so that no answer is missed.
        let mut after = publisher.position(replies).await?;
        let json = errand.event.to_json();
        self.published = Published::Unknown;
        let fields = [(Event::FIELD.as_bytes(), json.as_bytes())];
        let id = publisher.publish(stream, &fields, errand.most).await.inspect_err(|error| {
            if !may_be_there(error) {
                self.published = Published::No;
            }
        })?;
        let start = Instant::now();
        self.published = Published::As(id);
        told(id);
        if !errand.wait {
            return Ok(());
        }
        self.warn_of_the_absent(errand.clock);
        let order: Vec<Key> = self.awaited.entries().map(|(key, _)| key.clone()).collect();
        let nodes: Vec<NodeName> = order.iter().filter_map(|key| key.node.clone()).collect();
        let count = nodes.len();
        self.progress = Some(Progress::new(nodes, "node", "confirmed", count));
        let id = id.to_string();
        let deadline = start + errand.within;
        while !self.awaited.is_settled() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let answers = {
                let read = publisher.confirmations(replies, &mut after, left);
                until(read, deadline + OVERTIME, self.progress.as_ref()).await
            };
            // The connection was in the middle of a read.
            let Some(answers) = answers else { break };
            for answer in answers? {
                // What is no confirmation, or one of another event, is for others.
                if let Ok(confirmation) = Confirmation::from_json(&answer)
                    && confirmation.event == id
                {
                    self.awaited.hear(confirmation, start.elapsed());
                }
            }
            if let Some(progress) = &self.progress {
                let done = order.iter().enumerate().filter(|(_, key)| self.awaited.is_done(key));
                done.for_each(|(at, _)| progress.done(at));
            }
        }
        if !self.awaited.is_settled() {
            let last = timeout(LAST_LOOK, publisher.followers(stream)).await;
            if let Ok(Ok(followers)) = last {
                self.followers = followers;
            }
        }
        Ok(())
    }

    fn warn_of_the_absent(&self, clock: Clock) {
        for (follower, unseen) in long_unseen(&self.followers, clock) {
            let is_its = |key: &Key| key.host.as_deref() == Some(&follower.name);
            let nodes = self.awaited.entries().filter(|(key, _)| is_its(key)).count();
            if nodes > 0 {
                complain(format_args!(
                    "{} was last seen {unseen} ago; its {} waited for all the same. If it is gone \
                     for good: purgewatch publish --forget {0}",
                    Untrusted(&follower.name),
                    if nodes == 1 { "node is".to_owned() } else { counted(nodes, "node") + " are" },
                ));
            }
        }
    }

    /// When a host was last seen.
    pub(super) fn follower(&self, host: &str) -> Option<&Follower> {
        self.followers.iter().find(|follower| follower.name == host)
    }
}

/// Drives `work` until it is done, and draws the line of progress meanwhile; none when time is up.
async fn until<T>(
    work: impl Future<Output = T>,
    deadline: Instant,
    progress: Option<&Progress>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut time_is_up = pin!(sleep_until(deadline));
    let shown = progress.filter(|progress| progress.is_shown());
    let period = progress.map_or(OVERTIME, Progress::period);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = &mut time_is_up => return None,
            _ = ticks.tick(), if shown.is_some() => {
                if let Some(progress) = shown {
                    progress.show();
                }
            }
        }
    }
}

/// Whether the event may be in the stream although adding it failed: it was sent, and what came
/// is no refusal.
const fn may_be_there(error: &IngestError) -> bool {
    matches!(error.stage, Stage::Command(_))
        && matches!(
            error.kind,
            Kind::TimedOut { .. }
                | Kind::Closed { .. }
                | Kind::NotRedis
                | Kind::Unexpected { .. }
                | Kind::TooLong { .. }
        )
}

impl From<IngestError> for Trouble {
    fn from(error: IngestError) -> Self {
        Self::Redis(error)
    }
}
