//! Layer 3: what must survive a restart.
