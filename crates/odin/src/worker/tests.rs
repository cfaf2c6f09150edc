//! Who gets a worker's slots; and calls that come on links.

mod direct;

use crate::call::{Enqueue, Job, Order, Rerun, Timing, Via};
use crate::id::CallId;
use crate::protocol::Era;
use crate::store::{MemoryStore, Queue, Room, StoreLimits};
use crate::worker::{Inbound, Outbox, Runner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use identity::Principal;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Shares, Worker, WorkerConfig};

/// Runs every call until it is let go, and notes who runs.
struct Runs {
    running: Mutex<BTreeMap<String, BTreeSet<String>>>,
    most: Mutex<BTreeMap<String, usize>>,
    done: watch::Sender<bool>,
}

impl Runs {
    fn new() -> Arc<Self> {
        let done = watch::channel(false).0;
        Arc::new(Self { running: Mutex::default(), most: Mutex::default(), done })
    }

    /// Calls that run for a principal (`org/name`) or an organisation (`org/`).
    fn count(&self, of: &str) -> usize {
        let running = self.running.lock().unwrap();
        running.iter().filter(|(who, _)| who.starts_with(of)).map(|(_, calls)| calls.len()).sum()
    }

    fn most(&self, of: &str) -> usize {
        self.most.lock().unwrap().get(of).copied().unwrap_or_default()
    }

    async fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is(self) {
            assert!(Instant::now() < deadline, "{what}: not within 20 s; running {:?}", self.running.lock());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Runner for Runs {
    fn rerun(&self, _tool: &str) -> Rerun {
        Rerun::Safe
    }

    fn run<'a>(
        &'a self,
        job: Job,
        _outbox: Arc<dyn Outbox>,
        _inbox: mpsc::Receiver<Inbound>,
        _abort: CancellationToken,
    ) -> BoxFuture<'a, Option<Box<RawValue>>> {
        async move {
            let who = format!("{}/{}", job.principal.organisation, job.principal.subject);
            let organisation = format!("{}/", job.principal.organisation);
            self.running.lock().unwrap().entry(who.clone()).or_default().insert(job.call.clone());
            for of in [&who, &organisation] {
                let now = self.count(of);
                let mut most = self.most.lock().unwrap();
                let most = most.entry(of.clone()).or_default();
                *most = now.max(*most);
            }
            let quick = job.principal.subject.starts_with("quick");
            if !quick {
                self.done.subscribe().wait_for(|done| *done).await.unwrap();
            }
            self.running.lock().unwrap().get_mut(&who).unwrap().remove(&job.call);
            Some(RawValue::from_string(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into()).unwrap())
        }
        .boxed()
    }
}

fn order(organisation: &str, subject: &str, call: CallId) -> Order {
    let principal = Principal::new("i", subject, organisation);
    let (key, organisation) = (principal.key(), principal.organisation_key());
    let message = RawValue::from_string(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.into()).unwrap();
    let job = Job {
        call: call.to_string(),
        server: "s".into(),
        era: Era::Stateful,
        protocol: "2025-11-25".into(),
        principal,
        session: Some("session".into()),
        peer: None,
        log_level: None,
        headers: vec![],
        answer_only: false,
        task: None,
        message,
    };
    Order {
        server: "s".into(),
        job: serde_json::to_string(&job).unwrap().into(),
        era: Era::Stateful,
        via: Via::Backend,
        tool: None,
        assertion: String::new(),
        principal: key,
        organisation,
        session: Some("session".into()),
        request_id: None,
        lost: "lost".into(),
        node: "a".into(),
        request: 1,
        stream: None,
        retry: None,
        task: None,
    }
}

struct Site {
    store: Arc<MemoryStore>,
    runs: Arc<Runs>,
}

impl Site {
    fn new() -> Self {
        let timing = Timing { lease: Duration::from_millis(300), ..Timing::default() };
        let store = Arc::new(MemoryStore::new(timing, StoreLimits::default()));
        Self { store, runs: Runs::new() }
    }

    fn work(&self, concurrency: usize, shares: Shares) -> Worker {
        let timing = Timing { lease: Duration::from_millis(300), ..Timing::default() };
        let config =
            WorkerConfig { concurrency, shares, timing, task_concurrency: 0, ..WorkerConfig::new("s") };
        let (store, beats) = (self.store.clone(), self.store.clone());
        Worker::start(config, store, Box::new(move || beats), self.runs.clone(), None).unwrap()
    }

