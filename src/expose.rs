//! Layer 3: metrics, the API, the status page, and the HTTP listener for them.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | everything known, in the Prometheus text format |
//! | `/-/healthy` | 200 while the daemon's loop answers, 503 when it does not |
//! | `/-/ready` | 200 once the daemon works, 503 before and while it drains |
//! | `/api/v1/status` | the same as the metrics, as one JSON [`Document`](status::Document) |
//! | `/canary/NODE` | the object that the node caches and the daemon bans |
//! | `/` | a page for people; no script needed |
//! | `/api/v1/bans` | on the Unix socket only: the ledger; POST hands bans in |
//!
//! A large answer is written piece by piece while it is sent: a daemon with 10,000 endpoints has
//! some 20 MB of metrics and never holds more than a few hundred kilobytes of them. What a client
//! may cost is bounded by [`Limits`]; a client that is slow, silent or hostile is cut off.

mod bans;
mod canary;
mod connection;
mod content;
mod events;
mod families;
mod invalidations;
mod level;
mod metrics;
mod page;
mod preference;
mod process;
mod rate;
mod routes;
mod socket;
pub mod status;
mod text;
mod token;

pub use crate::engine::{BanResult, BanSource};
pub use bans::{
    Accepted, BanQuery, IssueError, IssueReply, MOST_BANS, Submission, SubmittedBan, SubmittedNode,
};
pub use canary::{CANARY_HEADER, CanaryBoard};
pub use connection::{BindError, Limits, bind, serve};
pub use events::{EventResult, SubscriptionState};
pub use invalidations::{
    Desk, HandedIn, Refused, Taken, serve_invalidations, serve_invalidations_socket,
};
pub use metrics::{LedgerState, Metrics, Side, StoreHealth};
pub use routes::{Question, Readiness, Refresh, Surface};
pub use socket::{SocketError, bind_socket, serve_socket};
pub use token::{Tokens, TokensError};

/// Everything that `/metrics` would answer for this snapshot, piece by piece, without a listener.
/// For the benchmark, and for whoever wants to look at it.
pub fn scrape<'a>(
    snapshot: std::sync::Arc<crate::engine::Snapshot>,
    metrics: &'a Metrics,
    wall_offset: i64,
) -> impl Iterator<Item = bytes::Bytes> + use<'a> {
    content::Chunks::new(families::Families::new(snapshot, metrics, wall_offset))
}
