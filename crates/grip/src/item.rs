//! What is published: items, and their form on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::hold::is_channel_name;

/// The largest item, in bytes of its encoded form. It is the limit of Pushpin's HTTP publishing
/// (`push_in_http_max_body_size`); over ZeroMQ a larger one would pass, but a client that reads slowly loses
/// items when about 200 kB are in flight for it, so stay far below.
pub const MAX_ITEM: usize = 1_000_000 - BATCH_FRAME;

/// Bytes of `{"items":[` and `]}` and some room.
pub(crate) const BATCH_FRAME: usize = 16;

/// Why an item can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The channel's name is not one that a [`crate::Hold`] could have named.
    #[error("channel name {0:?} is not 1 to 255 characters of A-Z a-z 0-9 . _ : / @ + -")]
    ChannelName(String),
    /// The encoded item is longer than [`MAX_ITEM`].
    #[error("an item of {0} bytes is longer than {MAX_ITEM}")]
    TooLarge(usize),
}

/// What an item does to the connections that hold its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Appends these bytes to a stream hold.
    Content(Bytes),
    /// Ends a stream hold. Content and close are two items: Pushpin drops the content of one that has both.
    /// Send it no sooner than [`crate::MIN_CLOSE_DELAY`] after the subscription.
    Close,
    /// Answers a response hold.
    Response(Response),
}

/// The answer to a response hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// A message for one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The channel's name, as in the [`crate::Hold`].
    pub channel: String,
    /// Pushpin drops an item whose id it saw on this channel within the last 60 s (`id_cache_ttl`), even if
    /// nobody received the first. `None`: never dropped.
    pub id: Option<String>,
    /// What to do.
    pub payload: Payload,
    /// Values that message filters read, such as `sender` for `skip-self`.
    pub meta: Vec<(String, String)>,
}

impl Item {
    /// Content for the streams on `channel`.
    #[must_use]
    pub fn content(channel: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self::new(channel.into(), Payload::Content(content.into()))
    }

    /// The end of the streams on `channel`.
    #[must_use]
    pub fn close(channel: impl Into<String>) -> Self {
        Self::new(channel.into(), Payload::Close)
    }

    /// The answer to the response holds on `channel`.
    #[must_use]
    pub fn response(channel: impl Into<String>, response: Response) -> Self {
        Self::new(channel.into(), Payload::Response(response))
    }

    fn new(channel: String, payload: Payload) -> Self {
        Self { channel, id: None, payload, meta: Vec::new() }
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds a value for message filters.
    #[must_use]
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.meta.push((key.into(), value.into()));
        self
    }

    /// Whether it can be published: its encoded form, in which a character may take six bytes, is no longer than
    /// [`MAX_ITEM`].
    #[must_use]
    pub fn fits(&self) -> bool {
        let content = match &self.payload {
            Payload::Content(content) => content.len(),
            Payload::Close | Payload::Response(_) => MAX_ITEM,
        };
        // What surely fits is not encoded for the sake of the answer.
        content < MAX_ITEM / 8 || self.json().is_ok()
    }

    /// The item as the two frames of a ZeroMQ message: the channel, and `J` with JSON.
    pub(crate) fn frames(&self) -> Result<[Bytes; 2], ItemError> {
        self.check_channel()?;
        let mut frame = vec![b'J'];
        frame.extend_from_slice(Value::Object(self.body()).to_string().as_bytes());
        check_length(frame.len())?;
        Ok([Bytes::copy_from_slice(self.channel.as_bytes()), frame.into()])
    }

    /// The item as an element of `items` for publishing over HTTP.
    pub(crate) fn json(&self) -> Result<String, ItemError> {
        self.check_channel()?;
        let mut body = self.body();
        body.insert("channel".into(), Value::from(self.channel.as_str()));
        let json = Value::Object(body).to_string();
        check_length(json.len())?;
        Ok(json)
    }

    fn check_channel(&self) -> Result<(), ItemError> {
        if is_channel_name(&self.channel) {
            Ok(())
        } else {
            Err(ItemError::ChannelName(self.channel.clone()))
        }
    }

    fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        if let Some(id) = &self.id {
            body.insert("id".into(), Value::from(id.as_str()));
        }
        if !self.meta.is_empty() {
            let meta: Map<_, _> =
                self.meta.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
            body.insert("meta".into(), Value::Object(meta));
        }
        let formats = match &self.payload {
            Payload::Content(content) => json!({ "http-stream": bytes_value("content", content) }),
            Payload::Close => json!({ "http-stream": { "action": "close" } }),
            Payload::Response(response) => {
                let mut format = bytes_value("body", &response.body);
                format.insert("code".into(), response.status.into());
                format.insert("headers".into(), json!(response.headers));
                json!({ "http-response": format })
            }
        };
        body.insert("formats".into(), formats);
        body
    }
}

/// Text as `name`, anything else as `name-bin` in base64.
fn bytes_value(name: &str, bytes: &Bytes) -> Map<String, Value> {
    let mut map = Map::new();
    match std::str::from_utf8(bytes) {
        Ok(text) => map.insert(name.into(), text.into()),
        Err(_) => map.insert(format!("{name}-bin"), STANDARD.encode(bytes).into()),
    };
    map
}

fn check_length(length: usize) -> Result<(), ItemError> {
    if length > MAX_ITEM { Err(ItemError::TooLarge(length)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second_frame(item: &Item) -> Value {
        let [channel, frame] = item.frames().unwrap();
        assert_eq!(channel, item.channel);
        assert_eq!(frame[0], b'J');
        serde_json::from_slice(&frame[1..]).unwrap()
    }

    #[test]
    fn what_fits_is_decided_by_the_encoded_form() {
        for (content, fits) in [
            ("x".repeat(990_000), true),
            ("x".repeat(1_000_000), false),
            ("\"".repeat(490_000), true),
            ("\"".repeat(510_000), false),
            ("\u{1}".repeat(MAX_ITEM / 8 - 1), true),
            ("\u{1}".repeat(170_000), false),
        ] {
            let item = Item::content("c", content).id("c-1");
            assert_eq!(item.fits(), fits, "{}", item.id.as_deref().unwrap());
            assert_eq!((item.json().is_ok(), item.frames().is_ok()), (fits, fits));
        }
    }

    #[test]
    fn each_payload_has_its_format() {
        let item = Item::content("c", "data: 1\n\n").id("c-1").meta("sender", "x");
        assert_eq!(
            second_frame(&item),
            json!({"id": "c-1", "meta": {"sender": "x"}, "formats": {"http-stream": {"content": "data: 1\n\n"}}})
        );
        assert_eq!(
            second_frame(&Item::content("c", vec![0xff])),
            json!({"formats": {"http-stream": {"content-bin": "/w=="}}})
        );
        assert_eq!(second_frame(&Item::close("c")), json!({"formats": {"http-stream": {"action": "close"}}}));
        let response =
            Response { status: 201, headers: vec![("A".into(), "b".into())], body: Bytes::from_static(b"x") };
        assert_eq!(
            second_frame(&Item::response("c", response)),
            json!({"formats": {"http-response": {"code": 201, "headers": [["A", "b"]], "body": "x"}}})
        );
    }

    #[test]
    fn over_http_the_channel_is_inside() {
        let json: Value = serde_json::from_str(&Item::close("c").json().unwrap()).unwrap();
        assert_eq!(json, json!({"channel": "c", "formats": {"http-stream": {"action": "close"}}}));
    }

    #[test]
    fn bad_names_and_sizes_are_refused() {
        assert_eq!(Item::close("a b").frames(), Err(ItemError::ChannelName("a b".into())));
        let big = Item::content("c", vec![b'x'; MAX_ITEM]);
        assert!(matches!(big.frames(), Err(ItemError::TooLarge(_))));
        assert!(matches!(big.json(), Err(ItemError::TooLarge(_))));
        assert!(Item::content("c", vec![b'x'; MAX_ITEM - 100]).frames().is_ok());
    }
}
