//! The broker of one process.

mod queue;
mod state;
mod tasks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use self::state::{Kept, Memory, Nudges};
use super::{
    Arrived, Beat, Beaten, Broker, BrokerLimits, Cast, Claimed, Entry, Held, Inbox, NodeNudge, Result, Room,
    Stray, Taken, Unavailable, WorkerNudge,
};
use crate::call::{
    Enqueue, Fence, Gone, Join, Message, Offer, Order, Reach, Read, Record, Resume, Run, Snapshot, State,
    Timing, Whose, Withdraw,
};
use crate::id::{CallChannel, CallId, Ticket};
use crate::runner::Rerun;

/// Nudges that wait for one node or worker. What does not fit is folded into "look at everything".
pub(super) const NUDGES: usize = 1024;
/// How long a cancellation is remembered for a request that it overtook.
const CANCEL_AHEAD: Duration = Duration::from_secs(10);
/// How long a stream that is no call's may take to be held.
pub(super) const PARKED: Duration = Duration::from_secs(30);
/// How long [`Broker::arrival`] waits.
const WAIT: Duration = Duration::from_secs(1);

/// Milliseconds of some clock that never goes back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Records in the memory of one process. Lost with it.
pub struct MemoryBroker {
    timing: Timing,
    limits: BrokerLimits,
    clock: Clock,
    state: Mutex<Memory>,
    arrived: Notify,
}

impl MemoryBroker {
    /// A broker with the clock of this machine.
    pub fn new(timing: Timing, limits: BrokerLimits) -> Self {
        let start = Instant::now();
        let clock = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self::with_clock(timing, limits, Arc::new(clock))
    }

    /// A broker with a clock of the caller's; for simulations.
    pub fn with_clock(timing: Timing, limits: BrokerLimits, clock: Clock) -> Self {
        Self { timing, limits, clock, state: Mutex::default(), arrived: Notify::new() }
    }

    /// Forgets everything, as a restarted Redis does; for simulations.
    pub fn forget(&self) {
        let mut memory = self.memory();
        let generation = memory.generation + 1;
        let node_nudges = std::mem::take(&mut memory.node_nudges);
        let worker_nudges = std::mem::take(&mut memory.worker_nudges);
        *memory = Memory { generation, node_nudges, worker_nudges, ..Memory::default() };
    }

