//! The world of the simulation.

mod client;
mod direct;
mod front;
mod pushpin;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use odin::call::{Order, Rerun, Retry, Send, Timing, Via};
use odin::id::{CallChannel, CallId, Ticket};
use odin::protocol::Era;
use odin::store::{MemoryStore, StoreLimits};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub use client::{Client, Phase};
use direct::Link;
use odin::call::direct::Handed;
use worker::Worker;

/// Which faults a run may have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub worker_crash: bool,
    pub worker_pause: bool,
    pub backend_crash: bool,
    pub hold_lost: bool,
    pub hold_repeated: bool,
    pub disconnect: bool,
    pub link: bool,
    pub pushpin: bool,
    pub store: bool,
    /// A command of the store is carried out, and its reply is lost.
    pub reply: bool,
    /// A client cancels, or loses its connection and sends its request again under the same key.
    pub client: bool,
    /// Calls go straight to workers, where that is possible.
    pub direct: bool,
    /// A link between a backend and a worker breaks.
    pub wire: bool,
}

impl Faults {
    pub fn all() -> Self {
        Self {
            worker_crash: true,
            worker_pause: true,
            backend_crash: true,
            hold_lost: true,
            hold_repeated: true,
            disconnect: true,
            link: true,
            pushpin: true,
            store: true,
            reply: true,
            client: true,
            direct: true,
            wire: true,
        }
    }
}

pub const SERVER: &str = "default";

/// One call of one client.
pub struct Call {
    pub id: CallId,
    pub era: Era,
    pub rerun: Rerun,
    pub via: Via,
    /// It is one of HTTP+SSE: its messages go to a stream that stands already.
    pub stream: bool,
    /// The client may send it again.
    pub retried: bool,
    pub events: u32,
    /// The number of the event in whose place the tool ends the stream.
    pub hang_up: Option<u32>,
    /// How often the tool was begun, under each of the call's names.
    pub bodies: u32,
    /// The client got the error that the tool will not run.
    pub promised: bool,
    /// The client cancelled it.
    pub cancelled: bool,
    pub node: usize,
    pub request: u64,
    pub front: Front,
    pub client: Client,
    /// A fault that may end this call's stream early struck.
    pub excused: bool,
    /// How often its client sent it again.
    pub again: u8,
    /// Its backend died while it watched the call.
    pub unwatched: bool,
    /// Since when the backend knows that it is queued.
    pub queued: Option<u64>,
    /// The request before this one, of whose end the store has not heard yet.
    pub left: Option<(String, u64)>,
    /// Since when its record is missing.
    pub missing: Option<u64>,
    /// Names it among all calls.
    pub key: u8,
    /// The store lost its memory.
    pub forgotten: bool,
    pub gets: Vec<Get>,
    /// What the backend offers; one for the whole wait.
    pub ticket: Ticket,
    /// When the backend last asked for the call.
    pub asked: u64,
    /// How many events a backend that streams by itself has passed on.
    pub passed: u32,
    /// It is to go straight to a worker.
    pub direct: bool,
    /// Its backend's side, as long as it is direct, and after that as long as it is waited for.
    pub handed: Option<Handed>,
    /// The link that it was sent on, and the worker at its other end.
    pub line: Option<(usize, u64)>,
    pub worker: String,
    /// Its client was told that nobody knows what became of it.
    pub told: bool,
    /// A frame of it was lost with a link.
    pub lost_frame: bool,
    /// Something happened to a part that may cost a call that may not run twice.
    pub hard: bool,
    /// It was cancelled by a notification, which counts for what comes until then.
    pub ahead: Option<u64>,
}

/// What the backend does with the client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    New,
    /// ENQ was sent and not answered; it may still come, if it is true.
    Unanswered(bool),
    Waiting,
    /// It went straight to a worker.
    Direct,
    /// Another request has the call as well; this one waits for the answer alone.
    Joined,
    /// Nobody waits, as the answer goes to a stream that stands already; the backend looks once whether a worker came.
    Watched,
    Over,
}

/// A hold request on its way, or its answer.
pub struct Get {
    pub abandoned: bool,
    pub stage: Stage,
}

