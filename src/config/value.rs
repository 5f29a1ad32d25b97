//! Readers of single values: each returns what is meant, or notes what was expected and got.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Finding, Kind, names_a_secret};
use super::reader::{Findings, Value};
use crate::model::parse_duration;
use crate::verdict::{Compare, CompareError};

/// What a value is, in words.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Notes that a value is of another type than expected.
pub(super) fn mistyped(value: &Value<'_>, findings: &Findings, expected: &str) {
    let got = kind_of(value.get_ref());
    findings.wrong(value.span(), format!("expected {expected}, got {got}"));
}

/// A string.
pub(super) fn text<'t>(value: &'t Value<'t>, findings: &Findings) -> Option<&'t str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        mistyped(value, findings, "a string");
    }
    text
}

/// A string that a type reads by itself; what the type says is the message.
pub(super) fn parsed<T>(value: &Value<'_>, findings: &Findings) -> Option<T>
where
    T: FromStr,
    T::Err: std::error::Error,
{
    named(value, findings, T::from_str)
}

/// A string that a function reads.
pub(super) fn named<T, E: std::error::Error>(
    value: &Value<'_>,
    findings: &Findings,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    match read(text(value, findings)?) {
        Ok(read) => Some(read),
        Err(error) => {
            findings.wrong(value.span(), with_sources(&error));
            None
        }
    }
}

/// A duration within a range, such as `"30s"`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Value<'_>, &Findings) -> Option<Duration> {
    move |value, findings| {
        if let DeValue::Integer(number) = value.get_ref() {
            let message = format!(
                "expected a duration such as \"30s\", got the number {} without a unit",
                number.as_str()
            );
            findings.wrong(value.span(), message);
            return None;
        }
        if !value.get_ref().is_str() {
            mistyped(value, findings, "a duration such as \"30s\"");
            return None;
        }
        let duration = named(value, findings, parse_duration)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let got = value.get_ref().as_str().unwrap_or_default();
        let message = format!(
            "expected a duration from {} to {}, got {got}",
            written(*range.start()),
            written(*range.end())
        );
        findings.wrong(value.span(), message);
        None
    }
}

/// A duration as it is written in a configuration.
pub(super) fn written(duration: Duration) -> String {
    const UNITS: &[(u128, &str)] =
        &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let millis = duration.as_millis();
    let fits = |&&(unit, _): &&(u128, &str)| millis > 0 && millis.is_multiple_of(unit);
    UNITS
        .iter()
        .find(fits)
        .map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", millis / unit))
}

/// A size in bytes within a range: an integer, or a string such as `"16MiB"`.
pub(super) fn size(
    range: RangeInclusive<u64>,
) -> impl FnOnce(&Value<'_>, &Findings) -> Option<u64> {
    move |value, findings| {
        let (size, got) = match value.get_ref() {
            DeValue::Integer(number) => {
                (u64::from_str_radix(number.as_str(), number.radix()).ok(), number.to_string())
            }
            DeValue::String(text) => (parse_size(text), format!("{text:?}")),
            _ => {
                mistyped(value, findings, "a size such as \"16MiB\"");
                return None;
            }
        };
        let size = size.filter(|size| range.contains(size));
        if size.is_none() {
            let message = format!(
                "expected a size such as \"512KiB\" or \"16MiB\", from {} to {} bytes, got {got}",
                range.start(),
                range.end()
            );
            findings.wrong(value.span(), message);
        }
        size
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A whole number within a range.
pub(super) fn whole(
    range: RangeInclusive<usize>,
) -> impl FnOnce(&Value<'_>, &Findings) -> Option<usize> {
    move |value, findings| {
        let DeValue::Integer(number) = value.get_ref() else {
            mistyped(value, findings, "an integer");
            return None;
        };
        let read = usize::from_str_radix(number.as_str(), number.radix()).ok();
        let read = read.filter(|read| range.contains(read));
        if read.is_none() {
            let (from, to) = (range.start(), range.end());
            let message = format!("expected an integer from {from} to {to}, got {number}");
            findings.wrong(value.span(), message);
        }
        read
    }
}

/// A number, with a fraction or not, within a range.
pub(super) fn number(
    range: RangeInclusive<f64>,
) -> impl FnOnce(&Value<'_>, &Findings) -> Option<f64> {
    move |value, findings| {
        let (read, got) = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => {
                (number.as_str().parse::<f64>().ok(), number.to_string())
            }
            DeValue::Float(number) => (number.as_str().parse::<f64>().ok(), number.to_string()),
            _ => {
                mistyped(value, findings, "a number");
                return None;
            }
        };
        let read = read.filter(|read| range.contains(read));
        if read.is_none() {
            let (from, to) = (range.start(), range.end());
            findings
                .wrong(value.span(), format!("expected a number from {from} to {to}, got {got}"));
        }
        read
    }
}

/// An absolute path: a daemon's working directory is not the operator's.
pub(super) fn absolute_path(value: &Value<'_>, findings: &Findings) -> Option<PathBuf> {
    let text = text(value, findings)?;
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Some(path);
    }
    findings.wrong(value.span(), format!("expected an absolute path, got {text:?}"));
    None
}

/// An address to listen on.
pub(super) fn socket_address(
    value: &Value<'_>,
    findings: &Findings,
    expected: &str,
    examples: &str,
) -> Option<SocketAddr> {
    let text = text(value, findings)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let message = format!("expected {expected}, got {text:?}");
        let finding = Finding::error(Kind::Value, value.span(), message);
        findings.add(finding.help(format!("for example {examples}")));
    }
    parsed
}

