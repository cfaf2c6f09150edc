//! From a call that is handed in to the worker that runs it, in the memory of one process.

use async_trait::async_trait;

use super::MemoryStore;
use super::WAIT;
use super::millis;
use super::state::Kept;
use super::state::Memory;
use crate::call::{Enqueue, Fence, Gone, Order, Record, Registrant, Rerun, Run, Snapshot, State, Whose};
use crate::id::{CallChannel, CallId};
use crate::store::{Arrived, Beat, Beaten, Claimed, Entry, Queue, Registered, Result, Room, Taken};

#[async_trait]
impl Queue for MemoryStore {
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

    async fn register(
        &self,
        call: CallId,
        order: &Order,
        worker: &str,
        by: Registrant,
    ) -> Result<std::result::Result<Registered, Gone>> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        let generation = memory.generation.to_string();
        if let Some(kept) = memory.records.get_mut(&call) {
            let reply = kept.record.register(worker, by, now, &self.timing);
            return Ok(reply.map(|state| Registered { state, generation }));
        }
        let key = order.session.clone().zip(order.request_id.clone());
        let ahead = key.as_ref().and_then(|key| memory.cancelled_ahead.get(key));
        let cancelled = ahead.is_some_and(|until| now < *until);
        let record = Record::registered(order.clone(), worker, by, cancelled, now, &self.timing);
        let state = record.state();
        memory.records.insert(call, Kept::new(record));
        if cancelled {
            memory.settle(call, now, &self.timing);
            return Ok(Err(Gone::Missing));
        }
        memory.open.add(&order.server, &order.parties(), call);
        if let Some(key) = key {
            memory.by_request.entry(key).or_default().push(call);
        }
        Ok(Ok(Registered { state, generation }))
    }

    async fn beat(&self, worker: &str, beats: &[Beat]) -> Result<Beaten> {
        let views = beats
            .iter()
            .map(|beat| {
                let fence = Fence::new(worker, beat.epoch);
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
                memory.hint_waiting(call, None);
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
        let fence = Fence::new(worker, snapshot.epoch);
        let adopted = memory.records.get(&call).filter(|kept| kept.record.is_adopted_of(fence));
        let adopted = adopted.map(|kept| kept.record.clone());
        match memory.records.get(&call).map(|kept| &kept.record) {
            Some(_) if adopted.is_some() => {}
            // Registered already; the reply was lost.
            Some(known) if known.is_owned(fence) => {
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
        let mut record = Record::restored(snapshot, adopted.as_ref(), worker, now, &self.timing);
        // The cancellation came while nobody knew the call.
        record.cancel |=
            key.as_ref().and_then(|key| memory.cancelled_ahead.get(key)).is_some_and(|until| now < *until);
        let state = record.state();
        if adopted.is_some() {
            if let Some(kept) = memory.records.get_mut(&call) {
                kept.record = record;
            }
        } else {
            memory.records.insert(call, Kept::new(record));
            if let Some(key) = key {
                memory.by_request.entry(key).or_default().push(call);
            }
        }
        memory.hint_waiting(call, None);
        Ok(Ok(state))
    }
}
