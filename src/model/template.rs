//! Texts with places to fill in: `/models/{1}`.

use std::fmt;

/// A text with places to fill in.
///
/// `{NAME}` is such a place, `{{` and `}}` are the braces themselves. What a name means, and what
/// may be filled in, is for whoever reads the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTemplate {
    parts: Vec<TextPart>,
}

/// A part of a [`TextTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPart {
    /// Stands as it is; never empty.
    Literal(String),
    /// Is filled in; the name between the braces, never empty.
    Placeholder(String),
}

/// Why a text is no template. The fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextTemplateError {
    /// A `{` without its `}`.
    #[error("\"{after}\" opens a placeholder that does not end: write {{{{ for a brace")]
    Open {
        /// What follows, the brace included; cut short.
        after: String,
    },
    /// A `}` without its `{`.
    #[error("\"}}\" closes no placeholder: write }}}} for a brace")]
    Close,
    /// `{}`, or a brace within a name.
    #[error("\"{{{got}}}\" is no placeholder: write {{{{ and }}}} for braces")]
    Name {
        /// What stands between the braces, cut short.
        got: String,
    },
}

impl TextTemplate {
    /// Takes a text apart.
    ///
    /// # Errors
    /// [`TextTemplateError`] where braces do not pair.
    pub fn parse(text: &str) -> Result<Self, TextTemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(inner) = from.strip_prefix('{') {
                let (name, after) = inner
                    .split_once('}')
                    .ok_or_else(|| TextTemplateError::Open { after: short(from) })?;
                if name.is_empty() || name.contains('{') {
                    return Err(TextTemplateError::Name { got: short(name) });
                }
                if !literal.is_empty() {
                    parts.push(TextPart::Literal(std::mem::take(&mut literal)));
                }
                parts.push(TextPart::Placeholder(name.to_owned()));
                rest = after;
            } else {
                return Err(TextTemplateError::Close);
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TextPart::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The parts, in order. No two literals stand side by side.
    #[must_use]
    pub fn parts(&self) -> &[TextPart] {
        &self.parts
    }

    /// The names of the places to fill in, in order, each as often as it stands there.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            TextPart::Placeholder(name) => Some(name.as_str()),
            TextPart::Literal(_) => None,
        })
    }
}

/// As it is written.
impl fmt::Display for TextTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                TextPart::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                TextPart::Placeholder(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let template = TextTemplate::parse(text).unwrap();
        let shown = |part: &TextPart| match part {
            TextPart::Literal(text) => text.clone(),
            TextPart::Placeholder(name) => format!("<{name}>"),
        };
        template.parts().iter().map(shown).collect()
    }

    #[test]
    fn braces_are_doubled_to_stand_for_themselves() {
        assert_eq!(parts(""), Vec::<String>::new());
        assert_eq!(parts("/a/{1}/{json:/b c}"), ["/a/", "<1>", "/", "<json:/b c>"]);
        assert_eq!(parts("a{{2}}{1}{{"), ["a{2}", "<1>", "{"]);
        assert_eq!(parts("{{{1}}}"), ["{", "<1>", "}"]);
    }

    #[test]
    fn what_does_not_pair_is_said() {
        let said = |text: &str| TextTemplate::parse(text).unwrap_err().to_string();
        assert_eq!(
            said("a{1"),
            r#""{1" opens a placeholder that does not end: write {{ for a brace"#
        );
        assert_eq!(said("a}"), r#""}" closes no placeholder: write }} for a brace"#);
        assert_eq!(said("a{}"), r#""{}" is no placeholder: write {{ and }} for braces"#);
        assert_eq!(said("{a{1}"), r#""{a{1}" is no placeholder: write {{ and }} for braces"#);
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(text in "[a{}1]{0,12}") {
            if let Ok(template) = TextTemplate::parse(&text) {
                let again = TextTemplate::parse(&template.to_string());
                prop_assert_eq!(again, Ok(template));
            }
        }
    }
}
