//! Layer 5: arguments, one module a command, exit codes, output.
