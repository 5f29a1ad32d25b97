//! `purgewatch publish`: adds an invalidation event to a stream, and waits until the cache hosts
//! that follow it say what they did.

mod awaited;
mod event;
mod place;
mod report;
mod send;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::event::Examined;
use self::place::{Place, Server};
use self::report::Document;
use self::send::{Delivery, Errand};
use super::Exit;
use super::output::{Format, Output, Untrusted, complain, fail};
use crate::clock::Clock;
use crate::model::{EndpointName, HttpUrl, NodeName, parse_duration};

/// Send an invalidation event to all cache hosts by Redis, and wait until they say that they did it.
///
/// The event is added to a stream. On each cache host a daemon follows that, bans at its own nodes
/// and confirms; so whoever sends the event learns that every host did it, and has to reach none of
/// them. Bans are examined as `purgewatch ban` does it before anything is sent.
///
/// An event may be sent twice without harm.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How the result is written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// A ban, such as `obj.http.x-model == 7`; may be given several times
    #[arg(long, value_name = "EXPR", help_heading = "The event")]
    ban: Vec<String>,
    /// Ban this URL on its host, by the headers that each host has configured for it; may be
    /// given several times
    #[arg(long, value_name = "URL", help_heading = "The event")]
    url: Vec<HttpUrl>,
    /// Ban the URL of this endpoint, as each host has it configured, and verify the endpoint; may be
    /// given several times
    #[arg(long, value_name = "NAME", value_parser = endpoint_name, help_heading = "The event")]
    endpoint: Vec<EndpointName>,
    /// Verify this endpoint afterwards; may be given several times
    #[arg(long, value_name = "NAME", value_parser = endpoint_name, help_heading = "The event")]
    verify: Vec<EndpointName>,
    /// Only for this node; may be given several times [default: all]
    #[arg(long, value_name = "NAME", value_parser = node_name, help_heading = "The event")]
    node: Vec<NodeName>,
    /// A host is done only when what is verified is fresh at its nodes, which may take so long: 1s
    /// to 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = "The event")]
    prove: Option<Duration>,
    /// Why, for people
    #[arg(long, value_name = "TEXT", help_heading = "The event")]
    reason: Option<String>,
    /// The whole event as JSON from a file; `-` is standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["ban", "url", "endpoint", "verify", "node", "prove", "reason"],
        help_heading = "The event"
    )]
    json: Option<PathBuf>,
    /// Send a ban that matches everything
    #[arg(long, alias = "allow-everything", help_heading = "The event")]
    everything: bool,
    /// Send a regex that can make varnishd's cache process abort
    #[arg(long, help_heading = "The event")]
    allow_slow_regex: bool,

    #[command(flatten)]
    server: Server,

    /// Keep the stream to about so many entries
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Redis"
    )]
    max_len: u64,

    /// Wait for these nodes, separated by commas [default: those that the event names, else all
    /// nodes of the hosts that are known to follow the stream]
    #[arg(
        long,
        value_name = "NODES",
        value_delimiter = ',',
        value_parser = node_name,
        help_heading = "Confirmation"
    )]
    wait_for: Vec<NodeName>,
    /// Wait for nobody: done once the event is in the stream
    #[arg(long, conflicts_with_all = ["wait_for", "within"], help_heading = "Confirmation")]
    no_wait: bool,
    /// How long to wait [default: 60s, and with --prove that on top]
    #[arg(long, value_name = "DURATION", value_parser = limit, help_heading = "Confirmation")]
    within: Option<Duration>,
    /// Send nothing: take a host that is gone for good off the list of those who follow the stream
    #[arg(
        long,
        value_name = "HOST",
        conflicts_with_all = [
            "ban", "url", "endpoint", "verify", "node", "prove", "reason", "json", "everything",
            "allow_slow_regex", "max_len", "wait_for", "no_wait"
        ],
        help_heading = "Confirmation"
    )]
    forget: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  purgewatch publish -c purgewatch.toml --ban 'obj.http.x-model == 7'
  purgewatch publish --redis redis://redis.internal:6379 --password-env REDIS_PASSWORD \\
      --url http://rec.example.com/api/v1/model --reason 'deploy 42' --within 30s
  purgewatch publish -c purgewatch.toml --endpoint recommendations --prove 30s
  purgewatch publish -c purgewatch.toml --json event.json --wait-for cache-01,cache-02
  purgewatch publish -c purgewatch.toml --forget cache-03.ams

