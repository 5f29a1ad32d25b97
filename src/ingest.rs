//! Layer 3: Redis to news, and back.
//!
//! Three things talk to a Redis (or Valkey) server, 6.0 or newer, each over connections of its own
//! and in a task of its own:
//!
//! - [`StreamReader`] follows a stream with a consumer group of this host's, and keeps what was
//!   not finished over restarts of either side: every entry is handed over at least once.
//! - [`Subscriber`] follows Pub/Sub channels, which forget: each gap is said.
//! - [`Publisher`] adds an entry to a stream and collects what the hosts answer; it is for a
//!   command that runs once.
//!
//! Nothing here knows what an entry means. Everything that waits has a limit, everything that is
//! kept has a bound, and what Redis sends is measured before it is believed.

mod backoff;
mod connection;
mod error;
mod follower;
mod id;
mod lease;
mod metered;
mod options;
mod publisher;
mod reader;
mod reply;
mod subscriber;

pub use error::{IngestError, Kind, LABELS, Stage};
pub use follower::Follower;
pub use id::{StreamId, StreamIdError};
pub use options::{RedisOptions, StreamOptions, SubscriberOptions, Topic};
pub use publisher::{Position, Publisher};
pub use reader::{Entry, GapCause, GroupStart, QueueFull, StreamHandle, StreamNews, StreamReader};
pub use subscriber::{Message, PubSubNews, SilenceCause, Subscriber};
