//! Which nodes a command works on.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::config_file::ConfigFile;
use super::output::complain;
use crate::admin::{Acceptor, Place, SecretSource, Target, Workdir};
use crate::config::{AdminSettings, Config, Node, SecretSettings};
use crate::daemon::admin_target;
use crate::model::{HostPort, NodeName, Secret};
use crate::systemd::Credentials;

/// Where a local Varnish has its admin port as Debian and the upstream packages start it.
const USUAL_ADDRESS: &str = "127.0.0.1:6082";
const USUAL_SECRET: &str = "/etc/varnish/secret";

/// What is said of a node that nobody named.
const USUAL_WORKDIR: &str = "the Varnish of the default work directory was tried";
const USUAL_PLACE: &str = "the usual place of a local Varnish was tried (127.0.0.1:6082 with \
                           /etc/varnish/secret; there is no default work directory)";

const ADMIN_VARIABLE: &str = "PURGEWATCH_ADMIN";
const SECRET_VARIABLE: &str = "PURGEWATCH_SECRET_FILE";
const CONFIG_VARIABLE: &str = "PURGEWATCH_CONFIG";

/// What names the default instance, and what keeps clients from asking whether its process exists
/// (varnishd(1) and varnishadm(1), from 7.6 on).
const INSTANCE_VARIABLES: &[&str] = &["VARNISH_DEFAULT_N", "VINYL_DEFAULT_N"];
const NO_PID_VARIABLE: &str = "VSM_NOPID";

/// The arguments that say which nodes, for every command that speaks to admin ports.
///
/// The command line goes before the environment, and an address before a configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Nodes")]
pub(super) struct Nodes {
    /// The admin port of one node (varnishd -T); of several, the first that answers is taken [env:
    /// PURGEWATCH_ADMIN]
    #[arg(short = 'T', long, value_name = "HOST:PORT")]
    admin: Vec<HostPort>,
    /// The work directory, or the name, of a varnishd on this machine (varnishd -n): it tells
    /// address and secret
    #[arg(
        short = 'n',
        long,
        value_name = "DIR",
        conflicts_with_all = ["admin", "nodes"],
        overrides_with = "workdir"
    )]
    workdir: Option<PathBuf>,
    /// Its secret file (varnishd -S), or `none` [env: PURGEWATCH_SECRET_FILE]
    #[arg(short = 'S', long, value_name = "FILE", overrides_with = "secret_file")]
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

/// What is meant when nothing names a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All nodes of the configuration in its usual place, and without one the local Varnish.
    AllNodes,
    /// The local Varnish, also where there is a configuration.
    Local,
}

/// The nodes that were chosen, at least one.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) nodes: Vec<ChosenNode>,
    /// The configuration that they come from.
    pub(super) config: Option<Config>,
    /// Where was looked for a node, since nobody had named one.
    assumed: Option<&'static str>,
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
    pub(super) fn choose(&self, scope: Scope) -> Result<Chosen, Exit> {
        let named_config = self.file.named();
        let from_environment = std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
        let config_is_argument =
            named_config.is_some_and(|path| from_environment.as_deref() != Some(path));
        if let Some(name) = &self.workdir {
            if config_is_argument {
                return Err(usage("-n names one node and -c a configuration: choose one"));
            }
            return self.instance(name);
        }
        if !self.admin.is_empty() {
            if config_is_argument {
                return Err(usage("-T names one node and -c a configuration: choose one"));
            }
            return self.one(self.admin.clone());
        }
        let secret_given = self.secret_file.is_some() || self.secret_env.is_some();
        let wants_config = config_is_argument || !self.nodes.is_empty();
        if !wants_config && let Some(text) = variable(ADMIN_VARIABLE) {
            let parsed = text.to_str().map(str::parse::<HostPort>);
            return match parsed {
                Some(Ok(address)) => self.one(vec![address]),
                Some(Err(fault)) => Err(usage(format_args!("{ADMIN_VARIABLE}: {fault}"))),
                None => Err(usage(format_args!("{ADMIN_VARIABLE} is no text"))),
            };
        }
        if secret_given {
            return Err(usage(
                "a secret belongs to one node: name that with -T HOST:PORT or -n DIR",
            ));
        }
        let may_be_usual = scope == Scope::AllNodes && self.file.named_or_present().is_some();
        if wants_config || may_be_usual {
            return self.configured();
        }
        local()
    }

    /// The varnishd that dials in at `address`; what is wrong is said on stderr.
    ///
    /// # Errors
    /// [`Exit::Secret`] for a secret that is not where it should be.
    pub(super) fn dialling_in(&self, address: SocketAddr) -> Result<Chosen, Exit> {
        let node = NodeName::from_address(&address.to_string());
        let secret = self.secret()?.unwrap_or(SecretSource::None);
        let target = Target::reverse(node, Acceptor::new(address), secret);
        Ok(Chosen::one(ChosenNode { target, step_limit: None }))
    }

    fn one(&self, addresses: Vec<HostPort>) -> Result<Chosen, Exit> {
        let from_environment = || match variable(SECRET_VARIABLE) {
            Some(path) => secret_in(PathBuf::from(path)),
            None => SecretSource::None,
        };
        let secret = self.secret()?.unwrap_or_else(from_environment);
        Ok(Chosen::one(named_by_address(addresses, secret)))
    }

    /// The varnishd of a work directory. It knows its secret, so only one that is given beside it
    /// goes before that, and none of the environment, which belongs to another node.
    fn instance(&self, name: &Path) -> Result<Chosen, Exit> {
        let given = self.secret()?;
        let shown = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy();
        let node = NodeName::from_address(&shown);
        let place = as_environment_has_it(Workdir::new(name)).into();
        let target = Target { node, place, secret: given.unwrap_or(SecretSource::Workdir) };
        Ok(Chosen::one(ChosenNode { target, step_limit: None }))
    }

    /// The secret that the arguments give.
    fn secret(&self) -> Result<Option<SecretSource>, Exit> {
        let Some(name) = &self.secret_env else {
            return Ok(self.secret_file.clone().map(secret_in));
        };
        if let Some(value) = variable(name) {
            return Ok(Some(SecretSource::Value(Secret::new(value.into_vec()))));
        }
        let name = name.to_string_lossy();
        complain(format_args!(
            "--secret-env: the environment variable {} is not set, or empty",
            super::output::Untrusted(&name)
        ));
        Err(Exit::Secret)
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
        Ok(Chosen { nodes, config: Some(config), assumed: None })
    }
}

