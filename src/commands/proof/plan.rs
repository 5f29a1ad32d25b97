//! What is looked at, at which nodes, and what it is compared with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue};

use super::super::Exit;
use super::super::output::{Untrusted, complain};
use super::super::subject::{BODY_LIMIT, TIMEOUT, compare, header, listed, server};
use crate::config::{Config, Endpoint, ServerAddress, compile_ignore};
use crate::model::{EndpointName, HttpUrl, NodeName, VariantName, parse_duration};
use crate::verdict::proof::ProofLimits;
use crate::verdict::{Compare, Target};

/// How many connections a node or an origin gets that no configuration describes.
const CONNECTIONS: usize = 16;

/// The arguments that say what counts as proof.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proof")]
pub(in super::super) struct Evidence {
    /// Where the node serves HTTP, where no configuration says; once for each node, in their order
    #[arg(long, value_name = "URL")]
    node_http: Vec<String>,
    /// Where the truth is fetched from, bypassing the cache: http://HOST:PORT [default: the origin
    /// of the endpoint with that URL]
    #[arg(long, value_name = "ADDRESS")]
    origin: Option<String>,
    /// What tells two versions apart: body, etag, last-modified, header:NAME, json:/POINTER
    #[arg(long, value_name = "RULE", requires = "origin")]
    compare: Option<String>,
    /// Blank out what matches this regex before bodies are compared (repeatable)
    #[arg(long, value_name = "REGEX", requires = "origin")]
    ignore: Vec<String>,
    /// Send this request header with every fetch, NAME: VALUE (repeatable)
    #[arg(long, value_name = "HEADER")]
    fetch_header: Vec<String>,
    /// How long to wait for the proof
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    within: Duration,
    /// How often to invalidate at most: again where the node fetched anew, and fetched old content
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    rounds: u32,
}

/// What is to be looked at, as it was named.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Named<'a> {
    pub(in super::super) urls: &'a [HttpUrl],
    pub(in super::super) endpoints: &'a [EndpointName],
}

/// Everything that is to be proven.
#[derive(Debug)]
pub(in super::super) struct Plan {
    pub(in super::super) watches: Vec<Watch>,
    pub(in super::super) limits: ProofLimits,
    /// In the order of the nodes.
    pub(in super::super) nodes: Vec<Peer>,
    pub(super) origins: Vec<Peer>,
}

/// One URL, with one set of request headers.
#[derive(Debug)]
pub(in super::super) struct Watch {
    pub(in super::super) target: Arc<Target>,
    /// The endpoint and the variant of the configuration that it is.
    pub(super) endpoint: Option<(EndpointName, VariantName)>,
    /// Which of the plan's origins, if one is known.
    pub(super) origin: Option<usize>,
    /// The nodes that serve it; all when `None`.
    nodes: Option<Vec<NodeName>>,
}

/// A server that is fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Peer {
    pub(in super::super) address: ServerAddress,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connections: usize,
}

impl Plan {
    /// What the arguments ask for, at these nodes.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was said what is wrong.
    pub(in super::super) fn new(
        evidence: &Evidence,
        named: Named<'_>,
        config: Option<&Config>,
        names: &[NodeName],
    ) -> Result<Self, Exit> {
        let nodes = evidence.nodes(config, names)?;
        let limits = ProofLimits { within: evidence.within, rounds: evidence.rounds, grace: false };
        let mut plan = Self { watches: Vec::new(), limits, nodes, origins: Vec::new() };
        let given = evidence.given(&mut plan)?;
        for url in named.urls {
            let known = config.iter().flat_map(|config| &config.endpoints);
            let known: Vec<_> = known.filter(|endpoint| endpoint.url == *url).collect();
            if let (None, Some(config), false) = (given.origin, config, known.is_empty()) {
                known.iter().for_each(|endpoint| plan.watch(endpoint, config));
            } else {
                plan.watches.push(given.watch(url));
            }
        }
        for name in named.endpoints {
            let found = config.and_then(|config| {
                let mut endpoints = config.endpoints.iter();
                Some((endpoints.find(|endpoint| endpoint.name == *name)?, config))
            });
            let Some((endpoint, config)) = found else {
                let Some(config) = config else {
                    return usage(format_args!(
                        "there is no endpoint {name} without a configuration: name it with -c"
                    ));
                };
                if config.pointers.iter().any(|pointer| pointer.name == *name) {
                    return usage(format_args!(
                        "{name} is a pointer, and leads to many URLs: --verify takes one, and \
                         `purgewatch wait --pointer` waits for all of them"
                    ));
                }
                let known = listed(config.endpoints.iter().map(|endpoint| endpoint.name.as_str()));
                return usage(format_args!(
                    "the configuration has no endpoint {name}; it has {known}"
                ));
            };
            plan.watch(endpoint, config);
        }
        let unserved =
            plan.watches.iter().find(|watch| !names.iter().any(|name| watch.is_served_by(name)));
        if let Some(watch) = unserved {
            return usage(format_args!("none of these nodes serves {}", watch.title()));
        }
        Ok(plan)
    }

    /// The places of what this node serves.
    pub(in super::super) fn watches_of(&self, node: &NodeName) -> Vec<usize> {
        let watches = self.watches.iter().enumerate();
        watches.filter(|(_, watch)| watch.is_served_by(node)).map(|(at, _)| at).collect()
    }

