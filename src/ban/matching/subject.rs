//! What a ban is tested against.

use http::HeaderMap;

use super::seconds::Seconds;

/// From where headers were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vantage {
    /// By a client: what it sent, and what it got back.
    Client,
    /// Inside Varnish: `req` at the lookup, and the object as it is stored. What is not there is
    /// certainly not there.
    Varnish,
}

/// The request that looks the object up.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Path and query, byte for byte.
    pub url: &'a [u8],
    /// Its headers, all of them: `Host` too, and those that an HTTP library adds.
    pub headers: &'a HeaderMap,
    /// Who saw them.
    pub vantage: Vantage,
}

/// A cached object.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The status code.
    pub status: u16,
    /// Its headers. A client must have asked with a plain GET.
    pub headers: &'a HeaderMap,
    /// Who saw status and headers.
    pub vantage: Vantage,
    /// What is known of its times.
    pub times: Times,
}

/// What is known of an object's times, as they are when the ban is made; `None` where nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// Its age: [`Seconds::from_age`] for what a response says.
    pub age: Option<Seconds>,
    /// What is left of its TTL; negative when it has expired.
    pub ttl: Option<Seconds>,
    /// The grace that it was given.
    pub grace: Option<Seconds>,
    /// The keep that it was given.
    pub keep: Option<Seconds>,
    /// The time since it was last delivered.
    pub last_hit: Option<Seconds>,
}
