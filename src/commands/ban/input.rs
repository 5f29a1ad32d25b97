//! The bans to be sent: gathered from arguments, files and URLs, and examined before anything is
//! sent.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::super::Exit;
use super::super::output::{Format, Output, Untrusted, complain};
use super::super::target::Nodes;
use super::Arguments;
use super::report::{refused, warned};
use crate::ban::{
    self, BanHeaders, Expression, HeaderName, LintOptions, Reach, Refusal, ServerVersion, Warning,
};
use crate::model::HttpUrl;
use crate::protocol::Command;

/// The largest batch that is read, in bytes.
const LARGEST_INPUT: u64 = 256 * 1_024 * 1_024;

/// All bans of one call, each found fit to be sent.
#[derive(Debug)]
pub(super) struct Bans {
    pub(super) bans: Vec<Ban>,
    /// Whether they came as lines of a file.
    pub(super) are_lines: bool,
    options: LintOptions,
}

/// One ban.
#[derive(Debug)]
pub(super) struct Ban {
    /// Its line in the file, counted from 1.
    pub(super) line: Option<usize>,
    pub(super) expression: Expression,
    pub(super) command: Command,
    pub(super) warnings: Vec<Warning>,
    /// Whether it needs a server of some version: that is looked at once the server is known.
    needs_version: bool,
}

/// A ban that must not be sent.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) line: Option<usize>,
    pub(super) text: String,
    pub(super) refusal: Refusal,
}

#[derive(Debug, Default)]
struct Gathered {
    bans: Vec<Ban>,
    refused: Vec<Refused>,
}

impl Bans {
    /// Reads and examines all bans that the arguments name. Nothing is sent when one of them must
    /// not be.
    ///
    /// # Errors
    /// [`Exit::Usage`], after every reason was said.
    pub(super) fn gather(arguments: &Arguments, nodes: &Nodes) -> Result<Self, Exit> {
        let options = LintOptions {
            everything: arguments.everything,
            allow_slow_regex: arguments.allow_slow_regex,
            version: None,
        };
        let mut gathered = Gathered::default();
        gathered.take_words(arguments, &options);
        gathered.take_urls(arguments, nodes, &options)?;
        let named = !arguments.expressions.is_empty() || !arguments.url.is_empty();
        let are_lines = arguments.file.is_some() || (!named && !io::stdin().is_terminal());
        if are_lines {
            gathered.take_lines(arguments.file.as_deref(), &options)?;
        } else if !named {
            complain("no ban is given: write one, or --url URL, or --file FILE");
            return Err(Exit::Usage);
        }
        if !gathered.refused.is_empty() {
            let output = Output::stdout();
            return Err(refused(output, arguments.output, &gathered.refused));
        }
        if gathered.bans.is_empty() {
            complain("there is no ban in the input: nothing was sent");
            return Err(Exit::Usage);
        }
        if arguments.output == Format::Human {
            warned(&gathered.bans);
        }
        Ok(Self { bans: gathered.bans, are_lines, options })
    }

    /// Why a server of this version must not be sent these bans: it does not know a field.
    pub(super) fn refusals_for(&self, version: ServerVersion) -> Vec<Refused> {
        let options = LintOptions { version: Some(version), ..self.options };
        let mut refused = Vec::new();
        for ban in self.bans.iter().filter(|ban| ban.needs_version) {
            for refusal in ban::lint(&ban.expression, &options).refusals {
                let text = ban.expression.to_string();
                refused.push(Refused { line: ban.line, text, refusal });
            }
        }
        refused
    }

    /// Whether the server's version matters.
    pub(super) fn need_version(&self) -> bool {
        self.bans.iter().any(|ban| ban.needs_version)
    }
}

