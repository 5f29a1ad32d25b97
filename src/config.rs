//! Layer 4: the configuration: raw, resolved, diagnostics.
