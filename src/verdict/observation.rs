//! What happened during one fetch. Not whether it was good.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use super::Compare;
use crate::model::{HttpUrl, Timestamp, ValueFault, Version};

/// What is fetched: a URL with its request headers, and how answers to it are compared. One for
/// each (endpoint, variant), shared by every fetch of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The URL, sent as written.
    pub url: HttpUrl,
    /// Request headers beside `Host`, in the order written; names and values are valid ones.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// What tells the version of an answer.
    pub compare: Compare,
    /// What is blanked out of a body before it is hashed. Only for [`Compare::Body`].
    pub ignore: Vec<Regex>,
    /// The most bytes of decoded body that are read; a longer one is [`Failure::BodyTooLarge`].
    pub body_limit: u64,
    /// The limit of a whole fetch, from dialling to the last byte of the body. No phase may take
    /// longer than it either.
    pub timeout: Duration,
}

/// One fetch to be made.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// What to fetch.
    pub target: Arc<Target>,
    /// When given, the request is conditional.
    pub condition: Option<Condition>,
    /// Asks for a connection of its own, which a load balancer may lead to another replica than
    /// the connection that is kept open. Used to confirm a mismatch.
    pub new_connection: bool,
    /// Keeps the header fields of the answer, which are evidence: for whoever asks why.
    pub keep_headers: bool,
}

impl FetchRequest {
    /// A plain fetch: unconditional, on any connection, its headers read and not kept.
    #[must_use]
    pub const fn new(target: Arc<Target>) -> Self {
        Self { target, condition: None, new_connection: false, keep_headers: false }
    }

    /// The same, with the header fields of the answer.
    #[must_use]
    pub fn with_headers(target: Arc<Target>) -> Self {
        Self { keep_headers: true, ..Self::new(target) }
    }
}

/// What an earlier answer said, to ask whether it still holds (RFC 9110 section 13.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Sent as `If-None-Match` and `If-Modified-Since`.
    pub validators: Validators,
    /// The version of that earlier answer: what a 304 stands for.
    pub version: Version,
}

/// The validators of an answer, as received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// `ETag`, with its quotes and `W/`.
    pub etag: Option<Arc<str>>,
    /// `Last-Modified`, as sent.
    pub last_modified: Option<Arc<str>>,
}

impl Validators {
    /// Whether there is nothing to ask conditionally with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// What happened during one fetch.
#[derive(Debug, Clone)]
pub struct Observation {
    /// When the fetch started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How long each phase took, as far as it was reached.
    pub phases: Phases,
    /// What came of it.
    pub outcome: Outcome,
}

/// How long each phase of a fetch took; `None` where it was skipped or not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// Name lookup and TCP connect; skipped on a connection that was kept.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From sending the request to the head of the response.
    pub first_byte: Option<Duration>,
    /// From the head to the last byte of the body.
    pub body: Option<Duration>,
}

/// A phase of a fetch; the `phase` label of `probe_duration_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting for one of the node's or origin's connections to be free.
    Queue,
    /// Name lookup and TCP connect.
    Connect,
    /// TLS handshake.
    Tls,
    /// Waiting for the head of the response.
    FirstByte,
    /// Reading the body.
    Body,
}

impl Phase {
    /// The label of this phase.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::FirstByte => "first_byte",
            Self::Body => "body",
        }
    }
}

/// What came of one fetch.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// An answer, whatever its status, read to its end.
    Answer(Box<Answer>),
    /// No answer that can be judged.
    Failed(Failure),
}

/// An HTTP answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status as sent: 304 for a [`Condition`] that still holds.
    pub status: u16,
    /// The version, or why there is none. After a 304, the condition's version.
    pub version: Result<Version, Unversioned>,
    /// Validators for the next conditional request.
    pub validators: Validators,
    /// What the answer says about caches on its way.
    pub cache: CacheSigns,
    /// `Retry-After`, where it stands beside 429 or 503.
    pub retry_after: Option<Duration>,
    /// The size of the body, in bytes: decoded where the rule looks into it, else as received.
    pub body_bytes: u64,
    /// The header fields, where the request asked to keep them.
    pub headers: Option<Arc<http::HeaderMap>>,
}

/// What an answer says about the caches it came through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheSigns {
    /// The ids of `X-Varnish` or `X-Vinyl`; of several such lines the last one, which is the
    /// outer tier's. One id: not a hit. Two: a hit, the second names the fetch that made the
    /// object.
    pub transaction: Option<(u64, Option<u64>)>,
    /// Whether there is any sign of Varnish: `X-Varnish`, `X-Vinyl`, or a `Via` that names it.
    pub is_varnish: bool,
    /// `Age`, in seconds.
    pub age: Option<u64>,
}

