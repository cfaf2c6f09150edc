//! Calls that are registered by their workers, or by their backends, in both homes of the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::super::{Beat, MemoryStore, NodeHint, Registered, Store, StoreLimits};
use super::super::RedisStore;
use super::{by, order, until};
use crate::call::{
    Claim, Fence, Gone, Offer, Order, Reach, Registrant, Rerun, Resume, Run, Snapshot, State, Timing,
};
use crate::id::{CallId, Ticket};
use crate::protocol::Era;
use kit::RedisServer;

const WORKER: Registrant = Registrant::Worker(Rerun::Safe);

fn homes(server: &RedisServer) -> [Arc<dyn Store>; 2] {
    homes_with(server, Timing::default().with_lease(Duration::from_millis(300)))
}

fn homes_with(server: &RedisServer, timing: Timing) -> [Arc<dyn Store>; 2] {
    let limits = StoreLimits::default();
    let redis = RedisStore::connect(&server.url(), timing, limits).unwrap();
    [Arc::new(MemoryStore::new(timing, limits)), Arc::new(redis)]
}

/// An order of the session, with this request id.
fn of_session(id: &str) -> Order {
    Order { request_id: Some(id.into()), ..order(Era::Stateful, "a", 7) }
}

async fn register(
    store: &dyn Store,
    call: CallId,
    of: &Order,
    worker: &str,
    by: Registrant,
) -> Result<Registered, Gone> {
    store.register(call, of, worker, by).await.unwrap()
}

#[tokio::test]
async fn a_call_that_nobody_knows_is_its_workers() {
    let server = RedisServer::start();
    for store in homes(&server) {
        let (call, of) = (CallId::random(), order(Era::Stateless, "a", 7));
        for registrant in [Registrant::Backend, WORKER, WORKER] {
            let owned = register(&*store, call, &of, "w", registrant).await.unwrap();
            let Reach::Node { node, request: 7, .. } = owned.state.reach else { panic!("{owned:?}") };
            assert_eq!((node.as_str(), owned.state.event_count), ("a", 0));
        }
        assert_eq!(register(&*store, call, &of, "v", WORKER).await, Err(Gone::Fenced));
        assert!(store.finish(call, by("w", 1), &"out".into()).await.unwrap().is_ok());
        let offer = || store.offer(call, "a", 7, Ticket::random(), false);
        for _ in 0..2 {
            assert_eq!(offer().await.unwrap(), Offer::Done("out".into()));
            assert_eq!(register(&*store, call, &of, "w", WORKER).await, Err(Gone::Missing), "it is over");
        }
    }
}

#[tokio::test]
async fn a_call_that_was_cancelled_before_is_closed() {
    let server = RedisServer::start();
    for store in homes(&server) {
        // An older call of the same id does not hide it.
        let (old, new, later) = (CallId::random(), CallId::random(), CallId::random());
        register(&*store, old, &of_session("1"), "w", WORKER).await.unwrap();
        store.cancel("session", "1").await.unwrap();
        assert!(register(&*store, old, &of_session("1"), "w", WORKER).await.unwrap().state.cancel);
        for (call, registrant) in [(new, WORKER), (later, Registrant::Backend)] {
            let reply = register(&*store, call, &of_session("1"), "w", registrant).await;
            assert_eq!(reply, Err(Gone::Missing));
            let offer = store.offer(call, "a", 7, Ticket::random(), true).await.unwrap();
            assert_eq!(offer, Offer::Cancelled);
        }
        let other = register(&*store, CallId::random(), &of_session("2"), "w", WORKER).await.unwrap();
        assert!(!other.state.cancel);
    }
}

#[tokio::test]
async fn whoever_claims_a_call_that_a_backend_registered_decides_whether_it_runs_again() {
    let server = RedisServer::start();
    for store in homes(&server) {
        let (adopted, known) = (CallId::random(), CallId::random());
        let of = order(Era::Stateful, "a", 7);
        register(&*store, adopted, &of, "w", Registrant::Backend).await.unwrap();
        register(&*store, known, &of, "w", Registrant::Worker(Rerun::Unsafe)).await.unwrap();
        let mut claimed = Vec::new();
        until("both are claimed", async || {
            claimed.extend(store.claim("s", "v", 10, u64::MAX).await.unwrap());
            (claimed.len() == 2).then_some(())
        })
        .await;
        let of_call = |call| claimed.iter().find(|claimed| claimed.call == call).unwrap();
        assert_eq!(of_call(known).claim, Claim::Publish { out: "lost".into() });
        assert_eq!((&of_call(adopted).claim, of_call(adopted).snapshot.rerun), (&Claim::Run, None));
        assert_eq!(register(&*store, adopted, &of, "w", WORKER).await, Err(Gone::Fenced));
    }
}

