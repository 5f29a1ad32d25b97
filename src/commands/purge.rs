//! `purgewatch purge`: HTTP `PURGE` at each node, and proof that it purged.

mod report;
mod send;

use std::io;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use self::report::Document;
use self::send::{NodeReport, Order};
use super::Exit;
use super::config_file::ConfigFile;
use super::fleet::{Progress, while_writing};
use super::output::{NodesFormat, Output, complain};
use super::proof::{Evidence, Named, Peers, Plan, look_at_all};
use super::subject::header;
use crate::config::Config;
use crate::model::{HttpUrl, NodeName, parse_duration};

/// Purge URLs over HTTP, and prove at every node that they were purged.
///
/// Each node is sent the request at its own address, with the URL's Host. What the VCL answers is
/// no proof: a VCL that does not know PURGE can pass it on and answer 200. So each URL is fetched
/// before and after, as `ban --verify` does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  purgewatch purge http://www.example.com/news/
  purgewatch purge -c purgewatch.toml --node cache-01 http://www.example.com/a.css
  purgewatch purge http://www.example.com/ --node-http http://127.0.0.1:6081 \\
      --origin http://10.0.0.5:8080 --header 'X-Purge-Token: secret'

Exit status: 0 every node took it, and nothing old was found, 1 what should be gone is still \
served, 2 usage, 3 a node cannot be reached or nothing can be proven, 5 a node refused it, 6 \
the cache process ended meanwhile, 130 interrupted.
With several nodes the first of 5, 3, 6, 1 that occurred; all are served.")]
pub(super) struct Arguments {
    /// What to purge: with it go all variants of the object
    #[arg(value_name = "URL", required = true)]
    urls: Vec<HttpUrl>,
    /// The method that the VCL purges on
    #[arg(long, value_name = "METHOD", default_value = "PURGE", value_parser = method)]
    method: Method,
    /// Send this header with the purge, NAME: VALUE (repeatable)
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// Purge softly: send this header, NAME: VALUE, on which the VCL expires the object and leaves
    /// it to grace; the old object may then be served until --within
    #[arg(long, value_name = "HEADER")]
    soft: Option<String>,
    /// How the results are written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: NodesFormat,
    /// The limit on everything, on all nodes
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    evidence: Evidence,
    #[command(flatten)]
    file: ConfigFile,
    /// Only this node of the configuration; may be given several times [default: all]
    #[arg(long = "node", value_name = "NAME", conflicts_with = "node_http", value_parser = name)]
    nodes: Vec<NodeName>,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut output = Output::stdout();
    let exit = match arguments.run(&mut output) {
        Ok(exit) | Err(exit) => exit,
    };
    output.finish(exit)
}

impl Arguments {
    fn run(&self, output: &mut Output) -> Result<Exit, Exit> {
        let begin = Instant::now();
        let (names, config) = self.choose()?;
        let headers = self.headers()?;
        let named = Named { urls: &self.urls, endpoints: &[] };
        let mut plan = Plan::new(&self.evidence, named, config.as_ref(), &names)?;
        plan.limits.grace = self.soft.is_some();
        let peers = Peers::new(&plan);
        // A node that does not answer must not use up the time of the purges.
        let looked = look_at_all(&plan, &peers, &names, self.timeout / 2);
        let looked = looked.map_err(|fault| cannot_start(&fault))?;
        if looked.interrupted {
            complain("interrupted; nothing was sent");
            return Err(Exit::Interrupted);
        }
        let order = Order { plan: &plan, method: &self.method, headers: &headers };
        let limit = self.timeout.saturating_sub(begin.elapsed());
        let steps = looked.reports.iter().map(Vec::len).sum();
        let progress = Progress::new(names.clone(), "purge", "purged", steps);
        let outcome = while_writing(names.len(), output, &progress, |write| {
            send::send(&order, &names, looked.reports, limit, &progress, |report| {
                match self.output {
                    NodesFormat::Human => {
                        report::told(&plan, report).into_iter().for_each(&mut *write);
                    }
                    NodesFormat::Jsonl => write(report::line(&plan, report)),
                    NodesFormat::Json => {}
                }
            })
        });
        let outcome = outcome.map_err(|fault| cannot_start(&fault))?;
        let exit = if outcome.interrupted {
            Exit::Interrupted
        } else {
            Exit::of_nodes(outcome.reports.iter().map(NodeReport::exit))
        };
        if self.output == NodesFormat::Json {
            output.json(&Document::new(&plan, &outcome.reports, exit));
        }
        for report in &outcome.reports {
            report::failed(&plan, report);
        }
        Ok(exit)
    }

    /// The nodes that are meant, and the configuration if they come from one.
    fn choose(&self) -> Result<(Vec<NodeName>, Option<Config>), Exit> {
        let names = self.evidence.names()?;
        if !names.is_empty() {
            return Ok((names, None));
        }
        let config = self.file.load()?.config;
        let unknown = self.nodes.iter().find(|name| config.node(name).is_none());
        if let Some(name) = unknown {
            complain(format_args!("there is no node {name} in the configuration"));
            return Err(Exit::Usage);
        }
        let names = config.nodes.iter().map(|node| node.name.clone());
        let names = names.filter(|name| self.nodes.is_empty() || self.nodes.contains(name));
        Ok((names.collect(), Some(config)))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Exit> {
        let given = self.header.iter().map(|text| header(text, "--header"));
        given.chain(self.soft.iter().map(|text| header(text, "--soft"))).collect()
    }
}

/// A method on which something can be purged: the ones of customers are not.
fn method(text: &str) -> Result<Method, String> {
    let method: Method = text.parse().map_err(|_| "expected a method such as PURGE".to_owned())?;
    if [Method::GET, Method::HEAD, Method::CONNECT, Method::POST].contains(&method) {
        return Err("expected a method such as PURGE, BAN or DELETE".to_owned());
    }
    Ok(method)
}

fn name(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|fault| fault.to_string())
}

fn cannot_start(fault: &io::Error) -> Exit {
    complain(format_args!("cannot start: {fault}"));
    Exit::Usage
}
