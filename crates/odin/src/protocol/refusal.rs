//! Answers that the front end gives by itself, and the HTTP status of a worker's answer.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::jsonrpc;
use super::message::Id;
use super::revision::Revision;

/// Codes of JSON-RPC errors that this server sends (JSON-RPC 2.0 section 5.1; MCP 2026-07-28, error codes).
pub mod code {
    /// The body is no JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// The body is no JSON-RPC message, or the HTTP request around it breaks the transport's rules.
    pub const INVALID_REQUEST: i32 = -32600;
    /// The method does not exist.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters, or their required `_meta` keys, are missing or malformed.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The server could not do it.
    pub const INTERNAL_ERROR: i32 = -32603;
    /// A header is missing, malformed, or differs from the body.
    pub const HEADER_MISMATCH: i32 = -32020;
    /// The client did not declare a capability that the request needs.
    pub const MISSING_CLIENT_CAPABILITY: i32 = -32021;
    /// This server does not speak the requested revision.
    pub const UNSUPPORTED_VERSION: i32 = -32022;
}

/// A request that is answered with an error, without any worker: HTTP status, headers and a JSON-RPC error.
///
/// The message says what is wrong and what to do next. What the client sent appears in it only shortened.
/// [`Refusal::into_response`] makes the HTTP answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    code: i32,
    message: Cow<'static, str>,
    data: Option<Box<RawValue>>,
    id: Option<Box<RawValue>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl Refusal {
    /// A refusal with any status and code; the other constructors are for what occurs often.
    pub fn new(status: StatusCode, code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), data: None, id: None, headers: Vec::new() }
    }

    /// 400 and -32600: the message or the request around it breaks the rules.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message)
    }

    /// 400 and -32602: missing or malformed parameters.
    pub fn invalid_params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_PARAMS, message)
    }

    /// 400 and -32020: a header is missing, malformed, or differs from the body.
    pub fn header_mismatch(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::HEADER_MISMATCH, message)
    }

    /// 400 and -32022 with `data.supported` and `data.requested`.
    pub fn unsupported_version(requested: &str) -> Self {
        #[derive(Serialize)]
        struct Data<'a> {
            supported: [&'a str; 5],
            requested: &'a str,
        }
        let data = Data { supported: Revision::ALL.map(Revision::as_str), requested: excerpt(requested) };
        let mut refusal = Self::new(
            StatusCode::BAD_REQUEST,
            code::UNSUPPORTED_VERSION,
            format!(
                "Unsupported protocol version {:?}. Send {} with the request, or start with `initialize` to \
                 use an earlier one of those in data.supported.",
                excerpt(requested),
                Revision::V2026_07_28
            ),
        );
        refusal.data = serde_json::value::to_raw_value(&data).ok();
        refusal
    }

    /// -32601 for a method that is not in the revision. 404 in the stateless era; earlier revisions answer
    /// errors of a method as any other answer, with 200.
    pub fn method_not_found(revision: Revision, method: &str) -> Self {
        let status = if revision.is_stateless() { StatusCode::NOT_FOUND } else { StatusCode::OK };
        let message = match method {
            "initialize" => format!(
                "Method not found: revision {revision} has no `initialize`. Send requests straight away, or \
                 leave out the per-request _meta and MCP-Protocol-Version to begin a session of {} or earlier.",
                Revision::LATEST_SESSION
            ),
            method => format!("Method not found: revision {revision} has no {:?}.", excerpt(method)),
        };
        Self::new(status, code::METHOD_NOT_FOUND, message)
    }

    /// 404 for a session id that is made up, expired, ended, or another caller's: all alike, so that ids
    /// can't be probed. The client then starts a new session (transports, session management).
    pub fn unknown_session() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            code::INVALID_REQUEST,
            "Unknown session: it has ended, or never was. Send `initialize` without Mcp-Session-Id to start \
             a new one.",
        )
    }

    /// 400 for a request of a session revision that names no session.
    pub fn missing_session() -> Self {
        Self::invalid(
            "Mcp-Session-Id is missing. Send the id that the answer to `initialize` carried; or, for \
             revision 2026-07-28, MCP-Protocol-Version and the per-request _meta.",
        )
    }

    /// 413 for a body over `limit` bytes; also for the front end that stops reading there.
    pub fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            code::INVALID_REQUEST,
            format!("The body is larger than {limit} bytes, which is the limit here. Send less at once."),
        )
    }

    /// 405 with `Allow`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            code::INVALID_REQUEST,
            format!("This HTTP method is not served here. Use one of: {allow}."),
        )
        .with_header(ALLOW, HeaderValue::from_static(allow))
    }

    /// 405 with `Allow`, for a GET without a session: how a server says that there is no stream (2025-11-25, transports,
    /// listening for messages).
    pub fn no_stream_yet() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            code::INVALID_REQUEST,
            "There is no stream without a session. Send `initialize` with POST first, and then the Mcp-Session-Id of \
             its answer with GET; or, for revision 2026-07-28, use POST alone.",
        )
        .with_header(ALLOW, HeaderValue::from_static("POST"))
    }

    /// 403: Host or Origin is not one of those that this server is for.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code::INVALID_REQUEST, message)
    }

    /// 429 with `Retry-After` in seconds: this caller has too much in flight.
    pub fn too_many(message: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code::INTERNAL_ERROR, message)
            .with_header(RETRY_AFTER, HeaderValue::from(retry_after))
    }

    /// 503 with `Retry-After` in seconds: the server can't take it now.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code::INTERNAL_ERROR, message)
            .with_header(RETRY_AFTER, HeaderValue::from(retry_after))
    }

    /// Echoes the id of the request. Without it the answer has no `id`: it could not be read.
    pub fn for_id(self, id: Id<'_>) -> Self {
        self.for_raw_id(id.raw())
    }

    /// The same with the id as it was sent.
    pub fn for_raw_id(mut self, id: &RawValue) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The form that the stateful eras have for it, where one request is refused and not the HTTP exchange around it:
    /// 200, and a JSON-RPC error whose `data` has the HTTP status that it is elsewhere (`httpStatus`), and after how
    /// many seconds to try again (`retryAfter`). Clients of these eras take an HTTP error for the end of the
    /// session, and fail all their other calls with it.
    ///
    /// Unchanged are refusals of what could not be read as a request (they have no id), those that such clients act
    /// upon (401, 404 of a session, 405), and the 400s that the transport demands (headers, session, version).
    pub fn in_session(self) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Data {
            http_status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after: Option<u32>,
        }
        if self.id.is_none() || !self.is_of_one_request() {
            return self;
        }
        let data = Data { http_status: self.status.as_u16(), retry_after: self.retry_after() };
        // What was no fault in the form of the request is none of JSON-RPC's either.
        let code = if self.code == code::INVALID_REQUEST { code::INTERNAL_ERROR } else { self.code };
        let data = self.data.or_else(|| serde_json::value::to_raw_value(&data).ok());
        Self { status: StatusCode::OK, code, data, headers: Vec::new(), ..self }
    }

    /// Whether it says something of one request alone.
    fn is_of_one_request(&self) -> bool {
        match self.status {
            StatusCode::BAD_REQUEST => self.code == code::INVALID_PARAMS,
            StatusCode::FORBIDDEN
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::TOO_MANY_REQUESTS => true,
            status => status.is_server_error(),
        }
    }

    /// The `Retry-After` header, in seconds.
    fn retry_after(&self) -> Option<u32> {
        let (_, value) = self.headers.iter().find(|(name, _)| *name == RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok()
    }

    /// Adds `error.data`.
    pub fn with_data(mut self, data: Box<RawValue>) -> Self {
        self.data = Some(data);
        self
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Whether it names the request that it answers.
    pub fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON-RPC error code.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// What is wrong, and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The JSON-RPC error, as it goes over the wire.
    pub fn body(&self) -> Bytes {
        let error = ErrorObject { code: self.code, message: &self.message, data: self.data.as_deref() };
        let body = ErrorBody { jsonrpc: "2.0", id: self.id.as_deref(), error };
        // Serialization of these types can't fail; an empty body would still be a correct HTTP answer.
        serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
    }

    /// The HTTP answer.
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = json_response(self.status, self.body());
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.message, self.status.as_u16(), self.code)
    }
}

