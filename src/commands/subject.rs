//! What is compared: endpoints of a configuration, or URLs given on the command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};

use super::Exit;
use super::config_file::ConfigFile;
use super::output::{Untrusted, complain};
use crate::config::{
    AdminSettings, Config, Daemon, Endpoint, Node, OnStale, Origin, ServerAddress, Variant,
    compile_ignore,
};
use crate::model::{EndpointName, HttpUrl, NodeName, OriginName, VariantName};
use crate::verdict::Compare;

/// How many requests a second an origin is sent, when no configuration says.
const MAX_RATE: f64 = 50.0;

/// The limits of one fetch, when no configuration says.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const BODY_LIMIT: u64 = 64 * 1_024 * 1_024;

/// The arguments that say what is compared.
#[derive(Debug, Args)]
pub(super) struct Subjects {
    /// Endpoints and pointers of the configuration [default: all], or URLs with --node-http
    #[arg(value_name = "ENDPOINT|URL")]
    subjects: Vec<String>,

    #[command(flatten)]
    file: ConfigFile,

    /// Compare at these nodes of the configuration only (repeatable)
    #[arg(long, value_name = "NAME", conflicts_with = "node_http")]
    node: Vec<String>,

    /// Compare at the cache at this address, without a configuration (repeatable)
    #[arg(long, value_name = "URL", requires = "origin", requires = "subjects")]
    node_http: Vec<String>,

    /// Where the truth is fetched from, bypassing the cache: http://HOST:PORT
    #[arg(long, value_name = "ADDRESS", requires = "node_http")]
    origin: Option<String>,

    /// What tells two versions apart: body, etag, last-modified, header:NAME, json:/POINTER
    #[arg(long, value_name = "RULE", requires = "node_http")]
    compare: Option<String>,

    /// Blank out what matches this regex before bodies are compared (repeatable)
    #[arg(long, value_name = "REGEX", requires = "node_http")]
    ignore: Vec<String>,

    /// Send this request header, NAME: VALUE (repeatable)
    #[arg(long, value_name = "HEADER", requires = "node_http")]
    header: Vec<String>,
}

/// What is compared.
#[derive(Debug)]
pub(super) struct Subject {
    /// A configuration with nothing in it but what is to be compared.
    pub(super) config: Config,
    /// Whether the endpoints have names of their own, or are known by their URLs alone.
    pub(super) named: bool,
    /// The admin ports of the nodes. A comparison needs none of them, nor a secret; whoever asks
    /// why a node serves old content does.
    admins: Vec<(NodeName, AdminSettings)>,
}

impl Subject {
    /// What the arguments name.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was said what is wrong.
    pub(super) fn of(arguments: &Subjects) -> Result<Self, Exit> {
        if arguments.node_http.is_empty() {
            let mut config = configured(arguments)?;
            let nodes = config.nodes.iter_mut();
            let admins =
                nodes.filter_map(|node| Some((node.name.clone(), node.admin.take()?))).collect();
            return Ok(Self { config, named: true, admins });
        }
        given(arguments).map(|config| Self { config, named: false, admins: Vec::new() })
    }

    /// One pointer of the configuration, at the nodes that are named, and nothing else.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was said what is wrong.
    pub(super) fn of_pointer(arguments: &Subjects, name: &str) -> Result<Self, Exit> {
        let mut subject = Self::of(arguments)?;
        subject.config.endpoints.clear();
        subject.config.pointers.retain(|pointer| pointer.name.as_str() == name);
        if subject.config.pointers.is_empty() {
            let name = Untrusted(name);
            return wrong(format_args!("the configuration has no pointer {name} at these nodes"));
        }
        Ok(subject)
    }

    /// The same configuration with the admin ports of the nodes.
    pub(super) fn with_admin_ports(&self) -> Config {
        let mut config = self.config.clone();
        for node in &mut config.nodes {
            let found = self.admins.iter().find(|(name, _)| *name == node.name);
            node.admin = found.map(|(_, settings)| settings.clone());
        }
        config
    }

