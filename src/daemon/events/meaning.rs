//! What an event asks of the nodes of this host.

use std::fmt;
use std::time::Duration;

use super::super::errands::ban_headers;
use super::super::journal::chain;
use crate::ban::{self, Expression, LintOptions, Reach, Refusal};
use crate::config::{BanHeaders, Config, Endpoint, Subscription};
use crate::engine::{BanText, BanTextError};
use crate::event::{Event, Message};
use crate::model::{EndpointName, HttpUrl, NodeName, Untrusted};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) bans: Vec<BanText>,
    pub(super) nodes: Vec<NodeName>,
    pub(super) verify: Vec<EndpointName>,
    pub(super) prove: Option<Duration>,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nothing {
    /// It is meant for nodes of other hosts.
    Elsewhere,
    /// It asks for something that cannot be done, today or tomorrow: why.
    Refused(String),
}

/// Reads events by what is configured.
#[derive(Debug)]
pub(super) struct Reader {
    endpoints: Vec<Endpoint>,
    pointers: Vec<EndpointName>,
    /// Every node with an admin port.
    nodes: Vec<NodeName>,
    /// Every other one.
    without_admin: Vec<NodeName>,
    /// Those of every endpoint, where they all have the same.
    headers: Option<BanHeaders>,
}

impl Reader {
    pub(super) fn new(config: &Config) -> Self {
        let (nodes, without_admin) =
            config.nodes.iter().partition::<Vec<_>, _>(|n| n.admin.is_some());
        let names =
            |nodes: Vec<&crate::config::Node>| nodes.iter().map(|n| n.name.clone()).collect();
        let first = config.endpoints.first();
        let same = |first: &&Endpoint| {
            config.endpoints.iter().all(|endpoint| endpoint.ban_headers == first.ban_headers)
        };
        Self {
            endpoints: config.endpoints.clone(),
            pointers: config.pointers.iter().map(|pointer| pointer.name.clone()).collect(),
            nodes: names(nodes),
            without_admin: names(without_admin),
            headers: first.filter(same).and_then(|endpoint| endpoint.ban_headers.clone()),
        }
    }

    /// The nodes that bans go to.
    pub(super) fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// What an event asks for. `defaults` are the subscription's: endpoints that are verified after
    /// each event, and how long they may take where that is to be proven.
    pub(super) fn event(
        &self,
        event: &Event,
        verify: &[EndpointName],
        prove: Option<Duration>,
    ) -> Result<Meaning, Nothing> {
        let nodes = self.meant(event.nodes.as_deref())?;
        let mut bans = Vec::new();
        let options = LintOptions {
            everything: event.everything,
            allow_slow_regex: event.allow_slow_regex,
            version: None,
        };
        for text in &event.bans {
            let ban = BanText::examined(text, &options).map_err(|fault| {
                let shown: String = text.chars().take(200).collect();
                Nothing::Refused(format!("the ban \"{}\": {}", Untrusted(&shown), Told(&fault)))
            })?;
            bans.push(ban);
        }
        let mut concerned = event.concerned();
        concerned.extend(verify.iter().cloned());
        for url in &event.urls {
            bans.push(self.ban_of_url(url, Reach::Exact)?);
            let of_url = self.endpoints.iter().filter(|endpoint| endpoint.url == *url);
            concerned.extend(of_url.map(|endpoint| endpoint.name.clone()));
        }
        for name in &event.endpoints {
            bans.push(self.ban_of_endpoint(name)?);
        }
        for name in &event.verify {
            self.known(name)?;
        }
        unique(&mut concerned);
        Ok(Meaning { bans, nodes, verify: concerned, prove: event.prove.or(prove) })
    }

    /// What a message on a channel asks for, by the subscription's templates.
    pub(super) fn message(
        &self,
        message: &Message<'_>,
        subscription: &Subscription,
    ) -> Result<Meaning, Nothing> {
        let mut bans = Vec::new();
        let mut verify = subscription.concerned();
        let mut value = |name: &str| message.named(name);
        if let Some(template) = &subscription.scope.ban {
            let ban = template.fill(&mut value).map_err(|fault| Nothing::Refused(chain(&fault)))?;
            bans.push(text(&ban)?);
        }
        for template in &subscription.scope.urls {
            let url = template.fill(&mut value).map_err(|fault| Nothing::Refused(chain(&fault)))?;
            bans.push(self.ban_of_url(&url, Reach::Exact)?);
            let of_url = self.endpoints.iter().filter(|endpoint| endpoint.url == url);
            verify.extend(of_url.map(|endpoint| endpoint.name.clone()));
        }
        for name in &subscription.scope.endpoints {
            bans.push(self.ban_of_endpoint(name)?);
        }
        unique(&mut verify);
        Ok(Meaning { bans, nodes: self.meant(None)?, verify, prove: subscription.prove })
    }

