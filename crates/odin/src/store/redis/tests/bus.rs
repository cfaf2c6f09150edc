//! The bus: who follows gets, or is told that something is missing.

use crate::call::Timing;
use crate::store::Bus;
use std::time::Duration;

use futures::future::join_all;
use redis::{Value, cmd};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::super::{Cast, StoreLimits};
use super::super::{RedisStore, codec};
use super::until;
use kit::RedisServer;

const PATIENCE: Duration = Duration::from_secs(10);

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(&server.url(), Timing::default(), StoreLimits::default()).unwrap()
}

fn topics(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn next(follower: &mut mpsc::Receiver<Cast>) -> Option<(String, String)> {
    let cast = timeout(PATIENCE, follower.recv()).await.expect("nothing was cast")?;
    Some((cast.0.to_string(), cast.1.to_string()))
}

fn cast(topic: &str, message: &str) -> Option<(String, String)> {
    Some((topic.to_owned(), message.to_owned()))
}

#[tokio::test]
async fn what_is_cast_after_follow_returned_arrives_in_order_in_every_process() {
    let server = RedisServer::start();
    let (here, there) = (store(&server), store(&server));
    let mut own = here.follow(&topics(&["a", "b"])).await.unwrap();
    let mut others = there.follow(&topics(&["b"])).await.unwrap();
    for (topic, message) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "ä\n%")] {
        here.cast(topic, message.into()).await.unwrap();
    }
    assert_eq!(next(&mut own).await, cast("a", "1"));
    assert_eq!(next(&mut own).await, cast("b", "2"));
    assert_eq!(next(&mut own).await, cast("a", "ä\n%"));
    assert_eq!(next(&mut others).await, cast("b", "2"));
    // A later follower of the same topic gets what comes from then on.
    let mut late = here.follow(&topics(&["b"])).await.unwrap();
    there.cast("b", "4".into()).await.unwrap();
    for follower in [&mut own, &mut others, &mut late] {
        assert_eq!(next(follower).await, cast("b", "4"));
    }
}

#[tokio::test]
async fn a_thousand_followers_share_one_connection_and_leave_nothing_behind() {
    let server = RedisServer::start();
    let store = store(&server);
    let clients = async |kind: &str| {
        let list = store.link.command(cmd("CLIENT").arg("LIST").arg("TYPE").arg(kind)).await.unwrap();
        codec::text(list).unwrap().lines().count()
    };
    let follow = |number: usize| {
        let store = &store;
        async move { store.follow(&[format!("own-{number}"), "all".to_owned()]).await.unwrap() }
    };
    let mut followers = join_all((0..1000).map(follow)).await;
    assert_eq!(clients("pubsub").await, 1);
    store.cast("all", "x".into()).await.unwrap();
    store.cast("own-7", "y".into()).await.unwrap();
    for follower in &mut followers {
        assert_eq!(next(follower).await, cast("all", "x"));
    }
    assert_eq!(next(&mut followers[7]).await, cast("own-7", "y"));
    followers.truncate(1);
    until("the topics are left", async || {
        let channels = store.link.command(cmd("PUBSUB").arg("CHANNELS").arg("asgard:bus:*")).await.unwrap();
        matches!(channels, Value::Array(channels) if channels.len() == 2).then_some(())
    })
    .await;
    store.cast("all", "z".into()).await.unwrap();
    assert_eq!(next(&mut followers[0]).await, cast("all", "z"));
}

#[tokio::test]
async fn who_may_have_missed_something_is_ended() {
    let mut server = RedisServer::start();
    let store = store(&server);
    let mut follower = store.follow(&topics(&["a"])).await.unwrap();
    server.kill();
    assert_eq!(next(&mut follower).await, None);
    assert!(store.follow(&topics(&["a"])).await.is_err());
    assert!(store.cast("a", "lost".into()).await.is_err());
    server.restart();
    let mut follower = until("following again", async || store.follow(&topics(&["a"])).await.ok()).await;
    until("casting again", async || store.cast("a", "1".into()).await.ok()).await;
    assert_eq!(next(&mut follower).await, cast("a", "1"));
    // A Redis that hangs is one that is gone.
    server.freeze();
    assert_eq!(next(&mut follower).await, None);
    server.thaw();
    until("following again", async || store.follow(&topics(&["a"])).await.ok()).await;
}

#[tokio::test]
async fn groups_are_bounded_and_forget_their_members() {
    let server = RedisServer::start();
    let store = store(&server);
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
    assert!(store.enter("g", "a", long, 2).await.unwrap());
    assert!(store.enter("g", "b", long, 2).await.unwrap());
    assert!(!store.enter("g", "c", long, 2).await.unwrap());
    assert!(store.enter("g", "b", short, 2).await.unwrap());
    until("b expires", async || (store.members("g").await.unwrap() == ["a"]).then_some(())).await;
    assert!(store.enter("g", "c", short, 2).await.unwrap());
    assert!(store.enter("g", "a", long, 1).await.unwrap(), "a member may be renewed");
    store.leave("g", "a").await.unwrap();
    until("the group is gone", async || {
        store.members("g").await.unwrap();
        let left = store.link.command(cmd("KEYS").arg("asgard:*group*")).await.unwrap();
        matches!(left, Value::Array(keys) if keys.is_empty()).then_some(())
    })
    .await;
}
