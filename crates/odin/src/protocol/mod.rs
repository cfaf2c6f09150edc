//! The rules of MCP over HTTP, as pure code: no sockets, no clock, no panics.
//!
//! The front end asks [`classify`] what a request is. All that is wrong with it by the rules of the transport
//! comes back as a [`Refusal`], which is the finished HTTP answer. What is right comes back as an
//! [`Incoming`]: the era, the message with its id and its bytes as they were sent, and the few members that
//! decide where it goes.
//!
//! ```
//! use http::{HeaderMap, HeaderValue, Method, StatusCode};
//! use odin::protocol::{self, Incoming, Limits, Message, Route};
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("content-type", HeaderValue::from_static("application/json"));
//! headers.insert("accept", HeaderValue::from_static("application/json, text/event-stream"));
//! headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
//! headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
//! headers.insert("mcp-name", HeaderValue::from_static("report"));
//! let body = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"report","_meta":{
//!     "io.modelcontextprotocol/protocolVersion":"2026-07-28",
//!     "io.modelcontextprotocol/clientCapabilities":{}}}}"#;
//! let response = match protocol::classify(&Method::POST, &headers, body, &Limits::default()) {
//!     Err(refusal) => refusal.into_response(),
//!     Ok(Incoming::Stateless { revision, message: Message::Request(request) }) => {
//!         assert_eq!(Route::of(revision, &request.method), Route::Worker);
//!         let answer = br#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"Method not found"}}"#;
//!         let status = protocol::answer_status(revision, answer);
//!         protocol::json_response(status, answer.to_vec().into())
//!     }
//!     Ok(_) => protocol::accepted(),
//! };
//! assert_eq!(response.status(), StatusCode::NOT_FOUND);
//! ```
//!
//! # Eras
//! | what the client sends | era |
//! |---|---|
//! | `_meta` with `io.modelcontextprotocol/protocolVersion`, or `MCP-Protocol-Version` 2026-07-28 | modern |
//! | `initialize` without that `_meta` key, whatever the header says | session: begins one |
//! | `server/discover` or `subscriptions/listen` with neither version nor session | modern (and refused: the header is missing) |
//! | anything else | session: `Mcp-Session-Id` is required |
//!
//! In the stateless era `Mcp-Session-Id` and `Last-Event-ID` are ignored. A version that this server does not
//! speak is refused with -32022 in either era.
//!
//! # What the front end does with each
//! - [`Incoming::Stateless`] request: [`Route::of`] says who answers (only [`Route::Worker`] and
//!   [`Route::Listen`] are left). For `tools/call`, [`param_headers`] go along with the job, and the worker,
//!   which knows the tool's schema, compares them with the arguments ([`ParamRules::check`]). `raw.to_owned()` is the job's message. When the answer goes out as one JSON document,
//!   [`answer_status`] is its status. Notification: [`accepted`].
//! - [`Incoming::Initialize`]: a worker answers. With a result (not with an error)
//!   [`session::SessionInfo::new`] and [`session::SessionKeys::mint`] make the id for the answer's
//!   `Mcp-Session-Id`; set `revision` to the one in the result, if the server chose another.
//! - [`Incoming::Stateful`], [`Incoming::Listen`], [`Incoming::End`]: [`session::SessionKeys::open`] the id, else
//!   [`Refusal::unknown_session`]; look up under [`session::SessionInfo::key`] whether the session was ended; then
//!   [`Incoming::check_session`]. For each message by kind: requests by [`Route::of`] the session's revision
//!   ([`empty_result`] for `ping`; [`Refusal::method_not_found`] for [`Route::NotInRevision`]), notifications by
//!   [`NotificationRoute::of`], replies to the call that [`Id::call`] names. A body without any request is
//!   [`accepted`].
//! - A refusal of a message whose id is known gets it with [`Refusal::for_id`]; those of [`classify`] have it.
//! - Event ids ([`sse::EventId`]) and the ids in replies name calls; they prove nothing. The call's record says
//!   whose it is.
//!
//! # Absent and `null`
//! An optional member that is `null` counts as absent. [`without_nulls`] takes such members out of a body before it is
//! read: so the worker, which gets the message's bytes, sees them absent as well.
//!
//! # One meaning
//! A body is refused when an object in it, at any depth, has two members of one name, when it is nested deeper
//! than [`Limits::depth`], or when it has a member name that serde_json keeps for itself. So the scan here and
//! the full parse in the worker read the same. The scan itself takes the few members that it needs and
//! passes over the rest; message and id are borrowed from the body ([`serde_json::value::RawValue`]).

mod era;
mod headers;
mod incoming;
pub mod jsonrpc;
mod message;
mod nulls;
pub mod origin;
mod params;
mod refusal;
mod revision;
pub mod session;
mod skim;
pub mod sse;
mod structure;
pub mod tasks;

pub use era::Era;
pub use headers::{LAST_EVENT_ID, METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, SESSION_ID, decode_value};
pub use incoming::{Incoming, accepts_events, classify, names_stateless_revision, read_posted};
pub use message::{Body, Id, LOG_LEVELS, Message, Meta, Notification, Params, Reply, Request, read_body};
pub use nulls::without_nulls;
pub use params::{ParamRules, param_headers};
pub(crate) use params::{decimal, header_map};
pub use refusal::{Refusal, accepted, answer_status, code, empty_result, error_status, json_response};
pub use revision::{NotificationRoute, Revision, Route};
pub use skim::Skim;

/// Key in `_meta` of a notification: the stream that it came on (2026-07-28, subscriptions).
pub(crate) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Bounds for what a client sends.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a body. Default 4 MiB.
    pub body_bytes: usize,
    /// Arrays and objects within one another. Default 64; over 120 has no effect, as serde_json stops there.
    pub depth: usize,
    /// Messages in a batch. Default 50.
    pub batch: usize,
    /// Bytes of a request's id, as JSON. Default 512.
    pub id_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 4 * 1024 * 1024, depth: 64, batch: 50, id_bytes: 512 }
    }
}

setters!(Limits {
    with_body_bytes => body_bytes: usize,
    with_depth => depth: usize,
    with_batch => batch: usize,
    with_id_bytes => id_bytes: usize,
});

#[cfg(test)]
mod tests;
