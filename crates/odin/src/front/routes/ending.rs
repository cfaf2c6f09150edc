//! How streams of the backend's own end when the backend stops: at a clear place, and so that their clients know
//! what to do next.

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::broadcast;
use crate::front::{error::Error, state::Front};
use crate::protocol::{Id, Incoming, Message, Route, sse};

/// Milliseconds that a session's client is to wait before it takes its stream up on another node.
const RETRY: &str = "retry: 500\n\n";

/// When and how the stream that answers a request ends.
pub(crate) struct Ending {
    /// It stands by itself, so it ends as soon as the backend begins to stop.
    long_lived: bool,
    last: String,
}

impl Ending {
    /// For the stream of HTTP+SSE, which can't be resumed: its client connects anew.
    pub(crate) fn of_http_sse() -> Self {
        Self { long_lived: true, last: String::new() }
    }

    pub(crate) fn of(incoming: &Incoming<'_>) -> Self {
        match incoming {
            Incoming::Stateless { revision, message: Message::Request(request) } => {
                match Route::of(*revision, &request.method) {
                    Route::Listen => {
                        Self { long_lived: true, last: broadcast::complete(request.id.as_json()) }
                    }
                    _ => Self { long_lived: false, last: cancelled(request.id) },
                }
            }
            // A session's client resumes the stream; the call goes on meanwhile.
            Incoming::Listen { .. } => Self { long_lived: true, last: RETRY.to_owned() },
            _ => Self { long_lived: false, last: RETRY.to_owned() },
        }
    }

    /// The response, whose stream (if it is one) ends with the backend.
    pub(crate) fn apply(self, front: &Front, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        let end = if self.long_lived { front.stopping.clone() } else { front.ended.clone() };
        response.map(|body| until(body, end, self.last.into()))
    }
}

/// The last event of a stateless call's stream whose backend stops: with its connection the call is cancelled.
fn cancelled(id: Id<'_>) -> String {
    let body = Error::Stopping.for_id(id).body();
    sse::message(String::from_utf8_lossy(&body))
}

/// The body until the token is cancelled, then the last words.
fn until(body: Body, end: CancellationToken, last: Bytes) -> Body {
    let state = Some((body.into_data_stream(), end, last));
    Body::from_stream(stream::unfold(state, |state| async move {
        let (mut chunks, end, last) = state?;
        tokio::select! {
            biased;
            () = end.cancelled() => (!last.is_empty()).then_some((Ok(last), None)),
            chunk = chunks.next() => chunk.map(|chunk| (chunk, Some((chunks, end, last)))),
        }
    }))
}