pub enum Stage {
    /// On the way to a backend.
    Asked,
    /// The answer is on its way to Pushpin: channel, first content, and whether the stream ends with it.
    Answered(Option<u32>, Vec<Send>),
}

/// One stream that Pushpin holds.
pub struct Hold {
    pub call: usize,
    pub channel: CallChannel,
    pub attached: bool,
}

#[derive(Default)]
pub struct Pushpin {
    pub holds: Vec<Hold>,
    pub seen: BTreeSet<(CallChannel, String)>,
}

pub const SESSION: &str = "session";

pub struct World {
    pub rng: SmallRng,
    pub now: Arc<AtomicU64>,
    pub store: MemoryStore,
    pub calls: Vec<Call>,
    pub workers: Vec<Worker>,
    pub pushpin: Pushpin,
    /// Names of the living backends; a restarted one has a new name.
    pub nodes: Vec<String>,
    pub backend_link: bool,
    /// Between each backend and each worker.
    pub links: Vec<Link>,
    faults: Faults,
    left: u32,
    pub trace: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

/// Runs a command of the in-memory store, which never waits.
pub fn done<T>(future: impl Future<Output = odin::store::Result<T>>) -> T {
    future.now_or_never().expect("the memory store does not wait").expect("nor does it fail")
}

impl World {
    pub fn new(seed: u64, faults: Faults, most: u32) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let now = Arc::new(AtomicU64::new(1_000));
        let clock = now.clone();
        let store = MemoryStore::with_clock(
            Timing::default(),
            StoreLimits::default(),
            Arc::new(move || clock.load(Ordering::Relaxed)),
        );
        let count = rng.random_range(1..=3);
        let calls = (0..count)
            .map(|number| {
                let era = if rng.random() { Era::Stateless } else { Era::Stateful };
                let stream = faults.client && era == Era::Stateful && rng.random_range(0..5) == 0;
                let via = if rng.random_range(0..4) == 0 && !stream { Via::Backend } else { Via::Pushpin };
                let events = if faults.direct && rng.random() { 0 } else { rng.random_range(0..=6) };
                let hang_up =
                    (faults.client && era == Era::Stateful && !stream && events > 1 && rng.random())
                        .then(|| rng.random_range(1..=events));
                let retried = faults.client && !stream && rng.random_range(0..3) == 0;
                Call {
                    id: CallId::from_bits([number; 16]),
                    era,
                    rerun: if rng.random() { Rerun::Safe } else { Rerun::Unsafe },
                    via,
                    stream,
                    retried,
                    events,
                    hang_up,
                    bodies: 0,
                    promised: false,
                    cancelled: false,
                    node: rng.random_range(0..2),
                    request: u64::from(number),
                    front: Front::New,
                    client: Client::new(era, stream, hang_up),
                    excused: false,
                    again: 0,
                    unwatched: false,
                    left: None,
                    queued: None,
                    missing: None,
                    key: number,
                    forgotten: false,
                    gets: Vec::new(),
                    ticket: Ticket::from_bits(rng.random()),
                    asked: 0,
                    passed: 0,
                    // What has a key, or a stream already, goes through the queue.
                    direct: faults.direct && !stream && !retried && rng.random_range(0..5) > 0,
                    handed: None,
                    line: None,
                    worker: String::new(),
                    told: false,
                    lost_frame: false,
                    hard: false,
                    ahead: None,
                }
            })
            .collect();
        let left = if most == 0 { 0 } else { rng.random_range(0..=most) };
        let mut world = Self {
            rng,
            now,
            store,
            calls,
            workers: vec![Worker::new("w1-0"), Worker::new("w2-0")],
            pushpin: Pushpin::default(),
            nodes: vec!["a-0".into(), "b-0".into()],
            backend_link: true,
            links: (0..4).map(|_| Link::new(0, 1_000)).collect(),
            faults,
            left,
            trace: Vec::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
        };
        world.open_streams();
        world
    }

    /// Gives the store a command. None: it was carried out, and nobody hears of it.
    pub fn ask<T>(
        &mut self,
        what: &str,
        command: impl AsyncFnOnce(&MemoryStore) -> odin::store::Result<T>,
    ) -> Option<T> {
        let reply = done(command(&self.store));
        if self.faults.reply && self.left > 0 && self.rng.random_range(0..60) == 0 {
            self.left -= 1;
            self.say(format!("FAULT the reply to {what} is lost"));
            return None;
        }
        Some(reply)
    }

