//! Layer 3: connections to the admin port of varnishd.
//!
//! [`Client`] is a handle; behind all its clones one task owns one socket and reads from it at all
//! times, since varnishd serves its admin connections one after the other and a client that does
//! not read holds up everybody. Commands are pipelined within a window. A reply belongs to the
//! oldest command without one, also when whoever asked has gone: it is read and thrown away.
//!
//! | module | one idea |
//! |---|---|
//! | `target` | which node, and where its secret comes from |
//! | `options` | every limit, in one place |
//! | `error` | what went wrong, whose fault it is, what to do next |
//! | `connection` | from a socket to a session that is ready |
//! | `backoff` | how long to wait before connecting again |
//! | `task` | the owner of the socket |
//! | `client` | the handle, one command at a time |
//! | `ask` | commands whose replies are read as types |
//! | `batch` | many commands in order |
//! | `scripted` | a varnishd that plays a part, for tests of callers |
//! | `check` | does the path to a node work, from the name to a `PONG` |

mod ask;
mod backoff;
mod batch;
mod check;
mod client;
mod connection;
mod error;
mod options;
mod scripted;
mod target;
mod task;

pub use batch::Batch;
pub use check::{PathCheck, check_path};
pub use client::Client;
pub use connection::{Greeting, Note};
pub use error::{AdminError, Fault, Kind, LABELS, Outcome, Retry, Stage};
pub use options::Options;
pub use scripted::{Performance, PerformanceError, Scripted};
pub use target::{SECRET_LIMIT, SecretSource, Target};
