//! `purgewatch ban`: bans on one node or all configured ones, at the same time.

mod ledger;
mod report;
mod send;
mod source;
mod tested;
mod verify;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use self::report::Document;
use self::send::{Limits, NodeReport};
use self::source::Bans;
use self::verify::Verification;
use super::Exit;
use super::fleet::{Outcome, Progress, while_writing};
use super::output::{NodesFormat, Output, complain};
use super::proof::{Evidence, Plan};
use super::target::{Chosen, Nodes, Scope};
use crate::ban::HeaderName;
use crate::model::{EndpointName, HttpUrl, parse_duration};

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
  purgewatch ban -c purgewatch.toml 'obj.http.x-model == 7' --verify-endpoint recommendations

Exit status: 0 every node took every ban, and nothing old was found where proof was asked for, \
1 an object that should be gone is still served, 2 usage or a ban refused (nothing was sent), \
3 a node cannot be reached or nothing can be proven, 4 secret refused, 5 rejected by varnishd, \
6 cache process not running, or ended by the ban, 130 interrupted.
With several nodes the first of 5, 4, 3, 6, 1 that occurred; all are served.")]
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
    /// Send the bans once more so long after they were taken: a fetch that was under way when they
    /// came can bring back old content
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    repeat_after: Option<Duration>,
    /// Prove that what was cached under this URL is gone, and that what the origin serves has taken
    /// its place; may be given several times
    #[arg(long, value_name = "URL", help_heading = "Proof")]
    verify: Vec<HttpUrl>,
    /// The same for an endpoint of the configuration, with all its variants
    #[arg(long, value_name = "NAME", value_parser = endpoint_name, help_heading = "Proof")]
    verify_endpoint: Vec<EndpointName>,
    /// Send the ban also when it cannot match what is to be proven
    #[arg(long, help_heading = "Proof")]
    verify_anyway: bool,
    /// Wait until every object in the cache was tested against the bans: proof from inside, which
    /// needs no HTTP and covers the whole cache
    #[arg(long, help_heading = "Proof")]
    until_tested: bool,
    #[command(flatten)]
    evidence: Evidence,
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
        if self.repeat_after.is_some_and(|pause| pause >= self.timeout) {
            complain("--repeat-after is longer than all of --timeout");
            return Err(Exit::Usage);
        }
        let chosen = self.nodes.choose(Scope::AllNodes)?;
        let plan = self.plan(&chosen)?;
        let bans = Bans::read(self, chosen.config.as_ref())?;
        let document = |output: &mut Output, plan: Option<&Plan>, reports: &[_], exit| {
            if self.output == NodesFormat::Json {
                output.json(&Document::new(&bans, plan, reports, exit, self.dry_run));
            }
        };
        if bans.refused() > 0 {
            report::refused(&bans);
            document(output, None, &[], Exit::Usage);
            return Ok(Exit::Usage);
        }
        report::warned(&bans, self.dry_run);
        if self.dry_run {
            match self.output {
                NodesFormat::Human => report::planned(output, &bans, &chosen),
                NodesFormat::Jsonl => report::planned_lines(output, &bans, &chosen),
                NodesFormat::Json => document(output, None, &[], Exit::Done),
            }
            return Ok(Exit::Done);
        }
        let begin = Instant::now();
        let verification = plan.map(|plan| self.look(output, plan, &chosen, &bans)).transpose()?;
        let plan = verification.as_ref().map(|verification| &verification.plan);
        let limit = self.timeout.saturating_sub(begin.elapsed());
        let Outcome { reports, interrupted } = self
            .send(output, &bans, &chosen, verification.as_ref(), limit)
            .map_err(|fault| cannot_start(&fault))?;
        let exit = if interrupted {
            Exit::Interrupted
        } else {
            Exit::of_nodes(reports.iter().map(NodeReport::exit))
        };
        document(output, plan, &reports, exit);
        report::failed(&bans, &chosen, plan, &reports);
        if !self.no_ledger {
            ledger::tell_daemon(&bans, &chosen, &reports);
        }
        Ok(exit)
    }

    /// Whether proof is asked for.
    fn is_to_be_proven(&self) -> bool {
        !self.verify.is_empty() || !self.verify_endpoint.is_empty() || self.until_tested
    }

    /// Looks at what is to be proven, and refuses bans that cannot match it.
    fn look(
        &self,
        output: &mut Output,
        plan: Plan,
        chosen: &Chosen,
        bans: &Bans,
    ) -> Result<Verification, Exit> {
        let (verification, unmatched, interrupted) =
            verify::look(plan, chosen, bans, self).map_err(|fault| cannot_start(&fault))?;
        if interrupted {
            complain("interrupted; nothing was sent");
            return Err(Exit::Interrupted);
        }
        if unmatched.is_empty() || self.verify_anyway {
            return Ok(verification);
        }
        report::unmatched(bans, &unmatched);
        if self.output == NodesFormat::Json {
            let document = Document::new(bans, None, &[], Exit::Usage, false);
            output.json(&document.with_unmatched(&unmatched));
        }
        Err(Exit::Usage)
    }

    /// Sends the bans, and writes what each node took as soon as that is known.
    fn send(
        &self,
        output: &mut Output,
        bans: &Bans,
        chosen: &Chosen,
        verification: Option<&Verification>,
        total: Duration,
    ) -> io::Result<Outcome<NodeReport>> {
        let (retries, repeat_after) = (self.retries, self.repeat_after);
        let until_tested = self.until_tested.then(|| self.evidence.within().min(total));
        let limits = Limits { total, retries, repeat_after, until_tested };
        let plan = verification.map(|verification| &verification.plan);
        let names: Vec<_> = chosen.nodes.iter().map(|node| node.target.node.clone()).collect();
        let steps = names.len() * bans.bans.len();
        let progress = Progress::new(names, "ban", "taken", steps);
        while_writing(chosen.nodes.len(), output, &progress, |write| {
            let nodes = &chosen.nodes;
            send::send(nodes, bans, verification, limits, &progress, |report| match self.output {
                NodesFormat::Human => {
                    report::told(bans, plan, report).into_iter().for_each(&mut *write);
                }
                NodesFormat::Jsonl => write(report::line(bans, plan, report)),
                NodesFormat::Json => {}
            })
        })
    }
}

fn cannot_start(fault: &io::Error) -> Exit {
    complain(format_args!("cannot start: {fault}"));
    Exit::Usage
}

fn endpoint_name(text: &str) -> Result<EndpointName, String> {
    EndpointName::new(text).map_err(|fault| fault.to_string())
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::new(text).ok_or_else(|| "expected the name of a header".to_owned())
}

/// A duration that is more than nothing.
fn limit(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|fault| fault.to_string())?;
    if duration.is_zero() { Err("expected more than nothing".to_owned()) } else { Ok(duration) }
}
