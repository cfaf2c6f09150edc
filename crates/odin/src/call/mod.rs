//! The life of a call.
//!
//! Many parts see a call: a backend that may die, a gateway, Pushpin, a worker that may be paused. The truth
//! is in one place, the call's [`Record`], changed only by the small atomic transitions in
//! this module. [`crate::store`] gives them two homes: Redis, and the memory of one process.
//! [`Delivery`] is the worker's side: what it may send to the client, and when. [`direct`] is what comes before
//! the record, for a call that is handed straight to a worker.
//!
//! The transitions were model-checked; a comment names the hole that a rule closes where it isn't plain.

mod actions;
mod delivery;
pub mod direct;
mod job;
mod record;
mod takeover;
pub mod task;
mod types;

pub use actions::{Action, DeliveryLimits, Exit, HANG_UP, Input, Link, Send, SendOutcome};
pub use delivery::Delivery;
pub use job::{Job, TaskContext};
pub use record::Record;
pub use types::{
    Claim, Enqueue, Fence, Gone, Join, Message, Offer, Order, OrphanedStream, Parties, Reach, Read,
    Registrant, Rerun, Resume, Retry, Run, Snapshot, State, Timing, Via, Whose, Withdraw,
};
