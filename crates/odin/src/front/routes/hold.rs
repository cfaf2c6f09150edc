//! The hold request of a client that was handed over to Pushpin.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderMap;
use http::StatusCode;

use crate::front::{
    error::Error,
    http::{only, proof, unix_seconds},
    state::Front,
    streams,
};
use crate::id::Ticket;
use crate::protocol::{PROTOCOL_VERSION, Revision};

/// The hold request of a client that was handed over: it came through Pushpin, with the ticket, and with the
/// call's own assertion. What did not come from Pushpin, or brings no assertion of the gateway's, gets a 404, whatever it
/// knows. Who brings one was let in: if the ticket is good no more, since Pushpin was paused, the answer is an error that
/// says so; to a session's client a 404 would say that the session is unknown.
pub(crate) async fn hold(
    State(front): State<Arc<Front>>,
    Path(ticket): Path<String>,
    headers: HeaderMap,
) -> Response {
    let unknown = || StatusCode::NOT_FOUND.into_response();
    let Some((issuer, key)) = &front.config.grip else { return unknown() };
    let signed = only(&headers, "grip-sig")
        .is_some_and(|sig| grip::verify_grip_sig(sig, issuer, key, unix_seconds()).is_ok());
    let Some(assertion) = only(&headers, identity::assertion::HEADER).filter(|_| signed) else {
        return unknown();
    };
    let Ok(ticket) = ticket.parse::<Ticket>() else { return unknown() };
    let revision = only(&headers, PROTOCOL_VERSION.as_str()).and_then(Revision::parse);
    let proof = proof(assertion);
    let late = || match front.config.access.is_authentic(assertion) {
        true => front.refuse(Error::HoldTooLate),
        false => unknown(),
    };
    match front.store.hold(ticket, &proof).await {
        // Clients before 2025-11-25 do not send the version with each request, and need nothing of it here.
        Ok(Some(held)) => streams::held(&held, revision.unwrap_or(Revision::V2025_03_26)),
        Ok(None) => streams::unpark(&front, ticket, &proof).await.unwrap_or_else(late),
        Err(error) => {
            tracing::warn!(%error, "a stream can't be held");
            late()
        }
    }
}
