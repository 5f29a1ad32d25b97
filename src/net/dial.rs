//! From `host:port` to a connected socket, with a reason when that fails.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use crate::model::{HostPort, format_duration};

/// So many addresses of one name are tried, the rest is left out: what a name server answers has
/// no limit of its own.
const MOST_ADDRESSES: usize = 16;

/// Longer limits are taken for this one, so that a deadline can always be reckoned.
const LONGEST_LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// A connection, and how it came about.
#[derive(Debug)]
pub struct Dialled {
    /// The connected socket, `TCP_NODELAY` set.
    pub stream: TcpStream,
    /// The address that answered.
    pub peer: SocketAddr,
    /// How long the name lookup took; nearly nothing for a numeric address.
    pub lookup: Duration,
    /// How long connecting took, over all the addresses tried.
    pub connect: Duration,
}

/// What kept a connection from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialErrorKind {
    /// The name has no address, or the name server gave no answer in time.
    Resolve,
    /// The peer's host answered that nothing listens there.
    Refused,
    /// No answer at all within the limit. Packets that a firewall drops look like this, and so
    /// does a host that is down or a listener whose backlog is full.
    TimedOut,
    /// The network says that there is no way there: no route, or a firewall that rejects.
    Unreachable,
    /// Anything else, such as a local rule that forbids it or no file descriptor left.
    Other,
}

impl DialErrorKind {
    /// The kind as a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Refused => "refused",
            Self::TimedOut => "connect_timeout",
            Self::Unreachable => "unreachable",
            Self::Other => "connect",
        }
    }
}

/// One address that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub peer: SocketAddr,
    /// What kind of failure it was.
    pub kind: DialErrorKind,
    /// The operating system's words for it.
    pub reason: String,
}

/// No connection could be made.
///
/// Where several addresses failed in different ways, `kind` is the one that says most:
/// `TimedOut` before `Refused` before `Unreachable` before `Other`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// What was to be reached.
    pub address: HostPort,
    /// What went wrong.
    pub kind: DialErrorKind,
    /// The limit on the whole of it.
    pub limit: Duration,
    /// Every address tried, in order; none when the name could not be resolved.
    pub tried: Vec<Attempt>,
    /// What the resolver said, for [`DialErrorKind::Resolve`].
    pub lookup: Option<String>,
}

impl std::error::Error for DialError {}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        let limit = format_duration(self.limit);
        match self.kind {
            DialErrorKind::Resolve => {
                let reason = self.lookup.as_deref().unwrap_or("no address");
                return write!(f, "cannot resolve {:?}: {reason}", address.host());
            }
            DialErrorKind::Refused => {
                write!(f, "{address} refused the connection: nothing listens there")?;
            }
            DialErrorKind::TimedOut => write!(
                f,
                "no answer from {address} within {limit}: dropped packets look like this, check \
                 firewalls and network ACLs on the way"
            )?,
            DialErrorKind::Unreachable => write!(
                f,
                "no way to {address}: there is no route, or a firewall rejects the connection"
            )?,
            DialErrorKind::Other => write!(f, "cannot connect to {address}")?,
        }
        let literal = address.host().parse::<IpAddr>().is_ok();
        let telling = self.tried.len() > 1 || !literal || self.kind == DialErrorKind::Other;
        if telling && !self.tried.is_empty() {
            f.write_str(" (tried ")?;
            for (n, Attempt { peer, reason, .. }) in self.tried.iter().enumerate() {
                write!(f, "{}{peer}: {reason}", if n == 0 { "" } else { "; " })?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Connects to `address` within `limit`, which covers the name lookup and every address that the
/// name has. Each address gets an equal share of the time that is left, so one that drops packets
/// cannot use up all of it.
///
/// `localhost` is both loopback addresses without asking a resolver (RFC 6761 section 6.3), IPv6
/// first, which is the order of RFC 6724; a wildcard address, as a server prints the one that it
/// listens on, is its family's loopback address.
///
/// Names are looked up on the runtime's blocking pool. A lookup that is given up goes on there
/// until the resolver's own limit: a program that is to end at once shuts its runtime down with
/// `Runtime::shutdown_background`.
///
/// Cancellation safe: a dropped call closes what it opened.
///
/// # Errors
/// [`DialError`] says which step failed for which address, and what that looks like.
pub async fn dial(address: &HostPort, limit: Duration) -> Result<Dialled, DialError> {
    let start = Instant::now();
    let deadline = start + limit.min(LONGEST_LIMIT);
    let addresses = match known(address) {
        Some(addresses) => addresses,
        None => look_up(address, limit, deadline).await?,
    };
    let looked_up = Instant::now();

    let mut tried = Vec::new();
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for peer in addresses {
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        let connected = match timeout(share, TcpStream::connect(peer)).await {
            Ok(connected) => connected.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            }),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {}", format_duration(share)),
            )),
        };
        match connected {
            Ok(stream) => {
                return Ok(Dialled {
                    stream,
                    peer,
                    lookup: looked_up - start,
                    connect: looked_up.elapsed(),
                });
            }
            Err(error) => {
                tried.push(Attempt { peer, kind: kind_of(&error), reason: error.to_string() });
            }
        }
    }
    let kind = most_telling(&tried);
    Err(DialError { address: address.clone(), kind, limit, tried, lookup: None })
}

