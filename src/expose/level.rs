//! How soon changes of the origins showed at a node, in words.

use std::time::Duration;

use super::status::Changes;
use crate::model::format_duration;

const HOUR: f64 = 3_600.0;

/// A day, in seconds.
pub const DAY: f64 = 24.0 * HOUR;

/// A week, in seconds.
pub const WEEK: f64 = 7.0 * DAY;

impl Changes {
    /// `99.9 % of 1204 within 5s`: the shortest time within which that share of the changes showed, or
    /// else the share that did within the longest time that is counted. A change that does not show yet
    /// counts against the times that it has exceeded, and is named besides. `taken` is when this was so,
    /// `length` how long the whole time is, in seconds.
    #[must_use]
    pub fn told(&self, taken: f64, length: f64) -> String {
        let changes = self;
        let counted = taken - changes.since;
        // Less than an hour short of the whole time is the grain of the count.
        let since = if counted + HOUR < length {
            format!(", counted for {}", seconds(counted))
        } else {
            String::new()
        };
        let missing = changes.missing_seconds.values().next().copied().unwrap_or_default();
        let showed = changes.changes.saturating_sub(missing);
        let late = |step: &u64| changes.missing_seconds.get(step).copied().unwrap_or(missing);
        let all = |step: &u64| showed.saturating_add(late(step));
        let within = |step: &u64| format_duration(Duration::from_secs(*step));
        let enough = |(step, showed): &(&u64, &u64)| {
            u128::from(**showed) * 1_000 >= u128::from(all(step)) * 999
        };
        let reached = changes.within_seconds.iter().find(enough).filter(|_| showed > 0);
        let mut text = match (reached, changes.within_seconds.last_key_value()) {
            _ if changes.changes == 0 => "none seen".to_owned(),
            (Some((step, count)), _) if *count >= all(step) => {
                format!("all {count} within {}", within(step))
            }
            (Some((step, _)), _) => format!("99.9 % of {} within {}", all(step), within(step)),
            // Rounded down: what is missing must not vanish.
            (None, Some((step, count))) if all(step) > 0 => {
                let tenths = u128::from(*count) * 1_000 / u128::from(all(step));
                format!(
                    "{}.{} % of {} within {}",
                    tenths / 10,
                    tenths % 10,
                    all(step),
                    within(step)
                )
            }
            _ => "none yet".to_owned(),
        };
        if missing > 0 {
            let lasting = changes.oldest_missing_seconds.map(seconds).unwrap_or_default();
            text.push_str(&format!("; {missing} not visible for {lasting}"));
        }
        text + &since
    }
}

/// Whole seconds, for people; `-` for what is no number of them.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0).trunc());
    duration.map_or_else(|_| "-".to_owned(), format_duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_level_is_said_in_one_line() {
        let steps = |counts: [u64; 3]| [1, 5, 3_600].into_iter().zip(counts).collect();
        let behind = |all, within, missing, counted| {
            let changes = Changes {
                since: 1e9 - counted,
                changes: all,
                within_seconds: steps(within),
                missing_seconds: steps(missing),
                oldest_missing_seconds: (missing[0] > 0).then_some(26.0),
            };
            changes.told(1e9, DAY)
        };
        let say = |all, within, counted| behind(all, within, [0, 0, 0], counted);
        assert_eq!(say(0, [0, 0, 0], DAY), "none seen");
        assert_eq!(say(3, [1, 3, 3], DAY), "all 3 within 5s");
        assert_eq!(say(2_000, [100, 1_998, 2_000], DAY), "99.9 % of 2000 within 5s");
        assert_eq!(say(2_000, [100, 1_997, 1_997], DAY), "99.8 % of 2000 within 1h");
        assert_eq!(say(1, [0, 0, 0], 120.0), "0.0 % of 1 within 1h, counted for 2m");
        // What has not shown for 26 s may still show within the hour, and did not within 5 s.
        let said = behind(9, [7, 7, 7], [2, 2, 0], DAY);
        assert_eq!(said, "all 7 within 1h; 2 not visible for 26s");
        assert_eq!(behind(9, [7, 7, 7], [2, 0, 0], DAY), "all 7 within 5s; 2 not visible for 26s");
        assert_eq!(
            behind(9, [7, 7, 7], [2, 2, 2], DAY),
            "77.7 % of 9 within 1h; 2 not visible for 26s"
        );
        let said = behind(2, [0, 0, 0], [2, 2, 0], 120.0);
        assert_eq!(said, "none yet; 2 not visible for 26s, counted for 2m");
    }
}
