//! Layer 1: what the header fields of an HTTP answer say about caches and versions.
//!
//! Every function takes the fields of one answer and gives nothing where they say nothing, or
//! nothing that makes sense: a peer may send any bytes.

mod freshness;
mod lifetime;
mod trace;
mod validator;

pub use freshness::{RETRY_AFTER_LIMIT, age, date, retry_after};
pub use lifetime::lifetime;
pub use trace::{CacheKind, Tiers, cache_kind, tiers, transaction};
pub use validator::{EntityTag, http_date, last_modified};
