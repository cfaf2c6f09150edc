//! What a request is: the choice of the era, and the rules of each.

use http::{HeaderMap, Method};
use serde_json::value::RawValue;

use super::Limits;
use super::headers::{
    HeaderFault, LAST_EVENT_ID, SESSION_ID, check_accept, check_content_type, decode_value, mirrored, only,
};
use super::message::{Body, Id, LOG_LEVELS, Message, Params, Request, is_object, read_body, text};
use super::refusal::{Refusal, excerpt};
use super::revision::{Revision, Route, has_batches, name_source};

const JSON: (&str, &str) = ("application", "json");
const EVENTS: (&str, &str) = ("text", "event-stream");

/// Methods that only the stateless era has: a request for one is modern even if it forgot all else.
const MODERN_ONLY: [&str; 2] = ["server/discover", "subscriptions/listen"];

/// A request that keeps the rules of its transport.
#[derive(Debug, Clone)]
pub enum Incoming<'a> {
    /// Stateless era, POST: one request, with a complete `_meta` and a method that [`Route::of`] does not know as
    /// of another revision, or one notification. No session.
    Stateless {
        /// The revision that the message names.
        revision: Revision,
        /// Never a [`Message::Reply`].
        message: Message<'a>,
    },
    /// Session eras, POST: `initialize`. The answer of the worker begins a session.
    Initialize {
        /// The request; `params` has `protocolVersion`, `capabilities` and `clientInfo` of the right types.
        request: Request<'a>,
        /// What [`Revision::negotiate`] makes of the version that the client asks for.
        revision: Revision,
    },
    /// Session eras, POST: one message, or a batch.
    Stateful {
        /// The session id, as sent. Nothing about it is known yet.
        session: &'a str,
        /// The version header, if sent. A session's own revision counts more (see
        /// [`check_session`](Incoming::check_session)).
        header: Option<Revision>,
        /// The message or messages. None is an `initialize`.
        body: Body<'a>,
    },
    /// Session eras, GET: the standalone stream, or with `last_event_id` one that is resumed.
    Listen {
        /// The session id, as sent.
        session: &'a str,
        /// The version header, if sent.
        header: Option<Revision>,
        /// The `Last-Event-ID` header, as sent.
        last_event_id: Option<&'a str>,
    },
    /// Session eras, DELETE: the client ends the session.
    End {
        /// The session id, as sent.
        session: &'a str,
        /// The version header, if sent.
        header: Option<Revision>,
    },
}

impl Incoming<'_> {
    /// The one request that it is, by its id, and the revision whose form its refusal has.
    pub fn request(&self) -> Option<(Revision, Id<'_>)> {
        match self {
            Self::Stateless { revision, message: Message::Request(request) }
            | Self::Initialize { request, revision } => Some((*revision, request.id)),
            Self::Stateful { body: Body::One(Message::Request(request)), .. } => {
                Some((Revision::LATEST_SESSION, request.id))
            }
            _ => None,
        }
    }

    /// What only the session's own revision can decide, once its id was opened: batches exist in 2025-03-26
    /// alone.
    ///
    /// # Errors
    /// 400 for a batch in another revision.
    pub fn check_session(&self, revision: Revision) -> Result<(), Refusal> {
        match self {
            Self::Stateful { body: Body::Batch(_), .. } if !has_batches(revision) => {
                Err(no_batches(revision))
            }
            _ => Ok(()),
        }
    }
}

fn no_batches(revision: Revision) -> Refusal {
    Refusal::invalid(format!("Revision {revision} has no batches. Send each message in a POST of its own."))
}

/// Says what a request to the MCP endpoint is.
///
/// Host and Origin, and the identity of the caller, are checked elsewhere and earlier.
///
/// # Errors
/// The finished answer; see the [module](super).
pub fn classify<'a>(
    method: &Method,
    headers: &'a HeaderMap,
    body: &'a [u8],
    limits: &Limits,
) -> Result<Incoming<'a>, Refusal> {
    match *method {
        Method::POST => post(headers, body, limits),
        Method::GET => {
            let header = session_version(headers)?;
            // Clients that look for a stream before they have a session take 405 alone for "there is none".
            if !headers.contains_key(SESSION_ID) {
                return Err(Refusal::no_stream_yet());
            }
            check_accept(headers, &[EVENTS])?;
            let session = session_id(headers)?;
            let last_event_id = match only(headers, LAST_EVENT_ID) {
                Ok(value) => value.filter(|value| !value.is_empty()),
                Err(_) => {
                    return Err(Refusal::invalid("Last-Event-ID is not an id of an event of this server."));
                }
            };
            Ok(Incoming::Listen { session, header, last_event_id })
        }
        Method::DELETE => {
            let header = session_version(headers)?;
            Ok(Incoming::End { session: session_id(headers)?, header })
        }
        _ => Err(Refusal::method_not_allowed("POST, GET, DELETE")),
    }
}

/// Reads what a client of HTTP+SSE posts (revision 2024-11-05): messages alone; the session is in the path.
///
/// # Errors
/// The finished answer.
pub fn read_posted<'a>(headers: &HeaderMap, body: &'a [u8], limits: &Limits) -> Result<Body<'a>, Refusal> {
    check_content_type(headers)?;
    read_body(body, limits)
}

