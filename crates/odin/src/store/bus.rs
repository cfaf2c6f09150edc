//! How processes reach each other: hints, casts, and groups.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::Result;
use crate::call::Message;
use crate::id::CallId;

/// What was cast, and under which topic.
pub type Cast = (Arc<str>, Message);

/// A hint for a backend that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeHint {
    /// Look at this request's call again.
    Request(u64),
    /// Hints may have been lost: look at everything again.
    All,
}

/// A hint for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerHint {
    /// Look at this call again: its client moved, cancelled, or sent something.
    Call(CallId),
    /// Hints may have been lost: look at everything again.
    All,
}

/// How processes reach each other: hints, casts, and groups.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hints for a backend. One receiver for each backend. Bounded: hints that don't fit become
    /// [`NodeHint::All`].
    async fn node_hints(&self, node: &str) -> Result<mpsc::Receiver<NodeHint>>;
    /// Hints for a worker.
    async fn worker_hints(&self, worker: &str) -> Result<mpsc::Receiver<WorkerHint>>;
    /// Passes a message to all followers of a topic, in every process that shares this store; sent once. Nothing is kept:
    /// who does not follow at this moment never gets it.
    async fn cast(&self, topic: &str, message: Message) -> Result<()>;
    /// Follows topics of the bus, in the order of the casts. What is cast after this has returned arrives, or
    /// the receiver ends: it fell too far behind, or the store was lost for a while. Its client then has to
    /// connect again, and to ask for what it may have missed. Dropping the receiver ends it.
    async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>>;
    /// Adds a member to a group, or renews it, for a time. False when the group has `most` already.
    async fn enter(&self, group: &str, member: &str, live: Duration, most: usize) -> Result<bool>;
    /// Takes a member out of a group.
    async fn leave(&self, group: &str, member: &str) -> Result<()>;
    /// The members of a group, in no order.
    async fn members(&self, group: &str) -> Result<Vec<String>>;
}
