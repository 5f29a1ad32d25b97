//! What is dangerous, costly or hardly meant in a ban that is well-formed.

use pcre2::bytes::{Regex, RegexBuilder};

use super::everything::{Compiled, always_holds, never_holds, only_excludes};
use super::expression::{Condition, Expression, Printable, excerpt};
use super::field::Field;
use super::matching::as_text;
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
        Some(_) if options.everything => {}
        Some(reasons) => {
            lint.refusals.push(Refusal::Everything { because: reasons.join(" and ") });
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
                if let (Some(left), Some(right), false) = (before, next, dot_seen)
                    && right.is_ascii_alphanumeric()
                {
                    dot_seen = true;
                    lint.warnings.push(Warning::UnescapedDot {
                        pattern: excerpt(pattern),
                        around: Printable(&[left, b'.', right]).to_string(),
                    });
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
    // The library takes text only.
    RegexBuilder::new().build(&as_text(pattern)).map_err(|error| {
        let whole = error.to_string();
        // "PCRE2: error compiling pattern at offset 3: what is wrong"
        let reason = whole.splitn(3, ": ").last().unwrap_or(&whole).to_owned();
        Refusal::Regex { pattern: excerpt(pattern), reason, offset: error.offset() }
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn linted(text: &str, options: &LintOptions) -> (Vec<&'static str>, Vec<&'static str>) {
        let lint = lint(&parse(text.as_bytes()).expect(text), options);
        let refusals = lint.refusals.iter().map(Refusal::code).collect();
        (refusals, lint.warnings.iter().map(Warning::code).collect())
    }

    fn refusals(text: &str) -> Vec<&'static str> {
        linted(text, &LintOptions::default()).0
    }

    fn warnings(text: &str) -> Vec<&'static str> {
        linted(text, &LintOptions::default()).1
    }

    #[test]
    fn bytes_that_are_no_text_are_taken_as_varnish_takes_them() {
        let matches = |pattern: &[u8], value| compile(pattern).unwrap().is_match(value).unwrap();
        assert!(matches(b"^a\\\xff$", b"a\xff"), "an escaped byte");
        assert!(matches(b"^\\Qa\xff(\\Eb$", b"a\xff(b"), "a quotation");
        assert!(compile(b"a\xff(").is_err());
    }

    #[test]
    fn refuses_what_matches_everything() {
        for text in [
            "req.url ~ .",
            "req.url ~ /",
            "req.url ~ ^/",
            "req.url ~ .*",
            "req.url ~ ^",
            "req.url ~ $",
            "req.url ~ ^.*$",
            "req.url ~ ^/.*",
            "req.url ~ (.*)",
            "req.url ~ [^x]|x",
            "req.url ~ foo|",
            "req.url ~ ^/|foo",
            "req.url ~ \\S",
            "req.url ~ ^/($|[^\\x00])",
            "req.url !~ ^$",
            "req.url !~ ^foo",
            "req.url != foo",
            "req.http.host ~ .",
            "req.http.Host ~ ^.+$",
            "req.http.host !~ ^$",
            "obj.status != 0",
            "obj.status != 2000",
            "obj.status ~ .",
            "obj.status ~ ^[1-5]",
            "obj.status ~ \\d{3}",
            "obj.status !~ ^9",
            "obj.http.x-url ~ .",
            "obj.http.X-URL ~ ^/",
            "obj.http.x-host ~ .",
            "obj.http.content-type ~ .",
            "obj.http.date !~ ^$",
            "obj.age >= 0s",
            "obj.age > 0s",
            "obj.age > -1s",
            "obj.age < 100y",
            "obj.age != 5s",
            "obj.ttl > 0s",
            "obj.ttl != 5s",
            "obj.grace >= 0s",
            "obj.keep > -1s",
            "obj.last_hit >= 0s",
            "obj.age >= 0s && req.url ~ .",
        ] {
            let expected =
                if text.starts_with("obj.status !~ ^9") { vec![] } else { vec!["everything"] };
            assert_eq!(refusals(text), expected, "{text}");
            let meant = LintOptions { everything: true, ..LintOptions::default() };
            assert_eq!(linted(text, &meant).0, Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn passes_what_does_not_match_everything() {
        for text in [
            "req.url ~ ^/.",
            "req.url ~ ^/a",
            "req.url ~ a",
            "req.url ~ ^/$",
            "req.url ~ \\?",
            "req.url !~ ^/static/",
            "req.url != /",
            "req.http.host ~ example",
            "req.http.x-tenant ~ .",
            "req.http.host == example.com && req.url ~ .",
            "obj.http.set-cookie ~ .",
            "obj.http.x-tag !~ ^$",
            "obj.status != 200",
            "obj.status ~ ^[45]",
            "obj.age > 1s",
            "obj.age < 1d",
            "obj.ttl < 0s",
            "obj.ttl > 1h",
            "obj.grace > 0s",
            "obj.grace != 10s",
            "obj.status == 200 && obj.http.x-url ~ .",
        ] {
            assert_eq!(refusals(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn refuses_regexes_that_do_not_compile_or_crash() {
        for (text, expected) in [
            ("req.url ~ (", "regex"),
            ("req.url ~ *", "regex"),
            ("req.url ~ a{2,1}", "regex"),
            ("req.url ~ [z-a]", "regex"),
            ("req.url ~ a\\", "regex"),
            ("req.url ~ ^/(a+)+$", "slow-regex"),
            ("obj.http.x !~ ^/(a|b|ab)*c$", "slow-regex"),
            ("req.url ~ (*UTF)a", "regex-option"),
            ("req.url ~ (*UTF8)a", "regex-option"),
            ("req.url ~ (*UCP)(*LIMIT_MATCH=1)a", "regex-option"),
            ("req.url ~ (*LIMIT_DEPTH=1)a", "regex-option"),
            ("req.url ~ (*LIMIT_HEAP=1)a", "regex-option"),
            ("req.url ~ (?R)?a", "recursive-regex"),
            ("req.url ~ ((?1)|a)", "recursive-regex"),
            ("req.url ~ (?<n>a|\\g<n>)b", "recursive-regex"),
            ("req.url ~ (?<n>a|(?&n))b", "recursive-regex"),
        ] {
            assert_eq!(refusals(text), [expected], "{text}");
        }
        let allowed = LintOptions { allow_slow_regex: true, ..LintOptions::default() };
        assert_eq!(linted("req.url ~ ^/(a+)+$", &allowed).0, Vec::<&str>::new());
        assert_eq!(linted("req.url ~ (*UTF)a", &allowed).0, ["regex-option"]);
    }

    #[test]
    fn warns_of_what_may_not_be_meant() {
        for (text, expected) in [
            ("obj.http.x-url == /a", &[][..]),
            ("obj.http.x-url ~ ^/a\\.html$", &[]),
            ("obj.http.x-url ~ ^/a.*b$", &[]),
            ("obj.http.x-url ~ ^/[.a]b", &[]),
            ("obj.http.x-url ~ \\d.x", &[]),
            ("req.url == /a", &["request-field"]),
            ("req.http.host == h && req.url == /a", &["request-field", "request-field"]),
            ("obj.http.x-url ~ ^/a.html$", &["unescaped-dot"]),
            ("obj.http.x-host ~ ^www.example\\.com", &["unescaped-dot"]),
            ("obj.http.x-url ~ ^/a\\\\.html$", &["doubled-backslash"]),
            ("obj.http.x-url ~ ^/\\\\d+$", &["doubled-backslash"]),
            ("obj.http.x-url == /a\\.html", &["literal-backslash"]),
            ("obj.http.x == \"a\"", &["literal-quotes"]),
            ("obj.http.etag == \"a\"", &[]),
            ("obj.http.x-url == a", &["matches-nothing"]),
            ("obj.http.x-url ~ ^http://", &["matches-nothing"]),
            ("obj.http.x-url ~ ^a", &["matches-nothing"]),
            ("obj.status == 99", &["matches-nothing"]),
            ("obj.status ~ ^20000", &["matches-nothing"]),
            ("obj.http.x != a && obj.status == 200", &["absent-header"]),
            ("obj.http.x !~ a && obj.status == 200", &["absent-header-by-version"]),
            ("obj.status != 200", &["nearly-everything"]),
            ("obj.http.x-url ~ ^/.*/.*\\.html$", &["slow-on-long-values"]),
            ("obj.age > 1h", &["needs-version"]),
        ] {
            assert_eq!(warnings(text), expected, "{text}");
        }
    }

    #[test]
    fn knows_fields_by_version() {
        let at = |major, minor| LintOptions {
            version: Some(ServerVersion::new(major, minor)),
            ..LintOptions::default()
        };
        let age = "obj.age > 1h";
        assert_eq!(linted(age, &at(6, 0)), (vec!["field-too-new"], vec![]));
        assert_eq!(linted(age, &at(7, 1)), (vec![], vec![]));
        assert_eq!(linted("obj.last_hit > 1h", &at(7, 7)).0, ["field-too-new"]);
        assert_eq!(linted("obj.last_hit > 1h", &at(8, 0)).0, Vec::<&str>::new());
        assert_eq!(linted("obj.hfm == true", &at(9, 0)).0, ["field-too-new"]);
    }

    #[test]
    fn says_why_and_how_to_go_on() {
        let message = |text: &str| {
            lint(&parse(text.as_bytes()).unwrap(), &LintOptions::default())
                .refusals
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            message("req.url ~ ("),
            "\"(\" is no regex that Varnish can use: missing closing parenthesis at offset 1"
        );
        assert_eq!(
            message("req.url ~ ."),
            "this ban matches everything (req.url ~ . always holds): the whole cache would be \
             fetched again; pass --everything if that is meant"
        );
    }

    #[test]
    fn bytes_that_are_no_text_compile() {
        let ban = parse(b"obj.http.x ~ ^caf\xe9.$").unwrap();
        assert_eq!(lint(&ban, &LintOptions::default()), Lint::default());
        let ban = parse(b"obj.http.x ~ \xe9(").unwrap();
        assert_eq!(lint(&ban, &LintOptions::default()).refusals[0].code(), "regex");
    }
}
