//! Layer 2: the pure core of the daemon.

mod record;
mod snapshot;

pub use record::{HistoryRecord, Record, Restored, VerdictRecord};
pub use snapshot::{AdminState, NodeSnapshot, Snapshot, TargetSnapshot};