/// Whether a POST is of the stateless era, as far as its headers tell: for the form of a refusal of a body that can't be
/// read.
pub fn names_stateless_revision(headers: &HeaderMap) -> bool {
    version(headers).is_ok_and(|revision| revision.is_some_and(Revision::is_stateless))
}

/// Whether the client takes a stream of events.
///
/// # Errors
/// 406 when it does not.
pub fn accepts_events(headers: &HeaderMap) -> Result<(), Refusal> {
    check_accept(headers, &[EVENTS])
}

fn post<'a>(headers: &'a HeaderMap, body: &'a [u8], limits: &Limits) -> Result<Incoming<'a>, Refusal> {
    check_content_type(headers)?;
    check_accept(headers, &[JSON, EVENTS])?;
    let body = read_body(body, limits)?;
    match body {
        Body::One(message) => match &message {
            Message::Request(request) => {
                let id = request.id;
                one(headers, message).map_err(|refusal| refusal.for_id(id))
            }
            _ => one(headers, message),
        },
        Body::Batch(messages) => {
            match version(headers)? {
                Some(revision) if !has_batches(revision) => return Err(no_batches(revision)),
                _ => {}
            }
            let begins = |message: &Message<'_>| matches!(message, Message::Request(request) if request.method == "initialize");
            if messages.iter().flatten().any(begins) {
                return Err(Refusal::invalid("`initialize` can't be part of a batch. Send it alone."));
            }
            let session = session_id(headers)?;
            Ok(Incoming::Stateful { session, header: version(headers)?, body: Body::Batch(messages) })
        }
    }
}

/// The era of one message, then the rules of that era.
fn one<'a>(headers: &'a HeaderMap, message: Message<'a>) -> Result<Incoming<'a>, Refusal> {
    let header = raw_version(headers)?;
    let (method, params) = match &message {
        Message::Request(request) => (Some(&request.method), Some(&request.params)),
        Message::Notification(notification) => (None, Some(&notification.params)),
        Message::Reply(_) => (None, None),
    };
    let own = params.and_then(|params| params.meta.protocol_version);
    let has_session = headers.contains_key(SESSION_ID);

    if let Some(own) = own {
        let revision = own_version(own, header)?;
        match revision {
            // A client of a session that repeats its revision in each message: harmless.
            Some(revision) if !revision.is_stateless() && has_session => {}
            Some(revision) if revision.is_stateless() => return modern(headers, revision, message),
            _ => {
                let own = text(own).unwrap_or_default();
                return Err(Refusal::unsupported_version(&own));
            }
        }
    }
    let header = version(headers)?;
    let method = method.map_or("", |method| method.as_ref());
    if method == "initialize" {
        return initialize(headers, header, message);
    }
    match header {
        Some(revision) if revision.is_stateless() => modern(headers, revision, message),
        None if !has_session && MODERN_ONLY.contains(&method) => Err(missing_version()),
        _ => {
            let session = session_id(headers)?;
            Ok(Incoming::Stateful { session, header, body: Body::One(message) })
        }
    }
}

/// Compares the version of `_meta` with the header's. `None`: a version that this server does not speak.
fn own_version(own: &RawValue, header: Option<&str>) -> Result<Option<Revision>, Refusal> {
    let Some(own) = text(own) else {
        return Err(Refusal::invalid_params(
            "Invalid params: _meta \"io.modelcontextprotocol/protocolVersion\" must be a string.",
        ));
    };
    match header {
        None => Err(missing_version()),
        Some(header) if header != own => Err(Refusal::header_mismatch(format!(
            "Header mismatch: MCP-Protocol-Version is {:?}, but _meta says {:?}. Send the same in both.",
            excerpt(header),
            excerpt(&own)
        ))),
        Some(_) => Ok(Revision::parse(&own)),
    }
}

fn missing_version() -> Refusal {
    Refusal::header_mismatch(
        "Header mismatch: MCP-Protocol-Version is missing. Send it with the version that _meta has.",
    )
}

/// The rules of revision 2026-07-28 for one message.
fn modern<'a>(
    headers: &'a HeaderMap,
    revision: Revision,
    message: Message<'a>,
) -> Result<Incoming<'a>, Refusal> {
    match &message {
        Message::Request(request) => {
            check_mirrors(headers, &request.method, &request.params, true)?;
            check_meta(&request.params)?;
            if Route::of(revision, &request.method) == Route::NotInRevision {
                return Err(Refusal::method_not_found(revision, &request.method));
            }
        }
        Message::Notification(notification) => {
            check_mirrors(headers, &notification.method, &notification.params, false)?;
        }
        Message::Reply(_) => {
            return Err(Refusal::invalid(format!(
                "Revision {revision} has no responses of clients. Repeat the request with inputResponses."
            )));
        }
    }
    Ok(Incoming::Stateless { revision, message })
}

