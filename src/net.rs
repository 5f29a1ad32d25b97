//! Layer 3: dialling and TLS.
