//! The head of the answer to a command such as `PURGE`.

use http::Response;
use http::header::{HeaderMap, HeaderValue, LOCATION, VIA};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;

use crate::httpcache;
use crate::verdict::CacheSigns;

/// The head of the answer to [`Destination::command`](super::Destination::command).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The reason phrase as sent, where it is not the usual one: VCL likes to say there what it did.
    pub phrase: Option<String>,
    /// What the answer says about the caches that it came through.
    pub cache: CacheSigns,
    /// `Location`.
    pub location: Option<String>,
    /// The `Via` entry of the last cache.
    pub via: Option<String>,
}

impl Reply {
    pub(super) fn of(head: &Response<Incoming>) -> Self {
        let headers = head.headers();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let phrase = head.extensions().get::<ReasonPhrase>();
        let value = |value: Option<&HeaderValue>| value.map(|value| text(value.as_bytes()));
        Self {
            status: head.status().as_u16(),
            phrase: phrase.map(|phrase| text(phrase.as_bytes())),
            cache: cache_signs(headers),
            location: value(headers.get(LOCATION)),
            via: value(headers.get_all(VIA).iter().next_back()),
        }
    }
}

/// What an answer says about the caches that it came through.
pub(super) fn cache_signs(headers: &HeaderMap) -> CacheSigns {
    CacheSigns {
        transaction: httpcache::transaction(headers),
        is_varnish: httpcache::cache_kind(headers).is_some(),
        age: httpcache::age(headers),
    }
}
