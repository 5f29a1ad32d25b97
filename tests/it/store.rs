//! What survives a restart, and what a damaged file does.
