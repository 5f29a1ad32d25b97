//! Where results and diagnostics go: results to stdout, diagnostics to stderr.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use super::Exit;

pub use crate::model::Untrusted;

/// How a result is written; `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document, with a `schema` number.
    Json,
}

/// How the results of several nodes are written; `--output` of commands that serve nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum NodesFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON document at the end, with a `schema` number.
    Json,
    /// One JSON object a line for each node, in the order of the nodes, each as soon as that node
    /// and all before it are done.
    Jsonl,
}

/// A JSON object on one line, with its line end.
#[must_use]
pub fn json_line(object: &impl Serialize) -> String {
    // What is written here has keys that are texts, and writing to memory does not fail.
    let mut line = serde_json::to_string(object).unwrap_or_default();
    line.push('\n');
    line
}

/// Standard output, buffered, that outlives its reader: once the pipe is closed (`| head`) the
/// rest is dropped quietly, and the command still ends with its own status.
pub struct Output {
    writer: BufWriter<Box<dyn Write + Send>>,
    broken: Option<io::Error>,
}

impl Output {
    /// Results go to standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    fn to(writer: Box<dyn Write + Send>) -> Self {
        Self { writer: BufWriter::new(writer), broken: None }
    }

    /// Writes a text as it is. What came from outside goes through [`Untrusted`] first.
    pub fn text(&mut self, text: impl fmt::Display) {
        if self.broken.is_none() {
            self.broken = write!(self.writer, "{text}").err();
        }
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.broken = self.writer.write_all(bytes).err();
        }
    }

    /// Writes a text and ends the line.
    pub fn line(&mut self, text: impl fmt::Display) {
        self.text(format_args!("{text}\n"));
    }

    /// Writes one JSON document, indented, and ends the line.
    pub fn json(&mut self, document: &impl Serialize) {
        if self.broken.is_some() {
            return;
        }
        let written = serde_json::to_writer_pretty(&mut self.writer, document);
        self.broken = written.map_err(io::Error::from).err();
        self.text("\n");
    }

    /// Hands everything written so far to the reader: for results that come one by one.
    pub fn flush(&mut self) {
        if self.broken.is_none() {
            self.broken = self.writer.flush().err();
        }
    }

    /// Whether nobody reads any more, so that a command without other effects may stop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.broken.is_some()
    }

    /// Ends the output. A reader that went away changes nothing; a result that could not be
    /// written otherwise (a full disk) is said, and is no success.
    #[must_use]
    pub fn finish(mut self, exit: Exit) -> Exit {
        self.flush();
        match self.broken {
            Some(fault) if fault.kind() != io::ErrorKind::BrokenPipe => {
                complain(format_args!("the result cannot be written: {fault}"));
                if exit == Exit::Done { Exit::Usage } else { exit }
            }
            _ => exit,
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("broken", &self.broken).finish_non_exhaustive()
    }
}

/// Writes a diagnostic to stderr, as `purgewatch: TEXT`. Fails silently: there is nobody to tell.
///
/// Nothing in it can steer a terminal: file names and the words of others end up in many a
/// message. They go through [`Untrusted`] where they come in; this is for what was missed.
pub fn complain(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "purgewatch: {}", harmless(&text.to_string()));
}

/// A text of one or several lines that cannot steer a terminal.
fn harmless(text: &str) -> String {
    text.split('\n').map(|line| Untrusted(line).to_string()).collect::<Vec<_>>().join("\n")
}

/// Writes a diagnostic that fails `command`; on GitHub also one that shows at the top of the run.
pub(super) fn fail(command: &str, text: &str) {
    complain(text);
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
        let data = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        complain_verbatim(format_args!("::error title=purgewatch {command}::{data}\n"));
    }
}

/// Writes a text to stderr as it is, for diagnostics with a form of their own.
pub fn complain_verbatim(text: impl fmt::Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// Whether stdout takes colours: it is a terminal that is not `dumb`, and `NO_COLOR` (not empty)
/// is not set (no-color.org).
#[must_use]
pub fn stdout_takes_colour() -> bool {
    takes_colour(io::stdout().is_terminal())
}

/// The same for stderr.
#[must_use]
pub fn stderr_takes_colour() -> bool {
    takes_colour(io::stderr().is_terminal())
}

fn takes_colour(is_terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    is_terminal && !refused && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    fn ends_with(kind: io::ErrorKind, exit: Exit) -> Exit {
        let mut output = Output::to(Box::new(Fails(kind)));
        output.line("x".repeat(100_000));
        output.json(&[1]);
        output.finish(exit)
    }

    #[test]
    fn a_reader_that_went_away_changes_nothing() {
        assert_eq!(ends_with(io::ErrorKind::BrokenPipe, Exit::Done), Exit::Done);
        assert_eq!(ends_with(io::ErrorKind::BrokenPipe, Exit::Stale), Exit::Stale);
    }

    #[test]
    fn a_diagnostic_keeps_its_lines_and_cannot_steer_a_terminal() {
        assert_eq!(harmless("/etc/\u{1b}[2Jx:\nnot found"), "/etc/\\x1b[2Jx:\nnot found");
    }

    #[test]
    fn a_full_disk_is_no_success() {
        assert_eq!(ends_with(io::ErrorKind::StorageFull, Exit::Done), Exit::Usage);
        assert_eq!(ends_with(io::ErrorKind::StorageFull, Exit::Rejected), Exit::Rejected);
    }
}
