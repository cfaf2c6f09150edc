//! Requests of this node that wait, and the hints that wake them.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::store::{NodeNudge, Store};

/// Requests of this node that wait.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(crate) next: AtomicU64,
    waiting: Mutex<HashMap<u64, Arc<Notify>>>,
}

impl Waiters {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Asks the store regularly whether it is there, for the node's readiness; notes when it last answered.
pub(crate) async fn ping(store: Arc<dyn Store>, every: Duration, answered: Arc<Mutex<Option<Instant>>>) {
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
pub(crate) async fn wake_waiters(store: Arc<dyn Store>, node: String, waiters: Arc<Waiters>) {
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
