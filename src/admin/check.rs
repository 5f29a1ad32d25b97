//! Does the path to a node work, from the name to a `PONG`?

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::connection::open;
use super::{AdminError, Greeting, Kind, Options, Stage, Target};
use crate::protocol::{Command, Event, Verb};

/// A path that works, and how long each step took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCheck {
    /// The connection made for it: address, version, state of the cache process, notes.
    pub greeting: Greeting,
    /// From the `ping` to its `PONG`.
    pub ping: Duration,
}

/// Goes the whole way that a ban would go, on a connection of its own: look up, connect,
/// authenticate, `ping`.
///
/// A connection that is kept open would not notice a firewall rule that lets no new one through.
///
/// Of a varnishd that dials in, it takes the one connection and gives it up again: where a
/// [`Client`](super::Client) holds that, ask the client.
///
/// Bounded by [`Options::connect`] (or [`Options::dial_in`]), [`Options::authenticate`] and
/// [`Options::reply`] together; authenticating counts once for each address of the target.
/// Cancellation safe.
///
/// # Errors
/// [`AdminError`] names the step that failed.
pub async fn check_path(target: &Target, options: &Options) -> Result<PathCheck, AdminError> {
    let mut connection = open::<()>(target, options, |_| {}).await?;
    let start = Instant::now();
    let ping = Command::ping();
    let exchange = async {
        if connection.session.send(&ping, ()).is_ok() {
            connection.write(&ping);
        }
        connection.flush().await?;
        let reply = connection.next_reply().await?;
        match connection.session.handle(reply)? {
            Event::Reply { reply, .. } if reply.is_success() => Ok(()),
            Event::Reply { reply, .. } => {
                Err(Kind::Rejected { status: reply.status, body: reply.body })
            }
            Event::Challenged | Event::Ready(_) => Err(Kind::Dropped),
        }
    };
    let result = timeout(options.reply, exchange)
        .await
        .unwrap_or(Err(Kind::ReplyTimedOut { limit: options.reply }));
    match result {
        Ok(()) => Ok(PathCheck { greeting: connection.greeting, ping: start.elapsed() }),
        Err(kind) => {
            let stage = Stage::Command(Verb::PING);
            Err(AdminError { node: target.node.clone(), stage, kind })
        }
    }
}
