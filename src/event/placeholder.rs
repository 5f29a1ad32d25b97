//! What a template may have filled in from a message.

use std::fmt;
use std::str::FromStr;

use crate::model::{JsonPointer, JsonPointerError};

/// The most `*` of a pattern that can be referred to.
pub const MOST_CAPTURES: u8 = 9;

/// A place of a template: what stands between its braces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// `{1}` to `{9}`: what that `*` of the channel's pattern matched.
    Capture(u8),
    /// `{channel}`: the channel that the message came on.
    Channel,
    /// `{payload}`: the whole message.
    Payload,
    /// `{json:/POINTER}`: a value within the message, which is JSON.
    Json(JsonPointer),
}

/// A text that is no [`Placeholder`]. The fault of whoever wrote the template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// There is no such placeholder.
    #[error(
        "there is no placeholder {{{got}}}: expected {{1}} to {{9}}, {{channel}}, {{payload}} or \
         {{json:/POINTER}}"
    )]
    Unknown {
        /// What stands between the braces.
        got: String,
    },
    /// What follows `json:` is no JSON pointer.
    #[error("{{json:...}} needs the place of a value")]
    Pointer(#[source] JsonPointerError),
}

impl FromStr for Placeholder {
    type Err = PlaceholderError;

    fn from_str(text: &str) -> Result<Self, PlaceholderError> {
        match text.as_bytes() {
            b"channel" => Ok(Self::Channel),
            b"payload" => Ok(Self::Payload),
            [digit @ b'1'..=b'9'] => Ok(Self::Capture(digit - b'0')),
            _ => match text.strip_prefix("json:") {
                Some(pointer) => pointer.parse().map(Self::Json).map_err(PlaceholderError::Pointer),
                None => Err(PlaceholderError::Unknown { got: text.to_owned() }),
            },
        }
    }
}

/// As it stands between the braces.
impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capture(number) => write!(f, "{number}"),
            Self::Channel => f.write_str("channel"),
            Self::Payload => f.write_str("payload"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_printed_as_it_is_read() {
        for text in ["1", "9", "channel", "payload", "json:/a~1b/0"] {
            assert_eq!(text.parse::<Placeholder>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "10", "Channel", "json:", "json:a", "value", " 1"] {
            assert!(wrong.parse::<Placeholder>().is_err(), "{wrong}");
        }
    }
}
