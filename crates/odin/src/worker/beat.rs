//! The thread that keeps the leases alive.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{MakeStore, Shared};
use crate::call::Input;
use crate::store::{Beat, Store};

/// How often a worker beats: three times within a lease.
pub(super) const PARTS: u32 = 3;
/// A silence of this many beats: others may have missed theirs as well.
pub(super) const GAP: u32 = 2;

/// Starts the thread. It has a runtime and a store connection of its own: a tool that blocks the worker's
/// runtime does not cost it its leases.
pub(super) fn start(shared: Arc<Shared>, make_store: MakeStore) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("beat".into()).spawn(move || {
        runtime.block_on(async move {
            let store = make_store();
            let every = shared.config.timing.lease / PARTS;
            // Not at the beginning of a shutdown: calls that still run then keep their lease.
            let beats = async {
                loop {
                    beat(&shared, store.as_ref(), every).await;
                    tokio::time::sleep(every).await;
                }
            };
            tokio::select! {
                () = shared.ended.cancelled() => {}
                () = beats => {}
            }
        });
    })?;
    Ok(())
}

async fn beat(shared: &Shared, store: &dyn Store, patience: Duration) {
    // Taken before: the lease begins at the latest when the store answers.
    let now = shared.now();
    let replayed = shared.links_replayed();
    let beats: Vec<Beat> = {
        let state = shared.state();
        state.jobs.iter().map(|(call, handle)| handle.beat(*call, !replayed)).collect()
    };
    let beaten = match tokio::time::timeout(patience, store.beat(&shared.config.name, &beats)).await {
        Ok(Ok(beaten)) => beaten,
        Ok(Err(error)) => return tracing::warn!(%error, "a beat failed"),
        Err(_) => return tracing::warn!("a beat took too long"),
    };
    let mut state = shared.state();
    state.clock = (beaten.now, shared.now());
    if shared.is_out_of_touch(now) || state.generation != beaten.generation {
        state.generation = beaten.generation;
        state.settled = now.max(1);
    }
    for (beat, view) in beats.iter().zip(beaten.views) {
        if let Some(handle) = state.jobs.get(&beat.call).filter(|handle| handle.epoch() == beat.epoch) {
            handle.input(Input::Seen(view));
        }
    }
    drop(state);
    shared.beaten.store(now.max(1), Ordering::Release);
}
