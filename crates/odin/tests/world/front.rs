//! The backends of the simulation, and how clients come to them, come back and go away.

use odin::call::direct::Left;
use odin::call::{Enqueue, HANG_UP, Join, Offer, Read, Run, Send, Via, Withdraw};
use odin::id::CallId;
use odin::protocol::Era;
use odin::store::{Calls, Queue};
use rand::RngExt;

use super::{Client, Front, Get, Phase, SESSION, Stage, World, done};

/// How long a call may wait for a worker, in milliseconds.
const PATIENCE: u64 = 20_000;
/// How long a record may be missing, in milliseconds.
const MISSING: u64 = 3_000;
/// How often a backend asks at least, in milliseconds.
const ASKS: u64 = 900;

impl World {
    /// Only a fault keeps a backend from asking for the calls that wait at it.
    pub fn ask_all(&mut self) {
        for number in 0..self.calls.len() {
            let call = &self.calls[number];
            if !matches!(call.front, Front::New | Front::Over) && self.time() > call.asked + ASKS {
                self.front(number);
            }
        }
    }

    /// One step of the backend that has the client's request.
    pub fn front(&mut self, number: usize) {
        self.calls[number].asked = self.time();
        if self.calls[number].left.is_some() && self.rng.random() {
            self.abandon(number);
        }
        match self.calls[number].front {
            Front::New if self.calls[number].direct => self.begin_direct(number),
            Front::New => self.enqueue(number),
            Front::Direct => self.hand(number),
            Front::Unanswered(coming) => self.settle_unanswered(number, coming),
            Front::Waiting if self.calls[number].via == Via::Backend => self.read(number),
            Front::Waiting => self.offer(number),
            Front::Joined => self.read_answer(number),
            Front::Watched => self.watch(number),
            Front::Over => {}
        }
    }

    /// The store hears that the request before this one is gone; maybe long after this one joined its call.
    fn abandon(&mut self, number: usize) {
        let Some((node, request)) = self.calls[number].left.take() else { return };
        done(self.store.abandon(self.calls[number].id, &node, request));
        self.say(format!("call {number}: request {request} is gone"));
    }

    fn enqueue(&mut self, number: usize) {
        let call = &self.calls[number];
        let id = if call.again == 0 { call.id } else { CallId::from_bits([call.key + 16 * call.again; 16]) };
        if call.again > 0 && call.forgotten {
            // The key is forgotten with the rest.
            self.calls[number].front = Front::Over;
            self.calls[number].client.phase = Phase::Gone;
            return;
        }
        if call.again == 0 && self.faults.reply && self.left > 0 && self.rng.random_range(0..20) == 0 {
            self.left -= 1;
            let fate = self.rng.random_range(0..3);
            self.say(format!("FAULT call {number}: ENQ is not answered, fate {fate}"));
            if fate == 0 {
                done(self.store.enqueue(id, self.order(number)));
            }
            self.calls[number].front = Front::Unanswered(fate == 1);
            self.calls[number].excused = true;
            return;
        }
        let reply = done(self.store.enqueue(id, self.order(number)));
        self.say(format!("call {number}: enqueue → {reply:?}"));
        match reply {
            Enqueue::Accepted => {
                let call = &mut self.calls[number];
                if call.again > 0 && call.bodies > 0 {
                    call.client.wrong = Some("its repetition began another call".into());
                }
                // The one before was withdrawn.
                call.id = id;
                self.calls[number].front = Front::Waiting;
                self.leave_to_stream(number);
            }
            Enqueue::Known { call, same: true } => self.join(number, call),
            Enqueue::Cancelled => self.refuse(number),
            Enqueue::Full | Enqueue::TooMany(_) | Enqueue::Unanswered | Enqueue::Known { .. } => {
                unreachable!("{reply:?}")
            }
        }
    }

    /// In HTTP+SSE nobody waits: the answer goes to the stream.
    fn leave_to_stream(&mut self, number: usize) {
        if self.calls[number].stream {
            self.calls[number].front = Front::Watched;
            self.calls[number].queued = Some(self.time());
        }
    }

    /// Too long in the queue, or lost with it.
    fn watch(&mut self, number: usize) {
        if self.time() <= self.calls[number].queued.unwrap() + PATIENCE {
            return;
        }
        match self.withdraw(number) {
            Some(Withdraw::Running) => self.calls[number].front = Front::Over,
            Some(Withdraw::Missing) => {
                assert!(self.calls[number].forgotten, "a record was lost without a fault");
                self.refuse(number);
            }
            Some(Withdraw::Withdrawn) | None => {}
        }
    }

    fn join(&mut self, number: usize, id: CallId) {
        let (node, request) = self.place(number);
        let name = format!("key {}", self.calls[number].key);
        let Some(reply) = self.ask("JOIN", async |store| store.join(id, &name, &node, request).await) else {
            return;
        };
        self.say(format!("call {number}: join → {reply:?}"));
        match reply {
            Join::Waits => self.calls[number].front = Front::Joined,
            Join::Done(out) => {
                self.calls[number].front = Front::Over;
                self.calls[number].client.answer(&out);
            }
            Join::Cancelled | Join::Unknown => self.refuse(number),
        }
    }

