//! Requests that wait for their call, and the hints that wake them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Front;
use crate::call::Withdraw;
use crate::id::CallId;
use crate::protocol::Refusal;
use crate::store::{NodeNudge, Store};

/// How long to wait before the store is asked again without a hint.
pub(super) const AGAIN: Duration = Duration::from_millis(250);
/// How long a record may be missing before its call is given up: its worker registers it again after the
/// store lost its memory.
const MISSING: Duration = Duration::from_secs(3);
/// How long the store may be silent before a request is given up.
const SILENT: Duration = Duration::from_secs(4);

/// Requests of this node that wait.
#[derive(Default)]
pub(super) struct Waiters {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Arc<Notify>>>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// One request that waits. Dropped before [`Waiting::settle`], it gives the call up: the client is gone.
pub(super) struct Waiting {
    front: Arc<Front>,
    /// Its place among the waiters.
    number: u64,
    pub(super) call: CallId,
    /// What the record calls it.
    pub(super) request: u64,
    notify: Arc<Notify>,
    settled: bool,
    begun: Instant,
    /// When the store last answered.
    heard: Instant,
    /// Since when the record has been missing.
    missing: Option<Instant>,
    /// What it counts for in the limits of calls in flight.
    counted: Vec<String>,
}

impl Waiting {
    /// Registers a request, before its call is enqueued: no hint may come too early.
    pub(super) fn register(front: &Arc<Front>, call: CallId, counted: Vec<String>) -> Self {
        let number = front.waiters.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        front.waiters.lock().insert(number, notify.clone());
        let now = Instant::now();
        let front = front.clone();
        Self {
            front,
            number,
            call,
            request: number,
            notify,
            settled: false,
            begun: now,
            heard: now,
            missing: None,
            counted,
        }
    }

    /// Waits for a hint.
    pub(super) async fn hint(&self) {
        self.notify.notified().await;
    }

    /// One that waits for no call: it only counts, as long as it lives.
    pub(super) fn uncalled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// Makes the next [`hint`](Self::hint) come at once.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for a hint, at most until `look`.
    pub(super) async fn hint_until(&self, look: tokio::time::Instant) {
        tokio::select! {
            () = self.hint() => {}
            () = tokio::time::sleep_until(look) => {}
        }
    }

    /// What a look at the record that brought neither answer nor event means for the client: an error, once its
    /// patience is over. However a request waits, this is the one patience.
    pub(super) async fn weigh(&mut self, look: Look) -> Option<Refusal> {
        let now = Instant::now();
        if look != Look::Silent {
            self.heard = now;
        }
        if look != Look::Missing {
            self.missing = None;
        }
        match look {
            Look::Running => None,
            Look::Queued if now < self.begun + self.front.config.limits.queue_patience => None,
            // Not before it is certain that the call never begins. If it has begun, or the store does not
            // answer, the next look tells.
            Look::Queued => match self.withdraw().await {
                Ok(Withdraw::Withdrawn) => {
                    self.settle();
                    Some(not_taken())
                }
                Ok(Withdraw::Begun | Withdraw::Missing) | Err(_) => None,
            },
            Look::Missing if now > *self.missing.get_or_insert(now) + MISSING => Some(lost()),
            Look::Silent if now > self.heard + SILENT => Some(unknown()),
            Look::Missing | Look::Silent => None,
        }
    }

    /// Settles what became of an ENQ that was not answered: true when a worker has begun, else why there is
    /// nothing to wait for.
    pub(super) async fn settle_unanswered(&mut self) -> Result<(), Refusal> {
        loop {
            match self.withdraw().await {
                Ok(Withdraw::Begun) => return Ok(()),
                Ok(Withdraw::Withdrawn) => {
                    self.settle();
                    return Err(silent());
                }
                Ok(Withdraw::Missing) => return Err(unknown()),
                Err(_) if Instant::now() > self.heard + SILENT => return Err(unknown()),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn withdraw(&self) -> crate::store::Result<Withdraw> {
        self.front.store.withdraw(self.call, &self.front.config.node, self.request).await
    }

    /// The call needs this request no more.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.front.waiters.lock().remove(&self.number);
        let mut in_flight = self.front.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.counted {
            if let Some(count) = in_flight.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    in_flight.remove(key);
                }
            }
        }
        drop(in_flight);
        if self.settled {
            return;
        }
        let (front, call, request) = (self.front.clone(), self.call, self.request);
        tokio::spawn(async move {
            if let Err(error) = front.store.abandon(call, &front.config.node, request).await {
                // The worker finds out by itself when this node's silence or the lease tells.
                tracing::warn!(%error, %call, "a client that is gone can't be reported");
            }
        });
    }
}

/// What a look at a call's record brought, when it is neither an answer nor an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// No worker has begun.
    Queued,
    /// A worker runs it.
    Running,
    /// There is no record.
    Missing,
    /// The store does not answer.
    Silent,
}

/// The call waited too long for a worker.
pub(super) fn not_taken() -> Refusal {
    Refusal::unavailable(
        "No worker took the call in time, and it will not run. Try again; if it stays so, see whether workers run.",
        5,
    )
}

/// The call's record is gone.
pub(super) fn lost() -> Refusal {
    Refusal::unavailable(
        "The call was lost, and its outcome is unknown. Check whether it took effect before you ask again.",
        1,
    )
}

/// The call was cancelled although its client is there: this node was silent for so long that the client was taken
/// for gone. In the modern era a client cancels by going away, and in no other way.
pub(super) fn given_up() -> Refusal {
    Refusal::unavailable(
        "The call was given up, as the server that waited for it was paused for too long; its outcome is unknown. \
         Check whether it took effect before you ask again.",
        1,
    )
}

/// The store did not answer in the middle of a call.
fn unknown() -> Refusal {
    Refusal::unavailable(
        "The server's memory does not answer, so what became of the call is unknown. Check whether it took \
         effect before you ask again.",
        2,
    )
}

/// The store does not answer, and nothing was begun.
pub(super) fn silent() -> Refusal {
    Refusal::unavailable(
        "The server's memory does not answer; the call was not begun. Try again in a few seconds.",
        2,
    )
}

/// Asks the store regularly whether it is there, for the node's readiness; notes when it last answered.
pub(super) async fn ping(store: Arc<dyn Store>, every: Duration, answered: Arc<Mutex<Option<Instant>>>) {
    loop {
        match tokio::time::timeout(every, store.ping()).await {
            Ok(Ok(())) => {
                *answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            Ok(Err(error)) => tracing::warn!(%error, "the store does not answer"),
            Err(_) => tracing::warn!("the store takes too long to answer"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Wakes the requests that the store points to.
pub(super) async fn heed(store: Arc<dyn Store>, node: String, waiters: Arc<Waiters>) {
    loop {
        let mut nudges = match store.node_nudges(&node).await {
            Ok(nudges) => nudges,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        while let Some(nudge) = nudges.recv().await {
            let waiting = waiters.lock();
            match nudge {
                NodeNudge::Request(request) => waiting.get(&request).iter().for_each(|w| w.notify_one()),
                NodeNudge::All => waiting.values().for_each(|w| w.notify_one()),
            }
        }
    }
}
