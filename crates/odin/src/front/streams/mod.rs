//! Streams: who holds them, Pushpin or this process.

mod following;
mod own;
mod pushpin;
mod replay;
mod spec;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::response::Response;

use crate::call::{Message, Via};
use crate::front::{
    calls::{Context, Handle, via},
    http::Caller,
    state::{Front, Names},
};
use crate::protocol::Request;

pub(crate) use own::joined;
pub(crate) use pushpin::{held, unpark};
pub(crate) use replay::prime;
pub(crate) use spec::{Spec, session_channel};

/// How often a comment goes out on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A request whose answer may become a stream.
pub(crate) struct Asked<'a> {
    pub(crate) context: &'a Context,
    pub(crate) request: &'a Request<'a>,
    /// The answer's place in the cache, if it may be kept.
    pub(crate) names: Option<Names>,
}

impl Asked<'_> {
    /// The answer as one JSON document.
    fn json(&self, front: &Front, out: Message) -> Response {
        if let Some(names) = &self.names {
            front.cache.put(names, &self.request.method, &out);
        }
        front.json(self.context.revision, out)
    }
}

/// Who holds streams.
#[async_trait]
pub(crate) trait Streams: Sync {
    /// Answers a request with what its call brings: one JSON document, or a stream.
    async fn answer(&self, front: &Arc<Front>, asked: Asked<'_>, handle: Handle) -> Response;

    /// Opens a stream that is no answer to a call.
    async fn open(&self, front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response;
}

/// The holder of streams that come this way.
pub(crate) fn of(via: Via) -> &'static dyn Streams {
    match via {
        Via::Pushpin => &pushpin::Pushpin,
        Via::Backend => &own::Own,
    }
}

/// Opens a stream in the way that the caller's entry point has, if that can be had now.
pub(crate) async fn open(front: &Arc<Front>, caller: &Caller, spec: Spec) -> Response {
    let via = if front.can_hold() { via(front, caller.entry_point, 0) } else { Via::Backend };
    of(via).open(front, caller, spec).await
}
