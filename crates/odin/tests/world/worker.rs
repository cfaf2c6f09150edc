//! The workers of the simulation: the real `Delivery`, driven step by step.

use odin::call::{
    Action, Claim, Delivery, DeliveryLimits, Fence, Gone, HANG_UP, Input, Link, Message, Rerun, Send,
    SendOutcome, Snapshot, Timing,
};
use odin::id::{CallChannel, CallId};
use odin::protocol::Era;
use odin::store::{Beat, Entry, MemoryStore, Queue, Room, Runs};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;

use super::direct::DirectJob;
use super::{SERVER, World, done};

pub struct Worker {
    pub name: String,
    lives: u32,
    pub paused: bool,
    pub link: bool,
    pub jobs: BTreeMap<CallId, Job>,
    /// Calls that came straight from a backend.
    pub direct: BTreeMap<CallId, DirectJob>,
    pub wire: VecDeque<(CallChannel, Send)>,
    /// A write that was checked and not yet made.
    armed: Option<(CallId, CallChannel, Vec<Send>)>,
    /// Lines whose TAKE was not answered, with its name: it is repeated.
    taking: Vec<(Entry, String)>,
    /// Subscriptions that the worker heard of, and since when.
    known: BTreeMap<CallChannel, u64>,
    /// Time of the last beat that was answered.
    beat: u64,
}

pub struct Job {
    delivery: Delivery,
    snapshot: Snapshot,
    generation: String,
    emitted: u32,
    events: u32,
    hang_up: Option<u32>,
    /// Which run of the tool this is: 1 for the first.
    body: u32,
    ended: bool,
}

impl Job {
    /// Something that came on a link.
    pub fn input(&mut self, input: Input) {
        self.delivery.input(input);
    }

    /// The tool is told to stop.
    pub fn stop(&mut self) {
        if !self.ended {
            self.ended = true;
            self.delivery.input(Input::Finished(None));
        }
    }

    /// It ran directly so far.
    pub fn resume(&mut self, emitted: u32, body: u32) {
        (self.emitted, self.body) = (emitted, body);
    }
}

/// The tool's event of that number.
pub fn event(number: u32, body: u32, hang_up: Option<u32>) -> Message {
    if hang_up == Some(number) { HANG_UP.into() } else { format!("event {number} of run {body}").into() }
}

impl Worker {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            lives: 0,
            paused: false,
            link: true,
            jobs: BTreeMap::new(),
            direct: BTreeMap::new(),
            wire: VecDeque::new(),
            armed: None,
            taking: Vec::new(),
            known: BTreeMap::new(),
            beat: 0,
        }
    }
}

impl World {
    fn idle(&self, worker: usize) -> bool {
        self.workers[worker].paused
    }

    pub fn worker_crash(&mut self, worker: usize) {
        self.say(format!("FAULT worker {worker} crashes"));
        let lives = self.workers[worker].lives + 1;
        let prefix = self.workers[worker].name.split('-').next().unwrap().to_owned();
        // What reached the socket may still arrive.
        let wire = std::mem::take(&mut self.workers[worker].wire);
        self.workers[worker] = Worker { lives, wire, ..Worker::new(&format!("{prefix}-{lives}")) };
        self.links_of_worker_end(worker);
    }

    pub fn worker_loses_link(&mut self, worker: usize) {
        let state = &mut self.workers[worker];
        state.link = false;
        state.wire.clear();
        state.armed = None;
        state.known.clear();
        for job in state.jobs.values_mut() {
            job.delivery.input(Input::Link { pushpin: 0, link: Link::Down });
        }
    }

    pub fn worker_next(&mut self, worker: usize) {
        if self.idle(worker) {
            return;
        }
        let name = self.workers[worker].name.clone();
        let next = async |store: &MemoryStore| store.next(SERVER, &name, &Room::of(2)).await;
        let Some(entries) = self.ask("NEXT", next) else { return };
        // A worker may die, or be paused, between reading a line and taking it.
        if !entries.is_empty() && self.rng.random_range(0..20) == 0 {
            self.say(format!("worker {worker} reads a line and forgets it"));
            return;
        }
        self.take(worker, entries);
    }

    /// Takes what the worker has read, each under a name of its own.
    fn take(&mut self, worker: usize, entries: Vec<Entry>) {
        for entry in entries {
            let attempt = self.rng.random::<u32>().to_string();
            self.workers[worker].taking.push((entry, attempt));
        }
        self.worker_takes(worker);
    }

