//! Progress of a tool's call.

use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::handler::server::common::{AsRequestContext, FromContextPart};
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;

use crate::worker::Closed;

/// Reports how far a call is; a tool takes it as an argument. Where the client did not ask for progress (its request
/// has no progress token), reports do nothing.
///
/// ```
/// use odin::{Progress, rmcp::ErrorData};
///
/// async fn count(progress: Progress) -> Result<String, ErrorData> {
///     for step in 1..=10 {
///         progress.report(step, 10).await?;
///     }
///     Ok("done".to_owned())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Progress {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
}

impl Progress {
    /// Whether the client asked for progress. Reports need no such check; what it costs to find out how far a call is
    /// may.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.token.is_some()
    }

    /// Reports that `done` of `total` is done. `done` must grow with each report (MCP, progress).
    ///
    /// # Errors
    /// [`Closed`] when the call takes nothing more: it was cancelled, or has its answer. `?` makes an error of it that a
    /// tool may end with; nobody will read it.
    pub async fn report(&self, done: impl Into<f64>, total: impl Into<f64>) -> Result<(), Closed> {
        self.send(done.into(), Some(total.into()), None).await
    }

    /// Reports in full: how much is done, of how much where that is known, and a message for people.
    ///
    /// # Errors
    /// As [`report`](Self::report).
    pub async fn send(&self, done: f64, total: Option<f64>, message: Option<String>) -> Result<(), Closed> {
        let Some(token) = self.token.clone() else { return Ok(()) };
        let mut progress = ProgressNotificationParam::new(token, done);
        (progress.total, progress.message) = (total, message);
        self.peer.notify_progress(progress).await.map_err(|_| Closed)
    }
}

impl<C: AsRequestContext> FromContextPart<C> for Progress {
    fn from_context_part(context: &mut C) -> Result<Self, ErrorData> {
        let context = context.as_request_context();
        Ok(Self { peer: context.peer.clone(), token: context.meta.get_progress_token() })
    }
}

impl From<Closed> for ErrorData {
    fn from(closed: Closed) -> Self {
        Self::internal_error(closed.to_string(), None)
    }
}
