//! One name, one daemon.

use redis::{Pipeline, Value, cmd};

use super::StreamOptions;
use super::connection::Link;
use super::error::IngestError;
use super::reply;

/// Whose the name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// Ours, for the length of the lease from now on.
    Us,
    /// Another instance's.
    Other(String),
}

/// Takes or renews the lease: the key `purgewatch:<name>:instance` holds the instance's id and
/// runs out by itself. The key is watched in between, so that two instances cannot both find it
/// free.
///
/// # Errors
/// As every command.
pub(super) async fn renew(link: &mut Link, options: &StreamOptions) -> Result<Holder, IngestError> {
    let key = options.lease_key();
    // Twice: what it loses to once is the other's taking it, which the second look sees.
    for _ in 0..2 {
        let mut look = Pipeline::new();
        look.cmd("WATCH").arg(&key).cmd("GET").arg(&key);
        let answers = link.ask_all("WATCH", &look).await?;
        if let Some(Value::ServerError(error)) =
            answers.iter().find(|answer| matches!(answer, Value::ServerError(_)))
        {
            return Err(link.failed("WATCH", super::Kind::of(&error.clone().into())));
        }
        let holder = answers.get(1).and_then(reply::bytes);
        if let Some(holder) = holder
            && holder != options.instance.as_bytes()
        {
            link.ask("UNWATCH", &cmd("UNWATCH")).await?;
            let name = String::from_utf8_lossy(holder).chars().take(128).collect();
            return Ok(Holder::Other(name));
        }
        let milliseconds = u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX);
        let mut take = Pipeline::new();
        take.cmd("SET").arg(&key).arg(&options.instance).arg("PX").arg(milliseconds);
        if link.transact("SET", &take).await?.is_some() {
            return Ok(Holder::Us);
        }
    }
    Ok(Holder::Other("unknown".to_owned()))
}

/// Gives the name up, if it is still ours: whoever comes next need not wait.
pub(super) async fn release(link: &mut Link, options: &StreamOptions) -> Result<(), IngestError> {
    if renew(link, options).await? == Holder::Us {
        let mut give = Pipeline::new();
        give.cmd("DEL").arg(options.lease_key());
        link.transact("DEL", &give).await?;
    }
    Ok(())
}
