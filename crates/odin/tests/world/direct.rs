//! Direct calls of the simulation: the real [`Handed`] and [`DirectRun`], and models of the links between them.

use std::collections::VecDeque;
use std::time::Duration;

use odin::call::direct::{DirectInput, DirectRun, Handed, Heard, Left, Next, Step, is_fresh};
use odin::call::{
    Delivery, DeliveryLimits, Fence, Input, Message, Reach, Registrant, Rerun, Run, Snapshot, State, Timing,
    Via,
};
use odin::id::CallId;
use odin::store::{Calls, MemoryStore, Queue, Registered, Runs};
use rand::RngExt;

use super::{Front, World, done};

/// How long a call runs before it is written down, in milliseconds.
const HOLD: u64 = 100;
/// After that time of silence a side takes its link for broken, in milliseconds.
const SILENCE: u64 = 1_500;

/// A link between a backend and a worker; each side sees by itself that it is broken.
pub struct Link {
    /// Names it among those that these two had.
    serial: u64,
    /// Nothing more arrives but what was under way, or a part of it.
    cut: bool,
    backend_up: bool,
    worker_up: bool,
    to_worker: VecDeque<(usize, Down)>,
    to_backend: VecDeque<(usize, Heard)>,
    backend_heard: u64,
    worker_heard: u64,
    /// When the worker sent its heartbeats.
    beats: Vec<u64>,
}

enum Down {
    /// With the number of heartbeats that were seen.
    Dispatch(usize),
    Cancel,
    Got,
}

/// A call on its worker, until the store has it.
pub struct DirectJob {
    line: (usize, u64),
    run: DirectRun,
    snapshot: Snapshot,
    said: Vec<Input>,
    registered: Option<Registered>,
    pub emitted: u32,
    pub ended: bool,
    pub body: u32,
}

impl Link {
    pub fn new(serial: u64, now: u64) -> Self {
        Self {
            serial,
            cut: false,
            backend_up: true,
            worker_up: true,
            to_worker: VecDeque::new(),
            to_backend: VecDeque::new(),
            backend_heard: now,
            worker_heard: now,
            beats: vec![now],
        }
    }
}

impl World {
    // ------------------------------------------------------------------------------------------ links

    /// Heartbeats, silence, and new links in place of broken ones.
    pub fn beat_links(&mut self) {
        let now = self.time();
        for at in 0..self.links.len() {
            let paused = self.workers[at % 2].paused;
            let link = &mut self.links[at];
            if !link.cut && link.backend_up && link.worker_up && !paused {
                link.beats.push(now);
                (link.backend_heard, link.worker_heard) = (now, now);
            }
            if link.backend_up && now > link.backend_heard + SILENCE {
                self.backend_sees_break(at);
            }
            let link = &self.links[at];
            // What is in its buffer is read before its timer is looked at.
            let reads = !link.to_worker.is_empty() && self.rng.random_range(0..3) > 0;
            if link.worker_up && !paused && now > link.worker_heard + SILENCE && !reads {
                self.worker_sees_break(at);
            }
            let link = &self.links[at];
            if !link.backend_up && !link.worker_up && self.rng.random_range(0..4) == 0 {
                self.links[at] = Link::new(link.serial + 1, now);
            }
        }
    }

    /// One step of one link.
    pub fn link(&mut self, at: usize) {
        match self.rng.random_range(0..6) {
            0 | 1 => self.deliver_to_backend(at),
            2 | 3 => self.deliver_to_worker(at),
            4 if self.links[at].cut || !self.links[at].worker_up => self.backend_sees_break(at),
            5 if self.links[at].cut || !self.links[at].backend_up => self.worker_sees_break(at),
            _ => {}
        }
    }

    pub fn fair_link(&mut self, at: usize) {
        for _ in 0..4 {
            self.deliver_to_backend(at);
            self.deliver_to_worker(at);
        }
        if self.links[at].cut || !self.links[at].worker_up {
            self.backend_sees_break(at);
        }
        if self.links[at].cut || !self.links[at].backend_up {
            self.worker_sees_break(at);
        }
    }