#[tokio::test]
async fn a_client_is_there_as_long_as_its_request_asks() {
    let server = RedisServer::start();
    let silence = Duration::from_millis(400);
    for store in homes_with(&server, Timing::default().with_silence(silence)) {
        let (call, of) = (CallId::random(), order(Era::Stateful, "a", 7));
        register(&*store, call, &of, "w", WORKER).await.unwrap();
        let beat = [Beat { call, epoch: 1, subscribed: false }];
        let reach = async || {
            let state = store.beat("w", &beat).await.unwrap().views.remove(0).unwrap();
            state.reach
        };
        let begun = Instant::now();
        while begun.elapsed() < silence * 2 {
            // A wait that was too long, on a busy machine, shows nothing.
            let asked = Instant::now();
            let offer = store.offer(call, "a", 7, Ticket::random(), false).await.unwrap();
            assert_eq!(offer, Offer::Wait);
            tokio::time::sleep(silence / 20).await;
            let reach = reach().await;
            assert!(matches!(reach, Reach::Node { .. }) || asked.elapsed() > silence, "{reach:?}");
        }
        until("nobody asks", async || (reach().await == Reach::None).then_some(())).await;
    }
}

#[tokio::test]
async fn what_the_store_forgot_of_an_adopted_call_its_worker_brings_back() {
    let server = RedisServer::start();
    for store in homes(&server) {
        // The worker had registered, and two events were written down, before the store lost its memory.
        let (call, of, ticket) = (CallId::random(), order(Era::Stateful, "a", 7), Ticket::random());
        register(&*store, call, &of, "w", Registrant::Backend).await.unwrap();
        let fence = by("w", 1);
        assert_eq!(store.emit(call, fence, 3, &["3".into()]).await.unwrap(), Err(Gone::Missing));
        assert_eq!(store.finish(call, fence, &"out".into()).await.unwrap(), Err(Gone::Missing));
        let beat = [Beat { call, epoch: 1, subscribed: false }];
        assert_eq!(store.beat("w", &beat).await.unwrap().views, [Err(Gone::Missing)]);
        assert_eq!(store.offer(call, "a", 7, ticket, true).await.unwrap(), Offer::Offered);
        let snapshot = |epoch| Snapshot {
            order: of.clone(),
            epoch,
            run: Run::Running,
            rerun: Some(Rerun::Safe),
            state: State {
                reach: Reach::Node { node: "a".into(), request: 7, asked: 0 },
                event_count: 2,
                cancel: false,
            },
            out: None,
            log: vec!["1".into(), "2".into()],
            channels: 0,
        };
        assert_eq!(store.restore(call, "v", snapshot(1)).await.unwrap(), Err(Gone::Fenced));
        for _ in 0..2 {
            let state = store.restore(call, "w", snapshot(1)).await.unwrap().unwrap();
            assert!(matches!(state.reach, Reach::Offered { .. }), "{state:?}");
            assert_eq!(state.event_count, 2);
        }
        assert_eq!(store.emit(call, fence, 3, &["3".into()]).await.unwrap().unwrap().event_count, 3);
        // The client that was offered meanwhile is held.
        assert!(store.hold(ticket, &of.assertion).await.unwrap().is_some());
        assert!(store.finish(call, fence, &"out".into()).await.unwrap().is_ok());
        let resumed = store.resume(call, "session", 0, None).await.unwrap();
        let Resume::Replay { events } = &resumed else { panic!("{resumed:?}") };
        assert_eq!(events.iter().map(|event| &**event).collect::<Vec<_>>(), ["1", "2", "3", "out"]);
    }
}

#[tokio::test]
async fn a_node_that_the_worker_tells_itself_is_not_hinted() {
    let server = RedisServer::start();
    for store in homes(&server) {
        let mut hints = store.node_hints("a").await.unwrap();
        let (told, elsewhere, last) = (CallId::random(), CallId::random(), CallId::random());
        for (call, request) in [(told, 7), (elsewhere, 8), (last, 9)] {
            register(&*store, call, &order(Era::Stateless, "a", request), "w", WORKER).await.unwrap();
        }
        until("subscribed", async || {
            store.emit(last, by("w", 1), 1, &["e".into()]).await.unwrap().unwrap();
            tokio::time::timeout(Duration::from_millis(100), hints.recv()).await.ok()
        })
        .await;
        let linked = |node| Fence { linked: Some(node), ..by("w", 1) };
        store.emit(told, linked("a"), 1, &["e".into()]).await.unwrap().unwrap();
        store.finish(told, linked("a"), &"out".into()).await.unwrap().unwrap();
        // A link with another backend is of no use to this one.
        store.emit(elsewhere, linked("b"), 1, &["e".into()]).await.unwrap().unwrap();
        store.finish(elsewhere, linked("b"), &"out".into()).await.unwrap().unwrap();
        let mut came = Vec::new();
        while came.iter().filter(|hint| **hint == NodeHint::Request(8)).count() < 2 {
            came.push(tokio::time::timeout(Duration::from_secs(10), hints.recv()).await.unwrap().unwrap());
        }
        assert!(!came.contains(&NodeHint::Request(7)), "{came:?}");
    }
}
