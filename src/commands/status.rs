//! `purgewatch status`: what a running daemon knows.

mod report;
mod request;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

pub(super) use self::request::document;
use super::Exit;
use super::config_file::ConfigFile;
use super::output::{Format, Output, Untrusted, complain};
use crate::config::load;
use crate::expose::status::{Document, Node};
use crate::model::{HttpUrl, Scheme, parse_duration};
use crate::verdict::State;

/// Show what a running daemon knows: states, since when, and why.
///
/// Asks the daemon's HTTP API, and neither caches nor origins. `check` compares now.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// Where the daemon listens [default: as the configuration says, or http://127.0.0.1:19131]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The limit of the whole question
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,

    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  purgewatch status
  purgewatch status --url http://cache-01.internal:19131
  purgewatch status --output json | jq -r '.targets[] | select(.state == \"stale\") | .cause'

Exit status: 0 all fresh, and bans work as far as that is checked; 1 something is stale or \
lagging, or a canary failed; 2 usage or configuration; 3 the daemon does not answer, an admin \
port is down, no events can be read, or there is something that cannot be compared; 130 \
interrupted. Of 1 and 3 it is 3.";

/// Where a daemon listens that nobody configured otherwise.
const USUAL: &str = "http://127.0.0.1:19131";

pub(super) fn run(arguments: &Arguments) -> Exit {
    let url = match address(arguments) {
        Ok(url) => url,
        Err(exit) => return exit,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            complain(format_args!("cannot start: {fault}"));
            return Exit::Usage;
        }
    };
    let answer = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(Exit::Interrupted),
            answer = document(&url, arguments.timeout) => answer.map_err(|fault| {
                let advice = fault.advice();
                complain(format_args!("the daemon at {url}: {fault}\n  {advice}"));
                Exit::Unreachable
            }),
        }
    });
    // A name lookup that was given up may hang on in its thread: nobody waits for it.
    runtime.shutdown_background();
    match answer {
        Ok(document) => {
            let mut output = Output::stdout();
            match arguments.output {
                Format::Json => output.json(&document),
                Format::Human => report::show(&mut output, &document),
            }
            output.finish(exit(&document))
        }
        Err(exit) => exit,
    }
}

/// Where to ask: as told, else as the configuration says, else where a daemon usually is.
fn address(arguments: &Arguments) -> Result<HttpUrl, Exit> {
    let text = match (&arguments.url, arguments.file.named_or_present()) {
        (Some(url), _) if url.contains("://") => url.clone(),
        // A bare HOST:PORT can only mean one thing.
        (Some(url), _) => format!("http://{url}"),
        (None, None) => USUAL.to_owned(),
        (None, Some(path)) => match load(path) {
            Ok(loaded) => format!("http://{}", reachable(loaded.config.daemon.listen)),
            Err(fault) => {
                // The daemon may well run on by an earlier one. The usual file may be for its eyes
                // only, and nobody asked for that.
                if arguments.file.named().is_some() {
                    arguments.file.complain_of(&fault);
                    complain(format_args!("asking the daemon at {USUAL} (--url for another)"));
                }
                USUAL.to_owned()
            }
        },
    };
    match text.parse::<HttpUrl>() {
        Ok(url) if url.scheme() == Scheme::Https => {
            complain("--url: the daemon speaks no TLS; expected http://HOST:PORT");
            Err(Exit::Usage)
        }
        Ok(url) => Ok(url),
        Err(fault) => {
            complain(format_args!("--url {}: {fault}", Untrusted(&text)));
            Err(Exit::Usage)
        }
    }
}

/// An address that listens for everybody is reached as this machine.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The worst of what the daemon knows.
fn exit(document: &Document) -> Exit {
    let targets = document.targets.iter().map(|target| match State::from_label(&target.state) {
        Some(State::Fresh) => Exit::Done,
        Some(State::Lagging | State::Stale) => Exit::Stale,
        _ => Exit::Unreachable,
    });
    let pointers = document.pointers.iter().map(|pointer| match &*pointer.state {
        "good" => Exit::Done,
        "lagging" | "broken" | "split" => Exit::Stale,
        _ => Exit::Unreachable,
    });
    let nodes = document.nodes.iter().map(purge_path);
    let subscriptions = document.subscriptions.iter().map(|subscription| match subscription.up {
        Some(false) => Exit::Unreachable,
        Some(true) | None => Exit::Done,
    });
    nodes.chain(subscriptions).fold(Exit::of_nodes(targets.chain(pointers)), Exit::max)
}

/// Whether bans arrive at a node and work there. What was not checked yet is not known to fail.
fn purge_path(node: &Node<'_>) -> Exit {
    let admin_is_down = node.admin.as_ref().is_some_and(|admin| admin.up == Some(false));
    let canary_is_down = node.canary.as_ref().is_some_and(|canary| canary.up == Some(false));
    match (admin_is_down, canary_is_down) {
        (true, _) => Exit::Unreachable,
        (false, true) => Exit::Stale,
        (false, false) => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document with one fresh target, one node with an admin port, and a canary.
    fn document(admin: &str, canary: &str) -> Document {
        let changes = r#"{"since":0,"changes":0,"within_seconds":{}}"#;
        let text = format!(
            r#"{{"schema":1,"version":"9","taken":9,"endpoints":1,"targets":[{{"endpoint":"e",
            "variant":"default","node":"n","state":"fresh","since":0,"staleness_seconds":0,
            "max_stale_seconds":60,"age_seconds":null,"last_probe":null,"last_fresh":null,
            "probes":{{}},"node_version":null,"origin_version":null,"reason":null,
            "remedy":null}}],"nodes":[{{"node":"n","day":{changes},"week":{changes},
            "admin":{{"up":{admin},"last_success":null,"failures":{{}},"problem":null}},
            "canary":{{"up":{canary},"last_proven":null,"problem":null}}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn all_fresh_is_not_all_well_where_bans_do_not_work() {
        for (admin, canary, code) in [
            ("true", "true", 0),
            ("null", "null", 0),
            ("true", "false", 1),
            ("false", "true", 3),
            ("false", "false", 3),
        ] {
            assert_eq!(exit(&document(admin, canary)).code(), code, "{admin} {canary}");
        }
    }

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_here() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:19131"), "127.0.0.1:19131");
        assert_eq!(reached("[::]:19131"), "[::1]:19131");
        assert_eq!(reached("10.0.0.5:80"), "10.0.0.5:80");
    }
}
