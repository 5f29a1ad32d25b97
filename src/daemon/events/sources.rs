//! The tasks that read events, and the one queue that they all come by.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::admin::SecretSource;
use crate::clock::Clock;
use crate::config::{Config, EventSource, RedisSettings};
use crate::ingest::{
    PubSubNews, RedisOptions, StreamHandle, StreamNews, StreamOptions, StreamReader, Subscriber,
    SubscriberOptions, Topic,
};
use crate::model::{HostName, NodeName, Secret};
use crate::net::tls::TlsClient;
use crate::systemd::{CredentialError, Credentials};

use super::super::peers::secret_source;
use super::followed::Followed;

/// So much news of one stream is handed over at a time.
const AT_ONCE: usize = 256;

/// So many hand-overs wait at most.
const QUEUE: usize = 4;

/// How long the end of a reader may take.
const STOP: Duration = Duration::from_secs(1);

/// The longest password that is read.
const LONGEST_PASSWORD: u64 = 4_096;

/// Something came by.
#[derive(Debug)]
pub(in crate::daemon) enum Arrival {
    /// From the stream of the subscription at this place.
    Stream(usize, Vec<StreamNews>),
    /// From a channel.
    Channel(PubSubNews),
}

/// Why events cannot be read. The operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The password is a credential that systemd did not hand over.
    #[error("the password of Redis cannot be found")]
    Credential(#[source] CredentialError),
    /// The password's file cannot be read.
    #[error("the password of Redis cannot be read from {}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Everything that reads events.
#[derive(Debug)]
pub(super) struct Sources {
    arrivals: mpsc::Receiver<Arrival>,
    /// At the place of each subscription, what finishes the entries of its stream.
    pub(super) handles: Vec<Option<StreamHandle>>,
    /// For each topic, the place of its subscription.
    pub(super) topics: Vec<usize>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Sources {
    /// Begins to read what `config` subscribes to, at the server that is reached so.
    pub(super) fn start(
        config: &Config,
        redis: Option<RedisOptions>,
        name: &HostName,
        instance: &str,
        clock: Clock,
    ) -> Self {
        let (sender, arrivals) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let mut sources =
            Self { arrivals, handles: Vec::new(), topics: Vec::new(), tasks: JoinSet::new(), stop };
        let Some(redis) = redis else { return sources };
        let with_admin = config.nodes.iter().filter(|node| node.admin.is_some());
        let nodes: Vec<NodeName> = with_admin.map(|node| node.name.clone()).collect();
        let mut topics = Vec::new();
        for (place, subscription) in config.subscriptions.iter().enumerate() {
            let mut handle = None;
            match &subscription.source {
                EventSource::Stream(stream) => {
                    let mut options =
                        StreamOptions::new(&stream.key, name.as_str(), instance, clock);
                    options.replies.clone_from(&stream.replies);
                    options.nodes.clone_from(&nodes);
                    let directory = &config.daemon.state_dir;
                    let followed = Followed::of(directory, name.as_str(), &stream.key);
                    options.followed = followed.up_to();
                    let reader = StreamReader::start(redis.clone(), options);
                    handle = Some(reader.handle());
                    let (sender, stopped) = (sender.clone(), stopped.clone());
                    sources.tasks.spawn(forward(place, reader, followed, sender, stopped));
                }
                EventSource::Channel(pattern) => {
                    sources.topics.push(place);
                    topics.push(match pattern.literal().map(String::from_utf8) {
                        Some(Ok(literal)) => Topic::Channel(literal),
                        _ => Topic::Pattern(pattern.as_str().to_owned()),
                    });
                }
            }
            sources.handles.push(handle);
        }
        if !topics.is_empty() {
            let subscriber = Subscriber::start(redis, SubscriberOptions::new(topics, clock));
            sources.tasks.spawn(forward_messages(subscriber, sender));
        }
        sources
    }

    /// What comes by next; waits for ever where nothing is subscribed to.
    ///
    /// Cancellation safe.
    pub(super) async fn next(&mut self) -> Arrival {
        match self.arrivals.recv().await {
            Some(arrival) => arrival,
            None => std::future::pending().await,
        }
    }

    /// Lets the readers write what was finished, and end.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        self.arrivals.close();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP * 2, ended).await;
    }
}

async fn forward(
    place: usize,
    mut reader: StreamReader,
    mut followed: Followed,
    into: mpsc::Sender<Arrival>,
    mut stop: watch::Receiver<bool>,
) {
    let handle = reader.handle();
    loop {
        let mut news = Vec::new();
        tokio::select! {
            biased;
            // A change is an order to stop; so is the end of whoever could give one.
            _ = stop.changed() => break,
            count = reader.next_many(&mut news, AT_ONCE) => if count == 0 { return },
        }
        // A loop that has ended takes nothing any more: the reader is to be stopped then.
        let _ = into.send(Arrival::Stream(place, news)).await;
        followed.reached(handle.done_up_to()).await;
    }
    reader.stop(STOP).await;
    followed.keep(handle.done_up_to()).await;
}

async fn forward_messages(mut subscriber: Subscriber, into: mpsc::Sender<Arrival>) {
    while let Some(news) = subscriber.next().await {
        if into.send(Arrival::Channel(news)).await.is_err() {
            return;
        }
    }
}

/// How the server of `[redis]` is reached.
///
/// # Errors
/// [`SourceError`] when its password cannot be had.
pub fn redis_options(
    settings: &RedisSettings,
    credentials: &Credentials,
) -> Result<RedisOptions, SourceError> {
    let source = secret_source(&settings.password, credentials).map_err(SourceError::Credential)?;
    let password = match source {
        SecretSource::File(path) => Some(password(&path)?),
        _ => None,
    };
    let mut options = RedisOptions::new(settings.address.clone());
    options.tls = settings.tls.then(|| Arc::new(TlsClient::without_alpn(settings.ca_file.clone())));
    options.username.clone_from(&settings.username);
    options.password = password;
    options.database = settings.database;
    Ok(options)
}

fn password(path: &Path) -> Result<Secret, SourceError> {
    let failed = |source| SourceError::Password { path: path.to_owned(), source };
    read_secret(path, LONGEST_PASSWORD).map_err(failed)
}

/// Reads a file of `longest` bytes at most, which is wiped from memory when it is dropped.
pub(in crate::daemon) fn read_secret(path: &Path, longest: u64) -> io::Result<Secret> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        let why = format!("expected {longest} bytes at most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}
