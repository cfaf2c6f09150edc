//! What waits to be written on a link.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::LinkLimits;
use super::frame::Outgoing;
use crate::id::CallId;

/// The frames of calls, by turns over the calls: a long message makes no other wait. Those of one call keep their order.
pub(super) struct SendQueue {
    limits: LinkLimits,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    turns: VecDeque<CallId>,
    frames: HashMap<CallId, VecDeque<Outgoing>>,
    bytes: usize,
    closed: bool,
}

impl SendQueue {
    pub(super) fn new(limits: LinkLimits) -> Self {
        Self { limits, state: Mutex::default(), filled: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the frames of a message in. False: the link is broken, or the queue is full.
    pub(super) fn push(&self, call: CallId, frames: Vec<Outgoing>) -> bool {
        let bytes: usize = frames.iter().map(Outgoing::len).sum();
        {
            let mut state = self.state();
            let more = !state.frames.contains_key(&call);
            let full =
                state.bytes + bytes > self.limits.bytes || (more && state.frames.len() >= self.limits.calls);
            if state.closed || full {
                return false;
            }
            state.bytes += bytes;
            if more {
                state.turns.push_back(call);
            }
            state.frames.entry(call).or_default().extend(frames);
        }
        self.filled.notify_one();
        true
    }

    /// The next frame, if one waits.
    pub(super) fn pop(&self) -> Option<Outgoing> {
        let mut state = self.state();
        let call = state.turns.pop_front()?;
        let frames = state.frames.get_mut(&call)?;
        let frame = frames.pop_front();
        if frames.is_empty() {
            state.frames.remove(&call);
        } else {
            state.turns.push_back(call);
        }
        state.bytes = state.bytes.saturating_sub(frame.as_ref().map_or(0, Outgoing::len));
        frame
    }

    /// Waits until something was taken in.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Nothing is taken in any more, and what waits is dropped.
    pub(super) fn close(&self) {
        *self.state() = State { closed: true, ..State::default() };
        self.filled.notify_one();
    }
}
