//! A request and its answer as it came in, piece by piece.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sse::{Piece, Reader};

/// What a gateway says of a request in the answer's headers, different each time: the date, and the ids and times of Kong
/// and of Envoy.
const GATEWAYS_OWN: [&str; 8] = [
    "date",
    "x-request-id",
    "x-envoy-upstream-service-time",
    "x-kong-request-id",
    "x-kong-proxy-latency",
    "x-kong-upstream-latency",
    "x-kong-response-latency",
    "x-kong-upstream-status",
];

/// The headers of an answer by which two answers can be compared, whatever the gateway: `name: value`, sorted.
pub fn comparable_headers(headers: &reqwest::header::HeaderMap) -> Vec<String> {
    let own = headers.iter().filter(|(name, _)| !GATEWAYS_OWN.contains(&name.as_str()));
    let mut lines: Vec<_> = own.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

/// How long an answer may be silent before it counts as stuck.
const SILENCE: Duration = Duration::from_secs(40);

/// In which form the answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// One JSON document.
    Json,
    /// A stream of server-sent events.
    Stream,
    /// An HTTP status that is no success, or no answer at all.
    Error,
}

/// How the answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As HTTP says that it should.
    Whole,
    /// The connection broke.
    Cut(String),
    /// Nothing came for a long time.
    Stuck,
}

/// A message, and when it came.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// When.
    pub at: Instant,
    /// The event's id; none in JSON and in the stateless era.
    pub id: Option<String>,
    /// The message.
    pub message: Value,
}

/// The answer's head.
#[derive(Debug, Clone)]
pub struct Head {
    /// When it came.
    pub at: Instant,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
}

/// A request that was sent, and what has come of it so far.
#[derive(Debug)]
pub struct Exchange {
    /// The request's JSON-RPC id.
    pub id: u64,
    /// When it was sent.
    pub started: Instant,
    /// The answer's head, if one came.
    pub head: Option<Head>,
    /// Messages in the order in which they came.
    pub messages: Vec<Arrived>,
    /// The id of the last event that had one, also of the one that begins a stream and has no message: what
    /// the stream is resumed from.
    pub last_id: Option<String>,
    /// Comments that keep the stream alive.
    pub comments: usize,
    /// A body that is no JSON-RPC message.
    pub text: String,
    /// How it ended, and when.
    pub end: Option<(End, Instant)>,
    response: Option<reqwest::Response>,
    reader: Reader,
}

impl Exchange {
    /// Goes on with the stream of `before` on a new request.
    pub async fn resumed(before: Self, request: reqwest::RequestBuilder) -> Self {
        Self::of(request, before.id).await.after(before)
    }