    /// Repeats each TAKE until it is answered.
    pub fn worker_takes(&mut self, worker: usize) {
        if self.idle(worker) {
            return;
        }
        let name = self.workers[worker].name.clone();
        for (entry, attempt) in std::mem::take(&mut self.workers[worker].taking) {
            let rerun = if entry.tool.as_deref() == Some("Safe") { Rerun::Safe } else { Rerun::Unsafe };
            let take = async |store: &MemoryStore| store.take(SERVER, &name, &entry, &attempt, rerun).await;
            let Some(taken) = self.ask("TAKE", take) else {
                self.workers[worker].taking.push((entry, attempt));
                continue;
            };
            let Some(taken) = taken else { continue };
            let number = self.calls.iter().position(|call| call.id == entry.call).unwrap();
            self.supersede(worker, entry.call);
            self.calls[number].bodies += 1;
            self.say(format!("worker {worker} takes call {number}, epoch {}", taken.snapshot.epoch));
            let snapshot = &taken.snapshot;
            let delivery =
                Delivery::taken(&snapshot.order, snapshot.state.clone(), DeliveryLimits::default());
            self.start(worker, entry.call, delivery, taken.snapshot, taken.generation, false);
        }
    }

    pub fn start(
        &mut self,
        worker: usize,
        call: CallId,
        mut delivery: Delivery,
        snapshot: Snapshot,
        generation: String,
        ended: bool,
    ) {
        let known = self.calls.iter().find(|known| known.id == call).unwrap();
        let (events, hang_up, body) = (known.events, known.hang_up, known.bodies);
        let now = self.time();
        let state = &mut self.workers[worker];
        for channel in state.known.keys().filter(|channel| channel.call == call) {
            delivery.input(Input::Subscribed { pushpin: 0, channel: channel.number });
        }
        state.beat = if state.jobs.is_empty() { now } else { state.beat };
        state
            .jobs
            .insert(call, Job { delivery, snapshot, generation, emitted: 0, events, hang_up, body, ended });
    }

    pub fn worker_claim(&mut self, worker: usize) {
        if self.idle(worker) {
            return;
        }
        let name = self.workers[worker].name.clone();
        let by = self.time();
        let claim = async |store: &MemoryStore| store.claim(SERVER, &name, 4, by).await;
        for claimed in self.ask("CLAIM", claim).unwrap_or_default() {
            let number = self.calls.iter().position(|call| call.id == claimed.call).unwrap();
            self.say(format!("worker {worker} claims call {number}: {:?}", claimed.claim));
            self.supersede(worker, claimed.call);
            // A backend registered it, which does not know the tool: the claimer decides.
            let rerun = claimed.snapshot.rerun.unwrap_or(self.calls[number].rerun);
            let ended = claimed.claim != Claim::Run || rerun == Rerun::Unsafe;
            if !ended {
                self.calls[number].bodies += 1;
            }
            if let Some(channel) = claimed.close
                && self.workers[worker].link
            {
                self.workers[worker].wire.push_back((channel, Send::Close));
            }
            let generation = done(self.store.beat(&name, &[])).generation;
            let mut delivery = Delivery::claimed(&claimed.snapshot, DeliveryLimits::default());
            if claimed.claim == Claim::Run && ended {
                delivery.input(Input::Finished(Some(claimed.snapshot.order.lost.clone())));
            }
            self.start(worker, claimed.call, delivery, claimed.snapshot, generation, ended);
        }
    }

    pub fn worker_tool(&mut self, worker: usize) {
        let (owned, direct) = (self.workers[worker].jobs.len(), self.workers[worker].direct.len());
        if self.idle(worker) || owned + direct == 0 {
            return;
        }
        let index = self.rng.random_range(0..owned + direct);
        if index >= owned {
            let call = *self.workers[worker].direct.keys().nth(index - owned).unwrap();
            return self.direct_tool(worker, call);
        }
        let job = self.workers[worker].jobs.values_mut().nth(index).unwrap();
        if job.ended {
            return;
        }
        if job.emitted < job.events {
            job.emitted += 1;
            let event = event(job.emitted, job.body, job.hang_up);
            let asks = job.hang_up == Some(job.emitted) || self.rng.random_range(0..4) == 0;
            job.delivery.input(if asks { Input::Asked(event) } else { Input::Emitted(event) });
        } else {
            job.ended = true;
            job.delivery.input(Input::Finished(Some("answer".into())));
        }
    }

