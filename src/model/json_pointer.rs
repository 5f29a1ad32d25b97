//! Where a value stands within a JSON text.

use std::fmt;
use std::str::FromStr;

/// A JSON pointer (RFC 6901) to a value within a document: one `/` at least, since the empty
/// pointer names the whole document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonPointer(String);

/// A text that is no [`JsonPointer`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON pointer such as /version, got {got:?}")]
pub struct JsonPointerError {
    /// What was written.
    pub got: String,
}

impl JsonPointer {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names (or, in an array, the numbers) of the members on the way, unescaped.
    pub fn steps(&self) -> impl Iterator<Item = String> {
        // In this order: `~01` is `~1` (section 4).
        self.0.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
    }
}

impl FromStr for JsonPointer {
    type Err = JsonPointerError;

    fn from_str(text: &str) -> Result<Self, JsonPointerError> {
        // Section 3: each step is led by `/`, and `~` is followed by 0 or 1.
        let escapes_hold = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if text.starts_with('/') && escapes_hold {
            Ok(Self(text.to_owned()))
        } else {
            Err(JsonPointerError { got: text.to_owned() })
        }
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_led_by_a_slash() {
        let steps =
            |text: &str| -> Vec<String> { text.parse::<JsonPointer>().unwrap().steps().collect() };
        assert_eq!(steps("/a/0"), ["a", "0"]);
        assert_eq!(steps("/"), [""]);
        assert_eq!(steps("/a~1b/~01"), ["a/b", "~1"]);
        for wrong in ["", "a", "a/b", "/~", "/~2", "#/a"] {
            assert!(wrong.parse::<JsonPointer>().is_err(), "{wrong}");
        }
    }
}
