//! Clients that hide nothing of what they get.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::deployment::USER;

const PATIENCE: Duration = Duration::from_secs(60);
pub const MODERN: &str = "2026-07-28";
pub const SESSION: &str = "2025-11-25";

/// One user of one organisation, at one edge.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub edge: SocketAddr,
    pub user: String,
    pub organisation: String,
    pub session: Option<String>,
    /// It knows tasks.
    pub tasks: bool,
}

impl Client {
    pub fn new(edge: SocketAddr, user: &str, organisation: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, edge, user: user.into(), organisation: organisation.into(), session: None, tasks: false }
    }

    /// The same user with a new session.
    pub async fn with_session(mut self) -> Self {
        let params = json!({
            "protocolVersion": SESSION, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let answer = self.post().body(message.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        self.session = Some(answer.headers()["mcp-session-id"].to_str().unwrap().to_owned());
        self
    }

    fn url(&self) -> String {
        format!("http://{}/api/v1/mcp/{}", self.edge, self.organisation)
    }

    fn head(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = request
            .header("host", "localhost:8000")
            .header("accept", "application/json, text/event-stream")
            .header(USER, &self.user);
        match &self.session {
            Some(session) => {
                request.header("mcp-session-id", session).header("mcp-protocol-version", SESSION)
            }
            None => request,
        }
    }

    fn post(&self) -> reqwest::RequestBuilder {
        self.head(self.http.post(self.url())).header("content-type", "application/json")
    }

    fn modern(&self, id: &str, method: &str, params: &Value) -> reqwest::RequestBuilder {
        let capabilities = match self.tasks {
            true => json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } }),
            false => json!({}),
        };
        let mut params = params.clone();
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        });
        let mut post = self.post().header("mcp-protocol-version", MODERN).header("mcp-method", method);
        if let Some(name) = params["name"].as_str() {
            post = post.header("mcp-name", name);
        }
        post.body(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#))
    }

    /// A request of either era, to the end of its answer; the last message.
    pub async fn request(&self, method: &str, params: Value) -> Value {
        let request = match &self.session {
            Some(_) => {
                let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
                self.post().body(message.to_string())
            }
            None => self.modern("7", method, &params),
        };
        let text = timeout(PATIENCE, async { request.send().await.unwrap().text().await.unwrap() });
        let text = text.await.unwrap();
        let json = text.trim_end().rsplit("data: ").next().unwrap();
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{method}: {error}: {text}"))
    }

    /// Opens a stateless stream; `id` is JSON.
    pub async fn listen(&self, id: &str, notifications: Value) -> Stream {
        let request = self.modern(id, "subscriptions/listen", &json!({ "notifications": notifications }));
        Stream::of(request).await
    }

    /// Ends the session.
    pub async fn delete(&self) {
        let answer = self.head(self.http.delete(self.url())).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Opens the session's own stream.
    pub async fn get(&self, last_event_id: Option<&str>) -> Stream {
        let mut request = self.head(self.http.get(self.url()));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        Stream::of(request).await
    }
}

/// A stream that is being read.
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The id of the last event that had one.
    pub last_id: Option<String>,
    /// How long the server wants its clients to stay away, in milliseconds.
    pub retry: Option<u64>,
}

impl Stream {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        let status = response.status();
        let is_stream =
            response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream");
        if status != 200 || !is_stream {
            panic!("{status} {}", response.text().await.unwrap());
        }
        Self { response, buffer: Vec::new(), last_id: None, retry: None }
    }

    /// The next event's data, empty ones included. None: the stream has ended; an error: it was cut.
    async fn event(&mut self) -> Result<Option<String>, String> {
        // Comments that keep the stream alive don't count.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let Some(id) = field("id: ") {
                    self.last_id = Some(id.to_owned());
                }
                if let Some(retry) = field("retry: ") {
                    self.retry = Some(retry.parse().unwrap());
                }
                if let Some(data) = field("data:") {
                    return Ok(Some(data.trim_start().to_owned()));
                }
                continue;
            }
            match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("nothing came for a minute".into()),
            }
        }
    }

    /// The next message.
    pub async fn try_next(&mut self) -> Result<Option<Value>, String> {
        loop {
            match self.event().await? {
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    return Ok(Some(
                        serde_json::from_str(&data).map_err(|error| format!("{error}: {data}"))?,
                    ));
                }
                None => return Ok(None),
            }
        }
    }

    pub async fn next(&mut self) -> Value {
        self.try_next().await.unwrap().expect("the stream ended")
    }

    /// Waits for the event that primes a session's stream.
    pub async fn primed(&mut self) -> String {
        while self.last_id.is_none() {
            self.event().await.unwrap().expect("the stream ended");
        }
        self.last_id.clone().unwrap()
    }

    /// The next message is this notification; its parameters.
    pub async fn expect(&mut self, method: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], format!("notifications/{method}"), "{message}");
        message["params"].clone()
    }

    /// The stream ends here, without another message.
    pub async fn ended(&mut self) {
        assert_eq!(self.try_next().await, Ok(None));
    }
}
