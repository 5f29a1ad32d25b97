//! Layer 3: connections to the admin port of varnishd.
//!
//! [`Client`] is a handle; behind all its clones one task owns one socket and reads from it at all
//! times, since varnishd serves its admin connections one after the other and a client that does
//! not read holds up everybody. Commands are pipelined within a window. A reply belongs to the
//! oldest command without one, also when whoever asked has gone: it is read and thrown away.
//!
//! A program that uses it makes one [`Client`] for each varnishd, keeps it, and clones it freely.
//! It needs a tokio runtime with its timer and I/O on.
//!
//! - Methods such as [`Client::ban_list`] are a command each, and read its reply as a type of
//!   [`protocol::answer`](crate::protocol::answer). [`Client::run`] sends anything else and returns
//!   the text; [`Client::batch`] sends many in order, several at a time.
//! - Every future may be dropped at any time: a command that was not written yet is not sent, and
//!   the reply to one that was reaches nobody. Whether that one was carried out is unknown.
//! - Every wait has a limit ([`Options`], durations) and every buffer a cap (in bytes). A command
//!   that may take longer than others goes through [`Client::patient`].
//! - An [`AdminError`] names the node, the step and what happened; whose fault it is
//!   ([`AdminError::fault`]), whether trying again can help ([`AdminError::retry`]), whether the
//!   command may have been carried out all the same ([`AdminError::outcome`]), what varnishd said
//!   ([`AdminError::words`]), and a label for a metric ([`AdminError::label`], a closed set).
//! - What varnishd sends is not trusted. Text from it is shown through
//!   [`Excerpt`](crate::protocol::Excerpt), which no terminal obeys; lists say whether they are
//!   complete.
//!
//! The code that uses a client can be tested without a varnishd: [`Scripted`] plays one over
//! memory, and [`Client::over`] takes any stream.
//!
//! ```
//! use purgewatch::admin::{AdminError, Client, Options, Scripted};
//! use purgewatch::protocol::VclState;
//!
//! /// Loads a VCL and uses it; what the compiler said if it did not like it.
//! async fn deploy(client: &Client, name: &str, vcl: &str) -> Result<(), AdminError> {
//!     let patient = client.patient(std::time::Duration::from_secs(120));
//!     patient.inline_vcl(name, vcl.as_bytes(), VclState::Auto).await?;
//!     client.use_vcl(name).await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, varnishd) = Scripted::new()
//!     .with_secret(b"a secret\n")
//!     .expect(r"vcl.inline v2 vcl\x204.1; auto", 106, "No backends or directors found\n")
//!     .start(Options::default())?;
//!
//! let error = deploy(&client, "v2", "vcl 4.1;").await.unwrap_err();
//! assert_eq!(error.label(), "rejected");
//! assert_eq!(error.words().map(|words| &words[..]), Some(&b"No backends or directors found\n"[..]));
//! varnishd.finish().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | one idea |
//! |---|---|
//! | `target` | which node, and where its secret comes from |
//! | `place` | where its admin port is |
//! | `workdir` | finding the admin port of a varnishd on this machine |
//! | `acceptor` | reverse mode: varnishd dials in |
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

mod acceptor;
mod ask;
mod backoff;
mod batch;
mod check;
mod client;
mod connection;
mod error;
mod options;
mod place;
mod scripted;
mod socket;
mod target;
mod task;
mod workdir;

pub use acceptor::Acceptor;
pub use batch::Batch;
pub use check::{PathCheck, check_path};
pub use client::Client;
pub use connection::{Greeting, Note};
pub use error::{AdminError, Fault, Kind, LABELS, Outcome, Retry, Stage};
pub use options::Options;
pub use place::Place;
pub use scripted::{Performance, PerformanceError, Scripted};
pub use target::{SECRET_LIMIT, SecretSource, Target};
pub use workdir::{IndexError, Instance, PieceError, Unreadable, Workdir, WorkdirError};
