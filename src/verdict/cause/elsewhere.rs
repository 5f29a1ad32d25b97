//! Which bans of a node were meant for something else than the URL in question.

use std::sync::Arc;

use crate::ban::{Expression, Operator};
use crate::model::HttpUrl;

/// What else is watched at a node, and the ban of its canary. Cloning shares the URLs.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// The path and query of each URL that is watched, in lower case, sorted.
    paths: Arc<[Box<str>]>,
    canary: Option<(HttpUrl, Vec<u8>)>,
}

/// A path that a ban wants, as far as it is plain text, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPath {
    path: String,
    /// Whether nothing else may follow.
    is_whole: bool,
}

impl Elsewhere {
    /// These URLs are watched.
    pub fn new<'u>(urls: impl IntoIterator<Item = &'u HttpUrl>) -> Self {
        let lower = |url: &HttpUrl| url.path_and_query().to_lowercase().into_boxed_str();
        let mut paths: Vec<_> = urls.into_iter().map(lower).collect();
        paths.sort_unstable();
        paths.dedup();
        Self { paths: paths.into(), canary: None }
    }

    /// The same at a node whose canary at `url` is banned with `ban`.
    #[must_use]
    pub fn with_canary(&self, url: &HttpUrl, ban: &Expression) -> Self {
        Self { paths: self.paths.clone(), canary: Some((url.clone(), ban.to_bytes())) }
    }

    /// Whether this is the ban of the canary, and that is another object than `url`.
    pub(super) fn is_canarys(&self, spec: &[u8], url: &HttpUrl) -> bool {
        self.canary.as_ref().is_some_and(|(canary, ban)| ban == spec && canary != url)
    }

    /// Whether a URL that is watched has exactly this path.
    pub(super) fn has(&self, named: &NamedPath) -> bool {
        let found = self.paths.binary_search_by(|path| (**path).cmp(&named.path));
        found.is_ok()
    }

    /// Whether a URL that is watched begins so.
    pub(super) fn has_below(&self, named: &NamedPath) -> bool {
        let first = self.paths.partition_point(|path| **path < *named.path);
        let found = self.paths.get(first);
        !named.is_whole && found.is_some_and(|path| path.starts_with(&named.path))
    }
}

impl NamedPath {
    /// The paths that a ban wants, each of more than a slash.
    pub(super) fn all_of(ban: &Expression) -> Vec<Self> {
        let named = ban.conditions().iter().filter_map(|condition| {
            let argument = condition.argument.bytes();
            let named = match condition.operator {
                Operator::Equal => Self::new(argument, true),
                Operator::Match => Self::of_regex(argument),
                _ => return None,
            };
            Some(named).filter(|named| named.path.len() > 1 && named.path.starts_with('/'))
        });
        named.collect()
    }

    /// Whether `path`, in lower case, is it or begins with it.
    pub(super) fn covers(&self, path: &str) -> bool {
        path == self.path || !self.is_whole && path.starts_with(&self.path)
    }

    fn new(path: &[u8], is_whole: bool) -> Self {
        Self { path: String::from_utf8_lossy(path).to_lowercase(), is_whole }
    }

    /// What a regex begins with before anything that is no plain text. A dot counts as one: where a
    /// path has one, few write its backslash.
    fn of_regex(regex: &[u8]) -> Self {
        let mut rest = regex.strip_prefix(b"^").unwrap_or(regex);
        let mut plain = Vec::with_capacity(rest.len());
        loop {
            rest = match rest {
                [] => return Self::new(&plain, false),
                b"$" | b"\\z" | b"\\Z" => return Self::new(&plain, true),
                [b'\\', byte, rest @ ..] if !byte.is_ascii_alphanumeric() => {
                    plain.push(*byte);
                    rest
                }
                [b'\\' | b'^' | b'$' | b'[' | b'|' | b'(' | b')' | b'+', ..] => {
                    return Self::new(&plain, false);
                }
                // What comes before may as well be missing.
                [b'?' | b'*' | b'{', ..] => {
                    plain.pop();
                    return Self::new(&plain, false);
                }
                [byte, rest @ ..] => {
                    plain.push(*byte);
                    rest
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ban::parse;

    fn named(ban: &str) -> Vec<(String, bool)> {
        let named = NamedPath::all_of(&parse(ban.as_bytes()).unwrap());
        named.into_iter().map(|named| (named.path, named.is_whole)).collect()
    }

    #[test]
    fn the_paths_of_a_ban_are_what_is_plain_text_in_it() {
        let whole = |path: &str| vec![(path.to_owned(), true)];
        let open = |path: &str| vec![(path.to_owned(), false)];
        assert_eq!(named("req.http.host ~ (?i)^a\\.b\\z && req.url == /News/"), whole("/news/"));
        assert_eq!(named("obj.http.x-url ~ ^/a\\.css\\?x\\z"), whole("/a.css?x"));
        assert_eq!(named("req.url ~ ^/a.css$"), whole("/a.css"));
        assert_eq!(named("req.url ~ /news/"), open("/news/"));
        assert_eq!(named("req.url ~ ^/news/?$"), open("/news"));
        assert_eq!(named("req.url ~ ^/(a|b)/"), []);
        for none in ["req.url != /news/", "req.url !~ ^/news/", "obj.status == 404", "req.url ~ ."]
        {
            assert_eq!(named(none), [], "{none}");
        }
    }

    #[test]
    fn what_is_watched_is_found_by_its_path_or_the_beginning_of_it() {
        let urls = ["http://a/news/x", "http://b/News/", "http://a/"].map(|u| u.parse().unwrap());
        let others = Elsewhere::new(&urls);
        let path = |path: &[u8], is_whole| NamedPath::new(path, is_whole);
        assert!(others.has(&path(b"/news/", true)) && others.has(&path(b"/news/", false)));
        assert!(!others.has(&path(b"/news", true)) && !others.has_below(&path(b"/news", true)));
        assert!(others.has_below(&path(b"/new", false)));
        assert!(
            !others.has_below(&path(b"/newt", false)) && !others.has_below(&path(b"/z", false))
        );
    }
}
