//! Durations as operators write them: `30s`, `5m`, `1h`.

use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 500ms, 30s, 5m or 1h, got {got:?}")]
pub struct DurationError {
    /// What was written.
    pub got: String,
}

/// Reads a duration with its unit: `500ms`, `30s`, `5m`, `1h30m`, `7d`. A bare number is refused,
/// since its unit would be a guess; so is a negative one.
///
/// # Errors
/// [`DurationError`] holds the text.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError { got: text.to_owned() };
    if !text.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    // jiff takes calendar units only relative to a date; a day here is 24 hours.
    if let Some(days) = text.strip_suffix('d').and_then(|n| n.parse::<u32>().ok()) {
        return Ok(Duration::from_secs(u64::from(days) * 86_400));
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// Prints a duration for people, in its two largest units: `3d 4h`, `5m 10s`, `1.5s`, `20ms`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |large: u64, unit: &str, small: u64, sub: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{sub}") }
    };
    match seconds {
        0 if duration.subsec_millis() == 0 && !duration.is_zero() => "under 1ms".to_owned(),
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
        1..10 if duration.subsec_millis() >= 100 => format!("{:.1}s", duration.as_secs_f64()),
        1..60 => format!("{seconds}s"),
        60..3_600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_number_with_its_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "30", "-5s", "5 parsecs", "s", "1y", "PT5S", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), Err(DurationError { got: wrong.into() }), "{wrong}");
        }
    }

    #[test]
    fn prints_two_units() {
        let printed = |ms: u64| format_duration(Duration::from_millis(ms));
        assert_eq!(printed(0), "0s");
        assert_eq!(printed(20), "20ms");
        assert_eq!(printed(1_500), "1.5s");
        assert_eq!(printed(42_900), "42s");
        assert_eq!(printed(60_000), "1m");
        assert_eq!(printed(310_000), "5m 10s");
        assert_eq!(printed(273_600_000), "3d 4h");
    }
}
