//! Every limit, in one place.

use std::time::Duration;

/// The limits of one client. The default fits a Varnish on this machine or nearby.
///
/// varnishd carries out one admin command at a time, for all its connections together. A `ping`
/// therefore waits while somebody else loads a VCL, and a limit must leave room for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// From the name lookup to an open connection, over all addresses of the name.
    pub connect: Duration,
    /// How long a varnishd that dials in ([`Place::Reverse`](super::Place::Reverse)) is waited for,
    /// with authentication. It dials about every second, and after failures about every ten.
    pub dial_in: Duration,
    /// From the open connection to the answer that the secret was taken.
    pub authenticate: Duration,
    /// From a command, or the reply before it if that is later, to its reply.
    pub reply: Duration,
    /// From the call to its answer, whatever happens in between; `None` leaves it to the others.
    pub deadline: Option<Duration>,
    /// How many commands may be under way without a reply: 1 to 16,384.
    pub window: usize,
    /// The longest body that a reply may have, in bytes. varnishd cuts bodies at its `cli_limit`,
    /// 48 KiB or 64 KiB unless it was raised, and never sends more than 99,999,999.
    pub body_limit: usize,
    /// A connection that was idle for this long is pinged, so that a dead peer is noticed before
    /// the next command; `None` never does. varnishd itself has no idle time-out.
    pub keep_alive: Option<Duration>,
    /// How long a connection whose reply is overdue is kept, its callers told already. Whoever
    /// drops one while varnishd is busy and dials anew only lengthens the queue in front of it.
    pub overdue: Duration,
    /// The pause before the second attempt to connect in a row. Each further failure doubles it,
    /// and a random part of up to a half is taken off.
    pub backoff_first: Duration,
    /// The longest such pause.
    pub backoff_most: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            dial_in: Duration::from_secs(15),
            authenticate: Duration::from_secs(5),
            reply: Duration::from_secs(10),
            deadline: None,
            window: 128,
            body_limit: 16 * 1024 * 1024,
            keep_alive: Some(Duration::from_secs(30)),
            overdue: Duration::from_secs(30),
            backoff_first: Duration::from_millis(100),
            backoff_most: Duration::from_secs(5),
        }
    }
}
