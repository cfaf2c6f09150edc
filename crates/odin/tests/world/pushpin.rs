//! Pushpin in the simulation: the hold requests that come through it, and the streams that it holds.

use odin::call::{HANG_UP, Message, Resume, Send};
use odin::id::CallChannel;
use odin::store::Calls;
use std::collections::BTreeMap;

use rand::RngExt;

use super::{Get, Hold, Phase, SESSION, Stage, World};

impl World {
    /// One step of a hold request: to a backend, or its answer to Pushpin.
    pub fn hold_request(&mut self, number: usize) {
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
                let resume =
                    async |store: &odin::store::MemoryStore| store.resume(id, SESSION, last, None).await;
                // Not answered: the client asks again.
                let Some(reply) = self.ask("RESUME", resume) else { return };
                let call = &mut self.calls[number];
                match reply {
                    // Nothing is left of it: the front end says so, and the client stops asking.
                    Resume::Replay { events } if events.is_empty() => {
                        call.gets.remove(index);
                        // A repeated request may come after the answer.
                        if !call.client.phase.is_final() {
                            call.client.phase = Phase::Gone;
                            if !call.cancelled && !call.promised {
                                call.client.wrong = Some("nothing is left, and it has no answer".into());
                            }
                        }
                    }
                    Resume::Unknown => {
                        call.gets.remove(index);
                        call.client.phase = Phase::Gone;
                        if !call.forgotten && !call.cancelled && !call.promised {
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
            Stage::Asked => {
                let ticket = call.ticket;
                // Not answered: the backend's connection to the store sends it again.
                let Some(reply) = self.ask("HOLD", async |store| store.hold(ticket, "proof").await) else {
                    return;
                };
                let call = &mut self.calls[number];
                match reply {
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
                }
            }
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

    pub fn repeat_hold(&mut self, number: usize) {
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

    pub fn pushpin_restart(&mut self) {
        self.say("FAULT pushpin restarts".into());
        for hold in std::mem::take(&mut self.pushpin.holds) {
            if hold.attached {
                self.calls[hold.call].client.cut();
            }
        }
        for call in &mut self.calls {
            call.excused = true;
            if std::mem::take(&mut call.gets).iter().any(|get| !get.abandoned) {
                call.client.cut();
            }
        }
        self.pushpin.seen.clear();
        for worker in 0..self.workers.len() {
            self.worker_loses_link(worker);
        }
    }

    /// Pushpin takes the next item of a worker's socket.
    pub fn deliver(&mut self, worker: usize) {
        // Abandoned holds end by themselves, a little later.
        if self.rng.random_range(0..3) == 0 {
            self.pushpin.holds.retain(|hold| hold.attached);
        }
        let Some((channel, item)) = self.workers[worker].wire.pop_front() else { return };
        let id = match &item {
            Send::Event(n, _) | Send::Events(n, _) | Send::Burn(n) => Some(n.to_string()),
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
    /// What goes to a stream of HTTP+SSE is not long on its way: nothing shows that it arrived, so a worker counts it
    /// as arrived when its link has stood for a while.
    pub fn deliver_to_streams(&mut self) {
        for worker in 0..self.workers.len() {
            let to_stream = |world: &Self| {
                let stream = |call| world.calls.iter().any(|known| known.id == call && known.stream);
                world.workers[worker].wire.iter().any(|(channel, _)| stream(channel.call))
            };
            while to_stream(self) {
                self.deliver(worker);
            }
        }
    }

    /// The streams of HTTP+SSE, which are there before any call.
    pub fn open_streams(&mut self) {
        for (number, call) in self.calls.iter_mut().enumerate().filter(|(_, call)| call.stream) {
            call.client.phase = Phase::Streaming;
            let channel = CallChannel { call: call.id, number: 1 };
            self.pushpin.holds.push(Hold { call: number, channel, attached: true });
        }
    }

    /// A client that has what it waited for goes away.
    pub fn close_streams(&mut self) {
        for call in self.calls.iter_mut().filter(|call| call.unwatched && call.forgotten) {
            call.client.phase = Phase::Gone;
        }
        let calls = &self.calls;
        self.pushpin
            .holds
            .retain(|hold| !(calls[hold.call].stream && calls[hold.call].client.phase.is_final()));
    }
}

fn numbered(last: u32, events: &[Message]) -> Vec<Send> {
    (last + 1..)
        .zip(events)
        .filter(|(_, event)| &***event != HANG_UP)
        .map(|(n, event)| {
            let is_final = !event.starts_with("event");
            if is_final { Send::Final(n, event.clone()) } else { Send::Event(n, event.clone()) }
        })
        .collect()
}