    pub fn cut_link(&mut self, at: usize) {
        self.say(format!("FAULT the link of backend {} and worker {} breaks", at / 2, at % 2));
        self.links[at].cut = true;
    }

    /// A part is gone: what it had on its links as well.
    pub fn links_of_backend_end(&mut self, node: usize) {
        for at in [node * 2, node * 2 + 1] {
            self.links[at].cut = true;
            self.backend_sees_break(at);
        }
    }

    pub fn links_of_worker_end(&mut self, worker: usize) {
        for at in [worker, worker + 2] {
            self.links[at].cut = true;
            self.worker_sees_break(at);
        }
    }

    fn backend_sees_break(&mut self, at: usize) {
        if !std::mem::take(&mut self.links[at].backend_up) {
            return;
        }
        let lost = std::mem::take(&mut self.links[at].to_backend);
        self.lose_frames(lost);
        self.say(format!("backend {} sees its link to worker {} broken", at / 2, at % 2));
        let line = (at, self.links[at].serial);
        for call in self.calls.iter_mut().filter(|call| call.line == Some(line)) {
            if let Some(handed) = &mut call.handed {
                handed.heard(Heard::Broken);
            }
        }
    }

    fn worker_sees_break(&mut self, at: usize) {
        if self.workers[at % 2].paused || !std::mem::take(&mut self.links[at].worker_up) {
            return;
        }
        let lost = std::mem::take(&mut self.links[at].to_worker);
        self.lose(lost.into_iter().map(|(call, _)| call));
        self.say(format!("worker {} sees its link to backend {} broken", at % 2, at / 2));
        let line = (at, self.links[at].serial);
        for job in self.workers[at % 2].direct.values_mut().filter(|job| job.line == line) {
            job.run.input(DirectInput::Broken);
        }
    }

    /// What became of these calls nobody may know: a frame of theirs is lost.
    fn lose(&mut self, calls: impl Iterator<Item = usize>) {
        for call in calls {
            self.calls[call].lost_frame = true;
        }
    }

    /// What a worker forgot with the frame. Of everything else it remains the owner.
    fn lose_frames(&mut self, frames: VecDeque<(usize, Heard)>) {
        let last = |heard: &Heard| matches!(heard, Heard::Answer(_) | Heard::Busy);
        self.lose(frames.into_iter().filter(|(_, heard)| last(heard)).map(|(call, _)| call));
    }

    fn deliver_to_backend(&mut self, at: usize) {
        let link = &mut self.links[at];
        if !link.backend_up {
            return;
        }
        if link.cut && !link.to_backend.is_empty() && self.rng.random_range(0..3) == 0 {
            let lost = std::mem::take(&mut link.to_backend);
            return self.lose_frames(lost);
        }
        let Some((number, heard)) = link.to_backend.pop_front() else { return };
        if matches!(heard, Heard::AnswerInDoubt(_)) {
            link.to_worker.push_back((number, Down::Got));
        }
        let line = (at, link.serial);
        self.say(format!("call {number}: its backend hears {heard:?}"));
        let call = &mut self.calls[number];
        if let Some(handed) = &mut call.handed
            && call.line == Some(line)
        {
            handed.heard(heard);
        }
    }

    fn deliver_to_worker(&mut self, at: usize) {
        let worker = at % 2;
        let link = &mut self.links[at];
        if !link.worker_up || self.workers[worker].paused {
            return;
        }
        let broken = link.cut || !link.backend_up;
        if broken && !link.to_worker.is_empty() && self.rng.random_range(0..3) == 0 {
            let lost = std::mem::take(&mut link.to_worker);
            return self.lose(lost.into_iter().map(|(call, _)| call));
        }
        let Some((number, down)) = link.to_worker.pop_front() else { return };
        let line = (at, link.serial);
        match down {
            Down::Dispatch(seen) => self.start_direct(number, line, seen),
            Down::Cancel => self.tell(worker, number, DirectInput::Cancel),
            Down::Got => self.tell(worker, number, DirectInput::Got),
        }
    }

    // ------------------------------------------------------------------------------------------ backends