/// The addresses of a host that needs no resolver.
fn known(address: &HostPort) -> Option<Vec<SocketAddr>> {
    let port = address.port();
    let loopback = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
    if address.host().eq_ignore_ascii_case("localhost") {
        return Some(loopback.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let ip = match address.host().parse().ok()? {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(vec![SocketAddr::new(ip, port)])
}

async fn look_up(
    address: &HostPort,
    limit: Duration,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, DialError> {
    let failed = |reason: String| DialError {
        address: address.clone(),
        kind: DialErrorKind::Resolve,
        limit,
        tried: Vec::new(),
        lookup: Some(reason),
    };
    let found = timeout_at(deadline, lookup_host((address.host(), address.port())))
        .await
        .map_err(|_| failed(format!("no answer within {}", format_duration(limit))))?
        .map_err(|error| failed(error.to_string()))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for peer in found {
        if addresses.len() < MOST_ADDRESSES && !addresses.contains(&peer) {
            addresses.push(peer);
        }
    }
    if addresses.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(addresses)
}

fn kind_of(error: &io::Error) -> DialErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => DialErrorKind::Refused,
        io::ErrorKind::TimedOut => DialErrorKind::TimedOut,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => DialErrorKind::Unreachable,
        _ => DialErrorKind::Other,
    }
}

fn most_telling(tried: &[Attempt]) -> DialErrorKind {
    [DialErrorKind::TimedOut, DialErrorKind::Refused, DialErrorKind::Unreachable]
        .into_iter()
        .find(|&kind| tried.iter().any(|attempt| attempt.kind == kind))
        .unwrap_or(DialErrorKind::Other)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn to(host: &str, port: u16) -> HostPort {
        HostPort::new(host, port).unwrap()
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn localhost_and_wildcards_reach_loopback() {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        for host in ["localhost", "LOCALHOST", "0.0.0.0", "127.0.0.1"] {
            let dialled = dial(&to(host, port), LIMIT).await.unwrap();
            assert_eq!(dialled.peer, v4.local_addr().unwrap(), "{host}");
            assert!(dialled.stream.nodelay().unwrap());
        }
        let v6 = TcpListener::bind("[::1]:0").await.unwrap();
        let port = v6.local_addr().unwrap().port();
        for host in ["localhost", "::", "::1"] {
            let dialled = dial(&to(host, port), LIMIT).await.unwrap();
            assert_eq!(dialled.peer, v6.local_addr().unwrap(), "{host}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_at_every_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = dial(&to("localhost", port), LIMIT).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::Refused);
        assert_eq!(error.tried.len(), 2);
        let text = error.to_string();
        assert!(text.contains("nothing listens there"), "{text}");
        assert!(text.contains("127.0.0.1") && text.contains("[::1]"), "{text}");
    }

    /// A listener whose backlog is full, and what fills it: it drops connection attempts.
    async fn dropping() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v6().unwrap();
        socket.bind("[::1]:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let peer = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(peer)).await {
            held.push(stream.unwrap());
        }
        (listener, held)
    }

    #[tokio::test]
    async fn dropped_packets_are_no_answer() {
        let (listener, _held) = dropping().await;
        let limit = Duration::from_millis(300);
        let port = listener.local_addr().unwrap().port();
        let error = dial(&to("::1", port), limit).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::TimedOut);
        assert!(error.to_string().contains("within 300ms: dropped packets"), "{error}");
        // The other loopback address refuses; the silence of the first one says more.
        let error = dial(&to("localhost", port), limit).await.unwrap_err();
        assert_eq!((error.kind, error.tried.len()), (DialErrorKind::TimedOut, 2));
    }

    #[tokio::test]
    async fn an_address_that_drops_packets_leaves_time_for_the_next() {
        let (listener, _held) = dropping().await;
        let port = listener.local_addr().unwrap().port();
        let works = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let dialled = dial(&to("localhost", port), Duration::from_secs(1)).await.unwrap();
        assert_eq!(dialled.peer, works.local_addr().unwrap());
        let millis = dialled.connect.as_millis();
        assert!((450..900).contains(&millis), "half of it went to the first: {millis} ms");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_not_resolved() {
        let error = dial(&to("no-such-host.invalid", 6082), LIMIT).await.unwrap_err();
        assert_eq!(error.kind, DialErrorKind::Resolve);
        assert!(error.tried.is_empty());
        assert!(error.to_string().starts_with("cannot resolve \"no-such-host.invalid\": "));
    }

    #[test]
    fn silence_says_more_than_a_refusal() {
        let attempt =
            |kind| Attempt { peer: "192.0.2.1:1".parse().unwrap(), kind, reason: String::new() };
        let tried = [DialErrorKind::Unreachable, DialErrorKind::Refused, DialErrorKind::TimedOut];
        assert_eq!(most_telling(&tried.map(attempt)), DialErrorKind::TimedOut);
        assert_eq!(most_telling(&[attempt(DialErrorKind::Other)]), DialErrorKind::Other);
    }
}
