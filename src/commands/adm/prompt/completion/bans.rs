//! The fields and operators of bans.

use super::Candidate;
use crate::ban::{Field, Operator, ServerVersion};

/// Fields that stand for themselves.
const FIELDS: &[Field] = &[
    Field::RequestUrl,
    Field::ObjectStatus,
    Field::ObjectTtl,
    Field::ObjectAge,
    Field::ObjectGrace,
    Field::ObjectKeep,
    Field::ObjectLastHit,
    Field::ObjectHitForMiss,
    Field::ObjectHitForPass,
    Field::ObjectUncacheable,
];

/// Fields that the name of a header completes.
const HEADERS: &[&str] = &["req.http.", "obj.http."];

const TEXT: &[Operator] =
    &[Operator::Equal, Operator::NotEqual, Operator::Match, Operator::NotMatch];

const DURATION: &[Operator] = &[
    Operator::Equal,
    Operator::NotEqual,
    Operator::Greater,
    Operator::GreaterOrEqual,
    Operator::Less,
    Operator::LessOrEqual,
];

const FLAG: &[Operator] = &[Operator::Equal, Operator::NotEqual];

/// The fields that a server of this version has; all where it is not known.
pub(super) fn fields(version: Option<ServerVersion>) -> Vec<Candidate> {
    let fields = FIELDS.iter().filter(|field| has(field, version));
    let fields = fields.map(|field| Candidate::word(&field.to_string()));
    fields.chain(HEADERS.iter().map(|part| Candidate::part(part))).collect()
}

/// The operators that fit the field, of a field that is not known all.
pub(super) fn operators(field: &str, version: Option<ServerVersion>) -> Vec<Candidate> {
    let is_header = HEADERS.iter().any(|part| field.starts_with(part));
    let found = FIELDS.iter().filter(|known| has(known, version));
    let found = found.into_iter().find(|known| known.to_string() == field);
    let operators: Vec<_> = match found {
        None if is_header => TEXT.to_vec(),
        None => [DURATION, TEXT].concat(),
        Some(
            Field::RequestUrl
            | Field::RequestHeader(_)
            | Field::ObjectStatus
            | Field::ObjectHeader(_),
        ) => TEXT.to_vec(),
        Some(
            Field::ObjectTtl
            | Field::ObjectAge
            | Field::ObjectGrace
            | Field::ObjectKeep
            | Field::ObjectLastHit,
        ) => DURATION.to_vec(),
        Some(Field::ObjectHitForMiss | Field::ObjectHitForPass | Field::ObjectUncacheable) => {
            FLAG.to_vec()
        }
    };
    operators.iter().map(|operator| Candidate::word(operator.as_str())).collect()
}

fn has(field: &Field, version: Option<ServerVersion>) -> bool {
    match (field.since(), version) {
        (Some(since), Some(version)) => version >= since,
        _ => true,
    }
}