    fn settle_unanswered(&mut self, number: usize, coming: bool) {
        let (id, order) = (self.calls[number].id, self.order(number));
        if coming && self.rng.random() {
            done(self.store.enqueue(id, order));
            self.calls[number].front = Front::Unanswered(false);
            self.say(format!("call {number}: its ENQ comes late"));
            return;
        }
        match self.withdraw(number) {
            Some(Withdraw::Running) => {
                self.calls[number].front = Front::Waiting;
                self.leave_to_stream(number);
            }
            Some(Withdraw::Missing) => {
                if coming {
                    assert_eq!(done(self.store.enqueue(id, order)), Enqueue::Cancelled, "it comes after all");
                }
                self.refuse(number);
            }
            Some(Withdraw::Withdrawn) | None => {}
        }
    }

    /// The client gets the error that its call will not run, if that is so.
    fn withdraw(&mut self, number: usize) -> Option<Withdraw> {
        let (id, (node, request)) = (self.calls[number].id, self.place(number));
        let reply = self.ask("WITHDRAW", async |store| store.withdraw(id, &node, request).await);
        self.say(format!("call {number}: withdraw → {reply:?}"));
        if reply == Some(Withdraw::Withdrawn) {
            self.calls[number].promised = true;
            self.refuse(number);
        }
        reply
    }

    pub fn place(&self, number: usize) -> (String, u64) {
        let call = &self.calls[number];
        (self.nodes[call.node].clone(), call.request)
    }

    pub fn refuse(&mut self, number: usize) {
        let call = &mut self.calls[number];
        call.front = Front::Over;
        call.excused = true;
        match call.client.phase {
            Phase::Streaming if !call.stream => call.client.cut(),
            Phase::Streaming => call.client.phase = Phase::Refused,
            _ => call.client.refuse(),
        }
    }

    /// No worker has begun. Some backends lose their patience early.
    fn queued(&mut self, number: usize) {
        self.calls[number].missing = None;
        let since =
            *self.calls[number].queued.get_or_insert(self.now.load(std::sync::atomic::Ordering::Relaxed));
        let early = self.faults.reply && self.rng.random_range(0..30) == 0;
        if early || self.time() > since + PATIENCE {
            self.withdraw(number);
        }
    }

    /// Its worker registers the call again, if the store lost its memory and not the call.
    fn missing(&mut self, number: usize) {
        let now = self.time();
        if now > *self.calls[number].missing.get_or_insert(now) + MISSING {
            self.calls[number].excused |= self.calls[number].forgotten;
            let excused = self.calls[number].excused;
            self.refuse(number);
            self.calls[number].excused = excused;
        }
    }

    pub fn offer(&mut self, number: usize) {
        let (id, (node, request)) = (self.calls[number].id, self.place(number));
        let ticket = self.calls[number].ticket;
        let may_hold = self.backend_link && self.rng.random();
        let offer =
            async |store: &odin::store::MemoryStore| store.offer(id, &node, request, ticket, may_hold).await;
        let Some(reply) = self.ask("OFFER", offer) else { return };
        self.say(format!("call {number}: offer → {reply:?}"));
        let call = &mut self.calls[number];
        match reply {
            Offer::Queued => self.queued(number),
            Offer::Wait => call.missing = None,
            Offer::Done(out) => {
                call.front = Front::Over;
                call.client.answer(&out);
            }
            Offer::Offered => {
                call.front = Front::Over;
                if call.client.phase == Phase::Direct {
                    call.client.phase = Phase::Holding;
                    call.gets.push(Get { abandoned: false, stage: Stage::Asked });
                }
            }
            Offer::Missing => self.missing(number),
            Offer::Cancelled => self.refuse(number),
        }
    }

    /// A backend that streams by itself.
    pub fn read(&mut self, number: usize) {
        let (id, (node, request)) = (self.calls[number].id, self.place(number));
        let from = self.calls[number].passed;
        let Some(read) = self.ask("READ", async |store| store.read(id, &node, request, from).await) else {
            return;
        };
        self.say(format!("call {number}: read after {from} → {read:?}"));
        let (events, out) = match read {
            Read::Events { events, out } => (events, out),
            Read::Queued => return self.queued(number),
            Read::Missing => return self.missing(number),
            Read::Cancelled => return self.refuse(number),
        };
        let call = &mut self.calls[number];
        call.missing = None;
        for event in events {
            call.passed += 1;
            if &*event == HANG_UP {
                call.front = Front::Over;
                // The stream has begun, with nothing in it.
                if call.client.phase == Phase::Direct {
                    call.client.phase = Phase::Streaming;
                }
                call.client.cut();
                done(self.store.abandon(id, &node, request));
                return;
            }
            if call.client.phase == Phase::Direct {
                call.client.phase = Phase::Streaming;
            }
            call.client.receive(&Send::Event(call.passed, event));
        }
        if let Some(out) = out {
            call.front = Front::Over;
            match call.client.phase {
                Phase::Direct => call.client.answer(&out),
                _ => call.client.receive(&Send::Final(call.passed + 1, out)),
            }
        }
    }

