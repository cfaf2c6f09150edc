//! Streams of the backend's own, where neither gateway nor Pushpin can hold them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::call::{HANG_UP, Message, Read};
use crate::events::event;
use crate::front::{
    calls::{AGAIN, Look, Waiting, refusals::given_up, retry},
    http::{event_stream, no_answer},
    state::{Counters, Front, Names},
    streams::hold,
};
use crate::id::CallId;
use crate::protocol::{Era, Refusal, Request, Revision, jsonrpc, sse};

/// Milliseconds that a client is to wait before it resumes a broken stream.
const RETRY: u32 = 500;
/// A number beyond all events: what is read from there on is the answer alone.
const ANSWER_ALONE: u32 = u32::MAX;

/// Waits for the answer alone for a while, then streams.
pub(crate) async fn answer(
    front: &Arc<Front>,
    era: Era,
    revision: Revision,
    mut waiting: Waiting,
    request: &Request<'_>,
    names: Option<&Names>,
) -> Response {
    let deadline = Instant::now() + front.config.hold_after;
    let mut look = deadline;
    loop {
        waiting.hint_until(look).await;
        look = Instant::now() + AGAIN;
        let seen = match front.store.read(waiting.call, &front.config.node, waiting.request, 0).await {
            Ok(Read::Cancelled) => {
                waiting.settle();
                return if era == Era::Stateless {
                    front.refuse_in(revision, given_up().for_id(request.id))
                } else {
                    no_answer()
                };
            }
            Ok(Read::Events { events, out: Some(out) }) if events.is_empty() => {
                waiting.settle();
                if let Some(names) = names {
                    front.cache.put(names, &request.method, &out);
                }
                return front.json(revision, out);
            }
            Ok(Read::Events { events, out })
                if out.is_some() || !events.is_empty() || Instant::now() >= deadline =>
            {
                Counters::count(&front.counters.streamed);
                let mut streaming = Streaming::new(front.clone(), era, waiting, Some(request.id.raw()));
                let prime = prime(revision, streaming.waiting.call);
                streaming.chunks.extend(prime.map(Bytes::from));
                streaming.take(events, out);
                return streaming.into_response();
            }
            Ok(Read::Events { .. }) => {
                look = deadline;
                Look::Running
            }
            Ok(Read::Queued) => Look::Queued,
            Ok(Read::Missing) => Look::Missing,
            Err(_) => Look::Silent,
        };
        if let Some(refusal) = waiting.weigh(seen).await {
            return front.refuse_in(revision, refusal.for_id(request.id));
        }
    }
}

/// Waits for the answer of a call that a request repeats; its events went to the request before it.
pub(crate) async fn joined(
    front: &Arc<Front>,
    revision: Revision,
    mut waiting: Waiting,
    request: &Request<'_>,
) -> Response {
    let deadline = Instant::now() + front.config.hold_after;
    let mut look = deadline;
    loop {
        waiting.hint_until(look).await;
        look = Instant::now() + AGAIN;
        let read = front.store.read(waiting.call, &front.config.node, waiting.request, ANSWER_ALONE).await;
        let seen = match read {
            Ok(Read::Cancelled) => {
                waiting.settle();
                return front.refuse_in(revision, retry::cancelled().for_id(request.id));
            }
            Ok(Read::Events { out: Some(out), .. }) => {
                waiting.settle();
                return front.json(revision, jsonrpc::with_id(&out, request.id.as_json()).into());
            }
            Ok(Read::Events { .. }) if Instant::now() >= deadline => {
                Counters::count(&front.counters.streamed);
                let era = if revision.is_stateless() { Era::Stateless } else { Era::Stateful };
                let streaming = Streaming::new(front.clone(), era, waiting, Some(request.id.raw()));
                return Streaming { taken: ANSWER_ALONE, joined: true, ..streaming }.into_response();
            }
            Ok(Read::Events { .. }) => {
                look = deadline;
                Look::Running
            }
            Ok(Read::Queued) => Look::Queued,
            Ok(Read::Missing) => Look::Missing,
            Err(_) => Look::Silent,
        };
        if let Some(refusal) = waiting.weigh(seen).await {
            return front.refuse_in(revision, refusal.for_id(request.id));
        }
    }
}

/// Goes on with the stream of a call after event `last`; the call knows already that this request reads it.
pub(crate) fn resumed(front: &Arc<Front>, waiting: Waiting, last: u32) -> Response {
    Counters::count(&front.counters.streamed);
    let streaming = Streaming::new(front.clone(), Era::Stateful, waiting, None);
    // It looks at once: there may be events already.
    streaming.waiting.wake();
    Streaming { taken: last, behind: true, ..streaming }.into_response()
}

/// The events of a call after number `last`, as one text.
pub(crate) fn replay(call: CallId, last: u32, events: &[Message]) -> String {
    let numbered = (last.saturating_add(1)..).zip(events).filter(|(_, message)| &***message != HANG_UP);
    numbered.map(|(number, message)| event(call, Era::Stateful, number, message)).collect()
}

/// The event with which a stream begins, for revisions whose clients know it: from it they can resume.
pub(crate) fn prime(revision: Revision, call: CallId) -> Option<String> {
    if revision != Revision::V2025_11_25 {
        return None;
    }
    let mut out = Vec::new();
    let event = sse::Event::prime(sse::EventId { call, number: 0 }).with_retry(RETRY);
    event.write(&mut out, 1024).ok()?;
    String::from_utf8(out).ok()
}

struct Streaming {
    front: Arc<Front>,
    era: Era,
    waiting: Waiting,
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
    fn new(front: Arc<Front>, era: Era, waiting: Waiting, id: Option<&RawValue>) -> Self {
        Self {
            front,
            era,
            waiting,
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
            let text = event(self.waiting.call, self.era, self.taken, &message);
            self.chunks.push_back(text.into());
        }
        if ended {
            self.end();
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.waiting.settle();
    }

    /// The stream's last event is an error.
    fn refuse(&mut self, refusal: Refusal) {
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
        let keep_alive = Instant::now() + hold::KEEP_ALIVE;
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            // Seldom: hints are seldom lost, and there may be many streams.
            self.waiting.hint_until(Instant::now() + 2 * AGAIN).await;
            let (front, waiting) = (&self.front, &self.waiting);
            let read = front.store.read(waiting.call, &front.config.node, waiting.request, self.taken).await;
            let seen = match read {
                Ok(Read::Cancelled) => {
                    self.end();
                    if self.joined {
                        self.refuse(retry::cancelled());
                    } else if self.era == Era::Stateless {
                        self.refuse(given_up());
                    }
                    continue;
                }
                Ok(Read::Events { events, out }) => {
                    self.take(events, out);
                    Look::Running
                }
                Ok(Read::Queued) => Look::Queued,
                Ok(Read::Missing) => Look::Missing,
                Err(_) => Look::Silent,
            };
            if let Some(refusal) = self.waiting.weigh(seen).await {
                self.refuse(refusal);
            }
            if self.chunks.is_empty() && Instant::now() > keep_alive {
                return Some(Bytes::from_static(sse::KEEP_ALIVE));
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