    /// The worker hears of one change of the subscriptions.
    pub fn worker_hears(&mut self, worker: usize) {
        if self.idle(worker) || !self.workers[worker].link {
            self.workers[worker].link |= self.rng.random_range(0..8) == 0;
            return;
        }
        let now = self.time();
        let actual: BTreeSet<CallChannel> = self.subscriptions().into_keys().collect();
        let state = &mut self.workers[worker];
        let gone = state.known.keys().find(|channel| !actual.contains(channel)).copied();
        let new = actual.iter().find(|channel| !state.known.contains_key(channel)).copied();
        let (channel, subscribed) = match (gone, new) {
            (Some(channel), _) => (channel, false),
            (None, Some(channel)) => (channel, true),
            (None, None) => return,
        };
        let number = channel.number;
        let input = if subscribed {
            state.known.insert(channel, now);
            Input::Subscribed { pushpin: 0, channel: number }
        } else {
            state.known.remove(&channel);
            Input::Unsubscribed { pushpin: 0, channel: number }
        };
        if let Some(job) = state.jobs.get_mut(&channel.call) {
            job.delivery.input(input);
        }
        self.say(format!("worker {worker} hears: channel {number} subscribed {subscribed}"));
    }

    pub fn worker_beat(&mut self, worker: usize) {
        if self.idle(worker) {
            return;
        }
        let state = &self.workers[worker];
        let calls: Vec<CallId> = state.jobs.keys().copied().collect();
        let beats: Vec<Beat> = state
            .jobs
            .iter()
            .map(|(call, job)| Beat {
                call: *call,
                epoch: job.snapshot.epoch,
                subscribed: !state.link || job.delivery.sees_subscription(),
            })
            .collect();
        let name = state.name.clone();
        let Some(beaten) = self.ask("BEAT", async |store| store.beat(&name, &beats).await) else { return };
        for (call, view) in calls.into_iter().zip(beaten.views) {
            let Some(view) = self.or_restored(worker, call, view) else { continue };
            if let Some(job) = self.workers[worker].jobs.get_mut(&call) {
                job.delivery.input(Input::Seen(view));
            }
        }
        self.workers[worker].beat = self.time();
    }

    /// When the store lost its memory, a worker that was on duty until then registers its call again. None: that
    /// was not answered, and is to be tried again.
    fn or_restored<T: From<odin::call::State>>(
        &mut self,
        worker: usize,
        call: CallId,
        view: Result<T, Gone>,
    ) -> Option<Result<T, Gone>> {
        if !matches!(view, Err(Gone::Missing)) {
            return Some(view);
        }
        let now = self.time();
        let name = self.workers[worker].name.clone();
        let fresh = now < self.workers[worker].beat + Timing::default().lease.as_millis() as u64;
        let generation = done(self.store.beat(&name, &[])).generation;
        let job = self.workers[worker].jobs.get_mut(&call).unwrap();
        if generation == job.generation || !fresh || job.delivery.is_over() {
            return Some(view);
        }
        let (run, state, out, log) = job.delivery.remembered();
        let snapshot = Snapshot { run, state, out, log, ..job.snapshot.clone() };
        let restore = async |store: &MemoryStore| store.restore(call, &name, snapshot).await;
        let reply = self.ask("RESTORE", restore)?;
        self.workers[worker].jobs.get_mut(&call).unwrap().generation = generation;
        self.say(format!("worker {worker} restores {call}: {reply:?}"));
        Some(reply.map(T::from))
    }

    /// One action of one job.
    pub fn worker_job(&mut self, worker: usize) {
        let (owned, direct) = (self.workers[worker].jobs.len(), self.workers[worker].direct.len());
        if self.idle(worker) || owned + direct == 0 {
            return;
        }
        let index = self.rng.random_range(0..owned + direct);
        if index >= owned {
            let call = *self.workers[worker].direct.keys().nth(index - owned).unwrap();
            self.direct_job(worker, call);
            return;
        }
        let call = *self.workers[worker].jobs.keys().nth(index).unwrap();
        self.act(worker, call);
    }

    /// What direct calls have to do now, once.
    pub fn direct_jobs(&mut self, worker: usize) {
        if self.idle(worker) {
            return;
        }
        for call in self.workers[worker].direct.keys().copied().collect::<Vec<_>>() {
            self.direct_job(worker, call);
        }
    }

    /// All that all jobs have to do now.
    pub fn worker_jobs(&mut self, worker: usize) {
        for call in self.workers[worker].direct.keys().copied().collect::<Vec<_>>() {
            for _ in 0..3 {
                if !self.direct_job(worker, call) {
                    break;
                }
            }
        }
        for call in self.workers[worker].jobs.keys().copied().collect::<Vec<_>>() {
            for _ in 0..10 {
                if !self.act(worker, call) {
                    break;
                }
            }
        }
    }

