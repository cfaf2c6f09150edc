//! Requests that wait for their call, and the hints that wake them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::call::Withdraw;
use crate::front::{
    calls::refusals::{lost, not_taken, silent, unknown},
    state::Front,
};
use crate::id::CallId;
use crate::protocol::Refusal;

/// How long to wait before the store is asked again without a hint.
pub(crate) const AGAIN: Duration = Duration::from_millis(250);
/// How long a record may be missing before its call is given up: its worker registers it again after the
/// store lost its memory.
const MISSING: Duration = Duration::from_secs(3);
/// How long the store may be silent before a request is given up.
const SILENT: Duration = Duration::from_secs(4);

/// One request that waits. Dropped before [`Waiting::settle`], it gives the call up: the client is gone.
pub(crate) struct Waiting {
    front: Arc<Front>,
    /// Its place among the waiters.
    number: u64,
    pub(crate) call: CallId,
    /// What the record calls it.
    pub(crate) request: u64,
    notify: Arc<Notify>,
    settled: bool,
    begun: Instant,
    /// When the store last answered.
    heard: Instant,
    /// Since when the record has been missing.
    missing: Option<Instant>,
    /// Since when the call can't be withdrawn, although its record is there.
    stuck: Option<Instant>,
    /// What it counts for in the limits of calls in flight.
    counted: Vec<String>,
}

impl Waiting {
    /// Registers a request, before its call is enqueued: no hint may come too early.
    pub(crate) fn register(front: &Arc<Front>, call: CallId, counted: Vec<String>) -> Self {
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
            stuck: None,
            counted,
        }
    }

    /// Waits for a hint.
    pub(crate) async fn hint(&self) {
        self.notify.notified().await;
    }

    /// One that waits for no call: it only counts, as long as it lives.
    pub(crate) fn uncalled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// Makes the next [`hint`](Self::hint) come at once.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for a hint, at most until `look`.
    pub(crate) async fn hint_until(&self, look: tokio::time::Instant) {
        tokio::select! {
            () = self.hint() => {}
            () = tokio::time::sleep_until(look) => {}
        }
    }

    /// What a look at the record that brought neither answer nor event means for the client: an error, once its
    /// patience is over. However a request waits, this is the one patience.
    pub(crate) async fn weigh(&mut self, look: Look) -> Option<Refusal> {
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
            // answer, the next look tells; but a queue that is damaged may never let go of it.
            Look::Queued => match self.withdraw().await {
                Ok(Withdraw::Withdrawn) => {
                    self.settle();
                    Some(not_taken())
                }
                Ok(Withdraw::Running | Withdraw::Missing) => None,
                Err(_) => (now > *self.stuck.get_or_insert(now) + SILENT).then(unknown),
            },
            Look::Missing if now > *self.missing.get_or_insert(now) + MISSING => Some(lost()),
            Look::Silent if now > self.heard + SILENT => Some(unknown()),
            Look::Missing | Look::Silent => None,
        }
    }

    /// Settles what became of an ENQ that was not answered: true when a worker has begun, else why there is
    /// nothing to wait for.
    pub(crate) async fn settle_unanswered(&mut self) -> Result<(), Refusal> {
        loop {
            match self.withdraw().await {
                Ok(Withdraw::Running) => return Ok(()),
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
    pub(crate) fn settle(&mut self) {
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
pub(crate) enum Look {
    /// No worker has begun.
    Queued,
    /// A worker runs it.
    Running,
    /// There is no record.
    Missing,
    /// The store does not answer.
    Silent,
}
