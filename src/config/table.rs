//! The tables of a document: opening them, and the names they go by.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeValue;

use super::diagnostic::{Finding, Kind};
use super::plausible::Placed;
use super::reader::{Findings, Section, Value, nearest};
use super::value;
use crate::model::NameError;

/// The names of one kind of table, as they are written: a table with another fault is still one
/// that others may point at.
pub(super) struct Names<'t> {
    kind: &'static str,
    /// Whether it is noted elsewhere that there is none.
    needed: bool,
    places: BTreeMap<&'t str, Range<usize>>,
    /// In the order of the file.
    order: Vec<&'t str>,
}

impl<'t> Names<'t> {
    pub(super) fn of(sections: &[Section<'t>], kind: &'static str, findings: &Findings) -> Self {
        let needed = kind != "endpoint";
        let mut names = Self { kind, needed, places: BTreeMap::new(), order: Vec::new() };
        for section in sections {
            let Some((name, place)) = section.name() else { continue };
            if let Some(first) = names.places.get(name) {
                let message = format!("the name {name:?} is taken by another {kind}");
                let finding = Finding::error(Kind::Value, place, message);
                findings.add(finding.related(first.clone(), "first given here"));
            } else {
                names.places.insert(name, place);
                names.order.push(name);
            }
        }
        names
    }

    /// Notes each of these names that stands among `others` too.
    pub(super) fn check_apart_from(&self, others: &Self, findings: &Findings) {
        for (name, place) in &self.places {
            if let Some(other) = others.places.get(name) {
                let article =
                    if others.kind.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
                let message = format!("the name {name:?} is taken by {article} {}", others.kind);
                let finding = Finding::error(Kind::Value, place.clone(), message);
                findings.add(finding.related(other.clone(), "given here"));
            }
        }
    }

    /// These and `others`, which have no name in common, for a reference to one of either.
    pub(super) fn or<'n>(&'n self, others: &'n Self) -> Either<'n, 't> {
        Either { these: self, others }
    }

    /// All of them, in the order of the file.
    pub(super) fn all(&self) -> &[&'t str] {
        &self.order
    }

    /// Reads a name that has to be one of these.
    pub(super) fn reference(&self, value: &'t Value<'t>, findings: &Findings) -> Option<&'t str> {
        let text = value::text(value, findings)?;
        if self.places.contains_key(text) {
            return Some(text);
        }
        if self.order.is_empty() && self.needed {
            // That there is none at all was noted, and is what has to be mended.
            return None;
        }
        let message = format!("there is no {} named {text:?}", self.kind);
        let finding = Finding::error(Kind::Relation, value.span(), message);
        findings.add(match nearest(text, self.order.iter().copied()) {
            Some(near) => finding.help(format!("did you mean {near:?}?")),
            None => finding.help(format!("name one of the [[{}]] tables", self.kind)),
        });
        None
    }
}

/// The names of two kinds of table.
#[derive(Clone, Copy)]
pub(super) struct Either<'n, 't> {
    these: &'n Names<'t>,
    others: &'n Names<'t>,
}

impl<'t> Either<'_, 't> {
    /// Reads a name that has to be one of them.
    pub(super) fn reference(&self, value: &'t Value<'t>, findings: &Findings) -> Option<&'t str> {
        match value.get_ref() {
            DeValue::String(text) => match self.others.places.get_key_value(&**text) {
                Some((name, _)) => Some(name),
                None => self.these.reference(value, findings),
            },
            _ => self.these.reference(value, findings),
        }
    }
}

/// Opens a value as a table to be read key by key.
pub(super) fn section<'t>(
    what: &'static str,
    value: &'t Value<'t>,
    findings: &'t Findings,
) -> Option<Section<'t>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(Section::new(what, value.span(), table, findings)),
        DeValue::Array(array) if array.iter().all(|item| item.get_ref().is_table()) => {
            let message = format!("{what} stands in a file once, with single brackets");
            findings.wrong(value.span(), message);
            None
        }
        _ => {
            value::mistyped(value, findings, "a table");
            None
        }
    }
}

/// Opens each of the `[[KEY]]` tables, of which there must be one.
pub(super) fn tables<'t>(
    top: &mut Section<'t>,
    key: &'static str,
    what: &'static str,
    findings: &'t Findings,
) -> Vec<Section<'t>> {
    let missing = format!("expected at least one {what}, got none");
    let (sections, absent) = read_tables(top, key, what, Some(&missing));
    if absent {
        findings.add(Finding::missing(missing));
    }
    sections
}

/// Opens each of the `[[KEY]]` tables, if there are any.
pub(super) fn tables_if_any<'t>(
    top: &mut Section<'t>,
    key: &'static str,
    what: &'static str,
) -> Vec<Section<'t>> {
    read_tables(top, key, what, None).0
}

/// The tables, and whether nothing was written at all. `missing` is said of an empty array.
fn read_tables<'t>(
    top: &mut Section<'t>,
    key: &'static str,
    what: &'static str,
    missing: Option<&str>,
) -> (Vec<Section<'t>>, bool) {
    let mut absent = true;
    let sections = top.optional(key, |value, findings| {
        absent = false;
        match (value.get_ref(), missing) {
            (DeValue::Array(items), Some(missing)) if items.is_empty() => {
                findings.wrong(value.span(), missing);
                None
            }
            (DeValue::Array(_), _) => value::list(value, findings, |v, f| section(what, v, f)),
            (DeValue::Table(_), _) => {
                let message = format!("expected {what} with double brackets, got [{key}]");
                findings.wrong(value.span(), message);
                None
            }
            _ => {
                value::mistyped(value, findings, what);
                None
            }
        }
    });
    (sections.unwrap_or_default(), absent)
}

/// What was read of the tables of one kind.
pub(super) struct All<T> {
    pub(super) read: Vec<Placed<T>>,
    /// Whether that is all of them.
    pub(super) complete: bool,
}

impl<T> All<T> {
    pub(super) fn values(self) -> Option<Vec<T>> {
        self.complete.then(|| self.read.into_iter().map(|placed| placed.value).collect())
    }
}

/// Reads every table, also after one that is faulty. Findings about the whole of one point at the
/// value of `key`.
pub(super) fn all<'t, T>(
    sections: Vec<Section<'t>>,
    key: &str,
    mut read: impl FnMut(Section<'t>) -> Option<T>,
) -> All<T> {
    let mut all = All { read: Vec::with_capacity(sections.len()), complete: true };
    for section in sections {
        let place = section.place(key).unwrap_or_else(|| section.span.clone());
        match read(section) {
            Some(value) => all.read.push(Placed { value, place }),
            None => all.complete = false,
        }
    }
    all
}

/// Reads the name of a table's own.
pub(super) fn name<T>(
    new: impl FnOnce(&str) -> Result<T, NameError>,
) -> impl FnOnce(&Value<'_>, &Findings) -> Option<T> {
    move |value, findings| value::named(value, findings, new)
}