    async fn call(&self, organisation: &str, subject: &str) -> CallId {
        let call = CallId::random();
        let order = order(organisation, subject, call);
        assert_eq!(self.store.enqueue(call, order).await, Ok(Enqueue::Accepted));
        call
    }

    async fn calls(&self, count: usize, organisation: &str, subject: &str) -> Vec<CallId> {
        let mut calls = Vec::new();
        for _ in 0..count {
            calls.push(self.call(organisation, subject).await);
        }
        calls
    }

    fn is_done(&self, call: CallId) -> bool {
        self.store.peek(call).is_none_or(|record| record.out.is_some())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_calls_of_one_organisation_leave_room_for_the_others() {
    let site = Site::new();
    // Twice what the worker can run, of one user; of several; and then somebody else.
    let mut calls = site.calls(20, "org-1", "long").await;
    let _worker = site.work(8, Shares::default());
    site.runs.until("the user has what it may have", |runs| runs.count("org-1/long") == 4).await;
    for user in 0..20 {
        calls.extend(site.calls(2, "org-1", &format!("user-{user}")).await);
    }
    site.runs.until("org-1 has what it may have", |runs| runs.count("org-1/") == 6).await;
    for _ in 0..50 {
        let quick = site.call("org-2", "quick").await;
        site.runs.until("the quick call is answered", |_| site.is_done(quick)).await;
    }
    assert_eq!(site.runs.most("org-1/"), 6, "three quarters of 8 slots");
    assert_eq!(site.runs.most("org-1/long"), 4, "half of 8 slots");
    assert!(site.runs.most("org-2/") >= 1);
    // Nothing of the others is lost.
    site.runs.done.send_replace(true);
    site.runs.until("all are answered", |_| calls.iter().all(|call| site.is_done(*call))).await;
    assert_eq!(site.runs.most("org-1/"), 6);
    assert_eq!(site.runs.most("org-1/long"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_lost_worker_count_as_well() {
    let site = Site::new();
    let mut calls = site.calls(10, "org-1", "long").await;
    let lines = site.store.next("s", "lost", &Room::of(10)).await.unwrap();
    assert_eq!(lines.len(), 10);
    for line in &lines {
        site.store.take("s", "lost", line, "t", Rerun::Safe).await.unwrap().unwrap();
    }
    // A worker takes them over, while others come by the queue.
    let _worker = site.work(8, Shares::default());
    site.runs.until("what it may have runs", |runs| runs.count("org-1/long") == 4).await;
    calls.extend(site.calls(10, "org-1", "long").await);
    let quick = site.call("org-2", "quick").await;
    site.runs.until("the quick call is answered", |_| site.is_done(quick)).await;
    let all = |site: &Site| lines.iter().all(|line| site.store.peek(line.call).unwrap().epoch > 1);
    site.runs.until("all are taken over", |_| all(&site)).await;
    assert_eq!(site.runs.count("org-1/long"), 4);
    site.runs.done.send_replace(true);
    site.runs.until("all are answered", |_| calls.iter().all(|call| site.is_done(*call))).await;
    assert_eq!(site.runs.most("org-1/long"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_slot_is_for_anybody() {
    let site = Site::new();
    let _worker = site.work(1, Shares::default());
    let call = site.call("org-1", "long").await;
    site.runs.until("it runs", |runs| runs.count("org-1/long") == 1).await;
    let next = site.call("org-2", "quick").await;
    site.runs.done.send_replace(true);
    site.runs.until("both are answered", |_| site.is_done(call) && site.is_done(next)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_a_setting() {
    let site = Site::new();
    let _worker = site.work(10, Shares { organisation: 100, principal: 30 });
    for user in 0..5 {
        site.calls(4, "org-1", &format!("user-{user}")).await;
    }
    site.runs.until("all slots run", |runs| runs.count("org-1/") == 10).await;
    assert!((0..5).all(|user| site.runs.most(&format!("org-1/user-{user}")) <= 3));
    site.runs.done.send_replace(true);
}