    /// The URL of an endpoint.
    pub(super) fn url(&self, name: &EndpointName) -> String {
        let endpoints = self.config.endpoints.iter().map(|e| (&e.name, &e.url));
        let pointers = self.config.pointers.iter().map(|p| (&p.name, &p.url));
        let found = endpoints.chain(pointers).find(|(known, _)| *known == name);
        found.map(|(_, url)| url.to_string()).unwrap_or_default()
    }

    /// What an endpoint is called in front of people.
    pub(super) fn title(&self, name: &EndpointName) -> String {
        if self.named { name.to_string() } else { self.url(name) }
    }
}

/// The first few of these names.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 10;
    let mut names: Vec<_> = names.map(|name| Untrusted(name).to_string()).collect();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let shown = names.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn wrong<T>(text: impl std::fmt::Display) -> Result<T, Exit> {
    complain(text);
    Err(Exit::Usage)
}

/// The endpoints of the configuration that were named, at the nodes that were named.
fn configured(arguments: &Subjects) -> Result<Config, Exit> {
    if let Some(url) = arguments.subjects.iter().find(|subject| subject.contains("://")) {
        let url = Untrusted(url);
        return wrong(format_args!("to check {url}, say where: --node-http URL --origin ADDRESS"));
    }
    let mut config = arguments.file.load()?.config;
    for name in &arguments.subjects {
        let endpoints = config.endpoints.iter().map(|endpoint| &endpoint.name);
        let mut known = endpoints.chain(config.pointers.iter().map(|pointer| &pointer.name));
        if !known.any(|known| known.as_str() == name) {
            let endpoints = config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
            let pointers = config.pointers.iter().map(|pointer| pointer.name.as_str());
            let known = listed(endpoints.chain(pointers));
            let name = Untrusted(name);
            return wrong(format_args!("the configuration has no endpoint {name}; it has {known}"));
        }
    }
    for name in &arguments.node {
        if !config.nodes.iter().any(|node| node.name.as_str() == name) {
            let known = listed(config.nodes.iter().map(|node| node.name.as_str()));
            let name = Untrusted(name);
            return wrong(format_args!("the configuration has no node {name}; it has {known}"));
        }
    }
    let is_named =
        |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
    config.endpoints.retain(|endpoint| is_named(&arguments.subjects, endpoint.name.as_str()));
    for endpoint in &mut config.endpoints {
        endpoint.nodes.retain(|node| is_named(&arguments.node, node.as_str()));
    }
    config.endpoints.retain(|endpoint| !endpoint.nodes.is_empty());
    config.pointers.retain(|pointer| is_named(&arguments.subjects, pointer.name.as_str()));
    for pointer in &mut config.pointers {
        pointer.nodes.retain(|node| is_named(&arguments.node, node.as_str()));
    }
    config.pointers.retain(|pointer| !pointer.nodes.is_empty());
    if config.endpoints.is_empty() && config.pointers.is_empty() {
        return wrong("none of these endpoints is served by the nodes that --node names");
    }
    Ok(config)
}

