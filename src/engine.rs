//! Layer 2: the pure core of the daemon.
