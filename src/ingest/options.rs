//! How Redis is reached, and what is followed there.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{HostPort, NodeName, Secret};
use crate::net::tls::TlsClient;

use super::StreamId;

/// Where the server is and how to talk to it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The server.
    pub address: HostPort,
    /// With TLS, if given (made by [`TlsClient::without_alpn`]); the server's certificate has to be
    /// for the address's host.
    pub tls: Option<Arc<TlsClient>>,
    /// The ACL user; `default` when left out.
    pub username: Option<String>,
    /// The password. Line ends after it are left out, since files have them and passwords do not.
    pub password: Option<Secret>,
    /// The database's number. Pub/Sub is the same in all of them.
    pub database: u32,
    /// The limit on connecting, TLS and authenticating together.
    pub connect_timeout: Duration,
    /// The limit on the answer to a command, over and above the time that a command waits at the
    /// server.
    pub reply_timeout: Duration,
}

impl RedisOptions {
    /// The server at `address`, without TLS or a password, with limits of five seconds.
    #[must_use]
    pub fn new(address: HostPort) -> Self {
        Self {
            address,
            tls: None,
            username: None,
            password: None,
            database: 0,
            connect_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(5),
        }
    }
}

/// Which stream is followed, by whom, within which bounds.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// The stream's key.
    pub stream: String,
    /// The key of the stream of replies.
    pub replies: String,
    /// This host's name at the stream: its consumer group is `purgewatch:<name>`.
    pub name: String,
    /// Tells one daemon from another that has the same name by mistake. What stands before the
    /// first colon is to be kept over restarts, so that a daemon that was killed goes on at once
    /// and need not wait for itself; what stands behind it, if there is one, is to be new at each
    /// start, so that a copy of a daemon's state does not pass for itself.
    pub instance: String,
    /// Where the stream was followed before: all up to there is done with. A group that is not
    /// there all the same was deleted, and with it what was to be read.
    pub followed: Option<StreamId>,
    /// The nodes that this host acts on, for publishers to read.
    pub nodes: Vec<NodeName>,
    /// This program's version, for publishers to read.
    pub version: String,
    /// So many entries are kept unfinished at most; then reading stops until some are finished.
    pub window: usize,
    /// So many bytes of fields are kept unfinished at most, more or less one read.
    pub window_bytes: usize,
    /// Entries with more bytes of field names and values are not handed over but set aside.
    pub entry_limit: usize,
    /// How long a name belongs to an instance that is not heard of any more.
    pub lease: Duration,
    /// The time, for what others read.
    pub clock: Clock,
}

impl StreamOptions {
    /// `stream`, followed as `name` by `instance`, with replies to `<stream>:replies`, at most
    /// 1,024 entries and 16 MiB unfinished, 512 KiB an entry, and a lease of ten seconds.
    #[must_use]
    pub fn new(stream: &str, name: &str, instance: &str, clock: Clock) -> Self {
        Self {
            stream: stream.to_owned(),
            replies: format!("{stream}:replies"),
            name: name.to_owned(),
            instance: instance.to_owned(),
            followed: None,
            nodes: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            window: 1_024,
            window_bytes: 16 * 1_024 * 1_024,
            entry_limit: 512 * 1_024,
            lease: Duration::from_secs(10),
            clock,
        }
    }

    pub(super) fn group(&self) -> String {
        format!("purgewatch:{}", self.name)
    }

    pub(super) fn lease_key(&self) -> String {
        format!("purgewatch:{}:instance", self.name)
    }

    pub(super) fn set_aside_key(&self) -> String {
        format!("{}:set-aside", self.stream)
    }
}

/// A channel, or a pattern of channels (Redis's globs: `*`, `?`, `[...]`, `\x`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// This channel (SUBSCRIBE).
    Channel(String),
    /// Every channel that matches (PSUBSCRIBE).
    Pattern(String),
}

/// Which channels are followed, within which bounds.
#[derive(Debug, Clone)]
pub struct SubscriberOptions {
    /// What to subscribe to; a message names the places in this list that it came by.
    pub topics: Vec<Topic>,
    /// So many messages wait at most to be taken; beyond, they are lost, which is said.
    pub queue: usize,
    /// So many bytes of messages wait at most.
    pub queue_bytes: usize,
    /// Longer messages are lost, which is said.
    pub message_limit: usize,
    /// The pause between two PINGs. A connection that is dead without a sign is found out after
    /// this and the limit on a reply.
    pub ping_interval: Duration,
    /// The time, for when a gap began.
    pub clock: Clock,
}

impl SubscriberOptions {
    /// `topics`, with 1,024 messages and 8 MiB waiting at most, messages of 256 KiB at most, and a
    /// PING every five seconds.
    #[must_use]
    pub fn new(topics: Vec<Topic>, clock: Clock) -> Self {
        Self {
            topics,
            queue: 1_024,
            queue_bytes: 8 * 1_024 * 1_024,
            message_limit: 256 * 1_024,
            ping_interval: Duration::from_secs(5),
            clock,
        }
    }
}
