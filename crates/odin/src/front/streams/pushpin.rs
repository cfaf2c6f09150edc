//! Streams that Pushpin holds: the hand-over, and the hold itself.
//!
//! Who asks for a long-lived stream at the bifrost entry point is handed over like the client of a slow call; what the
//! stream is to be is kept under the ticket meanwhile, so that any backend can answer the hold request.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use grip::{Channel, Hold, KeepAlive};
use http::{HeaderName, HeaderValue, StatusCode, header};
use identity::EntryPoint;
use serde::{Deserialize, Serialize};

use super::replay::{prime, replay, replayed};
use super::spec::register;
use super::{Asked, KEEP_ALIVE, Spec, Streams};
use crate::call::Resume;
use crate::front::{
    calls::{Handle, Next, Want},
    config::Handover,
    error::{Error, Result},
    http::{Caller, event_stream, no_answer},
    state::{Counters, Front},
};
use crate::id::{CallChannel, Ticket};
use crate::protocol::{Era, Revision};
use crate::store::Held;

/// Pushpin holds the streams.
pub(super) struct Pushpin;

#[async_trait]
impl Streams for Pushpin {
    async fn answer(&self, front: &Arc<Front>, asked: Asked<'_>, mut handle: Handle) -> Response {
        let (context, revision) = (asked.context, asked.context.revision);
        let refused = |error: Error| front.refuse_in(revision, error.for_id(asked.request.id));
        match handle.next(Want::AnswerOrHold).await {
            Next::Answer(out) => asked.json(front, out),
            Next::Failed(error) => refused(error),
            Next::Cancelled if context.era == Era::Stateless => refused(Error::GivenUp),
            Next::Cancelled | Next::Events(..) => no_answer(),
            Next::Offered => {
                Counters::count(&front.counters.held);
                let ticket = handle.ticket();
                match context.caller.entry_point {
                    EntryPoint::Hermod => match front.store.hold(ticket, &context.caller.assertion).await {
                        Ok(Some(held_)) => held(&held_, revision),
                        // The call goes on, or has ended.
                        _ => refused(Error::Lost),
                    },
                    _ => handover_response(front.config.handover, ticket),
                }
            }
        }
    }

    async fn open(&self, front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
        open(front, caller, spec).await.unwrap_or_else(|error| front.refuse(error))
    }
}

async fn open(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Result<Response> {
    let is_here = caller.entry_point == EntryPoint::Hermod;
    // What is missing of a call that has ended needs no hold.
    if let Spec::Call { call, session, last } = &spec
        && !is_here
    {
        match front.store.resume(*call, session, *last, None).await? {
            Resume::Replay { events } => return Ok(replayed(front, *call, *last, &events)),
            Resume::Held { .. } | Resume::Joined => {}
            Resume::Unknown => return Err(Error::UnknownEvent),
        }
    }
    front.holds.count();
    Counters::count(&front.counters.held);
    if is_here {
        return hold(front, spec).await;
    }
    let ticket = Ticket::random();
    let parked = Parked { assertion: caller.assertion.clone(), spec };
    let text = serde_json::to_string(&parked).map_err(|_| Error::NotStorable)?;
    front.store.park(ticket, &text).await?;
    Ok(handover_response(front.config.handover, ticket))
}

/// A stream on its way to Pushpin.
#[derive(Serialize, Deserialize)]
struct Parked {
    /// SHA-256 of the request's assertion: the hold request must carry the same.
    assertion: String,
    spec: Spec,
}

/// The answer to the hold request of a parked stream; none when the ticket opens nothing.
pub(crate) async fn unpark(front: &Arc<Front>, ticket: Ticket, assertion: &str) -> Option<Response> {
    let text = front.store.parked(ticket).await.ok().flatten()?;
    let parked: Parked = serde_json::from_str(&text).ok()?;
    if parked.assertion != assertion {
        return None;
    }
    match hold(front, parked.spec).await {
        Ok(response) => Some(response),
        Err(Error::Store(_)) => None,
        Err(error) => Some(front.refuse(error)),
    }
}

/// The answer that makes Pushpin hold a stream of these.
async fn hold(front: &Arc<Front>, spec: Spec) -> Result<Response> {
    match spec {
        Spec::Call { call, session, last } => match front.store.resume(call, &session, last, None).await? {
            Resume::Held { events, channel } => {
                let channel = CallChannel { call, number: channel };
                Ok(instruct(Hold::stream(channel.to_string()), replay(call, last, &events)))
            }
            Resume::Replay { events } => Ok(replayed(front, call, last, &events)),
            Resume::Unknown | Resume::Joined => Err(Error::UnknownEvent),
        },
        Spec::Channels { stream, channels, subscription, content } => {
            let stream = register(front, stream.named(false)).await?;
            tokio::spawn(front.broadcaster.clone().settle(stream.clone()));
            let subscription = subscription.of(&stream);
            let mut channels = channels.into_iter().map(Channel::new).chain(subscription.channels());
            let Some(first) = channels.next() else { return Err(Error::UnknownEvent) };
            let hold = channels.fold(Hold::stream(first), Hold::channel);
            let hold = subscription.meta().fold(hold, |hold, (key, value)| hold.meta(key, value));
            Ok(instruct(hold, content))
        }
    }
}

/// The answer that makes Pushpin hold the stream of a call. No event of the call is in it: what went through a
/// backend could die with it.
pub(crate) fn held(held: &Held, revision: Revision) -> Response {
    let prime = held.session.as_ref().and_then(|_| prime(revision, held.channel.call));
    instruct(Hold::stream(held.channel.to_string()), prime.unwrap_or_default())
}

/// The answer that makes Pushpin hold a stream that begins with `content`.
fn instruct(hold: Hold, content: String) -> Response {
    let hold = hold.keep_alive(KeepAlive::sse(KEEP_ALIVE));
    let Ok(instruction) = hold.headers() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = event_stream(content);
    response.headers_mut().extend(instruction);
    response
}

/// The answer that only the gateway sees: it then goes to Pushpin with the ticket. Empty, or the gateway
/// could not use the connection again.
fn handover_response(handover: Handover, ticket: Ticket) -> Response {
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
