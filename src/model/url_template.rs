//! URLs with places to fill in.

use std::fmt;
use std::str::FromStr;

use super::{HttpUrl, TextPart, TextTemplate, TextTemplateError, UrlError};

/// A URL with places to fill in, all of them behind the host:
/// `http://rec.example.com/models/{1}/`.
///
/// A value stands for itself: what cannot stand in a URL, and what would end the path or the
/// query it stands in (`?`, `#`, `&`, `%`), is percent-encoded (RFC 3986 section 2). A `/` stays
/// one, so that a value may be several segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    text: TextTemplate,
}

/// Why a text is no [`UrlTemplate`]. The fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlTemplateError {
    /// The braces do not pair.
    #[error(transparent)]
    Braces(#[from] TextTemplateError),
    /// Whatever is filled in, it is no URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A placeholder stands in the scheme, the host or the port.
    #[error("{{{placeholder}}} stands before the path: a message must not choose the host")]
    Host {
        /// Its name.
        placeholder: String,
    },
}

/// Why a [`UrlTemplate`] cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlFillError<E> {
    /// There is no value.
    #[error("there is no value for {{{placeholder}}}")]
    Value {
        /// Of which place.
        placeholder: String,
        /// Why.
        source: E,
    },
    /// The value is empty.
    #[error("the value for {{{placeholder}}} is empty")]
    Empty {
        /// Of which place.
        placeholder: String,
    },
    /// A segment of the path would be `.` or `..`, which leads elsewhere (RFC 3986 section 5.2.4).
    #[error("with these values the path has a segment \".\" or \"..\", which leads elsewhere")]
    Dots,
    /// What comes out is no URL.
    #[error("with these values it is no URL")]
    Url(#[source] UrlError),
}

impl UrlTemplate {
    /// The names of the places to fill in.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.text.placeholders()
    }

    /// What every URL that this can become begins with.
    #[must_use]
    pub fn beginning(&self) -> Option<HttpUrl> {
        match self.text.parts().first() {
            Some(TextPart::Literal(literal)) => literal.parse().ok(),
            _ => None,
        }
    }

    /// Fills in what `value` gives for each name.
    ///
    /// # Errors
    /// [`UrlFillError`] where a value is missing or cannot stand there.
    pub fn fill<E>(
        &self,
        value: &mut dyn FnMut(&str) -> Result<String, E>,
    ) -> Result<HttpUrl, UrlFillError<E>> {
        let mut text = String::new();
        for part in self.text.parts() {
            match part {
                TextPart::Literal(literal) => text.push_str(literal),
                TextPart::Placeholder(name) => {
                    let placeholder = || name.clone();
                    let value = value(name).map_err(|source| UrlFillError::Value {
                        placeholder: placeholder(),
                        source,
                    })?;
                    if value.is_empty() {
                        return Err(UrlFillError::Empty { placeholder: placeholder() });
                    }
                    encode(&value, &mut text);
                }
            }
        }
        let url: HttpUrl = text.parse().map_err(UrlFillError::Url)?;
        let path = url.path_and_query().split('?').next().unwrap_or_default();
        let filled = self.placeholders().next().is_some();
        if filled && path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(UrlFillError::Dots);
        }
        Ok(url)
    }
}

/// Leaves what RFC 3986 section 3.3 allows in a segment, and the slash, but not `&`, `+`, `=` and
/// `;`, which mean something in a query.
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:@!$'()*,".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

impl FromStr for UrlTemplate {
    type Err = UrlTemplateError;

    fn from_str(text: &str) -> Result<Self, UrlTemplateError> {
        let text = TextTemplate::parse(text)?;
        // Up to the first place there has to be a host that ends.
        let head = match text.parts().first() {
            Some(TextPart::Literal(literal)) => literal.as_str(),
            _ => "",
        };
        let ends = head.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']));
        if let Some(placeholder) = text.placeholders().next()
            && !ends
        {
            if !head.starts_with("http://") && !head.starts_with("https://") {
                return Err(UrlError::Scheme { got: text.to_string() }.into());
            }
            return Err(UrlTemplateError::Host { placeholder: placeholder.to_owned() });
        }
        let template = Self { text };
        match template.fill(&mut |_| Ok::<_, std::convert::Infallible>("1".to_owned())) {
            Ok(_) | Err(UrlFillError::Dots | UrlFillError::Empty { .. }) => Ok(template),
            Err(UrlFillError::Url(error)) => Err(error.into()),
            Err(UrlFillError::Value { source, .. }) => match source {},
        }
    }
}

/// As it is written.
impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(template: &str, value: &str) -> Result<String, UrlFillError<()>> {
        let template: UrlTemplate = template.parse().unwrap();
        template.fill(&mut |_| Ok(value.to_owned())).map(|url| url.to_string())
    }

    #[test]
    fn a_value_stands_for_itself() {
        for (value, path) in [
            ("a7", "a7"),
            ("2024/11", "2024/11"),
            ("a b?c#d&e%f", "a%20b%3Fc%23d%26e%25f"),
            ("ü", "%C3%BC"),
            ("..x", "..x"),
            ("a\r\nb", "a%0D%0Ab"),
        ] {
            let expected = format!("http://h/m/{path}/");
            assert_eq!(filled("http://h/m/{1}/", value), Ok(expected), "{value}");
        }
        assert_eq!(filled("http://h/?v={1}&w={{}}", "1=2"), Ok("http://h/?v=1%3D2&w={}".into()));
    }

    #[test]
    fn no_value_leads_elsewhere() {
        for value in ["..", "a/../b", "."] {
            assert_eq!(filled("http://h/m/{1}/", value), Err(UrlFillError::Dots), "{value}");
        }
        assert_eq!(filled("http://h/m/.{1}/", "."), Err(UrlFillError::Dots));
        let placeholder = "1".to_owned();
        assert_eq!(filled("http://h/{1}", ""), Err(UrlFillError::Empty { placeholder }));
    }

    #[test]
    fn a_placeholder_is_behind_the_host() {
        let said = |text: &str| text.parse::<UrlTemplate>().unwrap_err().to_string();
        let host = "{1} stands before the path: a message must not choose the host";
        for text in ["http://{1}/", "http://h{1}", "https://h:{1}/"] {
            assert_eq!(said(text), host, "{text}");
        }
        assert!(said("{1}").starts_with("expected a URL that starts with http://"));
        assert!(said("rec.example.com/{1}").starts_with("expected a URL that starts with"));
        assert!(said("http://h/{1").contains("does not end"));
        assert!(said("http://h/a b/{1}").contains("cannot be sent"));
        assert!(said("http://h:x/{1}").contains("host of the URL"));
    }

    proptest! {
        /// Whatever the value, the URL is one on the same host, and the value is in it once more.
        #[test]
        fn the_host_stays(value in "\\PC{1,20}") {
            let template: UrlTemplate = "http://h:81/a/{1}?x={1}".parse().unwrap();
            match template.fill(&mut |_| Ok::<_, ()>(value.clone())) {
                Ok(url) => {
                    prop_assert_eq!(url.authority(), "h:81");
                    prop_assert_eq!(url.path_and_query().matches('?').count(), 1);
                }
                Err(fault) => prop_assert_eq!(fault, UrlFillError::Dots),
            }
        }
    }
}
