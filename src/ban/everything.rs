//! Conditions that always hold, and those that never do.

use pcre2::bytes::Regex;

use super::expression::{Argument, Condition, Expression};
use super::field::Field;
use super::operator::Operator;
use super::pattern::{Pattern, cannot_match_behind};

/// Response headers that practically every object has: `Date` is added by Varnish, the last two
/// are what the documentation calls the copies that a VCL makes for the sake of bans.
const ON_EVERY_OBJECT: [&str; 5] = ["date", "content-type", "server", "x-url", "x-host"];

/// Request headers that practically every request has: varnishd demands `Host` with HTTP/1.1 and
/// adds `X-Forwarded-For`.
const ON_EVERY_REQUEST: [&str; 2] = ["host", "x-forwarded-for"];

/// A year in seconds: no object is kept for so long, or it hardly matters.
const YEAR: f64 = 31_536_000.0;

const PATHS: [&[u8]; 8] = [
    b"/index.html",
    b"/static/js/app.4f3c.js?v=12",
    b"/de/produkte/12345-abc_DEF/",
    b"/?utm_source=x&y=%20+z",
    b"/API/v1/items;jsessionid=0123456789",
    b"/~user/a.b,c:d@e!f'(g)*h",
    b"/wp-content/uploads/2024/01/photo-300x200.jpg",
    b"/x/y/z/x/y/z/x/y/z/x/y/z/x/y/z/x/y/z",
];
const HOSTS: [&[u8]; 5] =
    [b"a", b"www.example.com", b"EXAMPLE.org:8080", b"127.0.0.1", b"[::1]:80"];
const VALUES: [&[u8]; 8] = [
    b"a",
    b"0",
    b"/",
    b"~",
    b"text/html; charset=utf-8",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Apache",
    b"tag-1,tag-2 tag-3",
];

/// A regex of a condition, in the forms that it is asked in.
pub(super) struct Compiled<'a> {
    pub(super) regex: &'a Regex,
    pub(super) pattern: &'a Pattern,
}

/// Why the condition holds for every object; `None` when it does not.
pub(super) fn always_holds(condition: &Condition, regex: Option<&Compiled<'_>>) -> Option<String> {
    let Condition { field, operator, argument } = condition;
    let holds = match (argument, operator, regex) {
        (Argument::Duration(duration), ..) => {
            duration_always_holds(field, *operator, duration.seconds())
        }
        (Argument::Text(_), Operator::Match, Some(compiled)) => match field {
            Field::RequestUrl => matches_every_url(compiled.regex),
            Field::ObjectStatus => matches_every_status(compiled.regex),
            field if looks_at(field, "x-url") => matches_every_url(compiled.regex),
            field if looks_at(field, "x-host") || looks_at(field, "host") => {
                HOSTS.iter().all(|host| matches(compiled.regex, host))
            }
            field => {
                is_everywhere(field) && VALUES.iter().all(|value| matches(compiled.regex, value))
            }
        },
        (Argument::Text(_), Operator::NotMatch, Some(compiled)) => match field {
            Field::ObjectStatus => matches_no_status(compiled.regex),
            field if is_url(field) => cannot_match_behind(compiled.pattern, b'/'),
            field => {
                // `!~ ^$`: no header that is there is empty.
                is_everywhere(field)
                    && (b'!'..=b'~').all(|b| cannot_match_behind(compiled.pattern, b))
            }
        },
        (Argument::Text(text), Operator::NotEqual, _) => match field {
            Field::ObjectStatus => !is_status(text),
            field if is_url(field) => !text.starts_with(b"/"),
            _ => false,
        },
        _ => false,
    };
    holds.then(|| {
        format!("{field} {operator} {} always holds", super::expression::excerpt(argument.bytes()))
    })
}

/// Why the condition holds for no object; `None` when it may.
pub(super) fn never_holds(condition: &Condition, regex: Option<&Compiled<'_>>) -> Option<String> {
    let Condition { field, operator, argument } = condition;
    let Argument::Text(text) = argument else { return None };
    match (operator, regex) {
        (Operator::Equal, _) if is_url(field) && !text.starts_with(b"/") => {
            Some(format!("{field} begins with /, without a scheme and host"))
        }
        (Operator::Match, Some(compiled))
            if is_url(field) && cannot_match_behind(compiled.pattern, b'/') =>
        {
            Some(format!("{field} begins with /, without a scheme and host"))
        }
        (Operator::Equal, _) if *field == Field::ObjectStatus && !is_status(text) => {
            Some("obj.status has three digits".to_owned())
        }
        (Operator::Match, Some(compiled))
            if *field == Field::ObjectStatus && matches_no_status(compiled.regex) =>
        {
            Some("obj.status has three digits".to_owned())
        }
        _ => None,
    }
}

/// Whether every condition only leaves something out.
pub(super) fn only_excludes(expression: &Expression) -> bool {
    expression.conditions().iter().all(|c| c.operator.is_negated())
}

fn duration_always_holds(field: &Field, operator: Operator, seconds: f64) -> bool {
    use Operator::{Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    match (field, operator) {
        // What is left of the TTL is negative only for objects kept beyond it.
        (Field::ObjectTtl | Field::ObjectAge | Field::ObjectLastHit, Greater | GreaterOrEqual) => {
            seconds <= 0.0
        }
        (Field::ObjectGrace | Field::ObjectKeep, GreaterOrEqual) => seconds <= 0.0,
        (Field::ObjectGrace | Field::ObjectKeep, Greater) => seconds < 0.0,
        (_, Less | LessOrEqual) => seconds >= YEAR,
        // A time that runs is never equal to a given one.
        (Field::ObjectTtl | Field::ObjectAge | Field::ObjectLastHit, NotEqual) => true,
        (_, NotEqual) => seconds < 0.0,
        _ => false,
    }
}

fn matches(regex: &Regex, value: &[u8]) -> bool {
    regex.is_match(value).unwrap_or(false)
}

fn matches_every_url(regex: &Regex) -> bool {
    matches(regex, b"/")
        && PATHS.iter().all(|path| matches(regex, path))
        && (b'!'..=b'~').all(|byte| matches(regex, &[b'/', byte]))
}

fn matches_every_status(regex: &Regex) -> bool {
    (200..=599_u16).all(|status| matches(regex, status.to_string().as_bytes()))
}

fn matches_no_status(regex: &Regex) -> bool {
    (100..=999_u16).all(|status| !matches(regex, status.to_string().as_bytes()))
}

fn is_status(text: &[u8]) -> bool {
    text.len() == 3 && text.iter().all(u8::is_ascii_digit) && text.first() != Some(&b'0')
}

fn is_url(field: &Field) -> bool {
    *field == Field::RequestUrl || matches!(field, Field::ObjectHeader(name) if name.is("x-url"))
}

fn looks_at(field: &Field, name: &str) -> bool {
    field.header().is_some_and(|header| header.is(name))
}

fn is_everywhere(field: &Field) -> bool {
    match field {
        Field::ObjectHeader(name) => ON_EVERY_OBJECT.iter().any(|known| name.is(known)),
        Field::RequestHeader(name) => ON_EVERY_REQUEST.iter().any(|known| name.is(known)),
        _ => false,
    }
}
