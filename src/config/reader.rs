//! Reads the keys of a table one by one and notes every fault on the way, so that all are
//! reported at once.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Finding, Kind};

/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    /// Notes a finding, up to a number beyond which nobody reads on.
    pub(super) fn add(&self, finding: Finding) {
        const MOST: usize = 1_000;
        let mut findings = self.0.borrow_mut();
        if findings.len() < MOST {
            findings.push(finding);
        }
    }

    /// Notes a fault of a value.
    pub(super) fn wrong(&self, span: Range<usize>, message: impl Into<String>) {
        self.add(Finding::error(Kind::Value, span, message));
    }

    pub(super) fn into_inner(self) -> Vec<Finding> {
        self.0.into_inner()
    }
}

/// What the part of a file before any table is called.
pub(super) const TOP: &str = "the top level";

/// The tables of a configuration and their keys, for telling where a misplaced key belongs.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("[daemon]", &["listen", "state_dir", "socket", "remedy_max_rate", "ban_list_limit"]),
    (
        "[defaults]",
        &["interval", "timeout", "max_stale", "body_limit", "compare", "ban_headers", "on_stale"],
    ),
    (
        "[[node]]",
        &[
            "name",
            "http",
            "admin",
            "secret_file",
            "secret_credential",
            "admin_interval",
            "admin_timeout",
            "connections",
            "ca_file",
            "canary",
            "canary_interval",
        ],
    ),
    ("[[origin]]", &["name", "address", "max_rate", "connections", "ca_file"]),
    (
        "[[endpoint]]",
        &[
            "name",
            "url",
            "origin",
            "nodes",
            "compare",
            "ignore",
            "headers",
            "variants",
            "interval",
            "timeout",
            "max_stale",
            "body_limit",
            "ban_headers",
            "on_stale",
        ],
    ),
    (
        "[[pointer]]",
        &[
            "name",
            "url",
            "json",
            "endpoints",
            "origin",
            "nodes",
            "compare",
            "ignore",
            "headers",
            "interval",
            "timeout",
            "max_stale",
            "body_limit",
            "ban_headers",
            "on_stale",
            "grace",
        ],
    ),
    ("[redis]", &["url", "password_file", "password_credential", "ca_file", "name"]),
    (
        "[[subscription]]",
        &[
            "channel",
            "stream",
            "ban",
            "urls",
            "endpoints",
            "verify",
            "on_gap",
            "replies",
            "max_attempts",
            "debounce",
            "prove",
        ],
    ),
    (
        "[invalidations]",
        &["listen", "socket", "token_file", "token_credential", "max_rate", "max_body"],
    ),
];

/// One table that is being read.
pub(super) struct Section<'t> {
    /// What it is called, such as `[[node]]`.
    pub(super) what: &'static str,
    /// Where it begins.
    pub(super) span: Range<usize>,
    table: &'t DeTable<'t>,
    findings: &'t Findings,
    asked: Vec<&'static str>,
}

impl<'t> Section<'t> {
    pub(super) fn new(
        what: &'static str,
        span: Range<usize>,
        table: &'t DeTable<'t>,
        findings: &'t Findings,
    ) -> Self {
        Self { what, span, table, findings, asked: Vec::new() }
    }

    /// Reads a key that may be left out. `None` also when its value is wrong, which is noted.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t Value<'t>, &'t Findings) -> Option<T>,
    ) -> Option<T> {
        self.value(key).and_then(|value| read(value, self.findings))
    }

    /// Reads a key that has to be there; notes when it is not.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t Value<'t>, &'t Findings) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => read(value, self.findings),
            None => {
                let message = format!("{} needs the key `{key}`", self.what);
                self.findings.add(Finding::error(Kind::Relation, self.span.clone(), message));
                None
            }
        }
    }

    /// Where the value of a key stands, if it is there.
    pub(super) fn place(&self, key: &str) -> Option<Range<usize>> {
        self.table.get(key).map(Spanned::span)
    }

    /// Whether a key is not there, or is an array with nothing in it.
    pub(super) fn is_absent_or_empty(&self, key: &str) -> bool {
        let array = |value: &Value<'_>| value.get_ref().as_array().is_some_and(|a| a.is_empty());
        self.table.get(key).is_none_or(array)
    }

    /// Where the key itself stands, or else the table.
    pub(super) fn key_place(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span())
    }

    /// Where faults of this table are noted.
    pub(super) fn findings(&self) -> &'t Findings {
        self.findings
    }

    /// The table's `name` as it is written, well-formed or not, and its place.
    pub(super) fn name(&self) -> Option<(&'t str, Range<usize>)> {
        let value = self.table.get("name")?;
        Some((value.get_ref().as_str()?, value.span()))
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table.iter().filter(|(key, _)| {
            let key: &str = key.get_ref();
            !self.asked.contains(&key)
        }) {
            self.findings.add(self.unknown(key.get_ref(), key.span()));
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Value<'t>> {
        self.asked.push(key);
        self.table.get(key)
    }

    fn unknown(&self, key: &str, span: Range<usize>) -> Finding {
        let place = if self.what == TOP { "at" } else { "in" };
        let message = format!("unknown key {key:?} {place} {}", self.what);
        let finding = Finding::error(Kind::Relation, span, message);
        if key == "secret" {
            return finding.help("a secret does not stand here: name its file as `secret_file`");
        }
        for (word, file) in [("password", "password_file"), ("token", "token_file")] {
            if key.starts_with(word) && self.asked.contains(&file) {
                let help = format!("a {word} does not stand here: name its file as `{file}`");
                return finding.help(help);
            }
        }
        if let Some(near) = nearest(key, self.asked.iter().copied()) {
            return finding.help(format!("did you mean `{near}`?"));
        }
        let homes: Vec<_> =
            KEYS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(what, _)| *what).collect();
        if homes.is_empty() {
            let mut known = self.asked.clone();
            known.sort_unstable();
            finding.help(format!("the keys here are {}", known.join(", ")))
        } else {
            finding.help(format!("`{key}` belongs in {}", homes.join(" or ")))
        }
    }
}

/// The candidate that `text` was most likely meant to be: at most a third of it mistyped, and of one or two
/// characters none.
pub(super) fn nearest<'c>(
    text: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    // Names longer than this are no slips of the finger, and the comparison is quadratic.
    const LONGEST: usize = 64;
    const MOST: usize = 1_000;
    if text.chars().count() > LONGEST {
        return None;
    }
    let allowed = match text.chars().count() {
        0..3 => 0,
        length => length / 3,
    };
    candidates
        .filter(|candidate| candidate.chars().count() <= LONGEST)
        .take(MOST)
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters have to be added, dropped or replaced; case and `-` against `_` are free.
fn distance(a: &str, b: &str) -> usize {
    let plain = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, &above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_slips_of_the_finger() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("interval", "intervall"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("Max-Stale", "max_stale"), 0);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["interval", "timeout", "url"];
        assert_eq!(nearest("intervall", keys.into_iter()), Some("interval"));
        assert_eq!(nearest("uri", keys.into_iter()), Some("url"));
        assert_eq!(nearest("password", keys.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys.into_iter()), None);
    }
}
