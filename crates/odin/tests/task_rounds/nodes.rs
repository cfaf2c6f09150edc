//! A small site in one process: fronts and workers over one store, and a client.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use identity::EntryPoint;
use kit::site::{over_url, worker};
use kit::values::{self, SERVER, assertion, assertion_keys, endpoint, principal, with_meta};
use odin::broadcast::Broadcaster;
use odin::runner::{RmcpRunner, StateKeys};
use odin::store::{Store, StoreLimits};
use odin::worker::Worker;
use serde_json::{Value, json};

use super::handler::{Counts, Handler};

pub(crate) struct Nodes {
    parts: kit::Site,
    /// The same for all its workers.
    pub(crate) states: StateKeys,
    pub(crate) counts: Arc<Counts>,
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

impl Nodes {
    /// A site with two fronts and no worker.
    pub(crate) async fn start(store: Arc<dyn Store>) -> Self {
        let site = kit::Site::over(store).fronts(2).config(|config| {
            config.access = assertion_keys().into();
            config.hold_after = Duration::from_secs(30);
        });
        let (counts, states, workers) = (Arc::default(), StateKeys::random(), Mutex::default());
        Self { parts: site.start().await, states, counts, workers }
    }

    /// Starts a worker over a store.
    pub(crate) fn worker(&self, store: Arc<dyn Store>) {
        let broadcaster = Broadcaster::new(SERVER, self.parts.broadcast.clone(), store.clone(), None);
        let runner = RmcpRunner::new(Arc::new(Handler { counts: self.counts.clone() }));
        let runner = runner.with_broadcaster(broadcaster).with_state_keys(self.states.clone());
        self.workers.lock().unwrap().push(worker(store.clone(), store, Arc::new(runner), None));
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
        let counts = self.counts.clone();
        let worker = runtime.block_on(async move {
            let connect = || over_url(&url, StoreLimits::default());
            let runner = Arc::new(RmcpRunner::new(Arc::new(Handler { counts })));
            worker(connect(), connect(), runner, None)
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
        let request = reqwest::RequestBuilder::from_parts(self.parts.http.clone(), request).body(message);
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

    fn request(&self, who: Who, method: &str, params: Value, tasks: bool) -> reqwest::RequestBuilder {
        let mut capabilities = json!({ "elicitation": {} });
        if tasks {
            capabilities["extensions"] = json!({ "io.modelcontextprotocol/tasks": {} });
        }
        let name = params["name"].as_str().or(params["taskId"].as_str()).map(str::to_owned);
        let path = endpoint(who.1);
        let mcp = (Some(method), name.as_deref());
        let assertion = assertion(principal(who.0, who.1), EntryPoint::Direct, "POST", &path, mcp);
        let mut request = self
            .parts
            .http
            .post(self.parts.url(&path))
            .header(identity::assertion::HEADER, assertion)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        let message = values::request(7, method, with_meta(params, capabilities));
        request.body(message.to_string())
    }
}
