//! The integration tests: one binary, so that real servers are built against once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test that panics has failed, which is what is wanted"
)]

mod adm;
mod admin;
mod ban;
mod canary;
mod cause;
mod check;
mod config;
mod events;
mod expose;
mod faults;
mod fleet;
mod incident;
mod ingest;
mod invalidation;
mod kill;
mod layers;
mod ledger;
mod pointer;
mod probe;
mod publish;
mod purge;
mod readme;
mod remedy;
mod reverse;
mod rules;
mod scenarios;
mod script;
mod store;
mod support;
mod systemd;
mod typed;
mod wait;
mod watch;
mod workdir;
