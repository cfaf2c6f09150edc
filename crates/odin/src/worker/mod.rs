//! The worker: takes calls from the queue, runs them, and sees that what they say reaches the client.
//!
//! One task drives each call ([`crate::call::Delivery`] says what it does next); a thread of its own keeps
//! the leases alive, so that a tool that blocks the runtime does not lose its calls.

mod beat;
mod direct;
mod drive;
mod intake;
mod outbox;
mod runner;
mod slots;
mod streams;
mod task;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join;
use grip::{Event, Publisher};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::call::{Fence, Rerun, Timing};
use crate::health::{self, Degraded};
use crate::id::CallId;
use crate::store::Store;
use slots::Slots;

pub use direct::{DirectCalls, Pipes};
pub use outbox::EventLimits;
pub use runner::{Closed, Emission, Inbound, Once, Outbox, Runner};
pub use slots::Shares;
pub use task::TaskTimes;

/// What a worker is called and how much it takes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerConfig {
    /// Name, unique among all workers that ever shared this store: a restarted worker needs a new one.
    pub name: String,
    /// Named server that it serves.
    pub server: String,
    /// Calls that run at once.
    pub concurrency: usize,
    /// Rounds of tasks that run at once, beside the calls. None: this worker takes no tasks.
    pub task_concurrency: usize,
    /// How much of that one organisation and one principal may have at once; of each of the two by itself.
    pub shares: Shares,
    /// The protocol's times; the same on every node.
    pub timing: Timing,
    /// Bounds of what one call may send before its answer.
    pub events: EventLimits,
    /// Bytes of an answer; a larger one is replaced by an error that says so. What goes through Pushpin, which takes an
    /// item of just under 1 MB, is bounded by that beside.
    pub answer_bytes: usize,
    /// The times of tasks.
    pub tasks: TaskTimes,
}

impl WorkerConfig {
    /// The defaults, with a random name.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            name: format!("worker-{:08x}", rand::random::<u32>()),
            server: server.into(),
            concurrency: 64,
            task_concurrency: 32,
            shares: Shares::default(),
            timing: Timing::default(),
            events: EventLimits::default(),
            answer_bytes: 4 * 1024 * 1024,
            tasks: TaskTimes::default(),
        }
    }
}

setters!(WorkerConfig {
    with_name => name: String,
    with_server => server: String,
    with_concurrency => concurrency: usize,
    with_task_concurrency => task_concurrency: usize,
    with_shares => shares: Shares,
    with_timing => timing: Timing,
    with_events => events: EventLimits,
    with_answer_bytes => answer_bytes: usize,
    with_tasks => tasks: TaskTimes,
});

/// How long after it was sent a CLAIM may still be carried out: with a whole beat, less than a lease.
const LATE: Duration = Duration::from_millis(500);

/// A publisher and what it reports.
pub type Pushpins = (Publisher, mpsc::Receiver<Event>);

/// Makes a store for the thread that keeps the leases, inside that thread's own runtime.
pub type MakeStore = Box<dyn FnOnce() -> Arc<dyn Store> + Send>;

/// A running worker. It ends when the last clone is dropped: then its calls are left to other workers, as if it
/// had been killed. [`Worker::shut_down`] is the orderly end.
#[derive(Clone)]
#[must_use = "the worker ends when this is dropped"]
pub struct Worker {
    shared: Arc<Shared>,
    _alive: Arc<DropGuard>,
}

pub(crate) struct Shared {
    config: WorkerConfig,
    store: Arc<dyn Store>,
    runner: Arc<dyn Runner>,
    publisher: Option<Publisher>,
    slots: Arc<Slots>,
    task_slots: Arc<Slots>,
    state: Mutex<State>,
    start: Instant,
    /// Time of the last beat that was answered, in milliseconds since `start`; taken before it was sent.
    beaten: AtomicU64,
    /// No new calls are taken.
    stop: CancellationToken,
    /// All tasks, and the thread of the beats, end. Implies `stop`.
    ended: CancellationToken,
    /// Held by whatever takes calls, claims them, or drives one.
    busy: Arc<()>,
}

#[derive(Default)]
struct State {
    jobs: HashMap<CallId, drive::Handle>,
    /// Calls that came straight from their backends.
    direct: HashMap<CallId, direct::Handle>,
    streams: streams::Streams,
    /// Name of the store's memory, as last seen.
    generation: String,
    /// The time of the store's clock at the last beat, and when that was known; both in milliseconds.
    clock: (u64, u64),
    /// Since when this worker and the store have been in touch without a gap, and the store has had this
    /// memory; in milliseconds since the start.
    settled: u64,
}

impl State {
    /// The calls that a long-lived stream carries.
    fn carried_by(&self, channel: &str) -> impl Iterator<Item = &drive::Handle> {
        self.jobs.values().filter(move |job| job.stream() == Some(channel))
    }
}

