//! Layer 3: metrics and the HTTP listener.
