//! `purgewatch ban`: bans on one node or all configured ones, at the same time.

mod ledger;
mod report;
mod send;
mod source;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::report::Document;
use self::send::{Limits, NodeReport};
use self::source::Bans;
use super::Exit;
use super::fleet::{Outcome, Progress, while_writing};
use super::output::{NodesFormat, Output, complain};
use super::target::{Chosen, Nodes, Scope};
use crate::ban::HeaderName;
use crate::model::{HttpUrl, parse_duration};

/// Ban objects, and say truthfully whether every node took the ban.
///
/// A ban is FIELD OPERATOR ARGUMENT, several joined by `&&`, such as `obj.http.x-url ~ ^/news/`.
/// Write it as one argument or as several; a regex is written once (`\.`), not doubled as for
/// varnishadm, and nothing needs quotes but the shell. Without any, bans are read from standard
/// input, one a line.
///
/// Every ban is examined before anything is sent, and one that is refused keeps all of them back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  purgewatch ban 'obj.http.x-url ~ ^/news/' -T 127.0.0.1:6082 -S /etc/varnish/secret
  purgewatch ban -c purgewatch.toml --url https://www.example.com/news/ --prefix
  purgewatch ban -c purgewatch.toml --node cache-01 --file bans.txt --output json
  purgewatch ban --dry-run 'obj.age > 1d && obj.http.content-type ~ ^image/'

Exit status: 0 every node took every ban, 2 usage or a ban refused (nothing was sent),
3 a node cannot be reached, 4 secret refused, 5 rejected by varnishd, 6 cache process not running,
130 interrupted. With several nodes the first of 5, 4, 3, 6 that occurred; all are served.")]
pub(super) struct Arguments {
    /// The ban: as one argument, or its words as several; of arguments with blanks, each is a ban
    #[arg(value_name = "EXPR", conflicts_with_all = ["file", "url"])]
    words: Vec<OsString>,
    /// Read bans from a file, one a line; `#` begins a comment line; `-` is standard input
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "url")]
    file: Option<PathBuf>,
    /// Ban this URL, host and path as they are in a browser; may be given several times
    #[arg(long, value_name = "URL")]
    url: Vec<HttpUrl>,
    /// With --url: ban every URL of that host that begins with it
    #[arg(long, requires = "url")]
    prefix: bool,
    /// With --url: the response header that the VCL copies req.url to
    #[arg(long, value_name = "NAME", requires = "url", value_parser = header_name)]
    url_header: Option<HeaderName>,
    /// With --url-header: the response header that the VCL copies req.http.host to
    #[arg(long, value_name = "NAME", requires = "url_header", value_parser = header_name)]
    host_header: Option<HeaderName>,
    /// Send a ban that matches everything
    #[arg(long)]
    everything: bool,
    /// Send a regex that can make varnishd's cache process abort
    #[arg(long)]
    allow_slow_regex: bool,
    /// Examine the bans and say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// How the results are written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: NodesFormat,
    /// The limit on everything, on all nodes
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = limit)]
    timeout: Duration,
    /// How often a node is tried again where that can help: never after a refused secret or a
    /// rejected ban
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    retries: u32,
    /// Do not tell the daemon of this host which nodes took the ban; without this, it delivers the
    /// ban to the others when they are back
    #[arg(long)]
    no_ledger: bool,
    #[command(flatten)]
    nodes: Nodes,
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
        if self.url.is_empty() && (self.prefix || self.url_header.is_some()) {
            complain("--prefix, --url-header and --host-header go with --url");
            return Err(Exit::Usage);
        }
        let chosen = self.nodes.choose(Scope::AllNodes)?;
        let bans = Bans::read(self, chosen.config.as_ref())?;
        let document = |output: &mut Output, reports: &[_], exit| {
            if self.output == NodesFormat::Json {
                output.json(&Document::new(&bans, reports, exit, self.dry_run));
            }
        };
        if bans.refused() > 0 {
            report::refused(&bans);
            document(output, &[], Exit::Usage);
            return Ok(Exit::Usage);
        }
        report::warned(&bans, self.dry_run);
        if self.dry_run {
            match self.output {
                NodesFormat::Human => report::planned(output, &bans, &chosen),
                NodesFormat::Jsonl => report::planned_lines(output, &bans, &chosen),
                NodesFormat::Json => document(output, &[], Exit::Done),
            }
            return Ok(Exit::Done);
        }
        let Outcome { reports, interrupted } =
            self.send(output, &bans, &chosen).map_err(|fault| {
                complain(format_args!("cannot start: {fault}"));
                Exit::Usage
            })?;
        let exit = if interrupted {
            Exit::Interrupted
        } else {
            Exit::of_nodes(reports.iter().map(NodeReport::exit))
        };
        document(output, &reports, exit);
        report::failed(&bans, &chosen, &reports);
        if !self.no_ledger {
            ledger::tell_daemon(&bans, &chosen, &reports);
        }
        Ok(exit)
    }

    /// Sends the bans, and writes what each node took as soon as that is known.
    fn send(
        &self,
        output: &mut Output,
        bans: &Bans,
        chosen: &Chosen,
    ) -> io::Result<Outcome<NodeReport>> {
        let limits = Limits { total: self.timeout, retries: self.retries };
        let names: Vec<_> = chosen.nodes.iter().map(|node| node.target.node.clone()).collect();
        let steps = names.len() * bans.bans.len();
        let progress = Progress::new(names, "ban", "taken", steps);
        while_writing(chosen.nodes.len(), output, &progress, |write| {
            send::send(&chosen.nodes, bans, limits, &progress, |report| match self.output {
                NodesFormat::Human => report::taken(bans, report).into_iter().for_each(&mut *write),
                NodesFormat::Jsonl => write(report::line(bans, report)),
                NodesFormat::Json => {}
            })
        })
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::new(text).ok_or_else(|| "expected the name of a header".to_owned())
}

/// A duration that is more than nothing.
fn limit(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|fault| fault.to_string())?;
    if duration.is_zero() { Err("expected more than nothing".to_owned()) } else { Ok(duration) }
}
