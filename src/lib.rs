//! purgewatch bans and purges on Varnish, and watches that it worked.
//!
//! Two things in one crate: a client of the Varnish admin protocol that tells the truth about
//! bans, and a daemon that compares what caches serve with what their origins serve.
//!
//! # Layers
//!
//! Imports run strictly downwards; a test reads the sources and holds them to this table.
//!
//! | layer | modules | may touch |
//! |---|---|---|
//! | 5 | `commands` | everything below: arguments, exit codes, output |
//! | 4 | `daemon`, `config` | everything below; `daemon` may use `config` |
//! | 3 | `admin`, `probe`, `ingest`, `store`, `expose`, `systemd`, `net`, `clock` | sockets, files, the clock. Each alone: of the others it may use only `net` and `clock` |
//! | 2 | `engine`, `verdict` | nothing outside; `engine` may use `verdict` |
//! | 1 | `protocol`, `ban`, `httpcache`, `event` | nothing outside, nor each other |
//! | 0 | `model` | nothing |
//!
//! # Invariants
//!
//! - Nothing in layers 0 to 2 opens a socket, reads a clock, an environment variable or a file,
//!   logs, or spawns. Time is a parameter.
//! - Modules of layer 3 take plain option structs, never the configuration.
//! - A secret is never logged, never an argument, never in an error.
//! - "Unknown" is a state of its own: never fresh, never stale.

pub mod admin;
pub mod ban;
pub mod clock;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod event;
pub mod expose;
pub mod httpcache;
pub mod ingest;
pub mod model;
pub mod net;
pub mod probe;
pub mod protocol;
pub mod store;
pub mod systemd;
pub mod verdict;
