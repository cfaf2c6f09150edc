//! Requests of this node that wait, and the hints that wake them.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::store::{NodeHint, Store};

/// Requests of this node that wait.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(crate) next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
pub(crate) struct Waiting {
    by_place: HashMap<u64, Waiter>,
    /// Those that a notification of their client may cancel here, by session and request id.
    by_name: HashMap<(String, String), u64>,
}

struct Waiter {
    notify: Arc<Notify>,
    cancelled: bool,
}

impl Waiters {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_place.len()
    }
}

impl Waiting {
    pub(crate) fn insert(&mut self, place: u64, notify: Arc<Notify>) {
        self.by_place.insert(place, Waiter { notify, cancelled: false });
    }

    pub(crate) fn name(&mut self, name: (String, String), place: u64) {
        self.by_name.insert(name, place);
    }

    pub(crate) fn remove(&mut self, place: u64, name: Option<&(String, String)>) {
        self.by_place.remove(&place);
        if let Some(name) = name
            && self.by_name.get(name) == Some(&place)
        {
            self.by_name.remove(name);
        }
    }

    /// The client has cancelled its request.
    pub(crate) fn cancel(&mut self, session: &str, request_id: &str) {
        let name = (session.to_owned(), request_id.to_owned());
        let waiter = self.by_name.get(&name).and_then(|place| self.by_place.get_mut(place));
        if let Some(waiter) = waiter {
            waiter.cancelled = true;
            waiter.notify.notify_one();
        }
    }

    pub(crate) fn is_cancelled(&self, place: u64) -> bool {
        self.by_place.get(&place).is_some_and(|waiter| waiter.cancelled)
    }

    fn wake(&self, hint: NodeHint) {
        match hint {
            NodeHint::Request(request) => {
                self.by_place.get(&request).iter().for_each(|w| w.notify.notify_one())
            }
            NodeHint::All => self.by_place.values().for_each(|w| w.notify.notify_one()),
        }
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
        let mut hints = match store.node_hints(&node).await {
            Ok(hints) => hints,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        while let Some(hint) = hints.recv().await {
            waiters.lock().wake(hint);
        }
    }
}
