//! A call's items as Pushpin takes them.

use grip::Item;

use crate::call::{Order, Send};
use crate::id::{CallChannel, CallId};
use crate::job::Era;
use crate::protocol::sse;

/// Where a call's messages go, and how they are written.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    era: Era,
    /// The session's own stream, which takes the place of the call's.
    shared: Option<String>,
}

impl Stream {
    pub(super) fn of(order: &Order) -> Self {
        Self { era: order.era, shared: order.stream.clone() }
    }

    /// The stream of a call whose record is gone.
    pub(super) fn lost(era: Era) -> Self {
        Self { era, shared: None }
    }

    /// The item for one thing to send.
    ///
    /// Item ids are the same whichever worker sends them, so that Pushpin drops repeats. They hold for one
    /// channel: what was meant for an abandoned hold does not count for its successor.
    pub(super) fn item(&self, channel: CallChannel, send: &Send) -> Item {
        let name = self.shared.clone().unwrap_or_else(|| channel.to_string());
        match send {
            Send::Event(number, _) | Send::Burn(number) => {
                Item::content(name, self.text(channel.call, send)).id(format!("{channel}:{number}"))
            }
            Send::Final(..) => Item::content(name, self.text(channel.call, send)).id(format!("{channel}:f")),
            Send::Close => Item::close(name),
        }
    }

    /// The same as the text of an event; of the session's stream, as the message alone.
    fn text(&self, call: CallId, send: &Send) -> String {
        match (send, &self.shared) {
            (Send::Event(_, message) | Send::Final(_, message), Some(_)) => sse::message(message),
            (Send::Event(number, message) | Send::Final(number, message), None) => {
                event(call, self.era, *number, message)
            }
            (Send::Burn(_) | Send::Close, _) => ":\n\n".into(),
        }
    }
}

/// One server-sent event. Only the session eras have event ids: a modern stream can't be resumed.
pub(crate) fn event(call: CallId, era: Era, number: u32, message: &str) -> String {
    match era {
        Era::Modern => sse::message(message),
        Era::Session => format!("id: {call}-{number}\n{}", sse::message(message)),
    }
}