    /// The same, as the rest of another.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        let mut messages = before.messages;
        messages.extend(self.messages);
        Self {
            started: before.started,
            messages,
            last_id: self.last_id.or(before.last_id),
            comments: before.comments + self.comments,
            ..self
        }
    }

    /// Breaks the connection off.
    pub fn cut(&mut self) {
        self.response = None;
        self.reader = Reader::default();
        self.end = Some((End::Cut("by the client".into()), Instant::now()));
    }

    /// Sends a request and waits for the answer's head.
    pub async fn of(request: reqwest::RequestBuilder, id: u64) -> Self {
        let started = Instant::now();
        let sent = tokio::time::timeout(SILENCE, request.send()).await;
        let mut exchange = Self {
            id,
            started,
            head: None,
            messages: Vec::new(),
            last_id: None,
            comments: 0,
            text: String::new(),
            end: None,
            response: None,
            reader: Reader::default(),
        };
        match sent {
            Ok(Ok(response)) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                exchange.head = Some(Head { at: Instant::now(), status, headers });
                exchange.response = Some(response);
            }
            Ok(Err(error)) => exchange.ended(End::Cut(causes(&error))),
            Err(_) => exchange.ended(End::Stuck),
        }
        exchange
    }

    /// Reads on until something more has come, or the end: then `false`.
    pub async fn more(&mut self) -> bool {
        let stream = self.form() == Form::Stream;
        let Some(response) = &mut self.response else { return false };
        match tokio::time::timeout(SILENCE, response.chunk()).await {
            Ok(Ok(Some(chunk))) if stream => {
                let at = Instant::now();
                for piece in self.reader.take(&chunk) {
                    match piece {
                        Piece::Comment => self.comments += 1,
                        Piece::Event { id, data } => {
                            self.last_id = id.clone().or(self.last_id.take());
                            if data.is_empty() {
                                continue;
                            }
                            let message = serde_json::from_str(&data)
                                .unwrap_or_else(|error| panic!("an event is no JSON ({error}): {data}"));
                            self.messages.push(Arrived { at, id, message });
                        }
                    }
                }
            }
            Ok(Ok(Some(chunk))) => self.text.push_str(&String::from_utf8_lossy(&chunk)),
            Ok(Ok(None)) if stream && self.reader.is_amid() => self.ended(End::Cut("amid an event".into())),
            Ok(Ok(None)) => self.ended(End::Whole),
            Ok(Err(error)) => self.ended(End::Cut(causes(&error))),
            Err(_) => self.ended(End::Stuck),
        }
        self.end.is_none()
    }

    /// Reads to the end.
    pub async fn to_end(mut self) -> Self {
        while self.more().await {}
        self
    }

    /// Reads until that many messages have come, or the end.
    pub async fn read_messages(&mut self, count: usize) {
        while self.messages.len() < count && self.more().await {}
    }

    fn ended(&mut self, end: End) {
        let at = Instant::now();
        self.end = Some((end, at));
        self.response = None;
        if self.form() != Form::Stream
            && let Ok(message) = serde_json::from_str::<Value>(&self.text)
            && message["jsonrpc"] == "2.0"
        {
            self.messages.push(Arrived { at, id: None, message });
        }
    }

    /// The form of the answer.
    #[must_use]
    pub fn form(&self) -> Form {
        match (&self.head, self.header("content-type")) {
            (Some(head), Some("text/event-stream")) if head.status == 200 => Form::Stream,
            (Some(head), Some("application/json")) if head.status == 200 => Form::Json,
            _ => Form::Error,
        }
    }

    /// The status; 0 when no answer came.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.as_ref().map_or(0, |head| head.status)
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.as_ref()?.headers.get(name)?.to_str().ok()
    }

    /// The answer to the request: the message with its id.
    #[must_use]
    pub fn answer(&self) -> Option<&Value> {
        self.messages.iter().map(|arrived| &arrived.message).find(|message| message["id"] == self.id)
    }

    /// The result, if it is one.
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        self.answer()?.get("result")
    }

    /// The JSON-RPC error, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<&Value> {
        self.answer()?.get("error")
    }

    /// The HTTP status that the request was refused with, wherever it stands: in a session it is in the error's data.
    #[must_use]
    pub fn refused(&self) -> Option<u16> {
        let within = self.error().and_then(|error| error["data"]["httpStatus"].as_u64());
        let within = within.and_then(|status| u16::try_from(status).ok());
        within.or_else(|| Some(self.status()).filter(|status| *status >= 400))
    }

    /// Time from sending to the end.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.end.as_ref().map_or_else(|| self.started.elapsed(), |(_, at)| at.duration_since(self.started))
    }

    /// Steps that were reported for this request, in the order in which they came.
    #[must_use]
    pub fn steps(&self) -> Vec<u64> {
        let token = crate::client::progress_token(self.id);
        let messages = self.messages.iter().map(|arrived| &arrived.message);
        messages
            .filter(|message| message["method"] == "notifications/progress")
            .map(|message| &message["params"])
            .filter(|params| params["progressToken"] == token.as_str())
            .map(|params| params["progress"].as_f64().map_or(u64::MAX, |step| step as u64))
            .collect()
    }

    /// What is wrong with it, if it should be whole: steps 1 to `steps` once and in order, then one result,
    /// then the end.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_whole(&self, steps: u64) -> Result<(), String> {
        let fail = |what: &str| Err(format!("{what}: {}", self.outline()));
        if self.form() == Form::Error {
            return fail("no success");
        }
        if !matches!(self.end, Some((End::Whole, _))) {
            return fail("not whole");
        }
        if self.steps() != (1..=steps).collect::<Vec<_>>() {
            return fail(&format!("wants steps 1 to {steps}, once, in order"));
        }
        match self.messages.iter().filter(|arrived| arrived.message["id"] == self.id).count() {
            0 => return fail("no answer"),
            1 => {}
            _ => return fail("more than one answer"),
        }
        if self.messages.last().is_none_or(|last| last.message["id"] != self.id) {
            return fail("something came after the answer");
        }
        if self.result().is_none() {
            return fail("no result");
        }
        if self.messages.len() as u64 != steps + 1 {
            return fail("something came that belongs to no step");
        }
        let ids: Vec<&String> = self.messages.iter().filter_map(|arrived| arrived.id.as_ref()).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        if unique.len() != ids.len() {
            return fail("an event id came twice");
        }
        Ok(())
    }

    /// One line about it, for people.
    #[must_use]
    pub fn outline(&self) -> String {
        let since = |at: Instant| at.duration_since(self.started).as_millis();
        let head = self.head.as_ref().map_or_else(
            || "no head".into(),
            |head| format!("{} {:?} after {} ms", head.status, self.form(), since(head.at)),
        );
        let end = self
            .end
            .as_ref()
            .map_or_else(|| "not ended".into(), |(end, at)| format!("{end:?} after {} ms", since(*at)));
        let answer = self.answer().map_or_else(|| "no answer".into(), ToString::to_string);
        format!("{head}; steps {:?}; {} comments; {answer} {}; {end}", self.steps(), self.comments, self.text)
    }
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_either_gateway_adds_is_not_compared() {
        let headers = |more: [(&'static str, &str); 4]| {
            let all = more.into_iter().chain([("b", "2"), ("a", "1")]);
            all.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let kong = [
            ("x-kong-request-id", "1"),
            ("x-kong-proxy-latency", "2"),
            ("x-kong-upstream-latency", "3"),
            ("date", "4"),
        ];
        let envoy =
            [("x-request-id", "5"), ("x-envoy-upstream-service-time", "6"), ("date", "7"), ("Date", "8")];
        assert_eq!(comparable_headers(&headers(kong)), ["a: 1", "b: 2"]);
        assert_eq!(comparable_headers(&headers(envoy)), ["a: 1", "b: 2"]);
    }
}
