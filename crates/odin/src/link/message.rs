//! The messages of calls on a link, and their bytes.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::frame::{BODY, Kind};
use crate::call::direct::Heard;
use crate::call::{Message, Order};
use crate::id::CallId;

/// Most bytes of one message: longer requests go through the queue, and longer answers through the record.
pub const MESSAGE: usize = 1024 * 1024 + 64 * 1024;

/// From a backend to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToWorker {
    Dispatch(Box<Dispatch>),
    Cancel,
    Got,
}

/// DISPATCH: run this call at once, or say that you are busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The call.
    pub call: CallId,
    /// The order, as it will be registered if it comes to that.
    pub order: Order,
    /// What is left of the time after which a call that still runs is written down.
    pub left: Duration,
    /// Number of the worker's last heartbeat that the backend has seen; 0: none yet.
    pub seen: u64,
}

/// The parts of DISPATCH that are short.
#[derive(Serialize, Deserialize)]
struct Head {
    order: Order,
    left: u64,
    seen: u64,
}

/// A message that a link can't carry: the call goes another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// A message that makes no sense; the link is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message that is malformed: {0}")]
pub(super) struct Malformed(pub(super) String);

/// The bytes of a text, which is not copied.
fn shared(text: &Message) -> Bytes {
    struct Text(Message);
    impl AsRef<[u8]> for Text {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    if text.is_empty() { Bytes::new() } else { Bytes::from_owner(Text(text.clone())) }
}

fn text(bytes: &[u8]) -> Result<Message, Malformed> {
    std::str::from_utf8(bytes).map(Message::from).map_err(|error| Malformed(error.to_string()))
}

/// The head of a DISPATCH, and its body: the job.
pub(super) fn dispatch(order: &Order, left: Duration, seen: u64) -> Result<(Bytes, Bytes), TooLong> {
    let job = shared(&order.job);
    let order = Order { job: Message::from(""), ..order.clone() };
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let head = serde_json::to_vec(&Head { order, left, seen }).map_err(|_| TooLong)?;
    let mut bytes = BytesMut::with_capacity(4 + head.len());
    bytes.put_u32(u32::try_from(head.len()).map_err(|_| TooLong)?);
    bytes.put_slice(&head);
    let fits = bytes.len() < BODY && bytes.len() + job.len() <= MESSAGE;
    if fits { Ok((bytes.freeze(), job)) } else { Err(TooLong) }
}

/// The head of an answer, how many slots the worker has free, and its body.
pub(super) fn answer(out: &Message, free: u32) -> Result<(Bytes, Bytes), TooLong> {
    let head = Bytes::copy_from_slice(&free.to_be_bytes());
    if head.len() + out.len() > MESSAGE { Err(TooLong) } else { Ok((head, shared(out))) }
}

/// What a worker reads. None: a message that may be skipped.
pub(super) fn to_worker(kind: Kind, call: CallId, body: Bytes) -> Result<Option<ToWorker>, Malformed> {
    Ok(Some(match kind {
        Kind::DISPATCH => ToWorker::Dispatch(Box::new(read_dispatch(call, body)?)),
        Kind::CANCEL => ToWorker::Cancel,
        Kind::GOT => ToWorker::Got,
        kind => return skipped(kind),
    }))
}

fn read_dispatch(call: CallId, mut body: Bytes) -> Result<Dispatch, Malformed> {
    let short = || Malformed("a DISPATCH that is cut off".into());
    let length = body.try_get_u32().map_err(|_| short())? as usize;
    if body.len() < length {
        return Err(short());
    }
    let head = body.split_to(length);
    let Head { order, left, seen } =
        serde_json::from_slice(&head).map_err(|error| Malformed(error.to_string()))?;
    let order = Order { job: text(&body)?, ..order };
    Ok(Dispatch { call, order, left: Duration::from_millis(left), seen })
}

/// What a backend reads, and how many slots the worker has free where it says that. None: a message that may be skipped.
pub(super) fn to_backend(kind: Kind, mut body: Bytes) -> Result<Option<(Heard, Option<u32>)>, Malformed> {
    let mut free = None;
    let mut answer = || {
        let count = body.try_get_u32().map_err(|_| Malformed("an answer that is cut off".into()))?;
        free = Some(count);
        text(&body)
    };
    let heard = match kind {
        Kind::BUSY => Heard::Busy,
        Kind::ANSWER => Heard::Answer(answer()?),
        Kind::IN_DOUBT => Heard::AnswerInDoubt(answer()?),
        Kind::REGISTERED => Heard::Registered,
        Kind::HINT => Heard::Hint,
        kind => return skipped(kind),
    };
    Ok(Some((heard, free)))
}

fn skipped<T>(kind: Kind) -> Result<Option<T>, Malformed> {
    if kind.is_optional() { Ok(None) } else { Err(Malformed(format!("of kind {}", kind.0))) }
}
