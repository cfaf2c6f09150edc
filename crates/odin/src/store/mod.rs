//! Where the records of calls live, and how the parts find each other.
//!
//! [`Store`] has two homes: [`RedisStore`] for a site of many nodes, and [`MemoryStore`] for one
//! process. Both make the transitions of [`crate::call`] atomic. What they send to nodes and workers on the
//! side are hints only: whoever is woken reads the record.

mod bus;
mod calls;
mod followers;
mod memory;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod runs;
mod sessions;
mod tasks;

use async_trait::async_trait;

#[cfg(feature = "redis")]
pub use self::redis::{Difference, Fact, InvalidUrl, RedisStore, SITE_LIFE};
pub use bus::{Bus, Cast, NodeHint, WorkerHint};
pub use calls::{Calls, Held};
pub use memory::{Clock, MemoryStore};
pub use queue::{Arrived, Beat, Beaten, Claimed, Entry, Queue, Registered, Room, Taken};
pub use runs::{Inbox, Runs};
pub use sessions::Sessions;
pub use tasks::{TaskBegin, TaskReply, Tasks};

/// Bounds that the store enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLimits {
    /// Calls that wait in one server's queue.
    pub queue: usize,
    /// Calls of one principal that are open at once on one server: queued, running, or held with their answer.
    pub calls_of_principal: usize,
    /// The same for one organisation.
    pub calls_of_organisation: usize,
    /// Messages from the client that wait for one running call.
    pub inbox: usize,
    /// Stored fields of one session.
    pub session_fields: usize,
    /// Tasks that are kept for one principal: with what they ask and their results.
    pub tasks: usize,
    /// Those of them that are not over.
    pub tasks_open: usize,
    /// Things used up that one process remembers ([`Sessions::use_once`]); more can't be used. In Redis they expire.
    pub used: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            queue: 10_000,
            calls_of_principal: 256,
            calls_of_organisation: 4096,
            inbox: 64,
            session_fields: 64,
            tasks: 200,
            tasks_open: 50,
            used: 1_000_000,
        }
    }
}

setters!(StoreLimits {
    with_queue => queue: usize,
    with_calls_of_principal => calls_of_principal: usize,
    with_calls_of_organisation => calls_of_organisation: usize,
    with_inbox => inbox: usize,
    with_session_fields => session_fields: usize,
    with_tasks => tasks: usize,
    with_tasks_open => tasks_open: usize,
    with_used => used: usize,
});

/// The store can't be reached, or answered nonsense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store is not available: {0}")]
pub struct Unavailable(pub String);

/// Result of a store command.
pub type Result<T> = std::result::Result<T, Unavailable>;

/// The shared memory of backends and workers.
///
/// Every method is one atomic step. [`Unavailable`] says nothing about whether the step was made. A command may be
/// repeated until it is answered: the second time it says the same and changes nothing more. Three may not, and
/// are sent once: [`enqueue`](Queue::enqueue) (after a loss of memory a repetition would start a tool twice),
/// [`post`](Calls::post) and [`cast`](Bus::cast) (their message would arrive twice).
#[async_trait]
pub trait Store: Calls + Runs + Queue + Sessions + Bus + Tasks {
    /// Whether it answers.
    async fn ping(&self) -> Result<()>;
}
