//! From a file to a configuration.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{Finding, Kind};
use super::document;
use super::reader::Findings;
use super::{Config, Report};

/// The largest file that is read, in bytes: 16 MiB, which is some 50,000 endpoints.
pub const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// A configuration without faults, and what is odd about it nevertheless.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only; empty as a rule.
    pub warnings: Report,
}

/// Why there is no configuration. The operator's to mend, each one.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`LARGEST_FILE`].
    #[error("{} is larger than 16 MiB, which no configuration is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file has faults. Shown with all of them, on many lines.
    #[error("{0}")]
    Faulty(Report),
}

/// Reads the configuration in a file.
///
/// # Errors
/// [`LoadError`]: all faults of the file at once.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST_FILE) {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let name = path.display().to_string();
    let text = as_text(&name, &bytes).map_err(LoadError::Faulty)?;
    parse(&name, text).map_err(LoadError::Faulty)
}

/// Reads the configuration in a text; `file` is what the diagnostics call it.
///
/// # Errors
/// A [`Report`] with at least one error, and the warnings beside it.
pub fn parse(file: &str, text: &str) -> Result<Loaded, Report> {
    let (table, syntax) = DeTable::parse_recoverable(text);
    let findings = Findings::default();
    let config = document::resolve(&table, &findings);
    let mut findings = findings.into_inner();
    if !syntax.is_empty() {
        let syntax = syntax_findings(text, &syntax);
        findings.retain(|finding| survives(finding, &syntax, text));
        findings.extend(syntax);
    }
    let report = Report::new(file, text, findings);
    match config {
        Some(config) if report.counts().0 == 0 => Ok(Loaded { config, warnings: report }),
        _ => Err(report),
    }
}

/// The bytes as text, or where they are none.
fn as_text<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Report> {
    let fault = |at: usize, message: &str| {
        // What stands before the place is what the position is counted in.
        let before = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
        let span = before.len()..before.len() + 1;
        let shown = format!("{before}\u{fffd}");
        Report::new(file, &shown, vec![Finding::error(Kind::Syntax, span, message)])
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(fault(0, "expected UTF-8, got UTF-16"));
    }
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        return Err(fault(at, "expected text, got a NUL byte: this is no configuration"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        fault(at, &format!("expected UTF-8, got the byte 0x{byte:02x}"))
    })
}

/// What the TOML parser found: of one line the first fault only, since the others follow from it.
fn syntax_findings(text: &str, errors: &[toml::de::Error]) -> Vec<Finding> {
    let mut found: Vec<(usize, Finding)> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            let finding = match error.message() {
                "duplicate key" => {
                    let message = "this key or table stands in the file twice";
                    Finding::error(Kind::Repeated, span, message)
                }
                message if message.starts_with("string values must be quoted") => {
                    unquoted(text, span)
                }
                message if message.starts_with("missing escaped value") => {
                    let finding = Finding::error(Kind::Syntax, span, message);
                    finding.help("between single quotes a backslash stands for itself")
                }
                message => Finding::error(Kind::Syntax, span, message),
            };
            (line_start(text, finding.span.start), finding)
        })
        .collect();
    found.sort_by_key(|(line, finding)| (*line, finding.span.start));
    found.dedup_by_key(|(line, _)| *line);
    found.into_iter().map(|(_, finding)| finding).collect()
}

/// A word where a value belongs, such as `30s`, or nothing at all.
fn unquoted(text: &str, span: Range<usize>) -> Finding {
    let word = text.get(span.clone()).unwrap_or_default().trim();
    if word.is_empty() {
        return Finding::error(Kind::Syntax, span, "expected a value, got none");
    }
    let message = format!("expected a value in quotes, got {word}");
    let finding = Finding::error(Kind::Syntax, span, message);
    finding.help("write it between quotes: \"...\"")
}

/// Whether a finding is to be believed beside these syntax errors. What the parser skipped may
/// seem to be missing, and what it misread seems wrong; values on other lines are as they are.
fn survives(finding: &Finding, syntax: &[Finding], text: &str) -> bool {
    let same_line =
        |f: &Finding| line_start(text, f.span.start) == line_start(text, finding.span.start);
    let understood = syntax.iter().all(|f| f.kind == Kind::Repeated);
    (understood || finding.kind == Kind::Value) && !syntax.iter().any(same_line)
}

fn line_start(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.rfind('\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::EXAMPLE;
    use crate::config::reader::KEYS;

    #[test]
    fn every_key_is_read_where_it_belongs() {
        for (what, keys) in KEYS {
            for key in *keys {
                let report = parse("f", &format!("{what}\n{key} = 1979-05-27\n")).unwrap_err();
                let unknown = |d: &&crate::config::Diagnostic| d.message.contains("unknown key");
                assert_eq!(report.diagnostics().iter().find(unknown), None, "{what} {key}");
            }
        }
    }

    #[test]
    fn a_syntax_error_hides_only_what_may_follow_from_it() {
        let report = parse("f", "[defaults]\ninterval = 30s\ntimeout = 5\n[[node]\n").unwrap_err();
        let lines: Vec<_> = report.diagnostics().iter().map(|d| d.position.line).collect();
        assert_eq!(lines, [2, 3, 4], "{report}");
    }

    proptest! {
        /// Whatever is written, there is an answer: a configuration, or at least one error.
        #[test]
        fn any_text_is_answered(text in "[\\[\\]a-e{}=\"'.,# \n\r\t0-9äß\u{202e}-]{0,200}") {
            answered(&text);
        }

        /// The same for the example with a part of it replaced.
        #[test]
        fn any_damage_is_answered(at in 0..EXAMPLE.len(), cut in 0_usize..80, put in ".{0,8}") {
            let Some(head) = EXAMPLE.get(..at) else { return Ok(()) };
            let tail = EXAMPLE.get(at.saturating_add(cut)..).unwrap_or_default();
            answered(&format!("{head}{put}{tail}"));
        }
    }

    fn answered(text: &str) {
        if let Err(report) = parse("f", text) {
            assert!(report.counts().0 > 0, "refused without a reason: {text:?}");
            assert!(!report.render(true).is_empty());
            let last = text.lines().count().max(1);
            assert!(report.diagnostics().iter().all(|d| (1..=last).contains(&d.position.line)));
        }
    }
}
