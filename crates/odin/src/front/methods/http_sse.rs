//! HTTP+SSE, the transport of revision 2024-11-05: one stream for all that the server says, and an address to
//! post messages to.
//!
//! The address carries the session's id, a signed token like that of the other revisions. What `initialize`
//! brings is stored with the session; the calls' messages go to the stream as their workers send them. There is
//! no resumption: a client whose stream breaks begins a new session.

use std::sync::Arc;

use axum::response::Response;
use http::HeaderMap;
use serde_json::value::RawValue;

use crate::broadcast::LongLivedStream;
use crate::call::Via;
use crate::front::{
    calls::{Context, Outcome, outcome, policy, say, say_refusal, submit, via},
    error::Error,
    http::{Caller, into_axum, unix_seconds},
    methods::{
        listen, session,
        session::{INITIALIZED, LOG_LEVEL, Session},
    },
    state::Front,
    streams,
};
use crate::protocol::{
    self, Body, Message, Refusal, Request, Revision, Route, jsonrpc, session::SessionInfo,
};

/// GET on `…/sse`: begins a session. The first event says where to post.
pub(crate) async fn open(front: &Arc<Front>, caller: Caller, path: &str, headers: &HeaderMap) -> Response {
    if let Err(refusal) = protocol::accepts_events(headers) {
        return front.refuse(refusal);
    }
    // The workers will send to Pushpin: a stream that this backend held instead would get no answer.
    if via(front, caller.entry_point, 0) == Via::Pushpin && !front.can_hold() {
        return front.refuse(if front.links_stand() { Error::HoldsSpent } else { Error::LinkDown });
    }
    let empty = || RawValue::from_string("{}".into()).unwrap_or_default();
    let info = SessionInfo {
        random: rand::random(),
        revision: Revision::V2024_11_05,
        issued_at: unix_seconds(),
        client_info: empty(),
        capabilities: empty(),
    };
    let id = front.config.sessions.mint(&caller.principal.key(), &info);
    let base = path.strip_suffix("/sse").unwrap_or(path);
    let content = format!("event: endpoint\ndata: {base}/{id}/messages\n\n");
    let channels = vec![streams::session_channel(&info.key())];
    let key = info.key();
    // The client has had no chance yet to name a level.
    let subscription = front.broadcaster.session_subscription(&caller.principal, &key, None);
    let stream = Box::new(LongLivedStream::new(&caller.principal, Some(&key)));
    streams::open(front, &caller, streams::Spec::Channels { stream, channels, subscription, content }).await
}

/// POST on `…/{session}/messages`. The answer is 202, and what is to be said, refusals of requests included, the stream
/// says: the clients of this transport read no answer to a POST, and take an HTTP error for the end of the session.
pub(crate) async fn post(
    front: &Arc<Front>,
    caller: Caller,
    id: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let read = protocol::read_posted(headers, body, &front.config.limits.request);
    if let Err(refusal) = &read
        && !refusal.has_id()
    {
        return front.refuse(refusal.clone());
    }
    let session = match open_with_stream(front, &caller, id).await {
        Ok(session) => session,
        Err(refusal) => return front.refuse(refusal),
    };
    let channel = streams::session_channel(&session.info.key());
    let messages = match read {
        Ok(Body::One(message)) => vec![Ok(message)],
        Ok(Body::Batch(messages)) => messages,
        Err(refusal) => return on_stream(front, &channel, refusal).await,
    };
    let context = Context { stream: Some(channel.clone()), ..session.context(caller, body.len()) };
    let mut response = into_axum(protocol::accepted());
    for message in &messages {
        let taken = match message {
            Err(refusal) if refusal.has_id() => {
                on_stream(front, &channel, refusal.clone()).await;
                continue;
            }
            Err(refusal) => Err(refusal.clone()),
            Ok(Message::Request(request)) => {
                if let Err(refusal) = take(front, &context, &session, request).await {
                    on_stream(front, &channel, refusal.for_id(request.id)).await;
                }
                continue;
            }
            Ok(Message::Notification(notification)) => {
                session::take_notification(front, &context, &session, notification).await
            }
            Ok(Message::Reply(reply)) => session::take_reply(front, &session, reply).await,
        };
        if let Err(refusal) = taken {
            response = front.refuse(refusal);
        }
    }
    response
}

