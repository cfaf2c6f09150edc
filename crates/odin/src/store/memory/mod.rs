//! The store of one process.

mod bus;
mod calls;
mod lines;
mod queue;
mod runs;
mod sessions;
mod state;
mod tasks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::state::{Kept, Memory};
use super::{Result, Store, StoreLimits};
use crate::call::{Record, Timing};
use crate::id::CallId;

/// Hints that wait for one node or worker. What does not fit is folded into "look at everything".
pub(super) const NUDGES: usize = 1024;
/// How long a cancellation is remembered for a request that it overtook.
const CANCEL_AHEAD: Duration = Duration::from_secs(10);
/// How long a stream that is no call's may take to be held.
pub(super) const PARKED: Duration = Duration::from_secs(30);
/// How long [`Store::arrival`] waits.
const WAIT: Duration = Duration::from_secs(1);

/// Milliseconds of some clock that never goes back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Records in the memory of one process. Lost with it.
pub struct MemoryStore {
    timing: Timing,
    limits: StoreLimits,
    clock: Clock,
    state: Mutex<Memory>,
    arrived: Notify,
}

impl MemoryStore {
    /// A store with the clock of this machine.
    pub fn new(timing: Timing, limits: StoreLimits) -> Self {
        let start = Instant::now();
        let clock = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self::with_clock(timing, limits, Arc::new(clock))
    }

    /// A store with a clock of the caller's; for simulations.
    pub fn with_clock(timing: Timing, limits: StoreLimits, clock: Clock) -> Self {
        Self { timing, limits, clock, state: Mutex::default(), arrived: Notify::new() }
    }

    /// Forgets everything, as a restarted Redis does; for simulations.
    pub fn forget(&self) {
        let mut memory = self.memory();
        let generation = memory.generation + 1;
        let node_hints = std::mem::take(&mut memory.node_hints);
        let worker_hints = std::mem::take(&mut memory.worker_hints);
        *memory = Memory { generation, node_hints, worker_hints, ..Memory::default() };
    }

    /// A copy of a record; for tests and simulations.
    pub fn peek(&self, call: CallId) -> Option<Record> {
        self.memory().records.get(&call).map(|kept| kept.record.clone())
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a transition of the call's owner, then forgets the record if nothing can ask for it, and tells
    /// the backend that waits.
    fn owner<T>(&self, call: CallId, missing: T, transition: impl FnOnce(&mut Record, u64) -> T) -> T {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        let Some(kept) = memory.records.get_mut(&call) else { return missing };
        let reply = transition(&mut kept.record, now);
        memory.settle(call, now, &self.timing);
        reply
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Store for MemoryStore {
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}
