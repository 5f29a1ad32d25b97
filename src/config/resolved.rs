//! What a configuration means, once it was found to be free of faults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use regex::bytes::Regex;

use super::{CanarySettings, Invalidations, Pointer, RedisSettings, Subscription};
use crate::model::{
    EndpointName, HostPort, HttpUrl, NodeName, OriginName, Scheme, UrlError, VariantName,
};
use crate::verdict::Compare;

/// A whole configuration without faults.
///
/// What holds: at least one node, one origin and one endpoint or pointer; names are unique among
/// their kind, endpoints and pointers being one; each endpoint's and pointer's origin and nodes,
/// and each subscription's endpoints, are among those listed here; where there is a subscription,
/// there is a Redis server; every list is in the order of the file.
#[derive(Debug, Clone)]
pub struct Config {
    /// The daemon's own settings.
    pub daemon: Daemon,
    /// The Varnish instances, at least one.
    pub nodes: Vec<Node>,
    /// Where the truth is fetched from, at least one.
    pub origins: Vec<Origin>,
    /// The watched URLs, at least one unless there is a pointer.
    pub endpoints: Vec<Endpoint>,
    /// The URLs that name the current version of others.
    pub pointers: Vec<Pointer>,
    /// Where events come from.
    pub redis: Option<RedisSettings>,
    /// Which events are followed.
    pub subscriptions: Vec<Subscription>,
    /// Where events are taken over HTTP.
    pub invalidations: Option<Invalidations>,
}

impl Config {
    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The origin of that name.
    #[must_use]
    pub fn origin(&self, name: &OriginName) -> Option<&Origin> {
        self.origins.iter().find(|origin| origin.name == *name)
    }

    /// The requests a second that the schedule alone makes at an origin: one for each endpoint,
    /// variant and interval, and likewise for a pointer and the URLs of one version. Confirming a
    /// mismatch comes on top.
    #[must_use]
    pub fn scheduled_rate(&self, origin: &OriginName) -> f64 {
        // A sum of nothing would be -0.
        let endpoints = self.endpoints.iter().filter(|e| e.origin == *origin).map(Endpoint::rate);
        let pointers = self.pointers.iter().filter(|p| p.origin == *origin).map(Pointer::rate);
        endpoints.chain(pointers).fold(0.0, |sum, rate| sum + rate)
    }
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Where metrics, the API and the status page are served. Default: `127.0.0.1:19131`.
    pub listen: SocketAddr,
    /// The directory for what must survive a restart. Default: `/var/lib/purgewatch`.
    pub state_dir: PathBuf,
    /// The most bans a minute that cure what is stale: 1 to 600. Default: 6.
    pub remedy_max_rate: usize,
    /// The Unix socket for what changes something. Default: in the directory that systemd made for
    /// the service (`RuntimeDirectory=`), else none.
    pub socket: Option<PathBuf>,
    /// How long the ban list of a node may be before events are slowed down there: up to ten
    /// million, none: any length. Default: 20,000.
    pub ban_list_limit: Option<usize>,
}

/// `[[node]]`: one Varnish instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name; the `node` label.
    pub name: NodeName,
    /// Where it is fetched through. Host and SNI are the endpoint's.
    pub http: ServerAddress,
    /// Certificates (PEM) that are trusted for `https` in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Its admin port, if it has one.
    pub admin: Option<AdminSettings>,
    /// How many HTTP connections to it may be open at once: 1 to 1024. Default: 16.
    pub connections: usize,
    /// Its canary, if it has one.
    pub canary: Option<CanarySettings>,
}

/// The admin port of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it is.
    pub place: AdminPlace,
    /// Where its secret comes from. With a work directory, [`SecretSettings::None`] means the
    /// secret that the directory names.
    pub secret: SecretSettings,
    /// How often it is checked: 1 s to 1 h. Default: 30 s.
    pub interval: Duration,
    /// The limit of each step (connecting, authenticating, one reply): 100 ms to 60 s.
    /// Default: 5 s, as varnishadm(1) has it.
    pub timeout: Duration,
}

/// Where an admin port is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminPlace {
    /// `admin`: where varnishd listens for it (varnishd(1), `-T`).
    Address(HostPort),
    /// `workdir`: the path or name of a varnishd on this machine (varnishd(1), `-n`).
    Workdir(PathBuf),
    /// `admin_listen`: where we listen for a varnishd that dials in (varnishd(1), `-M`).
    Listen(SocketAddr),
}

/// Where a secret comes from. Never the secret itself: that is read when it is needed, since
/// varnishd reads its own file again for each authentication, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSettings {
    /// None is configured: a node runs with `-S none`.
    None,
    /// `secret_file` (or `password_file`, `token_file`): an absolute path.
    File(PathBuf),
    /// `secret_credential` (or `password_credential`, `token_credential`): a systemd credential
    /// (systemd.exec(5), `LoadCredential=`).
    Credential {
        /// Its name: that of a file in `$CREDENTIALS_DIRECTORY`.
        name: String,
        /// The file beside it: read where systemd hands over no such credential, as to a
        /// command in a shell.
        file: Option<PathBuf>,
    },
}

