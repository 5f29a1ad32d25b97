//! Events as JSON.

use serde::{Deserialize, Serialize};

use crate::model::{
    AddressError, DurationError, EndpointName, HttpUrl, NameError, NodeName, Untrusted, UrlError,
    parse_duration,
};

use super::object::Object;
use super::{Event, EventError, LONGEST_EVENT, SCHEMA, timestamp};

/// As it is written: short lists may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    schema: Option<u64>,
    id: Option<String>,
    bans: Vec<String>,
    urls: Vec<String>,
    endpoints: Vec<String>,
    verify: Vec<String>,
    nodes: Option<Vec<String>>,
    prove: Option<String>,
    everything: bool,
    allow_slow_regex: bool,
    reason: Option<String>,
    issued: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    bans: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verify: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prove: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    everything: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_slow_regex: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<f64>,
}

impl Event {
    /// Reads an event: one JSON object. `schema` may be left out; keys that there are not are
    /// refused, since a word that is not understood may be the one that matters.
    ///
    /// # Errors
    /// [`EventError`] says what is wrong with it.
    pub fn from_json(text: &[u8]) -> Result<Self, EventError> {
        if text.len() > LONGEST_EVENT {
            return Err(EventError::TooLarge { got: text.len() });
        }
        let Object(written) = serde_json::from_slice::<Object<Written>>(text).map_err(|error| {
            let detail = excerpt(&error.to_string());
            if error.is_data() {
                EventError::Shape { detail }
            } else {
                EventError::Syntax { detail }
            }
        })?;
        if let Some(got) = written.schema.filter(|schema| *schema != SCHEMA) {
            return Err(EventError::Schema { got });
        }
        let nodes = written.nodes.map(|nodes| nodes.iter().map(|name| node(name)).collect());
        let prove = written.prove.map(|text| parse_duration(&text)).transpose();
        let issued = written.issued.map(|seconds| {
            let got = seconds.to_string();
            timestamp(seconds).ok_or(EventError::Issued { got })
        });
        Self {
            id: written.id,
            bans: written.bans,
            urls: written.urls.iter().map(|text| url(text)).collect::<Result<_, _>>()?,
            endpoints: written.endpoints.iter().map(|n| endpoint(n)).collect::<Result<_, _>>()?,
            verify: written.verify.iter().map(|n| endpoint(n)).collect::<Result<_, _>>()?,
            nodes: nodes.transpose()?,
            prove: prove.map_err(|error| duration(&error))?,
            everything: written.everything,
            allow_slow_regex: written.allow_slow_regex,
            reason: written.reason,
            issued: issued.transpose()?,
        }
        .checked()
    }

    /// The event as one line of JSON, which [`from_json`](Self::from_json) reads back.
    #[must_use]
    pub fn to_json(&self) -> String {
        let names = |names: &'_ [EndpointName]| -> Vec<String> {
            names.iter().map(ToString::to_string).collect()
        };
        let (endpoints, verify) = (names(&self.endpoints), names(&self.verify));
        let nodes = self.nodes.as_ref();
        let document = Document {
            schema: SCHEMA,
            id: self.id.as_deref(),
            bans: &self.bans,
            urls: self.urls.iter().map(ToString::to_string).collect(),
            endpoints: endpoints.iter().map(String::as_str).collect(),
            verify: verify.iter().map(String::as_str).collect(),
            nodes: nodes.map(|nodes| nodes.iter().map(NodeName::as_str).collect()),
            prove: self.prove.map(|prove| format!("{}ms", prove.as_millis())),
            everything: self.everything,
            allow_slow_regex: self.allow_slow_regex,
            reason: self.reason.as_deref(),
            issued: self.issued.map(|at| at.as_seconds()),
        };
        // Strings and numbers that are finite cannot fail.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

pub(super) fn url(text: &str) -> Result<HttpUrl, EventError> {
    text.parse().map_err(|source| EventError::Url { got: excerpt(text), source: short(source) })
}

pub(super) fn endpoint(text: &str) -> Result<EndpointName, EventError> {
    EndpointName::new(text).map_err(|source| name("an endpoint", text, source))
}

pub(super) fn node(text: &str) -> Result<NodeName, EventError> {
    NodeName::new(text).map_err(|source| name("a node", text, source))
}

fn name(what: &'static str, text: &str, source: NameError) -> EventError {
    EventError::Name { what, got: excerpt(text), source }
}

pub(super) fn duration(error: &DurationError) -> EventError {
    EventError::Duration(DurationError { got: excerpt(&error.got) })
}

/// The error without a text of any length in it.
fn short(error: UrlError) -> UrlError {
    match error {
        UrlError::Scheme { got } => UrlError::Scheme { got: excerpt(&got) },
        UrlError::Authority(AddressError::NoPort { got }) => {
            UrlError::Authority(AddressError::NoPort { got: excerpt(&got) })
        }
        UrlError::Authority(AddressError::Port { got }) => {
            UrlError::Authority(AddressError::Port { got: excerpt(&got) })
        }
        UrlError::Authority(AddressError::Host { got }) => {
            UrlError::Authority(AddressError::Host { got: excerpt(&got) })
        }
        other => other,
    }
}

/// At most the first 200 characters or so, safe to show.
pub(super) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", Untrusted(text.get(..end).unwrap_or_default())),
        None => Untrusted(text).to_string(),
    }
}
