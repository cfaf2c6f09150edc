//! The instructions that make Pushpin hold a response.
//!
//! An origin answers a proxied request with `Grip-*` response headers. Pushpin removes them, sends the rest of
//! the response to the client, and keeps the connection open, subscribed to the named channels. The names and
//! values are those of the GRIP protocol (<https://pushpin.org/docs/protocols/grip/>).

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The channels that Pushpin takes for one connection; it drops the rest without a word
/// (`connection_subscription_max`).
pub const MAX_CHANNELS: usize = 20;

/// The longest request body, in bytes, that Pushpin can hold. A GRIP answer to a longer one reaches the client
/// as `400`: answer such a request without GRIP. (Fixed in Pushpin's source.)
pub const MAX_REQUEST_BODY: usize = 100_000;

/// The time that must pass between the subscription (the gate) and a close. A close that comes sooner can leave
/// the client hanging for a minute (measured with Pushpin 1.36).
pub const MIN_CLOSE_DELAY: Duration = Duration::from_millis(50);

/// The longest value of a connection's meta ([`Hold::meta`]), in bytes.
pub const MAX_META: usize = 4096;

const GRIP_HOLD: HeaderName = HeaderName::from_static("grip-hold");
const GRIP_CHANNEL: HeaderName = HeaderName::from_static("grip-channel");
const GRIP_KEEP_ALIVE: HeaderName = HeaderName::from_static("grip-keep-alive");
const GRIP_SET_META: HeaderName = HeaderName::from_static("grip-set-meta");
const GRIP_TIMEOUT: HeaderName = HeaderName::from_static("grip-timeout");

/// Why a [`Hold`] has no valid form as headers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// A hold needs at least one channel, and Pushpin takes [`MAX_CHANNELS`].
    #[error("a hold needs 1 to {MAX_CHANNELS} channels, not {0}")]
    ChannelCount(usize),
    /// The channel's name can't be written into the header.
    #[error("channel name {0:?} is not 1 to 255 characters of A-Z a-z 0-9 . _ : / @ + -")]
    ChannelName(String),
    /// A filter's name or a meta key can't be written into the header.
    #[error("{0:?} is not a token of 1 to 64 characters of A-Z a-z 0-9 _ -")]
    Token(String),
    /// A meta value can't be written into the header.
    #[error("the value of meta key {0:?} is longer than {MAX_META} bytes or not printable ASCII")]
    MetaValue(String),
    /// The keep-alive's content is empty or longer than 1024 bytes, or its interval is under a second.
    #[error("a keep-alive needs 1 to 1024 bytes and at least a second")]
    KeepAlive,
}

/// What Pushpin does with the connection after the origin's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Send the origin's response at once and append what is published (`http-stream`).
    Stream,
    /// Withhold the origin's response; the first published `http-response` is the answer. On timeout the
    /// origin's response goes out.
    Response,
}

/// A channel that a held connection subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    name: String,
    filters: Vec<String>,
}

impl Channel {
    /// A channel without filters.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), filters: Vec::new() }
    }

    /// Adds a message filter of Pushpin. Filters read the connection's meta ([`Hold::meta`]) and the item's
    /// ([`crate::Item::meta`]); they act on the items of this channel, never on the first content. Pushpin has:
    ///
    /// - `skip-self`, `skip-users`: not to the connection whose `user` is the item's `sender`, or in its
    ///   `skip_users`;
    /// - `require-sub`: only to connections that also hold the channel that the item's `require_sub` names;
    /// - `var-subst`: `%(key)s` in the content becomes the connection's own value of that key, as it is. A `%`
    ///   that means itself is written `%%`. An item with anything else after a `%`, or with a key that the
    ///   connection does not have, ends the stream;
    /// - `build-id`: for contents with ids.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filters.push(filter.into());
        self
    }

    fn header(&self) -> Result<HeaderValue, HoldError> {
        if !is_channel_name(&self.name) {
            return Err(HoldError::ChannelName(self.name.clone()));
        }
        let mut value = self.name.clone();
        for filter in &self.filters {
            token(filter)?;
            value.push_str("; filter=");
            value.push_str(filter);
        }
        HeaderValue::try_from(value).map_err(|_| HoldError::ChannelName(self.name.clone()))
    }
}