/// URLs, caches and an origin from the command line.
fn given(arguments: &Subjects) -> Result<Config, Exit> {
    let origin_name = OriginName::new("origin").map_err(internal)?;
    let address = arguments.origin.as_deref().unwrap_or_default();
    let origin = Origin {
        name: origin_name.clone(),
        address: server(address, "--origin")?,
        ca_file: None,
        max_rate: MAX_RATE,
        connections: 16,
    };
    let mut nodes: Vec<Node> = Vec::new();
    for text in &arguments.node_http {
        let http = server(text, "--node-http")?;
        if http.address == origin.address.address {
            let text = Untrusted(text);
            return wrong(format_args!(
                "{text} is the origin too: it would be compared with itself"
            ));
        }
        let name = NodeName::from_address(&http.address.to_string());
        if nodes.iter().all(|node| node.name != name) {
            nodes.push(Node {
                name,
                http,
                ca_file: None,
                admin: None,
                connections: 16,
                canary: None,
            });
        }
    }
    let compare = compare(arguments.compare.as_deref().unwrap_or("body"))?;
    if !arguments.ignore.is_empty() && compare != Compare::Body {
        return wrong("--ignore goes with --compare body only");
    }
    let mut ignore = Vec::new();
    for pattern in &arguments.ignore {
        match compile_ignore(pattern) {
            Ok(pattern) => ignore.push(pattern),
            Err(fault) => return wrong(format_args!("--ignore {}: {fault}", Untrusted(pattern))),
        }
    }
    let headers = arguments
        .header
        .iter()
        .map(|text| header(text, "--header"))
        .collect::<Result<Vec<_>, _>>()?;
    let mut endpoints = Vec::new();
    for (number, text) in arguments.subjects.iter().enumerate() {
        let url: HttpUrl = match text.parse() {
            Ok(url) => url,
            Err(fault) => return wrong(format_args!("{}: {fault}", Untrusted(text))),
        };
        endpoints.push(Endpoint {
            name: EndpointName::new(&format!("url-{}", number + 1)).map_err(internal)?,
            url,
            origin: origin_name.clone(),
            nodes: nodes.iter().map(|node| node.name.clone()).collect(),
            compare: compare.clone(),
            ignore: ignore.clone(),
            variants: vec![Variant { name: VariantName::default(), headers: headers.clone() }],
            interval: Duration::from_secs(30),
            timeout: TIMEOUT,
            max_stale: Duration::ZERO,
            body_limit: BODY_LIMIT,
            ban_headers: None,
            on_stale: OnStale::default(),
        });
    }
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let daemon = Daemon {
        listen,
        state_dir: PathBuf::new(),
        remedy_max_rate: 1,
        socket: None,
        ban_list_limit: None,
    };
    Ok(Config {
        daemon,
        nodes,
        origins: vec![origin],
        endpoints,
        pointers: Vec::new(),
        redis: None,
        subscriptions: Vec::new(),
        invalidations: None,
    })
}

fn internal(fault: impl std::fmt::Display) -> Exit {
    complain(fault);
    Exit::Usage
}

pub(super) fn server(text: &str, flag: &str) -> Result<ServerAddress, Exit> {
    // A bare HOST:PORT can only mean one thing.
    let spelt = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match spelt.parse() {
        Ok(address) => Ok(address),
        Err(fault) => wrong(format_args!("{flag} {}: {fault}", Untrusted(text))),
    }
}

pub(super) fn compare(text: &str) -> Result<Compare, Exit> {
    match text.parse() {
        Ok(compare) => Ok(compare),
        Err(fault) => wrong(format_args!("--compare: {fault}")),
    }
}

/// Header fields that say how a request is sent, or whose it is: they follow from the URL.
const OURS: [http::HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

/// A header field of a request, as the option `flag` gives it. What was given is never shown when
/// it is wrong: it may be a token.
pub(super) fn header(
    text: &str,
    flag: &str,
) -> Result<(http::HeaderName, http::HeaderValue), Exit> {
    let Some((name, value)) = text.split_once(':') else {
        return wrong(format_args!("{flag}: expected NAME: VALUE, and there is no colon"));
    };
    let Ok(name) = name.trim().parse::<http::HeaderName>() else {
        return wrong(format_args!(
            "{flag}: expected NAME: VALUE, and what is before the colon is no name of a header"
        ));
    };
    if OURS.contains(&name) {
        return wrong(format_args!(
            "{flag}: {name} cannot be set: it follows from the URL, and the request has no body"
        ));
    }
    match http::HeaderValue::from_str(value.trim()) {
        Ok(value) => Ok((name, value)),
        Err(_) => wrong(format_args!(
            "{flag}: the value of {name} has characters that no header may have"
        )),
    }
}