/// Refuses a request that could not be read but for its id.
pub(crate) async fn refuse_unread(
    front: &Arc<Front>,
    caller: &Caller,
    id: &str,
    refusal: Refusal,
) -> Response {
    match open_with_stream(front, caller, id).await {
        Ok(session) => on_stream(front, &streams::session_channel(&session.info.key()), refusal).await,
        Err(refusal) => front.refuse(refusal),
    }
}

/// Opens a session whose stream stands: what can't be answered is not begun.
async fn open_with_stream(front: &Front, caller: &Caller, id: &str) -> Result<Session, Refusal> {
    let session = Session::open(front, caller, id).await?;
    match front.broadcaster.stands(&session.info.key()).await.map_err(Error::Store)? {
        true => Ok(session),
        false => Err(Error::StreamEnded.into()),
    }
}

/// Refuses a request on the stream.
async fn on_stream(front: &Front, channel: &str, refusal: Refusal) -> Response {
    front.counters.refused(&refusal);
    say_refusal(front, channel, refusal).await;
    into_axum(protocol::accepted())
}

async fn take(
    front: &Arc<Front>,
    context: &Context,
    session: &Session,
    request: &Request<'_>,
) -> Result<(), Refusal> {
    if request.method == "initialize" {
        let requested = request.params.protocol_version.as_deref().unwrap_or_default();
        let revision = Revision::negotiate(requested);
        let info = SessionInfo::new(session.info.random, revision, request, session.info.issued_at)?;
        session.remember(front, INITIALIZED, info.initialize_params().get()).await?;
        let context = Context { revision, session: None, ..context.clone() };
        return Ok(submit(front, &context, request.raw, Some(request)).await?);
    }
    match Route::of(context.revision, &request.method) {
        Route::Ping => {}
        // Also before `initialize`: a client of a later revision may ask first whether the server has that.
        Route::NotInRevision => return Err(Refusal::method_not_found(context.revision, &request.method)),
        _ if !session.initialized => {
            return Err(Error::NotInitialized.into());
        }
        Route::SetLevel => {
            session.remember(front, LOG_LEVEL, request.set_level()?).await?;
            // The same answer as that to a ping: an empty result.
            let ping = jsonrpc::request(request.id.as_json(), "ping", "{}");
            let ping = RawValue::from_string(ping).map_err(|_| Error::NotStorable)?;
            return Ok(submit(front, context, &ping, Some(request)).await?);
        }
        route @ (Route::Subscribe | Route::Unsubscribe) => {
            // The answer goes to the stream unseen. A subscription to what does not exist never has news.
            if let Some(uri) = request.params.uri.as_deref() {
                let subscribe = route == Route::Subscribe;
                listen::remember(front, context, &session.info.key(), uri, subscribe).await?;
            }
        }
        _ if policy::looks_through(&front.config.policy, &request.method) => {
            let context = Context { stream: None, ..context.clone() };
            let outcome = tokio::select! {
                biased;
                outcome = outcome(front, &context, request) => outcome,
                () = front.ended.cancelled() => Outcome::Refused(Error::Stopping.into()),
            };
            return match outcome {
                Outcome::Answer(out) => {
                    say(front, &streams::session_channel(&session.info.key()), out).await;
                    Ok(())
                }
                Outcome::Cancelled => Ok(()),
                Outcome::Refused(refusal) => Err(refusal),
            };
        }
        _ => {}
    }
    Ok(submit(front, context, request.raw, Some(request)).await?)
}