impl std::error::Error for Refusal {}

/// `{"jsonrpc":"2.0","id":ID,"result":{}}`: the answer to `ping`, `logging/setLevel`, …
pub fn empty_result(id: Id<'_>) -> Bytes {
    jsonrpc::result(id.as_json(), "{}").into()
}

/// An HTTP answer of one JSON document.
pub fn json_response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 202 without a body: notifications and responses were accepted.
pub fn accepted() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// The HTTP status for a worker's JSON-RPC answer that is sent as one JSON document: 200 in session
/// revisions; in the stateless era 404 for -32601, 400 for -32020, -32021 and -32022, else 200 (transports,
/// sending messages; error codes). A -32602 for missing `_meta` keys, which is a 400, never comes from a
/// worker: [`classify`](super::classify) refuses such requests.
///
/// Once an answer streams, its status was sent long before; this then no longer matters.
pub fn answer_status(revision: Revision, answer: &[u8]) -> StatusCode {
    if !revision.is_stateless() {
        return StatusCode::OK;
    }
    let error = std::str::from_utf8(answer).ok().and_then(jsonrpc::error_in);
    error.map_or(StatusCode::OK, |error| error_status(error.code))
}

/// The HTTP status for a JSON-RPC error code in the stateless era; see [`answer_status`].
pub fn error_status(error_code: i64) -> StatusCode {
    match i32::try_from(error_code) {
        Ok(code::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Ok(code::HEADER_MISMATCH | code::MISSING_CLIENT_CAPABILITY | code::UNSUPPORTED_VERSION) => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

/// The first 80 characters of what a client sent, for messages.
pub(super) fn excerpt(text: &str) -> &str {
    match text.char_indices().nth(80) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}
