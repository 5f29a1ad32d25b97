//! Which nodes a command talks to.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::config_file::ConfigFile;
use super::output::{Untrusted, complain};
use crate::admin::{SecretSource, Target};
use crate::config::{BanHeaders, Config, Node, SecretSettings};
use crate::model::{HostPort, HttpUrl, NodeName, Secret};
use crate::systemd::Credentials;

/// The admin port of a Varnish on this host, as Debian starts it.
const LOCAL_ADMIN: &str = "127.0.0.1:6082";
const LOCAL_SECRET: &str = "/etc/varnish/secret";

/// The arguments that say which nodes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which nodes")]
pub(super) struct NodeArguments {
    /// The admin port of one node, as varnishd -T has it
    #[arg(short = 'T', long = "admin", value_name = "HOST:PORT", env = "PURGEWATCH_ADMIN")]
    admin: Option<String>,

    /// The file with its secret, as varnishd -S has it
    #[arg(short = 'S', long, value_name = "FILE", env = "PURGEWATCH_SECRET_FILE")]
    secret_file: Option<PathBuf>,

    /// Take the secret from this environment variable
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    secret_env: Option<String>,

    #[command(flatten)]
    file: ConfigFile,

    /// Only this node of the configuration (repeatable)
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
}

/// The nodes that a command talks to.
#[derive(Debug)]
pub(super) struct Nodes {
    /// Each one's admin port, at least one.
    pub(super) targets: Vec<(Target, Duration)>,
    config: Option<Config>,
}

/// The limit of connecting, and of authenticating, where no configuration sets one.
const STEP: Duration = Duration::from_secs(5);

impl NodeArguments {
    /// Whether the node was named on the command line, which then counts more than a
    /// configuration that the environment names.
    fn names_admin(&self) -> Option<&str> {
        self.admin.as_deref().filter(|_| self.node.is_empty())
    }

    /// The nodes meant.
    ///
    /// # Errors
    /// [`Exit::Usage`] or [`Exit::Secret`], after it was said what is wrong.
    pub(super) fn resolve(&self) -> Result<Nodes, Exit> {
        if let Some(admin) = self.names_admin() {
            return self.one(admin);
        }
        if self.secret_file.is_some() || self.secret_env.is_some() {
            complain("a secret goes with the node that it is for: name it with -T HOST:PORT");
            return Err(Exit::Usage);
        }
        if self.file.named_or_present().is_some() || !self.node.is_empty() {
            return self.configured();
        }
        let name = node_name(LOCAL_ADMIN);
        let address = parse_address(LOCAL_ADMIN)?;
        let secret = SecretSource::File(LOCAL_SECRET.into());
        let targets = vec![(Target { node: name, address, secret }, STEP)];
        Ok(Nodes { targets, config: None })
    }

    fn one(&self, admin: &str) -> Result<Nodes, Exit> {
        let address = parse_address(admin)?;
        let secret = match (&self.secret_file, &self.secret_env) {
            (_, Some(variable)) => SecretSource::Value(secret_of(variable)?),
            (Some(file), None) => SecretSource::File(file.clone()),
            (None, None) => SecretSource::None,
        };
        let target = Target { node: node_name(&address.to_string()), address, secret };
        // A configuration beside it still knows which headers bans go by.
        let config = self.file.named().is_some().then(|| self.file.load()).transpose()?;
        let config = config.map(|loaded| loaded.config);
        Ok(Nodes { targets: vec![(target, STEP)], config })
    }

    fn configured(&self) -> Result<Nodes, Exit> {
        let config = self.file.load()?.config;
        for name in &self.node {
            if !config.nodes.iter().any(|node| node.name.as_str() == name) {
                let name = Untrusted(name);
                complain(format_args!("the configuration has no node {name}"));
                return Err(Exit::Usage);
            }
        }
        let wanted = |node: &&Node| {
            self.node.is_empty() || self.node.iter().any(|name| name == node.name.as_str())
        };
        let credentials = Credentials::from_environment();
        let mut targets = Vec::new();
        for node in config.nodes.iter().filter(wanted) {
            let Some(admin) = &node.admin else {
                complain(format_args!(
                    "node {} has no `admin` in the configuration: no ban can be sent to it",
                    node.name
                ));
                return Err(Exit::Usage);
            };
            let secret = match &admin.secret {
                SecretSettings::None => SecretSource::None,
                SecretSettings::File(path) => SecretSource::File(path.clone()),
                SecretSettings::Credential(name) => match credentials.path(name) {
                    Ok(path) => SecretSource::File(path),
                    Err(fault) => {
                        complain(format_args!("node {}: {fault}", node.name));
                        return Err(Exit::Secret);
                    }
                },
            };
            let (node, address) = (node.name.clone(), admin.address.clone());
            targets.push((Target { node, address, secret }, admin.timeout));
        }
        Ok(Nodes { targets, config: Some(config) })
    }
}

impl Nodes {
    /// The headers that bans on this URL can go by, where the configuration is of one mind: that
    /// of the endpoints on the same host, or else of all endpoints.
    pub(super) fn ban_headers(&self, url: &HttpUrl) -> Option<BanHeaders> {
        let endpoints = &self.config.as_ref()?.endpoints;
        let same_host: Vec<_> = endpoints
            .iter()
            .filter(|endpoint| endpoint.url.authority().eq_ignore_ascii_case(url.authority()))
            .collect();
        let asked = if same_host.is_empty() { endpoints.iter().collect() } else { same_host };
        let first = asked.first()?.ban_headers.clone()?;
        asked.iter().all(|e| e.ban_headers.as_ref() == Some(&first)).then_some(first)
    }
}

fn node_name(address: &str) -> NodeName {
    NodeName::from_address(address)
}

fn parse_address(text: &str) -> Result<HostPort, Exit> {
    text.parse().map_err(|fault| {
        complain(format_args!("-T: {fault}"));
        Exit::Usage
    })
}

fn secret_of(variable: &str) -> Result<Secret, Exit> {
    use std::os::unix::ffi::OsStringExt as _;
    match std::env::var_os(variable) {
        Some(value) => Ok(Secret::new(value.into_vec())),
        None => {
            let variable = Untrusted(variable);
            complain(format_args!("--secret-env: the variable {variable} is not set"));
            Err(Exit::Secret)
        }
    }
}