/// What varnishd's `-n` takes: an absolute path, or a name.
pub(super) fn instance(value: &Value<'_>, findings: &Findings) -> Option<PathBuf> {
    let text = text(value, findings)?;
    let climbs = Path::new(text).components().any(|part| part == Component::ParentDir);
    if !text.is_empty() && !climbs && !text.chars().any(char::is_control) {
        return Some(PathBuf::from(text));
    }
    let message = format!("expected a work directory or the name of an instance, got {text:?}");
    let finding = Finding::error(Kind::Value, value.span(), message);
    findings.add(finding.help("write what varnishd's -n has"));
    None
}

/// The name of a systemd credential, which is a file name (systemd.exec(5)).
pub(super) fn credential(value: &Value<'_>, findings: &Findings) -> Option<String> {
    credential_or(value, findings, "secret_file")
}

/// The name of a systemd credential; `file_key` is the key for a path in its place.
pub(super) fn credential_or(
    value: &Value<'_>,
    findings: &Findings,
    file_key: &str,
) -> Option<String> {
    let text = text(value, findings)?;
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    if !text.is_empty() && text.len() <= 255 && text.chars().all(fits) && !text.starts_with('.') {
        return Some(text.to_owned());
    }
    let message = format!("expected the name of a systemd credential, got {text:?}");
    let finding = Finding::error(Kind::Value, value.span(), message);
    findings.add(finding.help(format!("for a path, use `{file_key}`")));
    None
}

/// A `compare` rule.
pub(super) fn compare(value: &Value<'_>, findings: &Findings) -> Option<Compare> {
    match text(value, findings)?.parse() {
        Ok(compare) => Some(compare),
        Err(fault) => {
            let fault: CompareError = fault;
            findings.wrong(value.span(), fault.to_string());
            None
        }
    }
}

/// The name of a header, as written.
pub(super) fn header_name(value: &Value<'_>, findings: &Findings) -> Option<String> {
    let text = text(value, findings)?;
    if HeaderName::from_str(text).is_ok() {
        return Some(text.to_owned());
    }
    findings.wrong(value.span(), format!("expected a header name, got {text:?}"));
    None
}

/// A table of request headers.
pub(super) fn headers(
    value: &Value<'_>,
    findings: &Findings,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let table = table(value, findings)?;
    let mut read: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut whole = true;
    for (key, value) in table {
        let name = header_to_send(key.get_ref(), key.span(), findings);
        let content = header_value(value, findings);
        let (Some(name), Some(mut content)) = (name, content) else {
            whole = false;
            continue;
        };
        // Not shown by `Debug`, then.
        content.set_sensitive(names_a_secret(name.as_str()));
        if read.iter().any(|(other, _)| *other == name) {
            findings.wrong(key.span(), format!("the header {name} stands here twice"));
            whole = false;
        }
        read.push((name, content));
    }
    whole.then_some(read)
}

/// A header that a probe may be told to send. The others are its own, or change what the
/// connection means rather than what is asked for.
fn header_to_send(text: &str, span: Range<usize>, findings: &Findings) -> Option<HeaderName> {
    const OWN: &[&str] = &[
        "connection",
        "content-length",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let Ok(name) = HeaderName::from_str(text) else {
        findings.wrong(span, format!("expected a header name, got {text:?}"));
        return None;
    };
    let refused = match name.as_str() {
        "host" => "the header Host is taken from the `url`".to_owned(),
        own if OWN.contains(&own) => format!("the header {text} is set by the probe itself"),
        _ => return Some(name),
    };
    findings.wrong(span, refused);
    None
}

fn header_value(value: &Value<'_>, findings: &Findings) -> Option<HeaderValue> {
    let text = text(value, findings)?;
    match HeaderValue::from_str(text) {
        Ok(read) => Some(read),
        Err(_) => {
            let message = format!(
                "a header's value holds no line ends or other control characters, got {text:?}"
            );
            findings.wrong(value.span(), message);
            None
        }
    }
}

/// A table.
pub(super) fn table<'t>(value: &'t Value<'t>, findings: &Findings) -> Option<&'t DeTable<'t>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        mistyped(value, findings, "a table");
    }
    table
}

/// An array, item by item; `None` when the value is none or an item is wrong.
pub(super) fn list<'t, T>(
    value: &'t Value<'t>,
    findings: &'t Findings,
    mut read: impl FnMut(&'t Value<'t>, &'t Findings) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(items) = value.get_ref().as_array() else {
        let message = format!("expected an array, got {}", kind_of(value.get_ref()));
        let finding = Finding::error(Kind::Value, value.span(), message);
        let in_brackets = value.get_ref().is_str();
        findings.add(if in_brackets {
            finding.help("write it in brackets: [...]")
        } else {
            finding
        });
        return None;
    };
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, findings)).collect();
    read.into_iter().collect()
}

/// What an error says, with what its causes say.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("16MiB"), Some(16 << 20));
        assert_eq!(parse_size("2 kB"), Some(2_000));
        for wrong in ["", "MiB", "1.5MiB", "-1", "1 mib", "99999999999999999999", "99999999999GiB"]
        {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "100ms", "1500ms", "30s", "90s", "5m", "24h", "7d", "30d"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&written(duration)), Ok(duration), "{text}");
        }
        assert_eq!(written(Duration::from_secs(86_400)), "1d");
    }
}
