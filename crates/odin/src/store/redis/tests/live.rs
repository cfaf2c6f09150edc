//! Queues, hints, restarts and oddities, in real time.

use crate::call::{Enqueue, Gone, Offer, Reach, Rerun, Timing};
use crate::id::{CallId, Ticket};
use crate::protocol::Era;
use crate::store::{Bus, Calls, Queue, Runs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Value, cmd};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::super::{Beat, Entry, NodeHint, Room, Store, StoreLimits, WorkerHint};
use super::super::{RedisStore, codec};
use super::{by, order, until};
use kit::RedisServer;

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(&server.url(), Timing::default(), StoreLimits::default()).unwrap()
}

/// Reads until there is a line, for at most ten seconds.
async fn line(store: &RedisStore, worker: &str) -> Entry {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(line) = store.next("s", worker, &Room::of(1)).await.ok().and_then(|mut lines| lines.pop())
        {
            return line;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no line came");
}

/// A new call in the queue.
async fn enqueued(store: &RedisStore, era: Era) -> CallId {
    let order = order(era, "a", 1);
    let call = CallId::random();
    assert_eq!(store.enqueue(call, order).await, Ok(Enqueue::Accepted));
    call
}

/// Waits for a hint, skipping others.
async fn woken<T: PartialEq + std::fmt::Debug>(hints: &mut mpsc::Receiver<T>, expected: T) {
    let wait = async { while hints.recv().await.unwrap() != expected {} };
    assert!(timeout(Duration::from_secs(10), wait).await.is_ok(), "no hint {expected:?}");
}

/// How often Redis ran each command since `CONFIG RESETSTAT`.
async fn commands(store: &RedisStore) -> BTreeMap<String, u64> {
    let stats = store.link.command(cmd("INFO").arg("commandstats")).await.unwrap();
    codec::text(stats)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
        })
        .collect()
}

