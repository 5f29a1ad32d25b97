//! Layer 3: connections to the admin port of varnishd.
