//! Layer 0: the product's nouns. Plain values, no behaviour beyond parsing and printing.

mod address;
mod duration;
mod json_pointer;
mod name;
mod secret;
mod template;
mod time;
mod untrusted;
mod url;
mod url_template;
mod version;

pub use address::{AddressError, HostPort};
pub use duration::{DurationError, format_duration, parse_duration};
pub use json_pointer::{JsonPointer, JsonPointerError};
pub use name::{EndpointName, HostName, NameError, NodeName, OriginName, VariantName};
pub use secret::Secret;
pub use template::{TextPart, TextTemplate, TextTemplateError};
pub use time::Timestamp;
pub use untrusted::Untrusted;
pub use url::{HttpUrl, Scheme, UrlError};
pub use url_template::{UrlFillError, UrlTemplate, UrlTemplateError};
pub use version::{Mark, Relation, Version, VersionError};
