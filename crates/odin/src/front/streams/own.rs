//! Streams of the backend's own, where neither gateway nor Pushpin can hold them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::following::follow;
use super::replay::{prime, replayed};
use super::spec::register;
use super::{Asked, KEEP_ALIVE, Spec, Streams};
use crate::call::{HANG_UP, Message, Resume};
use crate::events::event;
use crate::front::{
    calls::{ANSWER_ALONE, Handle, Next, Want, count},
    error::{Error, Result},
    http::{Caller, event_stream, no_answer},
    state::{Counters, Front},
};
use crate::id::CallId;
use crate::protocol::{Era, Refusal, Request, Revision, jsonrpc, sse};

/// This process holds the streams.
pub(super) struct Own;

#[async_trait]
impl Streams for Own {
    async fn answer(&self, front: &Arc<Front>, asked: Asked<'_>, mut handle: Handle) -> Response {
        let (era, revision) = (asked.context.era, asked.context.revision);
        let refused = |error: Error| front.refuse_in(revision, error.for_id(asked.request.id));
        let until = Some(Instant::now() + front.config.hold_after);
        match handle.next(Want::Events { after: 0, until }).await {
            Next::Answer(out) => asked.json(front, out),
            Next::Failed(error) => refused(error),
            Next::Cancelled if era == Era::Stateless => refused(Error::GivenUp),
            Next::Cancelled | Next::Offered => no_answer(),
            Next::Events(events, out) => {
                Counters::count(&front.counters.streamed);
                let mut streaming = Streaming::new(front.clone(), era, handle, Some(asked.request.id.raw()));
                let prime = prime(revision, streaming.handle.call);
                streaming.chunks.extend(prime.map(Bytes::from));
                streaming.take(events, out);
                streaming.into_response()
            }
        }
    }

    async fn open(&self, front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
        open(front, caller, spec).await.unwrap_or_else(|error| front.refuse(error))
    }
}

async fn open(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Result<Response> {
    let counted = count(front, &caller.principal)?;
    match spec {
        Spec::Call { call, session, last } => {
            let mut handle = Handle::register(front, call, counted);
            let reply = front.store.resume(call, &session, last, Some(handle.place())).await;
            if matches!(reply, Ok(Resume::Joined)) {
                return Ok(resumed(front, handle, last));
            }
            handle.settle();
            match reply? {
                Resume::Replay { events } => Ok(replayed(front, call, last, &events)),
                _ => Err(Error::UnknownEvent),
            }
        }
        Spec::Channels { stream, channels, subscription, content } => {
            let counted = Handle::register(front, CallId::from_bits([0; 16]), counted).uncalled();
            let stream = stream.named(true);
            let followed = follow(front, channels, subscription.of(&stream)).await?;
            let kept = front.broadcaster.keep(register(front, stream).await?);
            Counters::count(&front.counters.streamed);
            Ok(followed.into_response(content, kept, counted))
        }
    }
}

/// Waits for the answer of a call that a request repeats; its events went to the request before it.
pub(crate) async fn joined(
    front: &Arc<Front>,
    revision: Revision,
    mut handle: Handle,
    request: &Request<'_>,
) -> Response {
    let refused = |error: Error| front.refuse_in(revision, error.for_id(request.id));
    let until = Some(Instant::now() + front.config.hold_after);
    match handle.next(Want::Events { after: ANSWER_ALONE, until }).await {
        Next::Answer(out) => front.json(revision, jsonrpc::with_id(&out, request.id.as_json()).into()),
        Next::Failed(error) => refused(error),
        Next::Cancelled | Next::Offered => refused(Error::KeyCancelled),
        Next::Events(..) => {
            Counters::count(&front.counters.streamed);
            let era = if revision.is_stateless() { Era::Stateless } else { Era::Stateful };
            let streaming = Streaming::new(front.clone(), era, handle, Some(request.id.raw()));
            Streaming { taken: ANSWER_ALONE, joined: true, ..streaming }.into_response()
        }
    }
}

/// Goes on with the stream of a call after event `last`; the call knows already that this request reads it.
fn resumed(front: &Arc<Front>, handle: Handle, last: u32) -> Response {
    Counters::count(&front.counters.streamed);
    let streaming = Streaming::new(front.clone(), Era::Stateful, handle, None);
    Streaming { taken: last, behind: true, ..streaming }.into_response()
}

struct Streaming {
    front: Arc<Front>,
    era: Era,
    handle: Handle,
    chunks: VecDeque<Bytes>,
    taken: u32,
    /// Nothing was read yet of a stream that was resumed: what comes first was there before.
    behind: bool,
    /// Id of the request. None: the stream is resumed, and the client asks again by itself when it ends.
    id: Option<Box<RawValue>>,
    /// The answer is that of another request: it goes out under this one's id.
    joined: bool,
    over: bool,
}

impl Streaming {
    fn new(front: Arc<Front>, era: Era, handle: Handle, id: Option<&RawValue>) -> Self {
        Self {
            front,
            era,
            handle,
            chunks: VecDeque::new(),
            taken: 0,
            behind: false,
            id: id.map(ToOwned::to_owned),
            joined: false,
            over: false,
        }
    }

    fn take(&mut self, events: Vec<Message>, out: Option<Message>) {
        let ended = out.is_some();
        let out = match (out, &self.id) {
            (Some(out), Some(id)) if self.joined => Some(jsonrpc::with_id(&out, id.get()).into()),
            (out, _) => out,
        };
        let behind = std::mem::take(&mut self.behind);
        for message in events.into_iter().chain(out) {
            self.taken = self.taken.saturating_add(1);
            if &*message == HANG_UP {
                // That was about the stream before this one.
                if behind {
                    continue;
                }
                // Not settled: the call goes on without a client, until that resumes.
                self.over = true;
                return;
            }
            let text = event(self.handle.call, self.era, self.taken, &message);
            self.chunks.push_back(text.into());
        }
        self.over |= ended;
    }

    /// The stream's last event is an error.
    fn refuse(&mut self, error: Error) {
        let refusal = Refusal::from(error);
        self.front.counters.refused(&refusal);
        self.over = true;
        if let Some(id) = &self.id {
            let refusal = refusal.for_raw_id(id);
            let refusal = if self.era == Era::Stateless { refusal } else { refusal.in_session() };
            let body = refusal.body();
            self.chunks.push_back(sse::message(String::from_utf8_lossy(&body)).into());
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            // What was there before a resumed stream is told apart by the first look.
            let until = self.behind.then(Instant::now);
            let want = Want::Events { after: self.taken, until };
            let Ok(next) = timeout_at(Instant::now() + KEEP_ALIVE, self.handle.next(want)).await else {
                return Some(Bytes::from_static(sse::KEEP_ALIVE));
            };
            match next {
                Next::Events(events, out) => self.take(events, out),
                Next::Answer(out) => self.take(Vec::new(), Some(out)),
                Next::Failed(error) => self.refuse(error),
                Next::Cancelled if self.joined => self.refuse(Error::KeyCancelled),
                Next::Cancelled if self.era == Era::Stateless => self.refuse(Error::GivenUp),
                Next::Cancelled | Next::Offered => self.over = true,
            }
        }
    }

    fn into_response(self) -> Response {
        let chunks = futures::stream::unfold(self, |mut streaming| async move {
            let chunk = streaming.next().await?;
            Some((Ok::<_, Infallible>(chunk), streaming))
        });
        event_stream(Body::from_stream(chunks))
    }
}
