//! Where bans come from: the command line, URLs, a file, standard input.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;

use super::super::Exit;
use super::super::output::{Untrusted, complain};
use super::Arguments;
use crate::ban::{
    self, BanHeaders, Expression, HeaderName, Lint, LintOptions, Reach, Refusal, ServerVersion,
    Warning, for_url,
};
use crate::config::Config;
use crate::model::HttpUrl;
use crate::protocol::Command;

/// The most bytes that are read from a file or a pipe: about half a million bans.
const LARGEST: u64 = 64 * 1024 * 1024;

/// So many characters of a ban are shown to people.
const SHOWN: usize = 400;

/// From so many bans on, they are examined by several threads.
const MANY: usize = 1_000;

/// A ban, read and examined.
#[derive(Debug)]
pub(super) struct Ban {
    /// Its line, counted from 1, when it comes from a file or a pipe.
    pub(super) line: Option<usize>,
    /// As it was written, made safe for a terminal.
    pub(super) text: String,
    pub(super) refusals: Vec<Refusal>,
    pub(super) warnings: Vec<Warning>,
    /// What is sent; `None` when it is refused.
    pub(super) command: Option<Command>,
    /// The ban itself, where not every version of the server knows its fields, and where it is to
    /// be proven.
    pub(super) expression: Option<Expression>,
    /// Whether not every version of the server knows its fields.
    depends_on_version: bool,
}

/// How bans are read.
#[derive(Debug)]
struct Reading {
    lint: LintOptions,
    /// Whether the bans themselves are needed later on.
    keep: bool,
}

/// The bans of one call, in order, at least one.
#[derive(Debug)]
pub(super) struct Bans {
    /// The file, for messages.
    pub(super) file: Option<String>,
    pub(super) bans: Vec<Ban>,
}

impl Bans {
    /// Reads all bans and examines each of them.
    ///
    /// # Errors
    /// [`Exit::Usage`], with a message on stderr, when there are none or they cannot be read. A
    /// ban that is refused is no error here.
    pub(super) fn read(arguments: &Arguments, config: Option<&Config>) -> Result<Self, Exit> {
        let options = Reading {
            lint: LintOptions {
                everything: arguments.everything,
                allow_slow_regex: arguments.allow_slow_regex,
                version: None,
            },
            keep: arguments.is_to_be_proven(),
        };
        if !arguments.url.is_empty() {
            let bans = arguments.url.iter().map(|url| {
                let headers = headers_for(arguments, config, url);
                let reach = if arguments.prefix { Reach::Prefix } else { Reach::Exact };
                let read = for_url(url, reach, headers.as_ref());
                Ban::new(None, url.to_string(), read, &options)
            });
            return Ok(Self { file: None, bans: bans.collect() });
        }
        if !arguments.words.is_empty() {
            return Ok(Self { file: None, bans: from_words(&arguments.words, &options) });
        }
        let (name, bytes) = match &arguments.file {
            Some(path) if path != Path::new("-") => {
                let name = path.display().to_string();
                (Untrusted(&name).to_string(), read_all(File::open(path)))
            }
            None if io::stdin().is_terminal() => {
                complain(
                    "no ban given: expected an expression, --url, --file, or bans on standard \
                     input; see purgewatch ban --help",
                );
                return Err(Exit::Usage);
            }
            _ => ("standard input".to_owned(), read_all(Ok(io::stdin().lock()))),
        };
        let bytes = bytes.map_err(|fault| {
            complain(format_args!("{name} cannot be read: {fault}"));
            Exit::Usage
        })?;
        let bans = from_lines(&bytes, &options);
        if bans.is_empty() {
            complain(format_args!("{name} holds no ban"));
            return Err(Exit::Usage);
        }
        Ok(Self { file: Some(name), bans })
    }

    /// How many of them are refused.
    pub(super) fn refused(&self) -> usize {
        self.bans.iter().filter(|ban| ban.command.is_none()).count()
    }

    /// Whether it matters which version a server has.
    pub(super) fn depend_on_version(&self) -> bool {
        self.bans.iter().any(|ban| ban.depends_on_version)
    }

    /// The bans that a server of this version does not know, each with the reason.
    pub(super) fn unknown_to(&self, version: ServerVersion) -> Vec<(usize, Refusal)> {
        let options =
            LintOptions { everything: true, allow_slow_regex: true, version: Some(version) };
        let refused = |(at, ban): (usize, &Ban)| {
            let lint = ban::lint(ban.expression.as_ref()?, &options);
            Some((at, lint.refusals.into_iter().next()?))
        };
        self.bans.iter().enumerate().filter_map(refused).collect()
    }

