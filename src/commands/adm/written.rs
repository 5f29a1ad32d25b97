//! How an answer is written.

use std::fmt;
use std::io::{self, IsTerminal as _};

use crate::commands::output::{Output, Untrusted};
use crate::protocol::{Reply, Status};

/// The form of an answer on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// The text and a line end, byte for byte: a program reads it.
    Plain,
    /// The same for a terminal, which no byte of it can steer.
    Shown,
    /// varnishadm's `-p`: a line with status and length, then the text and no line end.
    AsSent,
}

impl Style {
    /// The form without `-p`.
    pub(super) fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Shown } else { Self::Plain }
    }
}

/// Writes one answer.
pub(super) fn write(output: &mut Output, style: Style, reply: &Reply) {
    match style {
        Style::Plain => {
            output.bytes(&reply.body);
            output.text("\n");
        }
        Style::Shown => output.line(Harmless(&reply.body)),
        Style::AsSent => {
            output.text(format_args!("{:<3} {:<8}\n", reply.status, reply.body.len()));
            output.bytes(&reply.body);
        }
    }
    if reply.status == Status::TRUNCATED && style != Style::AsSent {
        output.line("[response was truncated]");
    }
}

/// A text of several lines for a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Harmless<'a>(pub(super) &'a [u8]);

impl fmt::Display for Harmless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        for (n, line) in text.split('\n').enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            for (n, cell) in line.split('\t').enumerate() {
                if n > 0 {
                    f.write_str("\t")?;
                }
                Untrusted(cell).fmt(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Harmless;

    #[test]
    fn lines_and_tabs_stay_and_nothing_steers() {
        let shown = Harmless(b"a\tb\nc\x1b[2J\xff\r\n").to_string();
        assert_eq!(shown, "a\tb\nc\\x1b[2J\u{fffd}\\r\n");
    }
}
