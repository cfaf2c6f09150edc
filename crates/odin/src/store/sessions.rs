//! What is kept for sessions and streams, and what is good for once.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use crate::id::Ticket;

/// What is kept for sessions and streams, and what is good for once.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Keeps what a hold request will need, for a stream that is no call's, for half a minute.
    async fn park(&self, ticket: Ticket, stream: &str) -> Result<()>;
    /// What was kept under the ticket.
    async fn parked(&self, ticket: Ticket) -> Result<Option<String>>;
    /// Stores a field of a session (log level, its end) for as long as the session can live. At most
    /// [`StoreLimits::session_fields`](super::StoreLimits::session_fields) of them; more are refused with false.
    async fn remember(&self, session: &str, field: &str, value: &str, live: Duration) -> Result<bool>;
    /// The stored fields of a session.
    async fn recall(&self, session: &str) -> Result<BTreeMap<String, String>>;
    /// Uses up what is good for once, in the name of `by`, and says in whose name it was used: `by` when this
    /// command did it, now or before (it may be repeated). Remembered for a time, after which the caller takes
    /// such a thing no more.
    async fn use_once(&self, name: &str, by: &str, live: Duration) -> Result<String>;
}