    /// A copy of a record; for tests and simulations.
    pub fn peek(&self, call: CallId) -> Option<Record> {
        self.memory().records.get(&call).map(|kept| kept.record.clone())
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a transition of the call's owner, then forgets the record if nothing can ask for it, and tells
    /// the backend that waits.
    fn owner<T>(&self, call: CallId, missing: T, transition: impl FnOnce(&mut Record, u64) -> T) -> T {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        let Some(kept) = memory.records.get_mut(&call) else { return missing };
        let reply = transition(&mut kept.record, now);
        memory.settle(call, now, &self.timing);
        reply
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn node_nudges(&self, node: &str) -> Result<mpsc::Receiver<NodeNudge>> {
        let (sender, receiver) = mpsc::channel(NUDGES);
        self.memory().node_nudges.insert(node.to_owned(), Nudges { sender, missed: false });
        Ok(receiver)
    }

    async fn worker_nudges(&self, worker: &str) -> Result<mpsc::Receiver<WorkerNudge>> {
        let (sender, receiver) = mpsc::channel(NUDGES);
        self.memory().worker_nudges.insert(worker.to_owned(), Nudges { sender, missed: false });
        Ok(receiver)
    }

    async fn enqueue(&self, call: CallId, order: Order) -> Result<Enqueue> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        if memory.withdrawn.get(&call).is_some_and(|until| now < *until) {
            return Ok(Enqueue::Cancelled);
        }
        if memory.records.contains_key(&call) {
            return Ok(Enqueue::Accepted);
        }
        if let Some(retry) = &order.retry
            && let Some(known) = memory.by_retry.get(&retry.name)
            && let Some(kept) = memory.records.get(known)
        {
            let same = kept.record.order.retry.as_ref() == Some(retry);
            return Ok(Enqueue::Known { call: *known, same });
        }
        let key = order.session.clone().zip(order.request_id.clone());
        if let Some(key) = &key
            && memory.cancelled_ahead.get(key).is_some_and(|until| now < *until)
        {
            return Ok(Enqueue::Cancelled);
        }
        let (parties, server) = (order.parties(), order.server.as_str());
        if memory.open.count(server, &parties.principal) >= self.limits.calls_of_principal {
            return Ok(Enqueue::TooMany(Whose::Principal));
        }
        if memory.open.count(server, &parties.organisation) >= self.limits.calls_of_organisation {
            return Ok(Enqueue::TooMany(Whose::Organisation));
        }
        let queue = memory.queues.entry(server.to_owned()).or_default();
        if queue.len() >= self.limits.queue {
            return Ok(Enqueue::Full);
        }
        queue.push(call, order.tool.clone(), parties.clone());
        memory.open.add(server, &parties, call);
        if let Some(key) = key {
            memory.by_request.entry(key).or_default().push(call);
        }
        if let Some(retry) = &order.retry {
            memory.by_retry.insert(retry.name.clone(), call);
        }
        let kept = Kept::new(Record::new(order, now));
        memory.records.insert(call, kept);
        drop(memory);
        self.arrived.notify_waiters();
        Ok(Enqueue::Accepted)
    }

    async fn offer(
        &self,
        call: CallId,
        node: &str,
        request: u64,
        ticket: Ticket,
        may_hold: bool,
    ) -> Result<Offer> {
        let now = self.now();
        let mut memory = self.memory();
        let Some(kept) = memory.records.get_mut(&call) else { return Ok(Offer::Missing) };
        let reply = kept.record.offer(node, request, ticket, may_hold, now, &self.timing);
        if reply == Offer::Offered {
            memory.tickets.insert(ticket, (call, now + millis(self.timing.tombstone)));
        }
        memory.settle(call, now, &self.timing);
        Ok(reply)
    }

    async fn withdraw(&self, call: CallId, node: &str, request: u64) -> Result<Withdraw> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        let Some(kept) = memory.records.get_mut(&call) else {
            memory.withdrawn.insert(call, now + millis(self.timing.tombstone));
            return Ok(Withdraw::Missing);
        };
        let reply = kept.record.withdraw(node, request);
        if reply == Withdraw::Withdrawn {
            // Its client may send it again, also under the same key.
            memory.forget_retry(call);
        }
        memory.settle(call, now, &self.timing);
        Ok(reply)
    }

    async fn hold(&self, ticket: Ticket, assertion: &str) -> Result<Option<Held>> {
        let now = self.now();
        let mut memory = self.memory();
        let Some((call, _)) = memory.tickets.get(&ticket).copied() else { return Ok(None) };
        let Some(kept) = memory.records.get_mut(&call) else { return Ok(None) };
        let Some(number) = kept.record.hold(ticket, assertion, now) else { return Ok(None) };
        let session = kept.record.order.session.clone();
        memory.nudge_owner(call);
        Ok(Some(Held { channel: CallChannel { call, number }, session }))
    }

    async fn read(&self, call: CallId, node: &str, request: u64, from: u32) -> Result<Read> {
        Ok(self.owner(call, Read::Missing, |record, now| record.read(node, request, from, now)))
    }

    async fn abandon(&self, call: CallId, node: &str, request: u64) -> Result<()> {
        if self.owner(call, false, |record, _| record.abandon(node, request)) {
            self.memory().nudge_owner(call);
        }
        Ok(())
    }

    async fn resume(
        &self,
        call: CallId,
        session: &str,
        last: u32,
        at: Option<(&str, u64)>,
    ) -> Result<Resume> {
        let reply = self.owner(call, Resume::Unknown, |record, now| record.resume(session, last, at, now));
        self.memory().nudge_owner(call);
        Ok(reply)
    }

