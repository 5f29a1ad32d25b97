//! Which nodes a command works on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::config_file::ConfigFile;
use super::output::complain;
use crate::admin::{SecretSource, Target};
use crate::config::{Config, Node};
use crate::daemon::secret_source;
use crate::model::{HostPort, NodeName, Secret};
use crate::systemd::Credentials;

/// Where a local Varnish has its admin port as Debian and the upstream packages start it.
const USUAL_ADDRESS: &str = "127.0.0.1:6082";
const USUAL_SECRET: &str = "/etc/varnish/secret";

const ADMIN_VARIABLE: &str = "PURGEWATCH_ADMIN";
const SECRET_VARIABLE: &str = "PURGEWATCH_SECRET_FILE";
const CONFIG_VARIABLE: &str = "PURGEWATCH_CONFIG";

/// The arguments that say which nodes, for every command that speaks to admin ports.
///
/// The command line goes before the environment, and an address before a configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Nodes")]
pub(super) struct Nodes {
    /// The admin port of one node (varnishd -T) [env: PURGEWATCH_ADMIN]
    #[arg(short = 'T', long, value_name = "HOST:PORT")]
    admin: Option<HostPort>,
    /// Its secret file (varnishd -S) [env: PURGEWATCH_SECRET_FILE]
    #[arg(short = 'S', long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The environment variable that holds its secret, as CI systems hand one out
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    secret_env: Option<OsString>,
    #[command(flatten)]
    file: ConfigFile,
    /// Only this node of the configuration; may be given several times [default: all]
    #[arg(long = "node", value_name = "NAME", conflicts_with = "admin", value_parser = node_name)]
    nodes: Vec<NodeName>,
}

/// The nodes that were chosen, at least one.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) nodes: Vec<ChosenNode>,
    /// The configuration that they come from.
    pub(super) config: Option<Config>,
    /// Where to look when they cannot be reached: nobody named them.
    pub(super) assumed: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct ChosenNode {
    pub(super) target: Target,
    /// The limit of each step, where the configuration sets one.
    pub(super) step_limit: Option<Duration>,
}

impl Nodes {
    /// Finds out which nodes are meant. Opens nothing but the configuration. What is wrong is
    /// said on stderr.
    ///
    /// # Errors
    /// [`Exit::Usage`] for contradictions, a bad configuration, or no node at all;
    /// [`Exit::Secret`] for a secret that is not where it should be.
    pub(super) fn choose(&self) -> Result<Chosen, Exit> {
        let named_config = self.file.named();
        let from_environment = std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
        let config_is_argument =
            named_config.is_some_and(|path| from_environment.as_deref() != Some(path));
        if let Some(address) = &self.admin {
            if config_is_argument {
                return Err(usage("-T names one node and -c a configuration: choose one"));
            }
            return self.one(address);
        }
        let secret_given = self.secret_file.is_some() || self.secret_env.is_some();
        let wants_config = config_is_argument || !self.nodes.is_empty();
        if !wants_config && let Some(text) = variable(ADMIN_VARIABLE) {
            let parsed = text.to_str().map(str::parse::<HostPort>);
            return match parsed {
                Some(Ok(address)) => self.one(&address),
                Some(Err(fault)) => Err(usage(format_args!("{ADMIN_VARIABLE}: {fault}"))),
                None => Err(usage(format_args!("{ADMIN_VARIABLE} is no text"))),
            };
        }
        if secret_given {
            return Err(usage("a secret belongs to one node: name that with -T HOST:PORT"));
        }
        if wants_config || self.file.named_or_present().is_some() {
            return self.configured();
        }
        let address = USUAL_ADDRESS.parse().map_err(|_| Exit::Usage)?;
        let secret = SecretSource::File(USUAL_SECRET.into());
        Ok(Chosen { nodes: vec![named_by_address(&address, secret)], config: None, assumed: true })
    }

    fn one(&self, address: &HostPort) -> Result<Chosen, Exit> {
        let secret = if let Some(name) = &self.secret_env {
            match variable(name) {
                Some(value) => SecretSource::Value(Secret::new(value.into_vec())),
                None => {
                    let name = name.to_string_lossy();
                    complain(format_args!(
                        "--secret-env: the environment variable {} is not set, or empty",
                        super::output::Untrusted(&name)
                    ));
                    return Err(Exit::Secret);
                }
            }
        } else {
            let file = self.secret_file.clone();
            let file = file.or_else(|| variable(SECRET_VARIABLE).map(PathBuf::from));
            file.map_or(SecretSource::None, SecretSource::File)
        };
        Ok(Chosen { nodes: vec![named_by_address(address, secret)], config: None, assumed: false })
    }

    fn configured(&self) -> Result<Chosen, Exit> {
        let config = self.file.load()?.config;
        let mut wanted: Vec<&Node> = Vec::new();
        for name in &self.nodes {
            let Some(node) = config.node(name) else {
                let known: Vec<_> = config.nodes.iter().map(|node| node.name.as_str()).collect();
                return Err(usage(format_args!(
                    "there is no node {name} in the configuration: it has {}",
                    known.join(", ")
                )));
            };
            if !wanted.iter().any(|known| known.name == *name) {
                wanted.push(node);
            }
        }
        if self.nodes.is_empty() {
            wanted.extend(&config.nodes);
        }
        let nodes = wanted.into_iter().map(chosen_node).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(usage("the configuration has no node"));
        }
        Ok(Chosen { nodes, config: Some(config), assumed: false })
    }
}

impl Chosen {
    /// What to say beside an error when nobody had named a node.
    pub(super) fn hint(&self) -> Option<String> {
        self.assumed.then(|| {
            format!(
                "no node was named, so the usual place of a local Varnish was tried \
                 ({USUAL_ADDRESS} with {USUAL_SECRET}): name one with -T and -S, or a \
                 configuration with -c"
            )
        })
    }
}

fn chosen_node(node: &Node) -> Result<ChosenNode, Exit> {
    let name = &node.name;
    let Some(admin) = &node.admin else {
        return Err(usage(format_args!(
            "node {name} has no `admin` in the configuration, so no ban can be sent to it; name \
             the others with --node"
        )));
    };
    let credentials = Credentials::from_environment();
    let secret = secret_source(&admin.secret, &credentials).map_err(|fault| {
        complain(format_args!(
            "node {name}: {fault}; a `secret_file` beside `secret_credential` serves commands \
             outside of the unit"
        ));
        Exit::Secret
    })?;
    let target = Target { node: name.clone(), address: admin.address.clone(), secret };
    Ok(ChosenNode { target, step_limit: Some(admin.timeout) })
}

fn named_by_address(address: &HostPort, secret: SecretSource) -> ChosenNode {
    let node = NodeName::from_address(&address.to_string());
    let target = Target { node, address: address.clone(), secret };
    ChosenNode { target, step_limit: None }
}

fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|fault| fault.to_string())
}

/// A variable of the environment that is set and not empty.
fn variable(name: impl AsRef<std::ffi::OsStr>) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn usage(text: impl std::fmt::Display) -> Exit {
    complain(text);
    Exit::Usage
}
