//! Layer 4: the configuration.
//!
//! What is written (TOML) is parsed into what is meant: [`Config`] holds typed values in which
//! every name leads somewhere and every range was checked, so that nothing after this has to.

mod canary;
mod diagnostic;
mod document;
mod endpoint;
mod ignore;
mod invalidations;
mod load;
mod plausible;
mod pointer;
mod reader;
mod redis;
mod resolved;
mod subscription;
mod table;
mod value;

pub use canary::{CanaryObject, CanarySettings, SERVED_PATH};
pub use diagnostic::{Diagnostic, Position, Report, Severity};
pub use ignore::compile as compile_ignore;
pub use invalidations::Invalidations;
pub use load::{LARGEST_FILE, LoadError, Loaded, load, parse};
pub use pointer::Pointer;
pub use redis::{RedisSettings, RedisUrlError};
pub use resolved::{
    AdminPlace, AdminSettings, BanHeaders, Config, Daemon, Endpoint, Node, OnStale, Origin,
    SecretSettings, ServerAddress, Variant,
};
pub use subscription::{EventSource, OnGap, Scope, StreamSettings, Subscription};

/// A complete, commented configuration for one Varnish on this host: `config example`.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// The VCL for `canary = "self"`, with `@HOST@` and `@PORT@` where the daemon's address belongs:
/// `config example --vcl`.
pub const CANARY_VCL: &str = include_str!("config/canary.vcl");