/// The Varnish of this machine: that of the default work directory, as varnishadm finds it, and
/// where there is none, the usual address.
fn local() -> Result<Chosen, Exit> {
    let names = INSTANCE_VARIABLES.iter().filter_map(variable).map(PathBuf::from);
    let workdir = as_environment_has_it(Workdir::of_default_instance(names));
    if workdir.is_there() {
        let node = NodeName::from_address("localhost");
        let target = Target::in_workdir(node, workdir);
        let node = ChosenNode { target, step_limit: None };
        return Ok(Chosen { assumed: Some(USUAL_WORKDIR), ..Chosen::one(node) });
    }
    let address = USUAL_ADDRESS.parse().map_err(|_| Exit::Usage)?;
    let node = named_by_address(vec![address], SecretSource::File(USUAL_SECRET.into()));
    Ok(Chosen { assumed: Some(USUAL_PLACE), ..Chosen::one(node) })
}

fn as_environment_has_it(workdir: Workdir) -> Workdir {
    if variable(NO_PID_VARIABLE).is_some() { workdir.without_manager_check() } else { workdir }
}

/// `none` is what varnishd takes for no secret at all.
fn secret_in(path: PathBuf) -> SecretSource {
    if path.as_os_str() == "none" { SecretSource::None } else { SecretSource::File(path) }
}

impl Chosen {
    fn one(node: ChosenNode) -> Self {
        Self { nodes: vec![node], config: None, assumed: None }
    }

    /// What to say beside an error when nobody had named a node.
    pub(super) fn hint(&self) -> Option<String> {
        self.assumed.map(|tried| {
            format!(
                "no node was named, so {tried}: name one with -n, with -T and -S, or a \
                 configuration with -c"
            )
        })
    }
}

fn chosen_node(node: &Node) -> Result<ChosenNode, Exit> {
    let name = &node.name;
    let Some(admin) = &node.admin else {
        return Err(usage(format_args!(
            "node {name} has no `admin` in the configuration, nor a `workdir`, so no ban can be sent \
             to it; name the others with --node"
        )));
    };
    let credentials = Credentials::from_environment();
    let mut target = match admin_target(name, admin, &credentials) {
        Ok(target) => target,
        // This node cannot be served; the others can.
        Err(fault) => {
            let without = AdminSettings { secret: SecretSettings::None, ..admin.clone() };
            let mut target = admin_target(name, &without, &credentials).map_err(usage)?;
            let reason = format!(
                "{fault}; a `secret_file` beside `secret_credential` serves commands outside of \
                 the unit"
            );
            target.secret = SecretSource::Missing { reason };
            target
        }
    };
    if let Place::Workdir(workdir) = target.place {
        target.place = as_environment_has_it(workdir).into();
    }
    Ok(ChosenNode { target, step_limit: Some(admin.timeout) })
}

fn named_by_address(addresses: Vec<HostPort>, secret: SecretSource) -> ChosenNode {
    let first = addresses.first().map(ToString::to_string).unwrap_or_default();
    let node = NodeName::from_address(&first);
    let target = Target { node, place: Place::Addresses(addresses), secret };
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
