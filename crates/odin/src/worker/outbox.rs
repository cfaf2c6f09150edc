//! The way from a tool to its delivery.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::call::{HANG_UP, Input, Message};
use crate::events::is_carried;
use crate::worker::{Closed, Emission, Outbox};

/// Bounds of what one call may send before its answer.
///
/// Progress and log messages beyond a bound are left out: they are a courtesy. A request to the client beyond
/// it ends the call. One that Pushpin could not carry is beyond it, whoever holds the stream: a session's client may
/// resume the stream elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventLimits {
    /// Events.
    pub count: u64,
    /// Bytes of all events together.
    pub bytes: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { count: 10_000, bytes: 4 * 1024 * 1024 }
    }
}

setters!(EventLimits {
    with_count => count: u64,
    with_bytes => bytes: usize,
});

/// Counts a call's events and passes them on in order.
pub(super) struct JobOutbox {
    inputs: mpsc::UnboundedSender<Input>,
    limits: EventLimits,
    count: AtomicU64,
    bytes: AtomicUsize,
}

impl JobOutbox {
    pub(super) fn new(inputs: mpsc::UnboundedSender<Input>, limits: EventLimits) -> Self {
        Self { inputs, limits, count: AtomicU64::new(0), bytes: AtomicUsize::new(0) }
    }
}

impl Outbox for JobOutbox {
    fn emit(&self, message: Emission) -> Result<(), Closed> {
        let (text, needed) = match message {
            Emission::Notification(text) => (text, false),
            Emission::Request { message, .. } => (message, true),
            Emission::HangUp => return self.inputs.send(Input::Asked(HANG_UP.into())).map_err(|_| Closed),
        };
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(text.get().len(), Ordering::Relaxed) + text.get().len();
        if count > self.limits.count || bytes > self.limits.bytes || !is_carried(text.get()) {
            return if needed { Err(Closed) } else { Ok(()) };
        }
        let text: Message = Box::<str>::from(text).into();
        let input = if needed { Input::Asked(text) } else { Input::Emitted(text) };
        self.inputs.send(input).map_err(|_| Closed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn what_no_stream_could_carry_is_beyond_the_bound() {
        let (sender, mut inputs) = mpsc::unbounded_channel();
        let outbox = JobOutbox::new(sender, EventLimits::default());
        let text = || RawValue::from_string(format!("[{:?}]", "x".repeat(1_000_000))).unwrap();
        assert_eq!(outbox.emit(Emission::Notification(text())), Ok(()));
        assert_eq!(outbox.emit(Emission::Request { id: "c:1".into(), message: text() }), Err(Closed));
        assert!(inputs.try_recv().is_err());
    }

    #[test]
    fn beyond_the_bound_progress_is_left_out_and_a_request_ends_the_call() {
        let (sender, mut inputs) = mpsc::unbounded_channel();
        let outbox = JobOutbox::new(sender, EventLimits { count: 2, bytes: 1000 });
        let text = || RawValue::from_string(r#"{"n":1}"#.into()).unwrap();
        for _ in 0..5 {
            assert_eq!(outbox.emit(Emission::Notification(text())), Ok(()));
        }
        assert_eq!(outbox.emit(Emission::Request { id: "c:1".into(), message: text() }), Err(Closed));
        let mut taken = 0;
        while inputs.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 2);
    }
}
