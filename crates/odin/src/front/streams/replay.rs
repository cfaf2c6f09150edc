//! How a call's stream begins, and what of it is sent again.

use axum::response::Response;

use crate::call::{HANG_UP, Message};
use crate::events::event;
use crate::front::{error::Error, http::event_stream, state::Front};
use crate::id::CallId;
use crate::protocol::{Era, Revision, sse};

/// Milliseconds that a client is to wait before it resumes a broken stream.
const RETRY: u32 = 500;

/// The events of a call after number `last`, as one text.
pub(super) fn replay(call: CallId, last: u32, events: &[Message]) -> String {
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

/// The rest of a call that is over. A client that has all of it is not given an empty stream: it would take that
/// for a broken one and come back for ever.
pub(super) fn replayed(front: &Front, call: CallId, last: u32, events: &[Message]) -> Response {
    if events.is_empty() {
        return front.refuse(Error::NothingLeft);
    }
    event_stream(replay(call, last, events))
}