    fn act(&mut self, worker: usize, call: CallId) -> bool {
        self.write_armed(worker);
        let now = self.time();
        let Some(job) = self.workers[worker].jobs.get_mut(&call) else { return false };
        let action = job.delivery.next(now);
        let epoch = job.snapshot.epoch;
        match &action {
            Action::Wait { .. } => return false,
            Action::Exit(exit) => {
                self.workers[worker].jobs.remove(&call);
                self.say(format!("worker {worker}: {call} exits {exit:?}"));
                return false;
            }
            Action::Send { channel, items, .. } => {
                let fresh = now < self.workers[worker].beat + Timing::default().lease.as_millis() as u64;
                let channel = CallChannel { call, number: *channel };
                if fresh && self.workers[worker].link {
                    self.workers[worker].armed = Some((call, channel, items.clone()));
                }
                return fresh;
            }
            _ => {}
        }
        self.say(format!("worker {worker}: {action:?}"));
        let name = self.workers[worker].name.clone();
        let fence = Fence::new(&name, epoch);
        let reply = match &action {
            Action::Emit { first, events } => {
                self.ask("EMIT", async |store| store.emit(call, fence, *first, events).await)
            }
            Action::Finish { out } => self.ask("FINISH", async |store| store.finish(call, fence, out).await),
            Action::Gate { channel } => {
                self.ask("GATE", async |store| store.gate(call, fence, *channel).await)
            }
            Action::Lost { channel } => {
                self.ask("LOST", async |store| store.lost(call, fence, *channel).await)
            }
            Action::DropWork => {
                let reply = self.ask("DROP", async |store| store.drop_work(call, fence).await);
                let Some(reply) = reply else { return false };
                let Ok(reply) = self.or_seen(worker, call, reply) else { return true };
                self.workers[worker].jobs.get_mut(&call).unwrap().delivery.dropped(reply);
                return true;
            }
            Action::Published => {
                let reply = self.ask("PUBLISHED", async |store| store.published(call, fence).await);
                let Some(reply) = reply else { return false };
                let Ok(reply) = self.or_seen(worker, call, reply) else { return true };
                self.workers[worker].jobs.get_mut(&call).unwrap().delivery.published(reply);
                return true;
            }
            Action::Send { .. } | Action::Wait { .. } | Action::Exit(_) => return false,
        };
        let Some(reply) = reply else { return false };
        let Ok(reply) = self.or_seen(worker, call, reply) else { return true };
        let job = self.workers[worker].jobs.get_mut(&call).unwrap();
        job.delivery.replied(&action, reply, now);
        true
    }

    /// The reply; or, after the call was registered again, nothing: the action comes again.
    fn or_seen<T>(
        &mut self,
        worker: usize,
        call: CallId,
        reply: Result<T, Gone>,
    ) -> Result<Result<T, Gone>, ()> {
        if !matches!(reply, Err(Gone::Missing)) {
            return Ok(reply);
        }
        match self.or_restored::<odin::call::State>(worker, call, Err(Gone::Missing)) {
            Some(Ok(state)) => {
                let job = self.workers[worker].jobs.get_mut(&call).unwrap();
                job.delivery.input(Input::Seen(Ok(state)));
                Err(())
            }
            Some(Err(_)) => Ok(reply),
            None => Err(()),
        }
    }

    fn write_armed(&mut self, worker: usize) {
        let now = self.time();
        let Some((call, channel, items)) = self.workers[worker].armed.take() else { return };
        self.workers[worker].wire.extend(items.iter().map(|item| (channel, item.clone())));
        if let Some(job) = self.workers[worker].jobs.get_mut(&call) {
            job.delivery.sent(&items, SendOutcome::Sent, now);
        }
    }

    /// Subscriptions that nobody serves are ended, after a grace time.
    pub fn worker_orphaned(&mut self, worker: usize) {
        if self.idle(worker) || !self.workers[worker].link {
            return;
        }
        let now = self.time();
        let old: Vec<CallChannel> = self.workers[worker]
            .known
            .iter()
            .filter(|(_, since)| now > **since + 5_000)
            .map(|(channel, _)| *channel)
            .collect();
        for channel in old {
            let number = self.calls.iter().position(|call| call.id == channel.call).unwrap();
            if self.calls[number].stream {
                continue;
            }
            let Some(Some(orphaned)) = self.ask("ORPHANED", async |store| store.orphaned(channel).await)
            else {
                continue;
            };
            self.say(format!("worker {worker}: channel {} of call {number} is orphaned", channel.number));
            if orphaned.final_message.is_none() && self.calls[number].era == Era::Stateless {
                assert!(self.calls[number].excused, "a record was lost without a fault");
            }
            let wire = &mut self.workers[worker].wire;
            if let Some(final_message) = orphaned.final_message {
                wire.extend((1..=orphaned.event_count).map(|n| (channel, Send::Burn(n))));
                wire.push_back((channel, Send::Final(orphaned.event_count + 1, final_message)));
            }
            wire.push_back((channel, Send::Close));
        }
    }
}
