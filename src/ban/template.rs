//! Bans with places to fill in: `obj.http.x-model == {1}`.

mod escape;
mod place;

use std::fmt;

use crate::model::{TextPart, TextTemplate, TextTemplateError};

use super::expression::{Argument, Condition, Expression};
use super::field::Comparison;
use super::operator::Operator;
use super::parse::parse_words;
use super::refusal::Refusal;

use escape::{escape_literal, escape_value};
use place::{PlaceFault, Walker};

/// A ban with places to fill in, all of them within arguments.
///
/// Written as a ban is, with `{NAME}` for each place; `{{` and `}}` are the braces of a regex.
/// The fields, the operators and the number of conditions are the template's: no value changes
/// them. Behind `~` and `!~` a value is escaped, so that it matches exactly itself; elsewhere it
/// stands as it is, and one that cannot stand there is an error, never another ban.
///
/// ```
/// use purgewatch::ban::Template;
///
/// let template = Template::parse("obj.http.x-url ~ ^/models/{1}/")?;
/// let ban = template.fill(&mut |_| Ok::<_, ()>("v1.2 && obj.status == 200".to_owned()))?;
/// assert_eq!(
///     ban.to_string(),
///     r"obj.http.x-url ~ ^/models/v1\.2\x20\x26\x26\x20obj\.status\x20==\x20200/"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: TextTemplate,
    conditions: Vec<Slot>,
}

/// One condition of a template.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    /// With a sample in each place.
    sample: Condition,
    /// What the argument is made of.
    parts: Vec<TextPart>,
}

/// Why a text is no [`Template`]. The fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// The braces do not pair.
    #[error(transparent)]
    Braces(#[from] TextTemplateError),
    /// Whatever is filled in, it is no ban.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A placeholder stands where a field, an operator or `&&` belongs.
    #[error(
        "{{{placeholder}}} stands outside of the arguments: fields, operators and && are the \
         template's own (a brace of a regex is written {{{{ or }}}})"
    )]
    Outside {
        /// Its name.
        placeholder: String,
    },
    /// A placeholder stands at a place of a regex where no escaping makes a value match itself.
    #[error("{{{placeholder}}} cannot stand {place}")]
    Place {
        /// Its name.
        placeholder: String,
        /// Where it stands, and what to write instead.
        place: &'static str,
    },
}

/// Why a [`Template`] cannot be filled in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FillError<E> {
    /// There is no value.
    #[error("there is no value for {{{placeholder}}}")]
    Value {
        /// Of which place.
        placeholder: String,
        /// Why.
        source: E,
    },
    /// The value is empty, which would make another ban of it.
    #[error("the value for {{{placeholder}}} is empty")]
    Empty {
        /// Of which place.
        placeholder: String,
    },
    /// The value cannot be said there: a blank, a line end or `&&` behind `==`, or no duration
    /// where one belongs.
    #[error("the value for {{{placeholder}}} cannot stand behind {field} {operator}")]
    Unsayable {
        /// The first place of the condition.
        placeholder: String,
        /// The field before it.
        field: String,
        /// The operator before it.
        operator: &'static str,
        /// What is wrong with it there.
        source: Refusal,
    },
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = TextTemplate::parse(text)?;
        let words = words(&text)?;
        for (at, word) in words.iter().enumerate() {
            let placeholder = word.iter().find_map(name);
            if let Some(placeholder) = placeholder.filter(|_| at % 4 != 2) {
                return Err(TemplateError::Outside { placeholder: placeholder.to_owned() });
            }
        }
        let arguments = words.iter().skip(2).step_by(4);
        let sample = parse_words(&samples(&words))?;
        let mut conditions = Vec::new();
        for (sample, parts) in sample.conditions().iter().zip(arguments) {
            if sample.operator.takes_regex() {
                check_places(parts)?;
            }
            conditions.push(Slot { sample: sample.clone(), parts: parts.clone() });
        }
        Ok(Self { text, conditions })
    }

    /// The names of the places to fill in, in order, each as often as it stands there.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.text.placeholders()
    }

    /// The ban with `1` (or `1s`) in each place, for a lint before there is any value.
    #[must_use]
    pub fn sample(&self) -> Expression {
        Expression::new(self.conditions.iter().map(|slot| slot.sample.clone()).collect())
    }

    /// Fills in what `value` gives for each name. The result is a ban, but not yet one that the
    /// [`lint`](fn@super::lint) has seen.
    ///
    /// # Errors
    /// [`FillError`] where a value is missing or cannot stand there.
    pub fn fill<E>(
        &self,
        value: &mut dyn FnMut(&str) -> Result<String, E>,
    ) -> Result<Expression, FillError<E>> {
        let mut conditions = Vec::with_capacity(self.conditions.len());
        for slot in &self.conditions {
            conditions.push(slot.fill(value)?);
        }
        Ok(Expression::new(conditions))
    }

    /// A ban of everything that the template can ban, whatever is filled in, and possibly of more;
    /// `None` where that may be anything at all.
    #[must_use]
    pub fn scope(&self) -> Option<Expression> {
        let conditions: Vec<Condition> = self.conditions.iter().filter_map(Slot::scope).collect();
        (!conditions.is_empty()).then(|| Expression::new(conditions))
    }
}

