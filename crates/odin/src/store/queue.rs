//! From a call that is handed in to the worker that runs it.

use std::collections::HashMap;

use async_trait::async_trait;

use super::Result;
use crate::call::{Claim, Enqueue, Gone, Order, Parties, Registrant, Rerun, Snapshot, State};
use crate::id::{CallChannel, CallId};

/// A line of a server's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The call.
    pub call: CallId,
    /// Tool that `tools/call` names; none for every other method. Tells the worker whether the call may
    /// run again before it takes it.
    pub tool: Option<String>,
    /// Whom it counts for: what the worker's slots are shared by.
    pub parties: Parties,
    /// What the store needs to acknowledge the line.
    pub receipt: String,
}

/// What a worker may take from a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Lines in all.
    pub most: usize,
    /// Slots that one organisation may have.
    pub organisation: usize,
    /// Slots that one principal may have.
    pub principal: usize,
    /// How many slots each organisation and principal has, by the names of [`Parties`].
    pub taken: HashMap<String, usize>,
}

impl Room {
    /// For who takes any `most` lines.
    pub fn of(most: usize) -> Self {
        Self { most, organisation: usize::MAX, principal: usize::MAX, taken: HashMap::new() }
    }

    /// Whether a call may be taken.
    pub fn fits(&self, parties: &Parties) -> bool {
        let taken = |name| self.taken.get(name).copied().unwrap_or_default();
        self.most > 0
            && taken(&parties.organisation) < self.organisation
            && taken(&parties.principal) < self.principal
    }

    /// A call was taken.
    pub fn take(&mut self, parties: &Parties) {
        self.most = self.most.saturating_sub(1);
        for name in [&parties.organisation, &parties.principal] {
            *self.taken.entry(name.clone()).or_default() += 1;
        }
    }
}

/// A line that has come while a worker waited. It is still in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The line.
    pub entry: Entry,
    /// How many workers were woken for it that could not take it.
    pub passed: u8,
}

/// A call that this worker took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its whole state.
    pub snapshot: Snapshot,
    /// Names the store's memory: another value after the store lost it.
    pub generation: String,
}

/// A call that was handed straight to this worker, and is now its own in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The worker's view.
    pub state: State,
    /// Names the store's memory: another value after the store lost it.
    pub generation: String,
}

/// A call that this worker took over from a lost one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The call.
    pub call: CallId,
    /// What to do.
    pub claim: Claim,
    /// Its whole state.
    pub snapshot: Snapshot,
    /// A channel whose stream is to be closed, so that its client resumes.
    pub close: Option<CallChannel>,
}

/// A beat for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The call.
    pub call: CallId,
    /// The worker's epoch.
    pub epoch: u32,
    /// The worker sees the current channel's subscription, or can't know.
    pub subscribed: bool,
}

/// The answer to a worker's beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    /// A view for each beat, in the same order.
    pub views: Vec<std::result::Result<State, Gone>>,
    /// Names the store's memory.
    pub generation: String,
    /// The time of the store's clock, in milliseconds.
    pub now: u64,
}

/// From a call that is handed in to the worker that runs it.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// ENQ, sent once. [`Unavailable`](super::Unavailable): the call is not in the queue and will not be.
    /// [`Enqueue::Unanswered`]: nobody knows.
    async fn enqueue(&self, call: CallId, order: Order) -> Result<Enqueue>;
    /// NEXT: lines of a server's queue that the worker has room for, by turns over organisations, and within one
    /// over the principals; those of one principal in their order. Does not wait. A line that is not taken soon is
    /// given again.
    async fn next(&self, server: &str, worker: &str, room: &Room) -> Result<Vec<Entry>>;
    /// Waits until a line comes after this worker's last [`next`](Self::next), at most for about a second. Where
    /// the line is known, this worker may TAKE it at once; if it has no room for it, it is to
    /// [pass it on](Self::pass_on). One at a time for each queue of a worker. None: see what `next` says.
    async fn arrival(&self, server: &str, worker: &str) -> Result<Option<Arrived>>;
    /// Wakes another worker for a line, in place of this one.
    async fn pass_on(&self, server: &str, line: &Arrived) -> Result<()>;
    /// TAKE; the line leaves the queue in any case. None: nothing to do. `attempt` is a new name for each taking of a
    /// line, and the same when the command is repeated.
    async fn take(
        &self,
        server: &str,
        worker: &str,
        entry: &Entry,
        attempt: &str,
        rerun: Rerun,
    ) -> Result<Option<Taken>>;
    /// REGISTER by a worker that got the call straight from its backend, and ADOPT by that backend in the worker's
    /// name. Without a record the worker owns the call from now on, in its first epoch; a cancellation that came
    /// before closes it. [`Gone`]: the call is over, or another worker has it, and this one stops its run.
    async fn register(
        &self,
        call: CallId,
        order: &Order,
        worker: &str,
        by: Registrant,
    ) -> Result<std::result::Result<Registered, Gone>>;
    /// BEAT for all calls of a worker.
    async fn beat(&self, worker: &str, beats: &[Beat]) -> Result<Beaten>;
    /// CLAIM: calls of the server whose lease ran out. Nothing after `by`, in milliseconds of the store's clock: a
    /// store that was paused would carry out claims whose workers wait no more, before any beat that came meanwhile.
    async fn claim(&self, server: &str, worker: &str, most: usize, by: u64) -> Result<Vec<Claimed>>;
    /// Registers a running call again after the store lost its memory; the view, or that somebody else did.
    async fn restore(
        &self,
        call: CallId,
        worker: &str,
        snapshot: Snapshot,
    ) -> Result<std::result::Result<State, Gone>>;
}