impl CacheSigns {
    /// Whether the answer was a hit, where the headers tell.
    #[must_use]
    pub fn is_hit(&self) -> Option<bool> {
        self.transaction.map(|(_, fetch)| fetch.is_some())
    }
}

/// Why an answer has no version under the endpoint's `compare` rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unversioned {
    /// The status is a server's failure or a refusal (anything but 2xx, 3xx, 404 and 410), which
    /// says nothing about the content.
    #[error("the status is not one that can be compared")]
    Status,
    /// `compare = "etag"` and there is no `ETag`.
    #[error("there is no ETag to compare")]
    NoEtag,
    /// `compare = "last-modified"` and there is none, or it is no date.
    #[error("there is no Last-Modified to compare")]
    NoLastModified,
    /// `compare = "header:NAME"` and there is no such header, or it is not text.
    #[error("the header to compare is missing")]
    NoHeader,
    /// `compare = "json:..."` and the body is no JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// `compare = "json:..."` and the pointer leads to nothing, or to an object or array.
    #[error("the JSON pointer leads to no value")]
    NoJsonValue,
    /// What a pointer names cannot be filled into a URL.
    #[error(transparent)]
    Value(ValueFault),
}

/// Why a fetch brought no answer that can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// The name does not resolve.
    #[error("the host name does not resolve")]
    Resolve,
    /// Nothing listens there.
    #[error("the connection was refused")]
    Refused,
    /// No route, network unreachable, reset during connect, or another failure to connect.
    #[error("no connection could be made")]
    Unreachable,
    /// A phase, or the whole, took longer than the timeout.
    #[error("timed out ({})", .0.label())]
    Timeout(Phase),
    /// The TLS handshake failed: wrong name, unknown authority, expired.
    #[error("the TLS handshake failed")]
    Tls,
    /// The connection was closed or reset before the answer was complete.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// What came is not HTTP, or its head is longer than the limit.
    #[error("the answer is not valid HTTP")]
    NotHttp,
    /// The decoded body is longer than the target's limit.
    #[error("the body is longer than the limit")]
    BodyTooLarge,
    /// The body's content coding is unknown, or the body does not decode under it.
    #[error("the body does not decode under its Content-Encoding")]
    Encoding,
}

/// What came of one fetch from a node, coarsely: the `result` label of `probes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// An answer with a version.
    Ok,
    /// The same, but with no sign of Varnish: is this address a cache at all?
    NotACache,
    /// An answer with an acceptable status that lacks what is compared.
    Unversioned,
    /// An answer whose status is not acceptable.
    Status,
    /// No connection: name lookup, refused, unreachable, TLS.
    Connect,
    /// A phase took too long.
    Timeout,
    /// Cut off, not HTTP, too large, or not decodable.
    Protocol,
}

impl ProbeResult {
    /// Every result, in the order of the enumeration.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::NotACache,
        Self::Unversioned,
        Self::Status,
        Self::Connect,
        Self::Timeout,
        Self::Protocol,
    ];

    /// The `result` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotACache => "not_a_cache",
            Self::Unversioned => "unversioned",
            Self::Status => "status",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }
}

impl Failure {
    /// The result that a fetch with this failure counts as.
    #[must_use]
    pub const fn result(self) -> ProbeResult {
        match self {
            Self::Resolve | Self::Refused | Self::Unreachable | Self::Tls => ProbeResult::Connect,
            Self::Timeout(_) => ProbeResult::Timeout,
            Self::Closed | Self::NotHttp | Self::BodyTooLarge | Self::Encoding => {
                ProbeResult::Protocol
            }
        }
    }
}

impl Observation {
    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answer(answer) => Some(answer),
            Outcome::Failed(_) => None,
        }
    }

    /// The version that was served, if there is one.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        self.answer().and_then(|answer| answer.version.as_ref().ok())
    }

    /// What this fetch, made from a node, counts as.
    #[must_use]
    pub fn result(&self) -> ProbeResult {
        match &self.outcome {
            Outcome::Failed(failure) => failure.result(),
            Outcome::Answer(answer) => match answer.version {
                Ok(_) if answer.cache.is_varnish => ProbeResult::Ok,
                Ok(_) => ProbeResult::NotACache,
                Err(Unversioned::Status) => ProbeResult::Status,
                Err(_) => ProbeResult::Unversioned,
            },
        }
    }
}
