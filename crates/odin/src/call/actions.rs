//! What goes into a [`Delivery`](super::Delivery), and what comes out of it.

use std::time::Duration;

use super::types::{Gone, Message, State};

/// The event in place of which the stream is closed, for the client to resume it (stateful eras; sending
/// messages, disconnection). It has a number like any other.
pub const HANG_UP: &str = "";

/// Bounds of what one delivery keeps and sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryLimits {
    /// Items in one send.
    pub batch: usize,
    /// Bytes of events that go to the client as one item. A longer event goes alone.
    pub item_bytes: usize,
    /// How long an event may wait for more, so that they are written down and sent together. The first one, and what the
    /// client is asked, wait for nothing.
    pub gather: Duration,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self { batch: 64, item_bytes: 64 * 1024, gather: Duration::from_millis(100) }
    }
}

setters!(DeliveryLimits {
    with_batch => batch: usize,
    with_item_bytes => item_bytes: usize,
    with_gather => gather: Duration,
});

/// State of the link to a Pushpin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It works, and its subscriptions were replayed.
    Up,
    /// It is lost, and with it what was in flight.
    Down,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The tool sent an event.
    Emitted(Message),
    /// The tool sent an event that waits for no others: it asks the client, or ends the stream.
    Asked(Message),
    /// The tool ended: with an answer, or without (a notification, or a cancelled call).
    Finished(Option<Message>),
    /// The backend has the answer: it came straight from this worker.
    Got,
    /// A newer view of the record, from a beat or a hint.
    Seen(Result<State, Gone>),
    /// A Pushpin reported the subscription of this call's channel.
    Subscribed {
        /// Which Pushpin.
        pushpin: usize,
        /// Number of the channel.
        channel: u32,
    },
    /// A Pushpin reported that the subscription is gone.
    Unsubscribed {
        /// Which Pushpin.
        pushpin: usize,
        /// Number of the channel.
        channel: u32,
    },
    /// A link changed.
    Link {
        /// Which Pushpin.
        pushpin: usize,
        /// Its new state.
        link: Link,
    },
}

/// One thing to write to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Send {
    /// An event with its number.
    Event(u32, Message),
    /// Several, with the numbers from this one on, as one item. It has the first one's id.
    Events(u32, Vec<Message>),
    /// A comment under an event's item id, so that nothing under that id comes through later.
    Burn(u32),
    /// The answer, with the number that it has in the event log.
    Final(u32, Message),
    /// The end of the stream.
    Close,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// Written to the socket.
    Sent,
    /// Not written: the link failed, or the lease is too old to write. A [`Input::Link`] or
    /// [`Input::Seen`] follows.
    NotSent,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// EMIT; answer with [`Delivery::replied`](super::Delivery::replied).
    Emit {
        /// Number of the first event.
        first: u32,
        /// The events.
        events: Vec<Message>,
    },
    /// FINISH; answer with [`Delivery::replied`](super::Delivery::replied).
    Finish {
        /// The answer.
        out: Message,
    },
    /// GATE; answer with [`Delivery::replied`](super::Delivery::replied).
    Gate {
        /// Number of the channel.
        channel: u32,
    },
    /// LOST; answer with [`Delivery::replied`](super::Delivery::replied).
    Lost {
        /// Number of the channel.
        channel: u32,
    },
    /// DROP; answer with [`Delivery::dropped`](super::Delivery::dropped).
    DropWork,
    /// PUBLISHED; answer with [`Delivery::published`](super::Delivery::published).
    Published,
    /// Write to a channel; answer with [`Delivery::sent`](super::Delivery::sent).
    Send {
        /// Which Pushpin.
        pushpin: usize,
        /// Number of the channel.
        channel: u32,
        /// What to write, in order.
        items: Vec<Send>,
    },
    /// Nothing to do until an input comes, or the time is reached (milliseconds of the local clock).
    Wait {
        /// The time, if there is one.
        until: Option<u64>,
    },
    /// The job is over for this worker; stop the tool if it still runs.
    Exit(Exit),
}

/// Why a job is over for this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The answer is where it belongs.
    Finished,
    /// Given up: nobody is there, or the client cancelled.
    Dropped,
    /// The record is gone, or another worker has the call.
    Gone(Gone),
}