#[tokio::test]
async fn a_quick_call_takes_five_round_trips() {
    let server = RedisServer::start();
    let store = store(&server);
    for first in [true, false] {
        let call = CallId::random();
        let order = order(Era::Stateless, "a", u64::MAX);
        store.link.command(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
        assert_eq!(store.enqueue(call, order.clone()).await, Ok(Enqueue::Accepted));

        let line = store.arrival("s", "w").await.unwrap().unwrap().entry;
        assert_eq!((line.call, line.tool.as_deref()), (call, Some("report")));
        let taken = store.take("s", "w", &line, "t", Rerun::Safe).await.unwrap().unwrap();
        assert_eq!(taken.snapshot.order, order);
        assert_eq!(taken.snapshot.epoch, 1);

        let state = store.finish(call, by("w", 1), &"out".into()).await.unwrap().unwrap();
        let Reach::Node { node, request, .. } = state.reach else { panic!("{state:?}") };
        assert_eq!((&*node, request), ("a", u64::MAX));
        let ticket = Ticket::random();
        let offer = async || store.offer(call, "a", u64::MAX, ticket, true).await.unwrap();
        assert_eq!(offer().await, Offer::Done("out".into()));

        if !first {
            let commands = commands(&store).await;
            let sent = ["evalsha", "blpop"].map(|name| commands.get(name).copied());
            assert_eq!(sent, [Some(4), Some(1)], "{commands:?}");
        }
        assert_eq!(offer().await, Offer::Done("out".into()), "the first reply may be lost");
        let beaten = store.beat("w", &[]).await.unwrap();
        assert_eq!(beaten.generation, taken.generation);
    }
}

#[tokio::test]
async fn two_workers_share_the_work() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server));
    let mut expected = BTreeSet::new();
    let work = |worker: &'static str| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let lines = store.next("s", worker, &Room::of(2)).await.unwrap();
                assert!(lines.len() <= 2);
                if lines.is_empty() {
                    return taken;
                }
                for line in lines {
                    if store.take("s", worker, &line, "t", Rerun::Safe).await.unwrap().is_some() {
                        taken.push(line.call);
                    }
                }
            }
        })
    };
    for _ in 0..60 {
        expected.insert(enqueued(&store, Era::Stateless).await);
    }
    let (one, other) = (work("v"), work("w"));
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert!(one.len() >= 12 && other.len() >= 12, "{} and {}", one.len(), other.len());
    assert_eq!(one.len() + other.len(), 60);
    assert_eq!(one.into_iter().chain(other).collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn what_a_dead_worker_read_is_found_by_another() {
    let server = RedisServer::start();
    let store = store(&server);
    let calls: BTreeSet<CallId> =
        [enqueued(&store, Era::Stateless).await, enqueued(&store, Era::Stateless).await].into();
    line(&store, "dead").await;
    line(&store, "dead").await;
    assert_eq!(store.next("s", "w", &Room::of(10)).await, Ok(vec![]), "too early");
    let mut found = BTreeSet::new();
    until("both lines", async || {
        for line in store.next("s", "w", &Room::of(1)).await.unwrap() {
            assert_eq!(line.tool.as_deref(), Some("report"));
            assert!(store.take("s", "w", &line, "t", Rerun::Safe).await.unwrap().is_some());
            found.insert(line.call);
        }
        (found.len() == 2).then_some(())
    })
    .await;
    assert_eq!(found, calls);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(store.next("s", "w", &Room::of(10)).await, Ok(vec![]), "all are acknowledged");
}

#[tokio::test]
async fn who_waits_is_woken_with_the_line_and_may_pass_it_on() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server));
    let wait = |worker: &'static str| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                if let Some(line) = store.arrival("s", worker).await.unwrap() {
                    return line;
                }
            }
        })
    };
    let first = wait("v");
    // Redis serves them in the order in which they came.
    until("the first waits", async || (commands(&store).await.get("blpop") >= Some(&1)).then_some(())).await;
    let second = wait("w");
    let call = enqueued(&store, Era::Stateless).await;
    let line = first.await.unwrap();
    assert_eq!((line.entry.call, line.entry.tool.as_deref(), line.passed), (call, Some("report"), 0));
    assert_eq!(line.entry.parties, order(Era::Stateless, "a", 1).parties());
    store.pass_on("s", &line).await.unwrap();
    let line = second.await.unwrap();
    assert_eq!((line.entry.call, line.passed), (call, 1));
    // It waits for its turn all the same, and can be taken without.
    assert!(store.take("s", "w", &line.entry, "t", Rerun::Safe).await.unwrap().is_some());
    assert_eq!(store.next("s", "w", &Room::of(9)).await, Ok(vec![]));
    // Nobody is woken for what is taken, and not for ever for what nobody may take.
    store.pass_on("s", &line).await.unwrap();
    let call = enqueued(&store, Era::Stateless).await;
    let mut line = wait("v").await.unwrap();
    for passed in 1..=40 {
        assert_eq!(line.entry.call, call);
        store.pass_on("s", &line).await.unwrap();
        let Some(next) = store.arrival("s", "v").await.unwrap() else {
            assert!(passed > 2);
            return;
        };
        assert_eq!(next.passed, passed);
        line = next;
    }
    panic!("the line goes round and round");
}