/// As it is written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Slot {
    fn fill<E>(
        &self,
        value: &mut dyn FnMut(&str) -> Result<String, E>,
    ) -> Result<Condition, FillError<E>> {
        let Condition { field, operator, .. } = &self.sample;
        let Some(first) = self.parts.iter().find_map(name) else {
            return Ok(self.sample.clone());
        };
        let mut argument = Vec::new();
        for part in &self.parts {
            match part {
                TextPart::Literal(literal) => argument.extend_from_slice(literal.as_bytes()),
                TextPart::Placeholder(name) => {
                    let placeholder = || name.clone();
                    let value = value(name).map_err(|source| FillError::Value {
                        placeholder: placeholder(),
                        source,
                    })?;
                    if value.is_empty() {
                        return Err(FillError::Empty { placeholder: placeholder() });
                    }
                    if operator.takes_regex() {
                        escape_value(value.as_bytes(), &mut argument);
                    } else {
                        argument.extend_from_slice(value.as_bytes());
                    }
                }
            }
        }
        let words = [field.to_string().into_bytes(), operator.as_str().into(), argument];
        let unsayable = |source| FillError::Unsayable {
            placeholder: first.to_owned(),
            field: field.to_string(),
            operator: operator.as_str(),
            source,
        };
        let parsed = parse_words(&words).map_err(unsayable)?;
        match parsed.conditions() {
            [condition] => Ok(condition.clone()),
            _ => Err(unsayable(Refusal::Empty)),
        }
    }

    /// A condition that holds for whatever this one can hold for; `None` if that is everything.
    fn scope(&self) -> Option<Condition> {
        let Condition { field, operator, .. } = &self.sample;
        if self.parts.iter().all(|part| name(part).is_none()) {
            return Some(self.sample.clone());
        }
        if field.comparison() != Comparison::Text || operator.is_negated() {
            return None;
        }
        let mut regex = Vec::new();
        if *operator == Operator::Equal {
            regex.push(b'^');
            for part in &self.parts {
                match part {
                    TextPart::Literal(literal) => escape_literal(literal.as_bytes(), &mut regex),
                    TextPart::Placeholder(_) => anything(&mut regex),
                }
            }
            regex.extend_from_slice(b"\\z");
            if regex == b"^.+\\z" {
                regex = b".".to_vec();
            }
        } else {
            for part in &self.parts {
                match part {
                    TextPart::Literal(literal) if is_monotone(literal) => {
                        regex.extend_from_slice(literal.as_bytes());
                    }
                    TextPart::Literal(_) => return None,
                    TextPart::Placeholder(_) => anything(&mut regex),
                }
            }
        }
        let argument = Argument::Text(regex);
        Some(Condition { field: field.clone(), operator: Operator::Match, argument })
    }
}

