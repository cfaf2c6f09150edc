//! What a worker does with a call that it runs.

use async_trait::async_trait;

use super::Result;
use crate::call::{Fence, Gone, Message, OrphanedStream, State};
use crate::id::{CallChannel, CallId};

/// Messages of the client for a running call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inbox {
    /// Number of the last of them, counted from 1 over the whole call. Shown to [`Runs::inbox`] again, it says
    /// which ones have arrived.
    pub last: u64,
    /// The messages, in the order in which they came.
    pub messages: Vec<Message>,
}

/// What a worker does with a call that it runs.
#[async_trait]
pub trait Runs: Send + Sync + 'static {
    /// Messages of the client for a running call, after number `after`: [`Inbox::last`] of those that arrived, 0 at
    /// first. They stay until then.
    async fn inbox(&self, call: CallId, fence: Fence<'_>, after: u64) -> Result<Inbox>;
    /// EMIT / APPEND.
    async fn emit(
        &self,
        call: CallId,
        fence: Fence<'_>,
        first: u32,
        events: &[Message],
    ) -> Result<std::result::Result<State, Gone>>;
    /// FINISH.
    async fn finish(
        &self,
        call: CallId,
        fence: Fence<'_>,
        out: &Message,
    ) -> Result<std::result::Result<State, Gone>>;
    /// GATE.
    async fn gate(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>>;
    /// LOST.
    async fn lost(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>>;
    /// PUBLISHED.
    async fn published(&self, call: CallId, fence: Fence<'_>) -> Result<std::result::Result<(), Gone>>;
    /// Gives the work up; the view when it may not be.
    async fn drop_work(
        &self,
        call: CallId,
        fence: Fence<'_>,
    ) -> Result<std::result::Result<Option<State>, Gone>>;
    /// What to say on a channel that is subscribed without being the one that its call is held on; none when
    /// it is.
    async fn orphaned(&self, channel: CallChannel) -> Result<Option<OrphanedStream>>;
}