#[tokio::test]
async fn hints_reach_node_and_worker() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut node = store.node_hints("a").await.unwrap();
    let mut worker = store.worker_hints("w").await.unwrap();
    woken(&mut node, NodeHint::All).await;
    woken(&mut worker, WorkerHint::All).await;

    let call = enqueued(&store, Era::Stateful).await;
    let entry = line(&store, "w").await;
    store.take("s", "w", &entry, "t", Rerun::Safe).await.unwrap().unwrap();
    store.emit(call, by("w", 1), 1, &["e".into()]).await.unwrap().unwrap();
    woken(&mut node, NodeHint::Request(1)).await;
    assert!(store.post(call, "session", "hello".into()).await.unwrap());
    woken(&mut worker, WorkerHint::Call(call)).await;
    store.cancel("session", "1").await.unwrap();
    woken(&mut worker, WorkerHint::Call(call)).await;
    woken(&mut node, NodeHint::Request(1)).await;

    // More than fit while nobody looks: what is lost becomes one hint to look at everything.
    for _ in 0..2000 {
        store.link.command(cmd("PUBLISH").arg("asgard:node:a").arg("7")).await.unwrap();
    }
    woken(&mut node, NodeHint::All).await;
    store.link.command(cmd("PUBLISH").arg("asgard:node:a").arg("8")).await.unwrap();
    woken(&mut node, NodeHint::Request(8)).await;
    // A dropped receiver ends its subscription.
    drop(node);
    until("the end of the subscription", async || {
        let reply = store.link.command(cmd("PUBLISH").arg("asgard:node:a").arg("9")).await.unwrap();
        (reply == Value::Int(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn everything_comes_back_after_a_restart() {
    let mut server = RedisServer::start();
    let store = Arc::new(store(&server));
    let mut hints = store.worker_hints("w").await.unwrap();
    woken(&mut hints, WorkerHint::All).await;
    let call = enqueued(&store, Era::Stateless).await;
    let entry = line(&store, "w").await;
    let taken = store.take("s", "w", &entry, "t", Rerun::Safe).await.unwrap().unwrap();
    let reader = tokio::spawn({
        let store = Arc::clone(&store);
        async move { line(&store, "w").await }
    });

    server.kill();
    for _ in 0..3 {
        let started = Instant::now();
        store.beat("w", &[]).await.unwrap_err();
        store.next("s", "v", &Room::of(1)).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(1), "a refused connection needs no waiting");
    }
    server.restart();
    let started = Instant::now();
    let beat = Beat { call, epoch: 1, subscribed: true };
    let beaten = until("an answer", async || store.beat("w", &[beat]).await.ok()).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_ne!(beaten.generation, taken.generation);
    assert_eq!(beaten.views, [Err(Gone::Missing)]);
    woken(&mut hints, WorkerHint::All).await;

    let state = store.restore(call, "w", taken.snapshot.clone()).await.unwrap().unwrap();
    assert!(matches!(&state.reach, Reach::Node { node, request: 1, .. } if node == "a"), "{state:?}");
    let repeated = store.restore(call, "w", taken.snapshot.clone()).await.unwrap();
    assert_eq!(repeated, Ok(state.clone()), "the first reply may be lost");
    assert_eq!(store.restore(call, "v", taken.snapshot).await, Ok(Err(Gone::Fenced)));
    let next = enqueued(&store, Era::Stateless).await;
    assert_eq!(reader.await.unwrap().call, next);
    let again = store.beat("w", &[beat]).await.unwrap();
    assert_eq!(again.generation, beaten.generation);
    assert_eq!(again.views, [Ok(state)]);
    store.post(call, "none", "x".into()).await.unwrap();

    // Emptied under a waiting reader, without a lost connection.
    let reader = tokio::spawn({
        let store = Arc::clone(&store);
        async move { line(&store, "w").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.link.command(&cmd("FLUSHALL")).await.unwrap();
    store.link.command(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    let next = enqueued(&store, Era::Stateless).await;
    assert_eq!(reader.await.unwrap().call, next);
}

#[tokio::test]
async fn a_redis_that_is_silent_or_not_there_yet_is_told_so_soon() {
    let mut server = RedisServer::start();
    server.kill();
    let store = store(&server);
    store.ping().await.unwrap_err();
    server.restart();
    until("an answer", async || store.ping().await.ok()).await;

    server.freeze();
    let started = Instant::now();
    store.ping().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
    // Many that wait don't wait one after the other.
    let started = Instant::now();
    let all = futures::future::join_all((0..50).map(|_| store.ping())).await;
    assert!(all.iter().all(Result::is_err));
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
    server.thaw();
    let started = Instant::now();
    until("an answer", async || store.ping().await.ok()).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn foreign_and_broken_keys_harm_only_themselves() {
    let server = RedisServer::start();
    let timing = Timing { lease: Duration::from_millis(100), ..Timing::default() };
    let store = RedisStore::connect(&server.url(), timing, StoreLimits::default()).unwrap();
    let run = async |command: &[&str]| {
        let (name, arguments) = command.split_first().unwrap();
        store.link.command(cmd(name).arg(arguments)).await.unwrap()
    };
    // A line that names no call is thrown away, and so is who seems to have lines and has none.
    run(&["ZADD", "asgard:waiting:s", "0", "foreign"]).await;
    run(&["ZADD", "asgard:lines:by:s", "0", "foreign"]).await;
    run(&["ZADD", "asgard:principals:of:s", "0", "by", "1", "nobody"]).await;
    run(&["ZADD", "asgard:organisations:s", "0", "of", "1", "nothing"]).await;
    let good = enqueued(&store, Era::Stateless).await;
    let entry = line(&store, "w").await;
    assert_eq!(entry.call, good);
    store.take("s", "w", &entry, "t", Rerun::Safe).await.unwrap().unwrap();

    let call = |n: u8| CallId::from_bits([n; 16]);
    let at = |n: u8| format!("asgard:call:{}", call(n));
    run(&["SET", &at(1), "text"]).await;
    run(&["HSET", &at(2), "run", "running", "epoch", "many"]).await;
    // Fit to be owned, but not to be shown.
    let fields = "epoch 1 events 0 channels 0 enqueued 0 run running closed 0 cancel 0 server s era modern";
    let mut command = vec!["HSET"];
    let key = at(3);
    command.push(&key);
    command.extend(fields.split(' '));
    run(&command).await;
    // The events of this one are no list.
    let key = at(4);
    command[1] = &key;
    run(&command).await;
    run(&["SET", &format!("asgard:log:{}", call(4)), "text"]).await;
    let beats: Vec<Beat> = [call(1), call(2), call(3), call(4), good]
        .map(|call| Beat { call, epoch: 1, subscribed: true })
        .into();
    for n in 1..=4 {
        run(&["ZADD", "asgard:leases:s", "1", &call(n).to_string()]).await;
    }
    tokio::time::sleep(Duration::from_millis(150)).await;

    let claimed = until("the good one", async || {
        let claimed = store.claim("s", "v", 10, u64::MAX).await.unwrap();
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    assert_eq!(claimed.iter().map(|claimed| claimed.call).collect::<Vec<_>>(), [good]);
    let beaten = store.beat("w", &beats).await.unwrap();
    assert_eq!(beaten.views[..2], [Err(Gone::Missing), Err(Gone::Missing)]);
    assert_eq!(beaten.views[4], Err(Gone::Fenced), "claimed by the other worker");
    assert_eq!(store.finish(call(1), by("w", 1), &"out".into()).await, Ok(Err(Gone::Missing)));
    // A broken key does not stand in the way of a new call of that name.
    assert_eq!(store.enqueue(call(1), order(Era::Stateless, "a", 1)).await, Ok(Enqueue::Accepted));
}

#[tokio::test]
async fn a_redis_that_was_paused_takes_no_call_from_a_worker_that_lives() {
    let server = RedisServer::start();
    let (owner, other) = (store(&server), store(&server));
    let call = enqueued(&owner, Era::Stateless).await;
    let entry = line(&owner, "w").await;
    assert!(owner.take("s", "w", &entry, "t", Rerun::Unsafe).await.unwrap().is_some());
    let beats = [Beat { call, epoch: 1, subscribed: true }];
    let now = other.beat("v", &[]).await.unwrap().now;
    assert_eq!(other.claim("s", "v", 10, now + 500).await, Ok(vec![]), "Redis has the script");
    server.freeze();
    // Nobody waits for it any more when it is carried out.
    assert!(other.claim("s", "v", 10, now + 500).await.is_err());
    tokio::time::sleep(Timing::default().lease).await;
    server.thaw();
    let beaten = until("Redis answers", async || owner.beat("w", &beats).await.ok()).await;
    assert!(beaten.views[0].is_ok(), "{beaten:?}");
    assert!(beaten.now >= now + 1_500, "{beaten:?} after {now}");
    assert_eq!(other.claim("s", "v", 10, u64::MAX).await, Ok(vec![]), "the lease runs again");
    owner.finish(call, by("w", 1), &"out".into()).await.unwrap().unwrap();
}
