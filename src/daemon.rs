//! Layer 4: wiring, reload, shutdown.

mod canary;
mod driver;
mod entrance;
mod errands;
mod events;
mod evidence;
mod journal;
mod ledger;
mod peers;
mod plan;
mod pointer;
mod remedy;
mod run;

pub use driver::{Driver, Event};
pub use entrance::EntranceError;
pub use events::{SourceError, redis_options};
pub use evidence::{Asked, Gatherer, MissedBan};
pub use peers::{AdminPeer, PeerError, Peers, admin_target};
pub use plan::{plan, watch_plans};
pub use run::{RunError, run};