    fn watch(&mut self, endpoint: &Endpoint, config: &Config) {
        let origin = config.origin(&endpoint.origin).map(|origin| Peer {
            address: origin.address.clone(),
            ca_file: origin.ca_file.clone(),
            connections: origin.connections,
        });
        let origin = origin.map(|origin| self.origin(origin));
        for variant in &endpoint.variants {
            let known = Some((endpoint.name.clone(), variant.name.clone()));
            if self.watches.iter().any(|watch| watch.endpoint == known) {
                continue;
            }
            self.watches.push(Watch {
                target: Arc::new(Target {
                    url: endpoint.url.clone(),
                    headers: variant.headers.clone(),
                    compare: endpoint.compare.clone(),
                    ignore: endpoint.ignore.clone(),
                    body_limit: endpoint.body_limit,
                    timeout: endpoint.timeout,
                }),
                endpoint: known,
                origin,
                nodes: Some(endpoint.nodes.clone()),
            });
        }
    }

    /// The number of an origin.
    fn origin(&mut self, peer: Peer) -> usize {
        let known = self.origins.iter().position(|known| *known == peer);
        known.unwrap_or_else(|| {
            self.origins.push(peer);
            self.origins.len() - 1
        })
    }
}

impl Watch {
    /// What people call it.
    pub(in super::super) fn title(&self) -> String {
        let url = &self.target.url;
        match &self.endpoint {
            Some((_, variant)) if *variant != VariantName::default() => {
                format!("{url} ({variant})")
            }
            _ => url.to_string(),
        }
    }

    fn is_served_by(&self, node: &NodeName) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }
}

/// What the command line says of URLs.
struct Given {
    origin: Option<usize>,
    compare: Compare,
    ignore: Vec<regex::bytes::Regex>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Given {
    fn watch(&self, url: &HttpUrl) -> Watch {
        let target = Target {
            url: url.clone(),
            headers: self.headers.clone(),
            compare: self.compare.clone(),
            ignore: self.ignore.clone(),
            body_limit: BODY_LIMIT,
            timeout: TIMEOUT,
        };
        Watch { target: Arc::new(target), endpoint: None, origin: self.origin, nodes: None }
    }
}

impl Evidence {
    /// The nodes that are named by their addresses alone.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was said what is wrong.
    pub(in super::super) fn names(&self) -> Result<Vec<NodeName>, Exit> {
        let name = |text: &String| {
            let address = server(text, "--node-http")?.address;
            Ok(NodeName::from_address(&address.to_string()))
        };
        self.node_http.iter().map(name).collect()
    }

    /// How long to wait for the proof.
    pub(in super::super) fn within(&self) -> Duration {
        self.within
    }

    /// Whether an argument was given that has no use without a URL to prove.
    pub(in super::super) fn is_given(&self) -> bool {
        !self.node_http.is_empty() || self.origin.is_some() || !self.fetch_header.is_empty()
    }

    fn nodes(&self, config: Option<&Config>, names: &[NodeName]) -> Result<Vec<Peer>, Exit> {
        if !self.node_http.is_empty() {
            if self.node_http.len() != names.len() {
                return usage(format_args!(
                    "--node-http is needed once for each node, in their order: {} for {}",
                    self.node_http.len(),
                    names.len()
                ));
            }
            let peer = |text: &String| {
                let address = server(text, "--node-http")?;
                Ok(Peer { address, ca_file: None, connections: CONNECTIONS })
            };
            return self.node_http.iter().map(peer).collect();
        }
        let configured = |name: &NodeName| {
            let node = config?.node(name)?;
            Some(Peer {
                address: node.http.clone(),
                ca_file: node.ca_file.clone(),
                connections: node.connections,
            })
        };
        let Some(nodes) = names.iter().map(configured).collect() else {
            return usage("where does the node serve HTTP? Say --node-http URL");
        };
        Ok(nodes)
    }

    fn given(&self, plan: &mut Plan) -> Result<Given, Exit> {
        let mut origin = None;
        if let Some(text) = &self.origin {
            let address = server(text, "--origin")?;
            if plan.nodes.iter().any(|node| node.address.address == address.address) {
                let text = Untrusted(text);
                return usage(format_args!("{text} is the node too: it would prove itself"));
            }
            let peer = Peer { address, ca_file: None, connections: CONNECTIONS };
            origin = Some(plan.origin(peer));
        }
        let compare = compare(self.compare.as_deref().unwrap_or("body"))?;
        if !self.ignore.is_empty() && compare != Compare::Body {
            return usage("--ignore goes with --compare body only");
        }
        let mut ignore = Vec::new();
        for pattern in &self.ignore {
            match compile_ignore(pattern) {
                Ok(pattern) => ignore.push(pattern),
                Err(fault) => {
                    return usage(format_args!("--ignore {}: {fault}", Untrusted(pattern)));
                }
            }
        }
        let headers = self.fetch_header.iter().map(|text| header(text, "--fetch-header"));
        let headers = headers.collect::<Result<_, _>>()?;
        Ok(Given { origin, compare, ignore, headers })
    }
}

fn usage<T>(text: impl std::fmt::Display) -> Result<T, Exit> {
    complain(text);
    Err(Exit::Usage)
}
