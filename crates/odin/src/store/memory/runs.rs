//! What a worker does with a call that it runs, in the memory of one process.

use async_trait::async_trait;

use super::MemoryStore;
use crate::call::{Fence, Gone, Message, OrphanedStream, Reach, State};
use crate::id::{CallChannel, CallId};
use crate::store::{Inbox, NodeHint, Result, Runs};

#[async_trait]
impl Runs for MemoryStore {
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
        self.memory().hint_waiting(call, fence.linked);
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
        self.memory().hint_waiting(call, fence.linked);
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
            && let Some(hints) = self.memory().node_hints.get_mut(&node)
        {
            hints.hint(NodeHint::Request(request), NodeHint::All);
        }
        Ok(reply)
    }

    async fn orphaned(&self, channel: CallChannel) -> Result<Option<OrphanedStream>> {
        Ok(match self.memory().records.get(&channel.call) {
            Some(kept) => kept.record.orphaned(channel.number),
            None => Some(OrphanedStream::default()),
        })
    }
}
