//! rmcp's message loop beside one job: it carries what handler and client send each other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use rmcp::model::{
    ClientNotification, ClientRequest, ErrorData, InitializeRequestParams, ServerConfig, ServerResult,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService, Service, serve_directly_with_ct};
use rmcp::{RoleServer, ServerHandler};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::JobTransport;

/// A running message loop of rmcp, with the peer that it serves. Ends when it is dropped.
pub(super) struct Session<H: ServerHandler> {
    pub(super) service: RunningService<RoleServer, Notified<H>>,
    pub(super) notified: CancellationToken,
    _end: DropGuard,
}

impl<H: ServerHandler> Session<H> {
    pub(super) fn open(
        handler: &Arc<H>,
        transport: JobTransport,
        client: Option<InitializeRequestParams>,
        end: CancellationToken,
    ) -> Self {
        let notified = CancellationToken::new();
        let service = Notified { handler: Arc::clone(handler), end: end.clone(), notified: notified.clone() };
        let service = serve_directly_with_ct(service, transport, client, end.child_token());
        Self { service, notified, _end: end.drop_guard() }
    }
}

/// What the loop itself handles: notifications.
pub(super) struct Notified<H> {
    handler: Arc<H>,
    end: CancellationToken,
    /// Fires when a notification was handled.
    notified: CancellationToken,
}

impl<H: ServerHandler> Service<RoleServer> for Notified<H> {
    async fn handle_request(
        &self,
        _: ClientRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        Err(ErrorData::internal_error("requests are not run by the message loop", None))
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let _done = self.notified.clone().drop_guard();
        let work = AssertUnwindSafe(async {
            Service::<RoleServer>::handle_notification(&*self.handler, notification, context).await
        });
        // rmcp runs this in a task of its own, which nobody else would end.
        tokio::select! {
            biased;
            () = self.end.cancelled() => Ok(()),
            done = work.catch_unwind() => done.unwrap_or_else(|panic| {
                tracing::error!(panic = panic_text(&*panic), "a handler panicked at a notification");
                Ok(())
            }),
        }
    }

    fn get_info(&self) -> ServerConfig {
        // Only asked for by parts of rmcp that hold for clients; the handler's own is not needed.
        ServerConfig::default()
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}