    /// DISPATCH to a worker that there is a link to. False: there is none.
    fn dispatch(&mut self, number: usize, except: Option<usize>) -> bool {
        let node = self.calls[number].node;
        let first = self.rng.random_range(0..2);
        for worker in [first, 1 - first] {
            let at = node * 2 + worker;
            if except == Some(at) || !self.links[at].backend_up {
                continue;
            }
            let link = &mut self.links[at];
            let seen = link.beats.len();
            link.to_worker.push_back((number, Down::Dispatch(seen)));
            // Nobody reads it any more.
            self.calls[number].lost_frame |= !link.worker_up;
            self.calls[number].line = Some((at, link.serial));
            self.calls[number].worker = self.workers[worker].name.clone();
            self.say(format!("call {number}: DISPATCH to worker {worker}"));
            return true;
        }
        false
    }

    /// A new call goes straight to a worker, if there is one.
    pub fn begin_direct(&mut self, number: usize) {
        self.calls[number].direct = false;
        if self.dispatch(number, None) {
            self.calls[number].handed = Some(Handed::new(self.calls[number].era));
            self.calls[number].front = Front::Direct;
        }
    }

    /// One step of the backend of a direct call.
    pub fn hand(&mut self, number: usize) {
        let now = self.time();
        let Some(handed) = &mut self.calls[number].handed else { return };
        match handed.next(now) {
            Next::Wait { .. } => {}
            Next::Dispatch => {
                let except = self.calls[number].line.map(|(at, _)| at);
                let sent = self.dispatch(number, except);
                self.calls[number].handed.as_mut().unwrap().dispatched(sent);
            }
            Next::Enqueue => {
                self.calls[number].handed = None;
                self.calls[number].front = Front::New;
            }
            Next::Adopt => self.adopt(number),
            Next::Look => {
                if self.calls[number].via == Via::Backend {
                    self.read(number)
                } else {
                    self.offer(number)
                }
                let call = &mut self.calls[number];
                match &mut call.handed {
                    Some(handed) if call.front == Front::Direct => handed.looked(now),
                    handed => *handed = None,
                }
            }
            Next::Answer(out) => {
                self.say(format!("call {number}: answered by the link"));
                self.calls[number].front = Front::Over;
                self.calls[number].client.answer(&out);
            }
            Next::Fail => {
                self.say(format!("call {number}: its outcome is unknown"));
                self.calls[number].told = true;
                self.refuse(number);
            }
            Next::Over => {}
        }
    }

    fn adopt(&mut self, number: usize) {
        let (id, order) = (self.calls[number].id, self.order(number));
        let worker = self.calls[number].worker.clone();
        let adopt =
            async |store: &MemoryStore| store.register(id, &order, &worker, Registrant::Backend).await;
        let reply = self.ask("ADOPT", adopt);
        self.say(format!("call {number}: ADOPT → {:?}", reply.as_ref().map(|reply| reply.is_ok())));
        self.calls[number].handed.as_mut().unwrap().adopted(reply.is_some());
    }

    /// The client of a direct call is gone, or cancels at this backend.
    pub fn leave_direct(&mut self, number: usize, left: Left) {
        let (id, (node, request)) = (self.calls[number].id, self.place(number));
        match left {
            Left::Cancel => {
                let (at, serial) = self.calls[number].line.unwrap();
                if self.links[at].serial == serial && self.links[at].backend_up {
                    self.links[at].to_worker.push_back((number, Down::Cancel));
                }
            }
            Left::Abandon => done(self.store.abandon(id, &node, request)),
            Left::Nothing => {}
        }
        self.calls[number].front = Front::Over;
        self.calls[number].handed = None;
    }

    // ------------------------------------------------------------------------------------------ workers

    fn say_to_backend(&mut self, (at, serial): (usize, u64), number: usize, heard: Heard) {
        let link = &mut self.links[at];
        if link.serial == serial && link.worker_up && link.backend_up {
            link.to_backend.push_back((number, heard));
        } else {
            self.lose_frames(VecDeque::from([(number, heard)]));
        }
    }

