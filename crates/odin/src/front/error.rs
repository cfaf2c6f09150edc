//! Why the front end does not do what a request asks for, and what its client is told of that.
//!
//! What is wrong with a message by the protocol's own rules, `protocol` refuses by itself.

use std::error::Error as _;

use http::header::{ALLOW, CONNECTION};
use http::{HeaderValue, StatusCode};

use crate::call::Whose;
use crate::protocol::{Id, Refusal, code};
use crate::store::Unavailable;

/// Result of a step of a request.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a request is refused. The text is the client's.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    // Who asks, and for what.
    #[error("This server answers only to its gateway. Send the request there, with a bearer token.")]
    Unauthenticated,
    #[error("The policy of this site does not let you do this. Ask its administrator.")]
    Forbidden,
    #[error("There is no such endpoint. MCP is at /api/v1/mcp/{{organisation}}.")]
    NoEndpoint,
    #[error("There is a slash too many in the path: use {0}.")]
    ExtraSlash(String),
    #[error("{0}.")]
    Path(identity::path::PathError),

    // Bodies.
    #[error("The body ended before it was whole.")]
    BodyCut,
    #[error("The body took longer than {0} s to arrive. Send the request again, faster.")]
    BodyTooSlow(f32),
    #[error("Nothing of the body has come for {0} s. Send the request again, faster.")]
    BodyPaused(f32),
    #[error("{} too many requests under way. Wait for some to be answered.", has(.0))]
    TooManyRequests(Whose),
    #[error("{} too many bytes under way. Wait for some to be answered.", has(.0))]
    TooManyBytes(Whose),
    #[error("The server has too many bytes of requests under way. Try again in a few seconds.")]
    BodiesFull,

    // The store.
    /// Nothing was changed, or what was may be repeated.
    #[error("The session store does not answer. Try again.")]
    Store(#[from] Unavailable),

    // Calls before they begin.
    #[error("{} too many requests that wait at this node. Wait for some to end.", has(.0))]
    TooManyWaiting(Whose),
    #[error(
        "{} too many calls that are queued, running or not yet delivered. Wait for some to end.",
        has(.0)
    )]
    TooManyOpen(Whose),
    #[error("The queue is full. Try again in a few seconds.")]
    QueueFull,
    #[error("The session store does not answer; the call was not begun. Try again in a few seconds.")]
    NotBegun(#[source] Option<Unavailable>),
    /// It waited too long for a worker, and was withdrawn.
    #[error(
        "No worker took the call in time, and it will not run. Try again; if it stays so, see whether workers run."
    )]
    NotTaken,
    #[error("The message can't be stored.")]
    NotStorable,

    // Calls of which nobody can say what became.
    /// The store did not answer in the middle of the call.
    #[error(
        "The session store does not answer, so what became of the call is unknown. Check whether it took effect \
         before you ask again."
    )]
    OutcomeUnknown(#[source] Option<Unavailable>),
    /// The record is gone.
    #[error(
        "The call was lost, and its outcome is unknown. Check whether it took effect before you ask again."
    )]
    Lost,
    /// The call was cancelled although its client is there: this node was silent for so long that the client was
    /// taken for gone. In the stateless era a client cancels by going away, and in no other way.
    #[error(
        "The call was given up, as the server that waited for it was paused for too long; its outcome is unknown. \
         Check whether it took effect before you ask again."
    )]
    GivenUp,
    #[error("The server stops before the call has ended. Check whether it took effect before you ask again.")]
    Stopping,
    /// Nobody waits for the ticket any more, or the store does not answer.
    #[error(
        "The answer's stream could not be opened in time; what became of the request is unknown. Check whether it \
         took effect before you ask again."
    )]
    HoldTooLate,

    // Repeated requests.
    #[error("Idempotency-Key must be sent once, as 1 to {0} visible ASCII characters.")]
    InvalidKey(usize),
    #[error(
        "Invalid params: this Idempotency-Key was used with other parameters. Use a new key for a new request."
    )]
    KeyReused,
    #[error("The call with this Idempotency-Key was cancelled. Use a new key to run it again.")]
    KeyCancelled,
    #[error("The call has just expired. Ask again.")]
    KeyExpired,

    // Sessions, and streams that are no call's.
    #[error("The session keeps too much.")]
    SessionFull,
    #[error("Send `initialize` first: this session has not begun.")]
    NotInitialized,
    #[error("The session, or the resource, has too many subscriptions. End some.")]
    TooManySubscriptions,
    #[error("There is a slash too many in the path: use that of the stream's first event.")]
    ExtraSlashInSession,
    #[error(
        "The stream of this session has ended, and nothing was done. Begin a new session with GET on the address \
         that ends in /sse."
    )]
    StreamEnded,
    #[error("You are opening too many streams at once. Wait for some to open.")]
    TooManyOpening,
    #[error("Too many streams are being opened. Try again.")]
    StreamsFull,
    #[error("The link to Pushpin, which holds the streams of HTTP+SSE, is down. Try again in a few seconds.")]
    LinkDown,
    #[error("Pushpin, which holds the streams of HTTP+SSE, takes no more in this second. Try again.")]
    HoldsSpent,
    /// Made up, forgotten, another's.
    #[error("Last-Event-ID names no event that can be resumed from. Ask again, or open a stream without it.")]
    UnknownEvent,
    /// There is no stream any more. 405 is the one answer at which the released clients stop: it is how a server says
    /// that GET brings no stream (rmcp goes on asking after any other one, 204 included); an `EventSource` stops as
    /// well.
    #[error("This stream has ended, and Last-Event-ID names its last event: nothing is left of it.")]
    NothingLeft,

    // Tasks.
    #[error("Unknown task: it has expired, or never was. Call the tool again to begin a new one.")]
    UnknownTask,
}

