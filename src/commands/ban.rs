//! `purgewatch ban`: ban on one node or on all, and say what came of it.

mod input;
mod report;
mod send;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::input::Bans;
use self::report::Report;
use self::send::{Limits, send};
use super::Exit;
use super::output::{Format, complain};
use super::target::NodeArguments;
use crate::model::parse_duration;

/// Ban, on one node or on all configured ones, and tell the truth about it.
///
/// A ban is FIELD OPERATOR ARGUMENT, joined by &&, as in varnish-cli(7). Written as one text or as
/// separate words; nothing needs quoting beyond what your shell wants, and a regex is written
/// once: \.php$ and not \\.php$.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// One ban as separate words, or one or more bans of one text each
    #[arg(value_name = "EXPR")]
    expressions: Vec<std::ffi::OsString>,

    /// Read bans from a file, one a line, # begins a comment line; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Ban this URL on its host, whatever its query order or variant (repeatable)
    #[arg(long, value_name = "URL")]
    url: Vec<String>,

    /// Ban everything that begins with the given URLs
    #[arg(long, requires = "url")]
    prefix: bool,

    /// The response header that the VCL copies req.url to [default: the configuration's]
    #[arg(long, value_name = "NAME", requires = "url")]
    url_header: Option<String>,

    /// The response header that the VCL copies req.http.host to
    #[arg(long, value_name = "NAME", requires = "url_header")]
    host_header: Option<String>,

    /// Send a ban that matches everything
    #[arg(long)]
    everything: bool,

    /// Send a regex that can backtrack without end
    #[arg(long)]
    allow_slow_regex: bool,

    /// Show what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    nodes: NodeArguments,

    /// The limit of the whole command
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,

    /// How often to try again where that can help: no connection, no answer, cache process down
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    retries: u32,

    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  purgewatch ban 'obj.http.x-url ~ ^/api/v1/'
  purgewatch ban req.url '~' '\\.css$'
  purgewatch ban --url http://rec.example.com/api/v1/recommendations/
  purgewatch ban -T cache-01:6082 -S /etc/varnish/secret 'obj.http.x-model == 7'
  purgewatch ban --file bans.txt --dry-run

Without -T: the nodes of the configuration; without one, the Varnish on this host
(127.0.0.1:6082 with /etc/varnish/secret).

Exit status: 0 every node took every ban; 2 usage, or refused before anything was sent;
3 a node cannot be reached; 4 a secret was refused; 5 varnishd rejected a ban; 6 a node's cache
process is not running; 130 interrupted. With several nodes the first of 5, 4, 3, 6.";

pub(super) fn run(arguments: &Arguments) -> Exit {
    match prepare(arguments) {
        Ok(prepared) => prepared.carry_out(arguments),
        Err(exit) => exit,
    }
}

struct Prepared {
    nodes: super::target::Nodes,
    bans: Bans,
}

fn prepare(arguments: &Arguments) -> Result<Prepared, Exit> {
    // The nodes come first: the configuration says which headers a ban on a URL goes by.
    let nodes = arguments.nodes.resolve()?;
    let bans = Bans::gather(arguments, &nodes)?;
    Ok(Prepared { nodes, bans })
}

impl Prepared {
    fn carry_out(self, arguments: &Arguments) -> Exit {
        let Self { nodes, bans } = self;
        let mut report = Report::new(arguments.output, &bans);
        if arguments.dry_run {
            return report.dry_run(&nodes);
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(fault) => {
                complain(format_args!("cannot start: {fault}"));
                return Exit::Usage;
            }
        };
        let limits = Limits { total: arguments.timeout, retries: arguments.retries };
        let outcome = runtime.block_on(send(nodes.targets, &bans, limits));
        report.sent(&outcome)
    }
}