    fn start_direct(&mut self, number: usize, line: (usize, u64), seen: usize) {
        let (worker, now) = (line.0 % 2, self.time());
        let age = seen.checked_sub(1).and_then(|last| self.links[line.0].beats.get(last)).map(|at| now - at);
        let lease = Timing::default().lease;
        if !is_fresh(age.map(Duration::from_millis), lease) || self.rng.random_range(0..8) == 0 {
            self.say(format!("worker {worker}: call {number} is refused, {age:?} ms old"));
            return self.say_to_backend(line, number, Heard::Busy);
        }
        let order = self.order(number);
        let call = &mut self.calls[number];
        call.bodies += 1;
        if call.told || call.client.lost {
            call.client.wrong = Some("its tool began after its client was told that it is lost".into());
        }
        let (id, body) = (call.id, call.bodies);
        let reach = Reach::Node { node: order.node.clone(), request: order.request, asked: 0 };
        let snapshot = Snapshot {
            rerun: Some(call.rerun),
            order,
            epoch: 1,
            run: Run::Running,
            state: State { reach, event_count: 0, cancel: false },
            out: None,
            log: Vec::new(),
            channels: 0,
        };
        let run = DirectRun::new(now + HOLD);
        let (said, registered) = (Vec::new(), None);
        let job = DirectJob { line, run, snapshot, said, registered, emitted: 0, ended: false, body };
        self.workers[worker].direct.insert(id, job);
        self.say(format!("worker {worker} starts call {number}"));
    }

    /// GOT or CANCEL, of a call that may be registered already.
    fn tell(&mut self, worker: usize, number: usize, input: DirectInput) {
        let id = self.calls[number].id;
        self.say(format!("worker {worker}: call {number}: {input:?}"));
        if let Some(job) = self.workers[worker].direct.get_mut(&id) {
            if input == DirectInput::Cancel {
                job.stop();
            }
            return job.run.input(input);
        }
        if !self.workers[worker].jobs.contains_key(&id) {
            return;
        }
        match input {
            DirectInput::Got => self.workers[worker].jobs.get_mut(&id).unwrap().input(Input::Got),
            DirectInput::Cancel => self.cancel_owned(worker, number),
            _ => {}
        }
    }

    /// The client is gone: as owner the worker says so in the record.
    fn cancel_owned(&mut self, worker: usize, number: usize) {
        let (id, (node, request)) = (self.calls[number].id, self.place(number));
        done(self.store.abandon(id, &node, request));
        if let Some(job) = self.workers[worker].jobs.get_mut(&id) {
            job.stop();
        }
    }

    /// This worker has the call from the queue, or claimed it.
    pub fn supersede(&mut self, worker: usize, call: CallId) {
        if let Some(job) = self.workers[worker].direct.get_mut(&call) {
            job.run.input(DirectInput::Superseded);
            self.direct_job(worker, call);
        }
    }

    pub fn direct_tool(&mut self, worker: usize, call: CallId) {
        let number = self.number(call);
        let (events, hang_up) = (self.calls[number].events, self.calls[number].hang_up);
        let Some(job) = self.workers[worker].direct.get_mut(&call) else { return };
        if job.ended {
            return;
        }
        if job.emitted < events {
            job.emitted += 1;
            let event = super::worker::event(job.emitted, job.body, hang_up);
            job.said.push(Input::Emitted(event));
            job.run.input(DirectInput::Emitted);
        } else {
            job.ended = true;
            let out: Option<Message> = Some("answer".into());
            job.said.push(Input::Finished(out.clone()));
            job.run.input(DirectInput::Finished { out, needs_record: false });
        }
    }

    fn number(&self, call: CallId) -> usize {
        self.calls.iter().position(|known| known.id == call).unwrap()
    }

