//! The world of the simulation.

mod client;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use odin::broker::{Broker, BrokerLimits, MemoryBroker};
use odin::call::{Enqueue, Message, Offer, Order, Resume, Send, Timing, Via};
use odin::id::{CallChannel, CallId, Ticket};
use odin::job::Era;
use odin::runner::Rerun;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub use client::{Client, Phase};
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
    pub broker: bool,
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
            broker: true,
        }
    }
}

pub const SERVER: &str = "default";

/// One call of one client.
pub struct Call {
    pub id: CallId,
    pub era: Era,
    pub rerun: Rerun,
    pub events: u32,
    pub bodies: u32,
    pub node: usize,
    pub request: u64,
    pub front: Front,
    pub client: Client,
    /// A fault that may end this call's stream early struck.
    pub excused: bool,
    /// The broker lost its memory.
    pub forgotten: bool,
    pub gets: Vec<Get>,
    pub ticket: Option<Ticket>,
}

/// What the backend does with the client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    New,
    Waiting,
    /// For how long the record has been missing.
    Missing(u64),
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

pub struct World {
    pub rng: SmallRng,
    pub now: Arc<AtomicU64>,
    pub broker: MemoryBroker,
    pub calls: Vec<Call>,
    pub workers: Vec<Worker>,
    pub pushpin: Pushpin,
    /// Names of the living backends; a restarted one has a new name.
    pub nodes: Vec<String>,
    pub backend_link: bool,
    faults: Faults,
    left: u32,
    pub trace: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

/// Runs a command of the in-memory broker, which never waits.
pub fn done<T>(future: impl Future<Output = odin::broker::Result<T>>) -> T {
    future.now_or_never().expect("the memory broker does not wait").expect("nor does it fail")
}

impl World {
    pub fn new(seed: u64, faults: Faults, most: u32) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let now = Arc::new(AtomicU64::new(1_000));
        let clock = now.clone();
        let broker = MemoryBroker::with_clock(
            Timing::default(),
            BrokerLimits::default(),
            Arc::new(move || clock.load(Ordering::Relaxed)),
        );
        let count = rng.random_range(1..=3);
        let calls = (0..count)
            .map(|number| {
                let era = if rng.random() { Era::Modern } else { Era::Session };
                Call {
                    id: CallId::from_parts(0, [number; 16]),
                    era,
                    rerun: if rng.random() { Rerun::Safe } else { Rerun::Unsafe },
                    events: rng.random_range(0..=6),
                    bodies: 0,
                    node: rng.random_range(0..2),
                    request: u64::from(number),
                    front: Front::New,
                    client: Client::new(era),
                    excused: false,
                    forgotten: false,
                    gets: Vec::new(),
                    ticket: None,
                }
            })
            .collect();
        let left = if most == 0 { 0 } else { rng.random_range(0..=most) };
        let world = Self {
            rng,
            now,
            broker,
            calls,
            workers: vec![Worker::new("w1-0"), Worker::new("w2-0")],
            pushpin: Pushpin::default(),
            nodes: vec!["a-0".into(), "b-0".into()],
            backend_link: true,
            faults,
            left,
            trace: Vec::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
        };
        world.announce();
        world
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
            self.fair_round();
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
                    self.broker.peek(call.id)
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
            self.calls.iter().all(|call| self.broker.peek(call.id).is_none_or(|record| record.closed));
        clients && work && records && self.pushpin.holds.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        for (number, call) in self.calls.iter().enumerate() {
            if let Some(wrong) = &call.client.wrong {
                return Err(format!("call {number} ({:?}): {wrong}", call.era));
            }
            if call.rerun == Rerun::Unsafe && call.bodies > 1 {
                return Err(format!("call {number}: an unsafe tool ran {} times", call.bodies));
            }
            if call.client.phase == Phase::Broken && call.era == Era::Modern && !call.excused {
                return Err(format!("call {number}: the stream ended without an answer, without a reason"));
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
        match self.rng.random_range(0..100) {
            0..20 => self.front(call),
            20..26 => self.worker_next(worker),
            26..28 => self.worker_undelivered(worker),
            28..40 => self.worker_beat(worker),
            40..42 => self.worker_claim(worker),
            42..58 => self.worker_job(worker),
            58..66 => self.worker_tool(worker),
            66..72 => self.worker_hears(worker),
            72..80 => self.deliver(worker),
            80..88 => self.hold_request(call),
            88..90 => self.resume(call),
            90..93 => self.announce(),
            93..95 => self.worker_strays(worker),
            95..98 => {
                let step = self.rng.random_range(1..250);
                self.now.fetch_add(step, Ordering::Relaxed);
                // Only a fault keeps a part from its regular work.
                self.announce();
                for worker in 0..self.workers.len() {
                    if self.workers[worker].paused && self.rng.random_range(0..8) == 0 {
                        self.workers[worker].paused = false;
                        self.say(format!("worker {worker} wakes"));
                    }
                    self.worker_beat(worker);
                }
            }
            _ => self.fault(call, worker),
        }
    }

    fn fair_round(&mut self) {
        self.backend_link = true;
        self.now.fetch_add(100, Ordering::Relaxed);
        self.announce();
        for worker in 0..self.workers.len() {
            self.workers[worker].paused = false;
            self.workers[worker].link = true;
            for _ in 0..4 {
                self.worker_hears(worker);
            }
            self.worker_beat(worker);
            self.worker_claim(worker);
            self.worker_next(worker);
            self.worker_undelivered(worker);
            for _ in 0..6 {
                self.worker_tool(worker);
                self.worker_jobs(worker);
                self.deliver(worker);
            }
            self.worker_strays(worker);
        }
        for call in 0..self.calls.len() {
            self.front(call);
            for _ in 0..3 {
                self.hold_request(call);
            }
            self.resume(call);
        }
    }

    fn announce(&self) {
        for node in &self.nodes {
            done(self.broker.announce(node));
        }
    }

    fn order(&self, call: usize) -> Order {
        let call = &self.calls[call];
        Order {
            server: SERVER.into(),
            job: "{}".into(),
            era: call.era,
            via: Via::Pushpin,
            tool: Some(format!("{:?}", call.rerun)),
            assertion: "proof".into(),
            principal: "somebody".into(),
            session: (call.era == Era::Session).then(|| "session".into()),
            request_id: Some(call.request.to_string()),
            lost: "lost".into(),
            node: self.nodes[call.node].clone(),
            request: call.request,
            stream: None,
            retry: None,
            task: None,
        }
    }

    /// One step of the backend that has the client's request.
    fn front(&mut self, number: usize) {
        let id = self.calls[number].id;
        let now = self.time();
        match self.calls[number].front {
            Front::New => {
                assert_eq!(done(self.broker.enqueue(id, self.order(number))), Enqueue::Accepted);
                self.calls[number].front = Front::Waiting;
                self.say(format!("call {number}: enqueued {:?}", self.calls[number].rerun));
            }
            Front::Waiting | Front::Missing(_) => {
                let node = self.nodes[self.calls[number].node].clone();
                let ticket = Ticket::from_parts(0, self.rng.random());
                let may_hold = self.backend_link && self.rng.random();
                let reply = done(self.broker.offer(id, &node, self.calls[number].request, ticket, may_hold));
                self.say(format!("call {number}: offer → {reply:?}"));
                let call = &mut self.calls[number];
                match reply {
                    Offer::Wait => call.front = Front::Waiting,
                    Offer::Done(out) => {
                        call.front = Front::Over;
                        call.client.answer(&out);
                    }
                    Offer::Offered => {
                        call.front = Front::Over;
                        call.ticket = Some(ticket);
                        if call.client.phase == Phase::Direct {
                            call.client.phase = Phase::Holding;
                            call.gets.push(Get { abandoned: false, stage: Stage::Asked });
                        }
                    }
                    // Its worker registers the call again, if the broker lost its memory and not the call.
                    Offer::Missing => match call.front {
                        Front::Missing(since) if now > since + 3_000 => {
                            call.front = Front::Over;
                            call.client.refuse();
                        }
                        Front::Missing(_) => {}
                        _ => call.front = Front::Missing(now),
                    },
                    Offer::Cancelled => {
                        call.front = Front::Over;
                        call.client.refuse();
                    }
                }
            }
            Front::Over => {}
        }
    }

    /// One step of a hold request: to a backend, or its answer to Pushpin.
    fn hold_request(&mut self, number: usize) {
        if self.calls[number].gets.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.calls[number].gets.len());
        let resuming = self.calls[number].client.resuming;
        let call = &mut self.calls[number];
        let id = call.id;
        match &call.gets[index].stage {
            Stage::Asked if resuming => {
                let last = call.client.last;
                match done(self.broker.resume(id, "session", last, None)) {
                    Resume::Unknown => {
                        call.gets.remove(index);
                        call.client.phase = Phase::Gone;
                        if !call.forgotten {
                            call.client.wrong = Some("it can't be resumed".into());
                        }
                    }
                    Resume::Replay { events } => {
                        call.gets[index].stage = Stage::Answered(None, numbered(last, &events));
                    }
                    Resume::Held { events, channel } => {
                        call.gets[index].stage = Stage::Answered(Some(channel), numbered(last, &events));
                    }
                    Resume::Joined => unreachable!("no backend asked to stream by itself"),
                }
            }
            Stage::Asked => match done(self.broker.hold(call.ticket.unwrap(), "proof")) {
                Some(held) => {
                    // A repeated request, even one that was long under way, must not take the stream away from
                    // a client that has received some of it.
                    if call.client.phase == Phase::Streaming && call.client.last > 0 {
                        call.client.wrong =
                            Some(format!("its stream moved to channel {}", held.channel.number));
                    }
                    call.gets[index].stage = Stage::Answered(Some(held.channel.number), Vec::new());
                    self.say(format!("call {number}: held on {}", held.channel.number));
                }
                None => {
                    let abandoned = call.gets.remove(index).abandoned;
                    if !abandoned {
                        call.client.refuse();
                    }
                    self.say(format!("call {number}: hold refused (abandoned {abandoned})"));
                }
            },
            Stage::Answered(..) => {
                let get = call.gets.remove(index);
                let Stage::Answered(channel, first) = get.stage else { unreachable!() };
                if !get.abandoned {
                    for item in &first {
                        call.client.receive(item);
                    }
                    call.client.phase = match channel {
                        _ if call.client.phase.is_final() => call.client.phase,
                        Some(_) => Phase::Streaming,
                        None => Phase::Broken,
                    };
                }
                if let Some(channel) = channel {
                    let channel = CallChannel { call: id, number: channel };
                    self.pushpin.holds.push(Hold { call: number, channel, attached: !get.abandoned });
                }
                self.say(format!("call {number}: pushpin opens {channel:?} with {} items", first.len()));
            }
        }
    }

