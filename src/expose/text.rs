//! The Prometheus text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>), written
//! straight into a buffer: a daemon with 10,000 endpoints has 190,000 samples to write.

use std::time::Duration;

use crate::model::Timestamp;

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
}

/// A family: its name, its type, and what it tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

impl Family {
    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// Writes the `HELP` and `TYPE` lines.
    pub(super) fn open(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            Kind::Gauge => " gauge\n",
            Kind::Counter => " counter\n",
        };
        for part in ["# HELP ", self.name, " ", self.help, "\n# TYPE ", self.name, kind] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Writes the whole family where it has one sample without labels.
    pub(super) fn single(&self, out: &mut Vec<u8>, value: Option<Value>) {
        self.open(out);
        if let Some(value) = value {
            out.extend_from_slice(self.name.as_bytes());
            end(out, value);
        }
    }
}

/// The value of a sample; whole numbers and milliseconds need no floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    /// Milliseconds, written as seconds.
    Millis(u64),
}

impl Value {
    pub(super) fn flag(flag: bool) -> Self {
        Self::Number(u64::from(flag))
    }

    pub(super) fn seconds(duration: Duration) -> Self {
        Self::Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// A point of time on a line that the wall clock is `offset` milliseconds ahead of.
    pub(super) fn time(at: Timestamp, offset: i64) -> Self {
        Self::Millis(at.shifted(offset).as_millis())
    }
}

/// Writes ` VALUE` and the end of the line.
pub(super) fn end(out: &mut Vec<u8>, value: Value) {
    out.push(b' ');
    match value {
        Value::Number(number) => push_number(out, number),
        Value::Millis(millis) => push_seconds(out, millis),
    }
    out.push(b'\n');
}

/// Writes `name="value"`, escaped.
pub(super) fn label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n')) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        out.extend_from_slice(match special.first() {
            Some(b'"') => b"\\\"",
            Some(b'\\') => b"\\\\",
            _ => b"\\n",
        });
        rest = special.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + low_byte(number % 10);
        number /= 10;
        first = place;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// Writes milliseconds as seconds, without trailing zeros.
fn push_seconds(out: &mut Vec<u8>, millis: u64) {
    push_number(out, millis / 1_000);
    let rest = millis % 1_000;
    if rest == 0 {
        return;
    }
    let digits = [rest / 100, rest / 10 % 10, rest % 10].map(|d| b'0' + low_byte(d));
    let kept = if digits[2] != b'0' {
        3
    } else if digits[1] != b'0' {
        2
    } else {
        1
    };
    out.push(b'.');
    out.extend_from_slice(digits.get(..kept).unwrap_or_default());
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: Value) -> String {
        let mut out = Vec::new();
        end(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_short_and_exact() {
        assert_eq!(written(Value::Number(0)), " 0\n");
        assert_eq!(written(Value::Number(u64::MAX)), format!(" {}\n", u64::MAX));
        assert_eq!(written(Value::Millis(1_700_000_000_123)), " 1700000000.123\n");
        assert_eq!(written(Value::Millis(1_500)), " 1.5\n");
        assert_eq!(written(Value::Millis(50)), " 0.05\n");
        assert_eq!(written(Value::Millis(60_000)), " 60\n");
        assert_eq!(written(Value::time(Timestamp::from_millis(5_000), -3_000)), " 2\n");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut out = Vec::new();
        label(&mut out, "endpoint", "a\"b\\c\nd\u{e9}");
        assert_eq!(String::from_utf8(out).unwrap(), "endpoint=\"a\\\"b\\\\c\\nd\u{e9}\"");
    }

    proptest! {
        #[test]
        fn every_number_reads_back(number: u64) {
            prop_assert_eq!(written(Value::Number(number)), format!(" {number}\n"));
            let millis = number % 10_000_000_000_000;
            let text = written(Value::Millis(millis));
            let (whole, rest) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
            let back = whole.parse::<u64>().unwrap() * 1_000;
            let rest = if rest.is_empty() { 0 } else { format!("{rest:0<3}").parse().unwrap() };
            prop_assert_eq!(back + rest, millis);
            prop_assert!(!text.contains('.') || !text.trim().ends_with('0'));
        }

        #[test]
        fn an_escaped_value_reads_back(value in "[a\"\\\\\n\u{e9}]{0,20}") {
            let mut out = Vec::new();
            label(&mut out, "l", &value);
            let text = String::from_utf8(out).unwrap();
            let inner = text.strip_prefix("l=\"").unwrap().strip_suffix('"').unwrap();
            let mut back = String::new();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => back.push(match chars.next() { Some('n') => '\n', Some(c) => c, None => panic!() }),
                    '"' | '\n' => panic!("not escaped"),
                    c => back.push(c),
                }
            }
            prop_assert_eq!(back, value);
        }
    }
}
