//! Layer 3: dialling and TLS.

mod dial;
pub mod tls;

pub use dial::{Attempt, DialError, DialErrorKind, Dialled, dial};