    /// The client of a session era comes back with its last event id.
    fn resume(&mut self, number: usize) {
        let call = &mut self.calls[number];
        if call.era == Era::Session && call.client.phase == Phase::Broken && call.gets.is_empty() {
            call.client.resuming = true;
            call.client.phase = Phase::Holding;
            call.gets.push(Get { abandoned: false, stage: Stage::Asked });
            let last = call.client.last;
            self.say(format!("call {number}: client resumes after {last}"));
        }
    }

    fn fault(&mut self, number: usize, worker: usize) {
        if self.left == 0 {
            return;
        }
        let faults = self.faults;
        let before = self.left;
        self.left -= 1;
        match self.rng.random_range(0..9) {
            0 if faults.worker_crash => self.worker_crash(worker),
            1 if faults.worker_pause => {
                self.say(format!("FAULT worker {worker} paused"));
                self.workers[worker].paused = true;
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
            8 if faults.broker => {
                self.say("FAULT the broker forgets everything".into());
                self.broker.forget();
                for call in &mut self.calls {
                    call.excused = true;
                    call.forgotten = true;
                }
            }
            _ => self.left = before,
        }
    }

    fn backend_crash(&mut self, node: usize) {
        self.say(format!("FAULT backend {node} crashes"));
        let name = format!("{}-{}", self.nodes[node].split('-').next().unwrap(), self.left + 1);
        self.nodes[node] = name;
        for call in self.calls.iter_mut().filter(|call| call.node == node && call.front != Front::Over) {
            call.excused = true;
            call.front = Front::Over;
            call.client.cut();
        }
    }

    fn repeat_hold(&mut self, number: usize) {
        let call = &mut self.calls[number];
        if let Some(get) = call.gets.iter_mut().find(|get| !get.abandoned) {
            // Either of the two may be the one that the gateway still waits for.
            let first = self.rng.random::<bool>();
            get.abandoned = !first;
            call.gets.push(Get { abandoned: first, stage: Stage::Asked });
            // The second request is refused when the first one's gate was open already.
            call.excused = true;
            self.say(format!("FAULT call {number}: the gateway abandons the hold request and repeats it"));
        }
    }

    fn disconnect(&mut self, number: usize) {
        let waits = matches!(self.calls[number].front, Front::Waiting | Front::Missing(_));
        let call = &mut self.calls[number];
        if call.client.phase.is_final() || call.front == Front::New {
            return;
        }
        call.client.phase = Phase::Gone;
        call.gets.iter_mut().for_each(|get| get.abandoned = true);
        for hold in self.pushpin.holds.iter_mut().filter(|hold| hold.call == number) {
            hold.attached = false;
        }
        if waits {
            let node = self.nodes[call.node].clone();
            done(self.broker.abandon(call.id, &node, call.request));
            call.front = Front::Over;
        }
        self.say(format!("FAULT call {number}: the client disconnects"));
    }

    fn pushpin_restart(&mut self) {
        self.say("FAULT pushpin restarts".into());
        for hold in std::mem::take(&mut self.pushpin.holds) {
            if hold.attached {
                self.calls[hold.call].client.cut();
            }
        }
        for call in &mut self.calls {
            call.excused = true;
            if !call.gets.is_empty() {
                call.gets.clear();
                call.client.cut();
            }
        }
        self.pushpin.seen.clear();
        for worker in 0..self.workers.len() {
            self.worker_loses_link(worker);
        }
    }

    /// Pushpin takes the next item of a worker's socket.
    fn deliver(&mut self, worker: usize) {
        // Abandoned holds end by themselves, a little later.
        if self.rng.random_range(0..3) == 0 {
            self.pushpin.holds.retain(|hold| hold.attached);
        }
        let Some((channel, item)) = self.workers[worker].wire.pop_front() else { return };
        let id = match &item {
            Send::Event(n, _) | Send::Burn(n) => Some(n.to_string()),
            Send::Final(..) => Some("final".into()),
            Send::Close => None,
        };
        if let Some(id) = id
            && !self.pushpin.seen.insert((channel, id))
        {
            return;
        }
        let mut closed = false;
        for hold in self.pushpin.holds.iter().filter(|hold| hold.channel == channel && hold.attached) {
            let client = &mut self.calls[hold.call].client;
            match &item {
                Send::Close => {
                    closed = true;
                    client.cut();
                }
                item => client.receive(item),
            }
        }
        if closed {
            self.pushpin.holds.retain(|hold| hold.channel != channel);
        }
        self.say(format!("pushpin ← worker {worker}: {} {item:?}", channel.number));
    }

    /// The subscriptions that Pushpin has now.
    pub fn subscriptions(&self) -> BTreeMap<CallChannel, usize> {
        self.pushpin.holds.iter().map(|hold| (hold.channel, hold.call)).collect()
    }
}

fn numbered(last: u32, events: &[Message]) -> Vec<Send> {
    (last + 1..)
        .zip(events)
        .map(|(n, event)| {
            let is_final = !event.starts_with("event");
            if is_final { Send::Final(n, event.clone()) } else { Send::Event(n, event.clone()) }
        })
        .collect()
}
