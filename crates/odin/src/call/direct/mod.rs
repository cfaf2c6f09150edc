//! A call that is handed straight to a worker: what its backend and its worker do until the store knows of it, if it
//! ever has to.
//!
//! [`Handed`] is the backend's side, [`DirectRun`] the worker's: two state machines without any I/O. A link between
//! backend and worker carries [`Heard`] one way, and DISPATCH, CANCEL and GOT the other. Each side sees by itself
//! that a link is broken. The simulation drives the very same code.
//!
//! The rules were model-checked; a comment names the hole that a rule closes where it isn't plain.

mod handed;
mod run;

pub use handed::{Handed, Left, Next};
pub use run::{DirectInput, DirectRun, Step};

use std::time::Duration;

use super::Message;

/// Whether a worker may begin a call whose backend saw a heartbeat of that age last; none: one that was never sent.
/// Otherwise its client may have got the error that it is lost.
pub fn is_fresh(age: Option<Duration>, lease: Duration) -> bool {
    age.is_some_and(|age| age <= lease)
}

/// What a backend hears from the worker of a call, on the link that it sent the call on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// No slot was free, or the worker is stopping: it does not run the call.
    Busy,
    /// The answer. The worker has forgotten the call, and the store never heard of it.
    Answer(Message),
    /// The answer; the worker does not know yet whether the store has the call. Confirmed with GOT, whether or not
    /// anybody waits for it.
    AnswerInDoubt(Message),
    /// From now on the record counts.
    Registered,
    /// The record may have changed.
    Hint,
    /// The link is broken: an error, or silent for a lease.
    Broken,
}
