//! Answers.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::protocol::{Refusal, Revision, sse};

/// A refusal in the form of the revision's era.
pub(crate) fn in_era(revision: Revision, refusal: Refusal) -> Refusal {
    if revision.is_stateless() { refusal } else { refusal.in_session() }
}

pub(crate) fn into_axum(response: http::Response<bytes::Bytes>) -> Response {
    response.map(axum::body::Body::from)
}

/// The answer to a cancelled request: a stream that ends without a message.
pub(crate) fn no_answer() -> Response {
    let mut response = StatusCode::OK.into_response();
    sse::stream_headers(response.headers_mut());
    response
}

/// An answer that is a stream of events.
pub(crate) fn event_stream(body: impl Into<Body>) -> Response {
    let mut response = StatusCode::OK.into_response();
    sse::stream_headers(response.headers_mut());
    *response.body_mut() = body.into();
    response
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