impl Worker {
    /// Starts a worker in the current runtime. `publisher` is `None` where no Pushpin is used: all calls then
    /// stream through their backend. `beat_store` is called once, in the thread that keeps the leases.
    ///
    /// # Errors
    /// When that thread can't be started.
    pub fn start(
        config: WorkerConfig,
        store: Arc<dyn Store>,
        beat_store: MakeStore,
        runner: Arc<dyn Runner>,
        pushpins: Option<Pushpins>,
    ) -> std::io::Result<Self> {
        let (publisher, events) = pushpins.unzip();
        let ended = CancellationToken::new();
        let shared = Arc::new(Shared {
            slots: Slots::new(config.concurrency, config.shares),
            task_slots: Slots::new(config.task_concurrency, config.shares),
            config,
            store,
            runner,
            publisher,
            state: Mutex::default(),
            start: Instant::now(),
            beaten: AtomicU64::new(0),
            stop: ended.child_token(),
            ended,
            busy: Arc::default(),
        });
        let alive = Arc::new(shared.ended.clone().drop_guard());
        beat::start(shared.clone(), beat_store)?;
        if let Some(events) = events {
            let (shared, ended) = (shared.clone(), shared.ended.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    _ = join(streams::listen(shared.clone(), events), streams::end_orphaned(shared)) => {}
                }
            });
        }
        for lane in intake::Lane::all(&shared) {
            tokio::spawn(intake::take(shared.clone(), lane.clone()));
            tokio::spawn(intake::claim(shared.clone(), lane));
        }
        tokio::spawn(intake::follow_hints(shared.clone()));
        Ok(Self { shared, _alive: alive })
    }

    /// Takes no new calls, waits for the running ones, at most for `patience`, and ends: all its tasks, and the
    /// thread that keeps the leases. What still runs then is left to other workers.
    pub async fn shut_down(&self, patience: Duration) {
        let shared = &self.shared;
        shared.stop.cancel();
        let deadline = Instant::now() + patience;
        while Arc::strong_count(&shared.busy) > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shared.ended.cancel();
    }

    /// What it has now.
    pub fn load(&self) -> Load {
        let state = self.shared.state();
        let (calls, direct_calls) = (state.jobs.len(), state.direct.len());
        Load { calls, direct_calls, free: self.shared.slots.count() }
    }

    /// Whether it can do useful work: its lease is fresh, so the store answers. What it can't do beside that
    /// is in the list.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<Vec<Degraded>, String> {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            return Err("it is stopping".into());
        }
        if shared.fresh_until().is_none_or(|until| until < Instant::now()) {
            return Err("the store does not answer: is Redis running?".into());
        }
        let meaning = "what is to go to streams that it holds waits; quick calls work";
        Ok(health::lost_pushpins(shared.publisher.as_ref(), meaning))
    }
}

/// What a worker has at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Load {
    /// Calls that it owns.
    pub calls: usize,
    /// Calls that came straight from their backends, whether or not it owns them by now.
    pub direct_calls: usize,
    /// Slots that are free.
    pub free: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }

    /// Until when this worker may write to Pushpin: the end of the lease that its last answered beat gave it.
    fn fresh_until(&self) -> Option<Instant> {
        match self.beaten.load(Ordering::Acquire) {
            0 => None,
            beaten => Some(self.start + Duration::from_millis(beaten) + self.config.timing.lease),
        }
    }

    /// Whether no beat was answered for the time of `GAP` beats before `now`.
    fn is_out_of_touch(&self, now: u64) -> bool {
        let every = self.config.timing.lease / beat::PARTS;
        now.saturating_sub(self.beaten.load(Ordering::Acquire)) > millis(every * beat::GAP)
    }

    /// Whether a lease that has run out means that its owner is gone. After the store was out of reach, or
    /// lost its memory, the owners have one lease to renew theirs or to register again.
    fn is_settled(&self, state: &State) -> bool {
        let now = self.now();
        let lease = millis(self.config.timing.lease);
        !self.is_out_of_touch(now) && state.settled > 0 && now >= state.settled + lease
    }

    /// When a command that is sent now is late, in milliseconds of the store's clock.
    fn late(&self) -> u64 {
        let (store, known) = self.state().clock;
        store + self.now().saturating_sub(known) + millis(LATE)
    }

    /// Whether a call may run again.
    fn rerun(&self, tool: Option<&str>) -> Rerun {
        tool.map_or(Rerun::Safe, |tool| self.runner.rerun(tool))
    }

    /// What this worker shows the store for a call that it took in that epoch.
    fn fence(&self, epoch: u32) -> Fence<'_> {
        Fence::new(&self.config.name, epoch)
    }

    fn links_replayed(&self) -> bool {
        self.publisher.as_ref().is_none_or(Publisher::all_replayed)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
