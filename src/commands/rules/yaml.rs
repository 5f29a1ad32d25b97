//! Rules as the YAML that Prometheus reads.

use std::fmt::Write as _;
use std::time::Duration;

use super::alerts::Alert;

/// The document: a comment, and one group of rules.
pub(super) fn document(header: &str, alerts: &[Alert], runbook_base: &str) -> String {
    let mut text = format!("# {header}\ngroups:\n  - name: purgewatch\n    rules:\n");
    for alert in alerts {
        let runbook = format!("{runbook_base}#{}", alert.runbook);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "      - alert: {name}
        expr: {expression}
        for: {wait}
        labels:
          severity: {severity}
        annotations:
          summary: {summary}
          description: {description}
          runbook_url: {runbook}
",
            name = alert.name,
            expression = scalar(&alert.expression),
            wait = duration(alert.wait),
            severity = alert.severity.as_str(),
            summary = scalar(&alert.summary),
            description = scalar(&alert.description),
            runbook = scalar(&runbook),
        );
    }
    text
}

/// A string between single quotes, where only the quote itself means something (YAML 1.2,
/// section 7.3.2). For texts on one line.
fn scalar(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A duration of Prometheus, in whole seconds: rounded up, so that nothing fires early.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_hold_anything_on_one_line() {
        assert_eq!(scalar("it's {{ $x }}: \"a\" # b\\c"), "'it''s {{ $x }}: \"a\" # b\\c'");
    }

    #[test]
    fn durations_are_never_rounded_down() {
        let printed = |ms: u64| duration(Duration::from_millis(ms));
        assert_eq!(printed(60_000), "1m");
        assert_eq!(printed(90_000), "90s");
        assert_eq!(printed(7_200_000), "2h");
        assert_eq!(printed(1_001), "2s");
    }
}