impl SecretSettings {
    pub(super) fn of(file: Option<PathBuf>, credential: Option<String>) -> Self {
        match (file, credential) {
            (file, Some(name)) => Self::Credential { name, file },
            (Some(path), None) => Self::File(path),
            (None, None) => Self::None,
        }
    }
}

/// `[[origin]]`: where the truth is fetched from, bypassing every cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Its name.
    pub name: OriginName,
    /// Where to connect. Host and SNI are the endpoint's.
    pub address: ServerAddress,
    /// Certificates (PEM) that are trusted for `https` in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The most requests a second that are sent to it: 0.01 to 100,000. Default: 20.
    pub max_rate: f64,
    /// How many HTTP connections to it may be open at once: 1 to 1024. Default: 16.
    pub connections: usize,
}

/// A scheme, host and port to connect to: `http://10.0.0.5:8080`. Without a path, since that is
/// the endpoint's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress {
    /// Whether TLS is spoken there.
    pub scheme: Scheme,
    /// Where it is, the scheme's own port when none was written.
    pub address: HostPort,
}

impl FromStr for ServerAddress {
    type Err = ServerAddressError;

    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        let url: HttpUrl = text.parse()?;
        let end = url.scheme().as_str().len() + "://".len() + url.authority().len();
        match text.get(end..) {
            None | Some("" | "/") => {
                Ok(Self { scheme: url.scheme(), address: url.address().clone() })
            }
            Some(path) => Err(ServerAddressError::Path { found: path.to_owned() }),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.address)
    }
}

/// Why a text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerAddressError {
    /// It is no URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It has a path, which belongs to the endpoint.
    #[error("an address to connect to has no path, got {found:?} after the host")]
    Path {
        /// The path that was written.
        found: String,
    },
}

/// `[[endpoint]]`: one watched URL.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its name; the `endpoint` label.
    pub name: EndpointName,
    /// The URL, sent as written.
    pub url: HttpUrl,
    /// Where the truth is fetched from.
    pub origin: OriginName,
    /// The nodes that serve it, at least one, each once; all nodes when the file names none.
    pub nodes: Vec<NodeName>,
    /// What tells the version of an answer. Default: the body.
    pub compare: Compare,
    /// What is blanked out of a body before it is compared. Only with [`Compare::Body`].
    pub ignore: Vec<Regex>,
    /// The sets of request headers it is fetched with, at least one. An endpoint that configures
    /// none has one called `default`.
    pub variants: Vec<Variant>,
    /// How often it is fetched: 1 s to 24 h. Default: 30 s.
    pub interval: Duration,
    /// The limit of one fetch: 100 ms to 5 min. Default: 5 s.
    pub timeout: Duration,
    /// How long a cache may lag behind its origin before that is an alarm: 0 to 30 days.
    /// Default: 60 s.
    pub max_stale: Duration,
    /// The most bytes of a decoded body that are read: 1 to 1 GiB. Default: 16 MiB.
    pub body_limit: u64,
    /// The response headers that bans on URLs can go by, if the VCL sets such.
    pub ban_headers: Option<BanHeaders>,
    /// What is done at a node where it is stale. Default: nothing but the alarm.
    pub on_stale: OnStale,
}

/// What is done at a node where an endpoint is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStale {
    /// `"alarm"`: nothing beyond saying so.
    #[default]
    Alarm,
    /// `"ban"`: that one URL is banned there once more.
    Ban,
}

impl Endpoint {
    /// The requests a second that its schedule alone makes at its origin, and at each node.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let variants = u32::try_from(self.variants.len()).unwrap_or(u32::MAX);
        f64::from(variants) / self.interval.as_secs_f64()
    }
}

/// One set of request headers of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name; the `variant` label. Unique within its endpoint.
    pub name: VariantName,
    /// The request headers beside `Host`: the endpoint's, then those of the variant, which
    /// replace the endpoint's of the same name. In the order of their names. Values that tend to
    /// be secret (`Authorization`, `Cookie`) are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Response headers that the VCL copies a request's URL and host to, so that a ban can be put as
/// `obj.http.NAME`, which the ban lurker can work off (vcl(7), bans).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanHeaders {
    /// The header that holds `req.url`.
    pub url: String,
    /// The header that holds `req.http.host`.
    pub host: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_address_has_no_path() {
        let parsed = |text: &str| text.parse::<ServerAddress>();
        assert_eq!(parsed("http://10.0.0.5:8080").unwrap().to_string(), "http://10.0.0.5:8080");
        assert_eq!(parsed("https://[::1]/").unwrap().to_string(), "https://[::1]:443");
        for (text, path) in [("http://a/b", "/b"), ("http://a?b", "?b"), ("http://a//", "//")] {
            let found = path.to_owned();
            assert_eq!(parsed(text), Err(ServerAddressError::Path { found }), "{text}");
        }
        assert!(matches!(parsed("10.0.0.5:80"), Err(ServerAddressError::Url(_))));
    }
}
