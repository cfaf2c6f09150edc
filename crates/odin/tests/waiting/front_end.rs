//! One front end whose patience is short, and workers when they are wanted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use identity::EntryPoint;
use kit::values::{self, assertion, assertion_keys, principal, with_meta};
use odin::front::{FrontLimits, Handover};
use odin::program::process;
use odin::runner::RmcpRunner;
use odin::worker::Worker;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/mcp/org-1";

type Journal = Arc<Mutex<Vec<String>>>;

/// A server whose one tool has an effect.
#[derive(Clone)]
struct Notes {
    journal: Journal,
}

#[derive(serde::Deserialize, rmcp::schemars::JsonSchema)]
struct Note {
    text: String,
}

#[tool_router]
impl Notes {
    #[tool(description = "Notes a text.")]
    fn note(&self, Parameters(Note { text }): Parameters<Note>) -> String {
        self.journal.lock().unwrap().push(text.clone());
        format!("noted {text}")
    }
}

#[tool_handler]
impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
    }
}

pub struct FrontEnd {
    pub parts: kit::Site,
    journal: Journal,
}

impl FrontEnd {
    /// A site with no worker, whose Pushpin is not there.
    pub async fn start() -> Self {
        let queue_patience = Duration::from_millis(300);
        Self::with_limits(FrontLimits::default().with_queue_patience(queue_patience)).await
    }

    /// The same with other bounds.
    pub async fn with_limits(limits: FrontLimits) -> Self {
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = format!("tcp://{nowhere}");
        let (publisher, _) = process::publisher(process::pushpins(&nowhere).unwrap()).unwrap();
        let site = kit::Site::over(kit::site::memory()).publisher(publisher).config(move |config| {
            config.access = assertion_keys().into();
            config.handover = Handover::Envoy;
            config.hold_after = Duration::from_millis(20);
            config.grip = Some(("pushpin".into(), b"key".to_vec()));
            // With a rule, lists are looked through.
            let policy = json!({ "rules": [{ "effect": "deny", "names": ["drop*"] }] });
            config.policy = serde_json::from_value(policy).unwrap();
            config.limits = limits.clone();
        });
        Self { parts: site.start().await, journal: Journal::default() }
    }

    pub fn worker(&self) -> Worker {
        self.parts.worker(RmcpRunner::new(Arc::new(Notes { journal: self.journal.clone() })))
    }

    /// Ends a worker; it takes nothing more.
    pub async fn end(&self, worker: Worker) {
        worker.shut_down(Duration::from_secs(5)).await;
    }

    /// What the tool has noted so far.
    pub fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }

    fn request(
        &self,
        entry_point: EntryPoint,
        method: &str,
        path: &str,
        mcp: Option<(&str, Option<&str>)>,
    ) -> reqwest::RequestBuilder {
        let mcp = (mcp.map(|(method, _)| method), mcp.and_then(|(_, name)| name));
        let assertion = assertion(principal("thor", "org-1"), entry_point, method, path, mcp);
        self.parts
            .http
            .request(method.parse().unwrap(), self.parts.url(path))
            .header(identity::assertion::HEADER, assertion)
            .header("content-type", "application/json")
            .header(
                "accept",
                if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" },
            )
    }

    /// A request of revision 2026-07-28.
    pub async fn stateless(&self, entry_point: EntryPoint, method: &str, params: Value) -> reqwest::Response {
        self.stateless_with_key(entry_point, method, params, None).await
    }

    async fn stateless_with_key(
        &self,
        entry_point: EntryPoint,
        method: &str,
        params: Value,
        key: Option<&str>,
    ) -> reqwest::Response {
        let name = params["name"].as_str().map(str::to_owned);
        let mut request = self
            .request(entry_point, "POST", PATH, Some((method, name.as_deref())))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = &name {
            request = request.header("mcp-name", name);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let message = values::request(7, method, with_meta(params, json!({})));
        request.body(message.to_string()).send().await.unwrap()
    }

    pub async fn call(&self, entry_point: EntryPoint, text: &str) -> reqwest::Response {
        self.stateless(entry_point, "tools/call", json!({ "name": "note", "arguments": { "text": text } }))
            .await
    }

    pub async fn call_with_key(&self, key: &str, text: &str) -> reqwest::Response {
        let params = json!({ "name": "note", "arguments": { "text": text } });
        self.stateless_with_key(EntryPoint::Direct, "tools/call", params, Some(key)).await
    }

    pub async fn initialize(&self, revision: &str, id: Option<u32>) -> reqwest::Response {
        let params = values::initialize(revision, json!({}));
        let message = values::request(id.unwrap_or(1), "initialize", params);
        self.request(EntryPoint::Direct, "POST", PATH, None).body(message.to_string()).send().await.unwrap()
    }

    /// A new session's id.
    pub async fn session(&self, revision: &str) -> String {
        let response = self.initialize(revision, None).await;
        assert_eq!(response.status().as_u16(), 200);
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    pub async fn post(
        &self,
        entry_point: EntryPoint,
        session: &str,
        revision: &str,
        message: &Value,
    ) -> reqwest::Response {
        let request = self.request(entry_point, "POST", PATH, None).header("mcp-session-id", session);
        request.header("mcp-protocol-version", revision).body(message.to_string()).send().await.unwrap()
    }

    /// A hold request, as Pushpin passes it on, or somebody who is not Pushpin. An empty assertion: the gateway's.
    pub async fn hold(
        &self,
        ticket: &str,
        signed_by: Option<&[u8]>,
        assertion: Option<&str>,
    ) -> reqwest::Response {
        let path = format!("/_hermod/hold/{ticket}");
        let mut request = match assertion {
            Some("") => self.request(EntryPoint::Bifrost, "GET", &path, None),
            other => {
                let request = self.parts.http.get(self.parts.url(&path));
                other.into_iter().fold(request, |request, it| request.header(identity::assertion::HEADER, it))
            }
        };
        if let Some(key) = signed_by {
            request = request.header("grip-sig", grip::sign_grip_sig("pushpin", key, u64::from(u32::MAX)));
        }
        request.send().await.unwrap()
    }

    /// What the backend counts.
    pub async fn statz(&self) -> Value {
        self.parts.http.get(self.parts.url("/statz")).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until a request waits for its answer.
    pub async fn waits(&self) {
        while self.statz().await["waiting"] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn open_sse(&self) -> reqwest::Response {
        self.request(EntryPoint::Direct, "GET", &format!("{PATH}/sse"), None).send().await.unwrap()
    }

    pub async fn post_to(&self, path: &str, message: &Value) -> reqwest::Response {
        self.post_text(path, message.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: String) -> reqwest::Response {
        self.request(EntryPoint::Direct, "POST", path, None).body(body).send().await.unwrap()
    }
}