    /// One step of one direct call. False: it waits.
    pub fn direct_job(&mut self, worker: usize, call: CallId) -> bool {
        let (now, number) = (self.time(), self.number(call));
        let Some(job) = self.workers[worker].direct.get_mut(&call) else { return false };
        let (line, step) = (job.line, job.run.next(now));
        if !matches!(step, Step::Wait { .. }) {
            self.say(format!("worker {worker}: call {number}: {step:?}"));
        }
        match step {
            Step::Wait { .. } => return false,
            Step::Register => self.register(worker, call),
            Step::Answer(out) => {
                self.workers[worker].direct.remove(&call);
                self.say_to_backend(line, number, Heard::Answer(out));
            }
            Step::AnswerInDoubt(out) => self.say_to_backend(line, number, Heard::AnswerInDoubt(out)),
            Step::Own { tell, cancelled } => self.own(worker, number, tell, cancelled),
            Step::Clear(out) => return self.clear(worker, call, &out),
            Step::Stop { tell } => {
                self.workers[worker].direct.remove(&call);
                if tell {
                    self.say_to_backend(line, number, Heard::Registered);
                }
            }
        }
        true
    }

    fn register(&mut self, worker: usize, call: CallId) {
        let (name, number) = (self.workers[worker].name.clone(), self.number(call));
        let order = self.workers[worker].direct[&call].snapshot.order.clone();
        let by = Registrant::Worker(self.calls[number].rerun);
        let reply = self.ask("REGISTER", async |store| store.register(call, &order, &name, by).await);
        let owns = matches!(&reply, Some(Ok(registered)) if !registered.state.cancel);
        // Cancelled by a notification while only the link knew it.
        if owns && self.calls[number].ahead.is_some_and(|until| self.time() < until) {
            self.calls[number].client.wrong = Some("it goes on, though it was cancelled".into());
        }
        let job = self.workers[worker].direct.get_mut(&call).unwrap();
        let reply = reply.map(|reply| reply.map(|registered| job.registered = Some(registered)));
        job.run.input(DirectInput::Replied(reply));
    }

    fn own(&mut self, worker: usize, number: usize, tell: bool, cancelled: bool) {
        let job = self.workers[worker].direct.remove(&self.calls[number].id).unwrap();
        let DirectJob { line, snapshot, said, registered, emitted, ended, body, .. } = job;
        let Registered { state, generation } = registered.unwrap();
        let snapshot = Snapshot { state, ..snapshot };
        let mut delivery =
            Delivery::taken(&snapshot.order, snapshot.state.clone(), DeliveryLimits::default());
        said.into_iter().for_each(|input| delivery.input(input));
        self.start(worker, self.calls[number].id, delivery, snapshot, generation, ended);
        self.workers[worker].jobs.get_mut(&self.calls[number].id).unwrap().resume(emitted, body);
        if tell {
            self.say_to_backend(line, number, Heard::Registered);
        }
        if cancelled {
            self.cancel_owned(worker, number);
        }
    }

    /// The backend has the answer.
    fn clear(&mut self, worker: usize, call: CallId, out: &Message) -> bool {
        let name = self.workers[worker].name.clone();
        let fence = Fence::new(&name, 1);
        let Some(reply) = self.ask("FINISH", async |store| store.finish(call, fence, out).await) else {
            return false;
        };
        if reply.is_ok() && self.ask("PUBLISHED", async |store| store.published(call, fence).await).is_none()
        {
            return false;
        }
        self.workers[worker].direct.remove(&call);
        true
    }

    /// Whether nothing is under way on the links, and no call runs directly.
    pub fn is_direct_quiet(&self) -> bool {
        self.workers.iter().all(|worker| worker.direct.is_empty())
            && self.links.iter().all(|link| link.to_worker.is_empty() && link.to_backend.is_empty())
    }

    /// A client that is told that nobody knows what became of its call, although nothing happened that could cause it.
    pub fn is_told_without_reason(&self, number: usize) -> bool {
        let call = &self.calls[number];
        let unknown = call.told || call.client.lost;
        let safe = call.rerun == Rerun::Safe;
        unknown && !call.excused && !call.hard && (safe || !call.lost_frame)
    }
}

impl DirectJob {
    fn stop(&mut self) {
        if !self.ended {
            self.ended = true;
            self.said.push(Input::Finished(None));
            self.run.input(DirectInput::Finished { out: None, needs_record: false });
        }
    }
}