    pub fn answered(&self) -> u64 {
        self.calls.iter().filter(|call| call.client.phase == Phase::Answered).count() as u64
    }

    pub fn time(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub fn say(&mut self, what: String) {
        let line = format!("{:>7} {what}", self.time());
        self.trace.push(line);
    }

    /// A run: first anything in any order with faults, then a fair schedule without faults until nothing
    /// moves any more.
    pub fn run(&mut self) -> Result<(), String> {
        let handle = self.runtime.handle().clone();
        let _guard = handle.enter();
        for _ in 0..self.rng.random_range(50..400) {
            self.random_step();
            self.check()?;
        }
        for _ in 0..400 {
            self.fair_round(None);
            self.check()?;
            if self.is_quiet() {
                return Ok(());
            }
        }
        let stuck: Vec<String> = self
            .calls
            .iter()
            .map(|call| {
                format!(
                    "{:?} {:?} {:?} record {:?}",
                    call.era,
                    call.front,
                    call.client,
                    self.store.peek(call.id)
                )
            })
            .collect();
        Err(format!(
            "not quiet: jobs {:?}\n{}",
            self.workers.iter().map(|worker| worker.jobs.len()).collect::<Vec<_>>(),
            stuck.join("\n")
        ))
    }

    fn is_quiet(&self) -> bool {
        let clients = self.calls.iter().all(|call| call.client.phase.is_final() && call.front == Front::Over);
        let work = self.workers.iter().all(|worker| worker.jobs.is_empty() && worker.wire.is_empty());
        let records =
            self.calls.iter().all(|call| self.store.peek(call.id).is_none_or(|record| record.closed));
        clients && work && records && self.is_direct_quiet() && self.pushpin.holds.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        for (number, call) in self.calls.iter().enumerate() {
            if let Some(wrong) = &call.client.wrong {
                return Err(format!("call {number} ({:?}): {wrong}", call.era));
            }
            if call.promised && call.bodies > 0 {
                return Err(format!("call {number}: it ran after its client got the error that it won't"));
            }
            if call.rerun == Rerun::Unsafe && call.bodies > 1 {
                return Err(format!("call {number}: an unsafe tool ran {} times", call.bodies));
            }
            if call.client.phase == Phase::Broken && call.era == Era::Stateless && !call.excused {
                return Err(format!("call {number}: the stream ended without an answer, without a reason"));
            }
            if self.is_told_without_reason(number) {
                return Err(format!("call {number}: its client was told that it is lost, without a reason"));
            }
            if call.client.phase == Phase::Refused && !call.excused {
                return Err(format!("call {number}: refused without a reason"));
            }
        }
        Ok(())
    }

    fn random_step(&mut self) {
        let call = self.rng.random_range(0..self.calls.len());
        let worker = self.rng.random_range(0..self.workers.len());
        if self.faults.direct && self.rng.random_range(0..3) == 0 {
            let link = self.rng.random_range(0..self.links.len());
            return self.link(link);
        }
        match self.rng.random_range(0..100) {
            0..20 => self.front(call),
            20..27 => self.worker_next(worker),
            27 => self.worker_takes(worker),
            28..40 => self.worker_beat(worker),
            40..42 => self.worker_claim(worker),
            42..58 => self.worker_job(worker),
            58..66 => self.worker_tool(worker),
            66..72 => self.worker_hears(worker),
            72..80 => self.deliver(worker),
            80..88 => self.hold_request(call),
            88..90 => self.resume(call),
            90..93 => self.ask_all(),
            93..95 => self.worker_orphaned(worker),
            95..98 => {
                let step = self.rng.random_range(1..250);
                self.now.fetch_add(step, Ordering::Relaxed);
                self.beat_links();
                // Only a fault keeps a part from its regular work.
                self.ask_all();
                self.deliver_to_streams();
                for worker in 0..self.workers.len() {
                    if self.workers[worker].paused && self.rng.random_range(0..8) == 0 {
                        self.workers[worker].paused = false;
                        self.say(format!("worker {worker} wakes"));
                    }
                    self.worker_beat(worker);
                    self.direct_jobs(worker);
                }
            }
            _ => self.fault(call, worker),
        }
    }

    /// `asleep`: a worker that goes on being paused.
    fn fair_round(&mut self, asleep: Option<usize>) {
        self.backend_link = true;
        self.now.fetch_add(100, Ordering::Relaxed);
        self.ask_all();
        for link in 0..self.links.len() {
            self.fair_link(link);
        }
        for worker in 0..self.workers.len() {
            self.workers[worker].paused = asleep == Some(worker);
            self.workers[worker].link = true;
            self.direct_jobs(worker);
            for _ in 0..4 {
                self.worker_hears(worker);
            }
            self.worker_beat(worker);
            self.worker_claim(worker);
            self.worker_next(worker);
            self.worker_takes(worker);
            for _ in 0..6 {
                self.worker_tool(worker);
                self.worker_jobs(worker);
                self.deliver(worker);
            }
            self.worker_orphaned(worker);
        }
        self.beat_links();
        for call in 0..self.calls.len() {
            self.front(call);
            for _ in 0..3 {
                self.hold_request(call);
            }
            self.resume(call);
        }
        self.close_streams();
    }

    fn order(&self, call: usize) -> Order {
        let call = &self.calls[call];
        Order {
            server: SERVER.into(),
            job: "{}".into(),
            era: call.era,
            via: call.via,
            tool: Some(format!("{:?}", call.rerun)),
            assertion: "proof".into(),
            principal: "somebody".into(),
            organisation: "some".into(),
            session: (call.era == Era::Stateful).then(|| SESSION.into()),
            request_id: Some(call.key.to_string()),
            lost: "lost".into(),
            node: self.nodes[call.node].clone(),
            request: call.request,
            stream: call.stream.then(|| "stream".into()),
            retry: call
                .retried
                .then(|| Retry { name: format!("key {}", call.key), fingerprint: "same".into() }),
            task: None,
        }
    }

    fn fault(&mut self, number: usize, worker: usize) {
        if self.left == 0 {
            return;
        }
        let faults = self.faults;
        let before = self.left;
        self.left -= 1;
        match self.rng.random_range(0..if faults.wire { 13 } else { 11 }) {
            0 if faults.worker_crash => {
                self.calls.iter_mut().for_each(|call| call.hard = true);
                self.worker_crash(worker);
            }
            1 if faults.worker_pause => {
                self.calls.iter_mut().for_each(|call| call.hard = true);
                self.say(format!("FAULT worker {worker} paused"));
                self.workers[worker].paused = true;
                // Some for so long that others take over what it has.
                if faults.direct && self.rng.random() {
                    (0..60).for_each(|_| self.fair_round(Some(worker)));
                    self.workers[worker].paused = false;
                    self.say(format!("worker {worker} wakes"));
                }
            }
            2 if faults.backend_crash => self.backend_crash(number % 2),
            3 if faults.hold_lost && !self.calls[number].gets.is_empty() => {
                self.say(format!("FAULT call {number}: a hold request is lost"));
                let call = &mut self.calls[number];
                let get = call.gets.remove(0);
                call.excused = true;
                if !get.abandoned {
                    call.client.cut();
                }
            }
            4 if faults.hold_repeated => self.repeat_hold(number),
            5 if faults.disconnect => self.disconnect(number),
            6 if faults.link => {
                self.say(format!("FAULT worker {worker} loses its link"));
                self.worker_loses_link(worker);
                self.calls.iter_mut().for_each(|call| call.excused = true);
            }
            7 if faults.pushpin => self.pushpin_restart(),
            8 if faults.store => {
                self.say("FAULT the store forgets everything".into());
                self.store.forget();
                for call in &mut self.calls {
                    call.excused = true;
                    call.forgotten = true;
                    // A cancellation that came before its call is forgotten as well.
                    call.promised &= !call.cancelled;
                    call.ahead = None;
                }
            }
            9 if faults.client => self.cancel(number),
            11 | 12 => {
                let link = self.rng.random_range(0..self.links.len());
                self.cut_link(link);
            }
            10 if faults.client && self.calls[number].retried => self.repeat_request(number),
            _ => self.left = before,
        }
    }
}
