//! Server-sent events: writing them, and the ids that streams are resumed by.
//!
//! Format: HTML standard, "Server-sent events".

use std::fmt;
use std::str::FromStr;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::id::{CallId, InvalidId};

/// A comment, to be sent when nothing else was for a while: keeps proxies from closing the connection.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// The type of an event that carries a message.
const MESSAGE: &str = "message";

/// Bytes of an event type.
const TYPE_BYTES: usize = 64;

/// One event of a stream.
///
/// ```
/// use odin::id::CallId;
/// use odin::protocol::sse::{Event, EventId};
///
/// let id = EventId { call: CallId::from_bits([0xab; 16]), number: 2 };
/// let mut out = Vec::new();
/// Event::message(r#"{"jsonrpc":"2.0"}"#).with_id(id).write(&mut out, 1_000).unwrap();
/// assert_eq!(
///     String::from_utf8_lossy(&out),
///     "id: 00abababababababababababababababab-2\nevent: message\ndata: {\"jsonrpc\":\"2.0\"}\n\n"
/// );
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// `id`: the client repeats it in `Last-Event-ID` when it resumes the stream.
    pub id: Option<EventId>,
    /// `event`: the type. HTTP+SSE has `endpoint` and `message`; messages have theirs everywhere.
    pub event: Option<&'a str>,
    /// `retry`: milliseconds that the client waits before it connects again.
    pub retry: Option<u32>,
    /// `data`. An empty one with an id primes the client to resume (2025-11-25, sending messages).
    pub data: Option<&'a str>,
}

/// Why an event can't be written. Nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The type is empty, too long, or has characters that would end its line.
    #[error("an event type must be 1 to {TYPE_BYTES} visible ASCII characters")]
    Type,
    /// The whole event is larger than the limit.
    #[error("the event has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Bytes of the event.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
}

impl<'a> Event<'a> {
    /// An event that carries one JSON-RPC message.
    pub fn message(json: &'a str) -> Self {
        Self { event: Some(MESSAGE), data: Some(json), ..Self::default() }
    }

    /// The event with which a stream of 2025-11-25 begins: an id and no message.
    pub fn prime(id: EventId) -> Self {
        Self { id: Some(id), data: Some(""), ..Self::default() }
    }

    /// The same event with an id.
    pub fn with_id(self, id: EventId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The same event with a type.
    pub fn with_type(self, event: &'a str) -> Self {
        Self { event: Some(event), ..self }
    }

    /// The same event, telling the client how many milliseconds to wait before it connects again.
    pub fn with_retry(self, milliseconds: u32) -> Self {
        Self { retry: Some(milliseconds), ..self }
    }

    /// Appends the event to `out`; at most `limit` bytes.
    ///
    /// Line ends inside `data` begin a new `data` line, so that no content can end the event or pass for
    /// another field. The client reads each as `\n`, which in JSON can only be space between tokens.
    ///
    /// # Errors
    /// Then `out` is unchanged.
    pub fn write(&self, out: &mut Vec<u8>, limit: usize) -> Result<(), EventError> {
        if let Some(event) = self.event
            && (event.is_empty() || event.len() > TYPE_BYTES || !event.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(EventError::Type);
        }
        let start = out.len();
        if let Some(data) = self.data {
            // Checked before the copy; lines add to it below.
            if data.len() > limit {
                return Err(EventError::TooLarge { size: data.len(), limit });
            }
            out.reserve(data.len() + 128);
        }
        if let Some(id) = &self.id {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(id.to_string().as_bytes());
            out.push(b'\n');
        }
        if let Some(event) = self.event {
            line(out, b"event: ", event);
        }
        if let Some(retry) = self.retry {
            line(out, b"retry: ", &retry.to_string());
        }
        if let Some(data) = self.data {
            let mut rest = data;
            while let Some(end) = rest.find(['\n', '\r']) {
                let (head, tail) = rest.split_at(end);
                line(out, b"data: ", head);
                rest = tail.strip_prefix("\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
            }
            if rest.is_empty() && data.is_empty() {
                out.extend_from_slice(b"data:\n");
            } else {
                line(out, b"data: ", rest);
            }
        }
        out.push(b'\n');
        let size = out.len() - start;
        if size > limit {
            out.truncate(start);
            return Err(EventError::TooLarge { size, limit });
        }
        Ok(())
    }
}

/// An event without an id that carries one JSON-RPC message, which has no line ends.
///
/// `message` is what a reader of such events takes an event without a type for, and yet it is named: Vercel's client
/// (`ai` 4, `@ai-sdk/mcp` 1.0.0) passes over events that do not name it, on both transports. The reference servers
/// name it too.
pub(crate) fn message(json: impl fmt::Display) -> String {
    format!("event: {MESSAGE}\ndata: {json}\n\n")
}

fn line(out: &mut Vec<u8>, field: &[u8], value: &str) {
    out.extend_from_slice(field);
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The id of an event: the call whose stream it is on, and its number there.
///
/// On the wire `{call}-{number}`. The call's id routes a `Last-Event-ID` to the call's record, on whichever
/// node it arrives. It proves nothing: the record says which session and principal the call belongs to, and
/// another's is answered as if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The call.
    pub call: CallId,
    /// The event's number on the call's stream. 0 is the event that begins the stream (see [`Event::prime`]).
    pub number: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.call, self.number)
    }
}

/// Takes exactly what [`EventId`] prints.
impl FromStr for EventId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (call, number) = text.split_once('-').ok_or(InvalidId)?;
        let canonical = number == "0" || !number.starts_with('0');
        if !canonical || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidId);
        }
        Ok(Self { call: call.parse()?, number: number.parse().map_err(|_| InvalidId)? })
    }
}

/// Sets the headers of an answer that is a stream: its type, no caching, and no buffering in proxies
/// (`X-Accel-Buffering`, transports, receiving messages).
pub fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}
