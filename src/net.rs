//! Layer 3: dialling and TLS.

mod dial;

pub use dial::{Attempt, DialError, DialErrorKind, Dialled, dial};
