//! Replies that are lost on the way.

use crate::call::{Enqueue, Message, Offer, Read, Rerun, Timing, Withdraw};
use crate::id::{CallId, Ticket};
use crate::protocol::Era;
use crate::store::{Bus, Calls, Queue, Runs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Value, cmd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::super::{Room, Store, StoreLimits};
use super::super::RedisStore;
use super::{by, order, until};
use kit::RedisServer;

/// A store whose way to Redis loses the next reply when it is told to: the command is carried out, and the
/// connection breaks.
struct Lossy {
    store: RedisStore,
    lose: Arc<AtomicBool>,
}

impl Lossy {
    async fn start(server: &RedisServer) -> Self {
        let target = server.url().strip_prefix("redis://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let lose = Arc::new(AtomicBool::new(false));
        let loses = lose.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target.clone(), loses.clone()));
            }
        });
        let store = RedisStore::connect(&url, Timing::default(), StoreLimits::default()).unwrap();
        let lossy = Self { store, lose };
        lossy.store.ping().await.unwrap();
        lossy
    }

    /// The store, whose next reply is lost.
    fn losing(&self) -> &RedisStore {
        self.lose.store(true, Ordering::SeqCst);
        &self.store
    }

    /// Whether the reply was lost.
    fn has_lost(&self) -> bool {
        !self.lose.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, target: String, lose: Arc<AtomicBool>) {
    let mut redis = TcpStream::connect(target).await.unwrap();
    let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count @ 1..) => redis.write_all(&up[..count]).await.unwrap(),
                _ => return,
            },
            read = redis.read(&mut down) => match read {
                Ok(1..) if lose.swap(false, Ordering::SeqCst) => return,
                Ok(count @ 1..) => client.write_all(&down[..count]).await.unwrap(),
                _ => return,
            },
        }
    }
}

/// Loads all scripts that are used: else the first reply is that Redis does not know them.
async fn warm(store: &RedisStore) {
    let call = CallId::random();
    store.enqueue(call, order(Era::Stateful, "warm", 1)).await.unwrap();
    let line = until("a line", async || store.next("s", "warm", &Room::of(1)).await.unwrap().pop()).await;
    store.take("s", "warm", &line, "t", Rerun::Safe).await.unwrap().unwrap();
    store.post(call, "session", "m".into()).await.unwrap();
    store.inbox(call, by("warm", 1), 0).await.unwrap();
    store.finish(call, by("warm", 1), &"out".into()).await.unwrap().unwrap();
    store.read(call, "warm", 1, 0).await.unwrap();
    store.offer(call, "warm", 1, Ticket::random(), true).await.unwrap();
    store.withdraw(call, "warm", 1).await.unwrap();
}

#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let server = RedisServer::start();
    let lossy = Lossy::start(&server).await;
    warm(&lossy.store).await;
    let lines = async || lossy.store.link.command(cmd("ZCARD").arg("asgard:waiting:s")).await.unwrap();

    let call = CallId::random();
    let session = order(Era::Stateful, "a", 1);
    assert_eq!(lossy.losing().enqueue(call, session).await, Ok(Enqueue::Unanswered));
    assert!(lossy.has_lost());
    assert_eq!(lines().await, Value::Int(1), "one line in the queue");
    let line =
        until("the line", async || lossy.store.next("s", "w", &Room::of(1)).await.unwrap().pop()).await;
    lossy.store.take("s", "w", &line, "t", Rerun::Unsafe).await.unwrap().unwrap();
    assert_eq!(lossy.store.withdraw(call, "a", 1).await, Ok(Withdraw::Running));

    lossy.losing().post(call, "session", "once".into()).await.unwrap_err();
    assert!(lossy.has_lost());
    assert_eq!(lossy.store.inbox(call, by("w", 1), 0).await.unwrap().messages, [Message::from("once")]);

    let mut heard: mpsc::Receiver<_> = lossy.store.follow(&["topic".into()]).await.unwrap();
    lossy.losing().cast("topic", "once".into()).await.unwrap_err();
    assert!(lossy.has_lost());
    lossy.store.cast("topic", "then".into()).await.unwrap();
    let next = async |heard: &mut mpsc::Receiver<_>| {
        tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap()
    };
    assert_eq!(next(&mut heard).await.map(|(_, message)| message), Some("once".into()));
    assert_eq!(next(&mut heard).await.map(|(_, message)| message), Some("then".into()));
}

#[tokio::test]
async fn a_repeated_command_says_the_same_again() {
    let server = RedisServer::start();
    let lossy = Lossy::start(&server).await;
    warm(&lossy.store).await;
    let store = &lossy.store;
    for streams in [false, true] {
        let call = CallId::random();
        store.enqueue(call, order(Era::Stateless, "a", 1)).await.unwrap();
        let line = until("the line", async || store.next("s", "w", &Room::of(1)).await.unwrap().pop()).await;
        let taken = lossy.losing().take("s", "w", &line, "one", Rerun::Unsafe).await.unwrap();
        assert_eq!(taken.map(|taken| taken.snapshot.epoch), Some(1), "somebody has to run it");
        assert!(lossy.has_lost());
        let other = store.take("s", "w", &line, "two", Rerun::Unsafe).await.unwrap();
        assert!(other.is_none(), "and one alone");

        lossy.losing().finish(call, by("w", 1), &"out".into()).await.unwrap().unwrap();
        assert!(lossy.has_lost());
        if streams {
            let read = lossy.losing().read(call, "a", 1, 0).await.unwrap();
            assert_eq!(read, Read::Events { events: vec![], out: Some("out".into()) });
        } else {
            let offer = lossy.losing().offer(call, "a", 1, Ticket::random(), true).await.unwrap();
            assert_eq!(offer, Offer::Done("out".into()));
        }
        assert!(lossy.has_lost());
    }
    let call = CallId::random();
    store.enqueue(call, order(Era::Stateless, "a", 2)).await.unwrap();
    assert_eq!(lossy.losing().withdraw(call, "a", 2).await, Ok(Withdraw::Withdrawn));
    assert!(lossy.has_lost());
}
