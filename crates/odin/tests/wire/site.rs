//! A whole server in one process, spoken to over HTTP: front end, memory store, worker.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use odin::broadcast::BroadcastKey;
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::protocol::{origin::HostRules, session::SessionKeys};
use odin::runner::RmcpRunner;
use odin::store::{MemoryStore, Store, StoreLimits};
use odin::worker::{Worker, WorkerConfig};
use rmcp::ServerHandler;
use serde_json::{Value, json};

/// A revision of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Stateful,
    Stateless,
}

pub(crate) const ERAS: [Era; 2] = [Era::Stateful, Era::Stateless];

pub(crate) struct Site {
    front: String,
    http: reqwest::Client,
    _worker: Worker,
}

impl Site {
    pub(crate) async fn start<H: ServerHandler>(handler: H, policy: Value) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timing::default(), StoreLimits::default()));
        let config = FrontConfig {
            node: "front".into(),
            server: "default".into(),
            access: Access::Open(HostRules::default()),
            handover: Handover::None,
            hold_after: Duration::from_secs(5),
            sessions: SessionKeys::parse(&BASE64_URL_SAFE_NO_PAD.encode([7; 32])).unwrap(),
            grip: None,
            broadcast: BroadcastKey::random(),
            policy: serde_json::from_value(policy).unwrap(),
            limits: FrontLimits::default(),
            lease: Timing::default().lease,
        };
        let router = Front::start(config, store.clone(), None).router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let runner = Arc::new(RmcpRunner::new(Arc::new(handler)));
        runner.learn().await.unwrap();
        let beats = store.clone();
        let worker =
            Worker::start(WorkerConfig::new("default"), store, Box::new(move || beats), runner, None);
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { front, http, _worker: worker.unwrap() }
    }

    /// Posts a body as it is. Gives the status and the answer: the document, or the last message of the stream.
    pub(crate) async fn post(
        &self,
        organisation: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (u16, Value) {
        let response = self.open(organisation, headers, body).await;
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&text);
        (status, serde_json::from_str(last).unwrap_or_default())
    }

    /// Posts a body, and gives the answer as it comes.
    pub(crate) async fn open(
        &self,
        organisation: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> reqwest::Response {
        let url = format!("{}/api/v1/mcp/{organisation}", self.front);
        let mut request = self.http.post(url).body(body);
        request = request.header("content-type", "application/json");
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Begins a session of a revision; gives its id.
    pub(crate) async fn session(&self, organisation: &str, revision: &str, capabilities: Value) -> String {
        let params = json!({
            "protocolVersion": revision, "capabilities": capabilities, "clientInfo": { "name": "c", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let response = self.open(organisation, &[], body.to_string()).await;
        assert_eq!(response.status().as_u16(), 200);
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// Asks in an era for an organisation. `params` get the `_meta` that the era needs.
    pub(crate) async fn ask(&self, era: Era, organisation: &str, method: &str, mut params: Value) -> Value {
        let name = ["name", "uri"].iter().find_map(|key| params[*key].as_str().map(str::to_owned));
        match era {
            Era::Stateful => {
                let session = self.session(organisation, "2025-11-25", json!({})).await;
                let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
                let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
                self.post(organisation, &headers, body.to_string()).await.1
            }
            Era::Stateless => {
                params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
                params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
                let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
                let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
                if let Some(name) = name
                    .as_deref()
                    .filter(|_| matches!(method, "tools/call" | "prompts/get" | "resources/read"))
                {
                    headers.push(("mcp-name", name));
                }
                self.post(organisation, &headers, body.to_string()).await.1
            }
        }
    }
}
