//! Layer 0: the product's nouns. Plain values, no behaviour beyond parsing and printing.

mod address;
mod duration;
mod name;
mod pointer;
mod secret;
mod time;
mod untrusted;
mod url;
mod version;

pub use address::{AddressError, HostPort};
pub use duration::{DurationError, format_duration, parse_duration};
pub use name::{EndpointName, NameError, NodeName, OriginName, VariantName};
pub use pointer::{PointerValue, ValueFault, VersionedUrl, VersionedUrlError};
pub use secret::Secret;
pub use time::Timestamp;
pub use untrusted::Untrusted;
pub use url::{HttpUrl, Scheme, UrlError};
pub use version::{Mark, Relation, Version, VersionError};
