//! Streams that stand by themselves: a session's own, that of HTTP+SSE, and a call's that is resumed.
//!
//! Who asks for one at the bifrost entry point is handed over like the client of a slow call; what the stream is to
//! be is kept under the ticket meanwhile, so that any backend can answer the hold request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use grip::{Channel, Hold};
use http::{HeaderValue, StatusCode, header};
use identity::EntryPoint;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::broadcast::{self, Kept, LongLivedStream, NotOpened, Subscription};
use crate::call::{HANG_UP, Message, Resume, Via};
use crate::front::{
    calls::{Waiting, count, via},
    http::{Caller, event_stream},
    state::{Counters, Front},
    streams::{hold, own},
};
use crate::id::{CallChannel, CallId, Ticket};
use crate::protocol::{Refusal, code, sse};
use crate::store::{self, Cast};

/// What a stream is to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Spec {
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
        /// Whose it is.
        stream: Box<LongLivedStream>,
        /// The channels of messages for this stream alone.
        channels: Vec<String>,
        /// What notifications it gets.
        subscription: Subscription,
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
pub(crate) fn session_channel(key: &str) -> String {
    format!("s-{key}")
}

/// Opens a stream in the way that the caller's entry point has.
pub(crate) async fn open(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    if via(front, caller.entry_point, 0) == Via::Backend || !front.can_hold() {
        return by_itself(front, caller, spec).await;
    }
    front.holds.count();
    Counters::count(&front.counters.held);
    if caller.entry_point == EntryPoint::Hermod {
        return held(front, spec).await.unwrap_or_else(|| front.refuse(silent()));
    }
    let parked = Parked { assertion: caller.assertion.clone(), spec };
    let ticket = Ticket::random();
    let Ok(text) = serde_json::to_string(&parked) else { return front.refuse(silent()) };
    match front.store.park(ticket, &text).await {
        Ok(()) => hold::handover_response(front.config.handover, ticket),
        Err(_) => front.refuse(silent()),
    }
}

/// The answer to the hold request of a parked stream; none when the ticket opens nothing.
pub(crate) async fn unpark(front: &Arc<Front>, ticket: Ticket, assertion: &str) -> Option<Response> {
    let text = front.store.parked(ticket).await.ok().flatten()?;
    let parked: Parked = serde_json::from_str(&text).ok()?;
    if parked.assertion != assertion {
        return None;
    }
    held(front, parked.spec).await
}

/// The answer that makes Pushpin hold the stream. None when the store does not answer.
async fn held(front: &Arc<Front>, spec: Spec) -> Option<Response> {
    match spec {
        Spec::Call { call, session, last } => {
            Some(match front.store.resume(call, &session, last, None).await.ok()? {
                Resume::Held { events, channel } => {
                    let channel = CallChannel { call, number: channel };
                    hold::instruct(Hold::stream(channel.to_string()), own::replay(call, last, &events))
                }
                Resume::Replay { events } => replayed(front, call, last, &events),
                Resume::Unknown | Resume::Joined => front.refuse(unknown_event()),
            })
        }
        Spec::Channels { stream, channels, subscription, content } => {
            let stream = match register(front, stream.named(false)).await {
                Ok(stream) => stream,
                Err(refusal) => return Some(front.refuse(refusal)),
            };
            tokio::spawn(front.broadcaster.clone().settle(stream.clone()));
            let subscription = subscription.of(&stream);
            let mut channels = channels.into_iter().map(Channel::new).chain(subscription.channels());
            let hold = Hold::stream(channels.next()?);
            let hold = channels.fold(hold, Hold::channel);
            let hold = subscription.meta().fold(hold, |hold, (key, value)| hold.meta(key, value));
            Some(hold::instruct(hold, content))
        }
    }
}

/// Enters a stream that is to be opened.
async fn register(front: &Front, stream: LongLivedStream) -> Result<LongLivedStream, Refusal> {
    let live = Duration::from_secs(front.config.sessions.lifetime());
    front.broadcaster.register(stream, live).await.map_err(|error| match error {
        NotOpened::Unavailable(_) => silent(),
        NotOpened::TooManyOfYours => {
            Refusal::too_many("You are opening too many streams at once. Wait for some to open.", 1)
        }
        NotOpened::TooMany => Refusal::unavailable("Too many streams are being opened. Try again.", 1),
    })
}

