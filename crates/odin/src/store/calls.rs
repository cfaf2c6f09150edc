//! What becomes of calls: the side of their clients.

use async_trait::async_trait;

use super::Result;
use crate::call::{Join, Message, Offer, Read, Resume, Withdraw};
use crate::id::{CallChannel, CallId, Ticket};

/// A successful hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The channel to hold on.
    pub channel: CallChannel,
    /// Session id, in the stateful eras.
    pub session: Option<String>,
}

/// What becomes of calls: the side of their clients.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// OFFER.
    async fn offer(
        &self,
        call: CallId,
        node: &str,
        request: u64,
        ticket: Ticket,
        may_hold: bool,
    ) -> Result<Offer>;
    /// WITHDRAW. Without a record, one that is still to come (an ENQ under way) is refused.
    async fn withdraw(&self, call: CallId, node: &str, request: u64) -> Result<Withdraw>;
    /// HOLD; none when the ticket opens nothing.
    async fn hold(&self, ticket: Ticket, assertion: &str) -> Result<Option<Held>>;
    /// READ.
    async fn read(&self, call: CallId, node: &str, request: u64, from: u32) -> Result<Read>;
    /// The client went away before anything was offered.
    async fn abandon(&self, call: CallId, node: &str, request: u64) -> Result<()>;
    /// RESUME; with `at`, for a backend that streams by itself.
    async fn resume(&self, call: CallId, session: &str, last: u32, at: Option<(&str, u64)>)
    -> Result<Resume>;
    /// JOIN.
    async fn join(&self, call: CallId, name: &str, node: &str, request: u64) -> Result<Join>;
    /// CANCEL of all calls of the session with this request id; one that comes later, within 10 s, is
    /// cancelled as well. Ids are used once in a session (MCP, Requests).
    async fn cancel(&self, session: &str, request_id: &str) -> Result<()>;
    /// Hands a message of the client to a running call of the same session, sent once. False when there is none.
    async fn post(&self, call: CallId, session: &str, message: Message) -> Result<bool>;
}