impl Gathered {
    /// One ban as separate words, as varnishadm takes it, or one ban for each argument. An
    /// argument that holds a blank is a whole ban, since no word of one can hold any.
    fn take_words(&mut self, arguments: &Arguments, options: &LintOptions) {
        let words: Vec<&[u8]> = arguments.expressions.iter().map(|word| word.as_bytes()).collect();
        let Some(first) = words.first() else { return };
        let whole = |text: &[u8]| text.iter().any(|byte| b" \t".contains(byte));
        if words.len() > 1 && !whole(first) {
            let text = words.join(&b' ');
            return self.take(None, &text, ban::parse_words(&words), options);
        }
        for text in words {
            self.take(None, text, ban::parse(text), options);
        }
    }

    fn take_urls(
        &mut self,
        arguments: &Arguments,
        nodes: &Nodes,
        options: &LintOptions,
    ) -> Result<(), Exit> {
        let given = given_headers(arguments)?;
        let reach = if arguments.prefix { Reach::Prefix } else { Reach::Exact };
        for text in &arguments.url {
            let url: HttpUrl = text.parse().map_err(|fault| {
                complain(format_args!("--url {}: {fault}", Untrusted(text)));
                Exit::Usage
            })?;
            let headers = given.clone().or_else(|| {
                let configured = nodes.ban_headers(&url)?;
                let name = HeaderName::new(&configured.url)?;
                Some(BanHeaders { url: name, host: HeaderName::new(&configured.host) })
            });
            let ban = ban::for_url(&url, reach, headers.as_ref());
            self.take(None, text.as_bytes(), ban, options);
        }
        Ok(())
    }

    fn take_lines(&mut self, file: Option<&Path>, options: &LintOptions) -> Result<(), Exit> {
        let file = file.filter(|path| *path != Path::new("-"));
        let text = read(file).map_err(|fault| {
            let name = file.map_or("stdin".into(), Path::to_string_lossy);
            complain(format_args!("{} cannot be read: {fault}", Untrusted(&name)));
            Exit::Usage
        })?;
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii();
            if !line.is_empty() && !line.starts_with(b"#") {
                self.take(Some(number + 1), line, ban::parse(line), options);
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        line: Option<usize>,
        text: &[u8],
        parsed: Result<Expression, Refusal>,
        options: &LintOptions,
    ) {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let expression = match parsed {
            Ok(expression) => expression,
            Err(refusal) => return self.refused.push(Refused { line, text: shown(), refusal }),
        };
        let lint = ban::lint(&expression, options);
        if !lint.refusals.is_empty() {
            let refused = |refusal| Refused { line, text: shown(), refusal };
            return self.refused.extend(lint.refusals.into_iter().map(refused));
        }
        let mut warnings = lint.warnings;
        let all = warnings.len();
        warnings.retain(|warning| !matches!(warning, Warning::NeedsVersion { .. }));
        let needs_version = warnings.len() < all;
        match Command::ban(expression.arguments()) {
            Ok(command) => {
                self.bans.push(Ban { line, expression, command, warnings, needs_version });
            }
            Err(fault) => {
                // What the language lets through and the wire cannot carry.
                complain(format_args!("{}: {fault}", Untrusted(&shown())));
                self.refused.push(Refused { line, text: shown(), refusal: Refusal::Empty });
            }
        }
    }
}

fn given_headers(arguments: &Arguments) -> Result<Option<BanHeaders>, Exit> {
    let header = |name: &String| {
        HeaderName::new(name).ok_or_else(|| {
            complain(format_args!("{} is no name of a header", Untrusted(name)));
            Exit::Usage
        })
    };
    let host = arguments.host_header.as_ref().map(header).transpose()?;
    let url = arguments.url_header.as_ref().map(header).transpose()?;
    Ok(url.map(|url| BanHeaders { url, host }))
}

fn read(file: Option<&Path>) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> = match file {
        Some(path) => Box::new(File::open(path)?),
        None => Box::new(io::stdin().lock()),
    };
    let mut text = Vec::new();
    source.take(LARGEST_INPUT + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST_INPUT) {
        let message = "it is larger than 256 MiB; send it in parts";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}
