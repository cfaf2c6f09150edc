//! What a worker does with a call that it runs, in Redis.

use async_trait::async_trait;

use super::RedisStore;
use super::codec;
use crate::call::{Fence, Gone, Message, OrphanedStream, State};
use crate::id::{CallChannel, CallId};
use crate::store::{Inbox, Result, Runs};

#[async_trait]
impl Runs for RedisStore {
    async fn inbox(&self, call: CallId, fence: Fence<'_>, after: u64) -> Result<Inbox> {
        let args = [fence.worker, &fence.epoch.to_string(), &after.to_string()];
        codec::inbox(self.call(&self.scripts.inbox, call, &args).await?)
    }

    async fn emit(
        &self,
        call: CallId,
        fence: Fence<'_>,
        first: u32,
        events: &[Message],
    ) -> Result<std::result::Result<State, Gone>> {
        let reply = self
            .invoke(&self.scripts.emit, |invocation| {
                invocation.arg(call.to_string()).arg(fence.worker).arg(fence.epoch);
                invocation.arg(fence.linked.unwrap_or_default()).arg(first);
                for event in events {
                    invocation.arg(&**event);
                }
            })
            .await?;
        codec::view(reply)
    }

    async fn finish(
        &self,
        call: CallId,
        fence: Fence<'_>,
        out: &Message,
    ) -> Result<std::result::Result<State, Gone>> {
        let args = [fence.worker, &fence.epoch.to_string(), fence.linked.unwrap_or_default(), out];
        codec::view(self.call(&self.scripts.finish, call, &args).await?)
    }

    async fn gate(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>> {
        let args = [fence.worker, &fence.epoch.to_string(), &channel.to_string()];
        codec::view(self.call(&self.scripts.gate, call, &args).await?)
    }

    async fn lost(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>> {
        let args = [fence.worker, &fence.epoch.to_string(), &channel.to_string()];
        codec::view(self.call(&self.scripts.lost, call, &args).await?)
    }

    async fn published(&self, call: CallId, fence: Fence<'_>) -> Result<std::result::Result<(), Gone>> {
        let reply =
            self.call(&self.scripts.published, call, &[fence.worker, &fence.epoch.to_string()]).await?;
        Ok(codec::owned(reply)?.map(drop))
    }

    async fn drop_work(
        &self,
        call: CallId,
        fence: Fence<'_>,
    ) -> Result<std::result::Result<Option<State>, Gone>> {
        codec::dropped(
            self.call(&self.scripts.drop_work, call, &[fence.worker, &fence.epoch.to_string()]).await?,
        )
    }

    async fn orphaned(&self, channel: CallChannel) -> Result<Option<OrphanedStream>> {
        let args = [&*channel.number.to_string()];
        codec::orphaned(self.call(&self.scripts.orphaned, channel.call, &args).await?)
    }
}
