//! What is wrong with a configuration, and how that is said.

use std::fmt::{self, Write as _};
use std::ops::Range;

use crate::model::Untrusted;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but hardly does what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing to say about one place of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where it begins.
    pub position: Position,
    /// What was expected and what was found instead. One line, safe to show.
    pub message: String,
    /// What to do about it, where that is known. One line.
    pub help: Option<String>,
    /// Another place that has to do with it, and what stands there.
    pub related: Option<(Position, String)>,
    /// How many characters are marked; 0 when the line is not to be shown.
    width: usize,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// All that there is to say about a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: String,
    diagnostics: Vec<Diagnostic>,
    /// The text of each line that a diagnostic points at, so that a report of a large file does
    /// not keep the file.
    lines: Vec<(usize, String)>,
}

impl Report {
    /// Says `findings` about `source`, the text of `file`.
    pub(super) fn new(file: &str, source: &str, findings: Vec<Finding>) -> Self {
        let index = LineIndex::new(source);
        let mut diagnostics: Vec<_> = findings.into_iter().map(|f| f.located(&index)).collect();
        diagnostics.sort_by_key(|d| (d.position, d.severity));
        diagnostics.dedup();
        let mut lines: Vec<(usize, String)> = Vec::new();
        for line in diagnostics.iter().map(|d| d.position.line) {
            if lines.last().is_none_or(|(last, _)| *last != line) {
                lines.push((line, index.line(line).to_owned()));
            }
        }
        Self { file: Untrusted(file).to_string(), diagnostics, lines }
    }

    /// The file as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Errors and warnings, in the order of their positions.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many errors and how many warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.diagnostics.len() - errors)
    }

    /// One line each, as a log wants them: `FILE:LINE:COLUMN: error: MESSAGE`.
    pub fn one_line_each(&self) -> impl Iterator<Item = (Severity, String)> {
        self.diagnostics.iter().map(|d| {
            let Position { line, column } = d.position;
            let severity = d.severity.as_str();
            (d.severity, format!("{}:{line}:{column}: {severity}: {}", self.file, d.message))
        })
    }

    /// The report as compilers write it, each finding with its line; in colour or plain.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.render_to(&mut text, Paint { colour });
        text
    }

    fn render_to(&self, out: &mut String, paint: Paint) -> fmt::Result {
        for diagnostic in self.diagnostics.iter().take(MOST_SHOWN) {
            self.render_one(out, paint, diagnostic)?;
        }
        let left_out = self.diagnostics.len().saturating_sub(MOST_SHOWN);
        if left_out > 0 {
            writeln!(out, "{}: and {left_out} more", self.file)?;
        }
        Ok(())
    }

    fn render_one(&self, out: &mut String, paint: Paint, d: &Diagnostic) -> fmt::Result {
        let Position { line, column } = d.position;
        let severity = paint.severity(d.severity);
        let message = paint.bold(&d.message);
        writeln!(out, "{}:{line}:{column}: {severity}: {message}", self.file)?;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let at = self.lines.binary_search_by_key(&line, |(number, _)| *number);
        if let Some(at) = at.ok().filter(|_| d.width > 0) {
            let text = self.lines.get(at).map_or("", |(_, text)| text.as_str());
            let excerpt = Excerpt::of(text, column, d.width);
            if !excerpt.text.is_empty() {
                let carets = paint.marks(d.severity, &excerpt.marks);
                writeln!(out, " {number} | {}", excerpt.text)?;
                writeln!(out, " {margin} | {}{carets}", excerpt.indent)?;
            }
        }
        if let Some((at, text)) = &d.related {
            writeln!(out, " {margin} = {}:{}:{}: {text}", self.file, at.line, at.column)?;
        }
        if let Some(help) = &d.help {
            writeln!(out, " {margin} = help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Beyond this many, nobody reads on.
const MOST_SHOWN: usize = 200;

/// The most characters of a line, or of a message, that are shown.
const LONGEST_SHOWN: usize = 200;

/// What kind of finding it is, which decides whether it can be trusted after a syntax error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file is not TOML at this place.
    Syntax,
    /// A key or table that stands there twice: the rest of the file is understood all the same.
    Repeated,
    /// This value is wrong, whatever else the file says.
    Value,
    /// Something is missing, unknown or leads nowhere, as far as the rest was understood.
    Relation,
}

/// A [`Diagnostic`] whose place is still a range of bytes.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
    message: String,
    help: Option<String>,
    related: Option<(Range<usize>, String)>,
    about_the_file: bool,
}

impl Finding {
    pub(super) fn error(kind: Kind, span: Range<usize>, message: impl Into<String>) -> Self {
        let (severity, message) = (Severity::Error, message.into());
        let (help, related, about_the_file) = (None, None, false);
        Self { severity, kind, span, message, help, related, about_the_file }
    }

    /// Something that the file as a whole lacks: no line of it is to blame.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self { about_the_file: true, ..Self::error(Kind::Relation, 0..0, message) }
    }

    pub(super) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(Kind::Relation, span, message) }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.related = Some((span, text.into()));
        self
    }

    fn located(self, index: &LineIndex<'_>) -> Diagnostic {
        let position = index.position(self.span.start);
        let covered = index.source.get(self.span.clone()).unwrap_or_default();
        let width = covered.lines().next().unwrap_or_default().chars().count();
        let confidential = is_confidential(index.line(position.line));
        // What was found instead may be the very thing that nobody else should read.
        let message = match self.message.split_once(", got ") {
            Some((expected, _)) if confidential => expected,
            _ => self.message.as_str(),
        };
        Diagnostic {
            severity: self.severity,
            position,
            message: shown(message),
            help: self.help.as_deref().map(shown),
            related: self.related.map(|(span, text)| (index.position(span.start), shown(&text))),
            width: if confidential || self.about_the_file { 0 } else { width.max(1) },
        }
    }
}

