//! The nodes and origins that the engine's fetches and checks go to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::admin;
use crate::clock::Clock;
use crate::config::{
    AdminPlace, AdminSettings, BanHeaders, Config, Node, Origin, SecretSettings, ServerAddress,
};
use crate::engine::Process;
use crate::model::{EndpointName, NodeName, OriginName, Timestamp};
use crate::probe::{Destination, Options};
use crate::protocol::answer::{ChildState, Pids};
use crate::protocol::{Command, Verb};
use crate::systemd::{CredentialError, Credentials};
use crate::verdict::cause::{Elsewhere, SentBan, Span};

/// So many bans that a node took are remembered: those of its canary over some hours.
const MOST_SENT: usize = 256;

/// Every node and origin of a configuration, with its connections.
#[derive(Debug, Default)]
pub struct Peers {
    nodes: HashMap<NodeName, NodePeer>,
    origins: HashMap<OriginName, HttpPeer>,
    ban_headers: HashMap<EndpointName, BanHeaders>,
    elsewhere: HashMap<NodeName, Elsewhere>,
}

#[derive(Debug, Clone)]
struct NodePeer {
    http: HttpPeer,
    admin: Option<AdminPeer>,
}

/// A node's admin port.
#[derive(Debug, Clone)]
pub struct AdminPeer {
    settings: AdminSettings,
    target: admin::Target,
    options: admin::Options,
    /// The one connection of a varnishd that dials in, for everything that is asked of it.
    shared: Option<admin::Client>,
    /// A connection of an earlier delivery that went well, kept for the next one.
    kept: Arc<Mutex<Option<admin::Client>>>,
    /// The newest bans that were sent and taken, the newest last.
    sent: Arc<Mutex<VecDeque<SentBan>>>,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct HttpPeer {
    settings: HttpSettings,
    destination: Arc<Destination>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct HttpSettings {
    address: ServerAddress,
    ca_file: Option<PathBuf>,
    connections: usize,
}

/// A node's secret that cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("node {node}: its secret cannot be found")]
pub struct PeerError {
    /// The node.
    pub node: NodeName,
    /// Why.
    pub source: CredentialError,
}

impl Peers {
    /// The peers of `config`. Those of `old` that did not change keep their connections.
    ///
    /// # Errors
    /// [`PeerError`] when a node's secret is a credential that systemd did not hand over.
    pub fn new(
        config: &Config,
        old: &Self,
        credentials: &Credentials,
        clock: Clock,
    ) -> Result<Self, PeerError> {
        let mut peers = Self::default();
        for node in &config.nodes {
            let kept = old.nodes.get(&node.name);
            let admin = match &node.admin {
                Some(settings) => Some(AdminPeer::new(node, settings, old, credentials, clock)?),
                None => None,
            };
            let kept = kept.map(|peer| &peer.http);
            let http = HttpPeer::new(HttpSettings::of_node(node), kept, clock);
            peers.nodes.insert(node.name.clone(), NodePeer { http, admin });
        }
        for origin in &config.origins {
            let kept = old.origins.get(&origin.name);
            let http = HttpPeer::new(HttpSettings::of_origin(origin), kept, clock);
            peers.origins.insert(origin.name.clone(), http);
        }
        for store in super::pointer::stores(config) {
            let kept = old.origins.get(&store.name);
            let http = HttpPeer::new(HttpSettings::of_store(store.address), kept, clock);
            peers.origins.insert(store.name, http);
        }
        for pointer in &config.pointers {
            if let Some(headers) = &pointer.ban_headers {
                peers.ban_headers.insert(pointer.name.clone(), headers.clone());
            }
        }
        for endpoint in &config.endpoints {
            if let Some(headers) = &endpoint.ban_headers {
                peers.ban_headers.insert(endpoint.name.clone(), headers.clone());
            }
        }
        let endpoints = config.endpoints.iter().map(|endpoint| &endpoint.url);
        let pointers = config.pointers.iter().map(|pointer| &pointer.url);
        let watched = Elsewhere::new(endpoints.chain(pointers));
        for node in &config.nodes {
            let elsewhere = match super::canary::plan(config, node) {
                Some(canary) => watched.with_canary(&canary.target.url, &canary.ban),
                None => watched.clone(),
            };
            peers.elsewhere.insert(node.name.clone(), elsewhere);
        }
        Ok(peers)
    }

    /// Where fetches from a node go.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<Arc<Destination>> {
        self.nodes.get(name).map(|peer| peer.http.destination.clone())
    }

    /// Where fetches from an origin go.
    #[must_use]
    pub fn origin(&self, name: &OriginName) -> Option<Arc<Destination>> {
        self.origins.get(name).map(|peer| peer.destination.clone())
    }

    /// How a node's admin port is reached.
    #[must_use]
    pub fn admin(&self, name: &NodeName) -> Option<AdminPeer> {
        self.nodes.get(name)?.admin.clone()
    }

    /// The node with an admin port that is meant: one of that name at that place, or, where the
    /// name is another, the one at that place. Without a place the name decides.
    #[must_use]
    pub fn meant(&self, name: &str, place: Option<&str>) -> Option<&NodeName> {
        let with_admin = || self.nodes.iter().filter(|(_, node)| node.admin.is_some());
        let at = |node: &NodePeer| node.admin.as_ref().is_some_and(|a| Some(&*a.place()) == place);
        let named = || with_admin().find(|(known, _)| known.as_str() == name);
        let found = match place {
            None => named(),
            Some(_) => named()
                .filter(|(_, node)| at(node))
                .or_else(|| with_admin().find(|(_, node)| at(node))),
        };
        found.map(|(name, _)| name)
    }

    /// Every node with an admin port.
    pub fn with_admin(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.iter().filter(|(_, node)| node.admin.is_some()).map(|(name, _)| name)
    }

    /// The header fields that the VCL gives to the objects of an endpoint, for bans to go by.
    #[must_use]
    pub fn ban_headers(&self, endpoint: &EndpointName) -> Option<&BanHeaders> {
        self.ban_headers.get(endpoint)
    }

    /// What bans at a node may be meant for besides the endpoint in question.
    #[must_use]
    pub fn elsewhere(&self, node: &NodeName) -> Elsewhere {
        self.elsewhere.get(node).cloned().unwrap_or_default()
    }

    /// The port of a varnishd that dials in at that address.
    fn acceptor(&self, address: SocketAddr) -> Option<admin::Acceptor> {
        self.nodes.values().find_map(|node| match &node.admin.as_ref()?.target.place {
            admin::Place::Reverse(acceptor) if acceptor.address() == address => {
                Some(acceptor.clone())
            }
            _ => None,
        })
    }
}

impl AdminPeer {
    fn new(
        node: &Node,
        settings: &AdminSettings,
        old: &Peers,
        credentials: &Credentials,
        clock: Clock,
    ) -> Result<Self, PeerError> {
        let kept = old.nodes.get(&node.name).and_then(|peer| peer.admin.as_ref());
        if let Some(kept) = kept.filter(|kept| kept.settings == *settings) {
            return Ok(kept.clone());
        }
        let mut target = admin_target(&node.name, settings, credentials)
            .map_err(|source| PeerError { node: node.name.clone(), source })?;
        let limit: Duration = settings.timeout;
        let options = admin::Options {
            connect: limit,
            authenticate: limit,
            reply: limit,
            ..admin::Options::default()
        };
        let mut shared = None;
        if let admin::Place::Reverse(acceptor) = &mut target.place {
            // An open port stays open: it cannot be opened twice.
            if let Some(open) = old.acceptor(acceptor.address()) {
                *acceptor = open;
            }
            shared = Some(admin::Client::new(target.clone(), options.clone()));
        }
        let (kept, sent) = (Arc::default(), Arc::default());
        Ok(Self { settings: settings.clone(), target, options, shared, kept, sent, clock })
    }

