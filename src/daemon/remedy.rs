//! What bans a stale endpoint, where the configuration wants that.

use super::errands::ban_headers;
use crate::ban::{self, Expression, Reach};
use crate::config::{Endpoint, OnStale};

/// The ban on exactly the endpoint's URL and host; `None` where nothing is to be banned.
pub(super) fn ban(endpoint: &Endpoint) -> Option<Expression> {
    if endpoint.on_stale != OnStale::Ban {
        return None;
    }
    let headers = endpoint.ban_headers.as_ref().and_then(ban_headers);
    ban::for_url(&endpoint.url, Reach::Exact, headers.as_ref()).ok()
}
