//! Layer 3: what systemd wants to know of the daemon, and what it hands over.
//!
//! The protocol is that of sd_notify(3): datagrams to the socket named by `NOTIFY_SOCKET`. Outside
//! of systemd everything here does nothing.

mod credentials;
mod notify;

pub use credentials::{CredentialError, Credentials};
pub use notify::{Notifier, Watchdog};
