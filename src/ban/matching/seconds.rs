//! A time that is known within bounds.

use std::fmt;
use std::time::Duration;

use crate::ban::operator::Operator;

/// A number of seconds that lies between two bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    least: f64,
    most: f64,
}

impl Seconds {
    /// Exactly so many.
    #[must_use]
    pub fn exactly(seconds: f64) -> Self {
        Self::between(seconds, seconds)
    }

    /// At least `least` and at most `most`; anything where either is not a number or they are the
    /// wrong way round.
    #[must_use]
    pub fn between(least: f64, most: f64) -> Self {
        if least <= most {
            Self { least, most }
        } else {
            Self { least: f64::NEG_INFINITY, most: f64::INFINITY }
        }
    }

    /// The age of an object whose `Age` was `age` seconds in an answer that came `since` ago, or
    /// at most that long ago. Varnish rounds `Age` down, so up to one more second has passed.
    #[must_use]
    pub fn from_age(age: u64, since: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 285 million years")]
        let age = age as f64;
        Self::between(age, age + 1.0 + since.as_secs_f64())
    }

    /// The lower bound.
    #[must_use]
    pub fn least(self) -> f64 {
        self.least
    }

    /// The upper bound.
    #[must_use]
    pub fn most(self) -> f64 {
        self.most
    }

    /// Whether it compares so with `with`; `None` where that depends on where it lies between its
    /// bounds. Only comparisons: `~` and `!~` are `None`.
    pub(super) fn compare(self, operator: Operator, with: f64) -> Option<bool> {
        let Self { least, most } = self;
        let decide = |yes: bool, no: bool| if yes { Some(true) } else { no.then_some(false) };
        match operator {
            Operator::Greater => decide(least > with, most <= with),
            Operator::GreaterOrEqual => decide(least >= with, most < with),
            Operator::Less => decide(most < with, least >= with),
            Operator::LessOrEqual => decide(most <= with, least > with),
            Operator::Equal => decide(least == with && most == with, with < least || with > most),
            Operator::NotEqual => self.compare(Operator::Equal, with).map(|equal| !equal),
            Operator::Match | Operator::NotMatch => None,
        }
    }

    pub(super) fn in_single_precision(self) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "that is what is to be modelled")]
        let single = |seconds: f64| f64::from(seconds as f32);
        Self { least: single(self.least), most: single(self.most) }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        if least == most {
            write!(f, "{least} s")
        } else if most.is_infinite() {
            write!(f, "at least {least} s")
        } else if least.is_infinite() {
            write!(f, "at most {most} s")
        } else {
            write!(f, "between {least} s and {most} s")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Operator; 6] = [
        Operator::Equal,
        Operator::NotEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
        Operator::Less,
        Operator::LessOrEqual,
    ];

    fn truth(value: f64, operator: Operator, with: f64) -> bool {
        match operator {
            Operator::Equal => value == with,
            Operator::NotEqual => value != with,
            Operator::Greater => value > with,
            Operator::GreaterOrEqual => value >= with,
            Operator::Less => value < with,
            _ => value <= with,
        }
    }

    proptest! {
        // Small whole numbers, so that bounds and argument often coincide.
        #[test]
        fn certain_exactly_where_the_whole_range_agrees(a in 0_i8..5, b in 0_i8..5, with in -1_i8..6) {
            let (least, most) = (a.min(b), a.max(b));
            let range = Seconds::between(least.into(), most.into());
            for operator in ALL {
                // Halves stand for all that lies between two whole numbers.
                let values = (least * 2..=most * 2).map(|half| f64::from(half) / 2.0);
                let truths: Vec<bool> = values.map(|v| truth(v, operator, with.into())).collect();
                let agreed = truths.iter().all(|t| *t == truths[0]).then_some(truths[0]);
                prop_assert_eq!(range.compare(operator, with.into()), agreed, "{} {}", range, operator);
            }
        }
    }

    #[test]
    fn nonsense_is_anything() {
        for odd in [Seconds::between(2.0, 1.0), Seconds::exactly(f64::NAN)] {
            for operator in ALL {
                assert_eq!(odd.compare(operator, 0.0), None);
            }
        }
        assert_eq!(Seconds::exactly(1.0).compare(Operator::Match, 1.0), None);
    }

    #[test]
    fn an_age_is_rounded_down() {
        let age = Seconds::from_age(5, Duration::from_millis(500));
        assert_eq!((age.least(), age.most()), (5.0, 6.5));
        assert_eq!(age.to_string(), "between 5 s and 6.5 s");
        assert_eq!(Seconds::exactly(3.0).to_string(), "3 s");
        assert_eq!(Seconds::between(3.0, f64::INFINITY).to_string(), "at least 3 s");
        assert_eq!(Seconds::between(f64::NEG_INFINITY, 3.0).to_string(), "at most 3 s");
    }
}
