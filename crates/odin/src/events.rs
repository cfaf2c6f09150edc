//! A call's messages as events of a stream, and as the items that Pushpin takes.

use grip::Item;

use crate::call::{Message, Order, Send};
use crate::id::{CallChannel, CallId};
use crate::protocol::{Era, code, jsonrpc, sse};

/// Bytes that the name of a channel, and the id of an item, have at most.
const CHANNEL_BYTES: usize = 128;

/// Where a call's messages go, and how they are written.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    era: Era,
    /// The session's own stream, which takes the place of the call's.
    shared: Option<String>,
}

impl Stream {
    pub(crate) fn of(order: &Order) -> Self {
        Self { era: order.era, shared: order.stream.clone() }
    }

    /// The stream of a call whose record is gone.
    pub(crate) fn lost(era: Era) -> Self {
        Self { era, shared: None }
    }

    /// The item for one thing to send.
    ///
    /// Item ids are the same whichever worker sends them, so that Pushpin drops repeats. They hold for one
    /// channel: what was meant for an abandoned hold does not count for its successor.
    pub(crate) fn item(&self, channel: CallChannel, send: &Send) -> Item {
        let name = self.shared.clone().unwrap_or_else(|| channel.to_string());
        let (id, instead) = match send {
            Send::Event(number, _) | Send::Events(number, _) | Send::Burn(number) => {
                (number.to_string(), Send::Burn(*number))
            }
            Send::Final(number, out) => ("f".to_owned(), Send::Final(*number, not_carried(out))),
            Send::Close => return Item::close(name),
        };
        let item =
            |send: &Send| Item::content(&name, self.text(channel.call, send)).id(format!("{channel}:{id}"));
        let whole = item(send);
        // One that Pushpin does not take would be tried for ever.
        if whole.fits() { whole } else { item(&instead) }
    }

    /// The same as the text of an event; of the session's stream, as the message alone.
    fn text(&self, call: CallId, send: &Send) -> String {
        match (send, &self.shared) {
            (Send::Event(_, message) | Send::Final(_, message), Some(_)) => sse::message(message),
            (Send::Event(number, message) | Send::Final(number, message), None) => {
                event(call, self.era, *number, message)
            }
            (Send::Events(_, messages), Some(_)) => {
                messages.iter().map(|message| sse::message(message.as_ref())).collect()
            }
            (Send::Events(first, messages), None) => {
                let events = (*first..).zip(messages);
                events.map(|(number, message)| event(call, self.era, number, message)).collect()
            }
            (Send::Burn(_) | Send::Close, _) => ":\n\n".into(),
        }
    }
}

/// Whether a message can be an item for Pushpin, whatever its channel and id.
pub(crate) fn is_carried(message: &str) -> bool {
    // The usual case, without a copy.
    if message.len() < grip::MAX_ITEM / 10 {
        return true;
    }
    let longest = "c".repeat(CHANNEL_BYTES);
    Item::content(longest.clone(), format!("id: {longest}\n{}", sse::message(message))).id(longest).fits()
}

/// The error in place of an answer that a stream held by Pushpin can't carry. Where one JSON document is the answer, or a
/// backend streams by itself, it could have been larger.
pub(crate) fn not_carried(answer: &str) -> Message {
    let why = format!(
        "The result has {} bytes, and a stream carries about 900,000, less where they have to be escaped. Ask for less, \
         or for a part of it.",
        answer.len()
    );
    in_place_of(answer, &why)
}

/// An error in place of an answer, under its id.
pub(crate) fn in_place_of(answer: &str, why: &str) -> Message {
    let id = jsonrpc::Response::read(answer).map_or("null", |answer| answer.id());
    jsonrpc::error(id, jsonrpc::error_object(code::INTERNAL_ERROR, why, None)).into()
}

/// One server-sent event. Only the stateful eras have event ids: a stateless stream can't be resumed.
pub(crate) fn event(call: CallId, era: Era, number: u32, message: &str) -> String {
    match era {
        Era::Stateless => sse::message(message),
        Era::Stateful => format!("id: {call}-{number}\n{}", sse::message(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grip::Payload;

    fn content(item: &Item) -> &str {
        match &item.payload {
            Payload::Content(content) => std::str::from_utf8(content).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_pushpin_does_not_take_is_replaced_under_its_id() {
        let channel = CallChannel { call: CallId::random(), number: 1 };
        for shared in [None, Some("s-1".to_owned())] {
            let stream = Stream { era: Era::Stateful, shared };
            // Its quotes are escaped twice.
            let text = serde_json::to_string(&"\"".repeat(300_000)).unwrap();
            let answer: Message = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{text}}}"#).into();
            assert!(answer.len() < 900_000 && !is_carried(&answer));
            let item = stream.item(channel, &Send::Final(3, answer.clone()));
            assert!(item.fits());
            assert_eq!(item.id, Some(format!("{channel}:f")));
            assert!(content(&item).contains(r#""id":"x","error":{"code":-32603"#), "{}", content(&item));
            let item = stream.item(channel, &Send::Event(2, answer));
            assert_eq!((item.id.clone(), content(&item)), (Some(format!("{channel}:2")), ":\n\n"));
            let small: Message = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into();
            assert!(is_carried(&small));
            assert!(content(&stream.item(channel, &Send::Final(1, small.clone()))).contains(&*small));
        }
    }

    #[test]
    fn several_events_are_one_item_under_the_first_ones_id() {
        let channel = CallChannel { call: CallId::random(), number: 1 };
        let several = Send::Events(4, vec!["{}".into(), "[]".into()]);
        let call = channel.call;
        for (era, text) in [
            (Era::Stateless, "event: message\ndata: {}\n\nevent: message\ndata: []\n\n".to_owned()),
            (
                Era::Stateful,
                format!(
                    "id: {call}-4\nevent: message\ndata: {{}}\n\nid: {call}-5\nevent: message\ndata: []\n\n"
                ),
            ),
        ] {
            let item = Stream { era, shared: None }.item(channel, &several);
            assert_eq!((item.id.clone(), content(&item)), (Some(format!("{channel}:4")), &*text));
        }
    }
}