    /// Where it is, as text.
    #[must_use]
    pub fn place(&self) -> String {
        self.target.place.to_string()
    }

    /// Whether bans would be taken, and the processes behind the port, if it tells: on a connection
    /// of its own, so that a filter that lets no new one through is noticed; with a varnishd that
    /// dials in, on the one that there is.
    ///
    /// # Errors
    /// [`admin::AdminError`] with the step that failed. A cache process that somebody stopped is a
    /// failure, since no ban is taken then; one that is just being started is none.
    pub async fn check(&self) -> Result<Option<Process>, admin::AdminError> {
        let client = self.client();
        client.ping().await?;
        let Ok(Pids { master, worker }) = client.pids().await else { return Ok(None) };
        if worker.is_none()
            && let Ok(state @ (ChildState::Stopped | ChildState::Stopping)) =
                client.child_state().await
        {
            let kind = admin::Kind::ChildNotRunning { state: Some(state.to_string()) };
            let stage = admin::Stage::Command(Verb::STATUS);
            return Err(admin::AdminError { node: self.target.node.clone(), stage, kind });
        }
        Ok(Some(Process { manager: master, worker }))
    }

    /// A client whose connection may be open already, for what must not wait for a handshake. What
    /// keeps new connections out does not show there: that is for the checks to see.
    #[must_use]
    pub fn open_client(&self) -> admin::Client {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| self.client())
    }

