//! What is dangerous, costly or hardly meant in a ban that is well-formed.

use pcre2::bytes::{Regex, RegexBuilder};

use super::everything::{Compiled, always_holds, never_holds, only_excludes};
use super::expression::{Condition, Expression, Printable, excerpt};
use super::field::Field;
use super::operator::Operator;
use super::pattern::{Hazard, Pattern, Verdict, is_plain, judge};
use super::refusal::Refusal;
use super::version::ServerVersion;
use super::warning::Warning;

/// What the one who sends a ban has said beforehand.
#[derive(Debug, Clone, Copy, Default)]
pub struct LintOptions {
    /// A ban that matches everything is meant.
    pub everything: bool,
    /// A regex that can backtrack without end is sent all the same.
    pub allow_slow_regex: bool,
    /// The server's version. When it is not known, every field is allowed, and those that not all
    /// versions know are warned about.
    pub version: Option<ServerVersion>,
}

/// What there is to say about a ban.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lint {
    /// Why it must not be sent; nothing when it may.
    pub refusals: Vec<Refusal>,
    /// What should be said about it.
    pub warnings: Vec<Warning>,
}

/// Examines a ban.
///
/// Takes a few microseconds for a usual one and a few milliseconds for a regex of 100 kB.
#[must_use]
pub fn lint(expression: &Expression, options: &LintOptions) -> Lint {
    let mut lint = Lint::default();
    let mut always = Vec::new();
    for condition in expression.conditions() {
        always.push(lint_condition(condition, options, &mut lint));
    }
    let reasons: Option<Vec<String>> = always.into_iter().collect();
    match reasons {
        Some(reasons) => {
            if !options.everything {
                lint.refusals.push(Refusal::Everything { because: reasons.join(" and ") });
            }
        }
        None if only_excludes(expression) => {
            lint.warnings
                .push(Warning::NearlyEverything { conditions: excerpt(&expression.to_bytes()) });
        }
        None => {}
    }
    lint
}

/// Examines one condition; returns why it always holds, if it does.
fn lint_condition(condition: &Condition, options: &LintOptions, lint: &mut Lint) -> Option<String> {
    let Condition { field, operator, argument } = condition;
    let text = argument.bytes();
    lint_field(condition, options, lint);
    if !operator.takes_regex() {
        if text.contains(&b'\\') {
            lint.warnings.push(Warning::LiteralBackslash { argument: excerpt(text) });
        }
        let tag = field.header().is_some_and(|name| name.is("etag") || name.is("if-none-match"));
        if !tag && matches!(text, [b'"', .., b'"']) {
            lint.warnings.push(Warning::LiteralQuotes { argument: excerpt(text) });
        }
        warn_if_never(never_holds(condition, None), lint);
        return always_holds(condition, None);
    }
    lint_spelling(text, lint);
    if is_plain(text) && *field != Field::ObjectStatus {
        // A plain text needs a look only where it can be what no URL begins with.
        if matches!(text, [b'^', b'/', ..]) || !text.starts_with(b"^") {
            return None;
        }
    }
    let regex = match compile(text) {
        Ok(regex) => regex,
        Err(refusal) => {
            lint.refusals.push(refusal);
            return None;
        }
    };
    let pattern = Pattern::read(text);
    if let Some(hazard) = pattern.hazard.clone() {
        let pattern = excerpt(text);
        match hazard {
            Hazard::Option(option) => {
                lint.refusals.push(Refusal::RegexOption { pattern, option });
            }
            Hazard::Recursion(construct) if !options.allow_slow_regex => {
                lint.refusals.push(Refusal::RecursiveRegex { pattern, construct });
            }
            Hazard::Recursion(_) => {}
        }
        // Matching it may go wrong here as well.
        return None;
    }
    let compiled = Compiled { regex: &regex, pattern: &pattern };
    let never = never_holds(condition, Some(&compiled));
    let always = always_holds(condition, Some(&compiled));
    warn_if_never(never, lint);
    match judge(pattern) {
        Verdict::Fine => {}
        Verdict::Slow { length } => {
            lint.warnings.push(Warning::SlowRegex { pattern: excerpt(text), length });
        }
        Verdict::Catastrophic(growth) => {
            if !options.allow_slow_regex {
                lint.refusals.push(Refusal::SlowRegex { pattern: excerpt(text), growth });
            }
        }
    }
    always
}

