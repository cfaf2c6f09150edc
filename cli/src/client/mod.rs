//! A small MCP client of the modern era (2026-07-28): one POST a request, answered by one JSON document or by a
//! stream of server-sent events.

pub mod elicit;
pub mod sse;

use std::time::Duration;

use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use crate::health::cause;
use crate::problem::{Problem, Result};
use sse::Events;

/// The revision that it speaks.
pub const REVISION: &str = "2026-07-28";
/// Largest answer, or event of a stream, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A client of one MCP endpoint.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// How an answer came: for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON document.
    Json,
    /// A stream of events.
    Stream,
}

/// A result, and how it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON-RPC result.
    pub result: Value,
    /// The form of the answer.
    pub form: Form,
}

impl Client {
    /// A client for this endpoint and token.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Problem::new(format!("cannot make an HTTP client: {e}")))?;
        Ok(Self { http, url: url.into(), token: token.into() })
    }

    /// Sends a request and waits for its result. `notified` sees each notification on the way (method, parameters).
    ///
    /// # Errors
    /// A connection that fails or breaks, a refusal, a JSON-RPC error.
    pub async fn request(
        &self,
        method: &str,
        params: Value,
        headers: &[(String, String)],
        mut notified: impl FnMut(&str, &Value),
    ) -> Result<Answer> {
        let id = format!("asgard-{:016x}", rand::random::<u64>());
        let message = self.message(&id, method, params);
        let name = message.pointer("/params/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut request = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", method);
        if method == "tools/call" {
            request = request.header("mcp-name", header_value(&name));
        }
        for (name, value) in headers {
            request = request.header(name, header_value(value));
        }
        let unreachable = |e: reqwest::Error| {
            Problem::new(format!("cannot reach {}: {}", self.url, cause(&e)))
                .hint("start the stack with ./asgard up, or see what ./asgard status says")
        };
        let mut response = request.body(message.to_string()).send().await.map_err(unreachable)?;
        let (status, kind) = (response.status(), media_type(&response));
        if kind != "text/event-stream" {
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e))? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ANSWER {
                    return Err(Problem::new(format!("the answer is larger than {} MB", MAX_ANSWER >> 20)));
                }
            }
            return self.document(&id, status, &kind, &body, &response);
        }
        let mut events = Events::new(MAX_ANSWER);
        while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e))? {
            for data in events.feed(&chunk).map_err(Problem::new)? {
                let message: Value = serde_json::from_str(&data)
                    .map_err(|e| Problem::new(format!("the stream has an event that is no JSON: {e}")))?;
                if let Some(method) = message.get("method").and_then(Value::as_str) {
                    notified(method, message.get("params").unwrap_or(&Value::Null));
                } else if message.get("id").and_then(Value::as_str) == Some(&id)
                    || message.get("id") == Some(&Value::Null)
                {
                    return outcome(message).map(|result| Answer { result, form: Form::Stream });
                }
            }
        }
        Err(Problem::new("the stream ended before the result came")
            .hint("see ./asgard status, then call again"))
    }

    fn message(&self, id: &str, method: &str, params: Value) -> Value {
        let mut params = match params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        let mut meta = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": {"name": "asgard", "version": env!("CARGO_PKG_VERSION")},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        });
        if let (Some(meta), "tools/call") = (meta.as_object_mut(), method) {
            meta.insert("progressToken".to_owned(), json!(id));
        }
        params.insert("_meta".to_owned(), meta);
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    }

    fn document(
        &self,
        id: &str,
        status: StatusCode,
        kind: &str,
        body: &[u8],
        response: &reqwest::Response,
    ) -> Result<Answer> {
        let message =
            (kind == "application/json").then(|| serde_json::from_slice::<Value>(body).ok()).flatten();
        if let Some(message) = message.as_ref().filter(|message| message.get("jsonrpc").is_some()) {
            let own = message.get("id").is_none_or(|other| other.is_null() || other.as_str() == Some(id));
            if own {
                return outcome(message.clone()).map(|result| Answer { result, form: Form::Json });
            }
        }
        Err(refusal(status, message.as_ref(), body, response))
    }

    /// All tools, over all pages.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn tools(&self) -> Result<Vec<Value>> {
        let (mut tools, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..100 {
            let params = cursor.take().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let page = self.request("tools/list", params, &[], |_, _| {}).await?.result;
            tools.extend(page.get("tools").and_then(Value::as_array).cloned().unwrap_or_default());
            cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        Err(Problem::new("the list of tools does not end"))
    }
}

fn media_type(response: &reqwest::Response) -> String {
    let value =
        response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn broken(error: &reqwest::Error) -> Problem {
    Problem::new(format!("the connection broke before the result came: {}", cause(error)))
        .hint("see ./asgard status, then call again")
}

/// The result of a JSON-RPC answer, or its error as a problem.
fn outcome(message: Value) -> Result<Value> {
    if let Some(error) = message.get("error") {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        let text = error.get("message").and_then(Value::as_str).unwrap_or("no message");
        return Err(Problem::new(format!("the server answers with error {code}: {}", one_line(text))));
    }
    match message {
        Value::Object(mut message) => message.remove("result"),
        _ => None,
    }
    .ok_or_else(|| Problem::new("the answer has neither a result nor an error"))
}

/// An answer that is no JSON-RPC: the gateway, or something on the way.
fn refusal(
    status: StatusCode,
    message: Option<&Value>,
    body: &[u8],
    response: &reqwest::Response,
) -> Problem {
    let message =
        message.and_then(|m| m.get("message").or_else(|| m.get("error_description")).and_then(Value::as_str));
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let problem = Problem::new(format!("the answer is {}: {}", status.as_u16(), one_line(&text)));
    match status.as_u16() {
        401 | 403 => {
            problem.hint("see which organisation and scopes the token has: ./asgard token USER --org ORG")
        }
        429 | 503 => {
            let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
            problem.hint(after.map_or_else(
                || "see ./asgard status and ./asgard logs gateway".to_owned(),
                |seconds| format!("try again in {seconds} s"),
            ))
        }
        502 | 504 => problem.hint("see ./asgard status and ./asgard logs gateway"),
        _ => problem,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

/// A value as a header can carry it: as it is, or as `=?base64?…?=` (transports, value encoding).
#[must_use]
pub fn header_value(value: &str) -> String {
    let plain = value.bytes().all(|b| (0x20..0x7f).contains(&b))
        && value.trim() == value
        && !value.is_empty()
        && !(value.starts_with("=?base64?") && value.ends_with("?="));
    if plain {
        return value.to_owned();
    }
    format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(value))
}

#[cfg(test)]
mod tests;