Exit status: 0 every node confirmed, and proved what was to be proven, 1 old content is still \
served, 2 usage, a ban refused or nobody to wait for (nothing was sent), 3 Redis cannot be \
reached, or a node did not confirm or nothing is proven in time, 4 Redis refused the password, \
or it cannot be read, 5 a host or its varnishd refused the event, 130 interrupted.
Of several the first of 5, 4, 3, 1 that occurred.";

/// How long is waited where no limit is given, beside the proof.
const WITHIN: Duration = Duration::from_secs(60);

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut output = Output::stdout();
    let exit = match &arguments.forget {
        Some(host) => arguments.forget(&mut output, host),
        None => arguments.publish(&mut output),
    };
    let exit = match exit {
        Ok(exit) | Err(exit) => exit,
    };
    output.finish(exit)
}

impl Arguments {
    fn publish(&self, output: &mut Output) -> Result<Exit, Exit> {
        let clock = Clock::start();
        let examined = Examined::read(self, clock.now())?;
        let scope = self.scope(&examined)?;
        let place = self.server.find()?;
        report::examined(&examined);
        if examined.is_refused() {
            let delivery = Delivery::default();
            self.document(output, &examined, &place, &delivery, Exit::Usage);
            return Ok(Exit::Usage);
        }
        let within = self.within.unwrap_or(WITHIN + examined.event.prove.unwrap_or_default());
        let errand = Errand {
            place: &place,
            event: &examined.event,
            scope,
            wait: !self.no_wait,
            within,
            most: self.max_len,
            clock,
        };
        let delivery = send::deliver(&errand, &mut |id| {
            if self.output == Format::Human {
                output.line(format_args!("published to {} as {id}", Untrusted(&place.stream)));
                output.flush();
            }
        });
        let delivery = delivery.map_err(|fault| {
            complain(format_args!("cannot start: {fault}"));
            Exit::Usage
        })?;
        let exit = report::exit(&delivery);
        if self.output == Format::Human {
            report::told(output, &delivery);
            output.flush();
        }
        self.document(output, &examined, &place, &delivery, exit);
        report::failed(&delivery, &place, within, clock);
        Ok(exit)
    }

    fn document(
        &self,
        output: &mut Output,
        examined: &Examined,
        place: &Place,
        delivery: &Delivery,
        exit: Exit,
    ) {
        if self.output == Format::Json {
            output.json(&Document::new(examined, place, delivery, exit));
        }
    }

    /// The nodes that are waited for; none: all.
    fn scope(&self, examined: &Examined) -> Result<Option<BTreeSet<NodeName>>, Exit> {
        let nodes = examined.event.nodes.as_ref();
        if self.wait_for.is_empty() {
            return Ok(nodes.map(|nodes| nodes.iter().cloned().collect()));
        }
        let is_left_out = |name: &&NodeName| nodes.is_some_and(|nodes| !nodes.contains(name));
        if let Some(name) = self.wait_for.iter().find(is_left_out) {
            complain(format_args!("--wait-for {name}: the event is not for that node"));
            return Err(Exit::Usage);
        }
        Ok(Some(self.wait_for.iter().cloned().collect()))
    }

    fn forget(&self, output: &mut Output, host: &str) -> Result<Exit, Exit> {
        let place = self.server.find()?;
        let forgotten = send::forget(&place, host, self.within.unwrap_or(WITHIN));
        let forgotten = forgotten.map_err(|fault| {
            complain(format_args!("cannot start: {fault}"));
            Exit::Usage
        })?;
        let (was_there, followers) = forgotten.map_err(|error| {
            fail("publish", &chain(&error));
            report::exit_before(&error)
        })?;
        if !was_there {
            report::forgotten(host, &place, &followers);
            return Ok(Exit::Usage);
        }
        if self.output == Format::Json {
            output.json(&serde_json::json!({
                "schema": 1, "command": "publish", "exit": 0, "forgotten": host,
            }));
        } else {
            output.line(format_args!(
                "{} is waited for no more; should it follow {} again, it is known again",
                Untrusted(host),
                Untrusted(&place.stream)
            ));
        }
        Ok(Exit::Done)
    }
}

/// An error with all that led to it.
fn chain(fault: &dyn Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn endpoint_name(text: &str) -> Result<EndpointName, String> {
    EndpointName::new(text).map_err(|fault| fault.to_string())
}

fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|fault| fault.to_string())
}

/// A duration that is more than nothing.
fn limit(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|fault| fault.to_string())?;
    if duration.is_zero() { Err("expected more than nothing".to_owned()) } else { Ok(duration) }
}
