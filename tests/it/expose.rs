//! The HTTP listener and its metrics.
