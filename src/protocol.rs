//! Layer 1: the Varnish CLI protocol, sans-I/O.
