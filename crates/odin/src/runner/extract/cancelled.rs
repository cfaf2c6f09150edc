//! The end of a call that its client no longer wants.

use rmcp::ErrorData;
use rmcp::handler::server::common::{AsRequestContext, FromContextPart};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Resolves when the client has cancelled the call, or when the call has ended: for what a tool starts beside itself, in
/// tasks and threads. A tool takes it as an argument. The tool's own future needs none: where its call is cancelled it is
/// dropped at its next `await`.
///
/// ```
/// use odin::{Cancelled, rmcp::ErrorData};
///
/// async fn primes(cancelled: Cancelled) -> Result<String, ErrorData> {
///     let work = tokio::task::spawn_blocking(move || {
///         let is_prime = |n: &u64| (2..*n).all(|d| n % d != 0);
///         (2..2_000_u64).filter(is_prime).take_while(|_| !cancelled.is_cancelled()).count()
///     });
///     let count = work.await.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
///     Ok(format!("{count} primes"))
/// }
///
/// async fn watch(cancelled: Cancelled) {
///     tokio::spawn(async move {
///         cancelled.await;
///         // Nobody waits for it any more.
///     });
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Cancelled(CancellationToken);

impl Cancelled {
    /// Whether the call was cancelled (or has ended).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the call is cancelled (or has ended).
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// The token itself, for libraries that take one.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.0
    }
}

impl IntoFuture for Cancelled {
    type Output = ();
    type IntoFuture = WaitForCancellationFutureOwned;

    fn into_future(self) -> Self::IntoFuture {
        self.0.cancelled_owned()
    }
}

impl<C: AsRequestContext> FromContextPart<C> for Cancelled {
    fn from_context_part(context: &mut C) -> Result<Self, ErrorData> {
        Ok(Self(context.as_request_context().ct.clone()))
    }
}
