//! The stateful eras: sessions live in their ids; what else there is lives in the store.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::HeaderValue;

use crate::broadcast::{self, LongLivedStream, Subscription};
use crate::front::{
    calls,
    calls::{Context, Outcome, notify},
    error::Error,
    http::{Caller, into_axum, no_answer, unix_seconds},
    methods::listen,
    state::Front,
    streams::{self, Spec},
};
use crate::id::CallId;
use crate::protocol::{
    self, Era, Id, Notification, NotificationRoute, Refusal, Reply, Request, Revision, Route, SESSION_ID,
    jsonrpc, session::SessionInfo, sse::EventId,
};

/// Field of a session: its lowest log level.
pub(crate) const LOG_LEVEL: &str = "log_level";
/// Field of a session: it was ended.
const ENDED: &str = "ended";
/// Field of a session of HTTP+SSE, whose id is older than its `initialize`: what that brought.
pub(crate) const INITIALIZED: &str = "initialized";

/// A session that was opened for a request.
pub(crate) struct Session {
    pub(crate) info: SessionInfo,
    /// Its `initialize` was seen.
    pub(crate) initialized: bool,
    log_level: Option<String>,
}

impl Session {
    /// Opens a session id for its caller. Ended, expired, made up, another's: all the same.
    pub(crate) async fn open(front: &Front, caller: &Caller, id: &str) -> Result<Self, Refusal> {
        let mut info = front
            .config
            .sessions
            .open(id, &caller.principal.key(), unix_seconds())
            .map_err(|_| Refusal::unknown_session())?;
        let mut fields = front.store.recall(&info.key()).await.map_err(Error::Store)?;
        if fields.contains_key(ENDED) {
            return Err(Refusal::unknown_session());
        }
        let initialized = match fields.get(INITIALIZED) {
            Some(params) => {
                info = info.initialized(params).map_err(|_| Refusal::unknown_session())?;
                true
            }
            None => info.client_info.get() != "{}",
        };
        Ok(Self { info, initialized, log_level: fields.remove(LOG_LEVEL) })
    }

    /// The context of a call in this session.
    pub(crate) fn context(&self, caller: Caller, body: usize) -> Context {
        Context {
            caller,
            era: Era::Stateful,
            revision: self.info.revision,
            session: Some((self.info.key(), self.info.initialize_params())),
            log_level: self.log_level.clone(),
            stream: None,
            key: None,
            headers: Vec::new(),
            answer_only: false,
            body,
        }
    }

    /// The notifications that the session's own stream gets.
    pub(crate) fn subscription(&self, front: &Front, caller: &Caller) -> Subscription {
        let level = self.log_level.as_deref();
        front.broadcaster.session_subscription(&caller.principal, &self.info.key(), level)
    }

    pub(crate) async fn remember(&self, front: &Front, field: &str, value: &str) -> Result<(), Refusal> {
        let live = Duration::from_secs(front.config.sessions.lifetime());
        match front.store.remember(&self.info.key(), field, value, live).await.map_err(Error::Store)? {
            true => Ok(()),
            false => Err(Error::SessionFull.into()),
        }
    }
}

/// `initialize`: the worker negotiates; its answer begins a session.
pub(crate) async fn initialize(
    front: &Arc<Front>,
    caller: Caller,
    request: &Request<'_>,
    revision: Revision,
    body: usize,
) -> Response {
    let principal = caller.principal.key();
    let info = match SessionInfo::new(rand::random(), revision, request, unix_seconds()) {
        Ok(info) => info,
        Err(refusal) => return front.refuse_in(revision, refusal.for_id(request.id)),
    };
    let context = Context {
        caller,
        era: Era::Stateful,
        revision,
        session: None,
        log_level: None,
        stream: None,
        key: None,
        headers: Vec::new(),
        answer_only: false,
        body,
    };
    match calls::outcome(front, &context, request).await {
        Outcome::Answer(out) => {
            let negotiated = negotiated(&out);
            let mut response = front.json(revision, out);
            if let Some(revision) = negotiated {
                let id = front.config.sessions.mint(&principal, &SessionInfo { revision, ..info });
                if let Ok(id) = HeaderValue::try_from(id) {
                    response.headers_mut().insert(SESSION_ID, id);
                }
            }
            response
        }
        Outcome::Cancelled => no_answer(),
        Outcome::Refused(refusal) => front.refuse_in(revision, refusal),
    }
}

/// The revision that the server chose; none when it refused.
fn negotiated(out: &str) -> Option<Revision> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Chosen {
        protocol_version: String,
    }
    let chosen: Chosen = jsonrpc::result_of(out)?;
    Revision::parse(&chosen.protocol_version).filter(|revision| !revision.is_stateless())
}

/// Whether the request subscribes to a resource, or ends a subscription; none: neither.
pub(crate) fn subscribes(revision: Revision, request: &Request<'_>) -> Option<bool> {
    match Route::of(revision, &request.method) {
        Route::Subscribe => Some(true),
        Route::Unsubscribe => Some(false),
        _ => None,
    }
}