    /// A request that repeats another waits for the answer alone.
    fn read_answer(&mut self, number: usize) {
        let (id, (node, request)) = (self.calls[number].id, self.place(number));
        let Some(read) = self.ask("READ", async |store| store.read(id, &node, request, u32::MAX).await)
        else {
            return;
        };
        self.say(format!("call {number}: read the answer → {read:?}"));
        match read {
            Read::Events { out: Some(out), .. } => {
                self.calls[number].front = Front::Over;
                self.calls[number].client.answer(&out);
            }
            Read::Events { .. } => self.calls[number].missing = None,
            Read::Queued => self.queued(number),
            Read::Missing => self.missing(number),
            Read::Cancelled => self.refuse(number),
        }
    }

    pub fn backend_crash(&mut self, node: usize) {
        self.say(format!("FAULT backend {node} crashes"));
        let name = format!("{}-{}", self.nodes[node].split('-').next().unwrap(), self.left + 1);
        self.nodes[node] = name;
        self.links_of_backend_end(node);
        for call in self.calls.iter_mut().filter(|call| call.node == node && call.front != Front::Over) {
            call.excused = true;
            call.hard = true;
            // A stream that stands already is Pushpin's. Its call is watched by nobody now: if the store loses it
            // as well, its client finds out by its own patience.
            call.handed = None;
            call.unwatched = call.stream && call.front == Front::Watched;
            if call.stream && !call.unwatched {
                call.client.phase = Phase::Refused;
            } else if !call.stream {
                call.client.cut();
            }
            call.front = Front::Over;
        }
    }

    pub fn disconnect(&mut self, number: usize) {
        let waits = matches!(self.calls[number].front, Front::Waiting | Front::Joined);
        let (node, request) = self.place(number);
        let call = &mut self.calls[number];
        if call.client.phase.is_final() || call.front == Front::New {
            return;
        }
        call.client.phase = Phase::Gone;
        call.gets.iter_mut().for_each(|get| get.abandoned = true);
        for hold in self.pushpin.holds.iter_mut().filter(|hold| hold.call == number) {
            hold.attached = false;
        }
        let gone = call.handed.as_mut().map(|handed| handed.client_gone());
        if waits {
            done(self.store.abandon(call.id, &node, request));
            call.front = Front::Over;
        }
        self.say(format!("FAULT call {number}: the client disconnects"));
        if let Some(left) = gone {
            self.leave_direct(number, left);
        }
    }

    /// The client loses its connection, and sends its request again under the same key.
    pub fn repeat_request(&mut self, number: usize) {
        let call = &self.calls[number];
        let waits = matches!(call.front, Front::Waiting | Front::Joined);
        let open = waits || (call.front == Front::Over && !call.client.phase.is_final());
        if !open || call.promised || call.cancelled || call.forgotten || call.again > 8 {
            return;
        }
        self.abandon(number);
        let left = waits.then(|| self.place(number));
        if waits {
            self.calls[number].front = Front::Over;
        }
        self.disconnect(number);
        let node = self.rng.random_range(0..2);
        let call = &mut self.calls[number];
        call.again += 1;
        call.left = left;
        call.request += 100;
        call.node = node;
        call.front = Front::New;
        call.client = Client::new(call.era, false, None);
        (call.missing, call.queued) = (None, None);
        self.say(format!("FAULT call {number}: the client sends it again"));
    }

    /// The client of a stateful era cancels.
    pub fn cancel(&mut self, number: usize) {
        let call = &self.calls[number];
        if call.era != Era::Stateful || call.client.phase.is_final() {
            return;
        }
        let (id, key) = (call.id, call.key.to_string());
        let started = self.store.peek(id).is_some_and(|record| record.run != Run::Queued);
        // One that has not begun never will; also one that is still on its way.
        let straight = call.direct || call.front == Front::Direct;
        let promised = !started && call.bodies == 0 && !call.forgotten && !straight;
        self.ask("CANCEL", async |store| store.cancel(SESSION, &key).await);
        let call = &mut self.calls[number];
        call.promised |= promised;
        call.cancelled = true;
        call.excused = true;
        call.client.phase = Phase::Gone;
        call.ahead = Some(self.now.load(std::sync::atomic::Ordering::Relaxed) + 10_000);
        self.say(format!("FAULT call {number}: the client cancels"));
        // By way of its own backend, or of another.
        if self.rng.random()
            && let Some(handed) = &mut self.calls[number].handed
        {
            match handed.cancelled() {
                Left::Nothing => {}
                left => self.leave_direct(number, left),
            }
        }
    }

    /// The client of a stateful era comes back with its last event id.
    pub fn resume(&mut self, number: usize) {
        let call = &mut self.calls[number];
        let broken = call.client.phase == Phase::Broken && !call.stream;
        if call.era == Era::Stateful && broken && call.gets.is_empty() {
            call.client.resuming = true;
            call.client.phase = Phase::Holding;
            call.gets.push(Get { abandoned: false, stage: Stage::Asked });
            let last = call.client.last;
            self.say(format!("call {number}: client resumes after {last}"));
        }
    }
}