/// `Mcp-Method` and `Mcp-Name` against the body.
fn check_mirrors(
    headers: &HeaderMap,
    method: &str,
    params: &Params<'_>,
    required: bool,
) -> Result<(), Refusal> {
    match mirrored(headers, "Mcp-Method")? {
        None if required => {
            return Err(Refusal::header_mismatch(format!(
                "Header mismatch: Mcp-Method is missing. Send Mcp-Method: {}.",
                excerpt(method)
            )));
        }
        Some(value) if value != method => return Err(differs("Mcp-Method", value, method)),
        _ => {}
    }
    let Some(source) = name_source(method) else { return Ok(()) };
    let header = mirrored(headers, "Mcp-Name")?;
    match (header, params.name_of(method)) {
        (None, None) => Ok(()),
        (None, Some(_)) if !required => Ok(()),
        (None, Some(_)) => Err(Refusal::header_mismatch(format!(
            "Header mismatch: Mcp-Name is missing. Send the value of params.{source} in it."
        ))),
        (Some(value), body) => {
            let decoded = decode_value(value).ok_or_else(|| {
                Refusal::header_mismatch(
                    "Header mismatch: Mcp-Name is not base64 of UTF-8 inside =?base64?…?=.",
                )
            })?;
            match body {
                Some(body) if decoded == body => Ok(()),
                Some(body) => Err(differs("Mcp-Name", &decoded, body)),
                None => Err(Refusal::header_mismatch(format!(
                    "Header mismatch: Mcp-Name was sent, but the body has no string params.{source}."
                ))),
            }
        }
    }
}

fn differs(name: &str, header: &str, body: &str) -> Refusal {
    Refusal::header_mismatch(format!(
        "Header mismatch: {name} is {:?}, but the body says {:?}. Send the same in both.",
        excerpt(header),
        excerpt(body)
    ))
}

/// The keys of `_meta` that every stateless request needs.
fn check_meta(params: &Params<'_>) -> Result<(), Refusal> {
    let meta = &params.meta;
    let mut wrong = Vec::new();
    if meta.protocol_version.is_none() {
        wrong.push("io.modelcontextprotocol/protocolVersion (a string)");
    }
    if !meta.client_capabilities.is_some_and(is_object) {
        wrong.push("io.modelcontextprotocol/clientCapabilities (an object)");
    }
    if meta.client_info.is_some_and(|info| !is_object(info)) {
        wrong.push("io.modelcontextprotocol/clientInfo (an object, may be left out)");
    }
    let known_level =
        |level: &RawValue| text(level).is_some_and(|level| LOG_LEVELS.contains(&level.as_ref()));
    if meta.log_level.is_some_and(|level| !known_level(level)) {
        wrong.push("io.modelcontextprotocol/logLevel (a log level, may be left out)");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid_params(format!(
        "Invalid params: missing or malformed in params._meta: {}.",
        wrong.join(", ")
    )))
}

fn initialize<'a>(
    headers: &'a HeaderMap,
    header: Option<Revision>,
    message: Message<'a>,
) -> Result<Incoming<'a>, Refusal> {
    let Message::Request(request) = message else {
        return Err(Refusal::invalid("`initialize` needs an id."));
    };
    // A gateway believes Mcp-Method under a modern version header, so there it has to be true.
    if header.is_some_and(Revision::is_stateless) {
        check_mirrors(headers, &request.method, &request.params, false)?;
    }
    let params = &request.params;
    let Some(requested) = &params.protocol_version else {
        return Err(Refusal::invalid_params(
            "Invalid params: `initialize` needs \"protocolVersion\", a string.",
        ));
    };
    if !params.capabilities.is_some_and(is_object) || !params.client_info.is_some_and(is_object) {
        return Err(Refusal::invalid_params(
            "Invalid params: `initialize` needs \"capabilities\" and \"clientInfo\", both objects.",
        ));
    }
    let revision = Revision::negotiate(requested);
    Ok(Incoming::Initialize { request, revision })
}

/// `MCP-Protocol-Version` as sent.
fn raw_version(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    mirrored(headers, "MCP-Protocol-Version")
}

/// `MCP-Protocol-Version`: a version that this server speaks, or none.
fn version(headers: &HeaderMap) -> Result<Option<Revision>, Refusal> {
    match raw_version(headers)? {
        None => Ok(None),
        Some(value) => match Revision::parse(value) {
            Some(revision) => Ok(Some(revision)),
            None => Err(Refusal::unsupported_version(value)),
        },
    }
}

/// The version header of a GET or DELETE, which only session revisions have.
fn session_version(headers: &HeaderMap) -> Result<Option<Revision>, Refusal> {
    match version(headers)? {
        Some(revision) if revision.is_stateless() => Err(Refusal::method_not_allowed("POST")),
        other => Ok(other),
    }
}

fn session_id(headers: &HeaderMap) -> Result<&str, Refusal> {
    match only(headers, SESSION_ID) {
        Ok(Some(session)) if !session.is_empty() => Ok(session),
        Ok(_) => Err(Refusal::missing_session()),
        Err(HeaderFault::Repeated) => {
            Err(Refusal::invalid("Mcp-Session-Id was sent more than once. Send it once."))
        }
        Err(HeaderFault::Characters) => Err(Refusal::unknown_session()),
    }
}
