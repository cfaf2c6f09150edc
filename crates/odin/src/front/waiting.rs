//! Requests that wait for their call, and the hints that wake them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Front;
use crate::broker::NodeNudge;
use crate::id::CallId;

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
    pub(super) call: CallId,
    pub(super) request: u64,
    notify: Arc<Notify>,
    settled: bool,
    /// What it counts for in the limits of calls in flight.
    counted: Vec<String>,
}

impl Waiting {
    /// Registers a request, before its call is enqueued: no hint may come too early.
    pub(super) fn register(front: &Arc<Front>, call: CallId, counted: Vec<String>) -> Self {
        let request = front.waiters.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        front.waiters.lock().insert(request, notify.clone());
        Self { front: front.clone(), call, request, notify, settled: false, counted }
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

    /// The call needs this request no more.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.front.waiters.lock().remove(&self.request);
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
            if let Err(error) = front.broker.abandon(call, &front.config.node, request).await {
                // The worker finds out by itself when this node's silence or the lease tells.
                tracing::warn!(%error, %call, "a client that is gone can't be reported");
            }
        });
    }
}

/// Says regularly that this node lives.
pub(super) async fn announce(front: Arc<Front>) {
    let every = front.config.lease / 3;
    loop {
        match tokio::time::timeout(every, front.broker.announce(&front.config.node)).await {
            Ok(Ok(())) => {
                let mut announced = front.announced.lock().unwrap_or_else(PoisonError::into_inner);
                *announced = Some(Instant::now());
            }
            Ok(Err(error)) => tracing::warn!(%error, "this node can't be announced"),
            Err(_) => tracing::warn!("an announcement took too long"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Wakes the requests that the broker points to.
pub(super) async fn heed(front: Arc<Front>) {
    loop {
        let mut nudges = match front.broker.node_nudges(&front.config.node).await {
            Ok(nudges) => nudges,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        while let Some(nudge) = nudges.recv().await {
            let waiting = front.waiters.lock();
            match nudge {
                NodeNudge::Request(request) => waiting.get(&request).iter().for_each(|w| w.notify_one()),
                NodeNudge::All => waiting.values().for_each(|w| w.notify_one()),
            }
        }
    }
}
