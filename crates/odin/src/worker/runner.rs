//! What runs a message of a client: a [`Runner`]. The worker knows nothing of it but this trait.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::call::{
    Job, Rerun,
    task::{TaskTool, TaskView},
};

/// What a running call sends out before its answer.
#[derive(Debug)]
pub enum Emission {
    /// A JSON-RPC notification for the client.
    Notification(Box<RawValue>),
    /// A JSON-RPC request for the client (stateful era only). The client's answer comes back as
    /// [`Inbound::Response`] under the same id.
    Request {
        /// `{call}:{n}`, also the id within `message`: unique among all calls, and names the call
        /// that the answer belongs to.
        id: String,
        /// The whole request.
        message: Box<RawValue>,
    },
    /// Nothing for the client, but the end of its connection: it resumes the stream when it wants more
    /// (revision 2025-11-25 only).
    HangUp,
}

/// What the client sends to a call while it runs.
#[derive(Debug)]
pub enum Inbound {
    /// The client's JSON-RPC response or error to one of this call's own requests.
    Response(Box<RawValue>),
    /// `notifications/cancelled` for this call's request, or `notifications/progress` about one of
    /// this call's own requests.
    Notification(Box<RawValue>),
}

/// Nobody takes this call's events any more (fenced, cancelled, or the bounds of a buffer are reached).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the call takes no more events")]
pub struct Closed;

/// Where a running call sends its events.
pub trait Outbox: Send + Sync + 'static {
    /// Takes one event; the order of the calls is the order for the client. Neither blocks nor awaits:
    /// it is called from within the handler's own send.
    ///
    /// # Errors
    /// [`Closed`] ends the work: the runner drops it as if it had been aborted.
    fn emit(&self, message: Emission) -> Result<(), Closed>;
}

/// Something that is good for one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Names it among all.
    pub name: String,
    /// How long it would be taken if it were not used up.
    pub live: Duration,
}

/// Runs messages of clients.
pub trait Runner: Send + Sync + 'static {
    /// May `tools/call` of this tool be run again after its worker was lost? Decided from the tool's
    /// annotations; an unknown tool is [`Rerun::Unsafe`]. (Every other message may.)
    fn rerun(&self, tool: &str) -> Rerun;

    /// What running this message uses up, if anything: the caller sees that it is used once
    /// ([`crate::store::Sessions::use_once`]), and refuses the message otherwise. By default nothing.
    fn uses_up(&self, job: &Job) -> Option<Once> {
        let _ = job;
        None
    }

    /// Does this tool run as a task? By default none does.
    fn task_tool(&self, tool: &str) -> TaskTool {
        let _ = tool;
        TaskTool::default()
    }

    /// A task of this server has changed: whoever listens for it is to be told. By default nobody is.
    fn task_changed(&self, task: &TaskView) {
        let _ = task;
    }

    /// The server's `Implementation` as JSON text, for results that no handler writes.
    fn server_info(&self) -> Option<String> {
        None
    }

    /// Runs one message to its end.
    ///
    /// Returns the JSON-RPC answer of a request, under the client's own id; always one, also when the
    /// handler panics (error -32603). `None` for a notification, and for a request that was cancelled:
    /// by `notifications/cancelled` in `inbox`, by `abort`, or by [`Closed`] from `outbox`.
    ///
    /// `abort` drops the work at its next await point, whatever the handler does; a handler that
    /// computes without awaiting can't be interrupted. A closed `inbox` means only that nothing more
    /// comes in.
    fn run<'a>(
        &'a self,
        job: Job,
        outbox: Arc<dyn Outbox>,
        inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) -> BoxFuture<'a, Option<Box<RawValue>>>;
}
