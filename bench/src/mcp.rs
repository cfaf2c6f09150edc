//! MCP requests, as bytes that are ready to be sent.

use serde_json::{Value, json};

use crate::Result;
use crate::cpu::Part;
use crate::wire::Connection;

/// The revision of the stateless era.
const MODERN: &str = "2026-07-28";
/// The latest revision with sessions.
const SESSION: &str = "2025-11-25";

/// An MCP endpoint, and what it consists of.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What it is called in tables.
    pub name: String,
    /// Host and port.
    pub host: String,
    /// The path.
    pub path: String,
    /// The bearer token.
    pub token: Option<String>,
    /// The parts whose CPU time is taken.
    pub parts: Vec<Part>,
}

impl Endpoint {
    /// From a URL.
    pub fn new(name: &str, url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!(
                "{url} must begin with http://: with TLS the load program would measure its own cryptography"
            )
        })?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        Ok(Self { name: name.to_owned(), host, path: format!("/{path}"), token: None, parts: Vec::new() })
    }

    /// With a token.
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// With parts.
    pub fn with_parts(mut self, parts: Vec<Part>) -> Self {
        self.parts = parts;
        self
    }

    fn request(&self, headers: &str, body: &str) -> Vec<u8> {
        let Self { host, path, .. } = self;
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n"));
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench/1\r\n\
             accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n{headers}{}\
             content-length: {}\r\n\r\n{body}",
            token.unwrap_or_default(),
            body.len()
        )
        .into_bytes()
    }

    /// A request of the stateless era.
    pub fn modern(&self, method: &str, name: Option<&str>, mut params: Value) -> Vec<u8> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        match params.get_mut("_meta").and_then(Value::as_object_mut) {
            Some(given) => given.extend(meta.as_object().cloned().unwrap_or_default()),
            None => params["_meta"] = meta,
        }
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let name = name.map(|name| format!("mcp-name: {name}\r\n")).unwrap_or_default();
        let headers = format!("mcp-protocol-version: {MODERN}\r\nmcp-method: {method}\r\n{name}");
        self.request(&headers, &message.to_string())
    }

    /// A request, or with no id a notification, of a session.
    pub fn of_session(&self, session: Option<&str>, id: Option<u64>, method: &str, params: Value) -> Vec<u8> {
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if let Some(id) = id {
            message["id"] = json!(id);
        }
        let headers =
            session.map(|id| format!("mcp-protocol-version: {SESSION}\r\nmcp-session-id: {id}\r\n"));
        self.request(&headers.unwrap_or_default(), &message.to_string())
    }

    /// Begins a session; its id. A server that gives none has no sessions.
    pub async fn session(&self, connection: &mut Connection) -> Result<Option<String>> {
        let client = json!({"name": "bench", "version": "1"});
        let params = json!({"protocolVersion": SESSION, "capabilities": {}, "clientInfo": client});
        let mut body = Vec::new();
        let request = self.of_session(None, Some(1), "initialize", params);
        let head = connection.exchange(&request, &mut body).await?;
        if head.status != 200 {
            return Err(self.refused(head.status, &body));
        }
        let noted = self.of_session(head.session.as_deref(), None, "notifications/initialized", json!({}));
        connection.exchange(&noted, &mut body).await?;
        Ok(head.session)
    }

    /// An error that says what the endpoint answered.
    pub fn refused(&self, status: u16, body: &[u8]) -> Box<dyn std::error::Error + Send + Sync> {
        let text: String = String::from_utf8_lossy(body).chars().take(400).collect();
        format!("http://{}{} answered {status}: {text}", self.host, self.path).into()
    }
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// Whether progress is asked for.
    pub progress: bool,
    /// What every good answer contains.
    pub expected: String,
}

impl Call {
    /// The quick call that is measured everywhere.
    pub fn echo() -> Self {
        let text = "the quick brown fox";
        Self::new("echo", json!({"text": text}), text)
    }

    /// Any.
    pub fn new(tool: &str, arguments: Value, expected: &str) -> Self {
        Self { tool: tool.to_owned(), arguments, progress: false, expected: expected.to_owned() }
    }

    /// The same, with progress.
    pub fn with_progress(mut self) -> Self {
        self.progress = true;
        self
    }

    fn params(&self) -> Value {
        let mut params = json!({"name": self.tool, "arguments": self.arguments});
        if self.progress {
            params["_meta"] = json!({"progressToken": "p"});
        }
        params
    }

    /// As a request of the stateless era.
    pub fn modern(&self, endpoint: &Endpoint) -> Vec<u8> {
        endpoint.modern("tools/call", Some(&self.tool), self.params())
    }

    /// As a request of a session.
    pub fn of_session(&self, endpoint: &Endpoint, session: Option<&str>) -> Vec<u8> {
        endpoint.of_session(session, Some(2), "tools/call", self.params())
    }

    /// Whether an answer is good.
    pub fn is_answered(&self, status: u16, body: &[u8]) -> bool {
        let expected = self.expected.as_bytes();
        status == 200 && (expected.is_empty() || body.windows(expected.len()).any(|part| part == expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let endpoint = Endpoint::new("x", "http://example.test:81/a/b").unwrap();
        assert_eq!((&*endpoint.host, &*endpoint.path), ("example.test:81", "/a/b"));
        let endpoint = Endpoint::new("x", "http://example.test").unwrap();
        assert_eq!((&*endpoint.host, &*endpoint.path), ("example.test:80", "/"));
        assert!(Endpoint::new("x", "https://example.test").unwrap_err().to_string().contains("TLS"));
    }

    #[test]
    fn a_call_says_all_that_its_era_wants() {
        let endpoint = Endpoint::new("x", "http://h:1/mcp").unwrap().with_token(Some("t".to_owned()));
        let call = Call::echo().with_progress();
        let modern = String::from_utf8(call.modern(&endpoint)).unwrap();
        let (head, body) = modern.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        for line in
            ["POST /mcp HTTP/1.1", "authorization: Bearer t", "mcp-method: tools/call", "mcp-name: echo"]
        {
            assert!(head.lines().any(|found| found == line), "{line} in {head}");
        }
        let meta = &body["params"]["_meta"];
        assert_eq!(meta["progressToken"], "p");
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
        let session = String::from_utf8(call.of_session(&endpoint, Some("s1"))).unwrap();
        assert!(session.contains("mcp-session-id: s1\r\n") && !session.contains("mcp-method"), "{session}");
    }

    #[test]
    fn only_the_expected_answer_is_good() {
        let call = Call::echo();
        assert!(call.is_answered(200, b"{\"text\":\"the quick brown fox\"}"));
        assert!(!call.is_answered(200, b"{}") && !call.is_answered(500, b"the quick brown fox"));
    }
}
