//! Layer 1: the Varnish CLI protocol, sans-I/O.
//!
//! Bytes in, replies out: nothing here opens a socket or waits. The facts come from the manual
//! page varnish-cli(7) and from varnishd itself: `fixtures/transcripts` holds what it sent.
//!
//! | module | one idea |
//! |---|---|
//! | `status` | the three digits in front of every reply |
//! | `frame` | where one reply ends in a stream of bytes |
//! | `auth` | the challenge, and the line that answers it |
//! | `quote` | arguments as bytes, spelt so that every version reads them back the same |
//! | `command` | one line that is one command and cannot become two |
//! | `requests` | a constructor for each command |
//! | `here` | whether a here document begins with a line |
//! | `script` | a stream of typed lines, cut into requests as varnishd reads them |
//! | [`answer`] | what replies say, as types |
//! | `reply` | one answer, and how to show text that a peer wrote |
//! | `banner` | what a server says of itself |
//! | `session` | greeting, authentication, then replies in the order of their commands |
//! | `codec` | the parser as a `tokio_util` codec |
//!
//! What it upholds: no input, however cut, chunked or hostile, panics, loops, or makes it hold more
//! than the limit it was given; and no command can be built that varnishd reads as two, or that
//! leaves it waiting for more.

pub mod answer;
mod auth;
mod banner;
mod codec;
mod command;
mod frame;
mod here;
mod quote;
mod reply;
mod requests;
mod script;
mod session;
mod status;

pub use auth::{CHALLENGE_LENGTH, Challenge};
pub use banner::{Banner, ServerVersion};
pub use codec::{Codec, CodecError};
pub use command::{Command, CommandError, Verb};
pub use frame::{Frame, FrameError, HEADER_LENGTH, Impostor, parse};
pub use quote::{QuoteError, SplitError, quote, split};
pub use reply::{Excerpt, Reply};
pub use requests::{SetHealth, VclState};
pub use script::{REQUEST_LIMIT, Request, RequestError, RequestFault, Script};
pub use session::{Event, Expect, Phase, Session, Violation};
pub use status::Status;
