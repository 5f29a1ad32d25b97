//! URLs with a place for the current version.

use std::fmt;
use std::str::FromStr;

use super::{PointerValue, ValueFault, decoded, has_dot_segment};
use crate::model::{HttpUrl, UrlError};

/// Where the value goes.
const PLACE: &str = "{value}";

/// A URL with `{value}` in its path or its query, once or more: what a pointer leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionedUrl {
    /// What stands before, between and after the places of the value.
    parts: Vec<String>,
    /// In which of the parts the query begins, if there is one.
    query_from: Option<usize>,
    /// How many segments of its own are `.` or `..`.
    climbs: bool,
}

/// Why a text is no template of URLs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionedUrlError {
    /// It has no place for the value.
    #[error("expected a URL with {{value}} in its path or query, got {got:?}")]
    NoPlace {
        /// What was written.
        got: String,
    },
    /// The value would choose the server.
    #[error("{{value}} cannot stand in the host of a URL: expected it in the path or the query")]
    InHost,
    /// A brace that belongs to no `{value}`: a placeholder that there is not.
    #[error("expected {{value}} and no other braces, got {got:?}")]
    Braces {
        /// What was written.
        got: String,
    },
    /// With a value in its place it is no URL.
    #[error(transparent)]
    Url(#[from] UrlError),
}

impl VersionedUrl {
    /// The host and port of these URLs, as written.
    #[must_use]
    pub fn authority(&self) -> &str {
        let first = self.parts.first().map(String::as_str).unwrap_or_default();
        let rest = first.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        rest.split(['/', '?']).next().unwrap_or_default()
    }

    /// The URL with the value in its place.
    ///
    /// # Errors
    /// [`ValueFault`] when the value would make another URL of it than the one that is meant: in a
    /// query it must not end the parameter, and together with what stands beside it it must not
    /// be a `.` or `..` segment.
    pub fn fill(&self, value: &PointerValue) -> Result<HttpUrl, ValueFault> {
        let last = self.parts.len().saturating_sub(1);
        if self.query_from.is_some_and(|part| part < last) {
            let ends = |c: &char| matches!(c, '&' | ';' | '+');
            if let Some(found) = value.as_str().chars().find(ends) {
                return Err(ValueFault::Query { found });
            }
        }
        let text = self.parts.join(value.as_str());
        let url: HttpUrl = text.parse().map_err(|fault| match fault {
            UrlError::Character { found } => ValueFault::Character { found },
            _ => ValueFault::Character { found: '#' },
        })?;
        let path = url.path_and_query().split('?').next().unwrap_or_default();
        if !self.climbs
            && (has_dot_segment(path.as_bytes()) || has_dot_segment(&decoded(path.as_bytes()).0))
        {
            return Err(ValueFault::Climbs);
        }
        Ok(url)
    }
}

impl FromStr for VersionedUrl {
    type Err = VersionedUrlError;

    fn from_str(text: &str) -> Result<Self, VersionedUrlError> {
        if !text.contains(PLACE) {
            return Err(VersionedUrlError::NoPlace { got: text.to_owned() });
        }
        let sample = text.replace(PLACE, "v");
        if sample.contains(['{', '}']) {
            return Err(VersionedUrlError::Braces { got: text.to_owned() });
        }
        let sample: HttpUrl = sample.parse()?;
        let parts: Vec<String> = text.split(PLACE).map(str::to_owned).collect();
        let host_ends = sample.scheme().as_str().len() + "://".len() + sample.authority().len();
        // A value within the host would have made the host longer than what stands before it.
        if parts.first().is_none_or(|first| first.len() < host_ends + 1) {
            return Err(VersionedUrlError::InHost);
        }
        let query_from = parts.iter().position(|part| part.contains('?'));
        let path = sample.path_and_query().split('?').next().unwrap_or_default();
        let climbs = has_dot_segment(path.as_bytes());
        Ok(Self { parts, query_from, climbs })
    }
}

impl fmt::Display for VersionedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join(PLACE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(template: &str, value: &str) -> Result<String, ValueFault> {
        let template: VersionedUrl = template.parse().unwrap();
        PointerValue::new(value).and_then(|value| template.fill(&value)).map(|url| url.to_string())
    }

    #[test]
    fn the_value_goes_where_it_belongs() {
        let text = "http://rec.example.com/api/{value}/list?v={value}";
        assert_eq!(text.parse::<VersionedUrl>().unwrap().to_string(), text);
        assert_eq!(text.parse::<VersionedUrl>().unwrap().authority(), "rec.example.com");
        let url = "http://rec.example.com/api/42/list?v=42";
        assert_eq!(filled(text, "42").as_deref(), Ok(url));
        assert_eq!(filled("http://a?{value}", "42").as_deref(), Ok("http://a/?42"));
        assert_eq!(filled("http://a/x/../{value}", "42").as_deref(), Ok("http://a/x/../42"));
    }

    #[test]
    fn a_value_does_not_lead_elsewhere() {
        assert_eq!(filled("http://a/.{value}/b", "./c"), Err(ValueFault::Climbs));
        assert_eq!(filled("http://a/x/{value}./b", "%2e"), Err(ValueFault::Climbs));
        let query = "http://a/?v={value}&w=1";
        assert_eq!(filled(query, "1&w=2"), Err(ValueFault::Query { found: '&' }));
        assert_eq!(filled(query, "1+2"), Err(ValueFault::Query { found: '+' }));
        assert_eq!(filled("http://a/{value}?w=1", "1+2").as_deref(), Ok("http://a/1+2?w=1"));
    }

    #[test]
    fn a_template_has_its_place_in_path_or_query() {
        let wrong = |text: &str| text.parse::<VersionedUrl>().unwrap_err();
        assert!(matches!(wrong("http://a/b"), VersionedUrlError::NoPlace { .. }));
        for text in ["http://{value}/", "http://{value}.example.com/", "http://a:{value}/"] {
            assert!(
                matches!(wrong(text), VersionedUrlError::InHost | VersionedUrlError::Url(_)),
                "{text}"
            );
        }
        let braces = wrong("http://a/{value}/{model}");
        assert!(matches!(braces, VersionedUrlError::Braces { .. }));
        assert_eq!(wrong("http://{value}/{value}"), VersionedUrlError::InHost);
        assert!(matches!(wrong("a/{value}"), VersionedUrlError::Url(UrlError::Scheme { .. })));
        assert!(matches!(
            wrong("http://a/{value} x"),
            VersionedUrlError::Url(UrlError::Character { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_value_changes_what_stands_around_it(value in "[ -~]{1,20}") {
            let template: VersionedUrl = "http://h/a/{value}/z?q=1".parse().unwrap();
            if let Ok(url) = PointerValue::new(&value).and_then(|value| template.fill(&value)) {
                prop_assert_eq!(url.authority(), "h");
                let path = url.path_and_query();
                prop_assert!(path.starts_with("/a/") && path.ends_with("/z?q=1"), "{}", path);
                prop_assert!(!path.contains("/../") && path.matches('?').count() == 1, "{}", path);
            }
        }
    }
}
