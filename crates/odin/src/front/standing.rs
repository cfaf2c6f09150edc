//! Streams that stand by themselves: a session's own, that of HTTP+SSE, and a call's that is taken up again.
//!
//! Who asks for one on the bifrost road is handed over like the client of a slow call; what the stream is to
//! be is kept under the ticket meanwhile, so that any backend can answer the hold request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use grip::{Channel, Hold, Item};
use identity::Road;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::access::Caller;
use super::answer::{self, count};
use super::session::Session;
use super::waiting::Waiting;
use super::{Counters, Front, hold, refuse, stream};
use crate::broker::Cast;
use crate::call::{HANG_UP, Resume, Via};
use crate::id::{CallChannel, CallId, Ticket};
use crate::protocol::Refusal;
use crate::protocol::sse::{self, EventId};

/// How long a close may take to overtake the hold that follows it.
const CLOSE_AHEAD: Duration = Duration::from_millis(20);

/// What a stream is to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Spec {
    /// The rest of a call's stream.
    Call {
        call: CallId,
        /// Key of the session.
        session: String,
        /// Number of the last event that the client has.
        last: u32,
    },
    /// What is published on some channels.
    Channels {
        channels: Vec<String>,
        /// What the stream begins with.
        content: String,
    },
}

/// A stream on its way to Pushpin.
#[derive(Serialize, Deserialize)]
struct Parked {
    /// SHA-256 of the request's assertion: the hold request must carry the same.
    assertion: String,
    spec: Spec,
}

/// The channel of a session's own stream.
pub(super) fn session_channel(key: &str) -> String {
    format!("s-{key}")
}

/// GET in a session: its own stream, or one that is taken up again.
pub(super) async fn get(
    front: &Arc<Front>,
    caller: Caller,
    session: &Session,
    last_event_id: Option<&str>,
) -> Response {
    let own = CallId::from_parts(0, session.info.random);
    match last_event_id.map(str::parse::<EventId>) {
        Some(Ok(EventId { call, number })) if call != own => {
            resume(front, &caller, Spec::Call { call, session: session.info.key(), last: number }).await
        }
        Some(Err(_)) => refuse(front, unknown_event()),
        None | Some(Ok(_)) => {
            let channel = session_channel(&session.info.key());
            end(front, &channel).await;
            let content = stream::prime(session.info.revision, own).unwrap_or_default();
            open(front, &caller, Spec::Channels { channels: vec![channel], content }).await
        }
    }
}

/// Ends the stream on a channel: a session has one at a time, so that a message goes to one alone.
pub(super) async fn end(front: &Front, channel: &str) {
    if let Some(publisher) = &front.publisher {
        publisher.broadcast(&[Item::close(channel)]).await;
        tokio::time::sleep(CLOSE_AHEAD).await;
    }
    // A failure leaves a stream that its client has given up.
    let _ = front.broker.cast(channel, HANG_UP.into()).await;
}

/// Opens a stream in the way that the caller's road has.
pub(super) async fn open(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    if answer::via(front, caller.road, 0) == Via::Backend || !front.can_hold() {
        return by_itself(front, caller, spec).await;
    }
    front.holds.count();
    Counters::count(&front.counters.held);
    if caller.road == Road::Hermod {
        return held(front, spec).await.unwrap_or_else(|| refuse(front, silent()));
    }
    let parked = Parked { assertion: caller.assertion.clone(), spec };
    let ticket = Ticket::random(front.broker.shard(None));
    let Ok(text) = serde_json::to_string(&parked) else { return refuse(front, silent()) };
    match front.broker.park(ticket, &text).await {
        Ok(()) => hold::handover_response(front.config.handover, ticket),
        Err(_) => refuse(front, silent()),
    }
}

/// The answer to the hold request of a parked stream; none when the ticket opens nothing.
pub(super) async fn unpark(front: &Arc<Front>, ticket: Ticket, assertion: &str) -> Option<Response> {
    let text = front.broker.parked(ticket).await.ok().flatten()?;
    let parked: Parked = serde_json::from_str(&text).ok()?;
    if parked.assertion != assertion {
        return None;
    }
    held(front, parked.spec).await
}

