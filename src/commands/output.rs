//! Where results and diagnostics go: results to stdout, diagnostics to stderr.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use super::Exit;

/// How a result is written; `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document, with a `schema` number.
    Json,
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
pub fn complain(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "purgewatch: {text}");
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

/// A text from outside (a reply, a header, a file), made safe to show: characters that move the
/// cursor, change colours or reverse the direction of writing are printed as escapes. Line ends
/// are, too: one text stays one line.
#[derive(Debug, Clone, Copy)]
pub struct Untrusted<'a>(pub &'a str);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clean = 0;
        for (at, c) in self.0.char_indices().filter(|&(_, c)| is_unsafe(c)) {
            f.write_str(self.0.get(clean..at).unwrap_or_default())?;
            match c {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
            clean = at + c.len_utf8();
        }
        f.write_str(self.0.get(clean..).unwrap_or_default())
    }
}

/// Controls (C0, DEL, C1), line and paragraph separators, and the marks that change the direction
/// of writing (Unicode Standard Annex 9, section 2).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
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
    fn a_full_disk_is_no_success() {
        assert_eq!(ends_with(io::ErrorKind::StorageFull, Exit::Done), Exit::Usage);
        assert_eq!(ends_with(io::ErrorKind::StorageFull, Exit::Rejected), Exit::Rejected);
    }

    #[test]
    fn untrusted_text_cannot_steer_a_terminal() {
        let shown = |text: &str| Untrusted(text).to_string();
        assert_eq!(shown("plain äöü 日本"), "plain äöü 日本");
        assert_eq!(shown("a\x1b[2Jb\x07\u{9b}1m"), "a\\x1b[2Jb\\x07\\u{9b}1m");
        assert_eq!(shown("200 OK\r\n\tspoof"), "200 OK\\r\\n\\tspoof");
        assert_eq!(shown("\u{202e}gnp.exe\u{2028}"), "\\u{202e}gnp.exe\\u{2028}");
    }
}