fn warn_if_never(because: Option<String>, lint: &mut Lint) {
    if let Some(because) = because {
        lint.warnings.push(Warning::MatchesNothing { because });
    }
}

fn lint_field(condition: &Condition, options: &LintOptions, lint: &mut Lint) {
    let Condition { field, operator, .. } = condition;
    if let Some(since) = field.since() {
        let name = || field.to_string();
        match options.version {
            None => lint.warnings.push(Warning::NeedsVersion { field: name(), since }),
            Some(version) if version < since => {
                lint.refusals.push(Refusal::FieldTooNew { field: name(), since, version });
            }
            Some(_) => {}
        }
    }
    if field.is_request() {
        lint.warnings.push(Warning::RequestField { field: field.to_string() });
    }
    let may_be_absent = field.header().is_some_and(|name| !name.is("host"));
    match operator {
        Operator::NotEqual if may_be_absent => {
            lint.warnings.push(Warning::AbsentHeader { field: field.to_string() });
        }
        Operator::NotMatch if may_be_absent && options.version.is_none() => {
            lint.warnings.push(Warning::AbsentHeaderByVersion { field: field.to_string() });
        }
        _ => {}
    }
}

/// A dot that is hardly meant for any character, and backslashes doubled as for varnishadm.
fn lint_spelling(pattern: &[u8], lint: &mut Lint) {
    let mut dot_seen = false;
    let mut doubled_seen = false;
    let mut in_class = false;
    let mut at = 0;
    // The literal letter or digit before, if that is what it is.
    let mut before: Option<u8> = None;
    while let Some(&byte) = pattern.get(at) {
        let next = pattern.get(at + 1).copied();
        match byte {
            b'\\' => {
                let escaped = pattern.get(at + 2).copied();
                if next == Some(b'\\') && !doubled_seen && escaped.is_some_and(is_usually_escaped) {
                    doubled_seen = true;
                    let escape = pattern.get(at..at + 3).unwrap_or_default();
                    lint.warnings.push(Warning::DoubledBackslash {
                        pattern: excerpt(pattern),
                        escape: Printable(escape).to_string(),
                    });
                }
                at += 1;
                before = None;
            }
            b'[' if !in_class => {
                in_class = true;
                // A bracket that comes first belongs to the class.
                let skip = usize::from(next == Some(b'^'));
                if pattern.get(at + 1 + skip) == Some(&b']') {
                    at += 1 + skip;
                }
                before = None;
            }
            b']' if in_class => in_class = false,
            b'.' if !in_class => {
                if let (Some(left), Some(right), false) = (before, next, dot_seen) {
                    if right.is_ascii_alphanumeric() {
                        dot_seen = true;
                        lint.warnings.push(Warning::UnescapedDot {
                            pattern: excerpt(pattern),
                            around: Printable(&[left, b'.', right]).to_string(),
                        });
                    }
                }
                before = None;
            }
            _ => before = (byte.is_ascii_alphanumeric() && !in_class).then_some(byte),
        }
        at += 1;
    }
}

fn is_usually_escaped(byte: u8) -> bool {
    byte.is_ascii_punctuation() && byte != b'\\'
        || matches!(byte, b'd' | b'w' | b's' | b'b' | b'D' | b'W' | b'S')
}

/// Compiles a regex as varnishd does: bytes, no options, no UTF.
fn compile(pattern: &[u8]) -> Result<Regex, Refusal> {
    // The library takes text only; what is none is written as escapes, which mean the same.
    let text = match std::str::from_utf8(pattern) {
        Ok(text) => text.to_owned(),
        Err(_) => pattern.iter().fold(String::new(), |text, &byte| match byte {
            0x80.. => format!("{text}\\x{byte:02x}"),
            _ => text + char::from(byte).encode_utf8(&mut [0; 4]),
        }),
    };
    RegexBuilder::new().build(&text).map_err(|error| {
        let whole = error.to_string();
        // "PCRE2: error compiling pattern at offset 3: what is wrong"
        let reason = whole.splitn(3, ": ").last().unwrap_or(&whole).to_owned();
        Refusal::Regex { pattern: excerpt(pattern), reason, offset: error.offset() }
    })
}
