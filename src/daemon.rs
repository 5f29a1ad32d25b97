//! Layer 4: wiring, reload, shutdown.

mod canary;
mod driver;
mod errands;
mod evidence;
mod journal;
mod ledger;
mod peers;
mod plan;
mod remedy;
mod run;

pub use driver::{Driver, Event};
pub use evidence::{Asked, Gatherer, MissedBan};
pub use peers::{AdminPeer, PeerError, Peers, admin_target};
pub use plan::{plan, watch_plans};
pub use run::{RunError, run};
