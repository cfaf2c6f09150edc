//! A whole server in one process, spoken to over HTTP: front end, memory store, worker.

use std::sync::Arc;
use std::time::Duration;

use kit::values::{endpoint, initialize, request, with_meta};
use odin::runner::RmcpRunner;
use odin::worker::Worker;
use rmcp::ServerHandler;
use serde_json::{Value, json};

/// A revision of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Stateful,
    Stateless,
}

pub(crate) const ERAS: [Era; 2] = [Era::Stateful, Era::Stateless];

pub(crate) struct HttpServer {
    parts: kit::Site,
    _worker: Worker,
}

impl HttpServer {
    pub(crate) async fn start<H: ServerHandler>(handler: H, policy: Value) -> Self {
        let site = kit::Site::over(kit::site::memory()).config(move |config| {
            config.hold_after = Duration::from_secs(5);
            config.policy = serde_json::from_value(policy.clone()).unwrap();
        });
        let site = site.start().await;
        let runner = RmcpRunner::new(Arc::new(handler));
        runner.learn().await.unwrap();
        let _worker = site.worker(runner);
        Self { parts: site, _worker }
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
        let mut request = self.parts.http.post(self.parts.url(&endpoint(organisation))).body(body);
        request = request.header("content-type", "application/json");
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Begins a session of a revision; gives its id.
    pub(crate) async fn session(&self, organisation: &str, revision: &str, capabilities: Value) -> String {
        let body = request(0, "initialize", initialize(revision, capabilities));
        let response = self.open(organisation, &[], body.to_string()).await;
        assert_eq!(response.status().as_u16(), 200);
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// Asks in an era for an organisation. `params` get the `_meta` that the era needs.
    pub(crate) async fn ask(&self, era: Era, organisation: &str, method: &str, params: Value) -> Value {
        let name = ["name", "uri"].iter().find_map(|key| params[*key].as_str().map(str::to_owned));
        match era {
            Era::Stateful => {
                let session = self.session(organisation, "2025-11-25", json!({})).await;
                let body = request(1, method, params);
                let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
                self.post(organisation, &headers, body.to_string()).await.1
            }
            Era::Stateless => {
                let body = request(1, method, with_meta(params, json!({})));
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
