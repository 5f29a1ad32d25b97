//! Fetches through the code that the daemon fetches with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use purgewatch::clock::Clock;
use purgewatch::model::{HostPort, Scheme};
use purgewatch::probe::{Destination, Options};
use purgewatch::verdict::{Compare, FetchRequest, Target};

/// A peer as the daemon makes them.
pub fn destination(address: SocketAddr) -> Destination {
    let address = HostPort::new(&address.ip().to_string(), address.port()).unwrap();
    Destination::new(Scheme::Http, address, Options::default(), Clock::start())
}

/// A fetch whose whole body is compared.
pub fn request(url: &str) -> FetchRequest {
    let target = Target {
        url: url.parse().unwrap(),
        headers: Vec::new(),
        compare: Compare::Body,
        ignore: Vec::new(),
        body_limit: 10 << 20,
        timeout: Duration::from_secs(10),
    };
    FetchRequest::new(Arc::new(target))
}
