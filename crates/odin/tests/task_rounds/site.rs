//! A small site in one process: fronts and workers over one store, and a client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use identity::{Assertion, AssertionKeys, Principal, Road};
use odin::broadcast::{BroadcastKey, Broadcaster};
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::protocol::session::SessionKeys;
use odin::runner::{RmcpRunner, StateKeys};
use odin::store::{RedisStore, Store, StoreLimits};
use odin::worker::{Worker, WorkerConfig};
use serde_json::{Value, json};

use super::handler::{Counts, Handler};

const KEY: &str = "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

pub(crate) struct Site {
    key: BroadcastKey,
    /// The same for all its workers.
    pub(crate) states: StateKeys,
    pub(crate) counts: Arc<Counts>,
    fronts: Vec<String>,
    http: reqwest::Client,
    next: AtomicU64,
    workers: Mutex<Vec<Worker>>,
}

/// A worker that dies when it is dropped: its tools stop, and nothing of it reaches Redis any more.
pub(crate) struct Mortal(
    Option<tokio::runtime::Runtime>,
    #[allow(dead_code, reason = "held, not read")] Worker,
);

impl Drop for Mortal {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Who(pub(crate) &'static str, pub(crate) &'static str);

pub(crate) const THOR: Who = Who("thor", "org-1");

/// An answer with all that a client could tell apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn result(&self) -> &Value {
        assert!(self.body["result"].is_object(), "{self:?}");
        &self.body["result"]
    }

    pub(crate) fn code(&self) -> i64 {
        self.body["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {self:?}"))
    }
}

