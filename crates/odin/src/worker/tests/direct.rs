//! Calls that come straight from a backend, with a worker, a store and a link that are real.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::{DirectCalls, MakeStore, Shares, Worker, WorkerConfig};
use super::order;
use crate::call::direct::Heard;
use crate::call::{Job, Offer, Order, Rerun, Run, Timing};
use crate::id::{CallId, Ticket};
use crate::link::{DirectCall, Identity, LinkKeys, LinkLimits, Links, Listener};
use crate::protocol::Era;
use crate::store::{Bus, Calls, MemoryStore, Queue, RedisStore, StoreLimits};
use crate::worker::{Emission, Inbound, Outbox, Runner};

/// Does what the caller's name says, until it is let go.
struct Does {
    go: watch::Sender<bool>,
    stopped: watch::Sender<u32>,
    begun: watch::Sender<u32>,
}

impl Runner for Does {
    fn rerun(&self, _tool: &str) -> Rerun {
        Rerun::Unsafe
    }

    fn run<'a>(
        &'a self,
        job: Job,
        outbox: Arc<dyn Outbox>,
        _inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) -> BoxFuture<'a, Option<Box<RawValue>>> {
        async move {
            let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
            let mut go = self.go.subscribe();
            self.begun.send_modify(|begun| *begun += 1);
            match job.principal.subject.as_str() {
                "event" => outbox.emit(Emission::Notification(raw("{}"))).unwrap(),
                "block" => std::thread::sleep(Duration::from_secs(1)),
                _ => {}
            }
            if job.principal.subject != "quick" {
                tokio::select! {
                    _ = go.wait_for(|go| *go) => {}
                    () = abort.cancelled() => {
                        self.stopped.send_modify(|stopped| *stopped += 1);
                        return None;
                    }
                }
            }
            Some(raw(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#))
        }
        .boxed()
    }
}

struct Site {
    store: Arc<MemoryStore>,
    does: Arc<Does>,
    worker: Worker,
    links: Links,
}

const HOLD: Duration = Duration::from_millis(200);

fn limits() -> LinkLimits {
    LinkLimits::default().with_beat(Duration::from_millis(50)).with_lease(Duration::from_millis(500))
}

fn timing() -> Timing {
    Timing::default().with_lease(Duration::from_millis(500))
}

impl Site {
    /// A worker with a link to it. `direct_store`: what its links' thread asks.
    async fn new(concurrency: usize, direct_store: Option<MakeStore>) -> Self {
        Self::shared(concurrency, Shares { organisation: 100, principal: 100 }, direct_store).await
    }

    async fn shared(concurrency: usize, shares: Shares, direct_store: Option<MakeStore>) -> Self {
        let store = Arc::new(MemoryStore::new(timing(), StoreLimits::default()));
        let does = Arc::new(Does {
            go: watch::channel(false).0,
            stopped: watch::channel(0).0,
            begun: watch::channel(0).0,
        });
        let config = WorkerConfig {
            concurrency,
            shares,
            timing: timing(),
            task_concurrency: 0,
            ..WorkerConfig::new("s")
        };
        let (beats, links) = (store.clone(), store.clone());
        let worker =
            Worker::start(config, store.clone(), Box::new(move || beats), does.clone(), None).unwrap();
        let keys = LinkKeys::random();
        let calls = DirectCalls::new(keys.clone()).with_limits(limits());
        let direct_store = direct_store.unwrap_or_else(|| Box::new(move || links));
        let pipes = worker.take_direct(calls, direct_store).unwrap();
        let links = Links::new(Identity { name: "a".into(), server: "s".into(), keys }, limits());
        let (attached, pipe) = (links.clone(), pipes.open());
        tokio::spawn(async move { attached.attach(pipe).await });
        let site = Self { store, does, worker, links };
        if concurrency > 1 {
            site.until("free slots", |site| site.links.free() > 0).await;
        }
        site
    }