    /// Keeps a client for the next [`open_client`](Self::open_client).
    pub fn keep_client(&self, client: admin::Client) {
        if self.shared.is_none() {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
        }
    }

    /// Remembers that the node took a ban which was sent from `begin` until now: varnishd forgets
    /// what a ban said once it has worked it off.
    pub(super) fn note_sent(&self, ban: Vec<u8>, begin: Timestamp) {
        let sent = Span { earliest: begin, latest: self.clock.now() };
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_SENT {
            all.pop_front();
        }
        all.push_back(SentBan { ban: ban.into(), sent });
    }

    /// What is remembered of bans that the node took.
    pub(super) fn sent(&self) -> Vec<SentBan> {
        let all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().cloned().collect()
    }

    /// When it is.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A client for commands. All of a varnishd that dials in share one connection.
    #[must_use]
    pub fn client(&self) -> admin::Client {
        match &self.shared {
            Some(client) => client.clone(),
            None => admin::Client::new(self.target.clone(), self.options.clone()),
        }
    }
}

impl AdminPeer {
    /// Sends one ban, on a connection of its own, so that what keeps new ones out is noticed; with
    /// a varnishd that dials in, on the one that there is. Takes no longer than three steps may:
    /// connecting, authenticating, the reply.
    ///
    /// # Errors
    /// [`admin::AdminError`]; its outcome says whether the ban may have been taken all the same.
    pub async fn ban(&self, ban: Command) -> Result<(), admin::AdminError> {
        let (client, limit) = (self.client(), self.options.reply * 3);
        let stage = admin::Stage::Command(ban.verb().clone());
        timeout(limit, client.ban(ban)).await.unwrap_or_else(|_| {
            let stage = client.stage().unwrap_or(stage);
            let kind = admin::Kind::Deadline { limit };
            Err(admin::AdminError { node: self.target.node.clone(), stage, kind })
        })
    }
}

impl HttpPeer {
    fn new(settings: HttpSettings, kept: Option<&Self>, clock: Clock) -> Self {
        if let Some(kept) = kept.filter(|kept| kept.settings == settings) {
            return kept.clone();
        }
        let options = Options {
            connections: settings.connections,
            ca_file: settings.ca_file.clone(),
            ..Options::default()
        };
        let ServerAddress { scheme, address } = settings.address.clone();
        let destination = Arc::new(Destination::new(scheme, address, options, clock));
        Self { settings, destination }
    }
}

impl HttpSettings {
    fn of_node(node: &Node) -> Self {
        Self {
            address: node.http.clone(),
            ca_file: node.ca_file.clone(),
            connections: node.connections,
        }
    }

