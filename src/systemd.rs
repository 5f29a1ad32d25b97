//! Layer 3: readiness, watchdog, credentials.
