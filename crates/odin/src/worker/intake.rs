//! Where calls come from: the queue, lost workers, and what the broker has to say about running ones.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Semaphore;

use super::drive::{self, Start};
use super::encode::Stream;
use super::{Shared, task};
use crate::broker::{Claimed, Entry, Taken, WorkerNudge};
use crate::call::{Claim, Delivery, DeliveryLimits, Send};
use crate::runner::Rerun;
use crate::tasks;

/// How long to wait after the broker did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// How often to look for calls of lost workers.
const CLAIM_EVERY: Duration = Duration::from_millis(250);
/// Lines read from the queue at once, and calls claimed at once.
const MOST: usize = 32;

/// A queue, and the slots for what comes from it.
#[derive(Clone)]
pub(super) struct Lane {
    queue: String,
    slots: Arc<Semaphore>,
}

impl Lane {
    /// The queue of calls, and that of the rounds of tasks.
    pub(super) fn all(shared: &Shared) -> Vec<Self> {
        let config = &shared.config;
        let mut all = vec![Self { queue: config.server.clone(), slots: shared.slots.clone() }];
        if config.task_concurrency > 0 {
            all.push(Self { queue: tasks::queue(&config.server), slots: shared.task_slots.clone() });
        }
        all
    }
}

/// Takes calls from the queue as long as there are free slots.
pub(super) async fn take(shared: Arc<Shared>, lane: Lane) {
    let config = &shared.config;
    while !shared.stop.is_cancelled() {
        let slot = tokio::select! {
            () = shared.stop.cancelled() => return,
            slot = lane.slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { return };
        let most = (lane.slots.available_permits() + 1).min(MOST);
        drop(slot);
        let entries = tokio::select! {
            () = shared.stop.cancelled() => return,
            entries = shared.broker.next(&lane.queue, &config.name, most) => entries,
        };
        match entries {
            Ok(entries) => entries.into_iter().for_each(|entry| spawn_take(&shared, &lane, entry)),
            Err(error) => {
                tracing::warn!(%error, "the queue can't be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn spawn_take(shared: &Arc<Shared>, lane: &Lane, entry: Entry) {
    let (shared, lane) = (shared.clone(), lane.clone());
    let busy = shared.busy.clone();
    tokio::spawn(async move {
        let _busy = busy;
        // A line that is not taken now is there for other workers.
        let slot = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            slot = lane.slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { return };
        let rerun = match &entry.tool {
            Some(tool) => shared.runner.rerun(tool),
            None => Rerun::Safe,
        };
        let Some(taken) = take_one(&shared, &lane, &entry, rerun).await else { return };
        let snapshot = taken.snapshot;
        let delivery = Delivery::taken(&snapshot.order, snapshot.state.clone(), DeliveryLimits::default());
        let start = Start { call: entry.call, snapshot, generation: taken.generation, run: true };
        drive::drive(shared, start, delivery, Some(slot)).await;
    });
}

/// Takes the call of a line. Repeated until it is answered: a TAKE whose reply was lost would leave a call that
/// nobody runs.
async fn take_one(shared: &Shared, lane: &Lane, entry: &Entry, rerun: Rerun) -> Option<Taken> {
    let attempt = format!("{:016x}", rand::random::<u64>());
    loop {
        match shared.broker.take(&lane.queue, &shared.config.name, entry, &attempt, rerun).await {
            Ok(taken) => return taken,
            Err(error) => tracing::warn!(%error, call = %entry.call, "a call can't be taken"),
        }
        tokio::select! {
            // The line, or the lease, tells the other workers.
            () = shared.stop.cancelled() => return None,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Takes over the calls of lost workers, and lines that were read and never taken.
pub(super) async fn claim(shared: Arc<Shared>, lane: Lane) {
    let config = &shared.config;
    while !shared.stop.is_cancelled() {
        // Spread, so that not all workers ask at once.
        let jitter = rand::rng().random_range(0..50);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(CLAIM_EVERY + Duration::from_millis(jitter)) => {}
        }
        // Asked before each round: a worker that has just lost the broker must not be the first to ask it
        // when it is back.
        if !shared.is_settled(&shared.state()) {
            continue;
        }
        let _busy = shared.busy.clone();
        if let Ok(entries) = shared.broker.undelivered(&lane.queue, &config.name, MOST).await {
            entries.into_iter().for_each(|entry| spawn_take(&shared, &lane, entry));
        }
        if let Ok(claimed) = shared.broker.claim(&lane.queue, &config.name, MOST).await {
            for claimed in claimed {
                tracing::warn!(call = %claimed.call, "taking over the call of a lost worker");
                spawn_claimed(&shared, claimed);
            }
        }
    }
}

fn spawn_claimed(shared: &Arc<Shared>, claimed: Claimed) {
    let shared = shared.clone();
    let generation = shared.state().generation.clone();
    let busy = shared.busy.clone();
    tokio::spawn(async move {
        let _busy = busy;
        if let Some(channel) = claimed.close
            && let Some(publisher) = &shared.publisher
        {
            let item = Stream::of(&claimed.snapshot.order).item(channel, &Send::Close);
            publisher.broadcast(&[item]).await;
        }
        let run = claimed.claim == Claim::Run;
        if claimed.snapshot.order.task.is_some() && !run {
            return task::end_lost(&shared, &claimed).await;
        }
        let delivery = Delivery::claimed(&claimed.snapshot, DeliveryLimits::default());
        let start = Start { call: claimed.call, snapshot: claimed.snapshot, generation, run };
        drive::drive(shared, start, delivery, None).await;
    });
}

/// Looks again at the calls that the broker points to.
pub(super) async fn heed(shared: Arc<Shared>) {
    let ended = shared.ended.clone();
    tokio::select! {
        () = ended.cancelled() => {}
        () = heed_for_ever(shared) => {}
    }
}

async fn heed_for_ever(shared: Arc<Shared>) {
    loop {
        let mut nudges = match shared.broker.worker_nudges(&shared.config.name).await {
            Ok(nudges) => nudges,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while let Some(nudge) = nudges.recv().await {
            match nudge {
                WorkerNudge::Call(call) => drive::look(&shared, call),
                WorkerNudge::All => {
                    let calls: Vec<_> = shared.state().jobs.keys().copied().collect();
                    calls.into_iter().for_each(|call| drive::look(&shared, call));
                }
            }
        }
    }
}
