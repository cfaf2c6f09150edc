//! Where calls come from: the queue, lost workers, and what the store has to say about running ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rand::RngExt;

use super::drive::{self, Start};
use super::slots::{FreeSlot, Slots};
use super::{Shared, direct, task};
use crate::call::{Claim, Delivery, DeliveryLimits, Input, Rerun, Send, task::queue as task_queue};
use crate::events::Stream;
use crate::store::{self, Arrived, Claimed, Entry, Taken, WorkerHint};

/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// How often to look for calls of lost workers.
const CLAIM_EVERY: Duration = Duration::from_millis(250);
/// How often to look for lines that nobody was woken for, or that a worker read and never took.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Lines that come faster than this are read together.
const BUSY: Duration = Duration::from_millis(1);
/// Lines read from the queue at once, and calls claimed at once.
const MOST: usize = 32;

/// A queue, and the slots for what comes from it.
#[derive(Clone)]
pub(super) struct Lane {
    queue: String,
    slots: Arc<Slots>,
}

impl Lane {
    /// The queue of calls, and that of the rounds of tasks.
    pub(super) fn all(shared: &Shared) -> Vec<Self> {
        let config = &shared.config;
        let mut all = vec![Self { queue: config.server.clone(), slots: shared.slots.clone() }];
        if config.task_concurrency > 0 {
            all.push(Self { queue: task_queue(&config.server), slots: shared.task_slots.clone() });
        }
        all
    }
}

/// Takes calls from the queue as long as there are free slots.
pub(super) async fn take(shared: Arc<Shared>, lane: Lane) {
    let config = &shared.config;
    let mut reader =
        Reader { shared: &shared, lane: &lane, slot: None, looks: true, looked: Instant::now(), waits: None };
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            step = reader.step(&config.name) => match step {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the queue can't be read");
                    tokio::time::sleep(PAUSE).await;
                }
                None => return,
            },
        }
    }
}

/// Reads one queue. It has a free slot in its hand whenever it waits for a line: what wakes it, it can begin.
struct Reader<'a> {
    shared: &'a Arc<Shared>,
    lane: &'a Lane,
    slot: Option<FreeSlot>,
    /// Lines may wait that are to be taken by turns. Else it waits for the next one to come.
    looks: bool,
    /// When it looked last.
    looked: Instant,
    /// The wait for a line, and since when. It goes on over other steps: a line that wakes nobody waits too long.
    waits: Option<(Waits<'a>, Instant)>,
}

type Waits<'a> = BoxFuture<'a, store::Result<Option<Arrived>>>;

impl<'a> Reader<'a> {
    /// None: the worker ends. May be dropped at any await.
    async fn step(&mut self, worker: &'a str) -> Option<store::Result<()>> {
        let (shared, lane) = (self.shared, self.lane);
        if self.slot.is_none() {
            self.slot = lane.slots.free_now();
        }
        if self.slot.is_none() {
            // Lines may come while all slots are taken.
            self.looks = true;
            tokio::select! {
                biased;
                slot = lane.slots.free() => self.slot = Some(slot?),
                line = arrival(&mut self.waits) => {
                    self.waits = None;
                    if let Ok(Some(line)) = line {
                        return Some(shared.store.pass_on(&lane.queue, &line).await);
                    }
                }
            }
            return Some(Ok(()));
        }
        if self.looks {
            let room = lane.slots.room((lane.slots.count() + 1).min(MOST));
            self.looked = Instant::now();
            let lines = match shared.store.next(&lane.queue, worker, &room).await {
                Ok(lines) => lines,
                Err(error) => return Some(Err(error)),
            };
            // Less than there was room for: nothing else waits that this worker may take.
            self.looks = lines.len() >= room.most;
            for entry in lines {
                let free = self.slot.take().or_else(|| lane.slots.free_now());
                spawn_take(shared, lane, entry, free);
            }
            return Some(Ok(()));
        }
        let (_, since) =
            self.waits.get_or_insert_with(|| (shared.store.arrival(&lane.queue, worker), Instant::now()));
        let since = *since;
        tokio::select! {
            line = arrival(&mut self.waits) => {
                self.waits = None;
                match line {
                    Ok(Some(line)) if lane.slots.room(1).fits(&line.entry.parties) => {
                        // Lines that come one on another are read together.
                        self.looks = since.elapsed() < BUSY;
                        let free = self.slot.take();
                        spawn_take(shared, lane, line.entry, free);
                    }
                    Ok(Some(line)) => {
                        // Others may wait behind it that this worker may take.
                        self.looks = line.passed == 0;
                        return Some(shared.store.pass_on(&lane.queue, &line).await);
                    }
                    Ok(None) => self.looks = true,
                    Err(error) => {
                        self.looks = true;
                        return Some(Err(error));
                    }
                }
            }
            () = lane.slots.roomier() => self.looks = true,
            // A line may have woken a worker that is gone, or have been read by one.
            () = tokio::time::sleep_until((self.looked + LOOK_EVERY).into()) => self.looks = true,
        }
        Some(Ok(()))
    }
}

