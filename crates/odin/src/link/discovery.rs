//! How backends find workers: by what these announce in the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::address::{choose, wanted};
use super::backend::{Links, connect};
use super::{Address, Identity};
use crate::store::Store;

/// How long an announcement counts.
const LIVE: Duration = Duration::from_secs(5);
/// How often it is renewed.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(1500);
/// How often a backend looks for workers.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before a worker that could not be reached is tried again; at most eight times that.
const AGAIN: Duration = Duration::from_millis(200);
/// Workers of one server that are announced at once, and backends.
const MOST: usize = 10_000;

fn workers_of(server: &str) -> String {
    format!("links:{server}")
}

fn backends_of(server: &str) -> String {
    format!("linked:{server}")
}

/// Announces where a worker takes links, until `ended`.
pub async fn announce(store: Arc<dyn Store>, own: &Identity, address: &Address, ended: &CancellationToken) {
    let (group, member) = (workers_of(&own.server), format!("{} {address}", own.name));
    let repeat = async {
        loop {
            match store.enter(&group, &member, LIVE, MOST).await {
                Ok(true) => {}
                Ok(false) => tracing::warn!("{MOST} workers are announced: this one gets no direct calls"),
                Err(error) => tracing::debug!(%error, "the links' address can't be announced"),
            }
            tokio::time::sleep(ANNOUNCE_EVERY).await;
        }
    };
    tokio::select! {
        () = repeat => {}
        () = ended.cancelled() => drop(store.leave(&group, &member).await),
    }
}

/// Where the workers are that this backend wants links to.
#[derive(Default)]
struct Wanted {
    addresses: Mutex<HashMap<String, Address>>,
}

impl Wanted {
    fn addresses(&self) -> MutexGuard<'_, HashMap<String, Address>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    /// Keeps links to some of the workers that are announced, until the last clone of this is dropped elsewhere: this
    /// future may hold one. While the store is silent, or has lost its memory, all links stay.
    pub async fn follow(self, store: Arc<dyn Store>) {
        let (shared, wanted) = (self.shared.clone(), Arc::new(Wanted::default()));
        drop(self);
        let mut links: JoinSet<String> = JoinSet::new();
        let mut kept: HashSet<String> = HashSet::new();
        loop {
            if let Some(announced) = announced(store.as_ref(), &shared.own).await {
                let chosen = announced.chosen(&shared.own.name);
                for line in shared.idle_lines() {
                    // Another backend's; this one has enough.
                    if announced.workers.contains_key(line.worker()) && !chosen.contains_key(line.worker()) {
                        line.close();
                    }
                }
                *wanted.addresses() = chosen;
            }
            let new: Vec<String> =
                wanted.addresses().keys().filter(|worker| !kept.contains(*worker)).cloned().collect();
            for worker in new {
                kept.insert(worker.clone());
                let (shared, wanted) = (shared.clone(), wanted.clone());
                links.spawn(async move {
                    keep(&shared, &wanted, &worker).await;
                    worker
                });
            }
            let deadline = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    () = shared.ended.cancelled() => return,
                    () = &mut deadline => break,
                    Some(ended) = links.join_next() => drop(ended.map(|worker| kept.remove(&worker))),
                }
            }
        }
    }
}

/// Keeps a link to one worker as long as it is wanted, or the link stands.
async fn keep(shared: &super::backend::Shared, wanted: &Wanted, worker: &str) {
    let mut pause = AGAIN;
    loop {
        let address = wanted.addresses().get(worker).cloned();
        let Some(address) = address else { return };
        match connect(shared, worker, &address).await {
            Ok(()) => pause = AGAIN,
            Err(error) => {
                tracing::debug!(worker, %address, %error, "no link to a worker");
                pause = (pause * 2).min(AGAIN * 8);
            }
        }
        tokio::select! {
            () = shared.ended.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Who is announced.
struct Announced {
    workers: HashMap<String, Address>,
    backends: usize,
}

impl Announced {
    fn chosen(&self, backend: &str) -> HashMap<String, Address> {
        let count = wanted(self.workers.len(), self.backends);
        let chosen = choose(backend, self.workers.keys().map(String::as_str), count);
        let with_address = |worker: &str| Some((worker.to_owned(), self.workers.get(worker)?.clone()));
        chosen.into_iter().filter_map(with_address).collect()
    }
}

/// None: the store says nothing, or knows nobody; what is there stays.
async fn announced(store: &dyn Store, own: &Identity) -> Option<Announced> {
    let backends = backends_of(&own.server);
    store.enter(&backends, &own.name, LIVE, MOST).await.ok()?;
    let backends = store.members(&backends).await.ok()?.len();
    let members = store.members(&workers_of(&own.server)).await.ok()?;
    let address = |member: &String| {
        let (worker, address) = member.split_once(' ')?;
        Some((worker.to_owned(), address.parse().ok()?))
    };
    let workers: HashMap<String, Address> = members.iter().filter_map(address).collect();
    (!workers.is_empty()).then_some(Announced { workers, backends })
}
