//! What the tests of the runner share: an outbox that records, jobs, and a handler with one tool for each
//! thing that a handler may do, well or badly.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use identity::Principal;
use odin::call::Job;
use odin::protocol::Era;
use odin::runner::RmcpRunner;
use odin::worker::{Closed, Emission, Inbound, Outbox, Runner};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const SESSION: &str = "2025-11-25";
pub(crate) const CALL: &str = "00112233445566778899aabbccddeeff";

/// Records what a call sends out.
#[derive(Default)]
pub(crate) struct Recorder {
    emitted: Mutex<Vec<(Option<String>, String)>>,
    changed: Notify,
    /// Refuses from this emission on.
    limit: Option<usize>,
}

impl Recorder {
    pub(crate) fn limited(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: Some(limit), ..Self::default() })
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        self.emitted.lock().unwrap().iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.emitted.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.all().iter().map(|message| message["method"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for a request to the client; gives its id and the request.
    pub(crate) async fn request(&self, nth: usize) -> (String, Value) {
        loop {
            let changed = self.changed.notified();
            let found = self
                .emitted
                .lock()
                .unwrap()
                .iter()
                .filter_map(|(id, text)| Some((id.clone()?, serde_json::from_str(text).unwrap())))
                .nth(nth);
            match found {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

impl Outbox for Recorder {
    fn emit(&self, message: Emission) -> Result<(), Closed> {
        let mut emitted = self.emitted.lock().unwrap();
        if self.limit.is_some_and(|limit| emitted.len() >= limit) {
            return Err(Closed);
        }
        emitted.push(match message {
            Emission::Notification(text) => (None, text.get().to_owned()),
            Emission::Request { id, message } => (Some(id), message.get().to_owned()),
            Emission::HangUp => (None, "hang up".to_owned()),
        });
        drop(emitted);
        self.changed.notify_waiters();
        Ok(())
    }
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

pub(crate) fn principal() -> Principal {
    let mut caller = Principal::new("https://issuer.example/realms/asgard", "f3a1", "org-1");
    caller.client = Some("inspector".into());
    caller.username = Some("thor".into());
    caller.scopes = vec!["mcp".into()];
    caller
}

fn job(era: Era, message: Box<RawValue>) -> Job {
    Job {
        call: CALL.into(),
        server: "default".into(),
        era,
        protocol: if era == Era::Stateless { MODERN } else { SESSION }.into(),
        principal: principal(),
        session: (era == Era::Stateful).then(|| "session-1".into()),
        peer: (era == Era::Stateful).then(|| {
            raw(&json!({
                "protocolVersion": MODERN,
                "capabilities": { "elicitation": {}, "sampling": {}, "roots": {} },
                "clientInfo": { "name": "test", "version": "1" },
            }))
        }),
        log_level: None,
        headers: Vec::new(),
        answer_only: false,
        task: None,
        message,
    }
}

/// A stateless request with the `_meta` that it must have.
pub(crate) fn modern(id: Value, method: &str, params: Value) -> Job {
    modern_meta(id, method, params, json!({}))
}

/// A stateless request with more in its `_meta`.
pub(crate) fn modern_meta(id: Value, method: &str, mut params: Value, more: Value) -> Job {
    let mut meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "modern-test", "version": "2" },
    });
    for (key, value) in more.as_object().unwrap() {
        meta[key] = value.clone();
    }
    params["_meta"] = meta;
    job(Era::Stateless, raw(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })))
}

pub(crate) fn session(id: Value, method: &str, params: Value) -> Job {
    job(Era::Stateful, raw(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })))
}

pub(crate) fn text_job(era: Era, text: &str) -> Job {
    job(era, RawValue::from_string(text.into()).unwrap())
}

pub(crate) fn tool(name: &str, arguments: Value) -> Value {
    json!({ "name": name, "arguments": arguments })
}

/// A job that runs in a task of its own.
pub(crate) struct Running {
    pub(crate) outbox: Arc<Recorder>,
    pub(crate) inbox: mpsc::Sender<Inbound>,
    pub(crate) abort: CancellationToken,
    answer: tokio::task::JoinHandle<Option<Box<RawValue>>>,
}

impl Running {
    pub(crate) fn start<R: Runner>(runner: &Arc<R>, job: Job) -> Self {
        Self::start_with(runner, job, Arc::default())
    }

    pub(crate) fn start_with<R: Runner>(runner: &Arc<R>, job: Job, outbox: Arc<Recorder>) -> Self {
        let (inbox, received) = mpsc::channel(16);
        let abort = CancellationToken::new();
        let runner = Arc::clone(runner);
        let (sink, token) = (Arc::clone(&outbox), abort.clone());
        let answer = tokio::spawn(async move { runner.run(job, sink, received, token).await });
        Self { outbox, inbox, abort, answer }
    }

    pub(crate) async fn text(self) -> Option<String> {
        let answer = tokio::time::timeout(Duration::from_secs(10), self.answer).await;
        answer.expect("the job ends").unwrap().map(|text| text.get().to_owned())
    }

    pub(crate) async fn answer(self) -> Option<Value> {
        self.text().await.map(|text| serde_json::from_str(&text).unwrap())
    }
}

/// Runs a job to its end; gives its answer and what it sent before.
pub(crate) async fn run<R: Runner>(runner: &Arc<R>, job: Job) -> (Value, Vec<Value>) {
    let running = Running::start(runner, job);
    let outbox = Arc::clone(&running.outbox);
    let answer = running.answer().await.expect("an answer");
    (answer, outbox.all())
}

/// What the test handler counts.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) started: AtomicUsize,
    /// Tools dropped or ended, in whatever way.
    pub(crate) ended: AtomicUsize,
    pub(crate) saw_cancel: AtomicUsize,
    pub(crate) initialized: AtomicUsize,
    pub(crate) progress: AtomicUsize,
    pub(crate) spawned_refused: AtomicUsize,
    pub(crate) changed: Notify,
}

impl Counts {
    pub(crate) fn add(&self, counter: impl Fn(&Self) -> &AtomicUsize) {
        counter(self).fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) async fn wait(&self, counter: impl Fn(&Self) -> &AtomicUsize, count: usize) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if counter(self).load(Ordering::SeqCst) >= count {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the count is reached");
    }
}

pub(crate) fn runner() -> (Arc<RmcpRunner<super::handler::Handler>>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let handler = super::handler::Handler::new(Arc::clone(&counts));
    (Arc::new(RmcpRunner::new(Arc::new(handler))), counts)
}
