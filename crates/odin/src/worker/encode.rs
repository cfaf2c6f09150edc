//! A call's items as Pushpin takes them.

use grip::Item;

use crate::call::Send;
use crate::id::CallChannel;
use crate::job::Era;

/// The item for one thing to send.
///
/// Item ids are the same whichever worker sends them, so that Pushpin drops repeats. They hold for one
/// channel: what was meant for an abandoned hold does not count for its successor.
pub(super) fn item(channel: CallChannel, era: Era, send: &Send) -> Item {
    match send {
        Send::Event(number, message) => {
            content(channel, era, *number, message).id(format!("{channel}:{number}"))
        }
        Send::Final(number, message) => content(channel, era, *number, message).id(format!("{channel}:f")),
        Send::Burn(number) => Item::content(channel.to_string(), ":\n\n").id(format!("{channel}:{number}")),
        Send::Close => Item::close(channel.to_string()),
    }
}

fn content(channel: CallChannel, era: Era, number: u32, message: &str) -> Item {
    Item::content(channel.to_string(), event(channel, era, number, message))
}

/// One server-sent event. Only the session eras have event ids: a modern stream can't be resumed.
pub(crate) fn event(channel: CallChannel, era: Era, number: u32, message: &str) -> String {
    match era {
        Era::Modern => format!("data: {message}\n\n"),
        Era::Session => format!("id: {}-{number}\ndata: {message}\n\n", channel.call),
    }
}
