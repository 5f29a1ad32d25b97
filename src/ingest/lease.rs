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

/// Takes or renews the lease: the key `purgewatch:<name>:instance` holds the instance and runs out
/// by itself. The key is watched in between, so that two instances cannot both find it free.
///
/// A lease of an earlier start of ours is taken over at once, unless it was `held` by this start:
/// then whoever has it started later, from a copy of our state, and two that took it from each
/// other in turn would share the entries for ever.
///
/// # Errors
/// As every command.
pub(super) async fn renew(
    link: &mut Link,
    options: &StreamOptions,
    held: bool,
) -> Result<Holder, IngestError> {
    let key = options.lease_key();
    let milliseconds = u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX);
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
        let us = options.instance.as_bytes();
        match answers.get(1).and_then(reply::bytes) {
            // A server without memory left does this, and neither SET nor a transaction.
            Some(holder) if holder == us => {
                let mut extend = Pipeline::new();
                extend.cmd("UNWATCH").cmd("PEXPIRE").arg(&key).arg(milliseconds);
                extend.cmd("GET").arg(&key);
                let answers = link.ask_all("PEXPIRE", &extend).await?;
                if answers.get(2).and_then(reply::bytes) == Some(us) {
                    return Ok(Holder::Us);
                }
            }
            Some(holder) if held || !is_ours(holder, &options.instance) => {
                let name = String::from_utf8_lossy(holder).chars().take(128).collect();
                link.ask("UNWATCH", &cmd("UNWATCH")).await?;
                return Ok(Holder::Other(name));
            }
            _ => {
                let mut take = Pipeline::new();
                take.cmd("SET").arg(&key).arg(&options.instance).arg("PX").arg(milliseconds);
                if link.transact("SET", &take).await?.is_some() {
                    return Ok(Holder::Us);
                }
            }
        }
    }
    Ok(Holder::Other("unknown".to_owned()))
}

/// Whether two instances are starts of one, or of copies of it.
pub(super) fn is_ours(holder: &[u8], instance: &str) -> bool {
    holder.split(|byte| *byte == b':').next() == instance.as_bytes().split(|b| *b == b':').next()
}

/// Gives the name up, if it is still ours: whoever comes next need not wait.
pub(super) async fn release(link: &mut Link, options: &StreamOptions) -> Result<(), IngestError> {
    if renew(link, options, true).await? == Holder::Us {
        link.ask("DEL", cmd("DEL").arg(options.lease_key())).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_one_instance_are_told_from_others() {
        assert!(is_ours(b"ab:1", "ab:2") && is_ours(b"ab", "ab:2") && is_ours(b"ab", "ab"));
        assert!(!is_ours(b"a:1", "ab:1") && !is_ours(b"", "ab:1") && !is_ours(b":1", "ab:1"));
    }
}