    async fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is(self) {
            assert!(Instant::now() < deadline, "{what}: not within ten seconds");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn call(&self, what: &str, era: Era) -> (CallId, DirectCall) {
        self.call_of("org", what, era)
    }

    fn call_of(&self, organisation: &str, what: &str, era: Era) -> (CallId, DirectCall) {
        let call = CallId::random();
        let order = Order { era, ..order(organisation, what, call) };
        (call, self.links.dispatch(call, &order, HOLD, None).unwrap())
    }

    async fn check_answer(&self, call: CallId) {
        let offer = self.store.offer(call, "a", 1, Ticket::random(), false).await.unwrap();
        assert!(matches!(&offer, Offer::Done(out) if out.contains("result")), "{offer:?}");
    }
}

async fn heard(direct: &mut DirectCall) -> Heard {
    tokio::time::timeout(Duration::from_secs(10), direct.heard()).await.unwrap()
}

fn is_answer(heard: &Heard) -> bool {
    matches!(heard, Heard::Answer(out) if out.contains("result"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_never_hears_of_a_quick_call() {
    let site = Site::new(4, None).await;
    for _ in 0..100 {
        let (call, mut direct) = site.call("quick", Era::Stateless);
        assert!(is_answer(&heard(&mut direct).await));
        assert_eq!(site.store.peek(call), None);
    }
    site.until("all slots are free", |site| site.links.free() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlives_its_time_or_says_something_is_written_down() {
    let site = Site::new(4, None).await;
    for what in ["slow", "event"] {
        let begun = Instant::now();
        let (call, mut direct) = site.call(what, Era::Stateful);
        assert_eq!(heard(&mut direct).await, Heard::Registered);
        assert!(what == "event" || begun.elapsed() + Duration::from_millis(2) >= HOLD, "not before its time");
        let record = site.store.peek(call).unwrap();
        assert_eq!((record.run, record.epoch, record.rerun), (Run::Running, 1, Some(Rerun::Safe)));
        // Its lease is kept: no other worker gets it.
        let first = record.lease;
        site.until("a beat", |site| site.store.peek(call).unwrap().lease > first).await;
        if what == "event" {
            site.until("the event is there", |site| site.store.peek(call).unwrap().event_count == 1).await;
            assert_eq!(heard(&mut direct).await, Heard::Hint, "on the link");
        }
        site.does.go.send_replace(true);
        site.until("the answer is there", |site| site.store.peek(call).unwrap().out.is_some()).await;
        assert_eq!(heard(&mut direct).await, Heard::Hint, "on the link");
        site.check_answer(call).await;
        site.does.go.send_replace(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_link_broke_is_written_down() {
    let site = Site::new(4, None).await;
    let (slow, mut direct) = site.call("slow", Era::Stateful);
    site.until("it runs", |site| *site.does.begun.borrow() == 1).await;
    let Site { links, store, does, worker } = site;
    links.close();
    assert_eq!(heard(&mut direct).await, Heard::Broken);
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.peek(slow).is_none() {
        assert!(Instant::now() < deadline, "it is not written down");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    does.go.send_replace(true);
    while store.peek(slow).unwrap().out.is_none() {
        assert!(Instant::now() < deadline, "it is not answered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_stops_and_leaves_nothing() {
    let site = Site::new(4, None).await;
    let (call, direct) = site.call("slow", Era::Stateless);
    direct.cancel();
    drop(direct);
    site.until("it stopped", |site| *site.does.stopped.borrow() == 1).await;
    site.until("its slot is free", |site| site.links.free() == 3).await;
    assert_eq!(site.store.peek(call), None);
    // One that is written down already is given up in the record as well.
    let (call, mut direct) = site.call("event", Era::Stateless);
    assert_eq!(heard(&mut direct).await, Heard::Registered);
    direct.cancel();
    site.until("it stopped", |site| *site.does.stopped.borrow() == 2).await;
    site.until("its record is closed", |site| site.store.peek(call).is_none_or(|record| record.closed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_the_answer_comes_all_the_same() {
    let away: MakeStore = Box::new(|| {
        let limits = StoreLimits::default();
        Arc::new(RedisStore::connect("redis://127.0.0.1:1", Timing::default(), limits).unwrap())
    });
    let site = Site::new(4, Some(away)).await;
    let (_, mut direct) = site.call("quick", Era::Stateless);
    assert!(is_answer(&heard(&mut direct).await));
    let (call, mut direct) = site.call("slow", Era::Stateless);
    tokio::time::sleep(HOLD * 2).await;
    site.does.go.send_replace(true);
    let said = heard(&mut direct).await;
    assert!(matches!(&said, Heard::AnswerInDoubt(out) if out.contains("result")), "{said:?}");
    assert_eq!(site.store.peek(call), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_slot_the_worker_is_busy() {
    let site = Site::new(3, None).await;
    // Two run; the third slot is the queue's reader's.
    let (one, two) = (site.call("slow", Era::Stateless), site.call("slow", Era::Stateless));
    site.until("none is free", |site| site.links.free() == 0).await;
    let order = order("org", "slow", CallId::random());
    assert!(site.links.dispatch(CallId::random(), &order, HOLD, None).is_none());
    // A backlog goes first: what is freed is the queue's.
    for _ in 0..5 {
        let queued = CallId::random();
        let order = Order { era: Era::Stateful, ..super::order("org", "slow", queued) };
        site.store.enqueue(queued, order).await.unwrap();
    }
    drop((one, two));
    let stops = |count| move |site: &Site| *site.does.stopped.borrow() == count;
    assert!(stops(0)(&site), "nobody cancelled");
    site.does.go.send_replace(true);
    site.until("slots are free again", |site| site.links.free() == 2).await;

    let lone = Site::new(1, None).await;
    lone.until("a link", |site| site.links.workers().len() == 1).await;
    assert!(lone.links.dispatch(CallId::random(), &order, HOLD, None).is_none(), "a single slot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisation_with_its_share_of_slots_finds_the_worker_busy_and_others_do_not() {
    let site = Site::shared(8, Shares { organisation: 50, principal: 100 }, None).await;
    let _running: Vec<_> = (1..=4).map(|_| site.call_of("org-1", "slow", Era::Stateless)).collect();
    site.until("they run", |site| *site.does.begun.borrow() == 4).await;
    let (_, mut one_more) = site.call_of("org-1", "slow", Era::Stateless);
    assert_eq!(heard(&mut one_more).await, Heard::Busy);
    let (_, mut of_others) = site.call_of("org-2", "quick", Era::Stateless);
    assert!(is_answer(&heard(&mut of_others).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_ends_what_it_has_and_is_busy() {
    let site = Site::new(4, None).await;
    let (call, mut direct) = site.call("slow", Era::Stateless);
    site.until("it runs", |site| *site.does.begun.borrow() == 1).await;
    let stopping = site.worker.clone();
    let stopped = tokio::spawn(async move { stopping.shut_down(Duration::from_secs(10)).await });
    site.until("no slots", |site| site.links.free() == 0).await;
    site.does.go.send_replace(true);
    match heard(&mut direct).await {
        Heard::Registered => site.check_answer(call).await,
        other => assert!(is_answer(&other), "{other:?}"),
    }
    stopped.await.unwrap();
    site.until("the link ends", |site| site.links.workers().is_empty()).await;
}

#[test]
fn a_tool_that_blocks_the_runtime_breaks_no_link() {
    // One for the worker and its backend, as they are in one process.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Arc::new(MemoryStore::new(timing(), StoreLimits::default()));
    let does = Arc::new(Does {
        go: watch::channel(true).0,
        stopped: watch::channel(0).0,
        begun: watch::channel(0).0,
    });
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("w").display()).parse().unwrap();
    let keys = LinkKeys::random();
    let worker = runtime.block_on(async {
        let config = WorkerConfig { concurrency: 4, timing: timing(), ..WorkerConfig::new("s") };
        let (beats, links) = (store.clone(), store.clone());
        let worker =
            Worker::start(config, store.clone(), Box::new(move || beats), does.clone(), None).unwrap();
        let listener = Listener::bind(&address).unwrap();
        let calls =
            DirectCalls::new(keys.clone()).with_limits(limits()).with_listener(listener, address.clone());
        worker.take_direct(calls, Box::new(move || links)).unwrap();
        worker
    });
    runtime.block_on(async {
        let links = Links::new(Identity { name: "a".into(), server: "s".into(), keys }, limits());
        let (follows, known) = (links.clone(), store.clone());
        links.carry_in_thread(move || follows.follow(known)).unwrap();
        let site = Site { store: store.clone(), does, worker, links };
        site.until("a link", |site| site.links.free() > 0).await;
        let (call, mut direct) = site.call("block", Era::Stateless);
        // Twice as long as a lease: its record comes in time, and its owner keeps it.
        assert_eq!(heard(&mut direct).await, Heard::Registered);
        assert_eq!(site.store.peek(call).unwrap().run, Run::Running, "while the tool blocks");
        site.until("the answer is there", |site| site.store.peek(call).unwrap().out.is_some()).await;
        let record = site.store.peek(call).unwrap();
        assert_eq!((record.run, record.epoch), (Run::Done, 1));
        assert_eq!(site.links.workers().len(), 1, "the link stood");
        assert_eq!(site.store.members("links:s").await.unwrap().len(), 1);
    });
}
