//! Layer 2: from what was observed to what it means.
//!
//! Three steps that stay apart: an [`Observation`] says what happened during one fetch; a
//! [`Compare`] rule says what makes two answers the same version; the rest of this module says
//! whether that was good.

mod compare;
mod observation;

pub use compare::Compare;
pub use observation::{
    Answer, CacheSigns, Condition, Failure, FetchRequest, Observation, Outcome, Phase, Phases,
    Target, Unversioned, Validators,
};
