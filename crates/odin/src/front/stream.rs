//! Streams of the backend's own, where neither gateway nor Pushpin can hold them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::answer::{json, no_answer};
use super::waiting::Waiting;
use super::{Counters, Front, hold, refuse};
use crate::call::Message;
use crate::id::CallChannel;
use crate::job::Era;
use crate::protocol::{Refusal, Request, Revision, sse};
use crate::worker::event;

/// How long to wait before the record is read again without a hint.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the broker may be silent, or the record missing, before a stream is given up.
const SILENT: Duration = Duration::from_secs(5);

/// Waits for the answer alone for a while, then streams.
pub(super) async fn answer(
    front: &Arc<Front>,
    era: Era,
    revision: Revision,
    mut waiting: Waiting,
    request: &Request<'_>,
) -> Response {
    let begun = Instant::now();
    let deadline = begun + front.config.hold_after;
    loop {
        tokio::select! {
            () = waiting.hint() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        let read = front.broker.read(waiting.call, &front.config.node, waiting.request, 0).await;
        match read {
            Ok(read) if read.over => {
                waiting.settle();
                return no_answer();
            }
            Ok(read) => match read.out {
                Some(out) if read.events.is_empty() => {
                    waiting.settle();
                    return json(front, revision, out);
                }
                out if out.is_some() || !read.events.is_empty() || Instant::now() >= deadline => {
                    Counters::count(&front.counters.streamed);
                    let mut streaming = Streaming::new(front.clone(), era, waiting);
                    streaming.take(read.events, out);
                    return streaming.into_response();
                }
                _ => {}
            },
            Err(_) if Instant::now() < begun + SILENT => tokio::time::sleep(AGAIN).await,
            Err(_) => {
                let refusal = Refusal::unavailable("The server's memory does not answer. Try again.", 2);
                return refuse(front, refusal.for_id(request.id));
            }
        }
    }
}

struct Streaming {
    front: Arc<Front>,
    era: Era,
    waiting: Waiting,
    chunks: VecDeque<Bytes>,
    taken: u32,
    over: bool,
    heard: Instant,
}

impl Streaming {
    fn new(front: Arc<Front>, era: Era, waiting: Waiting) -> Self {
        let heard = Instant::now();
        Self { front, era, waiting, chunks: VecDeque::new(), taken: 0, over: false, heard }
    }

    fn take(&mut self, events: Vec<Message>, out: Option<Message>) {
        for message in events.into_iter().chain(out.clone()) {
            self.taken += 1;
            let stem = CallChannel { call: self.waiting.call, number: 0 };
            self.chunks.push_back(event(stem, self.era, self.taken, &message).into());
        }
        if out.is_some() {
            self.end();
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.waiting.settle();
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
            tokio::select! {
                () = self.waiting.hint() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
            let (front, waiting) = (&self.front, &self.waiting);
            match front.broker.read(waiting.call, &front.config.node, waiting.request, self.taken).await {
                Ok(read) if read.over => self.end(),
                Ok(read) => {
                    self.heard = Instant::now();
                    self.take(read.events, read.out);
                }
                // The stream ends without an answer: the client knows that it has to ask again.
                Err(_) if self.heard.elapsed() > SILENT => self.over = true,
                Err(_) => {}
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
        let mut response = StatusCode::OK.into_response();
        sse::stream_headers(response.headers_mut());
        *response.body_mut() = Body::from_stream(chunks);
        response
    }
}
