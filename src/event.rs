//! Layer 1: invalidation events, as they come from a stream, a channel or over HTTP.

mod pattern;
mod placeholder;

pub use pattern::{Pattern, PatternError};
pub use placeholder::{MOST_CAPTURES, Placeholder, PlaceholderError};
