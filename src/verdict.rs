//! Layer 2: from what was observed to what it means.
//!
//! Three steps that stay apart: an [`Observation`] says what happened during one fetch; a
//! [`Compare`] rule says what makes two answers the same version; the rest of this module says
//! whether that was good. Where it was not, [`cause`] says why.

pub mod cause;
mod compare;
mod comparison;
mod history;
mod observation;
pub mod proof;
mod state;

pub use cause::{Cause, Explanation};
pub use compare::{Compare, CompareError};
pub use comparison::{Comparison, Doubt, Fault, Sandwich, Sight, compare};
pub use history::{Change, HistoryParts, OriginHistory, Seen, VERSIONS_KEPT};
pub use observation::{
    Answer, CacheSigns, Condition, Failure, FetchRequest, Observation, Outcome, Phase, Phases,
    ProbeResult, Target, Unversioned, Validators,
};
pub use state::{Limits, Mismatch, State, Transition, Verdict};