    async fn join(&self, call: CallId, name: &str, node: &str, request: u64) -> Result<Join> {
        let reply = self.owner(call, Join::Unknown, |record, now| record.join(name, node, request, now));
        self.memory().nudge_owner(call);
        Ok(reply)
    }

    async fn park(&self, ticket: Ticket, stream: &str) -> Result<()> {
        let until = self.now() + millis(PARKED);
        self.memory().parked.insert(ticket, (stream.to_owned(), until));
        Ok(())
    }

    async fn parked(&self, ticket: Ticket) -> Result<Option<String>> {
        let now = self.now();
        let memory = self.memory();
        Ok(memory.parked.get(&ticket).filter(|(_, until)| now < *until).map(|(stream, _)| stream.clone()))
    }

    async fn cancel(&self, session: &str, request_id: &str) -> Result<()> {
        let now = self.now();
        let mut memory = self.memory();
        let key = (session.to_owned(), request_id.to_owned());
        let calls = memory.by_request.get(&key).cloned().unwrap_or_default();
        // Always: the cancelled request may be still to come, behind an older one with the same id.
        memory.cancelled_ahead.insert(key, now + millis(CANCEL_AHEAD));
        for call in calls {
            let Some(kept) = memory.records.get_mut(&call) else { continue };
            // The backend that waits must learn of it too, and a closed record no longer says which.
            let reach = kept.record.reach.clone();
            if kept.record.cancel() {
                memory.nudge_owner(call);
                if let Reach::Node { node, request, .. } = reach
                    && let Some(nudges) = memory.node_nudges.get_mut(&node)
                {
                    nudges.nudge(NodeNudge::Request(request), NodeNudge::All);
                }
                memory.settle(call, now, &self.timing);
            }
        }
        Ok(())
    }

    async fn post(&self, call: CallId, session: &str, message: Message) -> Result<bool> {
        let mut memory = self.memory();
        let Some(kept) = memory.records.get_mut(&call) else { return Ok(false) };
        let fits = !kept.record.closed
            && kept.record.order.session.as_deref() == Some(session)
            && kept.inbox.len() < self.limits.inbox;
        if fits {
            kept.inbox.push_back(message);
            memory.nudge_owner(call);
        }
        Ok(fits)
    }

    async fn remember(&self, session: &str, field: &str, value: &str, live: Duration) -> Result<bool> {
        let until = self.now() + millis(live);
        let mut memory = self.memory();
        let (fields, expires) = memory.sessions.entry(session.to_owned()).or_default();
        *expires = until;
        if fields.len() >= self.limits.session_fields && !fields.contains_key(field) {
            return Ok(false);
        }
        fields.insert(field.to_owned(), value.to_owned());
        Ok(true)
    }

    async fn recall(&self, session: &str) -> Result<BTreeMap<String, String>> {
        let now = self.now();
        let memory = self.memory();
        let fields = memory.sessions.get(session).filter(|(_, until)| now < *until);
        Ok(fields.map(|(fields, _)| fields.clone()).unwrap_or_default())
    }

    async fn next(&self, server: &str, worker: &str, room: &Room) -> Result<Vec<Entry>> {
        let (now, idle) = (self.now(), millis(self.timing.undelivered));
        let mut memory = self.memory();
        let Memory { queues, records, .. } = &mut *memory;
        let is_queued = |call| {
            records.get(&call).is_some_and(|kept| !kept.record.closed && kept.record.run == Run::Queued)
        };
        Ok(queues.entry(server.to_owned()).or_default().next(worker, room, now, idle, is_queued))
    }