/// Resumes a call's stream. What is missing is replayed at once if the call has ended.
pub(crate) async fn resume(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    let Spec::Call { call, session, last } = &spec else { return front.refuse(silent()) };
    if via(front, caller.entry_point, 0) == Via::Backend || !front.can_hold() {
        return by_itself(front, caller, spec).await;
    }
    match front.store.resume(*call, session, *last, None).await {
        Ok(Resume::Replay { events }) => replayed(front, *call, *last, &events),
        Ok(Resume::Held { .. } | Resume::Joined) => open(front, caller, spec).await,
        Ok(Resume::Unknown) => front.refuse(unknown_event()),
        Err(_) => front.refuse(silent()),
    }
}

/// The rest of a call that is over. A client that has all of it is not given an empty stream: it would take that
/// for a broken one and come back for ever.
fn replayed(front: &Front, call: CallId, last: u32, events: &[Message]) -> Response {
    if events.is_empty() {
        return front.refuse(nothing_left());
    }
    event_stream(own::replay(call, last, events))
}

/// Streams from this process.
async fn by_itself(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    let counted = match count(front, &caller.principal) {
        Ok(counted) => counted,
        Err(refusal) => return front.refuse(refusal),
    };
    match spec {
        Spec::Call { call, session, last } => {
            let mut waiting = Waiting::register(front, call, counted);
            let at = Some((front.config.node.as_str(), waiting.request));
            let reply = front.store.resume(call, &session, last, at).await;
            if matches!(reply, Ok(Resume::Joined)) {
                return own::resumed(front, waiting, last);
            }
            waiting.settle();
            match reply {
                Ok(Resume::Replay { events }) => replayed(front, call, last, &events),
                Ok(_) => front.refuse(unknown_event()),
                Err(_) => front.refuse(silent()),
            }
        }
        Spec::Channels { stream, channels, subscription, content } => {
            // Counts for the caller as long as it stands.
            let counted = Waiting::register(front, CallId::from_bits([0; 16]), counted).uncalled();
            let stream = stream.named(true);
            // It follows before it is entered: from then on it misses nothing.
            let Ok((messages, notices)) = follow(front, channels, subscription.of(&stream)).await else {
                return front.refuse(silent());
            };
            let kept = match register(front, stream).await {
                Ok(stream) => front.broadcaster.keep(stream),
                Err(refusal) => return front.refuse(refusal),
            };
            Counters::count(&front.counters.streamed);
            let first = Some(content);
            Following { messages, notices, first, _kept: kept, _counted: counted }.into_response()
        }
    }
}

type Followed = (Option<mpsc::Receiver<Cast>>, broadcast::Following);

async fn follow(front: &Front, channels: Vec<String>, subscription: Subscription) -> store::Result<Followed> {
    let store = front.store.as_ref();
    let messages = if channels.is_empty() { None } else { Some(store.follow(&channels).await?) };
    Ok((messages, subscription.follow(store).await?))
}

/// A stream of what is cast.
struct Following {
    /// Messages for this stream alone.
    messages: Option<mpsc::Receiver<Cast>>,
    notices: broadcast::Following,
    first: Option<String>,
    _kept: Kept,
    _counted: Waiting,
}

impl Following {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(first.into());
        }
        let message = async {
            match &mut self.messages {
                Some(messages) => messages.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = message => match message {
                Some((_, message)) if &*message == HANG_UP => None,
                Some((_, message)) => Some(sse::message(&message).into()),
                None => None,
            },
            notice = self.notices.next() => notice,
            () = tokio::time::sleep(hold::KEEP_ALIVE) => Some(Bytes::from_static(sse::KEEP_ALIVE)),
        }
    }

    fn into_response(self) -> Response {
        let chunks = futures::stream::unfold(self, |mut following| async move {
            let chunk = following.next().await?;
            Some((Ok::<_, Infallible>(chunk), following))
        });
        event_stream(Body::from_stream(chunks))
    }
}

/// No event of this session's: made up, forgotten, another's.
pub(crate) fn unknown_event() -> Refusal {
    Refusal::invalid(
        "Last-Event-ID names no event that can be resumed from. Ask again, or open a stream without it.",
    )
}

/// There is no stream any more. Of all answers the one at which the released clients stop: 405 is how a server says
/// that GET brings no stream (rmcp goes on asking after any other one, 204 included); an `EventSource` stops as well.
fn nothing_left() -> Refusal {
    let why = "This stream has ended, and Last-Event-ID names its last event: nothing is left of it.";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, code::INVALID_REQUEST, why)
        .with_header(header::ALLOW, HeaderValue::from_static("POST, DELETE"))
}

fn silent() -> Refusal {
    Refusal::unavailable("The session store does not answer. Try again.", 2)
}