    fn of_origin(origin: &Origin) -> Self {
        Self {
            address: origin.address.clone(),
            ca_file: origin.ca_file.clone(),
            connections: origin.connections,
        }
    }

    fn of_store(address: ServerAddress) -> Self {
        Self { address, ca_file: None, connections: 4 }
    }
}

/// A node's admin port as the configuration has it.
///
/// # Errors
/// [`CredentialError`] when its secret is a credential that systemd did not hand over, with no
/// file beside it.
pub fn admin_target(
    node: &NodeName,
    settings: &AdminSettings,
    credentials: &Credentials,
) -> Result<admin::Target, CredentialError> {
    let secret = secret_source(&settings.secret, credentials)?;
    let (place, secret) = match (&settings.place, secret) {
        (AdminPlace::Address(address), secret) => (address.clone().into(), secret),
        (AdminPlace::Workdir(name), secret) => {
            let secret = match secret {
                admin::SecretSource::None => admin::SecretSource::Workdir,
                given => given,
            };
            (admin::Workdir::new(name).into(), secret)
        }
        (AdminPlace::Listen(address), secret) => {
            (admin::Place::Reverse(admin::Acceptor::new(*address)), secret)
        }
    };
    Ok(admin::Target { node: node.clone(), place, secret })
}

/// Where the secret of an admin port is read from.
pub(super) fn secret_source(
    settings: &SecretSettings,
    credentials: &Credentials,
) -> Result<admin::SecretSource, CredentialError> {
    Ok(match settings {
        SecretSettings::None => admin::SecretSource::None,
        SecretSettings::File(path) => admin::SecretSource::File(path.clone()),
        SecretSettings::Credential { name, file } => match (credentials.path(name), file) {
            (Ok(path), _) => admin::SecretSource::File(path),
            (Err(_), Some(file)) => admin::SecretSource::File(file.clone()),
            (Err(fault), None) => return Err(fault),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(source: Result<admin::SecretSource, CredentialError>) -> Option<PathBuf> {
        match source {
            Ok(admin::SecretSource::File(path)) => Some(path),
            _ => None,
        }
    }

    /// A port cannot be opened twice, and while two sets of peers live, both need it.
    #[tokio::test]
    async fn an_open_port_for_varnishd_stays_open_through_a_change() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let peers = |name: &str, timeout: &str, old: &Peers| {
            let text = format!(
                "[[node]]\nname = \"{name}\"\nhttp = \"http://a\"\nadmin_listen = \"{free}\"\n\
                 secret_file = \"/s\"\nadmin_timeout = \"{timeout}\"\n\
                 [[origin]]\nname = \"o\"\naddress = \"http://b\"\n\
                 [[endpoint]]\nname = \"e\"\nurl = \"http://c/\"\norigin = \"o\"\n"
            );
            let config = crate::config::parse("test", &text).unwrap().config;
            let credentials = Credentials::from_environment();
            Peers::new(&config, old, &credentials, Clock::start()).unwrap()
        };
        let first = peers("one", "1s", &Peers::default());
        let same = peers("one", "1s", &first);
        let changed = peers("one", "2s", &same);
        let renamed = peers("two", "2s", &changed);
        for peers in [&first, &same, &changed, &renamed] {
            assert_eq!(peers.acceptor(free).unwrap().listen().await.unwrap(), free);
        }
    }

    #[test]
    fn a_credential_is_read_first_and_the_file_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let handed_over = directory.path().join("varnish-secret");
        let credentials = Credentials::within(directory.path());
        let beside = Some(PathBuf::from("/etc/varnish/secret"));
        let settings =
            |file| SecretSettings::Credential { name: "varnish-secret".to_owned(), file };
        assert_eq!(file(secret_source(&settings(beside.clone()), &credentials)), beside);
        assert!(secret_source(&settings(None), &credentials).is_err());
        std::fs::write(&handed_over, b"s\n").unwrap();
        let found = file(secret_source(&settings(beside), &credentials));
        assert_eq!(found, Some(handed_over));
    }
}
