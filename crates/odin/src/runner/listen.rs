//! `subscriptions/listen`: a worker only says what its server honours. The stream is the front end's.

use rmcp::ServerHandler;
use rmcp::model::{ServerCapabilities, SubscriptionFilter};
use serde::Serialize;

/// The result that the front end gets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Agreed {
    result_type: &'static str,
    notifications: SubscriptionFilter,
}

/// What a handler honours of a filter: what its capabilities promise, and it does not except
/// (`accepted_subscription_filter`). Its `listen` is never called: it is to notify by its
/// [`Broadcaster`](crate::broadcast::Broadcaster), which reaches streams on all nodes.
pub(super) fn agreed<H: ServerHandler>(handler: &H, requested: &SubscriptionFilter) -> Agreed {
    let capabilities: ServerCapabilities = ServerHandler::get_info(handler).capabilities;
    let supported = requested.supported_by(&capabilities);
    let notifications = match handler.accepted_subscription_filter(requested) {
        Some(accepted) => supported.intersection(&accepted),
        None => supported,
    };
    Agreed { result_type: "complete", notifications }
}