impl Site {
    /// A site with two fronts and no worker.
    pub(crate) async fn start(store: Arc<dyn Store>) -> Self {
        let (key, mut fronts) = (BroadcastKey::random(), Vec::new());
        for number in 0..2 {
            let sessions = SessionKeys::parse(&BASE64_URL_SAFE_NO_PAD.encode([7; 32])).unwrap();
            let config = FrontConfig {
                node: format!("front-{number}"),
                server: "default".into(),
                access: Access::Gateway(Box::new(AssertionKeys::parse(KEY).unwrap())),
                handover: Handover::None,
                hold_after: Duration::from_secs(30),
                sessions,
                grip: None,
                broadcast: key.clone(),
                policy: Default::default(),
                limits: FrontLimits::default(),
                lease: Timing::default().lease,
            };
            let router = Front::start(config, store.clone(), None).router();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            fronts.push(format!("http://{}", listener.local_addr().unwrap()));
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (counts, states, workers) = (Arc::default(), StateKeys::random(), Mutex::default());
        Self { key, states, counts, fronts, http, next: AtomicU64::new(1), workers }
    }

    /// Starts a worker over a store.
    pub(crate) fn worker(&self, store: Arc<dyn Store>) {
        let broadcaster = Broadcaster::new("default", self.key.clone(), store.clone(), None);
        let runner = RmcpRunner::new(Arc::new(Handler { counts: self.counts.clone() }));
        let runner = runner.with_broadcaster(broadcaster).with_state_keys(self.states.clone());
        let runner = Arc::new(runner);
        let beats = store.clone();
        let config = WorkerConfig::new("default");
        let worker = Worker::start(config, store, Box::new(move || beats), runner, None).unwrap();
        self.workers.lock().unwrap().push(worker);
    }

    /// Starts a worker that can be killed: in a runtime of its own, behind a proxy to Redis.
    pub(crate) fn mortal(&self, redis: &str) -> Mortal {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let target = redis.strip_prefix("redis://").unwrap().to_owned();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut one, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    let mut other = tokio::net::TcpStream::connect(target).await.unwrap();
                    tokio::io::copy_bidirectional(&mut one, &mut other).await.ok();
                });
            }
        });
        let connect =
            move || Arc::new(RedisStore::connect(&url, Timing::default(), StoreLimits::default()).unwrap());
        let counts = self.counts.clone();
        let worker = runtime.block_on(async move {
            let runner = Arc::new(RmcpRunner::new(Arc::new(Handler { counts })));
            let (store, config) = (connect(), WorkerConfig::new("default"));
            Worker::start(config, store, Box::new(move || connect()), runner, None).unwrap()
        });
        Mortal(Some(runtime), worker)
    }

    pub(crate) async fn call(&self, who: Who, tool: &str, arguments: Value, tasks: bool) -> Answer {
        self.send(who, "tools/call", json!({ "name": tool, "arguments": arguments }), tasks).await
    }

    /// Calls a tool, and takes the task's id out of the handle.
    pub(crate) async fn begin(&self, tool: &str, arguments: Value) -> String {
        let answer = self.call(THOR, tool, arguments, true).await;
        let result = answer.result();
        assert_eq!(result["resultType"], "task", "{answer:?}");
        result["taskId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn task(&self, method: &str, id: &str) -> Answer {
        self.send(THOR, method, json!({ "taskId": id }), true).await
    }

    pub(crate) async fn answer(&self, id: &str, responses: Value) -> Answer {
        self.send(THOR, "tasks/update", json!({ "taskId": id, "inputResponses": responses }), true).await
    }

    /// Asks for the task until it has one of the statuses.
    pub(crate) async fn until(&self, id: &str, statuses: &[&str]) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.task("tasks/get", id).await;
            let result = answer.result();
            if statuses.contains(&result["status"].as_str().unwrap()) {
                return result.clone();
            }
            assert!(Instant::now() < deadline, "never {statuses:?}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a request; each goes to the next front.
    pub(crate) async fn send(&self, who: Who, method: &str, params: Value, tasks: bool) -> Answer {
        self.read(self.open(who, method, params, tasks).await).await
    }

    /// Sends a request with an `Idempotency-Key`.
    pub(crate) async fn send_keyed(&self, who: Who, method: &str, params: Value, key: &str) -> Answer {
        self.read(
            self.request(who, method, params, false).header("idempotency-key", key).send().await.unwrap(),
        )
        .await
    }

    /// Sends parameters as they are written, but for `_meta`.
    pub(crate) async fn send_raw(
        &self,
        who: Who,
        method: &str,
        params: &serde_json::value::RawValue,
    ) -> Answer {
        let plain: Value = serde_json::from_str(params.get()).unwrap();
        let request = self.request(who, method, plain, false).build().unwrap();
        let body = std::str::from_utf8(request.body().unwrap().as_bytes().unwrap()).unwrap().to_owned();
        let meta: Value = serde_json::from_str(&body).unwrap();
        let meta = &meta["params"]["_meta"];
        let params = format!("{},\"_meta\":{meta}}}", params.get().strip_suffix('}').unwrap());
        let message = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#);
        let request = reqwest::RequestBuilder::from_parts(self.http.clone(), request).body(message);
        self.read(request.send().await.unwrap()).await
    }

    async fn read(&self, response: reqwest::Response) -> Answer {
        let headers = response.headers().iter().filter(|(name, _)| *name != "date");
        let mut headers: Vec<(String, String)> =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        headers.sort();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
        Answer { status, headers, body, text }
    }

    /// Sends a request, and returns when its answer begins.
    pub(crate) async fn open(&self, who: Who, method: &str, params: Value, tasks: bool) -> reqwest::Response {
        self.request(who, method, params, tasks).send().await.unwrap()
    }

    fn request(&self, who: Who, method: &str, mut params: Value, tasks: bool) -> reqwest::RequestBuilder {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut capabilities = json!({ "elicitation": {} });
        if tasks {
            capabilities["extensions"] = json!({ "io.modelcontextprotocol/tasks": {} });
        }
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        let name = params["name"].as_str().or(params["taskId"].as_str()).map(str::to_owned);
        let path = format!("/api/v1/mcp/{}", who.1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let assertion = Assertion {
            principal: Principal {
                issuer: "https://issuer.example".into(),
                subject: who.0.into(),
                organisation: who.1.into(),
                client: None,
                username: None,
                scopes: vec![],
                roles: vec![],
                groups: vec![],
            },
            audience: identity::assertion::AUDIENCE.into(),
            road: Road::Direct,
            method: "POST".into(),
            path: path.clone(),
            mcp_method: Some(method.into()),
            mcp_name: name.clone(),
            issued_at: now,
            expires_at: now + 10,
        };
        let front = &self.fronts[number as usize % self.fronts.len()];
        let mut request = self
            .http
            .post(format!("{front}{path}"))
            .header(identity::assertion::HEADER, AssertionKeys::parse(KEY).unwrap().sign(&assertion))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        request.body(message.to_string())
    }
}

/// The messages of a stream.
pub(crate) struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                self.text = rest.to_owned();
                if let Some(data) = data {
                    return serde_json::from_str(&data).unwrap();
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await;
            let chunk = chunk.expect("a message").unwrap().expect("the stream stands");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