impl<T: Into<String>> From<T> for Channel {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// Content that Pushpin sends by itself on a connection where nothing else was sent for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    content: Vec<u8>,
    interval: Duration,
}

impl KeepAlive {
    /// Any content of 1 to 1024 bytes; `interval` counts whole seconds of silence, at least one.
    #[must_use]
    pub fn new(content: impl Into<Vec<u8>>, interval: Duration) -> Self {
        Self { content: content.into(), interval }
    }

    /// An empty comment of `text/event-stream`, which every reader of server-sent events skips.
    #[must_use]
    pub fn sse(interval: Duration) -> Self {
        Self::new(":\n\n", interval)
    }

    fn header(&self) -> Result<HeaderValue, HoldError> {
        let seconds = self.interval.as_secs();
        if self.content.is_empty() || self.content.len() > 1024 || seconds == 0 {
            return Err(HoldError::KeepAlive);
        }
        let mut value = String::with_capacity(self.content.len() + 48);
        for &byte in &self.content {
            match byte {
                b'\\' => value.push_str("\\\\"),
                b'\r' => value.push_str("\\r"),
                b'\n' => value.push_str("\\n"),
                // Separators of header parameters and everything that isn't plain goes in hexadecimal.
                b' ' | b'"' | b',' | b';' | b'=' => write!(value, "\\x{byte:02x}").unwrap_or_default(),
                0x21..=0x7e => value.push(char::from(byte)),
                _ => write!(value, "\\x{byte:02x}").unwrap_or_default(),
            }
        }
        write!(value, "; format=cstring; timeout={seconds}; mode=idle").unwrap_or_default();
        HeaderValue::try_from(value).map_err(|_| HoldError::KeepAlive)
    }
}

/// An instruction to hold a response.
///
/// ```
/// use grip::{Hold, KeepAlive};
/// use std::time::Duration;
///
/// let headers = Hold::stream("call-6f1e").keep_alive(KeepAlive::sse(Duration::from_secs(20))).headers()?;
/// assert_eq!(headers["grip-hold"], "stream");
/// assert_eq!(headers["grip-channel"], "call-6f1e");
/// assert_eq!(headers["grip-keep-alive"], r":\n\n; format=cstring; timeout=20; mode=idle");
/// # Ok::<(), grip::HoldError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    mode: Mode,
    channels: Vec<Channel>,
    keep_alive: Option<KeepAlive>,
    timeout: Option<Duration>,
    meta: Vec<(String, String)>,
}

impl Hold {
    /// Holds the connection open and appends what is published on the channel.
    #[must_use]
    pub fn stream(channel: impl Into<Channel>) -> Self {
        Self::new(Mode::Stream, channel.into())
    }

    /// Holds the response back until one is published on the channel.
    #[must_use]
    pub fn response(channel: impl Into<Channel>) -> Self {
        Self::new(Mode::Response, channel.into())
    }

    fn new(mode: Mode, channel: Channel) -> Self {
        Self { mode, channels: vec![channel], keep_alive: None, timeout: None, meta: Vec::new() }
    }

    /// Subscribes to one more channel; up to [`MAX_CHANNELS`] in all.
    #[must_use]
    pub fn channel(mut self, channel: impl Into<Channel>) -> Self {
        self.channels.push(channel.into());
        self
    }

