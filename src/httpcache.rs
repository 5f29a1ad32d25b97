//! Layer 1: what HTTP headers say about caches.
