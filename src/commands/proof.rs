//! Proof of an invalidation over HTTP, for the commands that make one.
//!
//! A [`Plan`] says what is looked at where. A [`Witness`] looks at one URL at one node: once or
//! twice before, and as often afterwards as [`Prover`](crate::verdict::proof::Prover) asks. What it
//! found is an [`Attested`].

mod look;
mod plan;
mod report;
mod witness;

pub(super) use look::{Seen, look_at_all};
pub(super) use plan::{Evidence, Named, Plan, Watch};
pub(super) use report::{Item, exit, items, line, show};
pub(super) use witness::{Attested, Peers, Witness};
