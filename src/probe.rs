//! Layer 3: HTTP fetches to observations.
//!
//! A [`Destination`] is one node or one origin: where it is, how many connections it gets, those
//! that are kept open, and its TLS. [`Destination::fetch`] makes one request and says what
//! happened, as an [`Observation`](crate::verdict::Observation); whether that was good is for
//! others to say. [`Destination::command`] makes one with another method.
//!
//! A connection has no task of its own: whoever uses it drives it, and between two fetches
//! nobody does. So there is nothing to wake, nothing to stop, and a fetch that is dropped takes
//! its connection with it.

mod body;
mod coding;
mod connection;
mod destination;
mod json;
mod progress;
mod reply;
mod request;
mod stream;
mod version;

pub use destination::{Destination, Options};
pub use reply::Reply;
