//! Batches of revision 2025-03-26: several messages in one body, their answers in one array.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures::future::join_all;

use crate::front::{
    calls::{Context, Outcome},
    http::{into_axum, no_answer},
    methods::{session, session::Session},
    state::Front,
};
use crate::protocol::{self, Message, Refusal};

/// Serves all messages at once. With nothing among them that wants an answer it is 202.
pub(crate) async fn serve(
    front: &Arc<Front>,
    context: Context,
    session: &Session,
    messages: &[Result<Message<'_>, Refusal>],
) -> Response {
    // One key can't be for several requests.
    let context = Context { key: None, ..context };
    let answers = join_all(messages.iter().map(|message| serve_one(front, &context, session, message))).await;
    let answers: Vec<Bytes> = answers.into_iter().flatten().collect();
    if messages.iter().all(|message| matches!(message, Ok(Message::Notification(_) | Message::Reply(_)))) {
        return into_axum(protocol::accepted());
    }
    if answers.is_empty() {
        return no_answer();
    }
    array(&answers)
}

/// Refuses all requests of a batch, each under its id, with the same refusal. None when there is no request in it, or
/// the refusal is of the HTTP exchange.
pub(crate) fn refuse_all(
    front: &Front,
    messages: &[Result<Message<'_>, Refusal>],
    refusal: &Refusal,
) -> Option<Response> {
    let requests = messages.iter().filter_map(|message| match message {
        Ok(Message::Request(request)) => Some(request.id),
        _ => None,
    });
    let refusals: Vec<Refusal> = requests.map(|id| refusal.clone().for_id(id).in_session()).collect();
    if refusals.first().is_none_or(|first| first.status() == refusal.status()) {
        return None;
    }
    front.counters.refused(refusal);
    Some(array(&refusals.iter().map(Refusal::body).collect::<Vec<_>>()))
}

fn refused(front: &Front, refusal: Refusal) -> Bytes {
    front.counters.refused(&refusal);
    refusal.in_session().body()
}

fn array(answers: &[Bytes]) -> Response {
    let mut body = vec![b'['];
    for (number, answer) in answers.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(answer);
    }
    body.push(b']');
    into_axum(protocol::json_response(http::StatusCode::OK, body.into()))
}

async fn serve_one(
    front: &Arc<Front>,
    context: &Context,
    session: &Session,
    message: &Result<Message<'_>, Refusal>,
) -> Option<Bytes> {
    match message {
        Err(refusal) => Some(refused(front, refusal.clone())),
        Ok(Message::Request(request)) => match session::at_once(front, session, request).await {
            Some(Ok(body)) => Some(body),
            Some(Err(refusal)) => Some(refused(front, refusal)),
            None => match session::outcome(front, context, session, request).await {
                Outcome::Answer(out) => Some(Bytes::copy_from_slice(out.as_bytes())),
                Outcome::Cancelled => None,
                Outcome::Refused(refusal) => Some(refused(front, refusal)),
            },
        },
        Ok(Message::Notification(notification)) => {
            if let Err(refusal) = session::take_notification(front, context, session, notification).await {
                tracing::warn!(%refusal, "a notification of a batch is lost");
                drop(front.refuse(refusal));
            }
            None
        }
        Ok(Message::Reply(reply)) => {
            if let Err(refusal) = session::take_reply(front, session, reply).await {
                tracing::warn!(%refusal, "an answer in a batch is lost");
                drop(front.refuse(refusal));
            }
            None
        }
    }
}
