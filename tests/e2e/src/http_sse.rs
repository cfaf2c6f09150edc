//! A client of HTTP+SSE, the transport of revision 2024-11-05.

use serde_json::{Value, json};

use crate::client::http;
use crate::sse::{Piece, Reader};

/// A client with its one stream.
#[derive(Debug)]
pub struct SseClient {
    http: reqwest::Client,
    token: String,
    /// Where messages are posted to.
    pub endpoint: String,
    stream: Option<reqwest::Response>,
    reader: Reader,
    /// All messages so far, in order.
    pub messages: Vec<Value>,
    next: u64,
}

impl SseClient {
    /// Opens the stream at an address that ends in `/sse`, and begins the session.
    pub async fn connect(url: &str, token: &str) -> Self {
        let mut client = Self::open(url, token).await;
        let params = json!({
            "protocolVersion": "2024-11-05",
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "asgard-e2e", "version": "1"},
        });
        let result = client.request("initialize", params).await;
        assert_eq!(result["result"]["protocolVersion"], "2024-11-05", "{result}");
        assert_eq!(client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await, 202);
        client
    }

    /// Opens the stream, and reads the address to post to.
    pub async fn open(url: &str, token: &str) -> Self {
        let http = http();
        let get = http.get(url).header("accept", "text/event-stream");
        let get = if token.is_empty() { get } else { get.bearer_auth(token) };
        let stream = get.send().await.unwrap();
        assert_eq!(stream.status().as_u16(), 200, "{stream:?}");
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        let mut client = Self {
            http,
            token: token.to_owned(),
            endpoint: String::new(),
            stream: Some(stream),
            reader: Reader::default(),
            messages: Vec::new(),
            next: 1,
        };
        let first = client.event().await;
        let base = reqwest::Url::parse(url).unwrap();
        client.endpoint = base.join(&first).unwrap().to_string();
        client
    }

    /// Closes the stream. The client can still post.
    pub fn leave(&mut self) {
        self.stream = None;
    }

    async fn event(&mut self) -> String {
        loop {
            let stream = self.stream.as_mut().expect("the client has not left");
            let chunk = stream.chunk().await.unwrap().expect("the stream goes on");
            let mut data = self.reader.take(&chunk).into_iter().filter_map(|piece| match piece {
                Piece::Event { data, .. } => Some(data),
                Piece::Comment => None,
            });
            if let Some(first) = data.next() {
                self.messages.extend(data.map(|data| serde_json::from_str(&data).unwrap()));
                return first;
            }
        }
    }

    /// Waits for the next message.
    pub async fn message(&mut self) -> Value {
        let before = self.messages.len();
        let data = tokio::time::timeout(std::time::Duration::from_secs(40), self.event()).await;
        let message: Value = serde_json::from_str(&data.expect("a message comes")).unwrap();
        self.messages.insert(before, message.clone());
        message
    }

    /// Waits until a message satisfies the condition, looking at those that came since `from` first.
    pub async fn until(&mut self, mut from: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            while let Some(message) = self.messages.get(from) {
                if wanted(message) {
                    return message.clone();
                }
                from += 1;
            }
            self.message().await;
        }
    }

    /// Posts a message; the status.
    pub async fn post(&self, message: &Value) -> u16 {
        let post = self.http.post(&self.endpoint).header("content-type", "application/json");
        let post = if self.token.is_empty() { post } else { post.bearer_auth(&self.token) };
        post.body(message.to_string()).send().await.unwrap().status().as_u16()
    }

    /// Sends a request without waiting for the answer; its id.
    pub async fn send(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        assert_eq!(self.post(&message).await, 202, "{message}");
        id
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let from = self.messages.len();
        let id = self.send(method, params).await;
        self.until(from, |message| message["id"] == id && message.get("method").is_none()).await
    }
}
