//! How requests were answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::protocol::Refusal;

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) json: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) streamed: AtomicU64,
    pub(crate) cached: AtomicU64,
    /// Calls that were handed straight to a worker.
    pub(crate) direct: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// How often each HTTP status was refused with, also where the answer went out with another one: in a session, or
    /// as an event of a stream. The statuses are those of this code: a few.
    pub(crate) refused: Mutex<BTreeMap<u16, u64>>,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        Self::count(&self.errors);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(refusal.status().as_u16()).or_default() += 1;
    }
}

/// Streams handed to Pushpin in the current second.
#[derive(Default)]
pub(crate) struct HoldBudget {
    second: AtomicU64,
    used: AtomicU64,
}

impl HoldBudget {
    /// Whether there is room for one more in this second.
    pub(crate) fn has_room(&self, now: u64, most: u64) -> bool {
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.used.store(0, Ordering::Relaxed);
        }
        self.used.load(Ordering::Relaxed) < most
    }

    pub(crate) fn count(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }
}