fn anything(regex: &mut Vec<u8>) {
    if !regex.ends_with(b".+") {
        regex.extend_from_slice(b".+");
    }
}

/// Whether a regex with this text in it matches no less when another part of it matches more:
/// nothing looks ahead for what must not come, and nothing keeps what it took.
fn is_monotone(literal: &str) -> bool {
    let groups = literal.split("(?").skip(1).all(|head| head.starts_with([':', 'i']));
    groups && !["++", "*+", "?+", "}+", "(*"].iter().any(|taker| literal.contains(taker))
}

fn name(part: &TextPart) -> Option<&str> {
    match part {
        TextPart::Placeholder(name) => Some(name),
        TextPart::Literal(_) => None,
    }
}

/// The words of a template: what stands between blanks, a placeholder being part of its word.
fn words(text: &TextTemplate) -> Result<Vec<Vec<TextPart>>, Refusal> {
    let mut words: Vec<Vec<TextPart>> = Vec::new();
    let mut open = false;
    let mut push = |part: TextPart, open: bool| match words.last_mut().filter(|_| open) {
        Some(word) => word.push(part),
        None => words.push(vec![part]),
    };
    for part in text.parts() {
        match part {
            TextPart::Placeholder(_) => {
                push(part.clone(), open);
                open = true;
            }
            TextPart::Literal(literal) => {
                if literal.contains(['\n', '\r', '\u{b}', '\u{c}']) {
                    return Err(Refusal::LineEnd { token: Refusal::token(literal.as_bytes()) });
                }
                for (at, word) in literal.split([' ', '\t']).enumerate() {
                    open &= at == 0;
                    if !word.is_empty() {
                        push(TextPart::Literal(word.to_owned()), open);
                        open = true;
                    }
                }
            }
        }
    }
    Ok(words)
}

/// The words with a sample in each place.
fn samples(words: &[Vec<TextPart>]) -> Vec<Vec<u8>> {
    let with = |word: &[TextPart], sample: &str| -> Vec<u8> {
        let text = |part: &TextPart| match part {
            TextPart::Literal(literal) => literal.clone(),
            TextPart::Placeholder(_) => sample.to_owned(),
        };
        word.iter().map(text).collect::<String>().into_bytes()
    };
    let mut sampled: Vec<Vec<u8>> = words.iter().map(|word| with(word, "1")).collect();
    for (condition, written) in sampled.chunks_mut(4).zip(words.chunks(4)) {
        // Where a duration belongs, its unit may be part of the value.
        if let ([field, operator, argument, ..], [_, _, word, ..]) = (condition, written)
            && matches!(
                parse_words(&[&*field, &*operator, &*argument]),
                Err(Refusal::Duration { .. })
            )
        {
            *argument = with(word, "1s");
        }
    }
    sampled
}

/// Whether each placeholder of a regex stands where an escaped value matches exactly itself.
fn check_places(parts: &[TextPart]) -> Result<(), TemplateError> {
    let mut walker = Walker::default();
    let mut before: Option<&str> = None;
    for part in parts {
        match part {
            TextPart::Literal(literal) => {
                if let Some(placeholder) = before
                    && literal.starts_with(['*', '+', '?', '{'])
                {
                    let placeholder = placeholder.to_owned();
                    let place = PlaceFault::Repeated.as_str();
                    return Err(TemplateError::Place { placeholder, place });
                }
                walker.walk(literal);
                before = None;
            }
            TextPart::Placeholder(placeholder) => {
                if let Some(fault) = walker.fault() {
                    let placeholder = placeholder.clone();
                    return Err(TemplateError::Place { placeholder, place: fault.as_str() });
                }
                before = Some(placeholder);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