    /// Where a ban stands, as a prefix of messages: `bans.txt:12: `, or nothing.
    pub(super) fn place(&self, ban: &Ban) -> String {
        match (&self.file, ban.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            _ if self.bans.len() > 1 => format!("{}: ", ban.shown()),
            _ => String::new(),
        }
    }
}

impl Ban {
    fn new(
        line: Option<usize>,
        written: String,
        read: Result<Expression, Refusal>,
        options: &Reading,
    ) -> Self {
        let expression = match read {
            Ok(expression) => expression,
            Err(refusal) => {
                let refusals = vec![refusal];
                return Self {
                    line,
                    text: written,
                    refusals,
                    warnings: Vec::new(),
                    command: None,
                    expression: None,
                    depends_on_version: false,
                };
            }
        };
        let Lint { refusals, warnings } = ban::lint(&expression, &options.lint);
        let depends_on_version = warnings.iter().any(|w| matches!(w, Warning::NeedsVersion { .. }));
        let (text, command) = (expression.to_string(), Command::ban(expression.arguments()));
        let expression = (depends_on_version || options.keep).then_some(expression);
        let mut ban =
            Self { line, text, refusals, warnings, command: None, expression, depends_on_version };
        if ban.refusals.is_empty() {
            match command {
                Ok(command) => ban.command = Some(command),
                // What the protocol cannot carry was refused above; should one slip through, it
                // is not sent either.
                Err(fault) => ban.refusals.push(Refusal::Unsendable { reason: fault.to_string() }),
            }
        }
        ban
    }

    /// The beginning of its text, for people: a ban can have a megabyte.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        match self.text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}...", self.text.get(..end).unwrap_or_default()).into(),
            None => Cow::Borrowed(&self.text),
        }
    }

    fn of_text(line: Option<usize>, text: &[u8], options: &Reading) -> Self {
        let shown = String::from_utf8_lossy(text);
        let shown: String = shown.trim().chars().take(200).collect();
        Self::new(line, Untrusted(&shown).to_string(), ban::parse(text), options)
    }
}

/// Words of the command line: when the first one holds a blank, each is a ban of its own;
/// otherwise they are the tokens of one.
fn from_words(words: &[OsString], options: &Reading) -> Vec<Ban> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let whole = words.len() == 1 || words.first().is_some_and(|word| word.contains(&b' '));
    if whole {
        return words.iter().map(|word| Ban::of_text(None, word, options)).collect();
    }
    let written = String::from_utf8_lossy(&words.join(&b' ')).into_owned();
    let read = ban::parse_words(&words);
    vec![Ban::new(None, Untrusted(&written).to_string(), read, options)]
}

fn from_lines(bytes: &[u8], options: &Reading) -> Vec<Ban> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines: Vec<(usize, &[u8])> = bytes
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| {
            let text = line.trim_ascii_start();
            !text.is_empty() && !text.starts_with(b"#")
        })
        .collect();
    let examine = |lines: &[(usize, &[u8])]| -> Vec<Ban> {
        lines.iter().map(|(number, line)| Ban::of_text(Some(*number), line, options)).collect()
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(4));
    if lines.len() < MANY || threads < 2 {
        return examine(&lines);
    }
    thread::scope(|scope| {
        let share = lines.len().div_ceil(threads);
        let workers: Vec<_> =
            lines.chunks(share).map(|chunk| scope.spawn(move || examine(chunk))).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn read_all(source: io::Result<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it has more than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// The response headers that hold URL and host: those named on the command line, else those of
/// the endpoint that the URL belongs to, else those that all endpoints share.
pub(super) fn headers_for(
    arguments: &Arguments,
    config: Option<&Config>,
    url: &HttpUrl,
) -> Option<BanHeaders> {
    if let Some(name) = &arguments.url_header {
        return Some(BanHeaders { url: name.clone(), host: arguments.host_header.clone() });
    }
    let endpoints = &config?.endpoints;
    let same_host = |other: &HttpUrl| {
        let (a, b) = (url.address(), other.address());
        a.port() == b.port() && a.host().eq_ignore_ascii_case(b.host())
    };
    let own = endpoints.iter().filter(|endpoint| same_host(&endpoint.url)).max_by_key(|endpoint| {
        let paths = endpoint.url.path_and_query().bytes().zip(url.path_and_query().bytes());
        paths.take_while(|(a, b)| a == b).count()
    });
    let shared = || {
        let first = endpoints.first()?;
        endpoints.iter().all(|e| e.ban_headers == first.ban_headers).then_some(first)
    };
    let headers = own.or_else(shared)?.ban_headers.as_ref()?;
    Some(BanHeaders { url: HeaderName::new(&headers.url)?, host: HeaderName::new(&headers.host) })
}
