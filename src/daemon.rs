//! Layer 4: wiring, reload, shutdown.
