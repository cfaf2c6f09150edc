//! What is posted in a session.

use std::sync::Arc;

use axum::response::Response;

use super::session::{at_once, subscribes, take_notification, take_reply};
use crate::front::{
    calls::Context,
    http::{Caller, into_axum},
    methods::{batch, call, listen, session::Session},
    state::Front,
};
use crate::protocol::{self, Body, Message, Refusal, Request, Revision};

/// The answer to messages whose session can't be opened.
pub(crate) fn not_opened(front: &Front, body: &Body<'_>, refusal: Refusal) -> Response {
    match body {
        Body::One(Message::Request(request)) => {
            front.refuse_in(Revision::LATEST_SESSION, refusal.for_id(request.id))
        }
        Body::Batch(messages) => {
            batch::refuse_all(front, messages, &refusal).unwrap_or_else(|| front.refuse(refusal))
        }
        Body::One(_) => front.refuse(refusal),
    }
}

/// Messages of a session.
pub(crate) async fn messages(
    front: &Arc<Front>,
    caller: Caller,
    session: &Session,
    body: &Body<'_>,
    key: Option<String>,
    size: usize,
) -> Response {
    match body {
        Body::One(Message::Request(request)) => {
            let context = Context { key, ..session.context(caller, size) };
            serve(front, context, session, request).await
        }
        Body::One(Message::Notification(notification)) => {
            match take_notification(front, &session.context(caller, size), session, notification).await {
                Ok(()) => into_axum(protocol::accepted()),
                Err(refusal) => front.refuse(refusal),
            }
        }
        Body::One(Message::Reply(reply)) => match take_reply(front, session, reply).await {
            Ok(()) => into_axum(protocol::accepted()),
            Err(refusal) => front.refuse(refusal),
        },
        Body::Batch(messages) => batch::serve(front, session.context(caller, size), session, messages).await,
    }
}

async fn serve(front: &Arc<Front>, context: Context, session: &Session, request: &Request<'_>) -> Response {
    match at_once(front, session, request).await {
        Some(Ok(body)) => into_axum(protocol::json_response(http::StatusCode::OK, body)),
        Some(Err(refusal)) => front.refuse_in(session.info.revision, refusal),
        None => match subscribes(session.info.revision, request) {
            Some(subscribe) => {
                let outcome = listen::resource(front, &context, request, subscribe).await;
                call::answered(front, session.info.revision, outcome)
            }
            None => call::answer(front, context, request).await,
        },
    }
}
