//! What becomes of calls: the side of their clients, in the memory of one process.

use async_trait::async_trait;

use super::CANCEL_AHEAD;
use super::MemoryStore;
use super::millis;
use crate::call::{Join, Message, Offer, Reach, Read, Resume, Withdraw};
use crate::id::{CallChannel, CallId, Ticket};
use crate::store::{Calls, Held, NodeHint, Result};

#[async_trait]
impl Calls for MemoryStore {
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
        Ok(Some(Held { channel: CallChannel { call, number }, session }))
    }

    async fn read(&self, call: CallId, node: &str, request: u64, from: u32) -> Result<Read> {
        Ok(self.owner(call, Read::Missing, |record, now| record.read(node, request, from, now)))
    }

    async fn abandon(&self, call: CallId, node: &str, request: u64) -> Result<()> {
        if self.owner(call, false, |record, _| record.abandon(node, request)) {
            self.memory().hint_owner(call);
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
        self.memory().hint_owner(call);
        Ok(reply)
    }

    async fn join(&self, call: CallId, name: &str, node: &str, request: u64) -> Result<Join> {
        let reply = self.owner(call, Join::Unknown, |record, now| record.join(name, node, request, now));
        self.memory().hint_owner(call);
        Ok(reply)
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
                memory.hint_owner(call);
                if let Reach::Node { node, request, .. } = reach
                    && let Some(hints) = memory.node_hints.get_mut(&node)
                {
                    hints.hint(NodeHint::Request(request), NodeHint::All);
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
            memory.hint_owner(call);
        }
        Ok(fits)
    }
}
