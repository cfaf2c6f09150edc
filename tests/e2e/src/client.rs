//! An MCP client of either era, which hides nothing of what it gets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::exchange::Exchange;
use crate::stack::{EntryPoint, Stack};
use crate::tokens;

/// The revision of the stateless era.
pub const MODERN: &str = "2026-07-28";
/// The latest revision with sessions.
pub const SESSION: &str = "2025-11-25";

/// A client of a stateless or of a stateful revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    /// No sessions: each request says all.
    Stateless,
    /// `initialize`, and a session from there on.
    Stateful,
}

/// An HTTP client with no proxy; `localhost` is 127.0.0.1.
#[must_use]
pub fn http() -> reqwest::Client {
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    reqwest::Client::builder()
        .no_proxy()
        .resolve("localhost", loopback)
        .resolve("org-1.localhost", loopback)
        .resolve("org-2.localhost", loopback)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// One MCP client.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The endpoint.
    pub endpoint: String,
    /// The bearer token; empty: none is sent.
    pub token: String,
    /// The session; none in the stateless era.
    pub session: Option<String>,
    /// What the client says that it can do.
    pub capabilities: Value,
    next: AtomicU64,
}

impl Client {
    /// A modern client of a user and organisation at an entry point.
    pub async fn modern(stack: &Stack, entry_point: EntryPoint, user: &str, organisation: &str) -> Self {
        Self::at(stack.endpoint(entry_point, organisation), tokens::token(stack, user, organisation).await)
    }

    /// A client with a session at an entry point.
    pub async fn session(stack: &Stack, entry_point: EntryPoint, user: &str, organisation: &str) -> Self {
        Self::modern(stack, entry_point, user, organisation).await.initialized().await
    }

    /// A client of an era.
    pub async fn of(
        era: Era,
        stack: &Stack,
        entry_point: EntryPoint,
        user: &str,
        organisation: &str,
    ) -> Self {
        match era {
            Era::Stateless => Self::modern(stack, entry_point, user, organisation).await,
            Era::Stateful => Self::session(stack, entry_point, user, organisation).await,
        }
    }

    /// A modern client of any address.
    #[must_use]
    pub fn at(endpoint: String, token: String) -> Self {
        Self {
            http: http(),
            endpoint,
            token,
            session: None,
            capabilities: json!({}),
            next: AtomicU64::new(1),
        }
    }

    /// The same, saying that it can ask its user.
    #[must_use]
    pub fn with_user(mut self) -> Self {
        self.capabilities = json!({"elicitation": {}});
        self
    }

    /// The same, saying that it knows tasks.
    #[must_use]
    pub fn with_tasks(mut self) -> Self {
        self.capabilities["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        self
    }

    /// Begins a session.
    pub async fn initialized(mut self) -> Self {
        let exchange = self.initialize().await;
        let result = exchange.result().unwrap_or_else(|| panic!("initialize failed: {}", exchange.outline()));
        assert_eq!(result["protocolVersion"], SESSION);
        let session = exchange.header("mcp-session-id").expect("initialize begins a session").to_owned();
        self.session = Some(session);
        let noted = self.notify("notifications/initialized", json!({})).await;
        assert_eq!(noted, 202, "notifications/initialized");
        self
    }

    /// Sends `initialize` of the stateful era.
    pub async fn initialize(&self) -> Exchange {
        let params = json!({
            "protocolVersion": SESSION,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "asgard-e2e", "version": "1"},
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params});
        Exchange::of(self.post().body(message.to_string()), id).await.to_end().await
    }

    /// The same session with connections of its own, at another address.
    #[must_use]
    pub fn moved(&self, endpoint: String) -> Self {
        Self {
            http: http(),
            endpoint,
            token: self.token.clone(),
            session: self.session.clone(),
            capabilities: self.capabilities.clone(),
            next: AtomicU64::new(1_000),
        }
    }

    /// Calls a tool without asking for progress, to its end.
    pub async fn tool(&self, name: &str, arguments: Value) -> Exchange {
        self.open_tool(name, arguments, false).await.to_end().await
    }

    /// Calls a tool and asks for progress, to its end.
    pub async fn tool_with_progress(&self, name: &str, arguments: Value) -> Exchange {
        self.open_tool(name, arguments, true).await.to_end().await
    }

    /// Calls a tool and returns when the answer begins.
    pub async fn open_tool(&self, name: &str, arguments: Value, progress: bool) -> Exchange {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut params = json!({"name": name, "arguments": arguments});
        if progress {
            params["_meta"] = json!({"progressToken": progress_token(id)});
        }
        Exchange::of(self.build(id, "tools/call", params), id).await
    }

    /// Sends a request, to the end of the answer.
    pub async fn request(&self, method: &str, params: Value) -> Exchange {
        self.open(method, params).await.to_end().await
    }

    /// Sends a request and returns when the answer begins.
    pub async fn open(&self, method: &str, params: Value) -> Exchange {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Exchange::of(self.build(id, method, params), id).await
    }

    /// The request for [`Client::open`], for tests that change something in it.
    pub fn build(&self, id: u64, method: &str, mut params: Value) -> reqwest::RequestBuilder {
        let mut post = self.post();
        if self.session.is_none() {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": self.capabilities,
                "io.modelcontextprotocol/clientInfo": {"name": "asgard-e2e", "version": "1"},
            });
            for (key, value) in meta.as_object().unwrap() {
                params["_meta"][key] = value.clone();
            }
            post = post.header("mcp-protocol-version", MODERN).header("mcp-method", method);
            if let Some(name) = params["name"].as_str().or(params["taskId"].as_str()) {
                post = post.header("mcp-name", name);
            }
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        post.body(message.to_string())
    }

    /// Sends a notification; its status.
    pub async fn notify(&self, method: &str, params: Value) -> u16 {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.post().body(message.to_string()).send().await.unwrap().status().as_u16()
    }

    /// Answers a request of the server; the status.
    pub async fn reply(&self, id: &Value, result: Value) -> u16 {
        let message = json!({"jsonrpc": "2.0", "id": id, "result": result});
        self.post().body(message.to_string()).send().await.unwrap().status().as_u16()
    }

    /// Asks for the session's own stream.
    pub async fn listen(&self) -> Exchange {
        Exchange::of(self.get(None), 0).await
    }

    /// Resumes a stream after its last event.
    pub async fn resume(&self, before: Exchange) -> Exchange {
        let last = before.last_id.clone();
        Exchange::resumed(before, self.get(last.as_deref())).await
    }

    /// A GET, with the id of the last event.
    pub fn get(&self, last_event_id: Option<&str>) -> reqwest::RequestBuilder {
        let get = self.with_headers(self.http.get(&self.endpoint));
        match last_event_id {
            Some(id) => get.header("last-event-id", id),
            None => get,
        }
    }

    /// Ends the session; the status.
    pub async fn delete(&self) -> u16 {
        self.end().send().await.unwrap().status().as_u16()
    }

    /// The request for [`Client::delete`].
    pub fn end(&self) -> reqwest::RequestBuilder {
        self.with_headers(self.http.delete(&self.endpoint))
    }

    /// A POST with all headers but those of the stateless era.
    pub fn post(&self) -> reqwest::RequestBuilder {
        self.with_headers(self.http.post(&self.endpoint)).header("content-type", "application/json")
    }

    fn with_headers(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let mut request = request.header("accept", "application/json, text/event-stream");
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", SESSION);
        }
        request
    }
}

/// The progress token of the request with that id.
#[must_use]
pub fn progress_token(id: u64) -> String {
    format!("p-{id}")
}
