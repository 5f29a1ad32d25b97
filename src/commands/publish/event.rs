//! The event that is sent, read and examined before anything is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::super::Exit;
use super::super::output::{Untrusted, complain};
use super::{Arguments, chain};
use crate::ban::{self, Lint, LintOptions, Refusal, Warning};
use crate::event::{Event, LONGEST_EVENT};
use crate::model::Timestamp;

/// So many characters of a ban are shown to people.
const SHOWN: usize = 200;

/// An event, and what there is to say of its bans.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) event: Event,
    pub(super) bans: Vec<Ban>,
}

/// One of its bans.
#[derive(Debug)]
pub(super) struct Ban {
    /// Its beginning, made safe for a terminal.
    pub(super) shown: String,
    pub(super) refusals: Vec<Refusal>,
    pub(super) warnings: Vec<Warning>,
}

impl Examined {
    /// The event that the arguments describe, sent `now`.
    ///
    /// # Errors
    /// [`Exit::Usage`], with a message on stderr, when it is none or cannot be read. A ban that is
    /// refused is no error here.
    pub(super) fn read(arguments: &Arguments, now: Timestamp) -> Result<Self, Exit> {
        let mut event = match &arguments.json {
            Some(path) => from_file(path)?,
            None => Event {
                bans: arguments.ban.clone(),
                urls: arguments.url.clone(),
                endpoints: arguments.endpoint.clone(),
                verify: arguments.verify.clone(),
                nodes: Some(arguments.node.clone()).filter(|nodes| !nodes.is_empty()),
                prove: arguments.prove,
                reason: arguments.reason.clone(),
                ..Event::default()
            },
        };
        // The hosts examine the bans as well.
        event.everything |= arguments.everything;
        event.allow_slow_regex |= arguments.allow_slow_regex;
        event.issued.get_or_insert(now);
        // What the hosts will make of it.
        let event = Event::from_json(event.to_json().as_bytes()).map_err(|fault| {
            complain(format_args!("nothing was published: {}", chain(&fault)));
            Exit::Usage
        })?;
        let options = LintOptions {
            everything: event.everything,
            allow_slow_regex: event.allow_slow_regex,
            version: None,
        };
        let bans = event.bans.iter().map(|text| Ban::of(text, &options)).collect();
        Ok(Self { event, bans })
    }

    /// Whether a ban is refused.
    pub(super) fn is_refused(&self) -> bool {
        self.bans.iter().any(|ban| !ban.refusals.is_empty())
    }
}

impl Ban {
    fn of(text: &str, options: &LintOptions) -> Self {
        let beginning: String = text.chars().take(SHOWN).collect();
        let shown = Untrusted(&beginning).to_string();
        match ban::parse(text.as_bytes()) {
            Ok(expression) => {
                let Lint { refusals, warnings } = ban::lint(&expression, options);
                Self { shown, refusals, warnings }
            }
            Err(refusal) => Self { shown, refusals: vec![refusal], warnings: Vec::new() },
        }
    }
}

fn from_file(path: &Path) -> Result<Event, Exit> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "standard input".into() } else { path.display().to_string() };
    let name = Untrusted(&name).to_string();
    let bytes = if is_stdin { read(io::stdin().lock()) } else { File::open(path).and_then(read) };
    let bytes = bytes.map_err(|fault| {
        complain(format_args!("{name} cannot be read: {fault}"));
        Exit::Usage
    })?;
    Event::from_json(&bytes).map_err(|fault| {
        complain(format_args!("{name}: nothing was published: {}", chain(&fault)));
        Exit::Usage
    })
}

/// One byte beyond what an event may have is enough to refuse it.
fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LONGEST_EVENT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