/// The line that is waited for; never, when none is.
async fn arrival(waits: &mut Option<(Waits<'_>, Instant)>) -> store::Result<Option<Arrived>> {
    match waits {
        Some((wait, _)) => wait.await,
        None => std::future::pending().await,
    }
}

fn spawn_take(shared: &Arc<Shared>, lane: &Lane, entry: Entry, free: Option<FreeSlot>) {
    let (shared, lane) = (shared.clone(), lane.clone());
    let busy = shared.busy.clone();
    // At once: what the reader does next depends on it.
    let slot = free.and_then(|free| lane.slots.give(free, &entry.parties).ok());
    tokio::spawn(async move {
        let _busy = busy;
        // A line that is not taken now is there for other workers.
        let slot = match slot {
            Some(slot) if !shared.stop.is_cancelled() => Some(slot),
            Some(_) => None,
            // A call of a lost worker came in between.
            None => tokio::select! {
                biased;
                () = shared.stop.cancelled() => None,
                slot = lane.slots.acquire(&entry.parties) => slot,
            },
        };
        let Some(slot) = slot else { return };
        let rerun = shared.rerun(entry.tool.as_deref());
        let Some(taken) = take_one(&shared, &lane, &entry, rerun).await else { return };
        direct::supersede(&shared, entry.call);
        let snapshot = taken.snapshot;
        let delivery = Delivery::taken(&snapshot.order, snapshot.state.clone(), DeliveryLimits::default());
        let start = Start { call: entry.call, snapshot, generation: taken.generation, run: true, link: None };
        drive::drive(shared, start, delivery, Some(slot)).await;
    });
}

/// Takes the call of a line. Repeated until it is answered: a TAKE whose reply was lost would leave a call that
/// nobody runs.
async fn take_one(shared: &Shared, lane: &Lane, entry: &Entry, rerun: Rerun) -> Option<Taken> {
    let attempt = format!("{:016x}", rand::random::<u64>());
    loop {
        match shared.store.take(&lane.queue, &shared.config.name, entry, &attempt, rerun).await {
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

/// Takes over the calls of lost workers.
pub(super) async fn claim(shared: Arc<Shared>, lane: Lane) {
    let config = &shared.config;
    while !shared.stop.is_cancelled() {
        // Spread, so that not all workers ask at once.
        let jitter = rand::rng().random_range(0..50);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(CLAIM_EVERY + Duration::from_millis(jitter)) => {}
        }
        // Asked before each round: a worker that has just lost the store must not be the first to ask it
        // when it is back.
        if !shared.is_settled(&shared.state()) {
            continue;
        }
        let _busy = shared.busy.clone();
        let claim = shared.store.claim(&lane.queue, &config.name, MOST, shared.late());
        if let Ok(claimed) = claim.await {
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
        direct::supersede(&shared, claimed.call);
        if let Some(channel) = claimed.close
            && let Some(publisher) = &shared.publisher
        {
            let item = Stream::of(&claimed.snapshot.order).item(channel, &Send::Close);
            publisher.broadcast(&[item]).await;
        }
        let snapshot = &claimed.snapshot;
        let rerun = snapshot.rerun.unwrap_or_else(|| shared.rerun(snapshot.order.tool.as_deref()));
        let run = claimed.claim == Claim::Run && rerun == Rerun::Safe;
        if claimed.snapshot.order.task.is_some() && !run {
            return task::end_lost(&shared, &claimed).await;
        }
        let mut delivery = Delivery::claimed(snapshot, DeliveryLimits::default());
        if claimed.claim == Claim::Run && !run {
            delivery.input(Input::Finished(Some(snapshot.order.lost.clone())));
        }
        let start = Start { call: claimed.call, snapshot: claimed.snapshot, generation, run, link: None };
        drive::drive(shared, start, delivery, None).await;
    });
}

/// Looks again at the calls that the store points to.
pub(super) async fn follow_hints(shared: Arc<Shared>) {
    let ended = shared.ended.clone();
    tokio::select! {
        () = ended.cancelled() => {}
        () = follow_hints_for_ever(shared) => {}
    }
}

async fn follow_hints_for_ever(shared: Arc<Shared>) {
    loop {
        let mut hints = match shared.store.worker_hints(&shared.config.name).await {
            Ok(hints) => hints,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while let Some(hint) = hints.recv().await {
            match hint {
                WorkerHint::Call(call) => drive::look(&shared, call),
                WorkerHint::All => {
                    let calls: Vec<_> = shared.state().jobs.keys().copied().collect();
                    calls.into_iter().for_each(|call| drive::look(&shared, call));
                }
            }
        }
    }
}
