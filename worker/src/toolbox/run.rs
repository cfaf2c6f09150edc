//! What every tool needs while it runs: its place in the journal, progress for the client, and an ear for
//! the client's cancelling.

use std::time::Duration;

use super::journal::{Event, Journal};
use odin::runner::CallContext;
use odin::{Cancelled, Progress};
use rmcp::{
    ErrorData, RoleServer,
    handler::server::{common::AsRequestContext, common::FromContextPart},
    service::RequestContext,
};

/// A running tool; a tool takes it as an argument.
pub(crate) struct Run {
    call: String,
    entry: Entry,
    progress: Progress,
    cancelled: Cancelled,
}

/// The client has cancelled, or takes nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("the call was cancelled")]
pub(crate) struct Stopped;

/// What the toolbox puts into a call's extensions for [`Run`].
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) tool: String,
    /// The argument `label`, where the caller gave one that is short enough.
    pub(crate) label: Option<String>,
    pub(crate) journal: Journal,
}

impl Entry {
    fn write(&self, call: &str, event: Event, step: Option<u64>) {
        self.journal.write(call, (&self.tool, self.label.as_deref()), event, step);
    }
}

impl Run {
    /// Reports step `step` of `total`, to the journal and (if the client asked for it) to the client.
    pub(crate) async fn step(&self, step: u64, total: u64, message: String) -> Result<(), Stopped> {
        self.entry.write(&self.call, Event::Step, Some(step));
        self.progress.send(step as f64, Some(total as f64), Some(message)).await.map_err(|_| Stopped)
    }

    /// Sleeps; wakes up at once when the client cancels. No time at all lets others have their turn; a timer would make a
    /// millisecond of it.
    pub(crate) async fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        let over = async {
            if duration.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(duration).await;
            }
        };
        tokio::select! {
            biased;
            () = self.cancelled.wait() => Err(Stopped),
            () = over => Ok(()),
        }
    }
}

impl<C: AsRequestContext> FromContextPart<C> for Run {
    fn from_context_part(context: &mut C) -> Result<Self, ErrorData> {
        let (progress, cancelled) =
            (Progress::from_context_part(context)?, Cancelled::from_context_part(context)?);
        let context = context.as_request_context();
        let entry = context.extensions.get::<Entry>().cloned();
        let entry = entry
            .ok_or_else(|| ErrorData::internal_error("the tool was called without its toolbox", None))?;
        Ok(Self { call: call_id(context), entry, progress, cancelled })
    }
}

/// The id of the call; empty outside the worker runtime.
pub(crate) fn call_id(context: &RequestContext<RoleServer>) -> String {
    context.extensions.get::<CallContext>().map(|call| call.id.clone()).unwrap_or_default()
}

/// Writes a tool's start, and at its drop its end.
pub(crate) struct Entered {
    call: String,
    entry: Entry,
    ended: bool,
}

impl Entered {
    pub(crate) fn start(call: String, entry: Entry) -> Self {
        entry.write(&call, Event::Start, None);
        Self { call, entry, ended: false }
    }

    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let event = if self.ended { Event::End } else { Event::Dropped };
        self.entry.write(&self.call, event, None);
    }
}
