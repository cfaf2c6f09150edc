//! A request to the MCP endpoint.

use std::sync::{Arc, OnceLock};

use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use http::Method;
use identity::path::{self, EndpointKind, PathError};
use serde_json::value::RawValue;

use super::ending::Ending;
use crate::front::{
    calls::{Context, notify, retry},
    error::Error,
    http::{into_axum, read as read_body},
    methods::{call, http_sse, listen, posted, session, session::Session, tasks},
    state::Front,
};
use crate::protocol::{self, Era, Incoming, Message, NotificationRoute, Refusal, Revision, Route};

/// What is known of a request, once it has been read: how it is to be refused when the backend stops.
enum Asked {
    /// One of a revision, with its id.
    Request(Revision, Box<RawValue>),
    /// What is posted for the stream of HTTP+SSE: that tells what becomes of it, in a time of its own.
    ForStream,
}

/// Everything that is no health check and no hold.
pub(crate) async fn serve(State(front): State<Arc<Front>>, request: HttpRequest) -> Response {
    let asked = OnceLock::new();
    let stopped = async {
        front.ended.cancelled().await;
        if matches!(asked.get(), Some(Asked::ForStream)) {
            std::future::pending::<()>().await;
        }
    };
    let response = tokio::select! {
        biased;
        response = respond(&front, request, &asked) => Some(response),
        () = stopped => None,
    };
    response.unwrap_or_else(|| match asked.get() {
        Some(Asked::Request(revision, id)) => {
            front.refuse_in(*revision, Refusal::from(Error::Stopping).for_raw_id(id))
        }
        _ => front.refuse(Error::Stopping),
    })
}

async fn respond(front: &Arc<Front>, request: HttpRequest, asked: &OnceLock<Asked>) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let endpoint = match path::parse(path) {
        Ok(endpoint) => endpoint,
        Err(error) => return front.refuse(not_found(error, path)),
    };
    let caller = match front.config.access.judge(&parts.method, path, &endpoint, &parts.headers) {
        Ok(caller) => caller,
        Err(refusal) => return front.refuse(refusal),
    };
    let of_session = parts.method == Method::POST
        && (endpoint.kind != EndpointKind::Streamable || !protocol::names_stateless_revision(&parts.headers));
    let body =
        match read_body(&front.bodies, &front.config.limits, &caller.principal, &parts.headers, body).await {
            Ok(body) => body,
            Err(refusal) => {
                return match &endpoint.kind {
                    EndpointKind::Messages { session } if refusal.has_id() => {
                        http_sse::refuse_unread(front, &caller, session, refusal).await
                    }
                    _ if of_session => front.refuse_in(Revision::LATEST_SESSION, refusal),
                    _ => front.refuse(refusal),
                };
            }
        };
    let size = body.len();
    let body = protocol::without_nulls(&body);
    match (&endpoint.kind, &parts.method) {
        (EndpointKind::Streamable, _) => {}
        (EndpointKind::Sse, &Method::GET) => {
            let response = http_sse::open(front, caller, path, &parts.headers).await;
            return Ending::of_http_sse().apply(front, response);
        }
        (EndpointKind::Messages { session }, &Method::POST) => {
            let _ = asked.set(Asked::ForStream);
            return http_sse::post(front, caller, session, &parts.headers, &body).await;
        }
        (EndpointKind::Sse, _) => return front.refuse(Refusal::method_not_allowed("GET")),
        (EndpointKind::Messages { .. }, _) => return front.refuse(Refusal::method_not_allowed("POST")),
    }
    let key = match retry::key(&parts.headers) {
        Ok(key) => key,
        Err(refusal) => return front.refuse(refusal),
    };
    let limits = &front.config.limits.request;
    let incoming = match protocol::classify(&parts.method, &parts.headers, &body, limits) {
        Ok(incoming) => incoming,
        Err(refusal) if of_session => return front.refuse_in(Revision::LATEST_SESSION, refusal),
        Err(refusal) => return front.refuse(refusal),
    };
    if let Some((revision, id)) = incoming.request() {
        let _ = asked.set(Asked::Request(revision, id.raw().to_owned()));
    }
    let ending = Ending::of(&incoming);
    let response = match &incoming {
        Incoming::Stateless { revision, message } => {
            let context = Context {
                caller,
                era: Era::Stateless,
                revision: *revision,
                session: None,
                log_level: None,
                stream: None,
                key,
                headers: protocol::param_headers(&parts.headers, message),
                answer_only: false,
                body: size,
            };
            modern(front, context, message).await
        }
        Incoming::Initialize { request, revision } => {
            session::initialize(front, caller, request, *revision, size).await
        }
        Incoming::Stateful { session: id, body: messages, .. } => {
            let session = match Session::open(front, &caller, id).await {
                Ok(session) => session,
                Err(refusal) => return posted::not_opened(front, messages, refusal),
            };
            if let Err(refusal) = incoming.check_session(session.info.revision) {
                return front.refuse(refusal);
            }
            posted::messages(front, caller, &session, messages, key, size).await
        }
        Incoming::Listen { session: id, last_event_id, .. } => {
            match Session::open(front, &caller, id).await {
                Ok(session) => session::get(front, caller, &session, *last_event_id).await,
                Err(refusal) => front.refuse(refusal),
            }
        }
        Incoming::End { session: id, .. } => match Session::open(front, &caller, id).await {
            Ok(session) => session::end(front, &session).await,
            Err(refusal) => front.refuse(refusal),
        },
    };
    ending.apply(front, response)
}

/// What is said of a path that is no endpoint: the right one, where a slash too many is all that is wrong with it.
fn not_found(error: PathError, path: &str) -> Error {
    let error = match path::without_extra_slashes(path) {
        None => error,
        Some(right) => match path::parse(&right).map(|endpoint| endpoint.kind) {
            // Sessions' addresses are their owners' alone.
            Ok(EndpointKind::Messages { .. }) => return Error::ExtraSlashInSession,
            Ok(_) => return Error::ExtraSlash(right),
            Err(error) => error,
        },
    };
    match error {
        PathError::NotAnEndpoint | PathError::Reserved => Error::NoEndpoint,
        PathError::TooLong | PathError::Ambiguous => Error::Path(error),
    }
}

async fn modern(front: &Arc<Front>, context: Context, message: &Message<'_>) -> Response {
    let revision = context.revision;
    match message {
        Message::Request(request) => match Route::of(revision, &request.method) {
            Route::Worker if let Some(method) = tasks::Method::parse(&request.method) => {
                tasks::serve(front, &context, method, request).await
            }
            Route::Worker => call::answer(front, context, request).await,
            Route::Listen => listen::serve(front, context, request).await,
            _ => front.refuse(Refusal::method_not_found(revision, &request.method).for_id(request.id)),
        },
        Message::Notification(notification) => {
            if NotificationRoute::of(revision, &notification.method) == NotificationRoute::Worker
                && let Err(refusal) = notify(front, &context, notification.raw).await
            {
                return front.refuse(refusal);
            }
            into_axum(protocol::accepted())
        }
        Message::Reply(reply) => front.refuse(
            Refusal::invalid("A server of this revision sends no requests, so it takes no responses.")
                .for_id(reply.id),
        ),
    }
}