    /// What to send while nothing else is sent (streams only; a response hold has no use for it).
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = Some(keep_alive);
        self
    }

    /// How long a response hold waits, in whole seconds. Pushpin's default is 55 s, its minimum 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets a value on the connection that message filters read (`skip-self` reads `user`).
    #[must_use]
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.meta.push((key.into(), value.into()));
        self
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The instruction as response headers. Add them to the headers that the client is to see, for instance
    /// with [`HeaderMap::extend`].
    ///
    /// # Errors
    /// [`HoldError`] names the part that can't be written.
    pub fn headers(&self) -> Result<HeaderMap, HoldError> {
        if self.channels.is_empty() || self.channels.len() > MAX_CHANNELS {
            return Err(HoldError::ChannelCount(self.channels.len()));
        }
        let mut headers = HeaderMap::with_capacity(self.channels.len() + self.meta.len() + 3);
        let mode = match self.mode {
            Mode::Stream => HeaderValue::from_static("stream"),
            Mode::Response => HeaderValue::from_static("response"),
        };
        headers.insert(GRIP_HOLD, mode);
        for channel in &self.channels {
            headers.append(GRIP_CHANNEL, channel.header()?);
        }
        if let Some(keep_alive) = &self.keep_alive {
            headers.insert(GRIP_KEEP_ALIVE, keep_alive.header()?);
        }
        if let Some(timeout) = self.timeout {
            headers.insert(GRIP_TIMEOUT, HeaderValue::from(timeout.as_secs()));
        }
        for (key, value) in &self.meta {
            headers.append(GRIP_SET_META, meta_header(key, value)?);
        }
        Ok(headers)
    }
}

/// True when `name` can be a channel: it travels in a header, in a ZeroMQ frame and in JSON.
pub(crate) fn is_channel_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@+-".contains(&b))
}

fn token(text: &str) -> Result<(), HoldError> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits { Ok(()) } else { Err(HoldError::Token(text.to_owned())) }
}

fn meta_header(key: &str, value: &str) -> Result<HeaderValue, HoldError> {
    token(key)?;
    if value.len() > MAX_META || !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(HoldError::MetaValue(key.to_owned()));
    }
    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("{key}=\"{quoted}\"")).map_err(|_| HoldError::MetaValue(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_all_its_headers() {
        let headers = Hold::stream(Channel::new("a").filter("skip-self"))
            .channel("b:1")
            .keep_alive(KeepAlive::sse(Duration::from_secs(15)))
            .meta("user", "x\"y")
            .headers()
            .unwrap();
        assert_eq!(headers["grip-hold"], "stream");
        let channels: Vec<_> = headers.get_all("grip-channel").iter().collect();
        assert_eq!(channels, ["a; filter=skip-self", "b:1"]);
        assert_eq!(headers["grip-keep-alive"], r":\n\n; format=cstring; timeout=15; mode=idle");
        assert_eq!(headers["grip-set-meta"], r#"user="x\"y""#);
    }

    #[test]
    fn a_response_has_a_timeout() {
        let headers = Hold::response("a").timeout(Duration::from_secs(7)).headers().unwrap();
        assert_eq!(headers["grip-hold"], "response");
        assert_eq!(headers["grip-timeout"], "7");
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_header() {
        for name in ["", "a b", "a;filter=x", "a,b", "a\r\nX: y", "ü", &"x".repeat(256)] {
            assert_eq!(Hold::stream(name).headers(), Err(HoldError::ChannelName(name.to_owned())));
        }
        assert!(Hold::stream(Channel::new("a").filter("x; y")).headers().is_err());
        assert!(Hold::stream("a").meta("k", "a\r\nb").headers().is_err());
        assert!(Hold::stream("a").meta("k=v", "a").headers().is_err());
        assert!(Hold::stream("a").keep_alive(KeepAlive::new("", Duration::from_secs(1))).headers().is_err());
    }

    #[test]
    fn too_many_channels_are_refused() {
        let hold = (1..21).fold(Hold::stream("c0"), |hold, n| hold.channel(format!("c{n}")));
        assert_eq!(hold.headers(), Err(HoldError::ChannelCount(21)));
    }

    #[test]
    fn a_keep_alive_escapes_separators() {
        let keep_alive = KeepAlive::new("a;b, \\\u{1}\n", Duration::from_secs(1));
        let value = keep_alive.header().unwrap();
        assert_eq!(value, r"a\x3bb\x2c\x20\\\x01\n; format=cstring; timeout=1; mode=idle");
    }
}
