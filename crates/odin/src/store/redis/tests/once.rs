//! What is good for once, in both homes of the store.

use crate::call::Timing;
use crate::store::Sessions;
use std::sync::Arc;
use std::time::Duration;

use super::super::super::{MemoryStore, Store, StoreLimits};
use super::super::RedisStore;
use super::until;
use kit::RedisServer;

#[tokio::test]
async fn a_thing_is_used_in_one_name_until_it_is_forgotten() {
    let server = RedisServer::start();
    let limits = StoreLimits::default();
    let redis = || RedisStore::connect(&server.url(), Timing::default(), limits).unwrap();
    let memory = Arc::new(MemoryStore::new(Timing::default(), limits));
    let homes: [(Arc<dyn Store>, Arc<dyn Store>); 2] =
        [(memory.clone(), memory), (Arc::new(redis()), Arc::new(redis()))];
    for (here, there) in homes {
        let long = Duration::from_secs(60);
        assert_eq!(here.use_once("n", "a", long).await.unwrap(), "a");
        assert_eq!(there.use_once("n", "b", long).await.unwrap(), "a");
        assert_eq!(there.use_once("n", "a", long).await.unwrap(), "a", "the same command again");
        assert_eq!(there.use_once("m", "b", long).await.unwrap(), "b");

        assert_eq!(here.use_once("short", "a", Duration::from_millis(50)).await.unwrap(), "a");
        until("it is forgotten", async || {
            (there.use_once("short", "b", long).await.unwrap() == "b").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn one_process_remembers_a_bounded_number() {
    let limits = StoreLimits { used: 1, ..StoreLimits::default() };
    let store = MemoryStore::new(Timing::default(), limits);
    let long = Duration::from_secs(60);
    assert_eq!(store.use_once("n", "a", long).await.unwrap(), "a");
    assert!(store.use_once("m", "a", long).await.is_err());
    assert_eq!(store.use_once("n", "b", long).await.unwrap(), "a");
}