    /// What is banned when events of a subscription may have been lost: everything that they could
    /// have banned.
    pub(super) fn scope(&self, subscription: &Subscription) -> Result<Meaning, Nothing> {
        let mut bans = Vec::new();
        if let Some(ban) = subscription.scope.ban.as_ref().and_then(ban::Template::scope) {
            bans.push(text(&ban)?);
        }
        for template in &subscription.scope.urls {
            let Some(url) = template.beginning() else { continue };
            // Of one that depends on the event, all that it can become.
            let is_whole = template.placeholders().next().is_none();
            let reach = if is_whole { Reach::Exact } else { Reach::Prefix };
            bans.push(self.ban_of_url(&url, reach)?);
        }
        for name in &subscription.scope.endpoints {
            bans.push(self.ban_of_endpoint(name)?);
        }
        let verify = self.concerned(subscription);
        Ok(Meaning { bans, nodes: self.meant(None)?, verify, prove: None })
    }

    /// What is looked at when events of a subscription may have been lost.
    pub(super) fn look(&self, subscription: &Subscription) -> Result<Meaning, Nothing> {
        let verify = self.concerned(subscription);
        Ok(Meaning { bans: Vec::new(), nodes: self.meant(None)?, verify, prove: None })
    }

    /// The endpoints and pointers that a subscription concerns: all, where it names none.
    fn concerned(&self, subscription: &Subscription) -> Vec<EndpointName> {
        let named = subscription.concerned();
        if !named.is_empty() {
            return named;
        }
        let endpoints = self.endpoints.iter().map(|endpoint| &endpoint.name);
        endpoints.chain(&self.pointers).cloned().collect()
    }

    /// The nodes of this host that are meant.
    fn meant(&self, named: Option<&[NodeName]>) -> Result<Vec<NodeName>, Nothing> {
        let Some(named) = named else {
            if self.nodes.is_empty() {
                let why = "no node of this host has an admin port: nothing can be banned here";
                return Err(Nothing::Refused(why.to_owned()));
            }
            return Ok(self.nodes.clone());
        };
        if let Some(node) = self.without_admin.iter().find(|node| named.contains(node)) {
            return Err(Nothing::Refused(format!("the node {node} has no admin port")));
        }
        let meant: Vec<_> =
            self.nodes.iter().filter(|node| named.contains(node)).cloned().collect();
        if meant.is_empty() { Err(Nothing::Elsewhere) } else { Ok(meant) }
    }

    fn known(&self, name: &EndpointName) -> Result<Option<&Endpoint>, Nothing> {
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.name == *name);
        if endpoint.is_none() && !self.pointers.contains(name) {
            return Err(Nothing::Refused(format!("no endpoint {name} is watched on this host")));
        }
        Ok(endpoint)
    }

    fn ban_of_endpoint(&self, name: &EndpointName) -> Result<BanText, Nothing> {
        match self.known(name)? {
            Some(endpoint) => of_url(&endpoint.url, Reach::Exact, endpoint.ban_headers.as_ref()),
            None => {
                let why = format!("{name} is a pointer, and has many URLs: name them");
                Err(Nothing::Refused(why))
            }
        }
    }

    /// A ban on a URL goes by the headers of the endpoint that has it, or else by those that all
    /// endpoints have.
    fn ban_of_url(&self, url: &HttpUrl, reach: Reach) -> Result<BanText, Nothing> {
        let own = self.endpoints.iter().find(|endpoint| endpoint.url == *url);
        let headers = match own {
            Some(endpoint) => endpoint.ban_headers.as_ref(),
            None => self.headers.as_ref(),
        };
        of_url(url, reach, headers)
    }
}

fn of_url(url: &HttpUrl, reach: Reach, headers: Option<&BanHeaders>) -> Result<BanText, Nothing> {
    let headers = headers.and_then(ban_headers);
    let refused = |fault: Refusal| Nothing::Refused(format!("{url}: {fault}"));
    text(&ban::for_url(url, reach, headers.as_ref()).map_err(refused)?)
}

fn text(ban: &Expression) -> Result<BanText, Nothing> {
    BanText::new(&ban.to_string()).map_err(|fault| Nothing::Refused(fault.to_string()))
}

/// Why the ban of an event is none, and which key of the event has it sent all the same.
struct Told<'f>(&'f BanTextError);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BanTextError::Refused(refusal) = self.0 else { return self.0.fmt(f) };
        refusal.fmt(f)?;
        // The key of an event is called like the flag of the command.
        let Some(flag) = refusal.overridden_by() else { return Ok(()) };
        let key = flag.trim_start_matches('-').replace('-', "_");
        write!(f, " (in an event: \"{key}\": true)")
    }
}

fn unique(names: &mut Vec<EndpointName>) {
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
}
