//! A client that sends anything and judges the answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How long the head of an answer may take.
pub(crate) const HEAD: Duration = Duration::from_secs(25);
/// How long a stream is listened to.
const LISTEN: Duration = Duration::from_millis(400);

/// The endpoint.
pub(crate) const PATH: &str = "/api/v1/mcp/org-1";

/// A request with any headers and body.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Ask {
    /// A POST with the headers that every client sends.
    pub(crate) fn post(body: &Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("accept", "application/json, text/event-stream".parse().unwrap());
        Self { method: Method::POST, path: PATH.into(), headers, body: body.to_string().into_bytes() }
    }

    /// A request of revision 2026-07-28, whole.
    pub(crate) fn modern(method: &str, mut params: Value, more: &Value) -> Self {
        let mut meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "edges", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}, "roots": {}},
        });
        for (key, value) in more.as_object().unwrap() {
            meta[key] = value.clone();
        }
        let name = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(str::to_owned);
        params["_meta"] = meta;
        let ask = Self::post(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        let ask = ask.with("mcp-protocol-version", "2026-07-28").with("mcp-method", method);
        match name {
            Some(name) => ask.with("mcp-name", &name),
            None => ask,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// Sends it on a connection of its own, and reads the answer; of a stream only what comes soon.
    pub(crate) async fn send(self, to: SocketAddr) -> Said {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driven = tokio::spawn(connection);
        let mut request = Request::new(Full::new(Bytes::from(self.body)));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().unwrap();
        *request.headers_mut() = self.headers;
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", "localhost".parse().unwrap());
        }
        let answer = timeout(HEAD, sender.send_request(request)).await.expect("an answer in time").unwrap();
        let (head, mut body) = answer.into_parts();
        let streams = head.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let until = Instant::now() + if streams { LISTEN } else { HEAD };
        let mut read = Vec::new();
        while let Ok(Some(frame)) = timeout_at(until, body.frame()).await {
            if let Ok(data) = frame.expect("a whole body").into_data() {
                read.extend_from_slice(&data);
            }
        }
        drop(body);
        driven.abort();
        let body = String::from_utf8(read).expect("UTF-8");
        Said { status: head.status, headers: head.headers, body }
    }
}

impl Said {
    /// The one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the error in it.
    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {self:?}"))
    }

    /// The messages of a stream, or the one document.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if self.headers.get("content-type").is_none_or(|kind| kind != "text/event-stream") {
            return vec![self.json()];
        }
        events(&self.body).iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// The data of the whole events, those without any left out.
pub(crate) fn events(text: &str) -> Vec<String> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let of = |event: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    whole.split("\n\n").map(of).filter(|data| !data.is_empty()).collect()
}
