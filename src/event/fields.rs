//! Events as the fields of a stream's entry.

use crate::model::parse_duration;

use super::json::{duration, endpoint, excerpt, node, url};
use super::{Event, EventError, LONGEST_EVENT, timestamp};

/// The field that holds a whole event as JSON.
const WHOLE: &str = "event";

/// The fields of an event that is written plainly.
const PLAIN: [&str; 11] = [
    "ban",
    "url",
    "endpoint",
    "verify",
    "node",
    "prove",
    "everything",
    "allow_slow_regex",
    "reason",
    "id",
    "issued",
];

impl Event {
    /// The name of the field in which a stream's entry holds an event as JSON.
    pub const FIELD: &'static str = WHOLE;

    /// Reads the fields of a stream's entry: either `event`, which holds JSON, or plain ones.
    ///
    /// `ban`, `url`, `endpoint`, `verify` and `node` may stand there several times, the others
    /// once. Names are lower case.
    ///
    /// # Errors
    /// [`EventError`] says what is wrong with it.
    pub fn from_fields<'f>(
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
    ) -> Result<Self, EventError> {
        let mut whole: Option<&[u8]> = None;
        let mut plain: Vec<(&'static str, &[u8])> = Vec::new();
        let mut size = 0_usize;
        for (name, value) in fields {
            size = size.saturating_add(name.len()).saturating_add(value.len());
            if size > LONGEST_EVENT + WHOLE.len() {
                return Err(EventError::TooLarge { got: size });
            }
            if name == WHOLE.as_bytes() {
                if whole.replace(value).is_some() {
                    return Err(EventError::Repeated { field: WHOLE });
                }
            } else if let Some(known) = PLAIN.into_iter().find(|known| known.as_bytes() == name) {
                plain.push((known, value));
            } else {
                let got = excerpt(&String::from_utf8_lossy(name));
                return Err(EventError::UnknownField { got });
            }
        }
        match (whole, plain.first()) {
            (Some(json), None) => Self::from_json(json),
            (Some(_), Some(&(other, _))) => Err(EventError::Mixed { other }),
            (None, _) => from_plain(&plain),
        }
    }
}

fn from_plain(fields: &[(&'static str, &[u8])]) -> Result<Event, EventError> {
    let mut event = Event::default();
    let (mut everything, mut allow_slow_regex) = (None, None);
    for &(field, value) in fields {
        let text = std::str::from_utf8(value).map_err(|_| EventError::NotText { field })?;
        let twice = || EventError::Repeated { field };
        match field {
            "ban" => event.bans.push(text.to_owned()),
            "url" => event.urls.push(url(text)?),
            "endpoint" => event.endpoints.push(endpoint(text)?),
            "verify" => event.verify.push(endpoint(text)?),
            "node" => event.nodes.get_or_insert_default().push(node(text)?),
            "prove" => {
                let prove = parse_duration(text).map_err(|error| duration(&error))?;
                once(&mut event.prove, prove).ok_or_else(twice)?;
            }
            "everything" => once(&mut everything, flag(field, text)?).ok_or_else(twice)?,
            "allow_slow_regex" => {
                once(&mut allow_slow_regex, flag(field, text)?).ok_or_else(twice)?;
            }
            "reason" => once(&mut event.reason, text.to_owned()).ok_or_else(twice)?,
            "id" => once(&mut event.id, text.to_owned()).ok_or_else(twice)?,
            "issued" => {
                let seconds = text.parse().ok().and_then(timestamp);
                let at = seconds.ok_or_else(|| EventError::Issued { got: excerpt(text) })?;
                once(&mut event.issued, at).ok_or_else(twice)?;
            }
            other => return Err(EventError::UnknownField { got: other.to_owned() }),
        }
    }
    event.everything = everything.unwrap_or_default();
    event.allow_slow_regex = allow_slow_regex.unwrap_or_default();
    event.checked()
}

fn flag(field: &'static str, text: &str) -> Result<bool, EventError> {
    text.parse().map_err(|_| EventError::Flag { field, got: excerpt(text) })
}

/// Sets what was not set before.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}
