//! Streams that Pushpin holds: the hand-over, and the hold itself.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use grip::{Hold, KeepAlive};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::access::{only, proof};
use super::{Front, Handover, refuse, standing, stream, unix_seconds};
use crate::id::Ticket;
use crate::protocol::{PROTOCOL_VERSION, Refusal, Revision};
use crate::store::Held;

/// How often Pushpin sends a comment on a silent stream.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The hold request of a client that was handed over: it came through Pushpin, with the ticket, and with the
/// call's own assertion. What did not come from Pushpin, or brings no assertion of the gateway's, gets a 404, whatever it
/// knows. Who brings one was let in: if the ticket is good no more, since Pushpin was paused, the answer is an error that
/// says so; to a session's client a 404 would say that the session is unknown.
pub(super) async fn hold(
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
        true => refuse(&front, too_late()),
        false => unknown(),
    };
    match front.store.hold(ticket, &proof).await {
        // Clients before 2025-11-25 do not send the version with each request, and need nothing of it here.
        Ok(Some(held)) => held_response(&held, revision.unwrap_or(Revision::V2025_03_26)),
        Ok(None) => standing::unpark(&front, ticket, &proof).await.unwrap_or_else(late),
        Err(error) => {
            tracing::warn!(%error, "a stream can't be held");
            late()
        }
    }
}

/// The stream of a call can't be held: nobody waits for the ticket any more, or the store does not answer.
fn too_late() -> Refusal {
    Refusal::unavailable(
        "The answer's stream could not be opened in time; what became of the request is unknown. Check whether it \
         took effect before you ask again.",
        2,
    )
}

/// The answer that makes Pushpin hold the stream of a call. No event of the call is in it: what went through a
/// backend could die with it.
pub(super) fn held_response(held: &Held, revision: Revision) -> Response {
    let prime = held.session.as_ref().and_then(|_| stream::prime(revision, held.channel.call));
    instruct(Hold::stream(held.channel.to_string()), prime.unwrap_or_default())
}

/// The answer that makes Pushpin hold a stream that begins with `content`.
pub(super) fn instruct(hold: Hold, content: String) -> Response {
    let hold = hold.keep_alive(KeepAlive::sse(KEEP_ALIVE));
    let Ok(instruction) = hold.headers() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = stream::events(content);
    response.headers_mut().extend(instruction);
    response
}

/// The answer that only the gateway sees: it then goes to Pushpin with the ticket. Empty, or the gateway
/// could not use the connection again.
pub(super) fn handover_response(handover: Handover, ticket: Ticket) -> Response {
    let headers = match handover {
        Handover::Kong => vec![
            (HeaderName::from_static("x-accel-redirect"), "@hermod".to_owned()),
            (HeaderName::from_static("x-lease"), ticket.to_string()),
        ],
        Handover::Envoy | Handover::None => {
            vec![(header::LOCATION, format!("http://hermod/_hermod/hold/{ticket}"))]
        }
    };
    let status = if handover == Handover::Kong { StatusCode::OK } else { StatusCode::SEE_OTHER };
    let mut response = status.into_response();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}