fn has(whose: &Whose) -> &'static str {
    match whose {
        Whose::Principal => "You have",
        Whose::Organisation => "Your organisation has",
    }
}

/// The form of an answer.
enum Kind {
    /// HTTP status, and code of the JSON-RPC error.
    Status(StatusCode, i32),
    /// 429: this caller has too much; after how many seconds to try again.
    TooMany(u32),
    /// 503: the server can't now; after how many seconds to try again.
    Unavailable(u32),
}

impl Error {
    /// The one place that says how each error is answered.
    fn kind(&self) -> Kind {
        let invalid = |status| Kind::Status(status, code::INVALID_REQUEST);
        match self {
            Self::Unauthenticated => invalid(StatusCode::UNAUTHORIZED),
            Self::Forbidden => invalid(StatusCode::FORBIDDEN),
            Self::NoEndpoint | Self::ExtraSlash(_) | Self::ExtraSlashInSession | Self::StreamEnded => {
                invalid(StatusCode::NOT_FOUND)
            }
            Self::Path(_)
            | Self::BodyCut
            | Self::NotStorable
            | Self::InvalidKey(_)
            | Self::NotInitialized
            | Self::UnknownEvent => invalid(StatusCode::BAD_REQUEST),
            Self::BodyTooSlow(_) | Self::BodyPaused(_) => invalid(StatusCode::REQUEST_TIMEOUT),
            Self::KeyCancelled => invalid(StatusCode::CONFLICT),
            Self::KeyReused => Kind::Status(StatusCode::UNPROCESSABLE_ENTITY, code::INVALID_PARAMS),
            Self::NothingLeft => invalid(StatusCode::METHOD_NOT_ALLOWED),
            // An error of the method, as every answer of one.
            Self::UnknownTask => Kind::Status(StatusCode::OK, code::INVALID_PARAMS),
            Self::TooManyRequests(_)
            | Self::TooManyBytes(_)
            | Self::TooManyWaiting(_)
            | Self::TooManyOpen(_)
            | Self::SessionFull
            | Self::TooManyOpening => Kind::TooMany(1),
            Self::TooManySubscriptions => Kind::TooMany(60),
            Self::Lost | Self::GivenUp | Self::Stopping | Self::KeyExpired | Self::StreamsFull => {
                Kind::Unavailable(1)
            }
            Self::BodiesFull
            | Self::Store(_)
            | Self::NotBegun(_)
            | Self::OutcomeUnknown(_)
            | Self::HoldTooLate
            | Self::LinkDown
            | Self::HoldsSpent => Kind::Unavailable(2),
            Self::QueueFull | Self::NotTaken => Kind::Unavailable(5),
        }
    }

    /// The answer to a request.
    pub(crate) fn for_id(self, id: Id<'_>) -> Refusal {
        Refusal::from(self).for_id(id)
    }
}

impl From<Error> for Refusal {
    /// The answer. Its cause is for the log.
    fn from(error: Error) -> Self {
        if let Some(source) = error.source() {
            tracing::warn!(error = %source, "a request is refused");
        }
        let message = error.to_string();
        let refusal = match error.kind() {
            Kind::Status(status, code) => Self::new(status, code, message),
            Kind::TooMany(seconds) => Self::too_many(message, seconds),
            Kind::Unavailable(seconds) => Self::unavailable(message, seconds),
        };
        match error {
            Error::BodyTooSlow(_) | Error::BodyPaused(_) => {
                refusal.with_header(CONNECTION, HeaderValue::from_static("close"))
            }
            Error::NothingLeft => refusal.with_header(ALLOW, HeaderValue::from_static("POST, DELETE")),
            _ => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_words_of_its_error_and_says_when_to_ask_again() {
        let silent = || Unavailable("gone".into());
        for (error, status, retry, word) in [
            (Error::Unauthenticated, 401, None, "bearer token"),
            (Error::NoEndpoint, 404, None, "/api/v1/mcp/{organisation}."),
            (Error::TooManyOpen(Whose::Organisation), 429, Some("1"), "Your organisation has too many calls"),
            (Error::TooManyWaiting(Whose::Principal), 429, Some("1"), "You have too many requests"),
            (Error::Store(silent()), 503, Some("2"), "does not answer"),
            (Error::NotTaken, 503, Some("5"), "No worker"),
            (Error::KeyReused, 422, None, "Idempotency-Key"),
            (Error::UnknownTask, 200, None, "Unknown task"),
        ] {
            let refusal = Refusal::from(error);
            let response = refusal.clone().into_response();
            let header = response.headers().get("retry-after").map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), header), (status, retry), "{refusal}");
            assert!(refusal.message().contains(word), "{refusal}");
        }
        assert!(Error::Store(silent()).source().is_some(), "the cause is kept for the log");
        let closed = Refusal::from(Error::BodyCut).into_response();
        assert!(closed.headers().get(CONNECTION).is_none());
        let closed = Refusal::from(Error::BodyPaused(1.0)).into_response();
        assert_eq!(closed.headers()[CONNECTION], "close");
        assert_eq!(Refusal::from(Error::NothingLeft).into_response().headers()[ALLOW], "POST, DELETE");
    }
}
