//! Durations as the ban language writes them.

use std::fmt;

/// The most digits that varnishd reads in a number before its point; one with a fraction may have
/// [`MAXIMUM_WHOLE_OF_FRACTION`] there.
const MAXIMUM_DIGITS: usize = 15;
const MAXIMUM_WHOLE_OF_FRACTION: usize = 12;

/// A duration of a ban: `90s`, `1.5h`, `-2d`. Kept as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct BanDuration {
    text: String,
    seconds: f64,
}

impl BanDuration {
    /// Reads a number with its unit: `ms`, `s`, `m`, `h`, `d`, `w` or `y` (365 days). A minus
    /// sign and a fraction are allowed; a plus sign, an exponent and a bare number are not
    /// (vcl(7), DURATION; the limits on digits are those of varnishd 7.1).
    #[must_use]
    pub fn parse(token: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(token).ok()?;
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at_checked(unit_at)?;
        let factor = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "y" => 31_536_000.0,
            _ => return None,
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        let maximum = if fraction.is_empty() { MAXIMUM_DIGITS } else { MAXIMUM_WHOLE_OF_FRACTION };
        let fits = all_digits(whole)
            && all_digits(fraction)
            && whole.len() + fraction.len() > 0
            && whole.len() <= maximum;
        if !fits {
            return None;
        }
        let magnitude: f64 = format!("0{whole}.{fraction}0").parse().ok()?;
        let sign = if number.starts_with('-') { -1.0 } else { 1.0 };
        Some(Self { text: text.to_owned(), seconds: sign * magnitude * factor })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its length in seconds; may be negative.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

impl fmt::Display for BanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<f64> {
        BanDuration::parse(text.as_bytes()).map(|d| d.seconds())
    }

    #[test]
    fn reads_what_varnishd_reads() {
        for (text, expected) in [
            ("0s", 0.0),
            ("-1s", -1.0),
            ("1.5h", 5_400.0),
            (".5h", 1_800.0),
            ("5.h", 18_000.0),
            ("-.5s", -0.5),
            ("5ms", 0.005),
            ("2w", 1_209_600.0),
            ("1y", 31_536_000.0),
            ("123456789012345s", 123_456_789_012_345.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "s",
            ".s",
            "1",
            "+5s",
            "--1s",
            "5S",
            "1e3s",
            "1min",
            "1M",
            "1us",
            "5sx",
            "1.5.5s",
            "nans",
            "infs",
            "0x5s",
            "1234567890123456s",
            "1234567890123.5s",
            "1 s",
            "-s",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