/// The answer that makes Pushpin hold the stream. None when the broker does not answer.
async fn held(front: &Arc<Front>, spec: Spec) -> Option<Response> {
    match spec {
        Spec::Call { call, session, last } => {
            Some(match front.broker.resume(call, &session, last, None).await.ok()? {
                Resume::Held { events, channel } => {
                    let channel = CallChannel { call, number: channel };
                    hold::instruct(Hold::stream(channel.to_string()), stream::replay(call, last, &events))
                }
                Resume::Replay { events } => stream::events(stream::replay(call, last, &events)),
                Resume::Unknown | Resume::Joined => refuse(front, unknown_event()),
            })
        }
        Spec::Channels { channels, content } => {
            let mut channels = channels.into_iter().map(Channel::new);
            let hold = Hold::stream(channels.next()?);
            Some(hold::instruct(channels.fold(hold, Hold::channel), content))
        }
    }
}

/// Takes a call's stream up again. What is missing is replayed at once if the call has ended.
async fn resume(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    let Spec::Call { call, session, last } = &spec else { return refuse(front, silent()) };
    if answer::via(front, caller.road, 0) == Via::Backend || !front.can_hold() {
        return by_itself(front, caller, spec).await;
    }
    match front.broker.resume(*call, session, *last, None).await {
        Ok(Resume::Replay { events }) => stream::events(stream::replay(*call, *last, &events)),
        Ok(Resume::Held { .. } | Resume::Joined) => open(front, caller, spec).await,
        Ok(Resume::Unknown) => refuse(front, unknown_event()),
        Err(_) => refuse(front, silent()),
    }
}

/// Streams from this process.
async fn by_itself(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    let counted = match count(front, &caller.principal) {
        Ok(counted) => counted,
        Err(refusal) => return refuse(front, refusal),
    };
    match spec {
        Spec::Call { call, session, last } => {
            let mut waiting = Waiting::register(front, call, counted);
            let at = Some((front.config.node.as_str(), waiting.request));
            let reply = front.broker.resume(call, &session, last, at).await;
            if matches!(reply, Ok(Resume::Joined)) {
                return stream::resumed(front, waiting, last);
            }
            waiting.settle();
            match reply {
                Ok(Resume::Replay { events }) => stream::events(stream::replay(call, last, &events)),
                Ok(_) => refuse(front, unknown_event()),
                Err(_) => refuse(front, silent()),
            }
        }
        Spec::Channels { channels, content } => {
            // Counts for the caller as long as it stands.
            let counted = Waiting::register(front, CallId::from_parts(0, [0; 16]), counted).uncalled();
            match front.broker.follow(&channels).await {
                Ok(messages) => {
                    Counters::count(&front.counters.streamed);
                    Following { messages, first: Some(content), _counted: counted }.into_response()
                }
                Err(_) => refuse(front, silent()),
            }
        }
    }
}

/// A stream of what is cast.
struct Following {
    messages: mpsc::Receiver<Cast>,
    first: Option<String>,
    _counted: Waiting,
}

impl Following {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(first.into());
        }
        match tokio::time::timeout(hold::KEEP_ALIVE, self.messages.recv()).await {
            Ok(Some((_, message))) if &*message == HANG_UP => None,
            Ok(Some((_, message))) => Some(format!("data: {message}\n\n").into()),
            Ok(None) => None,
            Err(_) => Some(Bytes::from_static(sse::KEEP_ALIVE)),
        }
    }

    fn into_response(self) -> Response {
        let chunks = futures::stream::unfold(self, |mut following| async move {
            let chunk = following.next().await?;
            Some((Ok::<_, Infallible>(chunk), following))
        });
        stream::events(Body::from_stream(chunks))
    }
}

/// No event of this session's: made up, forgotten, another's.
fn unknown_event() -> Refusal {
    Refusal::invalid(
        "Last-Event-ID names no event that can be resumed from. Ask again, or open a stream without it.",
    )
}

fn silent() -> Refusal {
    Refusal::unavailable("The server's memory does not answer. Try again.", 2)
}