/// Whether a line may hold a secret, put there by mistake or as a request header: such a line is
/// pointed at, but not shown.
fn is_confidential(line: &str) -> bool {
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let in_url = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    let in_table = value.contains('{') && names_a_secret(value);
    in_url || in_table || names_a_secret(key)
}

/// Whether what is called so tends to be a secret: `Authorization`, `X-Api-Key`, `password`.
pub(super) fn names_a_secret(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "secret",
        "passw",
        "token",
        "credential",
        "auth",
        "cookie",
        "api-key",
        "api_key",
        "apikey",
    ];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// A text as it may be shown: no controls, and no longer than anybody reads.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(2 * LONGEST_SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    Untrusted(&short).to_string()
}

/// Where each line begins.
pub(super) struct LineIndex<'s> {
    source: &'s str,
    starts: Vec<usize>,
}

impl<'s> LineIndex<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        let ends = source.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(at, _)| at + 1);
        Self { source, starts: std::iter::once(0).chain(ends).collect() }
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        // Something missing at the very end is shown at the end of the last line that has text.
        let offset =
            if offset >= self.source.len() { self.source.trim_end().len() } else { offset };
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        let before = self.source.get(start..offset).unwrap_or_default();
        let before = if start == 0 { before.trim_start_matches('\u{feff}') } else { before };
        Position { line: line.max(1), column: before.chars().count() + 1 }
    }

    fn line(&self, number: usize) -> &'s str {
        let start = number.checked_sub(1).and_then(|at| self.starts.get(at));
        let rest = start.and_then(|&start| self.source.get(start..)).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        if number == 1 { line.trim_start_matches('\u{feff}') } else { line }
    }
}

/// The part of a line that is shown, and the marks below it.
struct Excerpt {
    text: String,
    indent: String,
    marks: String,
}

impl Excerpt {
    fn of(line: &str, column: usize, width: usize) -> Self {
        let before = column.saturating_sub(1);
        // A long line is shown from a little before the place in question.
        let skipped = if before > LONGEST_SHOWN / 2 { before - LONGEST_SHOWN / 4 } else { 0 };
        let part: String = line.chars().skip(skipped).take(LONGEST_SHOWN).collect();
        let lead = if skipped > 0 { "…" } else { "" };
        let tail = if line.chars().nth(skipped + LONGEST_SHOWN).is_some() { "…" } else { "" };
        // A tab stays one character wide, so that the marks stand below what they mean.
        let part = part.replace('\t', " ");
        let text = format!("{lead}{}{tail}", Untrusted(&part));
        let kept: String = part.chars().take(before - skipped).collect();
        let indent = lead.chars().count() + Untrusted(&kept).to_string().chars().count();
        let room = part.chars().count().saturating_sub(before - skipped).max(1);
        let marks = "^".repeat(width.clamp(1, room));
        Self { text: text.trim_end().to_owned(), indent: " ".repeat(indent), marks }
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn severity(self, severity: Severity) -> String {
        self.marks(severity, severity.as_str())
    }

    fn marks(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Error => self.wrap("1;31", text),
            Severity::Warning => self.wrap("1;33", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(source: &str, span: Range<usize>) -> Report {
        Report::new("a.toml", source, vec![Finding::error(Kind::Value, span, "wrong")])
    }

    #[test]
    fn points_at_the_place() {
        let source = "ä = 1\nname = \"\u{1b}x\"\n";
        let at = source.find('"').unwrap();
        let rendered = report(source, at..at + 4).to_string();
        let expected = "a.toml:2:8: error: wrong\n 2 | name = \"\\x1bx\"\n   |        ^^^^\n";
        assert_eq!(rendered, expected);
    }

    #[test]
    fn a_line_with_a_secret_is_not_shown() {
        for source in [
            "secret = \"hunter2\"",
            "password = hunter2",
            "secret_file = \"hunter2\"",
            "headers = { Authorization = \"Bearer hunter2\\n\" }",
            "url = \"http://user:hunter2@host/\"",
        ] {
            let finding = Finding::error(Kind::Value, 0..6, "expected x, got \"hunter2\"");
            let report = Report::new("a.toml", source, vec![finding]);
            assert_eq!(report.to_string(), "a.toml:1:1: error: expected x\n");
        }
        assert!(!is_confidential("name = \"token\""));
    }

    #[test]
    fn the_end_of_a_file_is_a_place() {
        let report = report("a = [\n\n\n", 8..8);
        assert_eq!(report.diagnostics()[0].position, Position { line: 1, column: 6 });
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let source = format!("x = \"{}\" ", "y".repeat(5_000));
        let rendered = report(&source, 4_000..4_001).to_string();
        assert!(rendered.lines().all(|line| line.chars().count() < 230), "{rendered}");
        let marks = rendered.lines().nth(2).unwrap();
        let text = rendered.lines().nth(1).unwrap();
        assert_eq!(text.chars().nth(marks.chars().position(|c| c == '^').unwrap()), Some('y'));
    }

    #[test]
    fn findings_are_sorted_by_place() {
        let finding = |at: usize| Finding::error(Kind::Value, at..at + 1, "wrong");
        let report = Report::new("f", "a\nb\nc\n", vec![finding(4), finding(0), finding(2)]);
        let lines: Vec<_> = report.diagnostics().iter().map(|d| d.position.line).collect();
        assert_eq!(lines, [1, 2, 3]);
        assert_eq!(report.counts(), (3, 0));
    }
}
