//! `purgewatch adm`: works as varnishadm does, and answers for every command it is given.

mod input;
mod many;
mod prompt;
mod script;
mod status;
mod words;
mod written;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::{ArgAction, Args};

use self::input::Input;
use self::script::Script;
use self::status::Status;
use self::written::Style;
use super::output::{NodesFormat, Output, complain};
use super::target::{Chosen, Nodes, Scope};
use crate::admin::{Client, Options, Place, Target};

/// varnishd's pauses between two attempts to dial grow to ten seconds: nobody who waits for one
/// gives up before.
const DIAL_IN: Duration = Duration::from_secs(15);

/// The most that varnishd sends, in bytes: its `cli_limit` goes no further.
const LONGEST_BODY: usize = 99_999_999;

/// Talk to varnishd's admin port, as varnishadm does.
///
/// Takes every flag and form of varnishadm, and does the same when this program is called
/// `varnishadm` or `vinyladm`. The command's words are joined with blanks and sent as they are:
/// varnishd's own quoting (varnish-cli(7)) is the caller's, inside the shell's. Without a command,
/// commands are read from standard input, one a line; all of them are sent, and all are answered.
#[derive(Debug, Args)]
#[command(
    version,
    disable_version_flag = true,
    after_help = "\
Examples:
  purgewatch adm ping
  purgewatch adm -T 127.0.0.1:6082 -S /etc/varnish/secret vcl.list
  purgewatch adm -n /var/lib/varnish/varnishd backend.list -p
  purgewatch adm -t 60 < reload.cli
  purgewatch adm --listen 0.0.0.0:6083 -S /etc/varnish/secret status

Exit status, that of varnishadm: 0 done, 1 a command failed or usage, 2 no connection, secret or
answer; and 130 interrupted."
)]
pub(super) struct Arguments {
    /// The limit in seconds on connecting, on authenticating, and on each answer; 0 for none
    #[arg(
        short = 't',
        long,
        value_name = "SECONDS",
        default_value = "5",
        value_parser = seconds,
        allow_hyphen_values = true,
        overrides_with = "timeout"
    )]
    timeout: Duration,
    /// Write answers as they came, the line with status and length in front
    #[arg(short = 'p', action = ArgAction::Count)]
    pass: u8,
    /// From standard input: send commands again, so often, whose answer was lost with the
    /// connection
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    retries: u32,
    /// Wait at this address for a varnishd that dials in (varnishd -M), with -S for its secret
    #[arg(
        long,
        value_name = "IP:PORT",
        conflicts_with_all = ["admin", "workdir", "named", "nodes"]
    )]
    listen: Option<SocketAddr>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// Of several nodes: how each answer is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    output: NodesFormat,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    nodes: Nodes,
}

/// How wrong usage ends, as it does with varnishadm.
pub(super) const WRONG_USAGE: Status = Status::Failed;

pub(super) fn run(arguments: &Arguments) -> Status {
    let mut output = Output::stdout();
    let status = arguments.run(&mut output);
    status.after(output)
}

impl Arguments {
    fn run(&self, output: &mut Output) -> Status {
        let chosen = match self.listen {
            Some(address) => self.nodes.dialling_in(address),
            None => self.nodes.choose(Scope::Local),
        };
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(exit) => return exit.into(),
        };
        let Some(input) = self.input() else {
            complain("there is no command: the words given are empty");
            return Status::Failed;
        };
        match chosen.nodes.as_slice() {
            [only] if self.output == NodesFormat::Human => {
                self.one(&chosen, only.target.clone(), input, output)
            }
            _ => many::run(self, &chosen, &input, output),
        }
    }

    fn one(&self, chosen: &Chosen, target: Target, input: Input, output: &mut Output) -> Status {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(fault) => {
                complain(format_args!("cannot start: {fault}"));
                return Status::NoAnswer;
            }
        };
        let status = runtime.block_on(async {
            if let Place::Workdir(workdir) = &target.place {
                // A varnishd that is just starting is waited for.
                let dot = || drop(std::io::stderr().lock().write_all(b"."));
                if let Err(fault) = workdir.wait(self.timeout, dot).await {
                    words::not_found(&fault);
                    return Status::NoAnswer;
                }
            }
            if matches!(input, Input::Stdin) && self.pass == 0 && prompt::has_somebody() {
                let client = Client::new(target, prompt::options(self.options()));
                return Box::pin(prompt::run(client, chosen, output)).await;
            }
            let script = Script {
                client: Client::new(target, self.options()),
                style: if self.pass > 0 { Style::AsSent } else { Style::for_stdout() },
                retries: self.retries,
            };
            script.run(input, output).await
        });
        // Neither a read of the terminal nor a name lookup that was given up is waited for.
        runtime.shutdown_background();
        if status == Status::NoAnswer
            && let Some(hint) = chosen.hint()
        {
            complain(hint);
        }
        status
    }

    /// The limits that `-t` sets.
    fn options(&self) -> Options {
        Options {
            connect: self.timeout,
            authenticate: self.timeout,
            reply: self.timeout,
            dial_in: self.timeout.max(DIAL_IN),
            keep_alive: None,
            body_limit: LONGEST_BODY,
            ..Options::default()
        }
    }

    /// Where commands come from; `None` when words were given and nothing is in them.
    fn input(&self) -> Option<Input> {
        if self.command.is_empty() {
            return Some(Input::Stdin);
        }
        let words: Vec<_> = self.command.iter().map(|word| word.clone().into_vec()).collect();
        let mut text = words.join(&b' ');
        text.push(b'\n');
        text.iter().any(|byte| !byte.is_ascii_whitespace()).then_some(Input::Words(text))
    }
}

/// A number of seconds, as varnishadm's `-t` takes it: not negative, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(Duration::ZERO) => Ok(Duration::MAX),
        Ok(duration) => Ok(duration),
        Err(_) => Err("expected a number of seconds from 0 on".to_owned()),
    }
}
