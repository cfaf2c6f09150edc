//! Nothing stays in Redis.

use crate::call::{Enqueue, Message, Offer, Order, Rerun, Timing, Withdraw};
use crate::id::{CallId, Ticket};
use crate::protocol::Era;
use crate::store::{Calls, Queue, Runs};
use std::time::Duration;

use redis::{Value, cmd};

use super::super::super::{Beat, Entry, Inbox, Room, StoreLimits};
use super::super::scripts::Clock;
use super::super::{RedisStore, codec};
use super::{by, order, until};
use kit::RedisServer;

struct Site {
    store: RedisStore,
}

impl Site {
    async fn enqueue(&self, order: &Order) -> CallId {
        let call = CallId::random();
        assert_eq!(self.store.enqueue(call, order.clone()).await, Ok(Enqueue::Accepted));
        call
    }

    async fn line(&self) -> Entry {
        until("a line", async || self.store.next("s", "w", &Room::of(1)).await.unwrap().pop()).await
    }

    async fn take(&self, order: &Order) -> CallId {
        let call = self.enqueue(order).await;
        let line = self.line().await;
        assert_eq!(line.call, call);
        self.store.take("s", "w", &line, "t", Rerun::Safe).await.unwrap().unwrap();
        call
    }

    /// Takes a new call; lines of cancelled ones before it lead to nothing.
    async fn take_after_cancelled(&self, order: &Order) -> CallId {
        let call = self.enqueue(order).await;
        until("the call", async || {
            let line = self.line().await;
            let taken = self.store.take("s", "w", &line, "t", Rerun::Safe).await.unwrap();
            (taken.is_some() && line.call == call).then_some(())
        })
        .await;
        call
    }

    async fn keys(&self) -> Vec<String> {
        let keys = self.store.link.command(cmd("KEYS").arg("*")).await.unwrap();
        let keys: Vec<String> =
            codec::items(keys).unwrap().into_iter().map(|key| codec::text(key).unwrap()).collect();
        keys.into_iter().filter(|key| !key.ends_with(":generation")).collect()
    }
}

#[tokio::test]
async fn nothing_is_left_when_the_times_have_passed() {
    let server = RedisServer::start();
    let timing = Timing {
        lease: Duration::from_millis(300),
        keep: Duration::from_millis(400),
        tombstone: Duration::from_millis(400),
        ..Timing::default()
    };
    let life = Duration::from_secs(3);
    let limits = StoreLimits::default();
    let store = RedisStore::with_clock(&server.url(), timing, limits, life, Clock::Redis).unwrap();
    let site = Site { store };
    let store = &site.store;
    let out = || "out".into();
    let modern = order(Era::Stateless, "a", 1);
    let session = order(Era::Stateful, "a", 2);
    let with_id = |id: &str| Order { request_id: Some(id.into()), ..order(Era::Stateful, "a", 2) };

    // A call that is answered stays for a while, in case the reply was lost.
    let call = site.take(&modern).await;
    store.finish(call, by("w", 1), &out()).await.unwrap().unwrap();
    assert_eq!(store.offer(call, "a", 1, Ticket::random(), true).await, Ok(Offer::Done(out())));
    assert_eq!(store.offer(call, "a", 1, Ticket::random(), true).await, Ok(Offer::Done(out())));
    let left = site.keys().await;
    let lasting = [":number:", ":bell:", ":call:"];
    assert!(left.iter().all(|key| lasting.iter().any(|kind| key.contains(kind))), "{left:?}");
    assert_eq!(store.withdraw(CallId::random(), "a", 3).await, Ok(Withdraw::Missing));

    // Finished in a session, held with events, cancelled, given up, and resumed: kept for a time.
    let call = site.take(&session).await;
    store.emit(call, by("w", 1), 1, &["e".into()]).await.unwrap().unwrap();
    assert!(store.post(call, "session", "m".into()).await.unwrap());
    let shown = Ticket::random();
    assert_eq!(store.offer(call, "a", 2, shown, true).await, Ok(Offer::Offered));
    assert!(store.hold(shown, "a1").await.unwrap().is_some());
    store.gate(call, by("w", 1), 1).await.unwrap().unwrap();
    store.finish(call, by("w", 1), &out()).await.unwrap().unwrap();
    store.published(call, by("w", 1)).await.unwrap().unwrap();
    site.enqueue(&session).await;
    store.cancel("session", "1").await.unwrap();
    let call = site.take_after_cancelled(&modern).await;
    store.abandon(call, "a", 1).await.unwrap();
    assert_eq!(store.drop_work(call, by("w", 1)).await, Ok(Ok(None)));

    // Everybody dies: in the queue, at work with messages, with a lease that nobody claims.
    site.enqueue(&modern).await;
    site.enqueue(&with_id("2")).await;
    site.line().await;
    let call = site.take_after_cancelled(&with_id("3")).await;
    for _ in 0..2 {
        site.enqueue(&modern).await;
    }
    store.emit(call, by("w", 1), 1, &["e".into()]).await.unwrap().unwrap();
    assert!(store.post(call, "session", "m".into()).await.unwrap());
    // A cancellation that nothing follows; it is remembered for ten seconds.
    store.cancel("nobody's", "1").await.unwrap();

    let keys = site.keys().await;
    let kinds = "call log inbox leases ticket withdrawn ids cancel waiting number lines principals organisations \
                 read bell open";
    for kind in kinds.split(' ') {
        assert!(keys.iter().any(|key| key.contains(&format!(":{kind}:"))), "no {kind} in {keys:?}");
    }
    for key in &keys {
        let left = store.link.command(cmd("PTTL").arg(key)).await.unwrap();
        assert!(matches!(left, Value::Int(-2 | 1..=10_000)), "{key} stays: {left:?}");
    }
    until("an empty Redis", async || {
        site.keys().await.iter().all(|key| key.contains(":cancel:")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_at_work_outlives_the_time_of_its_parts() {
    let server = RedisServer::start();
    let life = Duration::from_millis(600);
    let limits = StoreLimits::default();
    let store = RedisStore::with_clock(&server.url(), Timing::default(), limits, life, Clock::Redis).unwrap();
    let site = Site { store };
    let call = site.take(&order(Era::Stateful, "a", 2)).await;
    site.store.emit(call, by("w", 1), 1, &["e".into()]).await.unwrap().unwrap();
    assert!(site.store.post(call, "session", "m".into()).await.unwrap());
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let beat = Beat { call, epoch: 1, subscribed: true };
        site.store.beat("w", &[beat]).await.unwrap().views[0].as_ref().unwrap();
    }
    site.store.cancel("session", "1").await.unwrap();
    let beat = Beat { call, epoch: 1, subscribed: true };
    let view = site.store.beat("w", &[beat]).await.unwrap().views.remove(0).unwrap();
    assert!(view.cancel, "still found by its request id");
    let inbox = async |after| site.store.inbox(call, by("w", 1), after).await.unwrap();
    let waiting = Inbox { last: 1, messages: vec![Message::from("m")] };
    assert_eq!(inbox(0).await, waiting);
    assert_eq!(inbox(0).await, waiting, "until it is said that it arrived");
    assert_eq!(inbox(1).await, Inbox { last: 1, messages: vec![] });
}
