//! One front end whose patience is short, and workers when they are wanted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use identity::{Assertion, AssertionKeys, Principal, Road};
use odin::broadcast::BroadcastKey;
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::program::process;
use odin::protocol::session::SessionKeys;
use odin::runner::RmcpRunner;
use odin::store::{MemoryStore, Store, StoreLimits};
use odin::worker::{Worker, WorkerConfig};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde_json::{Value, json};

const KEY: &str = "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
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

pub struct Site {
    pub backend: Arc<Front>,
    store: Arc<dyn Store>,
    front: String,
    http: reqwest::Client,
    journal: Journal,
}

impl Site {
    /// A site with no worker, whose Pushpin is not there.
    pub async fn start() -> Self {
        let queue_patience = Duration::from_millis(300);
        Self::with_limits(FrontLimits { queue_patience, ..FrontLimits::default() }).await
    }

    /// The same with other bounds.
    pub async fn with_limits(limits: FrontLimits) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timing::default(), StoreLimits::default()));
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = format!("tcp://{nowhere}");
        let (publisher, _) = process::publisher(process::pushpins(&nowhere).unwrap()).unwrap();
        let config = FrontConfig {
            node: "front".into(),
            server: "default".into(),
            access: Access::Gateway(Box::new(AssertionKeys::parse(KEY).unwrap())),
            handover: Handover::Envoy,
            hold_after: Duration::from_millis(20),
            sessions: SessionKeys::parse(&BASE64_URL_SAFE_NO_PAD.encode([7; 32])).unwrap(),
            grip: Some(("pushpin".into(), b"key".to_vec())),
            broadcast: BroadcastKey::random(),
            // With a rule, lists are looked through.
            policy: serde_json::from_value(json!({ "rules": [{ "effect": "deny", "names": ["drop*"] }] }))
                .unwrap(),
            limits,
            lease: Timing::default().lease,
        };
        let backend = Front::start(config, store.clone(), Some(publisher));
        let router = backend.router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { backend, store, front, http, journal: Journal::default() }
    }

    pub fn worker(&self) -> Worker {
        let runner = Arc::new(RmcpRunner::new(Arc::new(Notes { journal: self.journal.clone() })));
        let (store, beats) = (self.store.clone(), self.store.clone());
        Worker::start(WorkerConfig::new("default"), store, Box::new(move || beats), runner, None).unwrap()
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
        road: Road,
        method: &str,
        path: &str,
        mcp: Option<(&str, Option<&str>)>,
    ) -> reqwest::RequestBuilder {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let assertion = Assertion {
            principal: Principal {
                issuer: "https://issuer.example".into(),
                subject: "thor".into(),
                organisation: "org-1".into(),
                client: None,
                username: None,
                scopes: vec![],
                roles: vec![],
                groups: vec![],
            },
            audience: identity::assertion::AUDIENCE.into(),
            road,
            method: method.into(),
            path: path.into(),
            mcp_method: mcp.map(|(method, _)| method.into()),
            mcp_name: mcp.and_then(|(_, name)| name.map(str::to_owned)),
            issued_at: now,
            expires_at: now + 10,
        };
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.front))
            .header(identity::assertion::HEADER, AssertionKeys::parse(KEY).unwrap().sign(&assertion))
            .header("content-type", "application/json")
            .header(
                "accept",
                if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" },
            )
    }

    /// A request of revision 2026-07-28.
    pub async fn stateless(&self, road: Road, method: &str, params: Value) -> reqwest::Response {
        self.stateless_with_key(road, method, params, None).await
    }

    async fn stateless_with_key(
        &self,
        road: Road,
        method: &str,
        mut params: Value,
        key: Option<&str>,
    ) -> reqwest::Response {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let name = params["name"].as_str().map(str::to_owned);
        let mut request = self
            .request(road, "POST", PATH, Some((method, name.as_deref())))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = &name {
            request = request.header("mcp-name", name);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        request.body(message.to_string()).send().await.unwrap()
    }

    pub async fn call(&self, road: Road, text: &str) -> reqwest::Response {
        self.stateless(road, "tools/call", json!({ "name": "note", "arguments": { "text": text } })).await
    }

    pub async fn call_with_key(&self, key: &str, text: &str) -> reqwest::Response {
        let params = json!({ "name": "note", "arguments": { "text": text } });
        self.stateless_with_key(Road::Direct, "tools/call", params, Some(key)).await
    }

    pub async fn initialize(&self, revision: &str, id: Option<u32>) -> reqwest::Response {
        let message = json!({
            "jsonrpc": "2.0", "id": id.unwrap_or(1), "method": "initialize",
            "params": { "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } },
        });
        self.request(Road::Direct, "POST", PATH, None).body(message.to_string()).send().await.unwrap()
    }

    /// A new session's id.
    pub async fn session(&self, revision: &str) -> String {
        let response = self.initialize(revision, None).await;
        assert_eq!(response.status().as_u16(), 200);
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    pub async fn post(
        &self,
        road: Road,
        session: &str,
        revision: &str,
        message: &Value,
    ) -> reqwest::Response {
        let request = self.request(road, "POST", PATH, None).header("mcp-session-id", session);
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
            Some("") => self.request(Road::Bifrost, "GET", &path, None),
            other => {
                let request = self.http.get(format!("{}{path}", self.front));
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
        self.http.get(format!("{}/statz", self.front)).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until a request waits for its answer.
    pub async fn waits(&self) {
        while self.statz().await["waiting"] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn open_sse(&self) -> reqwest::Response {
        self.request(Road::Direct, "GET", &format!("{PATH}/sse"), None).send().await.unwrap()
    }

    pub async fn post_to(&self, path: &str, message: &Value) -> reqwest::Response {
        self.post_text(path, message.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: String) -> reqwest::Response {
        self.request(Road::Direct, "POST", path, None).body(body).send().await.unwrap()
    }
}

/// The data of a stream's events.
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    pub fn new(response: reqwest::Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.next().await).unwrap()
    }

    pub async fn next(&mut self) -> String {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                self.text = rest.to_owned();
                match data {
                    Some(data) => return data,
                    None => continue,
                }
            }
            let chunk = self.response.chunk().await.unwrap().expect("the stream stands");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