    async fn arrival(&self, server: &str, worker: &str) -> Result<Option<Arrived>> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            let arrived = self.arrived.notified();
            if self.memory().queues.get(server).is_some_and(|queue| queue.has_news(worker)) {
                return Ok(None);
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn pass_on(&self, _server: &str, _line: &Arrived) -> Result<()> {
        // All workers are woken for each line.
        Ok(())
    }

    async fn take(
        &self,
        server: &str,
        worker: &str,
        entry: &Entry,
        attempt: &str,
        rerun: Rerun,
    ) -> Result<Option<Taken>> {
        let now = self.now();
        let mut memory = self.memory();
        let generation = memory.generation.to_string();
        let Memory { records, queues, .. } = &mut *memory;
        let kept = records.get_mut(&entry.call);
        let reply = kept.and_then(|kept| {
            let taken = kept.record.take(worker, attempt, rerun, now, &self.timing);
            taken.then(|| Taken { snapshot: kept.record.snapshot(), generation })
        });
        if let Some(queue) = queues.get_mut(server) {
            queue.leave(entry.call, reply.is_some());
        }
        memory.settle(entry.call, now, &self.timing);
        Ok(reply)
    }

    async fn inbox(&self, call: CallId, fence: Fence<'_>, after: u64) -> Result<Inbox> {
        let mut memory = self.memory();
        let Some(kept) = memory.records.get_mut(&call).filter(|kept| kept.record.is_owned(fence)) else {
            return Ok(Inbox { last: after, messages: Vec::new() });
        };
        while kept.fetched < after && kept.inbox.pop_front().is_some() {
            kept.fetched += 1;
        }
        let messages: Vec<Message> = kept.inbox.iter().cloned().collect();
        Ok(Inbox { last: kept.fetched + messages.len() as u64, messages })
    }

    async fn emit(
        &self,
        call: CallId,
        fence: Fence<'_>,
        first: u32,
        events: &[Message],
    ) -> Result<std::result::Result<State, Gone>> {
        let reply = self.owner(call, Err(Gone::Missing), |record, now| {
            record.emit(fence, first, events, now, &self.timing)
        });
        self.memory().nudge_waiting(call);
        Ok(reply)
    }

    async fn finish(
        &self,
        call: CallId,
        fence: Fence<'_>,
        out: &Message,
    ) -> Result<std::result::Result<State, Gone>> {
        let reply = self
            .owner(call, Err(Gone::Missing), |record, now| record.finish_run(fence, out, now, &self.timing));
        self.memory().nudge_waiting(call);
        Ok(reply)
    }

    async fn gate(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>> {
        Ok(self.owner(call, Err(Gone::Missing), |record, _| record.gate(fence, channel)))
    }

    async fn lost(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>> {
        Ok(self.owner(call, Err(Gone::Missing), |record, _| record.lost(fence, channel)))
    }

    async fn published(&self, call: CallId, fence: Fence<'_>) -> Result<std::result::Result<(), Gone>> {
        Ok(self.owner(call, Err(Gone::Missing), |record, _| record.published(fence)))
    }

    async fn drop_work(
        &self,
        call: CallId,
        fence: Fence<'_>,
    ) -> Result<std::result::Result<Option<State>, Gone>> {
        let waiting = self.peek(call).map(|record| record.reach);
        let reply = self.owner(call, Err(Gone::Missing), |record, _| record.drop_work(fence));
        if let (Ok(None), Some(Reach::Node { node, request, .. })) = (&reply, waiting)
            && let Some(nudges) = self.memory().node_nudges.get_mut(&node)
        {
            nudges.nudge(NodeNudge::Request(request), NodeNudge::All);
        }
        Ok(reply)
    }

    async fn beat(&self, worker: &str, beats: &[Beat]) -> Result<Beaten> {
        let views = beats
            .iter()
            .map(|beat| {
                let fence = Fence { worker, epoch: beat.epoch };
                self.owner(beat.call, Err(Gone::Missing), |record, now| {
                    record.beat(fence, beat.subscribed, now, &self.timing)
                })
            })
            .collect();
        Ok(Beaten { views, generation: self.memory().generation.to_string(), now: self.now() })
    }

    async fn claim(&self, server: &str, worker: &str, most: usize, by: u64) -> Result<Vec<Claimed>> {
        let now = self.now();
        if now > by {
            return Ok(Vec::new());
        }
        let mut memory = self.memory();
        memory.sweep(now);
        let lapsed = |record: &Record| {
            record.order.server == server && !record.closed && record.lease != 0 && now >= record.lease
        };
        let mut calls: Vec<CallId> =
            memory.records.iter().filter(|(_, kept)| lapsed(&kept.record)).map(|(call, _)| *call).collect();
        calls.sort_unstable();
        let mut claimed = Vec::new();
        for call in calls.into_iter().take(most) {
            let Some(kept) = memory.records.get_mut(&call) else { continue };
            if let Some((claim, close)) = kept.record.claim(worker, now, &self.timing) {
                let close = close.map(|number| CallChannel { call, number });
                claimed.push(Claimed { call, claim, snapshot: kept.record.snapshot(), close });
                memory.nudge_waiting(call);
            }
            memory.settle(call, now, &self.timing);
        }
        Ok(claimed)
    }

    async fn restore(
        &self,
        call: CallId,
        worker: &str,
        snapshot: Snapshot,
    ) -> Result<std::result::Result<State, Gone>> {
        let now = self.now();
        let mut memory = self.memory();
        match memory.records.get(&call).map(|kept| &kept.record) {
            // Registered already; the reply was lost.
            Some(known) if known.is_owned(Fence { worker, epoch: snapshot.epoch }) => {
                return Ok(Ok(known.state()));
            }
            Some(known) if known.epoch >= snapshot.epoch => return Ok(Err(Gone::Fenced)),
            _ => {}
        }
        let key = snapshot.order.session.clone().zip(snapshot.order.request_id.clone());
        if let Some(retry) = &snapshot.order.retry {
            memory.by_retry.insert(retry.name.clone(), call);
        }
        if memory.records.get(&call).is_some_and(|kept| kept.record.run == Run::Queued) {
            memory.leave(call);
        }
        if snapshot.order.task.is_none() {
            memory.open.add(&snapshot.order.server, &snapshot.order.parties(), call);
        }
        let mut record = Record::restored(snapshot, worker, now, &self.timing);
        // The cancellation came while nobody knew the call.
        record.cancel |=
            key.as_ref().and_then(|key| memory.cancelled_ahead.get(key)).is_some_and(|until| now < *until);
        let state = record.state();
        memory.records.insert(call, Kept::new(record));
        if let Some(key) = key {
            memory.by_request.entry(key).or_default().push(call);
        }
        memory.nudge_waiting(call);
        Ok(Ok(state))
    }

    async fn stray(&self, channel: CallChannel) -> Result<Option<Stray>> {
        Ok(match self.memory().records.get(&channel.call) {
            Some(kept) => kept.record.stray(channel.number),
            None => Some(Stray::default()),
        })
    }

    async fn cast(&self, topic: &str, message: Message) -> Result<()> {
        self.memory().followers.pass(topic, &message);
        Ok(())
    }

    async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        Ok(memory.followers.add(topics))
    }

    async fn use_once(&self, name: &str, by: &str, live: Duration) -> Result<String> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        if let Some((by, until)) = memory.used.get(name)
            && now < *until
        {
            return Ok(by.clone());
        }
        if memory.used.len() >= self.limits.used {
            return Err(Unavailable("too much was used up".to_owned()));
        }
        memory.used.insert(name.to_owned(), (by.to_owned(), now.saturating_add(millis(live))));
        Ok(by.to_owned())
    }

    async fn enter(&self, group: &str, member: &str, live: Duration, most: usize) -> Result<bool> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        let members = memory.groups.entry(group.to_owned()).or_default();
        members.retain(|_, until| now < *until);
        if members.len() >= most && !members.contains_key(member) {
            return Ok(false);
        }
        members.insert(member.to_owned(), now.saturating_add(millis(live)));
        Ok(true)
    }

    async fn leave(&self, group: &str, member: &str) -> Result<()> {
        if let Some(members) = self.memory().groups.get_mut(group) {
            members.remove(member);
        }
        Ok(())
    }

    async fn members(&self, group: &str) -> Result<Vec<String>> {
        let now = self.now();
        let memory = self.memory();
        let members = memory.groups.get(group).into_iter().flatten();
        Ok(members.filter(|(_, until)| now < **until).map(|(member, _)| member.clone()).collect())
    }
}