/// Runs a request of a session and waits for its answer; no stream.
pub(crate) async fn outcome(
    front: &Arc<Front>,
    context: &Context,
    session: &Session,
    request: &Request<'_>,
) -> Outcome {
    match subscribes(session.info.revision, request) {
        Some(subscribe) => listen::resource(front, context, request, subscribe).await,
        None => calls::outcome(front, context, request).await,
    }
}

/// What needs no worker.
pub(crate) async fn at_once(
    front: &Arc<Front>,
    session: &Session,
    request: &Request<'_>,
) -> Option<Result<bytes::Bytes, Refusal>> {
    let revision = session.info.revision;
    let done = || protocol::empty_result(request.id);
    Some(match Route::of(revision, &request.method) {
        Route::Ping => Ok(done()),
        Route::SetLevel => {
            let level = match request.set_level() {
                Ok(level) => level,
                Err(refusal) => return Some(Err(refusal)),
            };
            session
                .remember(front, LOG_LEVEL, level)
                .await
                .map(|()| done())
                .map_err(|refusal| refusal.for_id(request.id))
        }
        Route::NotInRevision => Err(Refusal::method_not_found(revision, &request.method).for_id(request.id)),
        _ => return None,
    })
}

pub(crate) async fn take_notification(
    front: &Arc<Front>,
    context: &Context,
    session: &Session,
    notification: &Notification<'_>,
) -> Result<(), Refusal> {
    match NotificationRoute::of(session.info.revision, &notification.method) {
        NotificationRoute::Nothing => Ok(()),
        NotificationRoute::Cancel => match notification.params.request_id {
            Some(id) => {
                let (key, id) = (session.info.key(), id.key());
                let cancelled = front.store.cancel(&key, &id).await;
                // After the store, whose mark stops a call that is written down just now.
                front.waiters.lock().cancel(&key, &id);
                Ok(cancelled.map_err(Error::Store)?)
            }
            None => Ok(()),
        },
        NotificationRoute::Progress => {
            post(front, session, notification.params.progress_token, notification.raw.get()).await
        }
        NotificationRoute::Worker => Ok(notify(front, context, notification.raw).await?),
    }
}

/// The client's answer to a request of a running call. Its id begins with the call's.
pub(crate) async fn take_reply(
    front: &Arc<Front>,
    session: &Session,
    reply: &Reply<'_>,
) -> Result<(), Refusal> {
    post(front, session, Some(reply.id), reply.raw.get()).await
}

/// Hands a message to the call that its name begins with. What fits to no call of this session is taken and
/// dropped: a call that has just ended is no fault of the client's, and ids must not be probed.
async fn post(front: &Front, session: &Session, name: Option<Id<'_>>, message: &str) -> Result<(), Refusal> {
    let call = name.and_then(|name| name.call());
    let Some(call) = call else { return Ok(()) };
    front.store.post(call, &session.info.key(), message.into()).await.map_err(Error::Store)?;
    Ok(())
}

/// DELETE: the session ends. What still runs in it goes on to its end.
pub(crate) async fn end(front: &Arc<Front>, session: &Session) -> Response {
    let ended = session.remember(front, ENDED, "1").await;
    end_streams(front, &session.info.key()).await;
    match ended {
        Ok(()) => into_axum(protocol::json_response(http::StatusCode::OK, bytes::Bytes::from_static(b"{}"))),
        Err(refusal) => front.refuse(refusal),
    }
}

/// GET in a session: its own stream, or one that is resumed.
pub(crate) async fn get(
    front: &Arc<Front>,
    caller: Caller,
    session: &Session,
    last_event_id: Option<&str>,
) -> Response {
    let own = CallId::from_bits(session.info.random);
    match last_event_id.map(str::parse::<EventId>) {
        Some(Ok(EventId { call, number })) if call != own => {
            streams::open(front, &caller, Spec::Call { call, session: session.info.key(), last: number })
                .await
        }
        Some(Err(_)) => front.refuse(Error::UnknownEvent),
        None | Some(Ok(_)) => {
            // A session may have several: the newest of them gets what there is to say.
            let mut content = streams::prime(session.info.revision, own).unwrap_or_default();
            if last_event_id.is_some() {
                // What changed meanwhile was told to nobody: broadcasts have no event ids.
                for method in listen::changeable(front, &session.context(caller.clone(), 0)).await {
                    content.push_str(&broadcast::event(method));
                }
            }
            let stream = Box::new(LongLivedStream::new(&caller.principal, Some(&session.info.key())));
            let (channels, subscription) = (Vec::new(), session.subscription(front, &caller));
            streams::open(front, &caller, Spec::Channels { stream, channels, subscription, content }).await
        }
    }
}

/// Ends the streams of a session.
pub(crate) async fn end_streams(front: &Front, session: &str) {
    // A failure leaves a stream that its client has given up.
    let _ = front.broadcaster.end_session(session).await;
}
