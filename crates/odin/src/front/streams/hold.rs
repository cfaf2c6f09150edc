//! Streams that Pushpin holds: the hand-over, and the hold itself.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use grip::{Hold, KeepAlive};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::front::{config::Handover, http::event_stream, streams::own};
use crate::id::Ticket;
use crate::protocol::Revision;
use crate::store::Held;

/// How often Pushpin sends a comment on a silent stream.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The answer that makes Pushpin hold the stream of a call. No event of the call is in it: what went through a
/// backend could die with it.
pub(crate) fn held_response(held: &Held, revision: Revision) -> Response {
    let prime = held.session.as_ref().and_then(|_| own::prime(revision, held.channel.call));
    instruct(Hold::stream(held.channel.to_string()), prime.unwrap_or_default())
}

/// The answer that makes Pushpin hold a stream that begins with `content`.
pub(crate) fn instruct(hold: Hold, content: String) -> Response {
    let hold = hold.keep_alive(KeepAlive::sse(KEEP_ALIVE));
    let Ok(instruction) = hold.headers() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = event_stream(content);
    response.headers_mut().extend(instruction);
    response
}

/// The answer that only the gateway sees: it then goes to Pushpin with the ticket. Empty, or the gateway
/// could not use the connection again.
pub(crate) fn handover_response(handover: Handover, ticket: Ticket) -> Response {
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
