//! Layer 4: wiring, reload, shutdown.

mod driver;
mod journal;
mod peers;
mod plan;
mod run;

pub use driver::{Driver, Event};
pub use peers::{PeerError, Peers, secret_source};
pub use plan::{plan, watch_plans};
pub use run::{RunError, run};
